//! Services: what stands behind endpoints, and what it holds when the lab comes up.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::Draft;
use super::table;
use super::vpc::{blocks, default_region, region};
use crate::base::Cidr;
use crate::model::catalogue::{self, PublicBlocks, Service};
use crate::model::plan::{Backend, BucketFiles, BucketPlan, Contents, ServicePlan, UpstreamAddr};
use crate::model::spec::fields::{At, Cx, Fields};
use crate::model::spec::keys::{self, Noun};
use crate::model::spec::node::{Entry, Value};
use crate::model::spec::report::{Found, did_you_mean};
use crate::model::spec::source::Place;

/// The `services` of a file, by short name.
pub type ServicesWritten<'a> = BTreeMap<&'static str, Written>;

/// One service as written, for all regions.
pub struct Written {
    backend: Backend,
    ports: Option<Vec<u16>>,
    account: String,
    data: Option<PathBuf>,
    /// Of its managed prefix list, in the topology's region.
    prefixes: Vec<At<Cidr>>,
    /// By region.
    contents: BTreeMap<&'static str, Contents>,
    service: &'static Service,
}

pub fn read<'a>(cx: &'a Cx<'a>, top: &Fields<'a>) -> ServicesWritten<'a> {
    let mut all = BTreeMap::new();
    for e in top.named("services") {
        let title = format!("service {}", e.key);
        let Some(f) = Fields::open(cx, &keys::SERVICE, title, e) else { continue };
        let service = catalogue::service(&e.key).filter(|s| s.endpoint);
        if service.is_none() {
            let near = did_you_mean(&e.key, catalogue::services().iter().filter(|s| s.endpoint).map(|s| s.name));
            let found = f.error(e.key_place, "there is no such service").code("InvalidServiceName");
            cx.error(found.help(near.unwrap_or_else(|| "`vpclab services` lists all, by short name".into())));
        }
        let backend = f.text("backend").map(|t| (backend(&f, t), t.place));
        let written_backend = backend.as_ref().is_some_and(|(b, _)| !matches!(b, Some(Backend::Builtin)));
        let contents = contents(cx, &f, service, written_backend);
        let data = f.text("data").map(|t| At { value: cx.path(t.value, t.place), place: t.place });
        if let Some(d) = &data {
            if written_backend {
                cx.error(f.error(d.place, "`data` is of the built-in server: a backend keeps its own"));
            } else if service.is_some_and(|s| s.name != "s3") {
                cx.error(f.error(d.place, "`data` of services other than s3: not in this version"));
            }
        }
        let written = service.map(|service| Written {
            backend: backend.and_then(|(b, _)| b).unwrap_or(Backend::Builtin),
            ports: ports(&f),
            account: f.account("account").unwrap_or_else(|| cx.default_account.clone()),
            data: data.map(|d| d.value),
            prefixes: service_prefixes(&f, service),
            contents,
            service,
        });
        if let Some(w) = written {
            if !w.service.builtin && w.backend == Backend::Builtin && !written_backend {
                no_server(&f, e.key_place, w.service);
            }
            all.insert(w.service.name, w);
        }
        f.done();
    }
    all
}

/// The public side of this lab.
pub fn public_blocks(cx: &Cx<'_>, written: &ServicesWritten<'_>) -> PublicBlocks {
    let mut blocks = PublicBlocks::default();
    let mut taken: Vec<(At<Cidr>, &str)> = Vec::new();
    for w in written.values() {
        for block in &w.prefixes {
            if let Some((other, name)) = taken.iter().find(|(other, _)| other.value.overlaps(block.value)) {
                let message = format!("service {}: {} overlaps {} of {name}", w.service.name, block.value, other.value);
                cx.error(
                    Found::at(block.place, message).code("InvalidParameterValue").also(other.place, "the other one"),
                );
            }
            taken.push((*block, w.service.name));
        }
        if !w.prefixes.is_empty() {
            let values = w.prefixes.iter().map(|b| b.value).collect();
            blocks.set(w.service, default_region(cx).name, values);
        }
    }
    blocks
}

