//! `vpclab dns INSTANCE NAME [TYPE]`: what the resolver answers, and which rule or zone says so.

use super::common::{AboutArgs, Done, Failure, Format, print_json};
use crate::control::api::{DnsAnswer, Reply, Request};
use crate::model::Plan;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub about: AboutArgs,
    /// The instance: NAME or VPC.NAME
    pub instance: String,
    pub name: String,
    #[arg(default_value = "A")]
    pub rtype: String,
}

pub fn run(args: Args) -> Done {
    let answer = match args.about.plan()? {
        Some(plan) => of_plan(&plan, &args)?,
        None => live(&args)?,
    };
    let found = !answer.answers.is_empty();
    if args.about.format.format == Format::Json {
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

fn live(args: &Args) -> Result<DnsAnswer, Failure> {
    let ask = Request::Dns { instance: args.instance.clone(), name: args.name.clone(), rtype: args.rtype.clone() };
    match args.about.ask(ask)? {
        Reply::Dns(answer) => Ok(answer),
        _ => Err(Failure::unexpected()),
    }
}

fn of_plan(plan: &Plan, args: &Args) -> Result<DnsAnswer, Failure> {
    let at = plan.instance_named(&args.instance).map_err(Failure::input)?;
    let zones = crate::dns::compile(plan);
    crate::control::rows::dns_answer(&zones, plan.dns_view(plan.instances[at].vpc()), &args.name, &args.rtype)
        .map_err(Failure::input)
}
