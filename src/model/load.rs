//! From files to a plan, or to a report of everything that is wrong with them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Plan;
use super::catalogue;
use super::plan::{RouteTarget, TgwTarget};
use super::spec::fields::{Cx, Files};
use super::spec::merge::merge;
use super::spec::names::{Names, is_account, is_name};
use super::spec::node::{Node, Value};
use super::spec::report::{Found, Problems, Report};
use super::spec::source::{Lines, Place, Source};
use super::spec::{subst, yaml};
use super::validate;
use super::validate::vpc::{region_message, region_problem};

/// What a topology may ask of the outside, handed in: the model does no I/O.
pub struct Around<'a> {
    /// For `${env:NAME}`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// For policies in files, and for folders that must exist.
    pub files: &'a dyn Files,
    /// `--name`: overrides the file's.
    pub name: Option<&'a str>,
}

/// A topology that is good.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub plan: Plan,
    pub warnings: Report,
    /// The files as accepted, in order: what a patch is later laid over.
    pub sources: Vec<Source>,
}

/// What those find who judge the contents of policies, which the model keeps as they are.
pub struct PolicyFlaw {
    /// The title of what has the policy: `endpoint app.s3`, `role web-role`.
    pub owner: String,
    pub message: String,
    pub code: &'static str,
}

/// No environment and no files: what a topology is judged with where there is no machine around it.
pub struct Nothing;

impl Files for Nothing {
    fn read(&self, _: &Path) -> Result<Vec<u8>, String> {
        Err("files are not read here".into())
    }

    fn is_dir(&self, _: &Path) -> bool {
        false
    }
}

impl Default for Around<'_> {
    fn default() -> Self {
        Around { env: &|_| None, files: &Nothing, name: None }
    }
}

/// Reads, merges and validates. Later sources are laid over earlier ones (RFC 7396).
///
/// # Errors
/// Every problem of every source, sorted by place.
pub fn load(sources: &[Source], around: &Around<'_>) -> Result<Loaded, Report> {
    load_judged(sources, around, &|_| Vec::new())
}

/// The same, with the policies judged: what is wrong with them comes with all else.
///
/// # Errors
/// As [`load`].
pub fn load_judged(
    sources: &[Source],
    around: &Around<'_>,
    judge: &dyn Fn(&Plan) -> Vec<PolicyFlaw>,
) -> Result<Loaded, Report> {
    load_over(sources, around, &Standing::default(), judge)
}

/// What a running lab has, and keeps through a change of its files though they do not say so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// Endpoints (by path) whose private DNS is on: AWS asks for the VPC's DNS attributes when it is turned on, and does
    /// not stop whoever changes them later.
    pub private_dns: BTreeSet<String>,
    /// Addresses of interfaces, by path: who comes takes none of them, though it is written before.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// Routes, as [`route_key`] has them: AWS creates none to what does not exist, and keeps one in state `blackhole`
    /// whose target goes (VPC User Guide, "route tables").
    pub routes: BTreeSet<String>,
}

/// What a route is recognised by from one plan to the next: its table's path, destination, and target in few words.
pub fn route_key(table: &str, to: &str, target: &str) -> String {
    format!("{table} {to} {target}")
}

impl Standing {
    pub fn of(plan: &Plan) -> Standing {
        let enis = plan.enis.iter().filter(|eni| !eni.owner.is_door());
        Standing {
            private_dns: plan.endpoints.iter().filter(|e| e.private_dns).map(|e| e.common.path.clone()).collect(),
            addresses: enis.map(|eni| (eni.common.path.clone(), eni.ip)).collect(),
            routes: routes(plan),
        }
    }
}