/// The blocks of `prefixes`: of addresses that nothing else has here.
fn service_prefixes(f: &Fields<'_>, service: &Service) -> Vec<At<Cidr>> {
    if !f.has("prefixes") {
        return Vec::new();
    }
    let written = blocks(f, "prefixes");
    if catalogue::prefix_list_blocks(service.name, default_region(f.cx).name).is_none() {
        let message = format!("{} has no managed prefix list: s3 and dynamodb have", service.name);
        f.cx.error(f.error(f.key_place("prefixes"), message));
        return Vec::new();
    }
    if written.is_empty() {
        f.cx.error(f.error(f.key_place("prefixes"), "a prefix list has at least one block").code("MissingParameter"));
    }
    // The third documentation range is that of Elastic IPs.
    let documentation = [Ipv4Addr::new(192, 0, 2, 0), Ipv4Addr::new(198, 51, 100, 0)].map(|a| Cidr::containing(a, 24));
    let free: Vec<Cidr> = std::iter::once(catalogue::free_public_range()).chain(documentation).collect();
    written
        .into_iter()
        .filter(|block| {
            let good = free.iter().any(|range| range.covers(block.value));
            if !good {
                let ranges: Vec<String> = free.iter().map(ToString::to_string).collect();
                let message = format!("{} is not free for a service of the public side", block.value);
                f.cx.error(f.error(block.place, message).help(format!("blocks within {}", ranges.join(", "))));
            }
            good
        })
        .collect()
}

/// The index of the service that an endpoint leads to, made if it is the first.
pub fn led_to(
    f: &Fields<'_>,
    e: &Entry,
    service: &'static Service,
    region: &'static str,
    written: &ServicesWritten<'_>,
    draft: &mut Draft,
) -> usize {
    if !service.builtin && !written.contains_key(service.name) {
        no_server(f, e.key_place, service);
    }
    index_of(f.cx, service, region, written.get(service.name), draft)
}

/// Services that have contents or a backend though no endpoint leads to them.
pub fn finish(cx: &Cx<'_>, written: &ServicesWritten<'_>, draft: &mut Draft) {
    for w in written.values() {
        for region in w.contents.keys() {
            index_of(cx, w.service, region, Some(w), draft);
        }
        if !draft.services.iter().any(|s| s.name == w.service.name) {
            index_of(cx, w.service, default_region(cx).name, Some(w), draft);
        }
    }
}

fn index_of(
    cx: &Cx<'_>,
    service: &'static Service,
    region: &'static str,
    written: Option<&Written>,
    draft: &mut Draft,
) -> usize {
    if let Some(at) = draft.services.iter().position(|s| s.name == service.name && s.region == region) {
        return at;
    }
    draft.services.push(ServicePlan {
        name: service.name.to_owned(),
        full_name: service.full_name(region),
        region: region.to_owned(),
        account: written.map_or_else(|| cx.default_account.clone(), |w| w.account.clone()),
        backend: written.map_or(Backend::Builtin, |w| w.backend.clone()),
        ports: written.and_then(|w| w.ports.clone()).unwrap_or_else(|| service.ports.to_vec()),
        data: written.and_then(|w| w.data.clone()),
        contents: written.and_then(|w| w.contents.get(region).cloned()).unwrap_or_default(),
    });
    draft.services.len() - 1
}

/// Names, packets and policies of its endpoints are as AWS's; only what answers in the end is missing.
fn no_server(f: &Fields<'_>, place: Place, service: &Service) {
    let message =
        format!("{} has no built-in server in this version: its endpoints answer calls with an error", service.name);
    f.cx.warning(f.error(place, message).help(format!(
        "put one of your own behind it, as moto's: `services: {{ {}: {{ backend: \"http://127.0.0.1:5000\" }} }}`",
        service.name,
    )));
}

/// A port or a list of ports.
fn ports(f: &Fields<'_>) -> Option<Vec<u16>> {
    let entry = f.entry("ports")?;
    let texts = match &entry.node.value {
        Value::List(_) => f.texts("ports")?,
        _ => vec![f.text("ports")?],
    };
    let mut ports = Vec::new();
    for t in texts {
        match t.value.parse::<u16>() {
            Ok(p) if p > 0 && !ports.contains(&p) => ports.push(p),
            Ok(p) if p > 0 => f.cx.error(f.error(t.place, format!("the port {p} stands twice"))),
            _ => f.cx.error(f.error(t.place, format!("`{}` is no port: 1 to 65535", t.value))),
        }
    }
    if ports.is_empty() {
        f.cx.error(f.error(entry.place(), "an endpoint serves at least one port"));
    }
    Some(ports)
}

/// `builtin`, or an address of this machine.
fn backend(f: &Fields<'_>, t: At<&str>) -> Option<Backend> {
    match parse_backend(t.value) {
        Ok(b) => Some(b),
        Err(message) => {
            let help = "builtin, http://127.0.0.1:PORT, https://localhost:PORT, tcp://127.0.0.1:PORT or unix:/path";
            f.cx.error(f.error(t.place, message).help(help));
            None
        }
    }
}

