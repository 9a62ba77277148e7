//! `vpclab explain`: why a connection works or does not, stage by stage: the name, the way there, the way back, the
//! name on the certificate, the policies. Packets are asked of the same engine that decides live ones.

mod advice;
mod destination;
mod gateways;
mod path;
mod ports;
mod render;
mod rounds;
mod steps;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use serde::Serialize;

use crate::base::EniIx;
use crate::control::api::ExplainAsk;
use crate::dns::{self, Lookup, QType, Zones};
use crate::engine::{DropRecord, Engine};
use crate::model::Plan;
use crate::model::plan::{Backend, EniOwner, InstanceHome, InstancePlan};
use crate::policy::{self, Document, Kind};

pub use destination::{Destination, Target};
pub use ports::Ports;
pub use steps::{of_live, refusal};

/// What explaining looks at.
pub struct Facts<'a> {
    pub plan: &'a Plan,
    pub zones: &'a Zones,
    /// Names on the certificate that an endpoint (by its index) shows.
    pub leaf_names: &'a dyn Fn(&Plan, usize) -> Vec<String>,
}

/// A request whose policies are to be judged, beside the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// `s3:GetObject`.
    pub action: String,
    /// An ARN, or `*`.
    pub resource: String,
    /// Anonymous: the role of the instance is not asked.
    pub unsigned: bool,
}

/// The answer, as data: what `-f json` prints, and what [`Explanation::text`] shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// `YES` or `NO`.
    pub verdict: &'static str,
    pub reachable: bool,
    /// Drop code of the first stage that failed: `SG_INGRESS`, `DNS_NXDOMAIN`, `TLS_NAME`, `VPCE_POLICY`. None where an
    /// instance's kernel drops what it is not to forward.
    pub code: Option<String>,
    /// Where it ends: `endpoint`, `instance`, `nacl`, `route-table`, `resolver`, `role`, ...
    pub kind: Option<String>,
    /// `VPC.NAME` of that.
    pub object: Option<String>,
    /// What more line 2 says of it: `ENI 10.0.2.4 (zone b)`.
    pub detail: Option<String>,
    /// The rule that decided, in the file's words; of security groups, the rules that did not match.
    pub rule: Option<String>,
    /// `egress` or `ingress`, from the deciding object's view.
    pub direction: Option<&'static str>,
    /// The stage that failed: `name`, `there`, `back`, `tls`, `policy`.
    pub stage: Option<&'static str>,
    /// How bytes go if they do: `private`.
    pub way: Option<&'static str>,
    /// What the packet passes on its way there: `nat:app.natgw-a`, `igw`, `peering:a-b`, `tgw:core`, `instance:app.fw`.
    pub passed: Vec<String>,
    /// What AWS's Reachability Analyzer calls it.
    pub reachability_analyzer: Option<&'static str>,
    /// Of the ports that a client may send from, which get through, where not all fare alike; then the rest is about
    /// one that does not.
    pub ports: Option<Ports>,
    /// What a user of curl and aws-cli sees.
    pub client_sees: Option<String>,
    pub source: Source,
    pub destination: Destination,
    /// The name stage, if the destination is a name.
    pub name: Option<NameStage>,
    pub steps: Vec<Step>,
    pub notes: Vec<String>,
    /// Changes of the file, or of the question, that together make it work: each was made in a copy of the plan, and the
    /// question asked again. Empty where none is known.
    pub smallest_change: Vec<String>,
    /// The ENI that the first packet leaves, and the address it is for.
    #[serde(skip)]
    ends: Option<(EniIx, Ipv4Addr)>,
    /// What the engine noted of the packet that was dropped.
    #[serde(skip)]
    dropped: Option<DropRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// `web`.
    pub label: String,
    /// `app.web`.
    pub path: String,
    pub address: Ipv4Addr,
    /// That the packet is sent from; of a ping, its identifier.
    pub port: u16,
    /// It was asked for. Else it stands for all that a client's kernel chooses from.
    pub port_given: bool,
    /// `app.private-a`.
    pub subnet: String,
    /// `a`.
    pub zone: char,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NameStage {
    pub lookup: Lookup,
    /// The addresses in the order in which a program with glibc tries them.
    pub tried: Vec<Ipv4Addr>,
    /// RFC 6724, rule 9, decides for the first; else the order is the answer's, which is shuffled.
    pub preferred: bool,
}

