//! `vpclab services [WORD]`: what an endpoint can lead to.

use super::common::{Done, Format, FormatArg, print_json, table};
use crate::model::catalogue::{self, Service};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub format: FormatArg,
    /// The region whose names are shown
    #[arg(long, env = "VPCLAB_REGION", default_value = "eu-west-1")]
    pub region: String,
    /// Only services with this in a name
    pub word: Option<String>,
}

#[derive(serde::Serialize)]
struct Row {
    name: &'static str,
    service: String,
    private_names: Vec<String>,
    ports: &'static [u16],
    endpoint_policy: bool,
    /// `builtin`, or `yours`: it needs a `backend`.
    backend: &'static str,
}

pub fn run(args: Args) -> Done {
    let region = &args.region;
    if catalogue::region(region).is_none() {
        return Err(super::Failure::input(format!("there is no region {region}")));
    }
    let rows: Vec<Row> = catalogue::services()
        .iter()
        .filter(|s| s.endpoint)
        .map(|s| row(s, region))
        .filter(|row| args.word.as_deref().is_none_or(|word| says(row, word)))
        .collect();
    if args.format.format == Format::Json {
        return print_json(&rows);
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            let ports: Vec<String> = r.ports.iter().map(u16::to_string).collect();
            vec![
                r.name.to_owned(),
                r.service.clone(),
                ports.join(","),
                if r.endpoint_policy { "yes" } else { "no" }.to_owned(),
                r.backend.to_owned(),
                r.private_names.join(" "),
            ]
        })
        .collect();
    print!("{}", table(&["NAME", "SERVICE", "PORTS", "POLICY", "BACKEND", "PRIVATE NAMES"], &cells));
    Ok(0)
}

fn row(service: &'static Service, region: &str) -> Row {
    let names = service.private_zones(region).into_iter().flat_map(|zone| {
        let apex = zone.at_apex.then(|| zone.apex.clone());
        let below = zone.wildcard.then(|| format!("*.{}", zone.apex));
        [apex, below].into_iter().flatten()
    });
    Row {
        name: service.name,
        service: service.full_name(region),
        private_names: names.collect(),
        ports: service.ports,
        endpoint_policy: service.policy,
        backend: if service.builtin { "builtin" } else { "yours" },
    }
}

fn says(row: &Row, word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    row.service.contains(&word) || row.name.contains(&word) || row.private_names.iter().any(|name| name.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_by_any_of_its_names() {
        let s3 = row(catalogue::service("s3").expect("s3"), "eu-west-1");
        assert_eq!((s3.service.as_str(), s3.backend), ("com.amazonaws.eu-west-1.s3", "builtin"));
        assert!(s3.private_names.contains(&"*.s3.eu-west-1.amazonaws.com".to_owned()), "{:?}", s3.private_names);
        let ecr = row(catalogue::service("ecr.api").expect("ecr.api"), "us-east-1");
        assert!(says(&ecr, "api.ecr.us-east-1") && says(&ecr, "ECR") && !says(&ecr, "s3"));
    }
}