fn parse_backend(text: &str) -> Result<Backend, String> {
    if text == "builtin" {
        return Ok(Backend::Builtin);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        // The kernel's sun_path holds 108 bytes with its final NUL.
        if !path.starts_with('/') || path.len() > 107 {
            return Err(format!("`{text}`: a socket's path is absolute and at most 107 bytes long"));
        }
        return Ok(Backend::Tcp(UpstreamAddr::Unix(PathBuf::from(path))));
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("`{text}` is no backend"))?;
    let default_port = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        "tcp" => None,
        _ => return Err(format!("`{scheme}://` is no kind of backend")),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err(format!("`{text}`: a backend is a host and a port, without path and user"));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port =
                port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| format!("`{text}`: `{port}` is no port"))?;
            (host, port)
        }
        _ => (authority, default_port.ok_or_else(|| format!("`{text}`: the port is missing"))?),
    };
    let ip: IpAddr =
        match host {
            "localhost" => Ipv4Addr::LOCALHOST.into(),
            _ => host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).parse().map_err(|_| {
                format!("`{host}` is not on this machine: a backend is a loopback address or localhost")
            })?,
        };
    if !ip.is_loopback() {
        return Err(format!("{ip} is not on this machine: a backend is a loopback address"));
    }
    let addr = UpstreamAddr::Loopback(SocketAddr::new(ip, port));
    Ok(match scheme {
        "tcp" => Backend::Tcp(addr),
        _ => Backend::Http { tls: scheme == "https", authority: authority.to_owned(), addr },
    })
}

/// What a service holds, by region.
fn contents(
    cx: &Cx<'_>,
    f: &Fields<'_>,
    service: Option<&'static Service>,
    has_backend: bool,
) -> BTreeMap<&'static str, Contents> {
    let mut all: BTreeMap<&'static str, Contents> = BTreeMap::new();
    for (key, owner, noun) in [
        ("buckets", "s3", &keys::BUCKET),
        ("queues", "sqs", &keys::CONTENT),
        ("topics", "sns", &keys::CONTENT),
        ("secrets", "secretsmanager", &keys::SECRET),
        ("tables", "dynamodb", &keys::TABLE),
    ] {
        if !f.has(key) {
            continue;
        }
        if let Some(s) = service.filter(|s| s.name != owner) {
            let message = format!("{} has no {key}: they are {owner}'s", s.name);
            cx.error(f.error(f.key_place(key), message));
        } else if has_backend {
            cx.error(
                f.error(f.key_place(key), format!("a backend has its own contents: `{key}` would have no effect")),
            );
        }
        for e in f.named(key) {
            one_content(cx, f, key, noun, e, &mut all);
        }
    }
    all
}

fn one_content(
    cx: &Cx<'_>,
    f: &Fields<'_>,
    key: &str,
    noun: &'static Noun,
    e: &Entry,
    all: &mut BTreeMap<&'static str, Contents>,
) {
    let singular = key.trim_end_matches('s');
    let Some(c) = Fields::open(cx, noun, format!("{singular} {}", e.key), e) else { return };
    let refused = match key {
        "buckets" => bucket_name_problem(&e.key).map(|m| ("InvalidBucketName", m)),
        "topics" if e.key.ends_with(".fifo") => {
            c.not_yet(e.key_place, "FIFO topics");
            None
        }
        "queues" => {
            // The suffix makes it a FIFO queue and counts among the 80.
            let stem = e.key.strip_suffix(".fifo").unwrap_or(&e.key);
            word_problem(stem, 80 - (e.key.len() - stem.len()), "-_").map(|m| ("InvalidParameterValue", m))
        }
        "topics" => word_problem(&e.key, 256, "-_").map(|m| ("InvalidParameter", m)),
        "tables" if e.key.len() < 3 => {
            Some(("ValidationException", "a table's name has at least 3 characters".to_owned()))
        }
        "tables" => word_problem(&e.key, 255, "-_.").map(|m| ("ValidationException", m)),
        _ => word_problem(&e.key, 512, "/_+=.@-").map(|m| ("InvalidParameterException", m)),
    };
    if let Some((code, message)) = refused {
        f.cx.error(c.error(e.key_place, message).code(code));
    }
    let region = region(&c, "region").unwrap_or_else(|| default_region(cx)).name;
    let here = all.entry(region).or_default();
    match key {
        "buckets" => here.buckets.push(BucketPlan { name: e.key.clone(), files: files(&c) }),
        "queues" => here.queues.push(e.key.clone()),
        "topics" => here.topics.push(e.key.clone()),
        "tables" => here.tables.extend(table::read(&c, &e.key)),
        _ => here.secrets.extend(c.text("value").map(|v| (e.key.clone(), v.value.to_owned()))),
    }
    c.done();
}

