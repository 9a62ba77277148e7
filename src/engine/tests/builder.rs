//! Small plans in code, for tests and benches. Rules are written as in a topology file. Includers provide `base` and
//! `model`.

use std::net::Ipv4Addr;

use super::base::ids::aws_id;
use super::base::{Cidr, EniIx, PortRange, Proto};
use super::model::Plan;
use super::model::plan::*;

/// A plan under construction.
#[derive(Clone, Default)]
pub struct Lab {
    pub plan: Plan,
}

impl Lab {
    pub fn new() -> Lab {
        let plan = Plan { name: "lab".into(), region: "eu-west-1".into(), ..Plan::default() };
        Lab { plan }
    }

    /// With a main route table (local route only), a default NACL that allows all, and a default group.
    pub fn vpc(&mut self, name: &str, cidr: &str) -> usize {
        let vpc = self.plan.vpcs.len();
        let cidr: Cidr = cidr.parse().expect("cidr");
        self.plan.vpcs.push(VpcPlan {
            common: common("vpc", name, name),
            cidrs: vec![cidr],
            region: "eu-west-1".into(),
            account: "123456789012".into(),
            dns_support: true,
            dns_hostnames: true,
            main_route_table: 0,
            default_nacl: 0,
            default_security_group: 0,
        });
        let table = self.table(vpc, "main");
        self.plan.route_tables[table].main = true;
        let nacl = self.nacl(vpc, "default", &["100 allow all from 0.0.0.0/0"], &["100 allow all to 0.0.0.0/0"]);
        let group = self.group(vpc, "default");
        self.allow(group, "all from sg:default");
        self.allow(group, "all to 0.0.0.0/0");
        let v = &mut self.plan.vpcs[vpc];
        (v.main_route_table, v.default_nacl, v.default_security_group) = (table, nacl, group);
        vpc
    }

    pub fn table(&mut self, vpc: usize, name: &str) -> usize {
        let path = self.path(vpc, name);
        let local = |cidr: &Cidr| RoutePlan {
            id: format!("{path}/{cidr}"),
            to: RouteDest::Cidr(*cidr),
            target: RouteTarget::Local,
            origin: RouteOrigin::Local,
        };
        let routes = self.plan.vpcs[vpc].cidrs.iter().map(local).collect();
        let common = common("rtb", name, &path);
        self.plan.route_tables.push(RouteTablePlan { common, vpc, main: false, routes });
        self.plan.route_tables.len() - 1
    }

    pub fn route(&mut self, table: usize, to: &str, target: RouteTarget) {
        let table = &mut self.plan.route_tables[table];
        let id = format!("{}/{to}/{}", table.common.path, table.routes.len());
        table.routes.push(RoutePlan {
            id,
            to: RouteDest::Cidr(to.parse().expect("cidr")),
            target,
            origin: RouteOrigin::Created,
        });
    }

    /// Rules as `100 allow tcp 443 from 10.0.0.0/16`.
    pub fn nacl(&mut self, vpc: usize, name: &str, ingress: &[&str], egress: &[&str]) -> usize {
        let path = self.path(vpc, name);
        self.plan.network_acls.push(NaclPlan {
            common: common("acl", name, &path),
            vpc,
            default: name == "default",
            ingress: ingress.iter().map(|text| nacl_rule(text)).collect(),
            egress: egress.iter().map(|text| nacl_rule(text)).collect(),
        });
        self.plan.network_acls.len() - 1
    }

    pub fn subnet(&mut self, vpc: usize, name: &str, cidr: &str, az: char) -> usize {
        let path = self.path(vpc, name);
        self.plan.subnets.push(SubnetPlan {
            common: common("subnet", name, &path),
            vpc,
            cidr: cidr.parse().expect("cidr"),
            az,
            az_name: format!("eu-west-1{az}"),
            az_id: format!("euw1-az{}", az as u8 - b'a' + 1),
            route_table: self.plan.vpcs[vpc].main_route_table,
            nacl: self.plan.vpcs[vpc].default_nacl,
        });
        self.plan.subnets.len() - 1
    }

