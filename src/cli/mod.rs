//! Layer 6: one file per verb.
//!
//! A verb is a module with `Args` and `run`, which gives the exit code (0 true, 1 false, 2 bad input, 3 the host cannot)
//! or a [`Failure`]. Facts go to stdout, progress and failures to stderr.

// First: its macros are for all below.
#[macro_use]
mod screen;

mod common;

mod apply;
mod bench;
mod capture;
mod clean;
mod completion;
mod demo;
mod dns;
mod doctor;
mod down;
mod drops;
mod exec;
mod explain;
mod fault;
mod flows;
mod init;
mod lab;
mod load;
mod logs;
mod ls;
mod names;
mod probe;
mod ps;
mod rows;
mod run;
mod schema;
mod services;
mod shell;
mod test;
mod topology;
mod trace;
mod up;
mod validate;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use common::{Done, Failure};

/// AWS VPCs and interface endpoints as real packets on this machine.
#[derive(Parser)]
#[command(name = "vpclab", version, disable_help_subcommand = true, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// The built-in topology, a guided story with real commands, and gone again
    Demo(demo::Args),
    /// A commented starter file on stdout
    Init(init::Args),
    /// Validate, build, start; returns when every instance answers
    #[command(alias = "deploy")]
    Up(up::Args),
    /// Stop a lab and leave nothing behind
    #[command(alias = "destroy")]
    Down(down::Args),
    /// Make a running lab equal to files, or lay a patch over it
    Apply(apply::Args),
    /// Break something in a running lab, list what is broken, mend it
    Fault(fault::Args),
    /// Remove leftovers of crashed labs
    Clean(clean::Args),
    /// Up, exec, down in one
    Run(run::Args),
    /// Run the file's checks
    Test(test::Args),
    /// Labs that run
    Ls(ls::Args),
    /// Instances, endpoints and gateways of a lab: addresses, counters, drops
    #[command(alias = "inspect")]
    Ps(ps::Args),
    /// Run a command as an instance: its network, DNS, trust, region and credentials
    Exec(exec::Args),
    /// A shell as an instance
    Shell(shell::Args),
    /// Whether and why a packet gets there, and back
    #[command(alias = "why")]
    Explain(explain::Args),
    /// What the resolver answers to an instance, and which zone says so
    Dns(dns::Args),
    /// Every name of an endpoint
    Names(names::Args),
    /// What was dropped, where and by which rule
    Drops(drops::Args),
    /// Connections and the way they take
    Flows(flows::Args),
    /// Live packets, step by step: what decided, and why
    Trace(trace::Args),
    /// Live packets as pcapng, for Wireshark and tcpdump, or as lines
    Capture(capture::Args),
    /// Output of an instance's `run` commands
    Logs(logs::Args),
    /// Training labs: something is broken, find out what and mend it
    Lab(lab::Args),
    /// What users quote, beside a kernel baseline in the same run
    Bench(bench::Args),
    /// The catalogue: what an endpoint can lead to, with its private names, ports and backend
    Services(services::Args),
    /// Check a topology without starting it
    Validate(validate::Args),
    /// JSON Schema of the topology file
    Schema(schema::Args),
    /// What this host lacks, and the command that mends it
    Doctor(doctor::Args),
    /// Completion script of a shell
    Completion(completion::Args),
    /// The version
    Version(version::Args),
    #[command(name = "__probe", hide = true)]
    Probe(probe::Args),
    #[command(name = "__load", hide = true)]
    Load(load::Args),
}

/// Verbs that are promised and not built: refused by name, not taken for a slip of the fingers.
const LATER: &[&str] = &["flowlogs", "metrics", "cost", "graph", "top", "needs", "accept", "reject", "ssh"];

/// The whole program.
pub fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    if std::env::args_os().nth(1).is_some_and(|first| first == crate::host::keeper::ROUTER_ARG) {
        return crate::runtime::node::main(std::env::args_os().skip(2));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            if let Some(later) = std::env::args().nth(1).filter(|verb| LATER.contains(&verb.as_str())) {
                eprintln!("vpclab: {later}: not in this version");
                return ExitCode::from(2);
            }
            let _ = e.print();
            if e.use_stderr() {
                tell_what_was_meant(&e.to_string());
            }
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    let done = match cli.verb {
        None => {
            print!("{}", common::FIRST_STEPS);
            Ok(0)
        }
        Some(verb) => dispatch(verb),
    };
    match done {
        Ok(code) => ExitCode::from(screen::exit(code)),
        Err(failure) => {
            failure.print();
            if failure.exit == 2 {
                tell_what_was_meant(&failure.message);
            }
            ExitCode::from(screen::exit(failure.exit))
        }
    }
}

