//! YAML events to a tree. Strict where YAML is a trap: tabs, duplicate keys, byte-order marks, tags and second
//! documents are refused; nesting, anchors and size are bounded before anything is built.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::node::{Entry, Node, Text, Value};
use super::report::{Found, Problems};
use super::source::{MAX_BYTES, Place, Source};

/// Maps and lists in each other. The schema needs 8, a policy document a few more.
const MAX_DEPTH: usize = 48;
/// Nodes in all, those that aliases repeat included.
const MAX_NODES: usize = 200_000;

/// The tree of one file; problems are noted.
pub fn parse_source(file: usize, source: &Source, problems: &Problems) -> Option<Node> {
    let at = |start: usize, len: usize| Place { file: file as u32, start: start as u32, end: (start + len) as u32 };
    let bytes = &source.bytes;
    if bytes.len() > MAX_BYTES {
        problems.error(
            Found::at(at(0, 0), format!("the file is larger than {} MiB", MAX_BYTES >> 20))
                .help("a topology is a text of some kilobytes; keep data in files beside it (`files: ./folder`)"),
        );
        return None;
    }
    if bytes.starts_with(b"\xef\xbb\xbf") || bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        problems.error(
            Found::at(at(0, 0), "the file begins with a byte-order mark")
                .help("save it as UTF-8 without a byte-order mark (in vim: `:set nobomb`)"),
        );
        return None;
    }
    if let Some(n) = bytes.iter().position(|b| *b == 0) {
        let n = n.min(source.text().len());
        problems
            .error(Found::at(at(n, 0), "the file holds a NUL byte: it is binary, or UTF-16").help("save it as UTF-8"));
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(t) => t,
        Err(e) => {
            let n = e.valid_up_to();
            let byte = bytes.get(n).copied().unwrap_or_default();
            problems.error(
                Found::at(at(n, 0), format!("the file is not UTF-8: byte 0x{byte:02x}")).help("save it as UTF-8"),
            );
            return None;
        }
    };
    if let Some((n, c)) = text.char_indices().find(|(_, c)| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        problems.error(Found::at(at(n, c.len_utf8()), format!("control character U+{:04X}", c as u32)));
        return None;
    }
    parse(file, text, problems)
}

/// The tree of a text that holds no control characters.
pub fn parse(file: usize, text: &str, problems: &Problems) -> Option<Node> {
    let mut builder = Builder {
        file: file as u32,
        bytes_of: (!text.is_ascii()).then(|| text.char_indices().map(|(n, _)| n as u32).collect()),
        len: text.len(),
        problems,
        anchors: HashMap::new(),
        open: Vec::new(),
        root: None,
        nodes: 0,
        opaque: Vec::new(),
        ok: true,
    };
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        match event {
            Ok((Event::DocumentStart(_), span)) => {
                documents += 1;
                if documents > 1 {
                    let place = builder.place(span);
                    problems.error(
                        Found::at(place, "a second document in one file")
                            .help("hand in several files instead: a later one is merged over an earlier one"),
                    );
                    return None;
                }
            }
            Ok((event, span)) => {
                builder.event(event, span)?;
            }
            Err(e) => {
                let at = builder.byte(e.marker().index());
                scan_problem(&builder, text, at, e.info());
                return None;
            }
        }
    }
    refuse_tabs(&builder, text);
    if !builder.ok || problems.any() && builder.root.is_none() {
        return None;
    }
    match builder.root {
        Some(root) if !matches!(root.value, Value::Null) => Some(root),
        _ => {
            problems.error(
                Found::at(Place { file: file as u32, start: 0, end: 0 }, "the file is empty")
                    .help("`vpclab init > lab.vpclab.yaml` writes a starter file"),
            );
            None
        }
    }
}

