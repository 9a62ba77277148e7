//! HTTP/1.1 (RFC 9112) as far as the metadata service speaks it: requests without meaningful bodies, answers with a
//! length, connections kept alive.

use std::fmt::Write as _;

use crate::base::UnixTime;

use super::respond::{self, Request, Response};
use super::token::Tokens;
use super::tree::View;

/// Longest request line and headers together, in bytes.
const MAX_HEAD: usize = 8 * 1024;
/// Longest body that is read past; nothing here takes one.
const MAX_BODY: u64 = 64 * 1024;
/// Answers that may wait for the client to read before more requests are taken.
const MAX_WAITING: usize = 64 * 1024;

/// One TCP connection to the metadata service: bytes in, bytes out. The owner moves them, and closes when
/// [`Session::ended`] and the output is sent.
#[derive(Default)]
pub struct Session {
    /// The beginning of a request whose head is not complete.
    head: Vec<u8>,
    /// Bytes of a request's body still to be read past.
    body_left: u64,
    output: Vec<u8>,
    /// Length of the output up to the end of its last token answer.
    token_end: usize,
    ended: bool,
}

impl Session {
    pub fn new() -> Session {
        Session::default()
    }

    /// Takes bytes from the client and answers every request that is complete; gives how many bytes were taken. Fewer
    /// than all: too much output waits; call again with the rest once some was sent.
    pub fn input(&mut self, bytes: &[u8], now: UnixTime, view: &View<'_>, tokens: &mut Tokens) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !self.ended {
            if self.output.len() > MAX_WAITING {
                return taken;
            }
            let rest = &bytes[taken..];
            if self.body_left > 0 {
                let skip = usize::try_from(self.body_left).unwrap_or(usize::MAX).min(rest.len());
                self.body_left -= skip as u64;
                taken += skip;
                continue;
            }
            if self.head.is_empty() && matches!(rest[0], b'\r' | b'\n') {
                // Empty lines before a request do no harm (RFC 9112 2.2).
                taken += 1;
                continue;
            }
            let before = self.head.len();
            self.head.extend_from_slice(&rest[..rest.len().min(MAX_HEAD - before)]);
            // The end may straddle what was there before.
            match head_end(&self.head, before.saturating_sub(3)) {
                Some(end) => {
                    taken += end - before;
                    self.head.truncate(end);
                    let head = std::mem::take(&mut self.head);
                    self.request(&head, now, view, tokens);
                    self.head = head;
                    self.head.clear();
                }
                None if self.head.len() >= MAX_HEAD => self.refuse(431, now),
                None => return bytes.len(),
            }
        }
        bytes.len()
    }

    /// What waits to be sent.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The first `n` bytes of [`Session::output`] have been sent.
    pub fn sent(&mut self, n: usize) {
        let n = n.min(self.output.len());
        self.output.drain(..n);
        self.token_end = self.token_end.saturating_sub(n);
    }

    /// True if an answer to a token PUT is in the output: its packets must carry the instance's hop limit
    /// (`InstancePlan::imds_hop_limit`) as their TTL; other answers do not.
    pub fn token_answer_waits(&self) -> bool {
        self.token_end > 0
    }

    /// True if nothing more will be read: close once the output is sent.
    pub fn ended(&self) -> bool {
        self.ended
    }

    fn request(&mut self, head: &[u8], now: UnixTime, view: &View<'_>, tokens: &mut Tokens) {
        let head = match Head::parse(head) {
            Ok(head) => head,
            Err(status) => return self.refuse(status, now),
        };
        if head.body > 0 && head.expects_continue {
            self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.body_left = head.body;
        let response = respond::respond(&head.request, now, view, tokens);
        self.ended = !head.keep_alive;
        let connection = match (head.keep_alive, head.old) {
            (false, _) => Some("close"),
            (true, true) => Some("keep-alive"),
            (true, false) => None,
        };
        self.write(&response, connection, now, view.launched);
        if response.token_answer {
            self.token_end = self.output.len();
        }
    }

    /// What cannot be understood ends the connection: where the next request begins is not known.
    fn refuse(&mut self, status: u16, now: UnixTime) {
        self.ended = true;
        self.write(&Response::error(status), Some("close"), now, now);
    }

    fn write(&mut self, response: &Response, connection: Option<&str>, now: UnixTime, launched: UnixTime) {
        let mut head = String::with_capacity(320);
        let reason = respond::reason(response.status);
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a `String` does not fail.
            let _ = write!(head, "{name}{value}\r\n");
        };
        line("HTTP/1.1 ", &format_args!("{} {reason}", response.status));
        if let Some(ttl) = response.token_ttl {
            line("X-Aws-Ec2-Metadata-Token-Ttl-Seconds: ", &ttl);
        }
        if let Some(allow) = response.allow {
            line("Allow: ", &allow);
        }
        if let Some(location) = &response.location {
            line("Location: ", location);
        }
        line("Content-Type: ", &response.content_type);
        if response.data {
            line("Accept-Ranges: ", &"none");
            line("Last-Modified: ", &http_date(launched));
        }
        line("Content-Length: ", &response.body.len());
        line("Date: ", &http_date(now));
        line("Server: ", &"EC2ws");
        if let Some(connection) = connection {
            line("Connection: ", &connection);
        }
        head.push_str("\r\n");
        self.output.extend_from_slice(head.as_bytes());
        if !response.head_only {
            self.output.extend_from_slice(response.body.as_bytes());
        }
    }
}

