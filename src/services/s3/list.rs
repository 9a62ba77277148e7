//! Listings: keys in order of their bytes, rolled up at a delimiter, a page at a time.

use std::collections::BTreeMap;
use std::ops::Bound;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What to list.
#[derive(Debug, Default)]
pub(super) struct Query<'a> {
    pub(super) prefix: &'a str,
    /// Not empty if given.
    pub(super) delimiter: Option<&'a str>,
    /// Keys after this one. A common prefix here is passed over whole.
    pub(super) after: Option<&'a str>,
    pub(super) max: usize,
}

/// A page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page<'a, T> {
    pub(super) items: Vec<Item<'a, T>>,
    /// More follows the last item.
    pub(super) truncated: bool,
}

/// One line of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item<'a, T> {
    Key(&'a str, &'a T),
    Prefix(&'a str),
}

impl<'a, T> Item<'a, T> {
    /// What the next page comes after.
    pub(super) fn name(&self) -> &'a str {
        match self {
            Item::Key(name, _) | Item::Prefix(name) => name,
        }
    }
}

/// Lists a page. Takes time for what it returns, not for what lies under a common prefix.
pub(super) fn page<'a, T>(objects: &'a BTreeMap<String, T>, query: &Query<'_>) -> Page<'a, T> {
    let mut items: Vec<Item<'a, T>> = Vec::new();
    let mut from: Bound<String> = match query.after {
        Some(after) if after >= query.prefix => match query.delimiter.and_then(|d| rolled_up(after, query.prefix, d)) {
            Some(common) if common.len() == after.len() => past(after),
            _ => Bound::Excluded(after.to_owned()),
        },
        _ => Bound::Included(query.prefix.to_owned()),
    };
    loop {
        let next = objects.range::<String, _>((from.as_ref(), Bound::Unbounded)).next();
        let Some((key, value)) = next.filter(|(k, _)| k.starts_with(query.prefix)) else {
            return Page { items, truncated: false };
        };
        if items.len() >= query.max {
            // A page of none is whole: S3 says so of max-keys=0.
            return Page { truncated: query.max > 0, items };
        }
        match query.delimiter.and_then(|d| rolled_up(key, query.prefix, d)) {
            Some(common) => {
                from = past(common);
                items.push(Item::Prefix(common));
            }
            None => {
                from = Bound::Excluded(key.clone());
                items.push(Item::Key(key, value));
            }
        }
    }
}

/// `a/` of `a/b/c` with prefix "" and delimiter `/`.
fn rolled_up<'k>(key: &'k str, prefix: &str, delimiter: &str) -> Option<&'k str> {
    let rest = key.strip_prefix(prefix)?;
    let at = rest.find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

/// The first name that does not begin with `prefix` and comes after it: its last character counted up.
fn past(prefix: &str) -> Bound<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Surrogates are no characters; what follows them is.
        let next = match u32::from(last) + 1 {
            0xD800 => Some('\u{E000}'),
            code => char::from_u32(code),
        };
        if let Some(next) = next {
            chars.push(next);
            return Bound::Included(chars.into_iter().collect());
        }
    }
    // Only a prefix of U+10FFFF alone comes here; nothing is after it.
    Bound::Excluded("\u{10FFFF}".repeat(1_025))
}

/// `encoding-type=url`, as S3 does it: `/` stays, a space is `+`.
pub(super) fn url_encode(name: &str) -> String {
    const KEPT: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'/').remove(b'*').remove(b' ');
    utf8_percent_encode(name, KEPT).to_string().replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(keys: &[&str], query: &Query<'_>) -> (Vec<String>, bool) {
        let objects: BTreeMap<String, ()> = keys.iter().map(|k| ((*k).to_owned(), ())).collect();
        let page = page(&objects, query);
        (page.items.iter().map(|i| i.name().to_owned()).collect(), page.truncated)
    }

    const KEYS: &[&str] = &["a", "a/1", "a/2", "a0", "b/c/d", "b/e", "é/x", "z"];

    #[test]
    fn rolls_up_at_the_delimiter() {
        let query = Query { delimiter: Some("/"), max: 1_000, ..Query::default() };
        assert_eq!(names(KEYS, &query).0, ["a", "a/", "a0", "b/", "z", "é/"]);
        let query = Query { prefix: "b/", delimiter: Some("/"), max: 1_000, ..Query::default() };
        assert_eq!(names(KEYS, &query).0, ["b/c/", "b/e"]);
        let query = Query { prefix: "a", max: 1_000, ..Query::default() };
        assert_eq!(names(KEYS, &query).0, ["a", "a/1", "a/2", "a0"]);
    }

    #[test]
    fn pages_of_any_size_make_the_same_list() {
        for delimiter in [None, Some("/")] {
            let whole = names(KEYS, &Query { delimiter, max: 1_000, ..Query::default() }).0;
            for max in 1..=KEYS.len() {
                let mut got: Vec<String> = Vec::new();
                loop {
                    let after = got.last().cloned();
                    let query = Query { delimiter, after: after.as_deref(), max, ..Query::default() };
                    let (names, truncated) = names(KEYS, &query);
                    got.extend(names);
                    if !truncated {
                        break;
                    }
                }
                assert_eq!(got, whole, "{delimiter:?} {max}");
            }
        }
    }

    #[test]
    fn a_page_that_ends_at_the_end_is_not_truncated() {
        assert_eq!(names(&["a", "b"], &Query { max: 2, ..Query::default() }), (vec!["a".into(), "b".into()], false));
        assert_eq!(names(&["a"], &Query { max: 0, ..Query::default() }), (vec![], false));
    }

    #[test]
    fn start_after_within_a_group_keeps_the_group() {
        let query = Query { delimiter: Some("/"), after: Some("a/1"), max: 1_000, ..Query::default() };
        assert_eq!(names(KEYS, &query).0, ["a/", "a0", "b/", "z", "é/"]);
    }

    #[test]
    fn url_encoding_is_what_botocore_undoes() {
        assert_eq!(url_encode("a b/c+d&é"), "a+b/c%2Bd%26%C3%A9");
    }
}