/// Every written route of a plan, and those whose target has gone already.
fn routes(plan: &Plan) -> BTreeSet<String> {
    let mut all = plan.gone_routes.clone();
    for table in &plan.route_tables {
        for route in &table.routes {
            let named = |kind: &str, name: &str| Some(format!("{kind}:{name}"));
            let target = match route.target {
                RouteTarget::Local | RouteTarget::Blackhole | RouteTarget::GatewayEndpoint(_) => None,
                RouteTarget::Igw(_) => Some("igw".to_owned()),
                RouteTarget::Vgw(_) => Some("vgw".to_owned()),
                RouteTarget::Eni(eni) => named("eni", &plan.eni_label(eni)),
                RouteTarget::Nat(at) => named("nat", &plan.nat_gateways[at].common.name),
                RouteTarget::Peering(at) => named("peering", &plan.peerings[at].common.name),
                RouteTarget::Tgw(at) => named("tgw", &plan.transit_gateways[at].common.name),
            };
            all.extend(target.map(|target| route_key(&table.common.path, &plan.dest_text(route.to), &target)));
        }
    }
    for table in &plan.tgw_route_tables {
        for route in table.routes.iter().filter(|route| !route.propagated) {
            if let TgwTarget::Attachment(at) = route.target {
                let target = format!("attachment:{}", plan.tgw_attachments[at].common.name);
                all.insert(route_key(&table.common.path, &route.to.to_string(), &target));
            }
        }
    }
    all
}

/// The same, over a lab that runs.
///
/// # Errors
/// As [`load`].
pub fn load_over(
    sources: &[Source],
    around: &Around<'_>,
    standing: &Standing,
    judge: &dyn Fn(&Plan) -> Vec<PolicyFlaw>,
) -> Result<Loaded, Report> {
    let problems = Problems::default();
    let read = read(sources, around, standing, &problems);
    if let Some((plan, policies)) = &read {
        for flaw in judge(plan) {
            note(&flaw, policies, &problems);
        }
    }
    let (errors, warnings) = problems.finish(sources);
    match read {
        Some((plan, _)) if errors.is_empty() => Ok(Loaded { plan, warnings, sources: sources.to_vec() }),
        _ if errors.is_empty() => Err(Report::of("", "the topology could not be read")),
        _ => Err(errors),
    }
}

/// Titles of what has a policy, and where it stands.
type Policies = Vec<(String, Place)>;

fn note(flaw: &PolicyFlaw, policies: &Policies, problems: &Problems) {
    let vpc = flaw.owner.strip_prefix("endpoint ").and_then(|p| p.split('.').next()).unwrap_or_default();
    let defaults = format!("endpoint defaults of {vpc}");
    let of = |title: &str| policies.iter().find(|(t, _)| t == title).map(|(_, p)| *p);
    let place = of(&flaw.owner).or_else(|| of(&defaults)).unwrap_or_default();
    problems.error(Found::at(place, format!("{}: {}", flaw.owner, flaw.message)).code(flaw.code));
}

fn read(sources: &[Source], around: &Around<'_>, standing: &Standing, problems: &Problems) -> Option<(Plan, Policies)> {
    let trees: Vec<Option<Node>> =
        sources.iter().enumerate().map(|(n, s)| yaml::parse_source(n, s, problems)).collect();
    let mut trees = trees.into_iter().collect::<Option<Vec<Node>>>()?.into_iter();
    let Some(mut root) = trees.next() else {
        problems.error(Found::at(Place::default(), "no file was given"));
        return None;
    };
    for patch in trees {
        merge(&mut root, patch);
    }
    if !matches!(root.value, Value::Map(_)) {
        let found = Found::at(root.place, format!("a topology is a map, not {}", root.kind()));
        problems.error(found.help("version: 1\nname: my-lab\nregion: eu-west-1\nvpcs: { ... }"));
        return None;
    }
    subst::environment(&mut root, around.env, problems);
    refuse_version(&root, problems);
    let lab = lab_name(&root, sources, around, problems);
    let region = top_region(&root, problems);
    let mut names = Names::collect(&root, &lab, problems);
    subst::lab(&mut root, &mut names, &region, problems);
    let default_account = accounts(&root, &names, problems);
    let cx = Cx {
        sources,
        lines: sources.iter().map(Lines::of).collect(),
        problems,
        names,
        files: around.files,
        standing,
        aws_defaults: root.get("defaults").and_then(Node::text) == Some("aws"),
        region,
        default_account,
        unread: RefCell::default(),
        policies: RefCell::default(),
    };
    let plan = validate::topology(&cx, &root, &lab);
    if !problems.any() {
        for (place, what) in cx.unread.borrow().iter() {
            problems.error(Found::at(*place, format!("{what}: not in this version")));
        }
    }
    let plan = plan?;
    warn_of_stray_ids(&root, &cx, &plan);
    Some((plan, cx.policies.take()))
}

