//! What is printed. A reader that goes away (`vpclab ps | head -1`) or a full disk is no panic: a verb that has a lab to
//! remove still removes it, and one that follows ends.
//!
//! The macros take the place of the standard library's in all of this room.

use std::fmt;
use std::io::{self, Write};
use std::sync::Mutex;

/// Why standard output is of no use any more.
static LOST: Mutex<Option<io::ErrorKind>> = Mutex::new(None);

macro_rules! print {
    ($($text:tt)*) => { $crate::cli::screen::fact(format_args!($($text)*)) };
}

macro_rules! println {
    () => { $crate::cli::screen::fact(format_args!("\n")) };
    ($($text:tt)*) => { $crate::cli::screen::fact(format_args!("{}\n", format_args!($($text)*))) };
}

macro_rules! eprint {
    ($($text:tt)*) => { $crate::cli::screen::progress(format_args!($($text)*)) };
}

macro_rules! eprintln {
    ($($text:tt)*) => { $crate::cli::screen::progress(format_args!("{}\n", format_args!($($text)*))) };
}

/// To standard output, or nowhere once that has failed.
pub fn fact(text: fmt::Arguments<'_>) {
    if lost().is_none()
        && let Err(e) = io::stdout().write_fmt(text)
    {
        lose(&e);
    }
}

/// To standard error; nobody can be told that this fails.
pub fn progress(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(text);
}

/// Hands on what is kept back. False: nobody reads any more.
pub fn flush() -> bool {
    if let Err(e) = io::stdout().flush() {
        lose(&e);
    }
    lost().is_none()
}

/// What the program ends with: facts that could not be written were not told. A reader that had enough is no failure.
pub fn exit(code: u8) -> u8 {
    flush();
    match lost() {
        None | Some(io::ErrorKind::BrokenPipe) => code,
        Some(why) => {
            progress(format_args!("vpclab: standard output: {why}\n"));
            if code == 0 { 3 } else { code }
        }
    }
}

fn lost() -> Option<io::ErrorKind> {
    *LOST.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn lose(e: &io::Error) {
    LOST.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(e.kind());
}