/// One line of the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// `there`, `back`, `tls`, `policy`.
    pub stage: &'static str,
    /// `web`, `s3@b`; between the ends the VPC where there are several, else `-`.
    pub at: String,
    /// `sg doors ingress`, `NACL default out`, `route table main`.
    pub what: String,
    /// `ok`, `allow`, `DENY`, `not asked`, `not reached`, ...
    pub outcome: &'static str,
    /// The rule, or why.
    pub detail: String,
}

/// A question in words, as the command line and the control socket have it. The error is a sentence about bad input.
///
/// `engine` is asked and changed: a fresh one of the plan for a file, [`Engine::probe`] of a lab that runs.
pub fn answer(facts: &Facts<'_>, engine: Engine, ask: &ExplainAsk) -> Result<Explanation, String> {
    let (from, destination, request) = understood(facts.plan, ask)?;
    Ok(explain(facts, engine, from, destination, request.as_ref()))
}

/// The same without advice, which costs many questions more: for those who look at the verdict only.
///
/// # Errors
/// As [`answer`].
pub fn verdict(facts: &Facts<'_>, engine: Engine, ask: &ExplainAsk) -> Result<Explanation, String> {
    let (from, destination, request) = understood(facts.plan, ask)?;
    Ok(stages(facts, engine, from, destination, request.as_ref()))
}

/// Instance and the port that was asked for, destination, request.
type Question = ((usize, Option<u16>), Destination, Option<Request>);

fn understood(plan: &Plan, ask: &ExplainAsk) -> Result<Question, String> {
    let src = plan.instance_named(&ask.src)?;
    let destination = Destination::parse(plan, &ask.dst)?;
    if let Some((action, _)) = &ask.request
        && !action.split_once(':').is_some_and(|(service, name)| !service.is_empty() && !name.is_empty())
    {
        return Err(format!("{action} is no action: it is written service:Action, as s3:GetObject"));
    }
    let request = ask.request.clone().map(|(action, resource)| Request { action, resource, unsigned: ask.unsigned });
    Ok(((src, ask.from_port), destination, request))
}

/// Explains the way from an instance (index in `Plan::instances`) to a destination: from one port of it, or from those
/// that its kernel chooses from.
pub fn explain(
    facts: &Facts<'_>,
    engine: Engine,
    from: (usize, Option<u16>),
    destination: Destination,
    request: Option<&Request>,
) -> Explanation {
    let mut told = stages(facts, engine, from, destination, request);
    if !told.reachable {
        advice::refused(facts, from, request, &mut told);
    }
    ports::note(&mut told);
    advice::zone_by_hash(&mut told);
    advice::limits(&facts.plan.limits, &mut told);
    advice::delays(facts.plan, &mut told);
    told
}

