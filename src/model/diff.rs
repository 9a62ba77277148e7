//! What `apply` would change: two plans, compared object by object and attribute by attribute. Objects are the same
//! if kind and path are; indices mean nothing here, so every reference is compared by name.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::plan::{EniOwner, ListenReply, Listener, Plan, Policy, RunCommand};

mod gateways;
mod joined;
mod replaced;

pub use replaced::{Replaced, replaced};

/// One object that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub sign: Sign,
    /// `instance`, `security group` ...
    pub kind: &'static str,
    /// `app.web`.
    pub path: String,
    /// Of changed objects: attribute, before, after.
    pub attributes: Vec<(&'static str, String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sign {
    Add,
    Change,
    Remove,
}

/// `+ instance app.web`, `~ security group app.doors  ingress: tcp 443 from sg:app -> ...`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.sign {
            Sign::Add => '+',
            Sign::Change => '~',
            Sign::Remove => '-',
        };
        write!(f, "{sign} {} {}", self.kind, self.path)?;
        for (name, before, after) in &self.attributes {
            let show = |text: &str| if text.is_empty() { "nothing".to_owned() } else { text.to_owned() };
            write!(f, "\n    {name}: {} -> {}", show(before), show(after))?;
        }
        Ok(())
    }
}

/// Every difference: by kind in the order of the plan, removals after the rest of a kind.
pub fn diff(old: &Plan, new: &Plan) -> Vec<Change> {
    let (old, new) = (objects(old), objects(new));
    let mut changes = Vec::new();
    for (kind, after) in &new {
        let empty = BTreeMap::new();
        let before = old.iter().find(|(k, _)| k == kind).map_or(&empty, |(_, objects)| objects);
        for (path, attributes) in after {
            match before.get(path) {
                None => changes.push(Change { sign: Sign::Add, kind, path: path.clone(), attributes: Vec::new() }),
                Some(was) => {
                    let differing: Vec<(&'static str, String, String)> = was
                        .iter()
                        .zip(attributes)
                        .filter(|(a, b)| a != b)
                        .map(|(a, b)| (a.0, a.1.clone(), b.1.clone()))
                        .collect();
                    if !differing.is_empty() {
                        changes.push(Change { sign: Sign::Change, kind, path: path.clone(), attributes: differing });
                    }
                }
            }
        }
        for path in before.keys().filter(|p| !after.contains_key(*p)) {
            changes.push(Change { sign: Sign::Remove, kind, path: path.clone(), attributes: Vec::new() });
        }
    }
    changes
}

type Attributes = Vec<(&'static str, String)>;

/// Every object with all that a user can change of it, as text.
fn objects(p: &Plan) -> Vec<(&'static str, BTreeMap<String, Attributes>)> {
    let join = |items: Vec<String>| items.join(", ");
    let groups = |ids: &[usize]| join(ids.iter().map(|&g| p.security_groups[g].common.name.clone()).collect());
    let tags = |c: &super::plan::Common| join(c.tags.iter().map(|(k, v)| format!("{k}={v}")).collect());
    let of = |c: &super::plan::Common, mut more: Attributes| {
        more.extend([("id", c.id.clone()), ("description", c.description.clone()), ("tags", tags(c))]);
        (c.path.clone(), more)
    };
    let mut all = vec![
        (
            "lab",
            BTreeMap::from([
                ("limits".to_owned(), p.limits.named(time).into()),
                ("latency".to_owned(), vec![("latency", joined::latency(p))]),
            ]),
        ),
        (
            "VPC",
            p.vpcs
                .iter()
                .map(|v| {
                    of(
                        &v.common,
                        vec![
                            ("cidr", join(v.cidrs.iter().map(ToString::to_string).collect())),
                            ("region", v.region.clone()),
                            ("account", v.account.clone()),
                            ("dns_support", v.dns_support.to_string()),
                            ("dns_hostnames", v.dns_hostnames.to_string()),
                            ("main route table", p.route_tables[v.main_route_table].common.name.clone()),
                        ],
                    )
                })
                .collect(),
        ),
        (
            "subnet",
            p.subnets
                .iter()
                .map(|s| {
                    of(
                        &s.common,
                        vec![
                            ("cidr", s.cidr.to_string()),
                            ("az", format!("{} ({})", s.az_name, s.az_id)),
                            ("route_table", p.route_tables[s.route_table].common.name.clone()),
                            ("nacl", p.network_acls[s.nacl].common.name.clone()),
                        ],
                    )
                })
                .collect(),
        ),
        (
            "route table",
            p.route_tables
                .iter()
                .map(|t| {
                    let routes = t.routes.iter().map(|r| p.route_text(r));
                    of(&t.common, vec![("routes", join(routes.collect()))])
                })
                .collect(),
        ),
        (
            "network ACL",
            p.network_acls
                .iter()
                .map(|n| {
                    let rules = |r: &[super::plan::NaclRule]| join(r.iter().map(|r| r.text.clone()).collect());
                    of(&n.common, vec![("ingress", rules(&n.ingress)), ("egress", rules(&n.egress))])
                })
                .collect(),
        ),
        (
            "security group",
            p.security_groups
                .iter()
                .map(|g| {
                    let rules = |r: &[super::plan::SgRule]| join(r.iter().map(|r| r.text.clone()).collect());
                    of(&g.common, vec![("ingress", rules(&g.ingress)), ("egress", rules(&g.egress))])
                })
                .collect(),
        ),
        (
            "instance",
            p.instances
                .iter()
                .map(|i| {
                    let role = i.role.map(|r| p.roles[r].common.name.clone()).unwrap_or_default();
                    let mut attributes = gateways::of_instance(i);
                    attributes.extend(vec![
                        ("role", role),
                        ("listen", join(i.listen.iter().map(listener).collect())),
                        ("run", join(i.run.iter().map(command).collect())),
                        ("mtu", i.mtu.to_string()),
                        ("imds", format!("v2_required {}, hop_limit {}", i.imds_v2_required, i.imds_hop_limit)),
                        ("user_data", i.user_data.clone().unwrap_or_default()),
                        ("env", join(i.env.iter().map(|(k, v)| format!("{k}={v}")).collect())),
                    ]);
                    of(&i.common, attributes)
                })
                .collect(),
        ),
        (
            "network interface",
            p.enis
                .iter()
                .map(|e| {
                    let owner = match e.owner {
                        EniOwner::Instance(i, n) => format!("{}/eth{n}", p.instances[i].common.path),
                        EniOwner::Endpoint(n) | EniOwner::GatewayEndpoint(n) => p.endpoints[n].common.path.clone(),
                        EniOwner::NatGateway(n) => p.nat_gateways[n].common.path.clone(),
                        EniOwner::TgwAttachment(n) => p.tgw_attachments[n].common.path.clone(),
                        EniOwner::PublicSide => "public".to_owned(),
                    };
                    let subnet = e.subnet().map(|s| p.subnets[s].common.path.clone());
                    of(
                        &e.common,
                        vec![
                            ("owner", owner),
                            ("subnet", subnet.unwrap_or_default()),
                            ("ip", e.ip.to_string()),
                            ("security_groups", groups(&e.security_groups)),
                            ("source_dest_check", e.source_dest_check.to_string()),
                        ],
                    )
                })
                .collect(),
        ),
        (
            "endpoint",
            p.endpoints
                .iter()
                .map(|e| {
                    let mut attributes = gateways::of_endpoint(p, e);
                    attributes.extend(vec![
                        ("service", p.services[e.service].full_name.clone()),
                        ("private_dns", e.private_dns.to_string()),
                        ("policy", policy(&e.policy)),
                    ]);
                    of(&e.common, attributes)
                })
                .collect(),
        ),
        (
            "role",
            p.roles
                .iter()
                .map(|r| of(&r.common, vec![("account", r.account.clone()), ("policy", policy(&r.policy))]))
                .collect(),
        ),
        (
            "service",
            p.services
                .iter()
                .map(|s| {
                    let attributes = vec![
                        ("backend", format!("{:?}", s.backend)),
                        ("ports", join(s.ports.iter().map(ToString::to_string).collect())),
                        ("account", s.account.clone()),
                        ("data", s.data.as_ref().map(|d| d.display().to_string()).unwrap_or_default()),
                        ("contents", format!("{:?}", s.contents)),
                        ("prefixes", format!("{:?}", p.public_blocks.of(&s.name, &s.region).unwrap_or_default())),
                    ];
                    (s.full_name.clone(), attributes)
                })
                .collect(),
        ),
        (
            "check",
            p.checks
                .iter()
                .enumerate()
                .map(|(n, c)| {
                    let from = c.from.map(|i| p.instances[i].common.path.clone()).unwrap_or_else(|| "any".into());
                    let ways = format!("{:?} {:?}", c.via, c.not_via);
                    let attributes = vec![
                        ("from", from),
                        ("what", format!("{:?}", c.what)),
                        ("expect", format!("{:?}", c.expect)),
                        ("via", ways),
                        ("within", format!("{:?}", c.within)),
                    ];
                    (format!("{}", n + 1), attributes)
                })
                .collect(),
        ),
    ];
    all.extend(gateways::objects(p, &of));
    all.extend(joined::objects(p, &of));
    all
}

/// `350s`, `500ms`.
fn time(time: Duration) -> String {
    if time.subsec_nanos() == 0 { format!("{}s", time.as_secs()) } else { format!("{}ms", time.as_millis()) }
}

fn policy(p: &Policy) -> String {
    match p {
        Policy::Full => "full".into(),
        Policy::Document(d) => d.to_string(),
    }
}

/// `tcp 80 http tls www.example.com delay 3s`.
fn listener(l: &Listener) -> String {
    let reply = match &l.reply {
        ListenReply::Directory(path) => path.display().to_string(),
        other => format!("{other:?}").to_lowercase(),
    };
    let tls = l.tls.as_ref().map(|name| format!(" tls {name}")).unwrap_or_default();
    let delay = if l.delay.is_zero() { String::new() } else { format!(" delay {:?}", l.delay) };
    format!("{} {} {reply}{tls}{delay}", l.proto, l.port)
}

fn command(run: &RunCommand) -> String {
    let user = run.user.as_ref().map(|user| format!("{user}: ")).unwrap_or_default();
    format!("{user}{:?}", run.cmd)
}

#[cfg(test)]
mod tests {
    use super::super::testing::plan_of;
    use super::*;

    #[test]
    fn gateways_and_addresses_show_with_what_they_change() {
        let solo = include_str!("../../topologies/t-solo.yaml");
        let old = plan_of(&[solo]);
        let patch = "vpcs:
  vpc:
    nat_gateways: { natgw-a: { eip: [one, two] } }
    prefix_lists: { corp: [192.168.0.0/16] }
    route_tables: { public: { edge: null, routes: [ { to: 0.0.0.0/0, via: igw }, { to: \"pl:corp\", via: blackhole } ] } }
    instances: { web: { public_ip: false, forward: masquerade, tracking: { nitro: 6 } } }
    endpoints: { s3: { type: gateway, route_tables: [private] } }
";
        let new = plan_of(&[solo, patch]);
        let seen: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
        for wanted in [
            "~ route table vpc.public\n    routes: 10.0.0.0/16 local, 0.0.0.0/0 via igw -> 10.0.0.0/16 local, 0.0.0.0/0 via igw, pl:corp blackhole",
            "~ route table vpc.private\n    routes: 10.0.0.0/16 local, 0.0.0.0/0 via nat:natgw-a -> 10.0.0.0/16 local, 0.0.0.0/0 via nat:natgw-a, pl:com.amazonaws.us-east-1.s3 via endpoint:s3",
            "~ instance vpc.web\n    forward: nothing -> masquerade\n    tracking: nothing -> tcp_idle 350s",
            "+ endpoint vpc.s3",
            "~ NAT gateway vpc.natgw-a\n    addresses: 10.0.0.4 -> 10.0.0.4, 10.0.0.5",
            "+ public address one",
            "+ public address two",
            "- public address vpc.natgw-a",
            "- public address vpc.web/eth0",
            "+ prefix list vpc.corp",
            "+ prefix list com.amazonaws.us-east-1.s3",
        ] {
            assert!(seen.iter().any(|line| line == wanted), "{wanted}\n{}", seen.join("\n"));
        }
        assert_eq!(diff(&new, &new), []);
    }

    #[test]
    fn tunnels_and_servers_show_in_words() {
        let hyb = include_str!("../../topologies/t-hyb.yaml");
        let old = plan_of(&[hyb]);
        let patch = "vpcs: { vpc: { instances: { web: { listen: [{ tcp: 443, reply: http, tls: www.example.com, delay: 3s }], run: [id] } } } }
on_prem: { dc: { vpn: { mtu: 1400, mss: \"false\", tunnels: [{ preferred_by_site: true, preferred_by_aws: true }] } } }
";
        let new = plan_of(&[hyb, patch]);
        let seen: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
        for wanted in [
            "~ instance vpc.web\n    listen: tcp 80 http -> tcp 443 http tls www.example.com delay 3s\n    run: nothing -> \"id\"",
            "~ link dc/vpn\n    kind: vpn, bgp routing; tunnel 1: mtu 1446, mss 1406, tunnel 2: mtu 1446, mss 1406 -> vpn, bgp \
             routing; tunnel 1: mtu 1400, mss as sent, preferred by the site, preferred by AWS",
        ] {
            assert!(seen.iter().any(|line| line == wanted), "{wanted}\n{}", seen.join("\n"));
        }
    }

    #[test]
    fn of_limits_only_those_show_that_change_and_as_a_file_has_them() {
        let demo = include_str!("../../topologies/demo.yaml");
        let old = plan_of(&[demo]);
        let patch = "limits: { nat_idle: 3s, endpoint_idle: 1500ms, nat_ports: 20 }
vpcs: { app: { instances: { web: { tracking: { tcp_idle: 10m } } } } }
";
        let new = plan_of(&[demo, patch]);
        let seen: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(
            seen,
            [
                "~ lab limits\n    endpoint_idle: 350s -> 1500ms\n    nat_idle: 350s -> 3s\n    nat_ports: 55000 -> 20",
                "~ instance app.web\n    tracking: nothing -> tcp_idle 600s",
            ]
        );
    }

    #[test]
    fn a_patch_shows_as_what_it_changes_and_nothing_else() {
        let demo = include_str!("../../topologies/demo.yaml");
        let old = plan_of(&[demo]);
        assert_eq!(diff(&old, &old), []);
        let patch = "vpcs:
  app:
    security_groups: { doors: { ingress: [tcp 443 from sg:app, tcp 443 from sg:guest] } }
    instances: { guest: null, third: { subnet: private-b, ip: 10.0.2.30 } }
checks: null
";
        let new = plan_of(&[demo, patch]);
        let seen: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(
            seen[..5],
            [
                "~ security group app.doors\n    ingress: tcp 443 from sg:app -> tcp 443 from sg:app, tcp 443 from sg:guest",
                "+ instance app.third",
                "- instance app.guest",
                "+ network interface app.third/eth0",
                "- network interface app.guest/eth0",
            ]
        );
        assert!(seen[5..].iter().all(|c| c.starts_with("- check")) && seen.len() == 5 + old.checks.len(), "{seen:#?}");
    }
}
