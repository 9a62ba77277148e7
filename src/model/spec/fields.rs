//! Reading a map by its table of keys: what is unknown or of a later version is refused when the map is opened, and
//! what no reader took is refused at the end, so that no key is ever accepted without effect.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::path::{Component, PathBuf};
use std::time::Duration;

use super::keys::{Noun, State};
use super::names::Names;
use super::node::{Entry, Node, Value};
use super::report::{Found, Problems, did_you_mean};
use super::source::{Lines, Place, Source};
use crate::base::Cidr;
use crate::base::cidr::CidrError;
use crate::model::load::Standing;

/// The outside world as the model sees it: it does no I/O itself.
pub trait Files {
    /// The bytes of a small file (policies), or why it cannot be read.
    fn read(&self, path: &std::path::Path) -> Result<Vec<u8>, String>;
    fn is_dir(&self, path: &std::path::Path) -> bool;
}

/// What every reader needs.
pub struct Cx<'a> {
    pub sources: &'a [Source],
    /// Of each source.
    pub lines: Vec<Lines<'a>>,
    pub problems: &'a Problems,
    pub names: Names,
    pub files: &'a dyn Files,
    /// Of the lab that the text is laid over, if one runs.
    pub standing: &'a Standing,
    /// `defaults: aws`.
    pub aws_defaults: bool,
    pub region: String,
    pub default_account: String,
    /// Known keys that were not read, to be refused when nothing else was.
    pub unread: RefCell<Vec<(Place, String)>>,
    /// Where policies stand, by the title of what has them: their contents are judged later.
    pub policies: RefCell<Vec<(String, Place)>>,
}

impl Cx<'_> {
    pub fn error(&self, found: Found) {
        self.problems.error(found);
    }

    pub fn warning(&self, found: Found) {
        self.problems.warning(found);
    }

    /// A path as the file that names it means it.
    pub fn path(&self, text: &str, place: Place) -> PathBuf {
        let folder = self.sources.get(place.file as usize).map(Source::folder).unwrap_or_default();
        let path: PathBuf = folder.join(text).components().filter(|c| *c != Component::CurDir).collect();
        if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
    }

    /// The place of a part of a scalar, where the source shows it letter by letter; else the whole scalar.
    pub fn part(&self, place: Place, text: &str, from: usize, to: usize) -> Place {
        let Some(lines) = self.lines.get(place.file as usize) else { return place };
        let all = lines.text;
        for skip in [0, 1] {
            let start = place.start as usize + skip;
            if from < to && all.get(start..start + text.len()) == Some(text) {
                return Place { file: place.file, start: (start + from) as u32, end: (start + to) as u32 };
            }
        }
        place
    }
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct At<T> {
    pub value: T,
    pub place: Place,
}

/// One open map.
pub struct Fields<'a> {
    pub cx: &'a Cx<'a>,
    pub noun: &'static Noun,
    /// `subnet app.private-a`, for messages.
    pub title: String,
    /// The key that leads to it.
    pub place: Place,
    entries: &'a [Entry],
    read: RefCell<Vec<bool>>,
}

