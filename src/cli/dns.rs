//! `vpclab dns INSTANCE NAME [TYPE]`: what the resolver answers, and which rule or zone says so.

use std::path::PathBuf;

use super::common::{Done, Failure, Format, FormatArg, LabArg, print_json};
use crate::control::api::DnsAnswer;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabArg,
    #[command(flatten)]
    pub format: FormatArg,
    /// From this topology, without a lab
    #[arg(long, env = "VPCLAB_FILE")]
    pub file: Vec<PathBuf>,
    /// The instance: NAME or VPC.NAME
    pub instance: String,
    pub name: String,
    #[arg(default_value = "A")]
    pub rtype: String,
}

pub fn run(args: Args) -> Done {
    let answer = if args.file.is_empty() { live(&args)? } else { of_file(&args)? };
    let found = !answer.answers.is_empty();
    if args.format.format == Format::Json {
        print_json(&answer)?;
    } else {
        print!("{}", render(&args, &answer));
    }
    Ok(u8::from(!found))
}

fn render(args: &Args, answer: &DnsAnswer) -> String {
    let rtype = args.rtype.to_ascii_uppercase();
    let mut out = if answer.answers.is_empty() {
        let what = if answer.rcode == "NOERROR" { "NODATA" } else { &answer.rcode };
        format!("{} {rtype}  {what}\n", args.name)
    } else {
        format!("{} {rtype}  {}  TTL {}\n", args.name, answer.answers.join(", "), answer.ttl)
    };
    out.push_str(&format!("answered by: {}\n", answer.by));
    if !answer.lost.is_empty() {
        out.push_str(&format!("lost:        {}\n", answer.lost.join("; ")));
    }
    for note in &answer.notes {
        out.push_str(&format!("note:        {note}\n"));
    }
    out
}

#[cfg(target_os = "linux")]
fn live(args: &Args) -> Result<DnsAnswer, Failure> {
    use crate::control::api::{Reply, Request};

    let ask = Request::Dns { instance: args.instance.clone(), name: args.name.clone(), rtype: args.rtype.clone() };
    match super::up::connect(&args.lab)?.ask(ask)? {
        Reply::Dns(answer) => Ok(answer),
        _ => Err(crate::runtime::client::ClientError::Unexpected.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn live(_: &Args) -> Result<DnsAnswer, Failure> {
    Err(Failure::input("labs run on Linux only; ask a topology with --file"))
}

fn of_file(args: &Args) -> Result<DnsAnswer, Failure> {
    let (_, loaded) = super::topology::read_files(&args.file, None)?;
    let plan = &loaded.plan;
    let at = plan.instance_named(&args.instance).map_err(Failure::input)?;
    let zones = crate::dns::compile(plan);
    crate::control::rows::dns_answer(&zones, plan.dns_view(plan.instances[at].vpc()), &args.name, &args.rtype)
        .map_err(Failure::input)
}
