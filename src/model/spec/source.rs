//! Topology files as they were handed in, and places in them.

use std::path::{Path, PathBuf};

/// The largest file that is read: 4 MiB. A topology of a thousand instances has a tenth of that.
pub const MAX_BYTES: usize = 4 << 20;

/// One file, whole. Reading it is the caller's matter; who reads should stop at [`MAX_BYTES`] and one more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As reports show it; the folder of relative paths in the file. `-` is standard input.
    pub path: String,
    pub bytes: Vec<u8>,
}

impl Source {
    pub fn new(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Source {
        Source { path: path.into(), bytes: bytes.into() }
    }

    /// Where relative paths in the file begin.
    pub fn folder(&self) -> PathBuf {
        match Path::new(&self.path).parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        }
    }

    /// The text, as far as it is UTF-8.
    pub fn text(&self) -> &str {
        match std::str::from_utf8(&self.bytes) {
            Ok(t) => t,
            Err(e) => std::str::from_utf8(&self.bytes[..e.valid_up_to()]).unwrap_or_default(),
        }
    }
}

/// A span of bytes in one of the sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Index of the source.
    pub file: u32,
    pub start: u32,
    pub end: u32,
}

impl Place {
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// A source's text with the beginnings of its lines, so that many places can be looked up.
pub struct Lines<'a> {
    pub text: &'a str,
    /// Byte of each line's beginning.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub fn of(source: &'a Source) -> Lines<'a> {
        let text = source.text();
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(n, _)| n + 1)).collect();
        Lines { text, starts }
    }

    /// Line and column of a byte, both from 1; the column counts characters.
    pub fn line_col(&self, at: usize) -> (usize, usize) {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let line = self.starts.partition_point(|s| *s <= at);
        let start = self.starts[line - 1];
        (line, self.text[start..at].chars().count() + 1)
    }
}
