//! `vpclab ps`.

use super::common::{Done, Failure, FormatArg, LabWord, table};
#[cfg(target_os = "linux")]
use super::common::{Format, print_json};
use crate::control::api::Ps;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub lab: LabWord,
    #[command(flatten)]
    pub format: FormatArg,
    /// What the lab holds now: connections, buffers, tasks, flows
    #[arg(long)]
    pub gauges: bool,
}

#[cfg(target_os = "linux")]
pub fn run(args: Args) -> Done {
    let lab = args.lab.lab()?;
    if args.gauges {
        use crate::control::api::{Reply, Request};
        return match super::up::connect(&lab)?.ask(Request::Gauges)? {
            Reply::Gauges(gauges) => print_json(&gauges),
            _ => Err(Failure::unexpected()),
        };
    }
    let ps = super::up::ps(&mut super::up::connect(&lab)?)?;
    match args.format.format {
        Format::Json => print_json(&ps),
        Format::Table => {
            print!("{}", render(&ps));
            Ok(0)
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub fn run(_args: Args) -> Done {
    Err(Failure::host("a lab needs Linux"))
}

/// One row for each instance, one for each endpoint ENI.
pub fn render(ps: &Ps) -> String {
    let mut rows = Vec::new();
    for i in &ps.instances {
        let ips: Vec<String> = i.ips.iter().chain(&i.public_ips).map(ToString::to_string).collect();
        rows.push(vec![
            i.path.clone(),
            "instance".into(),
            ips.join(","),
            i.az.clone(),
            i.state.clone(),
            i.counters.bytes_in.to_string(),
            i.counters.bytes_out.to_string(),
            i.counters.drops.to_string(),
        ]);
    }
    for e in &ps.endpoints {
        for eni in &e.enis {
            rows.push(vec![
                e.path.clone(),
                format!("endpoint {}", e.service),
                eni.ip.to_string(),
                eni.az.clone(),
                eni.state.clone(),
                eni.counters.bytes_in.to_string(),
                eni.counters.bytes_out.to_string(),
                eni.counters.drops.to_string(),
            ]);
        }
    }
    for g in &ps.gateways {
        rows.push(vec![
            g.path.clone(),
            g.kind.replace('-', " "),
            g.addresses.join(","),
            g.az.clone(),
            g.state.clone(),
            g.bytes_in.to_string(),
            g.bytes_out.to_string(),
            g.drops.to_string(),
        ]);
    }
    let mut page = table(&["NAME", "KIND", "ADDRESS", "AZ", "STATE", "BYTES IN", "BYTES OUT", "DROPS"], &rows);
    for (name, here, aws) in &ps.limits {
        page += &format!("limit {name}: {here} here, {aws} in AWS\n");
    }
    if let Some(latency) = &ps.latency {
        page += &format!("latency: {latency}\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_aws_is_said_below_the_table() {
        let ps = Ps {
            limits: vec![("endpoint_idle".into(), "10s".into(), "350s".into())],
            latency: Some("aws".into()),
            ..Ps::default()
        };
        assert!(
            render(&ps).ends_with("\nlimit endpoint_idle: 10s here, 350s in AWS\nlatency: aws\n"),
            "{}",
            render(&ps)
        );
        assert_eq!(render(&Ps::default()).lines().count(), 1);
    }

    #[test]
    fn an_instance_is_shown_with_its_public_address_as_a_nat_gateway_is() {
        use crate::control::api::PsInstance;
        let ip = |text: &str| text.parse().expect("an address");
        let (ips, public_ips) = (vec![ip("10.0.0.10")], vec![ip("203.0.113.7")]);
        let instance = PsInstance { path: "app.web".into(), ips, public_ips, ..PsInstance::default() };
        let ps = Ps { instances: vec![instance], ..Ps::default() };
        assert!(render(&ps).contains(" 10.0.0.10,203.0.113.7 "), "{}", render(&ps));
        let json = serde_json::to_value(&ps).expect("json");
        assert_eq!(json["instances"][0]["public_ips"], serde_json::json!(["203.0.113.7"]));
    }
}
