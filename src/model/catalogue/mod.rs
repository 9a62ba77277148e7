//! What is known of AWS's services: their endpoint names, host names, private DNS zones and ports, and the addresses
//! that the emulated public side gives them.
//!
//! The service names of `services.txt` are those that `DescribeVpcEndpointServices` lists in us-east-1 (collected by
//! widdix/aws-cf-templates, Apache-2.0) and those of the PrivateLink Guide's table. The file only grows at its end:
//! a line's number is the service's public address; `!` marks what has public hosts but no interface endpoint. Host
//! names are those that botocore 1.43 makes.

mod public;
mod regions;

use std::collections::HashMap;
use std::sync::LazyLock;

use super::plan::PrivateZone;

pub use public::{
    PUBLIC_RESOLVER, PublicBlocks, PublicForm, PublicName, border_router, free_public_range, prefix_list_blocks,
    prefix_list_id, prefix_list_name, public_addr, public_name, public_names, public_service_at,
};
pub use regions::{Region, region, regions};

/// One AWS service that an interface endpoint can lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Short name: `s3`, `ecr.api`, `kms-fips`.
    pub name: &'static str,
    /// What stands before `.REGION.amazonaws.com` in its host name: `api.ecr`.
    pub host: String,
    /// Ports that its endpoint ENIs serve.
    pub ports: &'static [u16],
    /// Endpoint policies are supported (`VpcEndpointPolicySupported`).
    pub policy: bool,
    pub protocol: Protocol,
    /// `vpclab` has a server for it; any other service needs a `backend`.
    pub builtin: bool,
    /// An interface endpoint can lead to it.
    pub endpoint: bool,
}

/// How clients talk to a service (botocore 1.43's choice where the model lists several).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    RestXml,
    RestJson,
    /// `AWS Query`, with XML answers.
    Query,
    Ec2Query,
    /// `application/x-amz-json-1.0`.
    Json10,
    /// `application/x-amz-json-1.1`.
    Json11,
    /// Docker registry v2.
    Registry,
    Smtp,
    /// The user's own HTTP.
    Http,
    /// Not recorded here.
    Other,
}

impl Protocol {
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::RestXml => "rest-xml",
            Protocol::RestJson => "rest-json",
            Protocol::Query => "query",
            Protocol::Ec2Query => "ec2 query",
            Protocol::Json10 => "json 1.0",
            Protocol::Json11 => "json 1.1",
            Protocol::Registry => "registry",
            Protocol::Smtp => "smtp",
            Protocol::Http => "http",
            Protocol::Other => "-",
        }
    }
}

impl Service {
    /// `com.amazonaws.eu-west-1.s3`; a few services deviate (PrivateLink Guide, table of service names).
    pub fn full_name(&self, region: &str) -> String {
        match self.name {
            "iam" | "route53" | "cloudfront" | "savingsplans" | "s3-global.accesspoint" => {
                format!("com.amazonaws.{}", self.name)
            }
            "notebook" | "studio" | "experiments" | "partner-app" => format!("aws.sagemaker.{region}.{}", self.name),
            "bcm-data-exports" | "kendra-ranking" | "qbusiness" => format!("aws.api.{region}.{}", self.name),
            "cassandra-streams" => format!("api.aws.{region}.{}", self.name),
            _ => format!("com.amazonaws.{region}.{}", self.name),
        }
    }

    /// What stands before `.REGION.vpce.amazonaws.com` in endpoint names: the host prefix.
    pub fn vpce_label(&self) -> &str {
        &self.host
    }

    /// The hidden zones that private DNS attaches for an endpoint in `region` (AWS PrivateLink Guide; S3 User Guide,
    /// "AWS PrivateLink for Amazon S3"). Empty: the service provides no private DNS name.
    pub fn private_zones(&self, region: &str) -> Vec<PrivateZone> {
        let aws = |host: &str| plain(format!("{host}.{region}.amazonaws.com"));
        let api = |host: &str| plain(format!("{host}.{region}.api.aws"));
        let both = |host: &str| PrivateZone { wildcard: true, ..aws(host) };
        let below = |host: &str| PrivateZone { at_apex: false, wildcard: true, ..aws(host) };
        match self.name {
            "s3" => vec![both("s3"), both("s3-control"), both("s3-accesspoint")],
            "s3-global.accesspoint" => {
                vec![PrivateZone { apex: "accesspoint.s3-global.amazonaws.com".into(), at_apex: false, wildcard: true }]
            }
            "sqs" | "kms" | "lambda" | "ssmmessages" => vec![aws(&self.host), api(&self.host)],
            "ssm" => vec![aws("ssm"), aws("ssm-facade"), api("ssm")],
            "monitoring" => vec![aws("monitoring"), api("monitoring"), aws("monitoring-fips"), api("monitoring-fips")],
            "ecr.dkr" => vec![below("dkr.ecr")],
            "execute-api" => vec![below("execute-api")],
            "codeartifact.repositories" => vec![below("d.codeartifact")],
            "notebook" => {
                vec![PrivateZone { apex: format!("notebook.{region}.sagemaker.aws"), at_apex: false, wildcard: true }]
            }
            "iam" | "route53" | "cloudfront" | "savingsplans" => vec![plain(format!("{}.amazonaws.com", self.name))],
            // Per-resource names in zones of their own, or none at launch.
            "dynamodb" | "dynamodb-fips" | "dynamodb-streams" | "transfer.server" | "airflow.env"
            | "airflow.env-fips" | "apprunner.requests" | "grafana-workspace" => Vec::new(),
            _ => vec![aws(&self.host)],
        }
    }
}