/// What the scanner says, with a hint where the usual cause is known.
fn scan_problem(builder: &Builder<'_>, text: &str, at: usize, info: &str) {
    let line_start = text[..at.min(text.len())].rfind('\n').map_or(0, |n| n + 1);
    // An indentation by tabs shows up as all sorts of errors, on its line or on the one after it.
    let before = text[..line_start.saturating_sub(1)].rfind('\n').map_or(0, |n| n + 1);
    for start in [before, line_start] {
        let indent = text[start..].bytes().take_while(|b| matches!(b, b' ' | b'\t'));
        if let Some(n) = indent.clone().position(|b| b == b'\t') {
            builder.problems.error(tab(builder.at(start + n, 1)));
            return;
        }
    }
    if at > 0 && text.as_bytes()[..at.min(text.len())].ends_with(b"\t") {
        builder.problems.error(tab(builder.at(at - 1, 1)));
        return;
    }
    // Met while a text is read that began before it.
    if info.contains("found a tab")
        && let Some(n) = text.get(at..).and_then(|rest| rest.find('\t'))
    {
        builder.problems.error(tab(builder.at(at + n, 1)));
        return;
    }
    if info.contains("recursion limit") {
        builder.too_deep(builder.at(at, 0));
        return;
    }
    let place = builder.at(at, usize::from(at < text.len() && text.is_char_boundary(at + 1)));
    let help = if info.contains("mapping values are not allowed") || info.contains("simple key expected") {
        Some("text that holds `: ` needs quotes; otherwise look at the indentation")
    } else if info.contains("unknown anchor") {
        Some("an alias `*name` must stand after its anchor `&name`")
    } else if info.contains("cannot start any token") {
        Some("text that begins with @, `, % or & needs quotes")
    } else {
        None
    };
    builder.problems.error(Found::at(place, format!("not YAML: {info}")).maybe_help(help.map(str::to_owned)));
}

fn tab(place: Place) -> Found {
    Found::at(place, "a tab").help("YAML is indented with spaces only; in quotes, write \\t")
}

/// Tabs outside of quoted and block texts and of comments.
fn refuse_tabs(builder: &Builder<'_>, text: &str) {
    // In the order of the text, as the parser met them.
    let opaque = |n: usize| {
        let after = builder.opaque.partition_point(|(from, _)| *from <= n);
        after > 0 && n < builder.opaque[after - 1].1
    };
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let comment = if line.trim_start().starts_with('#') { Some(0) } else { line.find(" #") };
        let code = &line[..comment.unwrap_or(line.len())];
        if let Some((n, _)) = code.match_indices('\t').find(|(n, _)| !opaque(start + n)) {
            builder.problems.error(tab(builder.at(start + n, 1)));
            return;
        }
        start += line.len();
    }
}

struct Builder<'p> {
    file: u32,
    /// Byte of each character, where the text is not ASCII.
    bytes_of: Option<Vec<u32>>,
    len: usize,
    problems: &'p Problems,
    /// By the parser's number: the tree, its size and depth.
    anchors: HashMap<usize, (Node, usize, usize)>,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    /// Quoted and block texts, where tabs are the user's own.
    opaque: Vec<(usize, usize)>,
    /// No duplicate keys and such were met.
    ok: bool,
}

struct Open {
    place: Place,
    anchor: usize,
    /// Nodes before it, to know its size.
    nodes_before: usize,
    /// Deepest nesting below it.
    depth: usize,
    what: OpenWhat,
}

enum OpenWhat {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// Key to place, to find duplicates.
        seen: HashMap<String, Place>,
        key: Option<(String, Place)>,
        /// Maps to splice in for `<<`.
        merges: Vec<Node>,
    },
}

