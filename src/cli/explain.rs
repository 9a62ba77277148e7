//! `vpclab explain SRC DST`: whether and why a packet gets there, and back.

use super::common::{AboutArgs, Done, Failure, Format, print_json};
use crate::control::api::{ExplainAsk, Reply, Request};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vpclab explain web https://s3.eu-west-1.amazonaws.com
  vpclab explain web instance:api:80
  vpclab explain --file lab.vpclab.yaml dc1 10.0.1.10:53/udp

Exit code 0: it gets there and back; 1: it does not.")]
pub struct Args {
    #[command(flatten)]
    pub about: AboutArgs,
    /// Judge the policies for an action and a resource: s3:GetObject arn:aws:s3:::reports/a
    #[arg(long, num_args = 1..=2, value_names = ["ACTION", "ARN"])]
    pub request: Vec<String>,
    /// The request carries no signature
    #[arg(long)]
    pub unsigned: bool,
    /// The client's port; without it every port that a client's kernel may choose must get through
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), env = "VPCLAB_FROM_PORT")]
    pub from_port: Option<u16>,
    /// An instance, or a host on premises or of the Internet: NAME, VPC.NAME, SITE.NAME
    pub src: String,
    /// URL, host name, address, endpoint:NAME or instance:NAME, with :PORT[/PROTO]
    pub dst: String,
}

pub fn run(args: Args) -> Done {
    let request = match &args.request[..] {
        [] => None,
        [action] => Some((action.clone(), "*".to_owned())),
        [action, resource, ..] => Some((action.clone(), resource.clone())),
    };
    let Args { src, dst, unsigned, from_port, .. } = &args;
    let ask = ExplainAsk { src: src.clone(), dst: dst.clone(), request, unsigned: *unsigned, from_port: *from_port };
    let (text, json, reachable) = match args.about.plan()? {
        Some(plan) => {
            let told = super::common::explain_plan(&plan, &ask)?;
            (told.text(), told.json(), told.reachable)
        }
        None => match args.about.ask(Request::Explain(ask))? {
            Reply::Explained { text, json, reachable } => (text, json, reachable),
            _ => return Err(Failure::unexpected()),
        },
    };
    if args.about.format.format == Format::Json {
        print_json(&json)?;
    } else {
        print!("{text}");
    }
    Ok(u8::from(!reachable))
}