fn plain(apex: String) -> PrivateZone {
    PrivateZone { apex, at_apex: true, wildcard: false }
}

/// All services, in the order of their public addresses.
pub fn services() -> &'static [Service] {
    &CATALOGUE.services
}

/// A service by its short name (`s3`).
pub fn service(name: &str) -> Option<&'static Service> {
    CATALOGUE.by_name.get(name).map(|&at| &CATALOGUE.services[at])
}

/// A service by the full name that `CreateVpcEndpoint` takes (`com.amazonaws.eu-west-1.s3`), with the region it names,
/// if it names one.
pub fn by_full_name(full: &str) -> Option<(&'static Service, Option<&'static str>)> {
    if let Some(short) = full.strip_prefix("com.amazonaws.") {
        if let Some(s) = service(short).filter(|s| s.full_name("-") == full) {
            return Some((s, None));
        }
        let (reg, name) = short.split_once('.')?;
        let reg = region(reg)?.name;
        return service(name).filter(|s| s.full_name(reg) == full).map(|s| (s, Some(reg)));
    }
    let mut labels = full.splitn(4, '.');
    let (_, _, reg, name) = (labels.next()?, labels.next()?, labels.next()?, labels.next()?);
    let reg = region(reg)?.name;
    service(name).filter(|s| s.full_name(reg) == full).map(|s| (s, Some(reg)))
}

struct Catalogue {
    services: Vec<Service>,
    by_name: HashMap<&'static str, usize>,
    /// Host prefix to service.
    by_host: HashMap<String, usize>,
}

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let services: Vec<Service> = include_str!("services.txt").lines().filter(|l| !l.is_empty()).map(describe).collect();
    let by_name = services.iter().enumerate().map(|(at, s)| (s.name, at)).collect();
    let mut by_host: HashMap<String, usize> = HashMap::new();
    for (at, s) in services.iter().enumerate() {
        by_host.entry(s.host.clone()).or_insert(at);
        for more in MORE_HOSTS.iter().filter(|(name, _)| *name == s.name).flat_map(|(_, hosts)| *hosts) {
            by_host.entry((*more).to_owned()).or_insert(at);
        }
    }
    Catalogue { services, by_name, by_host }
});

fn describe(line: &'static str) -> Service {
    let name = line.strip_prefix('!').unwrap_or(line);
    Service {
        name,
        endpoint: name == line,
        host: host_of(name),
        ports: match name {
            "email-smtp" => &[25, 465, 587, 2465, 2587],
            "cassandra" | "cassandra-fips" => &[9142],
            _ => &[443],
        },
        policy: !(matches!(
            name,
            "appmesh-envoy-management" | "apprunner.requests" | "awsconnector" | "transfer.server"
        ) || name.starts_with("appstream.")),
        protocol: protocol_of(name),
        builtin: BUILTIN.contains(&name),
    }
}

/// The services that `vpclab` itself serves. `echo` is not AWS's: it answers with what it was sent.
pub const BUILTIN: &[&str] = &["s3", "sts", "sqs", "sns", "secretsmanager", "echo", "dynamodb"];

/// Dotted service names are reversed in host names (`ecr.api` is `api.ecr`); the others by hand.
fn host_of(name: &str) -> String {
    let host = match name {
        "kinesis-streams" => "kinesis",
        "kinesis-streams-fips" => "kinesis-fips",
        "kinesis-firehose" => "firehose",
        "kinesis-firehose-fips" => "firehose-fips",
        "dynamodb-streams" => "streams.dynamodb",
        "codeartifact.api" => "codeartifact",
        "codeartifact.repositories" => "d.codeartifact",
        "sagemaker.api-fips" => "api-fips.sagemaker",
        "sagemaker.runtime-fips" => "runtime-fips.sagemaker",
        "eks-fips" => "fips.eks",
        "transcribe-fips" => "fips.transcribe",
        "s3-global.accesspoint" => "accesspoint.s3-global",
        _ => return name.rsplit('.').collect::<Vec<_>>().join("."),
    };
    host.to_owned()
}