/// A request's line and headers.
struct Head<'a> {
    request: Request<'a>,
    keep_alive: bool,
    /// HTTP/1.0.
    old: bool,
    /// Bytes that follow.
    body: u64,
    expects_continue: bool,
}

impl<'a> Head<'a> {
    /// The status to refuse with, where it is no request that can be answered.
    fn parse(head: &'a [u8]) -> Result<Head<'a>, u16> {
        let mut lines = head.split(|b| *b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l));
        let first = std::str::from_utf8(lines.next().unwrap_or_default()).map_err(|_| 400u16)?;
        let mut parts = first.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(400);
        };
        if method.is_empty() || !method.bytes().all(is_token_byte) {
            return Err(400);
        }
        let old = match version {
            "HTTP/1.1" => false,
            "HTTP/1.0" => true,
            other if other.starts_with("HTTP/") => return Err(505),
            _ => return Err(400),
        };
        let mut request = Request { method, path: path_of(target)?, token: None, ttl: None, forwarded: false };
        let (mut hosts, mut length, mut close, mut keep, mut expects_continue) = (0, None, false, false, false);
        for line in lines.take_while(|l| !l.is_empty()) {
            let (name, value) = header(line)?;
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
            if is("host") {
                hosts += 1;
            } else if is("connection") {
                close |= has_word(value, "close");
                keep |= has_word(value, "keep-alive");
            } else if is("content-length") {
                let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                let n: u64 = value.parse().ok().filter(|_| digits).ok_or(400u16)?;
                if length.is_some_and(|before| before != n) {
                    return Err(400);
                }
                length = Some(n);
            } else if is("transfer-encoding") {
                // A body without a length: nothing here takes one.
                return Err(411);
            } else if is("expect") {
                expects_continue = value.eq_ignore_ascii_case("100-continue");
            } else if is("x-forwarded-for") {
                request.forwarded = true;
            } else if is("x-aws-ec2-metadata-token") {
                request.token = Some(value);
            } else if is("x-aws-ec2-metadata-token-ttl-seconds") {
                // Two lives are none.
                request.ttl = Some(if request.ttl.is_some() { "" } else { value });
            }
        }
        // RFC 9112 3.2: one Host, and only HTTP/1.0 may leave it out.
        if hosts > 1 || hosts == 0 && !old {
            return Err(400);
        }
        let body = length.unwrap_or(0);
        if body > MAX_BODY {
            return Err(413);
        }
        Ok(Head { request, keep_alive: !close && (!old || keep), old, body, expects_continue })
    }
}

/// Offset after the empty line that ends a head; `\n` alone ends a line too (RFC 9112 2.2).
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).filter(|at| bytes[*at] == b'\n').find_map(|at| match bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// The path of a target in origin form or, as clients of a proxy send it, absolute form.
fn path_of(target: &str) -> Result<&str, u16> {
    if !target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(400);
    }
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if path.starts_with('/') || path == "*" { Ok(path) } else { Err(400) }
}

/// Name and trimmed value. Folded lines and spaces before the colon are refused (RFC 9112 5.1, 5.2).
fn header(line: &[u8]) -> Result<(&str, &str), u16> {
    let colon = line.iter().position(|b| *b == b':').ok_or(400u16)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|b| is_token_byte(*b)) || value.iter().any(|b| matches!(b, 0 | b'\r')) {
        return Err(400);
    }
    let name = std::str::from_utf8(name).map_err(|_| 400u16)?;
    // A value that is no UTF-8 is none that has a meaning here.
    Ok((name, std::str::from_utf8(value).unwrap_or_default().trim_matches([' ', '\t'])))
}

/// `tchar` of RFC 9110 5.6.2.
fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn has_word(list: &str, word: &str) -> bool {
    list.split(',').any(|w| w.trim_matches([' ', '\t']).eq_ignore_ascii_case(word))
}

/// `Sat, 21 Nov 2026 09:06:55 GMT` (RFC 9110 5.6.7).
fn http_date(time: UnixTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day, hour, minute, second) = time.civil();
    let weekday = DAYS[(time.0 / 86_400 % 7) as usize];
    let month = MONTHS[(month as usize).saturating_sub(1) % 12];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn dates_as_http_writes_them() {
        assert_eq!(http_date(UnixTime(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(UnixTime(1_795_252_015)), "Sat, 21 Nov 2026 09:06:55 GMT");
    }

    #[test]
    fn a_head_ends_at_its_empty_line_whatever_ends_a_line() {
        assert_eq!(head_end(b"a\r\nb\r\n\r\nrest", 0), Some(8));
        assert_eq!(head_end(b"a\nb\n\nrest", 0), Some(5));
        assert_eq!(head_end(b"a\r\nb\r\n\r", 0), None);
    }
}