impl<'a> Fields<'a> {
    /// Opens the value of an entry; nothing written counts as an empty map.
    pub fn open(cx: &'a Cx<'a>, noun: &'static Noun, title: String, entry: &'a Entry) -> Option<Fields<'a>> {
        Fields::open_node(cx, noun, title, &entry.node, entry.key_place)
    }

    pub fn open_node(
        cx: &'a Cx<'a>,
        noun: &'static Noun,
        title: String,
        node: &'a Node,
        place: Place,
    ) -> Option<Fields<'a>> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            _ => {
                let place = if node.place.is_empty() { place } else { node.place };
                let some = noun.all().filter(|k| k.state == State::Now).map(|k| k.name).take(4).collect::<Vec<_>>();
                cx.error(
                    Found::at(place, format!("{title}: a map is wanted here, not {}", node.kind())).help(format!(
                        "keys of {}: {} ...",
                        noun.name,
                        some.join(", ")
                    )),
                );
                return None;
            }
        };
        let fields = Fields { cx, noun, title, place, entries, read: RefCell::new(vec![false; entries.len()]) };
        fields.judge_keys();
        Some(fields)
    }

    fn judge_keys(&self) {
        let top = std::ptr::eq(self.noun, &super::keys::TOP);
        for (n, e) in self.entries.iter().enumerate() {
            let refused = match self.noun.find(&e.key) {
                None if top && e.key.starts_with("x-") => true,
                None => {
                    let known = || self.noun.all().filter(|k| k.usable()).map(|k| k.name);
                    if self.cx.problems.is_full() {
                        return;
                    }
                    let near = did_you_mean(&e.key, self.noun.all().map(|k| k.name));
                    let help = near.unwrap_or_else(|| {
                        format!("{} takes {}", self.noun.name, known().collect::<Vec<_>>().join(", "))
                    });
                    self.cx
                        .error(Found::at(e.key_place, format!("{}: unknown key `{}`", self.title, e.key)).help(help));
                    true
                }
                Some(key) => match key.state {
                    State::Later => {
                        self.not_yet(e.key_place, &e.key);
                        true
                    }
                    State::Not(why) => {
                        self.cx.error(Found::at(e.key_place, format!("{}: `{}`: {why}", self.title, e.key)));
                        true
                    }
                    State::Only(values) => {
                        let fits = e.node.text().is_some_and(|t| values.contains(&t));
                        if !fits {
                            let place = if matches!(e.node.value, Value::Text(_)) { e.place() } else { e.key_place };
                            let written = e.node.text().map(|t| format!(": {t}")).unwrap_or_default();
                            self.cx.error(
                                Found::at(place, format!("{}: {}{written}: not in this version", self.title, e.key))
                                    .help(format!("leave it out, or write `{}: {}`", e.key, values.join(" or "))),
                            );
                        }
                        true
                    }
                    State::Now => {
                        let empty = matches!(e.node.value, Value::Null);
                        let map = matches!(
                            key.shape,
                            super::keys::Shape::Named(_)
                                | super::keys::Shape::NamedOrTexts(_)
                                | super::keys::Shape::Noun(_)
                        );
                        if empty && !map {
                            self.cx.error(
                                Found::at(
                                    e.key_place,
                                    format!("{}: nothing is written after `{}:`", self.title, e.key),
                                )
                                .help("leave the key out, or write a value (an empty list is `[]`)"),
                            );
                        }
                        empty
                    }
                },
            };
            self.read.borrow_mut()[n] = refused;
        }
        for key in self.noun.all().filter(|k| k.must) {
            if !self.entries.iter().any(|e| e.key == key.name) {
                self.cx.error(
                    Found::at(self.place, format!("{}: `{}` is missing", self.title, key.name))
                        .help(format!("`{}`: {}", key.name, key.doc)),
                );
            }
        }
    }

    /// Refuses a key or value of a later version, by name.
    pub fn not_yet(&self, place: Place, what: &str) {
        self.cx.error(Found::at(place, format!("{}: {what}: not in this version", self.title)));
    }

    /// The entry of a key, if anything is written there.
    pub fn entry(&self, key: &str) -> Option<&'a Entry> {
        debug_assert!(self.noun.find(key).is_some_and(|k| k.state == State::Now), "{key} is not in the table");
        let at = self.entries.iter().position(|e| e.key == key)?;
        self.read.borrow_mut()[at] = true;
        let entry = &self.entries[at];
        (!matches!(entry.node.value, Value::Null)).then_some(entry)
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|e| e.key == key)
    }

    /// Where a key stands, or the map it is missing in.
    pub fn key_place(&self, key: &str) -> Place {
        self.entries.iter().find(|e| e.key == key).map_or(self.place, |e| e.key_place)
    }

    pub fn error(&self, place: Place, message: impl std::fmt::Display) -> Found {
        Found::at(place, format!("{}: {message}", self.title))
    }

    pub fn text(&self, key: &str) -> Option<At<&'a str>> {
        let e = self.entry(key)?;
        match e.node.text() {
            Some(t) => Some(At { value: t, place: e.place() }),
            None => {
                self.cx.error(self.error(e.place(), format!("`{key}` is a text, not {}", e.node.kind())));
                None
            }
        }
    }

    pub fn bool(&self, key: &str) -> Option<At<bool>> {
        let e = self.entry(key)?;
        let Some(value) = e.node.text() else {
            let message = format!("`{key}` is true or false, not {}", e.node.kind());
            self.cx.error(self.error(e.place(), message).help(format!("`{key}: true`, or leave it out")));
            return None;
        };
        let t = At { value, place: e.place() };
        let value = match t.value {
            "true" => true,
            "false" => false,
            other => {
                let meant = match other.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "true" => Some("true"),
                    "no" | "off" | "false" => Some("false"),
                    _ => None,
                };
                let help = meant.map_or("true or false".into(), |m| format!("YAML 1.2 writes `{key}: {m}`"));
                self.cx.error(self.error(t.place, format!("`{key}` is true or false, not `{other}`")).help(help));
                // What was meant is taken, so that nothing else is said of the same word.
                meant? == "true"
            }
        };
        Some(At { value, place: t.place })
    }

    /// A whole number within the table's bounds.
    pub fn int(&self, key: &str) -> Option<At<i64>> {
        let t = self.text(key)?;
        let (min, max) = match self.noun.find(key).map(|k| k.shape) {
            Some(super::keys::Shape::Int(min, max)) => (min, max),
            _ => (0, i64::MAX),
        };
        match t.value.parse::<i64>() {
            Ok(value) if (min..=max).contains(&value) && value.to_string() == t.value => {
                Some(At { value, place: t.place })
            }
            _ => {
                let message = format!("`{key}` is a whole number from {min} to {max}, not `{}`", t.value);
                self.cx.error(self.error(t.place, message).code("InvalidParameterValue"));
                None
            }
        }
    }

    pub fn duration(&self, key: &str) -> Option<At<Duration>> {
        let t = self.text(key)?;
        match some_time(t.value) {
            Some(value) => Some(At { value, place: t.place }),
            None => {
                let message = format!("`{key}` is a time, not `{}`", t.value);
                self.cx.error(self.error(t.place, message).help(TIME_FORMS));
                None
            }
        }
    }

    pub fn ip(&self, key: &str) -> Option<At<Ipv4Addr>> {
        let t = self.text(key)?;
        parse_ip(self, t, key)
    }

    /// A block; if `round` is set, bits below the prefix are cleared with a warning, as AWS does for VPCs, subnets,
    /// routes and network ACLs.
    pub fn cidr(&self, key: &str, round: bool) -> Option<At<Cidr>> {
        let t = self.text(key)?;
        parse_cidr(self, t, round)
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Option<Vec<At<&'a str>>> {
        let e = self.entry(key)?;
        match &e.node.value {
            Value::List(items) => Some(
                items
                    .iter()
                    .filter_map(|n| match n.text() {
                        Some(t) => Some(At { value: t, place: n.place }),
                        None => {
                            let place = if n.place.is_empty() { e.key_place } else { n.place };
                            self.cx.error(self.error(place, format!("`{key}` lists texts, not {}", n.kind())));
                            None
                        }
                    })
                    .collect(),
            ),
            _ => {
                let help = e.node.text().map(|t| format!("write `{key}: [{t}]`"));
                self.cx
                    .error(self.error(e.place(), format!("`{key}` is a list, not {}", e.node.kind())).maybe_help(help));
                None
            }
        }
    }

    /// A map from text to text.
    pub fn text_map(&self, key: &str) -> Vec<(At<&'a str>, At<&'a str>)> {
        let Some(e) = self.entry(key) else { return Vec::new() };
        let Value::Map(entries) = &e.node.value else {
            self.cx.error(self.error(e.place(), format!("`{key}` is a map of texts, not {}", e.node.kind())));
            return Vec::new();
        };
        entries
            .iter()
            .filter_map(|item| {
                let name = At { value: item.key.as_str(), place: item.key_place };
                match &item.node.value {
                    Value::Text(t) => Some((name, At { value: t.text.as_str(), place: item.node.place })),
                    Value::Null => Some((name, At { value: "", place: item.key_place })),
                    _ => {
                        let message = format!("`{key}.{}` is a text, not {}", item.key, item.node.kind());
                        self.cx.error(self.error(item.place(), message));
                        None
                    }
                }
            })
            .collect()
    }

    /// The entries of a map of named things.
    pub fn named(&self, key: &str) -> &'a [Entry] {
        let Some(e) = self.entry(key) else { return &[] };
        match &e.node.value {
            Value::Map(entries) => entries,
            _ => {
                let message = format!("`{key}` is a map from names, not {}", e.node.kind());
                self.cx.error(self.error(e.place(), message).help(format!("{key}:\n  some-name: {{ ... }}")));
                &[]
            }
        }
    }

    pub fn list(&self, key: &str) -> &'a [Node] {
        let Some(e) = self.entry(key) else { return &[] };
        match &e.node.value {
            Value::List(items) => items,
            _ => {
                self.cx.error(self.error(e.place(), format!("`{key}` is a list, not {}", e.node.kind())));
                &[]
            }
        }
    }

    /// One of the words of the table.
    pub fn word(&self, key: &str) -> Option<At<&'a str>> {
        let t = self.text(key)?;
        let Some(super::keys::Shape::OneOf(words)) = self.noun.find(key).map(|k| k.shape) else { return Some(t) };
        if words.contains(&t.value) {
            return Some(t);
        }
        let help = did_you_mean(t.value, words.iter().copied()).unwrap_or_else(|| words.join(", "));
        self.cx.error(self.error(t.place, format!("`{key}` cannot be `{}`", t.value)).help(help));
        None
    }

    /// Notes what no reader took.
    pub fn done(self) {
        for (e, read) in self.entries.iter().zip(self.read.borrow().iter()) {
            if !read {
                self.cx.unread.borrow_mut().push((e.key_place, format!("{}: {}", self.title, e.key)));
            }
        }
    }
}