fn refuse_version(root: &Node, problems: &Problems) {
    let Some(node) = root.get("version") else { return };
    if node.text() != Some("1") {
        problems.error(Found::at(node.place, "`version` is 1").help("this program reads version 1 of the format"));
    }
}

/// The name that one text gives its lab.
pub fn written_name(source: &Source) -> Option<String> {
    let root = yaml::parse_source(0, source, &Problems::default())?;
    Some(root.get("name")?.text()?.to_owned())
}

/// Refuses a patch that gives a running lab another name: nothing would come of it. What else is wrong with its text is
/// told when it is read for the lab.
///
/// # Errors
/// A report with the place of `name`.
pub fn keeps_name(patch: &Source, lab: &str) -> Result<(), Report> {
    let Some(root) = yaml::parse_source(0, patch, &Problems::default()) else { return Ok(()) };
    let problems = Problems::default();
    if let Some(node) = root.get("name").filter(|n| !matches!(n.value, Value::Null) && n.text() != Some(lab)) {
        let message = format!("the lab is named `{lab}` as long as it runs");
        problems.error(Found::at(node.place, message).help("leave `name` out of the patch"));
    }
    let (errors, _) = problems.finish(std::slice::from_ref(patch));
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// `--name`, the key, or the file's name.
fn lab_name(root: &Node, sources: &[Source], around: &Around<'_>, problems: &Problems) -> String {
    if let Some(name) = around.name {
        if !is_name(name) {
            problems.error(Found::at(Place::default(), format!("`{name}` is no lab name: letters, digits, - and _")));
        }
        return name.to_owned();
    }
    if let Some(node) = root.get("name").filter(|n| !matches!(n.value, Value::Null)) {
        let text = node.text().unwrap_or_default();
        if !is_name(text) {
            let message =
                format!("`{text}` is no lab name: letters, digits, `-` and `_`, at most 63, a letter or digit first");
            problems.error(Found::at(node.place, message));
        }
        return text.to_owned();
    }
    let stem = sources.first().and_then(|s| Path::new(&s.path).file_name()?.to_str()).unwrap_or_default();
    let stem = stem.split('.').next().unwrap_or_default();
    let name: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(63).collect();
    if is_name(&name) { name } else { "lab".into() }
}

fn top_region(root: &Node, problems: &Problems) -> String {
    let Some(node) = root.get("region") else { return "eu-west-1".into() };
    let text = node.text().unwrap_or_default();
    if catalogue::region(text).is_none() {
        problems.error(region_problem(Found::at(node.place, region_message(text)), text));
    }
    text.to_owned()
}

/// Checks `accounts`; the default account, as 12 digits.
fn accounts(root: &Node, names: &Names, problems: &Problems) -> String {
    const DEFAULT: &str = "123456789012";
    if let Some(node) = root.get("accounts") {
        if !matches!(node.value, Value::Map(_)) {
            problems.error(Found::at(node.place, "`accounts` is a map from names to 12 digits"));
        }
        for e in node.entries() {
            if !e.node.text().is_some_and(is_account) {
                problems.error(
                    Found::at(e.place(), format!("account {}: a number of 12 digits is wanted", e.key))
                        .code("InvalidParameterValue"),
                );
            }
        }
    }
    let Some(node) = root.get("default_account") else { return DEFAULT.into() };
    let text = node.text().unwrap_or_default();
    if let Some(number) = names.accounts.get(text) {
        return number.clone();
    }
    if !is_account(text) {
        problems.error(
            Found::at(node.place, format!("there is no account `{text}`")).help("a name of `accounts`, or 12 digits"),
        );
        return DEFAULT.into();
    }
    text.to_owned()
}

fn warn_of_stray_ids(root: &Node, cx: &Cx<'_>, plan: &Plan) {
    let mut known: BTreeSet<&str> = cx.names.ids().collect();
    known.extend(plan.enis.iter().map(|e| e.common.id.as_str()));
    for (place, id) in subst::stray_ids(root, &known) {
        let found = Found::at(place, format!("{id} belongs to nothing in this lab"));
        cx.warning(found.help("`${lab:KIND.VPC.NAME.id}` puts the id of a thing in"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::{RouteTarget, SgPeer};

    const DEMO: &str = include_str!("../../topologies/demo.yaml");

    fn good(text: &str) -> Loaded {
        match load(&[Source::new("demo.yaml", text)], &Around::default()) {
            Ok(loaded) => loaded,
            Err(report) => panic!("{}", report.render(false)),
        }
    }

    #[test]
    fn the_demo_becomes_a_plan() {
        let Loaded { plan, warnings, .. } = good(DEMO);
        assert!(warnings.is_empty(), "{warnings}");
        assert_eq!((plan.name.as_str(), plan.region.as_str()), ("demo", "eu-west-1"));
        assert_eq!((plan.vpcs.len(), plan.subnets.len(), plan.instances.len(), plan.endpoints.len()), (1, 2, 2, 5));
        assert_eq!(plan.enis.len(), 2 + 5 * 2 + 1, "the public side last");
        // The implied ones come after what is written.
        let groups: Vec<&str> = plan.security_groups.iter().map(|g| g.common.path.as_str()).collect();
        assert_eq!(groups, ["app.app", "app.guest", "app.doors", "app.default"]);
        assert_eq!(plan.security_groups[1].egress[0].text, "all to 0.0.0.0/0");
        assert!(plan.security_groups[1].egress[0].implied && plan.security_groups[1].ingress.is_empty());
        assert_eq!(plan.security_groups[2].ingress[0].text, "tcp 443 from sg:app");
        assert_eq!(plan.security_groups[2].ingress[0].peer, SgPeer::Group(0));
        let s3 = &plan.endpoints[0];
        let ips: Vec<String> = s3.enis.iter().map(|e| plan.eni(*e).ip.to_string()).collect();
        assert_eq!(ips, ["10.0.1.4", "10.0.2.4"]);
        assert!(s3.private_dns);
        let zonal: Vec<&str> = s3.names.zonal.iter().map(|(z, ..)| z.as_str()).collect();
        assert_eq!(zonal, ["eu-west-1a", "eu-west-1b"]);
        assert!(s3.names.zonal[0].1.starts_with(&s3.common.id), "{:?}", s3.names);
        assert!(s3.names.zonal[0].1.ends_with("-eu-west-1a.s3.eu-west-1.vpce.amazonaws.com"), "{:?}", s3.names);
        assert_eq!(plan.eni_label(s3.enis[1]), "s3@b");
        assert_eq!(plan.find_instance("app.web"), Ok(0));
        assert_eq!(plan.instance_named("instance:web"), Ok(0));
        assert_eq!(
            plan.instance_named("wbe").expect_err("no such"),
            "no instance is named `wbe`; there are: app.web, app.guest"
        );
        assert_eq!(plan.subnets[0].az_id, "euw1-az1");
        assert_eq!(plan.route_tables[0].routes[0].target, RouteTarget::Local);
        assert_eq!(plan.services[0].full_name, "com.amazonaws.eu-west-1.s3");
        assert_eq!(plan.services[0].contents.buckets[0].name, "reports");
        assert_eq!(plan.services.len(), 5);
        assert_eq!(plan.checks[0].via.as_deref(), Some("endpoint:app.s3"));

        assert!(plan.checks.iter().any(|c| c.from.is_none()));
    }

    #[test]
    fn a_patch_cannot_rename_a_lab_that_runs() {
        let patch = |text: &str| Source::new("fix.yaml", text);
        for good in ["vpcs: {}", "name: shop", "name: null", "name: [", ""] {
            assert!(keeps_name(&patch(good), "shop").is_ok(), "{good}");
        }
        let refused = keeps_name(&patch("vpcs: {}\nname: other\n"), "shop").expect_err("another name");
        let problem = &refused.problems[0];
        assert_eq!((problem.line, problem.col), (2, 7));
        assert_eq!(problem.message, "the lab is named `shop` as long as it runs");
        assert_eq!(written_name(&patch("name: other")).as_deref(), Some("other"));
        assert_eq!(written_name(&patch("name: [")), None);
    }
}
