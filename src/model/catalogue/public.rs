//! The public side: which service and region a host name of AWS means, and the address it has here.
//!
//! Addresses are taken from 198.18.0.0/15 (RFC 2544, benchmarking), so nothing real is ever meant: 64 regions of 2,048
//! services each.

use std::net::Ipv4Addr;

use super::{CATALOGUE, Service, regions};
use crate::base::Cidr;
use crate::base::ids::aws_id;

/// What a public host name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicName {
    pub service: &'static Service,
    /// Where it is served; global names are in us-east-1.
    pub region: &'static str,
    pub form: PublicForm,
}

/// Which of AWS's ways of naming it is: private DNS of an endpoint covers only some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicForm {
    /// `sqs.eu-west-1.amazonaws.com`.
    Regional,
    /// `s3.amazonaws.com`, `eu-west-1.queue.amazonaws.com`, `s3-eu-west-1.amazonaws.com`: old names that no endpoint's
    /// private DNS covers.
    Legacy,
    /// `iam.amazonaws.com`.
    Global,
    /// `sqs-fips.eu-west-1.amazonaws.com`.
    Fips,
    /// `sqs.eu-west-1.api.aws`, `s3.dualstack.eu-west-1.amazonaws.com`.
    DualStack,
}

/// The resolver of hosts outside VPCs: of the addresses that the first region's block keeps free.
pub const PUBLIC_RESOLVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// Where the services of one lab's public side are: at their usual addresses, except those that the file gives blocks of
/// its own (`services.s3.prefixes`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicBlocks {
    moved: Vec<(&'static Service, &'static str, Vec<Cidr>)>,
}

/// The router between a region's Internet gateways and the Internet: the first hop that traceroute shows on the way out.
pub fn border_router(region: &str) -> Ipv4Addr {
    let region = regions::index(region).unwrap_or_default() as u32;
    Ipv4Addr::from_bits(BASE + region * PER_REGION + 1)
}

impl PublicBlocks {
    /// Moves a service of a region into blocks, of which there is at least one.
    pub fn set(&mut self, service: &'static Service, region: &'static str, blocks: Vec<Cidr>) {
        self.moved.push((service, region, blocks));
    }

    /// The blocks of a service that the file moved.
    pub fn of(&self, service: &str, region: &str) -> Option<&[Cidr]> {
        let found = self.moved.iter().find(|(s, r, _)| s.name == service && *r == region);
        found.map(|(_, _, blocks)| blocks.as_slice())
    }

    /// The address that the emulated public side gives a host name: `None` if no service of the catalogue has it. Case
    /// and a final dot do not matter.
    pub fn addr(&self, host: &str) -> Option<Ipv4Addr> {
        let name = public_name(host)?;
        let moved = self.of(name.service.name, name.region).and_then(<[Cidr]>::first);
        // Large blocks begin with an address that looks like a network's.
        moved.map_or_else(|| Some(name.addr()), |block| block.nth(if block.len() > 24 { 0 } else { FIRST_OF_LARGE }))
    }

    /// What stands at an address of the public side: the service, and the region that serves it.
    pub fn service_at(&self, addr: Ipv4Addr) -> Option<(&'static Service, &'static str)> {
        let here = |(_, _, blocks): &&(_, _, Vec<Cidr>)| blocks.iter().any(|block| block.contains(addr));
        if let Some((service, region, _)) = self.moved.iter().find(here) {
            return Some((service, region));
        }
        public_service_at(addr).filter(|(service, region)| self.of(service.name, region).is_none())
    }
}

/// The usual address of a host name: of labs that move no service.
pub fn public_addr(host: &str) -> Option<Ipv4Addr> {
    PublicBlocks::default().addr(host)
}