    /// Without rules: nothing in, nothing out.
    pub fn group(&mut self, vpc: usize, name: &str) -> usize {
        let path = self.path(vpc, name);
        self.plan.security_groups.push(SecurityGroupPlan {
            common: common("sg", name, &path),
            vpc,
            ingress: Vec::new(),
            egress: Vec::new(),
        });
        self.plan.security_groups.len() - 1
    }

    /// `tcp 443 from sg:app`, `all to 0.0.0.0/0`: `from` is an ingress rule.
    pub fn allow(&mut self, group: usize, text: &str) {
        let (matches, into, peer) = rule(text);
        let vpc = self.plan.security_groups[group].vpc;
        let peer = match peer.strip_prefix("sg:") {
            Some(name) => SgPeer::Group(
                self.plan
                    .security_groups
                    .iter()
                    .position(|g| g.vpc == vpc && g.common.name == name)
                    .expect("the group is there"),
            ),
            None => SgPeer::Cidr(peer.parse().expect("cidr")),
        };
        let rule = SgRule { id: String::new(), matches, peer, text: text.into(), implied: false };
        let group = &mut self.plan.security_groups[group];
        if into { group.ingress.push(rule) } else { group.egress.push(rule) }
    }

    pub fn instance(&mut self, name: &str, subnet: usize, ip: &str, groups: &[usize]) -> EniIx {
        let owner = EniOwner::Instance(self.plan.instances.len(), 0);
        let eni = self.eni(name, subnet, ip, groups, owner);
        let vpc = self.plan.subnets[subnet].vpc;
        self.plan.instances.push(InstancePlan {
            common: common("i", name, &self.path(vpc, name)),
            home: InstanceHome::Vpc(vpc),
            enis: vec![eni],
            role: None,
            listen: Vec::new(),
            run: Vec::new(),
            mtu: 9001,
            imds_v2_required: true,
            imds_hop_limit: 1,
            user_data: None,
            env: Vec::new(),
            names: Vec::new(),
            forward: None,
            tracking: Tracking::default(),
            impair: None,
            dns_server: false,
        });
        eni
    }

    /// An interface endpoint with private DNS; its ENIs at the given subnets and addresses.
    pub fn endpoint(&mut self, service: &str, at: &[(usize, &str)], groups: &[usize], ports: &[u16]) -> Vec<EniIx> {
        let index = self.plan.endpoints.len();
        let vpc = self.plan.subnets[at[0].0].vpc;
        let owner = EniOwner::Endpoint(index);
        let enis: Vec<EniIx> =
            at.iter().map(|(subnet, ip)| self.eni(&format!("{service}-{ip}"), *subnet, ip, groups, owner)).collect();
        self.plan.services.push(ServicePlan {
            name: service.into(),
            full_name: format!("com.amazonaws.eu-west-1.{service}"),
            region: "eu-west-1".into(),
            account: "123456789012".into(),
            backend: Backend::Builtin,
            ports: ports.into(),
            data: None,
            contents: Contents::default(),
        });
        let common = common("vpce", service, &self.path(vpc, service));
        let regional = format!("{}-abcd1234.{service}.eu-west-1.vpce.amazonaws.com", common.id);
        let zonal = enis.iter().map(|eni| {
            let az = self.plan.subnet_of(*eni).expect("in a subnet").az_name.clone();
            let name = format!("{}-abcd1234-{az}.{service}.eu-west-1.vpce.amazonaws.com", common.id);
            (az, name, *eni)
        });
        let private = PrivateZone {
            apex: format!("{service}.eu-west-1.amazonaws.com"),
            at_apex: true,
            wildcard: service == "s3",
        };
        let names = EndpointNames { regional, zonal: zonal.collect(), private: vec![private] };
        self.plan.endpoints.push(EndpointPlan {
            common,
            vpc,
            service: self.plan.services.len() - 1,
            kind: EndpointKind::Interface,
            enis: enis.clone(),
            security_groups: groups.into(),
            private_dns: true,
            policy: Policy::Full,
            names,
        });
        enis
    }

