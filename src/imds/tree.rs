//! What the service tells: every leaf of an instance's tree, by path below the version.

use std::collections::BTreeMap;

use serde_json::json;

use crate::base::UnixTime;
use crate::base::ids::aws_id;
use crate::model::Plan;
use crate::model::credentials::CredentialBook;
use crate::model::plan::Home;

/// What one instance may see.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub plan: &'a Plan,
    /// Index in `Plan::instances`.
    pub instance: usize,
    pub credentials: &'a CredentialBook,
    /// When the instance started: `Last-Modified`, and `pendingTime` of the identity document.
    pub launched: UnixTime,
}

/// Versions besides `latest`, as EC2 lists them. Their contents are the same here.
pub(super) const VERSIONS: [&str; 28] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-09-24",
    "2024-04-11",
];

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Leaf(Leaf),
    /// Names, one a line, directories with a slash; no final newline.
    Listing(String),
    /// A directory without its final slash: the client is sent there.
    NeedsSlash,
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) body: String,
    /// `text/plain`, or that of user data.
    pub(super) content_type: &'static str,
}

const TEXT: &str = "text/plain";
/// EC2 does not say what user data is.
const OCTETS: &str = "application/octet-stream";

/// Looks up a path without query string. A final slash after a leaf does no harm: SDKs ask for
/// `placement/availability-zone/`.
pub(super) fn find(view: &View<'_>, path: &str) -> Found {
    if path == "/" {
        let mut versions = VERSIONS.join("\n");
        versions.push_str("\nlatest");
        return Found::Listing(versions);
    }
    let Some(path) = path.strip_prefix('/') else { return Found::Nothing };
    let (version, rest) = path.split_once('/').map_or((path, None), |(v, rest)| (v, Some(rest)));
    if version != "latest" && !VERSIONS.contains(&version) {
        return Found::Nothing;
    }
    let Some(rest) = rest else { return Found::NeedsSlash };
    let tree = leaves(view);
    if rest.is_empty() {
        return listing(&tree, "");
    }
    if let Some(leaf) = tree.get(rest.strip_suffix('/').unwrap_or(rest)) {
        return Found::Leaf(leaf.clone());
    }
    if rest.ends_with('/') {
        return listing(&tree, rest);
    }
    match listing(&tree, &format!("{rest}/")) {
        Found::Listing(_) => Found::NeedsSlash,
        other => other,
    }
}

type Tree = BTreeMap<String, Leaf>;

fn listing(tree: &Tree, dir: &str) -> Found {
    let mut names: Vec<&str> = Vec::new();
    for path in tree.range(dir.to_owned()..).map(|(path, _)| path).take_while(|path| path.starts_with(dir)) {
        let own = &path[dir.len()..];
        // Up to and with the slash.
        let name = own.find('/').map_or(own, |slash| &own[..=slash]);
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    if names.is_empty() || dir.contains("//") { Found::Nothing } else { Found::Listing(names.join("\n")) }
}

fn leaves(view: &View<'_>) -> Tree {
    let mut tree = Tree::new();
    let Some(instance) = view.plan.instances.get(view.instance) else { return tree };
    if let Some(data) = &instance.user_data {
        tree.insert("user-data".to_owned(), Leaf { body: data.clone(), content_type: OCTETS });
    }
    let mut put = |path: &str, body: String| tree.insert(path.to_owned(), Leaf { body, content_type: TEXT });
    let plan = view.plan;
    let id = &instance.common.id;
    // Hosts outside VPCs have no metadata service; the engine sends them none.
    let Some(vpc) = instance.vpc().map(|vpc| &plan.vpcs[vpc]) else { return Tree::new() };
    put("meta-data/ami-id", image_id(plan));
    put("meta-data/ami-launch-index", "0".to_owned());
    put("meta-data/instance-action", "none".to_owned());
    put("meta-data/instance-id", id.clone());
    put("meta-data/instance-life-cycle", "on-demand".to_owned());
    put("meta-data/instance-type", INSTANCE_TYPE.to_owned());
    put("meta-data/profile", "default-hvm".to_owned());
    put("meta-data/reservation-id", aws_id("r", &plan.name, &instance.common.path));
    put("meta-data/placement/region", vpc.region.clone());
    let (partition, domain) = partition(&vpc.region);
    put("meta-data/services/domain", domain.to_owned());
    put("meta-data/services/partition", partition.to_owned());
    for (device, eni) in instance.enis.iter().enumerate() {
        interface(view, device, eni.at(), &mut |path, body| {
            put(path, body);
        });
    }
    if let Some(role) = instance.role.and_then(|r| plan.roles.get(r)) {
        roles(view, &role.common.name, &role.account, partition, &mut |path, body| {
            put(path, body);
        });
    }
    put("dynamic/instance-identity/document", identity_document(view));
    tree
}

/// The plan has no instance types: a common one of the machine's own architecture.
const INSTANCE_TYPE: &str = if cfg!(target_arch = "aarch64") { "m7g.large" } else { "m7i.large" };
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };

fn image_id(plan: &Plan) -> String {
    aws_id("ami", &plan.name, "image")
}

fn partition(region: &str) -> (&'static str, &'static str) {
    match region {
        r if r.starts_with("cn-") => ("aws-cn", "amazonaws.com.cn"),
        r if r.starts_with("us-gov-") => ("aws-us-gov", "amazonaws.com"),
        _ => ("aws", "amazonaws.com"),
    }
}

