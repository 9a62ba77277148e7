//! Domain names in wire form (RFC 1035 3.1), lower case, on the stack.

use hickory_proto::rr::Name as HickoryName;
use hickory_proto::serialize::binary::BinEncodable;

/// The longest name in wire form, its final zero included (RFC 1035 2.3.4).
pub(super) const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;

/// A complete name: labels with their lengths, the root's zero at the end. ASCII letters are lower case.
#[derive(Clone, Copy)]
pub(super) struct WireName {
    len: u8,
    bytes: [u8; MAX_NAME],
}

impl WireName {
    /// Reads the name of a question at the start of `bytes`. Pointers are refused: before the first question there
    /// is nothing to point to. Letters are lowered (RFC 4343), other bytes kept.
    pub(super) fn read(bytes: &[u8]) -> Option<WireName> {
        let mut name = WireName { len: 0, bytes: [0; MAX_NAME] };
        let mut at = 0;
        loop {
            let label = usize::from(*bytes.get(at)?);
            let end = at + 1 + label;
            if label > MAX_LABEL || end > MAX_NAME {
                return None;
            }
            name.bytes[at..end].copy_from_slice(bytes.get(at..end)?);
            at = end;
            if label == 0 {
                // Length bytes are at most 63 and no letters, so the whole can be lowered at once.
                name.bytes[..at].make_ascii_lowercase();
                name.len = at as u8;
                return Some(name);
            }
        }
    }

    /// From the text of a command line, where any printable ASCII may stand in a label; the final dot may be left out.
    pub(super) fn parse(text: &str) -> Option<WireName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut bytes = Vec::with_capacity(text.len() + 2);
        for label in text.split('.').filter(|_| !text.is_empty()) {
            if label.is_empty() || label.len() > MAX_LABEL || !label.bytes().all(|b| b.is_ascii_graphic()) {
                return None;
            }
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        WireName::read(&bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The name itself, its parent, and so on up to the root: each with the offset at which it begins.
    pub(super) fn suffixes(&self) -> Suffixes<'_> {
        Suffixes { name: self.as_bytes(), at: Some(0) }
    }
}

/// A name's ancestors in wire form, longest first.
pub(super) struct Suffixes<'a> {
    name: &'a [u8],
    at: Option<usize>,
}

impl<'a> Iterator for Suffixes<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<(usize, &'a [u8])> {
        let at = self.at?;
        let label = usize::from(self.name[at]);
        self.at = (label != 0).then_some(at + 1 + label);
        Some((at, &self.name[at..]))
    }
}

/// The labels of a name in wire form, without the root's.
pub(super) fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (&len, tail) = rest.split_first()?;
        let len = usize::from(len);
        if len == 0 || len > tail.len() {
            return None;
        }
        let (label, tail) = tail.split_at(len);
        rest = tail;
        Some(label)
    })
}

/// Wire form of a name that a zone is compiled from, lower case. `None` if it is no host name: an empty or too long label, a name over
/// 255 bytes, or characters outside ASCII.
pub(super) fn wire(text: &str) -> Option<Box<[u8]>> {
    if text.is_empty() || !text.is_ascii() {
        return None;
    }
    let name = HickoryName::from_ascii(text).ok()?.to_lowercase();
    let bytes = name.to_bytes().ok()?;
    (bytes.len() <= MAX_NAME).then(|| bytes.into_boxed_slice())
}

/// `*.NAME` in wire form, where it fits.
pub(super) fn wildcard_of<'b>(name: &[u8], space: &'b mut [u8; MAX_NAME]) -> Option<&'b [u8]> {
    let len = name.len() + 2;
    let out = space.get_mut(..len)?;
    out[..2].copy_from_slice(b"\x01*");
    out[2..].copy_from_slice(name);
    Some(out)
}

/// The name as text without a final dot, where every label is made of the characters of AWS's names. `.` for the root.
pub(super) fn host_text<'b>(name: &[u8], space: &'b mut [u8; MAX_NAME]) -> Option<&'b str> {
    let mut len = 0;
    for label in labels(name) {
        if !label.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'*')) {
            return None;
        }
        if len > 0 {
            space[len] = b'.';
            len += 1;
        }
        space[len..len + label.len()].copy_from_slice(label);
        len += label.len();
    }
    if len == 0 {
        return Some(".");
    }
    std::str::from_utf8(&space[..len]).ok()
}

/// The name as people write it, without a final dot; bytes that are no printable characters as `\DDD` (RFC 1035 5.1).
pub(super) fn text(name: &[u8]) -> String {
    let mut out = String::new();
    for label in labels(name) {
        if !out.is_empty() {
            out.push('.');
        }
        for &b in label {
            match b {
                b'.' | b'\\' => out.extend(['\\', char::from(b)]),
                0x21..=0x7e => out.push(char::from(b)),
                _ => out.push_str(&format!("\\{b:03}")),
            }
        }
    }
    if out.is_empty() { ".".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_any_case_and_go_lower() {
        let name = WireName::read(b"\x03Www\x04AwS9\x00rest").expect("name");
        assert_eq!(name.as_bytes(), b"\x03www\x04aws9\x00");
        assert_eq!(text(name.as_bytes()), "www.aws9");
        let suffixes: Vec<(usize, &[u8])> = name.suffixes().collect();
        assert_eq!(suffixes, [(0, &b"\x03www\x04aws9\x00"[..]), (4, b"\x04aws9\x00"), (9, b"\x00")]);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [&b""[..], b"\x03ww", b"\x40", b"\xc0\x0c", b"\x01a"] {
            assert!(WireName::read(bad).is_none(), "{bad:?}");
        }
        let long = [b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(4);
        assert!(WireName::read(&[&long[..], b"\x00"].concat()).is_none(), "257 bytes");
        let fits = [&long[..64 * 3], b"\x3d", &[b'a'; 61], b"\x00"].concat();
        assert_eq!(fits.len(), MAX_NAME);
        assert!(WireName::read(&fits).is_some());
        for bad in ["", "a..b", "bücher.de", &"a".repeat(64)] {
            assert!(wire(bad).is_none(), "{bad}");
        }
        assert_eq!(wire(".").as_deref(), Some(&b"\x00"[..]));
    }

    #[test]
    fn text_shows_odd_bytes_and_hosts_refuse_them() {
        let mut space = [0; MAX_NAME];
        assert_eq!(text(b"\x03a.b\x01\x07\x00"), "a\\.b.\\007");
        assert_eq!(host_text(b"\x03a.b\x00", &mut space), None);
        assert_eq!(host_text(b"\x01*\x02s3\x00", &mut space), Some("*.s3"));
        assert_eq!(host_text(b"\x00", &mut space), Some("."));
    }
}