/// The stages alone: verdict and steps, without advice.
fn stages(
    facts: &Facts<'_>,
    engine: Engine,
    (src, port): (usize, Option<u16>),
    destination: Destination,
    request: Option<&Request>,
) -> Explanation {
    let plan = facts.plan;
    let mut told = blank(plan, (src, port), destination);
    let Some((addr, endpoint)) = name_stage(facts, src, &mut told) else {
        later_stages_not_reached(&mut told);
        return told;
    };
    if path::stays_inside(plan, src, addr) {
        let label = told.source.label.clone();
        told.step("there", &label, "loopback", "ok", "its own address: no packet leaves the instance");
        let own = plan.instances[src].enis[0];
        if let Target::Instance(asked) = told.destination.target
            && asked != src
        {
            path::taken_for_itself(plan, src, asked, addr, &mut told);
            later_stages_not_reached(&mut told);
            return told;
        }
        let at = path::eni_at(plan, own, if addr.is_loopback() { plan.eni(own).ip } else { addr });
        advice::reached(plan, at, addr, &mut told);
        return told;
    }
    let from = path::eni_towards(plan, src, addr);
    told.source = source_of(plan, (src, port), from);
    told.ends = Some((from, addr));
    path::note_twin(plan, from, addr, &mut told);
    let walked = ports::walk(plan, &engine, from, addr, &mut told);
    told.notes.extend(walked.asymmetric);
    if !walked.reached {
        later_stages_not_reached(&mut told);
        return told;
    }
    let endpoint = endpoint.or_else(|| plan.eni(walked.target?).owner.endpoint());
    tls_stage(facts, endpoint, &mut told);
    policy_stage(plan, src, endpoint, request, &mut told);
    if told.reachable {
        advice::reached(plan, walked.target, addr, &mut told);
    }
    told
}

impl Explanation {
    /// The page of text, with a final newline.
    pub fn text(&self) -> String {
        render::text(self)
    }

    /// The same as data.
    pub fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Records the first failure; a later one changes nothing.
    /// Without a code: a kernel of the lab's drops it, and no record tells of it.
    fn fail(&mut self, stage: &'static str, code: Option<&str>, kind: &str, object: String) {
        if self.reachable {
            self.reachable = false;
            self.verdict = "NO";
            self.way = None;
            self.stage = Some(stage);
            self.code = code.map(str::to_owned);
            self.kind = Some(kind.to_owned());
            self.object = Some(object);
        }
    }

    fn step(&mut self, stage: &'static str, at: &str, what: &str, outcome: &'static str, detail: impl Into<String>) {
        self.steps.push(Step { stage, at: at.into(), what: what.into(), outcome, detail: detail.into() });
    }
}

/// The page of text of an explanation.
pub fn render(told: &Explanation) -> String {
    told.text()
}

/// An explanation as data.
pub fn explain_json(told: &Explanation) -> serde_json::Value {
    told.json()
}

fn blank(plan: &Plan, (src, port): (usize, Option<u16>), destination: Destination) -> Explanation {
    let eni = plan.instances[src].enis[0];
    Explanation {
        verdict: "YES",
        reachable: true,
        code: None,
        kind: None,
        object: None,
        detail: None,
        rule: None,
        direction: None,
        stage: None,
        way: Some("private"),
        passed: Vec::new(),
        reachability_analyzer: None,
        ports: None,
        client_sees: None,
        source: source_of(plan, (src, port), eni),
        destination,
        name: None,
        steps: Vec::new(),
        notes: Vec::new(),
        smallest_change: Vec::new(),
        ends: None,
        dropped: None,
    }
}

fn source_of(plan: &Plan, (src, port): (usize, Option<u16>), eni: EniIx) -> Source {
    let (instance, subnet) = (&plan.instances[src], plan.subnet_of(eni));
    Source {
        label: plan.eni_label(eni),
        path: instance.common.path.clone(),
        address: plan.eni(eni).ip,
        port: port.unwrap_or(path::CLIENT_PORT),
        port_given: port.is_some(),
        subnet: subnet.map(|s| s.common.path.clone()).unwrap_or_else(|| outside(plan, instance)),
        zone: subnet.map_or('-', |s| s.az),
    }
}

/// Where a machine stands that is in no VPC.
fn outside(plan: &Plan, instance: &InstancePlan) -> String {
    match instance.home {
        InstanceHome::Site(site) => format!("site {}", plan.sites[site].common.name),
        _ => "the Internet".to_owned(),
    }
}

