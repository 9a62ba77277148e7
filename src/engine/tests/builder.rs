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
            None => match peer.strip_prefix("pl:") {
                Some(name) => SgPeer::PrefixList(
                    self.plan.prefix_lists.iter().position(|l| l.common.name == name).expect("the list is there"),
                ),
                None => SgPeer::Cidr(peer.parse().expect("cidr")),
            },
        };
        let rule = SgRule { id: String::new(), matches, peer, text: text.into(), implied: false };
        let group = &mut self.plan.security_groups[group];
        if into { group.ingress.push(rule) } else { group.egress.push(rule) }
    }

    pub fn instance(&mut self, name: &str, subnet: usize, ip: &str, groups: &[usize]) -> EniIx {
        let owner = EniOwner::Instance(self.plan.instances.len(), 0);
        let eni = self.eni(name, subnet, ip, groups, owner);
        let vpc = self.plan.subnets[subnet].vpc;
        let common = common("i", name, &self.path(vpc, name));
        self.plan.instances.push(InstancePlan::new(common, InstanceHome::Vpc(vpc), vec![eni]));
        eni
    }

    /// An interface endpoint with private DNS; its ENIs at the given subnets and addresses.
    pub fn endpoint(&mut self, service: &str, at: &[(usize, &str)], groups: &[usize], ports: &[u16]) -> Vec<EniIx> {
        let index = self.plan.endpoints.len();
        let vpc = self.plan.subnets[at[0].0].vpc;
        let owner = EniOwner::Endpoint(index);
        let enis: Vec<EniIx> =
            at.iter().map(|(subnet, ip)| self.eni(&format!("{service}-{ip}"), *subnet, ip, groups, owner)).collect();
        self.plan.services.push(service_plan(service, ports));
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

    /// Attached to the VPC.
    pub fn igw(&mut self, vpc: usize) -> usize {
        let common = common("igw", "igw", &self.path(vpc, "igw"));
        self.plan.internet_gateways.push(InternetGatewayPlan { common, vpc, edge_table: None });
        self.plan.internet_gateways.len() - 1
    }

    /// A public address that stands for an ENI's own.
    pub fn public_address(&mut self, eni: EniIx, addr: &str) {
        let private = self.plan.eni(eni).ip;
        let common = common("eipalloc", addr, addr);
        let addr = addr.parse().expect("address");
        self.plan.public_addresses.push(PublicAddressPlan { common, addr, eni, private, elastic: true });
    }

    /// A public NAT gateway with an Elastic IP, or a private one.
    pub fn nat(&mut self, name: &str, subnet: usize, ip: &str, elastic: Option<&str>) -> usize {
        let at = self.plan.nat_gateways.len();
        let eni = self.eni(name, subnet, ip, &[], EniOwner::NatGateway(at));
        self.plan.enis[eni.at()].source_dest_check = false;
        let vpc = self.plan.subnets[subnet].vpc;
        let common = common("nat", name, &self.path(vpc, name));
        let addresses = vec![ip.parse().expect("address")];
        let public = elastic.is_some();
        self.plan.nat_gateways.push(NatGatewayPlan { common, vpc, subnet, eni, public, addresses });
        if let Some(addr) = elastic {
            self.public_address(eni, addr);
        }
        at
    }

    /// One more address of a NAT gateway.
    pub fn nat_address(&mut self, nat: usize, private: &str, elastic: Option<&str>) {
        let private: Ipv4Addr = private.parse().expect("address");
        let eni = self.plan.nat_gateways[nat].eni;
        self.plan.nat_gateways[nat].addresses.push(private);
        if let Some(addr) = elastic {
            let common = common("eipalloc", addr, addr);
            let addr = addr.parse().expect("address");
            self.plan.public_addresses.push(PublicAddressPlan { common, addr, eni, private, elastic: true });
        }
    }

    pub fn prefix_list(&mut self, name: &str, entries: &[&str]) -> usize {
        self.plan.prefix_lists.push(PrefixListPlan {
            common: common("pl", name, name),
            vpc: None,
            list_name: name.into(),
            region: String::new(),
            entries: entries.iter().map(|e| e.parse().expect("cidr")).collect(),
            max_entries: entries.len() as u32,
            aws: false,
        });
        self.plan.prefix_lists.len() - 1
    }

    /// With a route to the prefix list in each of the tables.
    pub fn gateway_endpoint(
        &mut self,
        vpc: usize,
        service: &str,
        list: usize,
        tables: &[usize],
        ports: &[u16],
    ) -> usize {
        let index = self.plan.endpoints.len();
        self.plan.services.push(service_plan(service, ports));
        let door =
            self.outside(service, Ipv4Addr::UNSPECIFIED, Home::Internet, EniOwner::GatewayEndpoint(index), false);
        self.plan.endpoints.push(EndpointPlan {
            common: common("vpce", service, &self.path(vpc, service)),
            vpc,
            service: self.plan.services.len() - 1,
            kind: EndpointKind::Gateway { route_tables: tables.into(), prefix_list: list, door },
            enis: Vec::new(),
            security_groups: Vec::new(),
            private_dns: false,
            policy: Policy::Full,
            names: EndpointNames::default(),
        });
        for &table in tables {
            self.route_to(
                table,
                RouteDest::PrefixList(list),
                RouteTarget::GatewayEndpoint(index),
                RouteOrigin::Created,
            );
        }
        index
    }

    pub fn peering(&mut self, requester: usize, accepter: usize) -> usize {
        let common = common("pcx", "peering", &format!("peering-{}", self.plan.peerings.len()));
        self.plan.peerings.push(PeeringPlan { common, requester, accepter, dns: true, same_region: true });
        self.plan.peerings.len() - 1
    }

    /// With one route table.
    pub fn tgw(&mut self, name: &str) -> usize {
        self.plan.transit_gateways.push(TransitGatewayPlan {
            common: common("tgw", name, name),
            region: "eu-west-1".into(),
            account: "123456789012".into(),
            pmtud: true,
            attachments: Vec::new(),
            route_tables: Vec::new(),
        });
        let tgw = self.plan.transit_gateways.len() - 1;
        self.tgw_table(tgw);
        tgw
    }

    pub fn tgw_table(&mut self, tgw: usize) -> usize {
        let at = self.plan.tgw_route_tables.len();
        let common = common("tgw-rtb", "table", &format!("tgw-table-{at}"));
        self.plan.tgw_route_tables.push(TgwRouteTablePlan { common, tgw, routes: Vec::new() });
        self.plan.transit_gateways[tgw].route_tables.push(at);
        at
    }

    pub fn tgw_route(&mut self, table: usize, to: &str, target: TgwTarget) {
        let id = format!("{table}/{to}");
        let to = to.parse().expect("cidr");
        self.plan.tgw_route_tables[table].routes.push(TgwRoutePlan { id, to, target, propagated: false });
    }

    /// Associated with the first table. Subnets and the addresses of the ENIs in them.
    pub fn attach(&mut self, tgw: usize, vpc: usize, at: &[(usize, &str)]) -> usize {
        let index = self.plan.tgw_attachments.len();
        let name = format!("{}-attachment", self.plan.vpcs[vpc].common.name);
        let mut subnets = Vec::new();
        for (subnet, ip) in at {
            let eni = self.eni(&name, *subnet, ip, &[], EniOwner::TgwAttachment(index));
            self.plan.enis[eni.at()].source_dest_check = false;
            subnets.push((*subnet, eni));
        }
        let to = VpcAttachment { vpc, subnets, appliance_mode: false, security_group_referencing: true };
        self.attachment(tgw, &name, AttachmentTo::Vpc(to))
    }

    fn attachment(&mut self, tgw: usize, name: &str, to: AttachmentTo) -> usize {
        let index = self.plan.tgw_attachments.len();
        let route_table = self.plan.transit_gateways[tgw].route_tables.first().copied();
        let common = common("tgw-attach", name, name);
        self.plan.tgw_attachments.push(TgwAttachmentPlan { common, tgw, to, route_table });
        self.plan.transit_gateways[tgw].attachments.push(index);
        index
    }

    pub fn vgw(&mut self, vpc: usize) -> usize {
        let common = common("vgw", "vgw", &self.path(vpc, "vgw"));
        self.plan.vgws.push(VgwPlan { common, vpc, links: Vec::new(), edge_table: None });
        self.plan.vgws.len() - 1
    }

    pub fn site(&mut self, name: &str, cidr: &str) -> usize {
        let cidr: Cidr = cidr.parse().expect("cidr");
        self.plan.sites.push(SitePlan {
            common: common("cgw", name, name),
            cidrs: vec![cidr],
            gateway: Ipv4Addr::from_bits(cidr.network().to_bits() + 1),
            links: Vec::new(),
            routes: Vec::new(),
        });
        self.plan.sites.len() - 1
    }

    pub fn site_route(&mut self, site: usize, to: &str, via: SiteTarget) {
        let to = to.parse().expect("cidr");
        self.plan.sites[site].routes.push(SiteRoutePlan { to, via, learned: false });
    }

    /// A VPN with two tunnels as AWS makes them, the first preferred by both sides.
    pub fn vpn(&mut self, site: usize, end: LinkEnd) -> usize {
        let tunnel =
            |first| TunnelPlan { mtu: 1_446, mss: Some(1_406), preferred_by_site: first, preferred_by_aws: first };
        self.link(
            site,
            end,
            LinkKind::Vpn { tunnels: vec![tunnel(true), tunnel(false)], static_routing: true, stateful: false },
        )
    }

    /// To a virtual private gateway, or to a transit gateway: then its attachment is made too, `end` naming the gateway
    /// as `LinkEnd::Tgw(TRANSIT GATEWAY)`.
    pub fn link(&mut self, site: usize, end: LinkEnd, kind: LinkKind) -> usize {
        let at = self.plan.links.len();
        let end = match end {
            LinkEnd::Tgw(tgw) => LinkEnd::Tgw(self.attachment(tgw, &format!("link-{at}"), AttachmentTo::Link(at))),
            LinkEnd::Vgw(vgw) => {
                self.plan.vgws[vgw].links.push(at);
                end
            }
        };
        let common = common("vpn", "link", &format!("link-{at}"));
        let site_blocks = self.plan.sites[site].cidrs.clone();
        self.plan.links.push(LinkPlan { common, site, end, kind, site_blocks });
        self.plan.sites[site].links.push(at);
        at
    }

    pub fn site_host(&mut self, name: &str, site: usize, ip: &str) -> EniIx {
        self.host_outside(name, ip, Home::Site(site), InstanceHome::Site(site))
    }

    pub fn internet_host(&mut self, name: &str, ip: &str) -> EniIx {
        self.host_outside(name, ip, Home::Internet, InstanceHome::Internet)
    }

    /// The door of AWS's public side.
    pub fn public_side(&mut self) -> EniIx {
        let door = self.outside("public", Ipv4Addr::UNSPECIFIED, Home::Internet, EniOwner::PublicSide, false);
        self.plan.public_side = Some(door);
        door
    }

    /// In force until it is cleared.
    pub fn fault(&mut self, what: Fault) {
        self.plan.faults.push(FaultPlan { id: 0, title: format!("{what:?}"), what, after: None, lasts: None });
    }

    pub fn route_to(&mut self, table: usize, to: RouteDest, target: RouteTarget, origin: RouteOrigin) {
        let table = &mut self.plan.route_tables[table];
        let id = format!("{}/{to:?}/{}", table.common.path, table.routes.len());
        table.routes.push(RoutePlan { id, to, target, origin });
    }

    fn host_outside(&mut self, name: &str, ip: &str, home: Home, at: InstanceHome) -> EniIx {
        let owner = EniOwner::Instance(self.plan.instances.len(), 0);
        let eni = self.outside(name, ip.parse().expect("address"), home, owner, true);
        self.plan.instances.push(InstancePlan::new(common("host", name, name), at, vec![eni]));
        eni
    }

    fn outside(&mut self, name: &str, ip: Ipv4Addr, home: Home, owner: EniOwner, source_dest_check: bool) -> EniIx {
        let common = common("eni", name, &format!("{name}-{}", self.plan.enis.len()));
        let mac = [2, 0, 0, 0, 0, 2];
        let security_groups = Vec::new();
        self.plan.enis.push(EniPlan { common, home, ip, mac, security_groups, source_dest_check, owner });
        EniIx(self.plan.enis.len() as u32 - 1)
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

fn service_plan(service: &str, ports: &[u16]) -> ServicePlan {
    ServicePlan {
        name: service.into(),
        full_name: format!("com.amazonaws.eu-west-1.{service}"),
        region: "eu-west-1".into(),
        account: "123456789012".into(),
        backend: Backend::Builtin,
        ports: ports.into(),
        data: None,
        contents: Contents::default(),
    }
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