impl Builder<'_> {
    fn byte(&self, index: usize) -> usize {
        match &self.bytes_of {
            Some(table) => table.get(index).map_or(self.len, |n| *n as usize),
            None => index.min(self.len),
        }
    }

    fn at(&self, start: usize, len: usize) -> Place {
        Place { file: self.file, start: start as u32, end: (start + len) as u32 }
    }

    fn place(&self, span: Span) -> Place {
        let start = self.byte(span.start.index());
        self.at(start, self.byte(span.end.index()).saturating_sub(start))
    }

    /// `None`: give up.
    fn event(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        let place = self.place(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), place);
                if style != ScalarStyle::Plain {
                    self.opaque.push((place.start as usize, place.end as usize));
                }
                let plain = style == ScalarStyle::Plain;
                let value = if plain && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL") {
                    Value::Null
                } else {
                    Value::Text(Text { text: text.into_owned(), plain })
                };
                let node = Node { place, value };
                self.spend(1, place)?;
                if anchor > 0 {
                    self.anchors.insert(anchor, (node.clone(), 1, 0));
                }
                self.add(node, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), place);
                self.open(place, anchor, OpenWhat::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), place);
                let what = OpenWhat::Map { entries: Vec::new(), seen: HashMap::new(), key: None, merges: Vec::new() };
                self.open(place, anchor, what)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let Some((node, size, depth)) = self.anchors.get(&anchor).cloned() else {
                    self.problems.error(Found::at(place, "a cyclic alias: it stands inside its own anchor"));
                    return None;
                };
                self.spend(size, place)?;
                if self.open.len() + depth > MAX_DEPTH {
                    return self.too_deep(place);
                }
                self.add(node, depth)
            }
            _ => Some(()),
        }
    }

    fn refuse_tag(&mut self, tagged: bool, place: Place) {
        if tagged {
            self.ok = false;
            self.problems.error(
                Found::at(place, "a YAML tag").help("tags (`!Ref`, `!!str`) are not used here; for text, use quotes"),
            );
        }
    }

    fn spend(&mut self, nodes: usize, place: Place) -> Option<()> {
        self.nodes += nodes;
        if self.nodes <= MAX_NODES {
            return Some(());
        }
        let message = format!("more than {MAX_NODES} values, those that aliases repeat included");
        self.problems.error(Found::at(place, message).help("use fewer anchors, or `count:` for many equal instances"));
        None
    }

    fn too_deep(&self, place: Place) -> Option<()> {
        self.problems.error(Found::at(place, format!("nested deeper than {MAX_DEPTH} levels")));
        None
    }

    fn open(&mut self, place: Place, anchor: usize, what: OpenWhat) -> Option<()> {
        self.spend(1, place)?;
        if self.open.len() >= MAX_DEPTH {
            return self.too_deep(place);
        }
        self.open.push(Open { place, anchor, nodes_before: self.nodes - 1, depth: 0, what });
        Some(())
    }

    fn close(&mut self) -> Option<()> {
        let Open { place, anchor, nodes_before, depth, what } = self.open.pop()?;
        let value = match what {
            OpenWhat::List(items) => Value::List(items),
            OpenWhat::Map { mut entries, mut seen, merges, .. } => {
                for entry in merges.into_iter().flat_map(entries_of) {
                    if !seen.contains_key(&entry.key) {
                        seen.insert(entry.key.clone(), entry.key_place);
                        entries.push(entry);
                    }
                }
                Value::Map(entries)
            }
        };
        let node = Node { place, value };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - nodes_before, depth + 1));
        }
        self.add(node, depth + 1)
    }

    /// Puts a finished node, `depth` levels deep, where it belongs.
    fn add(&mut self, node: Node, depth: usize) -> Option<()> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        open.depth = open.depth.max(depth);
        match &mut open.what {
            OpenWhat::List(items) => items.push(node),
            OpenWhat::Map { entries, seen, key, merges } => match key.take() {
                None => match node.value {
                    Value::Text(t) => *key = Some((t.text, node.place)),
                    Value::Null if !node.place.is_empty() => *key = Some(("null".into(), node.place)),
                    _ => {
                        let place = if node.place.is_empty() { open.place } else { node.place };
                        self.problems.error(
                            Found::at(place, format!("a key must be text, not {}", node.kind()))
                                .help("is a bracket or a quote missing? `{{ }}` of templates needs quotes"),
                        );
                        return None;
                    }
                },
                Some((name, place)) if name == "<<" => match &node.value {
                    Value::Map(_) => merges.push(node),
                    Value::List(items) if items.iter().all(|n| matches!(n.value, Value::Map(_))) => {
                        merges.extend(items.iter().cloned());
                    }
                    _ => {
                        self.ok = false;
                        self.problems.error(Found::at(place, "`<<` takes a map or a list of maps"));
                    }
                },
                Some((name, place)) => {
                    if let Some(first) = seen.get(&name) {
                        self.ok = false;
                        self.problems.error(
                            Found::at(place, format!("the key `{name}` stands twice in one map"))
                                .also(*first, "first here")
                                .help("of two equal keys one would be lost: join them, or rename one"),
                        );
                        return Some(());
                    }
                    seen.insert(name.clone(), place);
                    entries.push(Entry { key: name, key_place: place, node });
                }
            },
        }
        Some(())
    }
}