/// The address that is tried, and the endpoint if the destination names one. `None` if there is no address.
fn name_stage(facts: &Facts<'_>, src: usize, told: &mut Explanation) -> Option<(Ipv4Addr, Option<usize>)> {
    let plan = facts.plan;
    let eni = plan.eni(plan.instances[src].enis[0]);
    let host = match &told.destination.target {
        Target::Address(addr) => return Some((*addr, None)),
        Target::Address6(_) => {
            told.fail("there", Some("IPV6"), "instance", plan.instances[src].common.path.clone());
            told.direction = Some("egress");
            told.step("there", &told.source.label.clone(), "IP version", "DROP", "only IPv4 is carried");
            return None;
        }
        Target::Instance(at) => {
            let other = &plan.instances[*at];
            let near = other.enis.iter().find(|e| plan.eni(**e).home == eni.home);
            return Some((plan.eni(*near.unwrap_or(&other.enis[0])).ip, None));
        }
        Target::Endpoint(at) => {
            // As a client that pins a zone would: its own subnet's ENI, else its own zone's, else the first.
            let enis = &plan.endpoints[*at].enis;
            let zone = |e: EniIx| plan.subnet_of(e).map(|s| s.az);
            let own_subnet = enis.iter().find(|e| plan.eni(**e).home == eni.home);
            let own_zone = enis.iter().find(|e| zone(**e) == zone(plan.instances[src].enis[0]));
            let eni = own_subnet.or(own_zone).or(enis.first())?;
            return Some((plan.eni(*eni).ip, Some(*at)));
        }
        Target::Host(host) => host.clone(),
    };
    let lookup = dns::lookup(facts.zones, plan.dns_view(eni.vpc()), &host, QType::A);
    let mut tried = lookup.addrs();
    let subnet = plan.link_of(plan.instances[src].enis[0]).0;
    dns::glibc_order(eni.ip, subnet, &mut tried);
    let first = tried.first().copied();
    let preferred = first.is_some_and(|dst| dns::glibc_prefers(eni.ip, subnet, dst));
    let endpoint = lookup.endpoint;
    if first.is_none() {
        let code = if lookup.rcode.is_none() { "DNS_DISABLED" } else { lookup.code().unwrap_or("DNS_NODATA") };
        match endpoint {
            Some(at) => {
                told.fail("name", Some(code), "endpoint", plan.endpoints[at].common.path.clone());
                told.detail = Some(format!("zone {}", lookup.zone));
            }
            None => {
                let resolver = eni.vpc().map_or("public", |vpc| &plan.vpcs[vpc].common.path);
                told.fail("name", Some(code), "resolver", resolver.to_owned());
            }
        }
    }
    told.name = Some(NameStage { lookup, tried, preferred });
    first.map(|addr| (addr, endpoint))
}

/// Is the host name on the certificate that the endpoint shows?
fn tls_stage(facts: &Facts<'_>, endpoint: Option<usize>, told: &mut Explanation) {
    if !told.destination.tls {
        return;
    }
    let asked = match &told.destination.target {
        Target::Host(host) => host.clone(),
        Target::Address(addr) => addr.to_string(),
        _ => return,
    };
    let Some(at) = endpoint else {
        told.step("tls", "-", "certificate", "not asked", "not an endpoint's");
        return;
    };
    let common = &facts.plan.endpoints[at].common;
    let (path, label) = (common.path.clone(), common.name.clone());
    if matches!(facts.plan.services[facts.plan.endpoints[at].service].backend, Backend::Tcp(_)) {
        told.step("tls", &label, "certificate", "not asked", "its backend answers with one of its own");
        return;
    }
    let names = (facts.leaf_names)(facts.plan, at);
    if let Some(name) = names.iter().find(|name| certifies(name, &asked)) {
        told.step("tls", &label, "certificate", "ok", name.as_str());
        return;
    }
    told.step("tls", &label, "certificate", "NO NAME", format!("{asked} is none of {}", names.join(", ")));
    told.fail("tls", Some("TLS_NAME"), "endpoint", path);
    told.rule = Some(names.join(", "));
}

