//! `vpclab apply`.

use std::path::PathBuf;

use super::common::{Done, FormatArg, LabArg};
#[cfg(target_os = "linux")]
use super::common::{Failure, Format, print_json};
use crate::control::api::{AnewRow, Applied};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vpclab apply lab.vpclab.yaml            the lab becomes what the file says
  vpclab apply --patch fix.yaml           the patch over what runs
  vpclab apply --patch fix.yaml --dry-run

What did not change is not touched; a refused change leaves the lab as it was.")]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub format: FormatArg,
    /// Topology files, merged in this order; `-` is standard input; the one *.vpclab.yaml here if left out
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Merge this over what the lab was last given (RFC 7396), may be given several times; `-` is standard input
    #[arg(long, env = "VPCLAB_PATCH", value_name = "FILE", num_args = 1.., conflicts_with = "files")]
    pub patch: Vec<PathBuf>,
    /// Only print what would change
    #[arg(long, env = "VPCLAB_DRY_RUN")]
    pub dry_run: bool,
}

/// How often a patch is laid again over a text that others have changed meanwhile.
#[cfg(target_os = "linux")]
const TRIES: usize = 10;

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    use crate::control::api::{Reply, Request};
    use crate::control::store::{self, Accepted};
    use crate::model::Standing;

    let mut client = connect(&args)?;
    let patches = args.patch.iter().map(|path| super::topology::source(path)).collect::<Result<Vec<_>, Failure>>()?;
    for _ in 0..TRIES {
        let Reply::Source(base) = client.ask(Request::Source)? else { return Err(Failure::unexpected()) };
        let running = store::load(&base).map_err(|report| Failure::host(report.render(false)))?;
        let standing = Standing::of(&running);
        let (accepted, count): (Accepted, Option<usize>) = if patches.is_empty() {
            (super::topology::read_over(&args.files, &base.name, &standing)?, None)
        } else {
            (super::topology::patch(&base, &patches, &standing)?, Some(patches.len()))
        };
        let ask = Request::Apply { accepted: Box::new(accepted), patches: count, dry_run: args.dry_run };
        match client.ask(ask)? {
            Reply::Applied(applied) => return show(&applied, args.format.format),
            // Somebody else's change came first.
            Reply::Stale => {}
            _ => return Err(Failure::unexpected()),
        }
    }
    Err(Failure::host("the lab is changed by others all the time; nothing was applied"))
}

/// To the lab that is meant: `-l`, the one that the files name where several run, or the only one.
#[cfg(target_os = "linux")]
fn connect(args: &Args) -> Result<crate::runtime::client::Client, Failure> {
    let mut lab = args.lab.clone();
    // Standard input cannot be read twice.
    let from_stdin = args.files.iter().any(|path| path.as_os_str() == "-");
    if lab.lab.is_none() && args.patch.is_empty() && !from_stdin && crate::runtime::launch::running().len() > 1 {
        lab.lab = super::topology::name_of(&args.files);
    }
    super::up::connect(&lab)
}

#[cfg(target_os = "linux")]
fn show(applied: &Applied, format: Format) -> Done {
    use std::io::IsTerminal;

    if format == Format::Json {
        return print_json(applied);
    }
    let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print!("{}", render(applied, color));
    for warning in &applied.warnings {
        eprintln!("vpclab: warning: {warning}");
    }
    if !applied.dry_run {
        super::screen::flush();
        eprintln!(
            "{}: in force after {:.1} ms, the whole change took {:.0} ms.",
            applied.lab,
            applied.published_us as f64 / 1e3,
            applied.total_us as f64 / 1e3
        );
    }
    Ok(0)
}

/// One line for each object, one more for each attribute that differs.
pub fn render(applied: &Applied, color: bool) -> String {
    let mut out = String::new();
    let mut line = |sign: char, text: &str| {
        let (on, off) = match sign {
            _ if !color => ("", ""),
            '+' => ("\x1b[32m", "\x1b[0m"),
            '-' => ("\x1b[31m", "\x1b[0m"),
            _ => ("\x1b[33m", "\x1b[0m"),
        };
        out.push_str(&format!("{on}{sign} {text}{off}\n"));
    };
    let show = |text: &str| if text.is_empty() { "nothing".to_owned() } else { text.to_owned() };
    for change in &applied.changes {
        let mut text = format!("{} {}", change.kind, change.path);
        for (name, before, after) in &change.attributes {
            text.push_str(&format!("\n    {name}: {} -> {}", show(before), show(after)));
        }
        line(change.sign, &text);
    }
    for anew in &applied.anew {
        let AnewRow { kind, path, why } = anew;
        let with = match kind.as_str() {
            "instance" => ", and what runs in it ends",
            "VPC" | "subnet" => ", with all that is in it",
            _ => "",
        };
        line('~', &format!("{kind} {path} is made anew{with} ({why})"));
    }
    if out.is_empty() {
        out.push_str("nothing changes\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::ChangeRow;

    #[test]
    fn a_plan_of_changes_reads_as_such_with_and_without_color() {
        let row = |sign, kind: &str, path: &str, attributes| ChangeRow {
            sign,
            kind: kind.into(),
            path: path.into(),
            attributes,
        };
        let anew =
            |kind: &str, path: &str, why: &str| AnewRow { kind: kind.into(), path: path.into(), why: why.into() };
        let mut applied = Applied {
            changes: vec![
                row('+', "instance", "app.new", vec![]),
                row('~', "security group", "app.doors", vec![("ingress".into(), String::new(), "tcp 443".into())]),
                row('-', "endpoint", "app.sqs", vec![]),
            ],
            anew: vec![
                anew("subnet", "app.a", "az: eu-west-1a -> eu-west-1b"),
                anew("peering", "p", "accepter: b -> c"),
                anew("instance", "app.web", "eth0: MTU 9001 -> 1500"),
            ],
            ..Applied::default()
        };
        assert_eq!(
            render(&applied, false),
            "+ instance app.new\n~ security group app.doors\n    ingress: nothing -> tcp 443\n- endpoint app.sqs\n\
             ~ subnet app.a is made anew, with all that is in it (az: eu-west-1a -> eu-west-1b)\n\
             ~ peering p is made anew (accepter: b -> c)\n\
             ~ instance app.web is made anew, and what runs in it ends (eth0: MTU 9001 -> 1500)\n"
        );
        assert!(render(&applied, true).starts_with("\x1b[32m+ instance app.new\x1b[0m\n"));
        applied = Applied::default();
        assert_eq!(render(&applied, true), "nothing changes\n");
    }
}