fn entries_of(node: Node) -> Vec<Entry> {
    match node.value {
        Value::Map(entries) => entries,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<String, String> {
        let problems = Problems::default();
        let source = Source::new("t.yaml", text);
        let node = parse_source(0, &source, &problems);
        let (report, _) = problems.finish(std::slice::from_ref(&source));
        match node {
            Some(n) if report.is_empty() => Ok(n.to_json().to_string()),
            _ => Err(report.to_string()),
        }
    }

    #[test]
    fn scalars_stay_as_written() {
        assert_eq!(
            json("{acct: 012345678901, date: 2012-10-17, n: 7, q: '7', t: true, oct: 0o7, e: '', s: a b}").as_deref(),
            Ok(r#"{"acct":"012345678901","date":"2012-10-17","n":7,"q":"7","t":true,"oct":"0o7","e":"","s":"a b"}"#)
        );
    }

    #[test]
    fn anchors_and_merge_keys_are_expanded() {
        assert_eq!(
            json("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nlist: [*b]\n").as_deref(),
            Ok(r#"{"base":{"x":1,"y":2},"use":{"y":3,"x":1},"list":[{"x":1,"y":2}]}"#)
        );
    }

    #[test]
    fn traps_of_yaml_are_refused_with_their_place() {
        for (text, place, words) in [
            ("", "1:1", "empty"),
            ("# only a comment\n", "1:1", "empty"),
            ("\u{feff}version: 1\n", "1:1", "byte-order mark"),
            ("a: 1\nb:\n\tc: 2\n", "3:1", "a tab"),
            ("a: 1\nb:\t2\n", "2:3", "a tab"),
            ("version: 1\n\tname: x\n", "2:1", "a tab"),
            ("a: one\n  two\n\tthree: 3\n", "3:1", "a tab"),
            ("a: 1\nb: 2\na: 3\n", "3:1", "`a` stands twice"),
            ("a: !Ref b\n", "1:", "a YAML tag"),
            ("a: 1\n---\nb: 2\n", "2:1", "second document"),
            ("a: 1\u{0}", "1:5", "NUL"),
            ("a: \u{1b}[31m\n", "1:4", "control character U+001B"),
            ("a: [1, 2\n", "", "not YAML"),
            ("a: b: c\n", "1:", "not YAML"),
            ("a: *nope\n", "1:4", "unknown anchor"),
            ("a: &x [ *x ]\n", "1:9", "cyclic alias"),
            ("{{ x }}: 1\n", "1:", "must be text"),
        ] {
            let err = json(text).expect_err(text);
            assert!(err.contains(words) && err.starts_with(&format!("t.yaml:{place}")), "{text:?}\n{err}");
        }
    }

    #[test]
    fn tabs_are_allowed_in_quotes_blocks_and_comments() {
        assert!(json("a: \"x\ty\"\nb: |\n  all:\n  \tcc\nc: 1 # a\tb\n").is_ok());
    }

    #[test]
    fn places_count_characters_and_survive_crlf() {
        let err = json("ä: 1\r\nö: 2\r\nü: { ä: 1, ä: 2 }\r\n").expect_err("twice");
        assert!(err.starts_with("t.yaml:3:12"), "{err}");
    }

    #[test]
    fn bombs_are_refused_before_they_grow() {
        let deep = "[".repeat(100_000);
        assert!(json(&deep).expect_err("deep").contains("nested deeper"));
        let deep_block: String = (0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert!(json(&deep_block).expect_err("deep").contains("nested deeper"));
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let alias = format!("*a{},", n - 1).repeat(10);
            bomb.push_str(&format!("a{n}: &a{n} [{alias}]\n"));
        }
        assert!(json(&bomb).expect_err("bomb").contains("more than 200000 values"));
        let mut chain = String::from("a0: &a0 [x]\n");
        for n in 1..60 {
            chain.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1));
        }
        assert!(json(&chain).expect_err("chain").contains("nested deeper"));
        let problems = Problems::default();
        let huge = Source::new("t.yaml", vec![b'a'; 50 << 20]);
        assert!(parse_source(0, &huge, &problems).is_none());
        let (report, _) = problems.finish(&[huge]);
        assert!(report.to_string().contains("larger than 4 MiB"), "{report}");
    }

    #[test]
    fn a_text_of_invalid_utf8_is_refused_where_it_begins() {
        let problems = Problems::default();
        let source = Source::new("t.yaml", b"a: 1\nb: \xff\n".to_vec());
        assert!(parse_source(0, &source, &problems).is_none());
        let (report, _) = problems.finish(std::slice::from_ref(&source));
        assert!(report.to_string().starts_with("t.yaml:2:4: the file is not UTF-8"), "{report}");
        assert!(report.render(false).contains("t.yaml:2:4"));
    }
}