/// RFC 6125, 6.4.3: a wildcard stands for one whole label, the first.
fn certifies(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        None => name.eq_ignore_ascii_case(host),
        Some(base) => {
            host.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest.eq_ignore_ascii_case(base))
        }
    }
}

/// The role's policy and the endpoint's: both must allow.
fn policy_stage(plan: &Plan, src: usize, endpoint: Option<usize>, request: Option<&Request>, told: &mut Explanation) {
    let Some(request) = request else {
        if endpoint.is_some() {
            told.step("policy", "-", "not asked", "", "name a request: --request s3:GetObject ARN");
        }
        return;
    };
    let (action, resource) = (request.action.as_str(), request.resource.as_str());
    let role = plan.instances[src].role.filter(|_| !request.unsigned).map(|at| &plan.roles[at]);
    let endpoint = endpoint.map(|at| &plan.endpoints[at]);
    // Without resource policies only `echo` serves who does not sign; what a backend of the user's does is its matter.
    let signed_only = endpoint.is_some_and(|e| {
        let service = &plan.services[e.service];
        service.backend == Backend::Builtin && service.name != "echo"
    });
    let asked = [
        endpoint.map(|e| ("endpoint", "VPCE_POLICY", &e.common, Kind::Endpoint, &e.policy)),
        role.map(|r| ("role", "ROLE_POLICY", &r.common, Kind::Role, &r.policy)),
    ];
    if role.is_none() {
        let why = if request.unsigned { "the request is not signed" } else { "the instance has no role" };
        let label = told.source.label.clone();
        if signed_only {
            told.step("policy", &label, "signature", "DENY", format!("{why}: anonymous callers may do nothing"));
            told.fail("policy", Some("ROLE_POLICY"), "instance", plan.instances[src].common.path.clone());
            told.detail = Some(why.to_owned());
            told.rule.get_or_insert_with(|| why.to_owned());
        } else {
            told.step("policy", &label, "role", "not asked", why);
        }
        if !request.unsigned {
            told.notes.push("aws-cli and SDKs do not ask at all: \"Unable to locate credentials\"".into());
        }
    }
    for (kind, code, common, document_kind, policy) in asked.into_iter().flatten() {
        let document = Document::of(document_kind, policy).unwrap_or(Document { statements: Vec::new() });
        let decision = policy::evaluate(&document, action, resource);
        let (what, text) = (format!("{kind} policy"), decision.text(&document));
        if decision.allows() {
            told.step("policy", &common.name, &what, "allow", text);
        } else {
            told.step("policy", &common.name, &what, "DENY", text.as_str());
            told.fail("policy", Some(code), kind, common.path.clone());
            told.rule.get_or_insert(text);
        }
    }
}

fn later_stages_not_reached(told: &mut Explanation) {
    let failed = told.stage.unwrap_or("there");
    for stage in ["there", "back"] {
        if !told.steps.iter().any(|step| step.stage == stage) && (stage != failed) {
            told.step(stage, "-", "not reached", "", "");
        }
    }
    told.step("tls, policy", "", "not reached", "", "");
}

/// Whose ENI this is, for line 2: kind and `VPC.NAME`.
fn owner(plan: &Plan, eni: EniIx) -> (&'static str, String) {
    match plan.eni(eni).owner {
        EniOwner::Instance(at, _) => ("instance", plan.instances[at].common.path.clone()),
        EniOwner::Endpoint(at) => ("endpoint", plan.endpoints[at].common.path.clone()),
        EniOwner::GatewayEndpoint(at) => ("gateway-endpoint", plan.endpoints[at].common.path.clone()),
        EniOwner::NatGateway(at) => ("nat", plan.nat_gateways[at].common.path.clone()),
        EniOwner::TgwAttachment(at) => ("tgw-attachment", plan.tgw_attachments[at].common.path.clone()),
        EniOwner::PublicSide => ("public", "public".to_owned()),
    }
}
