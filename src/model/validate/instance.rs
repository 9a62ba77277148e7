//! Instances: their interfaces, role, metadata service, servers and commands.

use super::eni::EniDraft;
use super::vpc::VpcFacts;
use super::{Draft, common, gateways, groups, listen};
use crate::base::ids::aws_id;
use crate::model::fault;
use crate::model::plan::{Common, EniOwner, Forward, Impair, InstanceHome, InstancePlan, Tracking};
use crate::model::spec::fields::{Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::{Kind, count_of};
use crate::model::spec::node::Entry;

/// IP MTU of an instance's interface where none is written (EC2 User Guide, "Jumbo frames").
const JUMBO: u16 = 9_001;
/// AWS's limit of user data before it is encoded, bytes.
const LARGEST_USER_DATA: usize = 16 << 10;
/// No instance type has more.
const MOST_ENIS: usize = 15;

pub fn read<'a>(cx: &'a Cx<'a>, vpc: &Fields<'a>, facts: &VpcFacts, draft: &mut Draft) {
    for e in vpc.named("instances") {
        match count_of(&e.node) {
            None => one(cx, e, &e.key, facts, draft, false),
            Some(count) => {
                let found: Vec<String> = (1..=count).map(|n| format!("{}-{n}", e.key)).collect();
                for name in &found {
                    one(cx, e, name, facts, draft, true);
                }
            }
        }
    }
}

fn one<'a>(cx: &'a Cx<'a>, e: &'a Entry, name: &str, facts: &VpcFacts, draft: &mut Draft, counted: bool) {
    let vpc_name = &cx.names.get(Kind::Vpc, facts.index).name;
    let Some(index) = cx.names.index(Kind::Instance, facts.index, name) else { return };
    // Problems of counted instances are the same for all: titled alike they are noted once.
    let Some(f) = Fields::open(cx, &keys::INSTANCE, format!("instance {vpc_name}.{}", e.key), e) else { return };
    let common = common(&f, Kind::Instance, index);
    let _ = f.int("count");
    if counted {
        for key in ["ip", "id"] {
            if f.has(key) {
                let message = format!("`{key}` and `count` exclude each other: one {key} for several instances");
                cx.error(f.error(f.key_place(key), message).code("InvalidParameterCombination"));
            }
        }
    }
    interfaces(&f, facts, &common, index, draft, counted);
    let role = f.text("role").and_then(|t| {
        let role = f.reference(Kind::Role, None, t)?;
        let account = draft.roles.get(role).and_then(|r| r.as_ref()).map(|r| r.account.clone());
        if let Some(account) = account.filter(|a| *a != facts.account) {
            let message = format!(
                "role {} is of account {account}, the VPC of {}: an instance profile takes roles of its own account",
                t.value, facts.account
            );
            cx.error(f.error(t.place, message).code("InvalidParameterValue"));
        }
        Some(role)
    });
    let (v2_required, hop_limit) = imds(&f);
    let user_data = f.text("user_data");
    if let Some(t) = user_data.filter(|t| t.value.len() > LARGEST_USER_DATA) {
        let message = format!("user data is limited to {LARGEST_USER_DATA} bytes; these are {}", t.value.len());
        cx.error(f.error(t.place, message).code("InvalidParameterValue"));
    }
    let env = env(&f);
    gateways::public_ip(&f, facts.index, index, counted, draft);
    let forward = forward(&f);
    draft.instances[index] = Some(InstancePlan {
        common,
        home: InstanceHome::Vpc(facts.index),
        enis: Vec::new(),
        role,
        listen: listen::listeners(&f),
        run: listen::commands(&f),
        mtu: f.int("mtu").map_or(JUMBO, |n| n.value as u16),
        imds_v2_required: v2_required,
        imds_hop_limit: hop_limit,
        user_data: user_data.map(|t| t.value.to_owned()),
        env,
        names: public_names(&f),
        forward,
        tracking: tracking(&f),
        impair: impair(&f),
        dns_server: false,
        counted,
    });
    f.done();
}