fn interface(view: &View<'_>, device: usize, eni: usize, put: &mut dyn FnMut(&str, String)) {
    let plan = view.plan;
    let public = plan.public_addresses.iter().find(|public| public.eni.at() == eni);
    let Some(eni) = plan.enis.get(eni) else { return };
    let Home::Subnet { vpc, subnet } = eni.home else { return };
    let (vpc, subnet) = (&plan.vpcs[vpc], &plan.subnets[subnet]);
    let mac = eni.mac.map(|b| format!("{b:02x}")).join(":");
    let [a, b, c, d] = eni.ip.octets();
    let hostname = format!("ip-{a}-{b}-{c}-{d}.{}", vpc.internal_domain());
    let groups = || eni.security_groups.iter().filter_map(|g| plan.security_groups.get(*g));
    let group_names = groups().map(|g| g.common.name.as_str()).collect::<Vec<_>>().join("\n");
    if device == 0 {
        put("meta-data/hostname", hostname.clone());
        put("meta-data/local-hostname", hostname.clone());
        put("meta-data/local-ipv4", eni.ip.to_string());
        put("meta-data/mac", mac.clone());
        put("meta-data/security-groups", group_names.clone());
        put("meta-data/placement/availability-zone", subnet.az_name.clone());
        put("meta-data/placement/availability-zone-id", subnet.az_id.clone());
    }
    let public_name = public.and_then(|public| public.host_name(vpc));
    if device == 0
        && let Some(public) = public
    {
        put("meta-data/public-ipv4", public.addr.to_string());
        if let Some(name) = &public_name {
            put("meta-data/public-hostname", name.clone());
        }
    }
    let mut of_mac = |key: &str, body: String| put(&format!("meta-data/network/interfaces/macs/{mac}/{key}"), body);
    if let Some(public) = public {
        of_mac("public-ipv4s", public.addr.to_string());
        of_mac(&format!("ipv4-associations/{}", public.addr), public.private.to_string());
    }
    if let Some(name) = public_name {
        of_mac("public-hostname", name);
    }
    of_mac("device-number", device.to_string());
    of_mac("interface-id", eni.common.id.clone());
    of_mac("local-hostname", hostname);
    of_mac("local-ipv4s", eni.ip.to_string());
    of_mac("mac", mac.clone());
    of_mac("owner-id", vpc.account.clone());
    of_mac("security-group-ids", groups().map(|g| g.common.id.as_str()).collect::<Vec<_>>().join("\n"));
    of_mac("security-groups", group_names);
    of_mac("subnet-id", subnet.common.id.clone());
    of_mac("subnet-ipv4-cidr-block", subnet.cidr.to_string());
    of_mac("vpc-id", vpc.common.id.clone());
    of_mac("vpc-ipv4-cidr-block", vpc.cidrs[0].to_string());
    of_mac("vpc-ipv4-cidr-blocks", vpc.cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
}

/// The instance profile has the role's name, as the console makes it.
fn roles(view: &View<'_>, role: &str, account: &str, partition: &str, put: &mut dyn FnMut(&str, String)) {
    let Some(credentials) = view.credentials.of_instance(view.instance) else { return };
    let updated = credentials.issued.iso8601();
    let info = json!({
        "Code": "Success",
        "LastUpdated": updated,
        "InstanceProfileArn": format!("arn:{partition}:iam::{account}:instance-profile/{role}"),
        "InstanceProfileId": format!("AIPA{}", crate::base::ids::token36(&["profile", account, role], 16).to_uppercase()),
    });
    put("meta-data/iam/info", pretty(&info));
    let keys = json!({
        "Code": "Success",
        "LastUpdated": updated,
        "Type": "AWS-HMAC",
        "AccessKeyId": credentials.access_key,
        "SecretAccessKey": credentials.secret_key,
        "Token": credentials.token,
        "Expiration": credentials.expires.iso8601(),
    });
    put(&format!("meta-data/iam/security-credentials/{role}"), pretty(&keys));
}

fn identity_document(view: &View<'_>) -> String {
    let plan = view.plan;
    let instance = &plan.instances[view.instance];
    let Some(vpc) = instance.vpc().map(|vpc| &plan.vpcs[vpc]) else { return String::new() };
    let eni = instance.enis.first().and_then(|eni| plan.enis.get(eni.at()));
    pretty(&json!({
        "accountId": vpc.account,
        "architecture": ARCHITECTURE,
        "availabilityZone": eni.and_then(|e| e.subnet()).map(|s| plan.subnets[s].az_name.as_str()),
        "billingProducts": null,
        "devpayProductCodes": null,
        "marketplaceProductCodes": null,
        "imageId": image_id(plan),
        "instanceId": instance.common.id,
        "instanceType": INSTANCE_TYPE,
        "kernelId": null,
        "pendingTime": view.launched.iso8601(),
        "privateIp": eni.map(|e| e.ip.to_string()),
        "ramdiskId": null,
        "region": vpc.region,
        "version": "2017-09-30",
    }))
}

/// EC2's own layout: two spaces, a space on both sides of the colon.
fn pretty(object: &serde_json::Value) -> String {
    let Some(map) = object.as_object() else { return object.to_string() };
    let members: Vec<String> =
        map.iter().map(|(key, value)| format!("  {} : {value}", serde_json::Value::from(key.as_str()))).collect();
    format!("{{\n{}\n}}", members.join(",\n"))
}