fn files(c: &Fields<'_>) -> BucketFiles {
    let Some(entry) = c.entry("files") else { return BucketFiles::None };
    if let Some(text) = entry.node.text() {
        let path = c.cx.path(text, entry.place());
        if !c.cx.files.is_dir(&path) {
            c.cx.error(c.error(entry.place(), format!("{} is no directory", path.display())));
        }
        return BucketFiles::Directory(path);
    }
    let files = c.text_map("files");
    for (key, _) in &files {
        if key.value.is_empty() || key.value.len() > 1_024 {
            let found = c.error(key.place, "an object's key has 1 to 1,024 bytes");
            c.cx.error(found.code("KeyTooLongError"));
        }
    }
    BucketFiles::Inline(files.into_iter().map(|(k, v)| (k.value.to_owned(), v.value.to_owned())).collect())
}

/// S3 User Guide, "General purpose bucket naming rules".
fn bucket_name_problem(name: &str) -> Option<String> {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    let bad = if !(3..=63).contains(&name.len()) {
        "a bucket's name has 3 to 63 characters"
    } else if !bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.')) {
        "a bucket's name has lower-case letters, digits, `-` and `.` only"
    } else if !edge(bytes.first().copied()) || !edge(bytes.last().copied()) {
        "a bucket's name begins and ends with a letter or digit"
    } else if name.contains("..") || name.parse::<Ipv4Addr>().is_ok() {
        "a bucket's name has no two dots in a row and is no address"
    } else if ["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|p| name.starts_with(p))
        || ["-s3alias", "--ol-s3", ".mrap", "--x-s3"].iter().any(|p| name.ends_with(p))
    {
        "this beginning or end of a bucket's name is AWS's own"
    } else {
        return None;
    };
    Some(format!("the specified bucket is not valid: {bad}"))
}

fn word_problem(name: &str, longest: usize, signs: &str) -> Option<String> {
    let good = !name.is_empty()
        && name.len() <= longest
        && name.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c));
    (!good).then(|| format!("a name has letters, digits and {signs} only, 1 to {longest} of them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_addresses_of_this_machine() {
        let good = |text: &str| parse_backend(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(good("builtin"), Backend::Builtin);
        let moto = |tls, authority: &str, addr: &str| Backend::Http {
            tls,
            authority: authority.into(),
            addr: UpstreamAddr::Loopback(addr.parse().expect(addr)),
        };
        assert_eq!(good("http://127.0.0.1:5000"), moto(false, "127.0.0.1:5000", "127.0.0.1:5000"));
        assert_eq!(good("http://localhost/"), moto(false, "localhost", "127.0.0.1:80"));
        assert_eq!(good("https://[::1]:8443"), moto(true, "[::1]:8443", "[::1]:8443"));
        assert_eq!(good("https://[::1]"), moto(true, "[::1]", "[::1]:443"));
        assert_eq!(good("unix:/run/db.sock"), Backend::Tcp(UpstreamAddr::Unix("/run/db.sock".into())));
        for bad in [
            "",
            "builtins",
            "127.0.0.1:80",
            "http://10.0.0.1:80",
            "http://example.com",
            "http://127.0.0.1:0",
            "http://127.0.0.1:80/path",
            "http://user@127.0.0.1",
            "tcp://127.0.0.1",
            "ftp://127.0.0.1:21",
            "unix:relative.sock",
            "http://127.0.0.1.example.com:80",
            "http://0.0.0.0:80",
            "http://[::]:80",
        ] {
            assert!(parse_backend(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bucket_names_as_s3_wants_them() {
        for good in ["abc", "my.bucket-1", "0ab"] {
            assert_eq!(bucket_name_problem(good), None, "{good}");
        }
        for bad in ["ab", "Abc", "a_b", "-ab", "ab-", "a..b", "10.0.0.1", "xn--abc", "x-s3alias", &"a".repeat(64)] {
            assert!(bucket_name_problem(bad).is_some(), "{bad}");
        }
    }
}
