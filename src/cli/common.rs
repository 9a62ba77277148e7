//! What the verbs share: failures, the choice of a lab, formats, tables.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::control::api::{Reply, Request, UNEXPECTED};
use crate::model::Plan;

/// Printed by `vpclab` alone.
pub const FIRST_STEPS: &str = "\
vpclab demo                      the built-in topology, a guided story, and gone again
vpclab init > lab.vpclab.yaml    a commented starter file
vpclab up lab.vpclab.yaml        build and start it
vpclab exec web -- aws s3 ls     run a command as an instance
";

/// The exit code of a verb, or why it failed.
pub type Done = Result<u8, Failure>;

/// A message for stderr, and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub exit: u8,
    pub message: String,
}

impl Failure {
    /// Bad input or usage.
    pub fn input(message: impl Into<String>) -> Failure {
        Failure { exit: 2, message: message.into() }
    }

    /// The lab answered something else than was asked.
    pub fn unexpected() -> Failure {
        Failure::host(UNEXPECTED)
    }

    /// The host cannot.
    pub fn host(message: impl Into<String>) -> Failure {
        Failure { exit: 3, message: message.into() }
    }

    pub fn with_exit(mut self, exit: u8) -> Failure {
        self.exit = exit;
        self
    }

    pub fn print(&self) {
        if !self.message.is_empty() {
            eprintln!("vpclab: {}", self.message.trim_end());
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Failure {
        Failure::host(e.to_string())
    }
}

#[cfg(target_os = "linux")]
impl From<crate::runtime::client::ClientError> for Failure {
    fn from(e: crate::runtime::client::ClientError) -> Failure {
        Failure { exit: e.exit(), message: e.to_string() }
    }
}

/// Which lab.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct LabArg {
    /// The lab, where more than one runs
    #[arg(short = 'l', long = "lab", env = "VPCLAB_LAB", value_name = "LAB")]
    pub lab: Option<String>,
}

/// Which lab, of verbs that ask for nothing else: `down LAB` is `down -l LAB`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct LabWord {
    #[command(flatten)]
    option: LabArg,
    /// The same without -l
    #[arg(value_name = "LAB")]
    word: Option<String>,
}

impl LabWord {
    /// What is written beats the variable behind `-l`.
    pub fn lab(&self) -> Result<LabArg, Failure> {
        let by_env = std::env::var("VPCLAB_LAB").ok();
        match (&self.word, &self.option.lab) {
            (Some(word), Some(other)) if word != other && by_env.as_ref() != Some(other) => {
                Err(Failure::input(format!("two labs are named: {other} and {word}")))
            }
            (Some(word), _) => Ok(LabArg { lab: Some(word.clone()) }),
            (None, _) => Ok(self.option.clone()),
        }
    }
}

#[derive(clap::Args, Clone, Copy, Debug)]
pub struct FormatArg {
    #[arg(short = 'f', long = "format", env = "VPCLAB_FORMAT", value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
}

/// What a question is about: a running lab, or a topology alone.
#[derive(clap::Args, Clone, Debug)]
pub struct AboutArgs {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub format: FormatArg,
    /// From this topology, without a lab
    #[arg(long, env = "VPCLAB_FILE")]
    pub file: Vec<PathBuf>,
}

impl AboutArgs {
    /// The topology's; `None` where a running lab is meant.
    pub fn plan(&self) -> Result<Option<Plan>, Failure> {
        if self.file.is_empty() {
            return Ok(None);
        }
        Ok(Some(super::topology::read_files(&self.file, None)?.1.plan))
    }

    /// Asks the running lab.
    #[cfg(target_os = "linux")]
    pub fn ask(&self, request: Request) -> Result<Reply, Failure> {
        Ok(super::up::connect(&self.lab)?.ask(request)?)
    }

    #[cfg(not(target_os = "linux"))]
    pub fn ask(&self, _: Request) -> Result<Reply, Failure> {
        Err(Failure::input("labs run on Linux only; ask a topology with --file"))
    }
}

/// The topology files of a verb.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct FileArgs {
    /// Topology files, merged in this order; `-` is standard input; the one *.vpclab.yaml here if left out
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The same, as the verbs have it that can do without a topology
    #[arg(long = "file", env = "VPCLAB_FILE", value_name = "FILE")]
    pub more: Vec<PathBuf>,
    /// The lab's name instead of the file's
    #[arg(long, env = "VPCLAB_NAME")]
    pub name: Option<String>,
}

/// Which live packets, and until when.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct WatchArgs {
    /// One end of the flow: an instance, endpoint:NAME, resolver, imds or an address
    #[arg(long, env = "VPCLAB_FROM")]
    pub from: Option<String>,
    /// The other end
    #[arg(long, env = "VPCLAB_TO")]
    pub to: Option<String>,
    /// tcp, udp, icmp or a protocol's number
    #[arg(long, env = "VPCLAB_PROTO")]
    pub proto: Option<String>,
    /// A port of either end
    #[arg(long, env = "VPCLAB_PORT")]
    pub port: Option<u16>,
    /// Only what is dropped with this code
    #[arg(long, env = "VPCLAB_CODE")]
    pub code: Option<String>,
    /// End after so many packets
    #[arg(long, env = "VPCLAB_COUNT", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after so many seconds
    #[arg(long, env = "VPCLAB_SECONDS", value_name = "N")]
    pub seconds: Option<u64>,
}

