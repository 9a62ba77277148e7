//! `vpclab ls`.

use super::common::{Done, Format, FormatArg, print_json, table};
use crate::control::api::Ps;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub format: FormatArg,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    use crate::control::api::{Reply, Request};
    use crate::runtime::client::Client;

    let mut labs = Vec::new();
    for dir in crate::runtime::launch::running() {
        // One that ends just now is no lab any more.
        let Ok(Reply::Ps(ps)) = Client::connect(dir.path()).and_then(|mut c| c.ask(Request::Ps)) else { continue };
        labs.push((ps, dir.path().display().to_string()));
    }
    if args.format.format == Format::Json {
        let rows: Vec<serde_json::Value> = labs
            .iter()
            .map(|(ps, dir)| {
                serde_json::json!({
                    "name": ps.lab, "region": ps.region, "instances": ps.instances.len(),
                    "endpoints": endpoints(ps), "up_ms": ps.up_ms, "run_dir": dir,
                })
            })
            .collect();
        return print_json(&rows);
    }
    let rows: Vec<Vec<String>> = labs
        .iter()
        .map(|(ps, _)| {
            let up = format!("{} s", ps.up_ms / 1000);
            vec![ps.lab.clone(), ps.region.clone(), ps.instances.len().to_string(), endpoints(ps).to_string(), up]
        })
        .collect();
    print!("{}", table(&["LAB", "REGION", "INSTANCES", "ENDPOINTS", "UP"], &rows));
    Ok(0)
}

/// Interface endpoints and gateway endpoints.
fn endpoints(ps: &Ps) -> usize {
    ps.endpoints.len() + ps.gateways.iter().filter(|g| g.kind == "gateway-endpoint").count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::{PsEndpoint, PsGateway};

    #[test]
    fn gateway_endpoints_are_endpoints() {
        let gateway = |kind: &str| PsGateway { kind: kind.into(), ..PsGateway::default() };
        let gateways = vec![gateway("nat-gateway"), gateway("gateway-endpoint"), gateway("gateway-endpoint")];
        assert_eq!(endpoints(&Ps { endpoints: vec![PsEndpoint::default()], gateways, ..Ps::default() }), 3);
    }
}