/// What usually stands at an address of the public side.
pub fn public_service_at(addr: Ipv4Addr) -> Option<(&'static Service, &'static str)> {
    let offset = addr.to_bits().checked_sub(BASE)?;
    let region = regions::regions().nth((offset / PER_REGION) as usize)?.name;
    let at = offset % PER_REGION;
    if let Some((name, _)) = BLOCKS.iter().find(|(_, first)| (*first..*first + BLOCK_SIZE).contains(&at)) {
        return Some((super::service(name)?, region));
    }
    let service = CATALOGUE.services.get(at.checked_sub(FIRST)? as usize)?;
    let has_block = BLOCKS.iter().any(|(name, _)| *name == service.name);
    (!has_block).then_some((service, region))
}

/// The host names, `*.` wildcards among them, that lead to a service's public address in a region: what its certificate
/// there vouches for (Amazon S3's as captured in 2022; the others' by botocore's names). Each is one that
/// [`public_name`] knows. A wildcard stands for one label, as in certificates.
pub fn public_names(service: &Service, region: &str) -> Vec<String> {
    let more = super::MORE_HOSTS.iter().filter(|(name, _)| *name == service.name).flat_map(|(_, hosts)| *hosts);
    let mut prefixes: Vec<String> = Vec::new();
    for host in std::iter::once(service.host.as_str()).chain(more.copied()) {
        let (first, rest) = host.split_once('.').map_or((host, String::new()), |(f, r)| (f, format!(".{r}")));
        prefixes.extend([
            host.to_owned(),
            format!("{host}-fips"),
            format!("{first}-fips{rest}"),
            format!("fips.{host}"),
        ]);
        if service.name == "s3" {
            prefixes.extend([format!("{host}.dualstack"), format!("{host}-fips.dualstack")]);
        }
    }
    let mut candidates = Vec::new();
    for prefix in &prefixes {
        for domain in [format!("{region}.amazonaws.com"), format!("{region}.api.aws"), "amazonaws.com".to_owned()] {
            candidates.extend([format!("{prefix}.{domain}"), format!("*.{prefix}.{domain}")]);
        }
        candidates.push(format!("{prefix}.global.api.aws"));
    }
    for old in [
        "s3-external-1.amazonaws.com".to_owned(),
        "s3-accelerate.amazonaws.com".to_owned(),
        "s3-accelerate.dualstack.amazonaws.com".to_owned(),
        format!("s3-{region}.amazonaws.com"),
    ] {
        candidates.extend([format!("*.{old}"), old]);
    }
    candidates.push(format!("{region}.queue.amazonaws.com"));
    let here = |name: &String| {
        let means = public_name(&name.replacen("*.", "a.", 1));
        means.is_some_and(|n| n.service.name == service.name && n.region == region)
    };
    let mut names: Vec<String> = Vec::new();
    for name in candidates {
        if here(&name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The usual block of AWS's prefix list of a service in a region, where it has one: gateway endpoints are for these.
pub fn prefix_list_blocks(service: &str, region: &str) -> Option<Cidr> {
    let (_, first) = BLOCKS.iter().find(|(name, _)| *name == service)?;
    let region = regions::index(region)? as u32;
    Some(Cidr::containing(Ipv4Addr::from_bits(BASE + region * PER_REGION + first), BLOCK_LEN))
}

/// `com.amazonaws.eu-west-1.s3`.
pub fn prefix_list_name(service: &str, region: &str) -> String {
    format!("com.amazonaws.{region}.{service}")
}

/// The id of AWS's prefix list of a name, the same in every lab.
pub fn prefix_list_id(name: &str) -> String {
    aws_id("pl", "aws", name)
}

/// The addresses from which no service usually has its own, of the range of the public side.
pub fn free_public_range() -> Cidr {
    FREE
}

const BASE: u32 = Ipv4Addr::new(198, 18, 0, 0).to_bits();
const PER_REGION: u32 = 2_048;
/// The last quarter of the range: of 64 regions of 2,048 addresses there are not 48.
const FREE: Cidr = Cidr::containing(Ipv4Addr::new(198, 19, 128, 0), 17);
/// Which address of a large block a moved service has.
const FIRST_OF_LARGE: u64 = 16;
/// Services with a prefix list have a block of their own in each region, so that it holds nothing else.
const BLOCKS: [(&str, u32); 2] = [("s3", 16), ("dynamodb", 32)];
const BLOCK_LEN: u8 = 28;
const BLOCK_SIZE: u32 = 16;
/// The others follow. The first sixteen of each region stay free, so that no service is at the block's first address.
const FIRST: u32 = 48;

impl PublicName {
    pub fn addr(self) -> Ipv4Addr {
        let region = regions::index(self.region).unwrap_or_default() as u32;
        let block = BLOCKS.iter().find(|(name, _)| *name == self.service.name);
        let at = block.map_or_else(
            || FIRST + CATALOGUE.by_name.get(self.service.name).copied().unwrap_or_default() as u32,
            |(_, first)| *first,
        );
        Ipv4Addr::from_bits(BASE + region * PER_REGION + at)
    }
}

/// What a public host name of AWS stands for. Names below `vpce.amazonaws.com` are not of this side.
pub fn public_name(host: &str) -> Option<PublicName> {
    let host = host.strip_suffix('.').unwrap_or(host);
    // No host name is longer (RFC 1035, 2.3.4).
    let mut lower = [0u8; 253];
    let lower = lower.get_mut(..host.len())?;
    for (to, from) in lower.iter_mut().zip(host.bytes()) {
        *to = from.to_ascii_lowercase();
    }
    let host = std::str::from_utf8(lower).ok()?;
    if host.split('.').any(str::is_empty) {
        return None;
    }
    if let Some(rest) = host.strip_suffix(".api.aws") {
        let (prefix, last) = rest.rsplit_once('.')?;
        let region = regions::index(last).map(regions::name_at);
        let (service, fips) = by_prefix(prefix)?;
        return match (last, region) {
            (_, Some(region)) => {
                Some(PublicName { service, region, form: if fips { PublicForm::Fips } else { PublicForm::DualStack } })
            }
            ("global" | "aws-global", None) => {
                Some(PublicName { service, region: GLOBAL_REGION, form: PublicForm::DualStack })
            }
            _ => None,
        };
    }
    let rest = host.strip_suffix(".amazonaws.com")?;
    let (prefix, last) = rest.rsplit_once('.').unwrap_or(("", rest));
    if let Some(region) = regions::index(last).map(regions::name_at) {
        return regional(prefix, region);
    }
    global(rest, prefix, last)
}

/// Where global names are served.
const GLOBAL_REGION: &str = "us-east-1";

fn regional(prefix: &str, region: &'static str) -> Option<PublicName> {
    if let Some(inner) = prefix.strip_suffix(".dualstack") {
        let (service, _) = by_prefix(inner).filter(|(s, _)| s.name == "s3")?;
        return Some(PublicName { service, region, form: PublicForm::DualStack });
    }
    let first_of = |name: &str| prefix == name || prefix.strip_suffix(name).is_some_and(|p| p.ends_with('.'));
    if first_of("s3-website") {
        return Some(PublicName { service: super::service("s3")?, region, form: PublicForm::Legacy });
    }
    let (service, fips) = by_prefix(prefix)?;
    let form = if fips {
        PublicForm::Fips
    } else if prefix == "queue" {
        PublicForm::Legacy
    } else {
        PublicForm::Regional
    };
    Some(PublicName { service, region, form })
}

/// Names whose last label before `amazonaws.com` is no region.
fn global(rest: &str, prefix: &str, last: &str) -> Option<PublicName> {
    let name = |service: &str, region, form| Some(PublicName { service: super::service(service)?, region, form });
    let region_of = |text: &str| regions::index(text).map(regions::name_at);
    if let Some(region) = (last == "queue").then(|| region_of(prefix)).flatten() {
        return name("sqs", region, PublicForm::Legacy);
    }
    match last {
        // `s3.amazonaws.com` and `BUCKET.s3.amazonaws.com`.
        "s3" | "s3-external-1" | "s3-accelerate" => return name("s3", GLOBAL_REGION, PublicForm::Legacy),
        "dualstack" if prefix.ends_with("s3-accelerate") => return name("s3", GLOBAL_REGION, PublicForm::Legacy),
        "s3-global" if prefix.ends_with(".accesspoint") => {
            return name("s3-global.accesspoint", GLOBAL_REGION, PublicForm::Global);
        }
        _ => {}
    }
    // `s3-eu-west-1`, `s3-website-eu-west-1`, and buckets before them.
    let dashed = last.strip_prefix("s3-website-").or_else(|| last.strip_prefix("s3-"));
    if let Some(region) = dashed.and_then(region_of) {
        return name("s3", region, PublicForm::Legacy);
    }
    let (form, service) = match rest {
        "iam" | "route53" | "cloudfront" | "savingsplans" => (PublicForm::Global, rest),
        "iam-fips" | "route53-fips" => (PublicForm::Fips, rest.strip_suffix("-fips")?),
        "organizations" => (PublicForm::Global, rest),
        "queue" => (PublicForm::Legacy, "sqs"),
        "sts"
        | "rds"
        | "ec2"
        | "sns"
        | "monitoring"
        | "autoscaling"
        | "elasticloadbalancing"
        | "cloudformation"
        | "elasticmapreduce"
        | "dynamodb" => (PublicForm::Legacy, rest),
        _ => return None,
    };
    name(service, GLOBAL_REGION, form)
}

/// Prefixes below which any name exists: buckets, registries, APIs, accounts.
const WILD: &[&str] = &[
    "s3",
    "s3-control",
    "s3-accesspoint",
    "s3-outposts",
    "dkr.ecr",
    "execute-api",
    "d.codeartifact",
    "ddb",
    "data-kinesis",
    "control-kinesis",
    "iot",
];

/// The service of a host prefix, and whether it was the FIPS form of it.
fn by_prefix(prefix: &str) -> Option<(&'static Service, bool)> {
    let find = |p: &str| CATALOGUE.by_host.get(p).map(|&at| &CATALOGUE.services[at]);
    if let Some(service) = find(prefix) {
        return Some((service, service.name.ends_with("-fips")));
    }
    if prefix.starts_with("fips.") || prefix.contains("-fips") {
        let plain: Vec<&str> =
            prefix.split('.').filter(|l| *l != "fips").map(|l| l.strip_suffix("-fips").unwrap_or(l)).collect();
        let plain = plain.join(".");
        if let Some((service, _)) = (plain != prefix).then(|| by_prefix(&plain)).flatten() {
            return Some((service, true));
        }
    }
    for (at, _) in prefix.match_indices('.') {
        let parent = &prefix[at + 1..];
        if WILD.contains(&parent) || parent.starts_with("s3express-") {
            return find(parent)
                .or_else(|| super::service("s3").filter(|_| parent.starts_with("s3")))
                .map(|s| (s, false));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(host: &str) -> (&'static str, &'static str, PublicForm) {
        let n = public_name(host).unwrap_or_else(|| panic!("{host} is not known"));
        (n.service.name, n.region, n.form)
    }

    #[test]
    fn names_that_clients_ask_for() {
        use PublicForm::*;
        for (host, service, region, form) in [
            ("s3.eu-west-1.amazonaws.com", "s3", "eu-west-1", Regional),
            ("reports.s3.eu-west-1.amazonaws.com", "s3", "eu-west-1", Regional),
            ("a.b.c.s3.eu-west-1.amazonaws.com", "s3", "eu-west-1", Regional),
            ("S3.amazonaws.com.", "s3", "us-east-1", Legacy),
            ("reports.s3.amazonaws.com", "s3", "us-east-1", Legacy),
            ("s3-eu-west-1.amazonaws.com", "s3", "eu-west-1", Legacy),
            ("s3.dualstack.eu-west-1.amazonaws.com", "s3", "eu-west-1", DualStack),
            ("b.s3.dualstack.eu-west-1.amazonaws.com", "s3", "eu-west-1", DualStack),
            ("s3-fips.us-east-1.amazonaws.com", "s3", "us-east-1", Fips),
            ("123456789012.s3-control.eu-west-1.amazonaws.com", "s3", "eu-west-1", Regional),
            ("x-1.s3-accesspoint.eu-west-1.amazonaws.com", "s3", "eu-west-1", Regional),
            ("b.s3express-use1-az4.us-east-1.amazonaws.com", "s3", "us-east-1", Regional),
            ("alias.accesspoint.s3-global.amazonaws.com", "s3-global.accesspoint", "us-east-1", Global),
            ("sqs.eu-west-1.amazonaws.com", "sqs", "eu-west-1", Regional),
            ("sqs.eu-west-1.api.aws", "sqs", "eu-west-1", DualStack),
            ("queue.amazonaws.com", "sqs", "us-east-1", Legacy),
            ("eu-west-1.queue.amazonaws.com", "sqs", "eu-west-1", Legacy),
            ("sts.amazonaws.com", "sts", "us-east-1", Legacy),
            ("sts-fips.us-east-1.amazonaws.com", "sts-fips", "us-east-1", Fips),
            ("api.ecr.eu-west-1.amazonaws.com", "ecr.api", "eu-west-1", Regional),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "ecr.dkr", "eu-west-1", Regional),
            ("streams.dynamodb.eu-west-1.amazonaws.com", "dynamodb-streams", "eu-west-1", Regional),
            ("123456789012.ddb.eu-west-1.amazonaws.com", "dynamodb", "eu-west-1", Regional),
            ("api-fips.sagemaker.us-east-1.amazonaws.com", "sagemaker.api-fips", "us-east-1", Fips),
            ("fips.eks.us-east-1.amazonaws.com", "eks-fips", "us-east-1", Fips),
            ("fips.batch.us-east-1.amazonaws.com", "batch", "us-east-1", Fips),
            ("iam.amazonaws.com", "iam", "us-east-1", Global),
            ("iam.global.api.aws", "iam", "us-east-1", DualStack),
            ("email.eu-west-1.amazonaws.com", "email-smtp", "eu-west-1", Regional),
            ("aos.eu-west-1.api.aws", "es", "eu-west-1", DualStack),
            ("support.us-east-1.amazonaws.com", "support", "us-east-1", Regional),
        ] {
            assert_eq!(known(host), (service, region, form), "{host}");
        }
    }

    #[test]
    fn anything_else_has_no_address() {
        for host in [
            "",
            ".",
            "amazonaws.com",
            "eu-west-1.amazonaws.com",
            "nothing.eu-west-1.amazonaws.com",
            "x.sqs.eu-west-1.amazonaws.com",
            "s3.eu-west-9.amazonaws.com",
            "vpce-0-a.s3.eu-west-1.vpce.amazonaws.com",
            "example.com",
            "s3..amazonaws.com",
            "s3.eu-west-1.amazonaws.com.example.com",
        ] {
            assert_eq!(public_addr(host), None, "{host}");
        }
        assert_eq!(public_addr(&"a".repeat(300)), None);
    }

    #[test]
    fn the_names_of_an_address_lead_to_it_and_cover_what_clients_ask_for() {
        for s in super::super::services() {
            for r in ["eu-west-1", "us-east-1"] {
                let addr = PublicName { service: s, region: r, form: PublicForm::Regional }.addr();
                let names = public_names(s, r);
                assert!(names.iter().all(|n| public_addr(&n.replace("*.", "x.")) == Some(addr)), "{names:?}");
            }
        }
        let covered = |host: &str| {
            let n = public_name(host).unwrap_or_else(|| panic!("{host}"));
            let wild = format!("*.{}", host.split_once('.').expect("a label").1);
            public_names(n.service, n.region).iter().any(|name| *name == host || *name == wild)
        };
        for host in [
            "s3.eu-west-1.amazonaws.com",
            "reports.s3.eu-west-1.amazonaws.com",
            "s3.amazonaws.com",
            "reports.s3.amazonaws.com",
            "s3-eu-west-1.amazonaws.com",
            "b.s3-eu-west-1.amazonaws.com",
            "b.s3.dualstack.eu-west-1.amazonaws.com",
            "s3-fips.us-east-1.amazonaws.com",
            "123456789012.s3-control.eu-west-1.amazonaws.com",
            "x-1.s3-accesspoint.eu-west-1.amazonaws.com",
            "b.s3-accelerate.amazonaws.com",
            "alias.accesspoint.s3-global.amazonaws.com",
            "sqs.eu-west-1.amazonaws.com",
            "sqs.eu-west-1.api.aws",
            "queue.amazonaws.com",
            "eu-west-1.queue.amazonaws.com",
            "sts.amazonaws.com",
            "sts-fips.us-east-1.amazonaws.com",
            "api.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "streams.dynamodb.eu-west-1.amazonaws.com",
            "dynamodb.eu-west-1.amazonaws.com",
            "123456789012.ddb.eu-west-1.amazonaws.com",
            "api-fips.sagemaker.us-east-1.amazonaws.com",
            "fips.batch.us-east-1.amazonaws.com",
            "iam.amazonaws.com",
            "iam.global.api.aws",
            "email.eu-west-1.amazonaws.com",
            "aos.eu-west-1.api.aws",
        ] {
            assert!(covered(host), "{host}");
        }
        // Two labels before a wildcard's domain, as with AWS.
        assert!(!covered("a.b.s3.eu-west-1.amazonaws.com"));
    }

    #[test]
    fn every_host_that_botocore_makes_has_an_address_and_none_is_shared_by_two_services() {
        let mut seen = std::collections::HashMap::new();
        for s in super::super::services() {
            for r in super::super::regions() {
                let addr = PublicName { service: s, region: r.name, form: PublicForm::Regional }.addr();
                assert!(addr.octets()[0] == 198 && addr.octets()[1] & 0xfe == 18, "{addr}");
                assert_eq!(seen.insert(addr, (s.name, r.name)), None);
                assert_eq!(public_service_at(addr).map(|(s, r)| (s.name, r)), Some((s.name, r.name)));
                for list in ["s3", "dynamodb"] {
                    let holds = prefix_list_blocks(list, r.name).is_some_and(|block| block.contains(addr));
                    assert_eq!(holds, s.name == list, "{list} holds {addr} of {}", s.name);
                }
            }
            if s.private_zones("eu-west-1").iter().any(|z| z.at_apex) {
                let apex = &s.private_zones("eu-west-1")[0].apex;
                assert_eq!(public_name(apex).map(|n| n.service.name), Some(s.name), "{apex}");
            }
        }
        assert_eq!(public_addr("s3.eu-west-1.amazonaws.com"), Some(Ipv4Addr::new(198, 18, 0, 16)));
        assert!(seen.keys().all(|addr| !FREE.contains(*addr)), "regions grow into what files may take");
    }

    #[test]
    fn a_moved_service_is_at_its_new_blocks_and_no_longer_at_its_old_one() {
        let mut blocks = PublicBlocks::default();
        let old = public_addr("s3.eu-west-1.amazonaws.com").expect("S3");
        let [one, two]: [Cidr; 2] = ["198.19.128.0/19", "198.19.160.0/19"].map(|b| b.parse().expect(b));
        blocks.set(super::super::service("s3").expect("S3"), "eu-west-1", vec![one, two]);
        let at = |host: &str| blocks.addr(host).expect(host);
        assert_eq!(at("s3.eu-west-1.amazonaws.com"), Ipv4Addr::new(198, 19, 128, 16));
        let named = |addr| blocks.service_at(addr).map(|(s, r)| (s.name, r));
        assert_eq!(named(at("reports.s3.eu-west-1.amazonaws.com")), Some(("s3", "eu-west-1")));
        assert_eq!(named(two.last()), Some(("s3", "eu-west-1")));
        assert_eq!(named(old), None);
        for other in ["s3.us-east-1.amazonaws.com", "sqs.eu-west-1.amazonaws.com"] {
            assert_eq!(Some(at(other)), public_addr(other));
            assert_eq!(blocks.service_at(at(other)), public_service_at(at(other)));
        }
    }
}