pub fn parse_ip(f: &Fields<'_>, t: At<&str>, key: &str) -> Option<At<Ipv4Addr>> {
    match t.value.parse() {
        Ok(value) => Some(At { value, place: t.place }),
        Err(_) => {
            let what = if t.value.parse::<std::net::Ipv6Addr>().is_ok() {
                format!("`{}`: IPv6 addresses: not in this version", t.value)
            } else {
                format!("`{key}` is an IPv4 address, not `{}`", t.value)
            };
            f.cx.error(f.error(t.place, what).code("InvalidParameterValue"));
            None
        }
    }
}

pub fn parse_cidr(f: &Fields<'_>, t: At<&str>, round: bool) -> Option<At<Cidr>> {
    match t.value.parse::<Cidr>() {
        Ok(value) => Some(At { value, place: t.place }),
        Err(CidrError::HostBits(value)) if round => {
            f.cx.warning(
                f.error(t.place, format!("{} has bits below its prefix: taken as {value}, as AWS does", t.value))
                    .help(format!("write {value}")),
            );
            Some(At { value, place: t.place })
        }
        Err(e) => {
            f.cx.error(cidr_problem(f, t, e));
            None
        }
    }
}

fn cidr_problem(f: &Fields<'_>, t: At<&str>, e: CidrError) -> Found {
    if t.value.contains(':') && t.value.split('/').next().is_some_and(|a| a.parse::<std::net::Ipv6Addr>().is_ok()) {
        return f.error(t.place, format!("{}: IPv6 blocks: not in this version", t.value));
    }
    let help = match e {
        CidrError::HostBits(c) => Some(format!("write {c}")),
        CidrError::Syntax if t.value.parse::<Ipv4Addr>().is_ok() => Some(format!("one address is {}/32", t.value)),
        CidrError::Syntax => prefix_list_meant(t.value),
        _ => None,
    };
    f.error(t.place, format!("`{}`: {e}", t.value)).code("InvalidParameterValue").maybe_help(help)
}