    fn eni(&mut self, name: &str, subnet: usize, ip: &str, groups: &[usize], owner: EniOwner) -> EniIx {
        let vpc = self.plan.subnets[subnet].vpc;
        self.plan.enis.push(EniPlan {
            common: common("eni", name, &self.path(vpc, name)),
            home: Home::Subnet { vpc, subnet },
            ip: ip.parse::<Ipv4Addr>().expect("address"),
            mac: [2, 0, 0, 0, 0, 1],
            security_groups: groups.into(),
            source_dest_check: true,
            owner,
        });
        EniIx(self.plan.enis.len() as u32 - 1)
    }

    fn path(&self, vpc: usize, name: &str) -> String {
        format!("{}.{name}", self.plan.vpcs[vpc].common.name)
    }
}

/// The topology of the built-in demo, as far as packets know it: `web`, `guest`, and an S3 endpoint in both subnets.
/// ENIs: 0 web 10.0.1.10, 1 guest 10.0.2.10, 2 S3 in zone a 10.0.1.4, 3 S3 in zone b 10.0.2.4.
pub fn demo() -> Lab {
    let mut lab = Lab::new();
    let vpc = lab.vpc("app", "10.0.0.0/16");
    let a = lab.subnet(vpc, "private-a", "10.0.1.0/24", 'a');
    let b = lab.subnet(vpc, "private-b", "10.0.2.0/24", 'b');
    let (app, guest, doors) = (lab.group(vpc, "app"), lab.group(vpc, "guest"), lab.group(vpc, "doors"));
    lab.allow(app, "tcp 443 to sg:doors");
    lab.allow(guest, "all to 0.0.0.0/0");
    lab.plan.security_groups[guest].egress[0].implied = true;
    lab.allow(doors, "tcp 443 from sg:app");
    lab.instance("web", a, "10.0.1.10", &[app]);
    lab.instance("guest", b, "10.0.2.10", &[guest]);
    lab.endpoint("s3", &[(a, "10.0.1.4"), (b, "10.0.2.4")], &[doors], &[443]);
    lab
}

fn common(kind: &str, name: &str, path: &str) -> Common {
    let id = aws_id(kind, "lab", path);
    Common { name: name.into(), path: path.into(), id, ..Common::default() }
}

/// `tcp 443 from PEER`, `icmp 3/4 to PEER`, `all from PEER`: what, whether from, and the peer.
fn rule(text: &str) -> (TrafficMatch, bool, &str) {
    let words: Vec<&str> = text.split(' ').collect();
    let at = words.iter().position(|w| *w == "from" || *w == "to").expect("from or to");
    let what = match words[..at] {
        ["all"] => TrafficMatch::ALL,
        [proto] => TrafficMatch { proto: Some(proto_of(proto)), ..TrafficMatch::ALL },
        ["icmp", icmp] => {
            let (kind, code) = icmp.split_once('/').map_or((icmp, None), |(k, c)| (k, Some(c)));
            let icmp = (Some(kind.parse().expect("type")), code.map(|c| c.parse().expect("code")));
            TrafficMatch { proto: Some(Proto::ICMP), icmp, ..TrafficMatch::ALL }
        }
        [proto, ports] => {
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            let ports = PortRange { first: first.parse().expect("port"), last: last.parse().expect("port") };
            TrafficMatch { proto: Some(proto_of(proto)), ports, ..TrafficMatch::ALL }
        }
        _ => panic!("not a rule: {text}"),
    };
    (what, words[at] == "from", words[at + 1])
}

fn proto_of(word: &str) -> Proto {
    match word {
        "tcp" => Proto::TCP,
        "udp" => Proto::UDP,
        "icmp" => Proto::ICMP,
        number => Proto(number.parse().expect("protocol")),
    }
}

fn nacl_rule(text: &str) -> NaclRule {
    let mut words = text.splitn(3, ' ');
    let number = words.next().and_then(|n| n.parse().ok()).expect("number");
    let allow = words.next() == Some("allow");
    let (matches, _, peer) = rule(words.next().expect("rule"));
    NaclRule { number, allow, matches, peer: peer.parse().expect("cidr"), text: text.into() }
}