/// After a refusal: the word of the command line that stands in the wrong place.
fn tell_what_was_meant(message: &str) {
    #[cfg(target_os = "linux")]
    let labs: Vec<String> = crate::runtime::launch::running().iter().map(|dir| dir.lab().to_owned()).collect();
    #[cfg(not(target_os = "linux"))]
    let labs: Vec<String> = Vec::new();
    let args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    if let Some(meant) = meant(&args, &labs, message) {
        eprintln!("vpclab: {meant}");
    }
}

/// A lab's name where none is asked for, or an instance's where an option names it.
fn meant(args: &[String], labs: &[String], message: &str) -> Option<String> {
    let verb = args.first()?;
    let stray = message.contains("unexpected argument");
    let words = args.iter().skip(1).take_while(|word| *word != "--");
    let flags = args.iter().take(args.len() - 1);
    for (word, before) in words.zip(flags) {
        if word.starts_with('-') || before.starts_with('-') {
            continue;
        }
        // What is wrong is this word, or that it is in the place of another.
        let about = stray || message.contains(&format!("`{word}`")) || message.starts_with(&format!("{word}: "));
        if about && labs.contains(word) {
            return Some(format!("`{word}` is a lab that runs: -l {word} names it"));
        }
        if message.contains(&format!("unexpected argument '{word}'"))
            && ["drops", "flows", "trace"].contains(&verb.as_str())
        {
            return Some(format!("--from {word} and --to {word} are {word}'s; -l names a lab"));
        }
    }
    None
}

/// Verbs that are about running labs: elsewhere than on Linux they say so.
macro_rules! on_linux {
    ($verb:ident, $args:expr) => {{
        #[cfg(target_os = "linux")]
        let done = $verb::run($args);
        #[cfg(not(target_os = "linux"))]
        let done = {
            let _: $verb::Args = $args;
            let verb = stringify!($verb);
            Err(Failure::host(format!(
                "{verb}: labs run on Linux only; validate, explain --file and dns --file work here"
            )))
        };
        done
    }};
}

fn dispatch(verb: Verb) -> Done {
    match verb {
        Verb::Demo(args) => demo::run(args),
        Verb::Init(args) => init::run(args),
        Verb::Up(args) => on_linux!(up, args),
        Verb::Down(args) => on_linux!(down, args),
        Verb::Apply(args) => on_linux!(apply, args),
        Verb::Fault(args) => on_linux!(fault, args),
        Verb::Clean(args) => on_linux!(clean, args),
        Verb::Run(args) => on_linux!(run, args),
        Verb::Test(args) => test::run(args),
        Verb::Ls(args) => on_linux!(ls, args),
        Verb::Ps(args) => ps::run(args),
        Verb::Exec(args) => on_linux!(exec, args),
        Verb::Shell(args) => on_linux!(shell, args),
        Verb::Explain(args) => explain::run(args),
        Verb::Dns(args) => dns::run(args),
        Verb::Names(args) => names::run(args),
        Verb::Drops(args) => on_linux!(drops, args),
        Verb::Flows(args) => on_linux!(flows, args),
        Verb::Trace(args) => on_linux!(trace, args),
        Verb::Capture(args) => on_linux!(capture, args),
        Verb::Logs(args) => on_linux!(logs, args),
        Verb::Lab(args) => lab::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Probe(args) => probe::run(args),
        Verb::Load(args) => load::run(args),
        Verb::Services(args) => services::run(args),
        Verb::Validate(args) => validate::run(args),
        Verb::Schema(args) => schema::run(args),
        Verb::Doctor(args) => on_linux!(doctor, args),
        Verb::Completion(args) => completion::run(args),
        Verb::Version(args) => version::run(args),
    }
}

/// For completion scripts.
fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_in_the_place_of_something_else_is_told() {
        let labs = ["shop".to_owned(), "web".to_owned()];
        let told = |line: &str, message: &str| {
            let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
            meant(&args, &labs, message)
        };
        let lab = Some("`shop` is a lab that runs: -l shop names it".to_owned());
        assert_eq!(told("exec shop api -- id", "error: unexpected argument 'api' found"), lab);
        assert_eq!(told("exec shop -- id", "no instance is named `shop`; there are: app.api"), lab);
        assert_eq!(told("test shop", "shop: No such file or directory"), lab);
        assert_eq!(told("drops shop", "error: unexpected argument 'shop' found"), lab);
        // Somebody else's mistake, and what stands where it belongs.
        assert_eq!(told("exec -l shop nobody -- shop", "no instance is named `nobody`; there are: app.api"), None);
        assert_eq!(told("explain shop nobody", "no endpoint is named `nobody`"), None);
        assert_eq!(
            told("flows api", "error: unexpected argument 'api' found"),
            Some("--from api and --to api are api's; -l names a lab".to_owned())
        );
        assert_eq!(told("ls", "no lab runs"), None);
    }
}