impl WatchArgs {
    pub fn ask(&self) -> crate::control::api::WatchAsk {
        crate::control::api::WatchAsk {
            from: self.from.clone(),
            to: self.to.clone(),
            proto: self.proto.clone(),
            port: self.port,
            code: self.code.clone(),
            count: self.count,
            millis: self.seconds.map(|s| s.saturating_mul(1_000)),
            ..Default::default()
        }
    }
}

/// Hands on a lab's stream until it ends, Ctrl-C, or (`out`) the reader of standard output is gone. A reader that had
/// enough is no failure.
#[cfg(target_os = "linux")]
pub fn stream(
    lab: &LabArg,
    request: crate::control::api::Request,
    out: bool,
    block: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<Option<crate::control::api::StreamEnd>, Failure> {
    use crate::runtime::client::ClientError;
    let signals = crate::host::signals::block()?;
    let mut client = super::up::connect(lab)?;
    let stopper = client.stopper()?;
    std::thread::spawn(move || stopper.stop_on(&signals, out));
    match client.stream(request, || eprintln!("watching; Ctrl-C ends it"), block) {
        Ok(end) => Ok(Some(end)),
        Err(ClientError::Broken(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A time of the command line, by the rule of topology files.
///
/// # Errors
/// A sentence that names the forms.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    use crate::model::spec::fields::{TIME_FORMS, some_time};
    some_time(text).ok_or_else(|| format!("a time is written {TIME_FORMS}"))
}

/// A plain table: a header and rows, columns padded, no borders.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            widths[at] = widths[at].max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (at, cell) in cells.enumerate() {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', widths[at] - cell.chars().count() + 2));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut header.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

/// `1 endpoint`, `2 endpoints`.
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Any value as JSON on stdout.
pub fn print_json(value: &impl serde::Serialize) -> Done {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::host(e.to_string()))?;
    println!("{text}");
    Ok(0)
}

/// An end of a packet or flow: its name and address, or the address alone where nobody there has a name.
pub fn end(label: &str, addr: &str) -> String {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    if label == host { addr.to_owned() } else { format!("{label} {addr}") }
}

/// `09:06:55.123`, UTC.
pub fn clock_time(ms: u64) -> String {
    let (_, _, _, h, m, s) = crate::base::UnixTime(ms / 1000).civil();
    format!("{h:02}:{m:02}:{s:02}.{:03}", ms % 1000)
}

/// Explains from a plan alone: fresh tables, no lab.
pub fn explain_plan(
    plan: &Plan,
    ask: &crate::control::api::ExplainAsk,
) -> Result<crate::control::explain::Explanation, Failure> {
    asked(plan, |facts, engine| crate::control::explain::answer(facts, engine, ask))
}

/// The same without advice.
pub fn verdict_of_plan(
    plan: &crate::model::Plan,
    ask: &crate::control::api::ExplainAsk,
) -> Result<crate::control::explain::Explanation, Failure> {
    asked(plan, |facts, engine| crate::control::explain::verdict(facts, engine, ask))
}

fn asked<T>(
    plan: &crate::model::Plan,
    question: impl FnOnce(&crate::control::explain::Facts<'_>, crate::engine::Engine) -> Result<T, String>,
) -> Result<T, Failure> {
    use crate::control::explain::Facts;
    use crate::engine::{Engine, EngineLimits, compile};

    let program = std::sync::Arc::new(compile(plan, 1));
    let engine = Engine::new(program, EngineLimits::default());
    let zones = crate::dns::compile(plan);
    let facts = Facts { plan, zones: &zones, leaf_names: &crate::services::ca::leaf_names };
    question(&facts, engine).map_err(Failure::input)
}

/// True when the child has printed a line; false if it ended before. What else it prints finds a reader.
pub fn wait_for_line(child: &mut std::process::Child) -> bool {
    use std::io::{BufRead, BufReader};
    let Some(out) = child.stdout.take() else { return false };
    let mut reader = BufReader::new(out);
    let mut line = String::new();
    let came = reader.read_line(&mut line).is_ok_and(|n| n > 0);
    std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    came
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_address_without_a_name_is_not_told_twice() {
        assert_eq!(end("web", "10.0.1.10:40000"), "web 10.0.1.10:40000");
        assert_eq!(end("10.20.99.9", "10.20.99.9:80"), "10.20.99.9:80");
        assert_eq!(end("10.20.99.9", "10.20.99.9"), "10.20.99.9");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|n| count(n, "VPC")), ["0 VPCs", "1 VPC", "2 VPCs"]);
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("soon").is_err());
        assert!(duration("-1s").is_err());
        assert!(duration("3w").is_err());
    }

    #[test]
    fn a_lab_is_named_with_l_or_without() {
        let of = |option: Option<&str>, word: Option<&str>| {
            let lab = LabArg { lab: option.map(Into::into) };
            LabWord { option: lab, word: word.map(Into::into) }
                .lab()
                .map(|lab| lab.lab)
                .map_err(|f| (f.exit, f.message))
        };
        assert_eq!(of(None, None), Ok(None));
        assert_eq!(of(Some("a"), None), Ok(Some("a".into())));
        assert_eq!(of(None, Some("a")), Ok(Some("a".into())));
        assert_eq!(of(Some("a"), Some("a")), Ok(Some("a".into())));
        assert_eq!(of(Some("a"), Some("b")), Err((2, "two labs are named: a and b".into())));
    }
}