/// Variables that commands get.
pub fn env(f: &Fields<'_>) -> Vec<(String, String)> {
    let mut env = Vec::new();
    for (key, value) in f.text_map("env") {
        let good = key.value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !good {
            f.cx.error(f.error(key.place, format!("`{}` is no name of a variable", key.value)));
        }
        env.push((key.value.to_owned(), value.value.to_owned()));
    }
    env
}

/// Names of the public side that point to it, lower case.
pub fn public_names(f: &Fields<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for t in f.texts("names").unwrap_or_default() {
        let name = t.value.trim_end_matches('.').to_ascii_lowercase();
        let label = |l: &str| {
            !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if name.len() > 253 || !name.contains('.') || !name.split('.').all(label) {
            f.cx.error(f.error(t.place, format!("`{}` is no host name", t.value)));
        } else {
            names.push(name);
        }
    }
    names
}

pub fn forward(f: &Fields<'_>) -> Option<Forward> {
    match f.word("forward")?.value {
        "true" => Some(Forward::Plain),
        "masquerade" => Some(Forward::Masquerade),
        "stateful" => Some(Forward::Stateful),
        _ => None,
    }
}

/// EC2 User Guide, "connection tracking idle timeouts"; values below AWS's least are for labs.
fn tracking(f: &Fields<'_>) -> Tracking {
    let Some(entry) = f.entry("tracking") else { return Tracking::default() };
    let Some(t) = Fields::open(f.cx, &keys::TRACKING, f.title.clone(), entry) else { return Tracking::default() };
    let nitro = t.int("nitro").filter(|n| n.value >= 6).map(|_| std::time::Duration::from_secs(350));
    let read = Tracking {
        tcp_idle: t.duration("tcp_idle").map(|d| d.value).or(nitro),
        udp_idle: t.duration("udp_idle").map(|d| d.value),
        udp_stream: t.duration("udp_stream").map(|d| d.value),
    };
    t.done();
    read
}

/// `impair: { delay, jitter, loss, rate, down, seed }`.
pub fn impair(f: &Fields<'_>) -> Option<Impair> {
    let entry = f.entry("impair")?;
    let i = Fields::open(f.cx, &keys::IMPAIR, f.title.clone(), entry)?;
    let read = Impair { seed: i.int("seed").map(|n| n.value as u64), ..impair_keys(&i) };
    i.done();
    Some(read)
}

/// The same keys beside others.
pub fn impair_keys(f: &Fields<'_>) -> Impair {
    let part = |key: &str, form: &str| f.text(key).map(|t| (t, form.to_owned()));
    let mut impair = Impair {
        delay: f.duration("delay").map(|d| d.value).unwrap_or_default(),
        jitter: f.duration("jitter").map(|d| d.value).unwrap_or_default(),
        down: f.bool("down").is_some_and(|b| b.value),
        ..Impair::default()
    };
    if let Some((t, form)) = part("loss", "a share: `1%`") {
        match fault::share(t.value) {
            Some(ppm) => impair.loss_ppm = ppm,
            None => f.cx.error(f.error(t.place, format!("`{}` is not {form}", t.value))),
        }
    }
    if let Some((t, form)) = part("rate", "a rate: `10mbit`") {
        match fault::rate(t.value) {
            Some(rate) => impair.rate = Some(rate),
            None => f.cx.error(f.error(t.place, format!("`{}` is not {form}", t.value))),
        }
    }
    impair
}

/// `imds: { v2_required, hop_limit }`.
fn imds(f: &Fields<'_>) -> (bool, u8) {
    let Some(entry) = f.entry("imds") else { return (false, 1) };
    let Some(i) = Fields::open(f.cx, &keys::IMDS, f.title.clone(), entry) else { return (false, 1) };
    let read = (i.bool("v2_required").is_some_and(|b| b.value), i.int("hop_limit").map_or(1, |n| n.value as u8));
    i.done();
    read
}

/// The flat form, or the list `enis`.
fn interfaces(f: &Fields<'_>, facts: &VpcFacts, common: &Common, instance: usize, draft: &mut Draft, counted: bool) {
    let cx = f.cx;
    let own_common = |n: usize| Common {
        name: format!("{}/eth{n}", common.name),
        path: format!("{}/eth{n}", common.path),
        id: aws_id("eni", &common.id, &format!("eth{n}")),
        ..Common::default()
    };
    let one = |f: &Fields<'_>, n: usize, common: Common| EniDraft {
        common,
        vpc: facts.index,
        outside: None,
        subnet: f.text("subnet").and_then(|t| f.reference_within(Kind::Subnet, facts.index, t, "InvalidParameter")),
        // With `count` it was refused above.
        ip: f.ip("ip").filter(|_| !counted),
        security_groups: groups(f, facts.index),
        source_dest_check: f.bool("source_dest_check").is_none_or(|b| b.value),
        owner: EniOwner::Instance(instance, n as u8),
        place: f.place,
    };
    if !f.has("enis") {
        if !f.has("subnet") {
            let found = f.error(f.place, "`subnet` is missing").code("MissingParameter");
            cx.error(found.help("`subnet: NAME`, or `enis: [ { subnet: NAME }, ... ]`"));
        }
        draft.eni_drafts.push(one(f, 0, own_common(0)));
        return;
    }
    for key in ["subnet", "ip", "security_groups", "source_dest_check"] {
        if f.has(key) {
            let _ = f.entry(key);
            let message = format!("`{key}` stands in the items of `enis`, not beside it");
            cx.error(f.error(f.key_place(key), message).code("InvalidParameterCombination"));
        }
    }
    let list = f.list("enis");
    if list.is_empty() {
        cx.error(f.error(f.key_place("enis"), "an instance has at least one network interface"));
    }
    if list.len() > MOST_ENIS {
        let message = format!("more than {MOST_ENIS} network interfaces");
        cx.error(f.error(f.key_place("enis"), message).code("AttachmentLimitExceeded"));
        return;
    }
    let mut zone: Option<(char, usize)> = None;
    for (n, node) in list.iter().enumerate() {
        let place = node.entries().first().map_or(f.key_place("enis"), |e| e.key_place);
        let Some(i) = Fields::open_node(cx, &keys::ENI, f.title.clone(), node, place) else { continue };
        let mut common = own_common(n);
        if let Some(id) = i.text("id") {
            let digits = id.value.strip_prefix("eni-").unwrap_or_default();
            if !matches!(digits.len(), 8 | 17) || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                let message = format!("`{}` is no id of a network interface", id.value);
                cx.error(i.error(id.place, message).code("InvalidNetworkInterfaceID.Malformed"));
            }
            common.id = id.value.to_owned();
        }
        common.tags = i.text_map("tags").into_iter().map(|(k, v)| (k.value.to_owned(), v.value.to_owned())).collect();
        common.description = i.text("description").map(|t| t.value.to_owned()).unwrap_or_default();
        if counted && i.has("ip") {
            let message = "`ip` and `count` exclude each other: one ip for several instances";
            cx.error(i.error(i.key_place("ip"), message).code("InvalidParameterCombination"));
        }
        let eni = one(&i, n, common);
        if let Some(az) = eni.subnet.and_then(|s| draft.subnets[s].as_ref()).map(|s| s.az) {
            match zone {
                Some((first, at)) if first != az => {
                    let message = format!("eth{n} is in zone {az}, eth{at} in zone {first}: all must be in one zone");
                    cx.error(i.error(i.key_place("subnet"), message).code("InvalidParameterCombination"));
                }
                None => zone = Some((az, n)),
                _ => {}
            }
        }
        draft.eni_drafts.push(eni);
        i.done();
    }
}