fn protocol_of(name: &str) -> Protocol {
    match name.strip_suffix("-fips").unwrap_or(name) {
        "s3" | "s3-outposts" | "route53" | "cloudfront" => Protocol::RestXml,
        "sts"
        | "sns"
        | "elasticloadbalancing"
        | "autoscaling"
        | "cloudformation"
        | "rds"
        | "iam"
        | "elasticache"
        | "redshift"
        | "elasticbeanstalk" => Protocol::Query,
        "ec2" => Protocol::Ec2Query,
        "sqs" | "dynamodb" | "dynamodb-streams" | "monitoring" | "states" | "sync-states" => Protocol::Json10,
        "secretsmanager" | "kms" | "ssm" | "ssmmessages" | "ec2messages" | "logs" | "events" | "athena" | "glue"
        | "ecs" | "kinesis-streams" | "kinesis-firehose" | "codecommit" | "codebuild" | "acm" | "ecr.api"
        | "sagemaker.api" | "servicediscovery" | "config" | "cloudtrail" => Protocol::Json11,
        "lambda"
        | "apigateway"
        | "elasticfilesystem"
        | "xray"
        | "eks"
        | "bedrock"
        | "bedrock-runtime"
        | "bedrock-agent"
        | "bedrock-agent-runtime"
        | "sagemaker.runtime"
        | "batch" => Protocol::RestJson,
        "ecr.dkr" => Protocol::Registry,
        "email-smtp" => Protocol::Smtp,
        "execute-api" | "echo" => Protocol::Http,
        _ => Protocol::Other,
    }
}

/// Further host prefixes of a service, beside the one its endpoint's private name has.
const MORE_HOSTS: &[(&str, &[&str])] = &[
    ("s3", &["s3-control", "s3-accesspoint", "s3express-control"]),
    ("sqs", &["queue"]),
    ("ssm", &["ssm-facade"]),
    ("dynamodb", &["ddb"]),
    ("ecr.api", &["ecr"]),
    ("kinesis-streams", &["data-kinesis", "control-kinesis"]),
    ("email-smtp", &["email"]),
    ("timestream.query-cell2", &["query.timestream"]),
    ("timestream.ingest-cell2", &["ingest.timestream"]),
    ("iot.data", &["iot"]),
    ("pricing.api", &["pricing"]),
    ("ecs", &["ecs-a", "ecs-t"]),
    ("es", &["aos"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(name: &str) -> Vec<String> {
        service(name).expect(name).private_zones("eu-west-1").into_iter().map(|z| z.apex).collect()
    }

    #[test]
    fn every_service_is_listed_once_and_builtin_ones_come_first() {
        assert_eq!(services().len(), CATALOGUE.by_name.len());
        assert!(services().len() > 450);
        for (at, name) in BUILTIN.iter().enumerate() {
            assert_eq!(services()[at].name, *name);
            assert!(services()[at].builtin);
        }
        assert_eq!(services().iter().filter(|s| s.builtin).count(), BUILTIN.len());
    }

    #[test]
    fn private_names_are_those_of_the_guides() {
        assert_eq!(zones("sqs"), ["sqs.eu-west-1.amazonaws.com", "sqs.eu-west-1.api.aws"]);
        assert_eq!(zones("sts"), ["sts.eu-west-1.amazonaws.com"]);
        assert_eq!(zones("ecr.api"), ["api.ecr.eu-west-1.amazonaws.com"]);
        assert_eq!(zones("kinesis-streams"), ["kinesis.eu-west-1.amazonaws.com"]);
        assert_eq!(zones("iam"), ["iam.amazonaws.com"]);
        assert!(zones("dynamodb").is_empty());
        let s3 = service("s3").expect("s3").private_zones("eu-west-1");
        assert!(s3.iter().all(|z| z.at_apex && z.wildcard));
        assert_eq!(s3[2].apex, "s3-accesspoint.eu-west-1.amazonaws.com");
        let dkr = service("ecr.dkr").expect("ecr.dkr").private_zones("eu-west-1");
        assert!(!dkr[0].at_apex && dkr[0].wildcard);
    }

    #[test]
    fn full_names_are_read_back() {
        for s in services() {
            let full = s.full_name("eu-west-1");
            let (found, _) = by_full_name(&full).unwrap_or_else(|| panic!("{full}"));
            assert_eq!(found.name, s.name);
        }
        assert_eq!(by_full_name("com.amazonaws.eu-west-1.ecr.api").expect("known").1, Some("eu-west-1"));
        assert!(by_full_name("com.amazonaws.eu-west-9.s3").is_none());
        assert!(by_full_name("com.amazonaws.eu-west-1.nothing").is_none());
    }
}