/// How a prefix list is written, for a word that looks like AWS's id or name of one: `pl-s3`, `com.amazonaws.R.s3`.
pub fn prefix_list_meant(word: &str) -> Option<String> {
    let name = word.strip_prefix("pl:").unwrap_or(word);
    if let Some(rest) = name.strip_prefix("pl-") {
        let is_id = rest.len() >= 8 && rest.bytes().all(|b| b.is_ascii_hexdigit());
        let known = super::super::catalogue::service(rest).is_some() && !is_id;
        let service = if known { rest } else { "s3" };
        return Some(format!(
            "a prefix list is written by name: `pl:{service}` is AWS's own of {service}, `pl:NAME` one of the file"
        ));
    }
    (word == name && name.starts_with("com.amazonaws.")).then(|| format!("write `pl:{name}`"))
}

/// What [`some_time`] takes, for messages.
pub const TIME_FORMS: &str = "500ms, 30s, 5m, 1h30m or 2d; a bare number is seconds";

/// A time above zero, as files and the command line take it: one rule for both, and [`TIME_FORMS`] names it.
pub fn some_time(text: &str) -> Option<Duration> {
    parse_duration(text).filter(|time| !time.is_zero())
}

/// `350s`, `5m`, `1h30m`, `2d`, `500ms`, `1.5s`; a bare number is seconds.
fn parse_duration(text: &str) -> Option<Duration> {
    if !text.is_ascii() || text.len() > 32 {
        return None;
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "" if rest.len() == text.len() => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = tail;
    }
    // Longer than anybody's idle time; keeps sums of times far from overflow.
    (!text.is_empty() && total <= Duration::from_secs(365 * 86_400)).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, ms) in [
            ("350s", 350_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("7", 7_000),
            ("1.5s", 1_500),
            ("5d", 432_000_000),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "-1s", "1x", "1 s", "1e9s", "99999d", "1m2", "NaN", "1..2s", "µs"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        // What the message promises is taken.
        for form in
            TIME_FORMS.split(';').next().unwrap_or_default().split([',', ' ']).filter(|w| !["", "or"].contains(w))
        {
            assert!(some_time(form).is_some(), "{form}");
        }
        assert_eq!((some_time("0"), some_time("0ms")), (None, None));
    }
}
