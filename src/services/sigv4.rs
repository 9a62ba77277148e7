//! Verification of AWS Signature Version 4, in the `Authorization` header and in the query of presigned URLs (IAM User
//! Guide, "Create a signed AWS API request").

use std::fmt::Write as _;

use aws_lc_rs::{digest, hmac};
use http::HeaderMap;
use http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::errors::AuthError;
use crate::base::UnixTime;
use crate::model::credentials::RoleCredentials;

/// How far the date of a request may be off: 5 minutes, and 15 with S3 (IAM User Guide; `RequestTimeTooSkewed`).
pub const MAX_SKEW_SECONDS: u64 = 300;
pub const MAX_SKEW_SECONDS_S3: u64 = 900;

/// Payload hash of bodies that are not signed.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// A signature as it stands in a request, not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub access_key: String,
    /// `20261120`.
    pub date: String,
    pub region: String,
    /// Signing name: `sqs`.
    pub service: String,
    /// Lower case, in the order given.
    pub signed_headers: Vec<String>,
    /// Lower-case hexadecimal.
    pub signature: String,
    /// `20261120T101112Z`.
    pub timestamp: String,
    pub token: Option<String>,
    /// Seconds a presigned URL is good for; `None` for a signed header.
    pub presigned_for: Option<u64>,
}

/// What a claim is held against.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub region: &'a str,
    /// `None`: the signing name of this service is not known.
    pub service: Option<&'a str>,
    pub now: UnixTime,
    pub s3: bool,
}

impl Claim {
    /// Finds the signature of a request. `Ok(None)`: it has none.
    ///
    /// # Errors
    /// A signature that lacks a part.
    pub fn find(head: &Parts) -> Result<Option<Claim>, AuthError> {
        let authorization = head.headers.get(http::header::AUTHORIZATION);
        if let Some(value) = authorization {
            let value = value.to_str().map_err(|_| incomplete("Authorization header is not readable."))?;
            return Claim::from_header(value, &head.headers).map(Some);
        }
        let query = head.uri.query().unwrap_or("");
        if query_pairs(query).any(|(name, _)| name == "X-Amz-Algorithm" || name == "X-Amz-Signature") {
            return Claim::from_query(query).map(Some);
        }
        Ok(None)
    }

    fn from_header(value: &str, headers: &HeaderMap) -> Result<Claim, AuthError> {
        let Some(parts) = value.strip_prefix(ALGORITHM) else {
            let algorithm = value.split_whitespace().next().unwrap_or("");
            return Err(incomplete(&format!("Unsupported AWS 'algorithm': '{algorithm}'.")));
        };
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for part in parts.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            match part.split_once('=') {
                Some(("Credential", v)) => credential = Some(v),
                Some(("SignedHeaders", v)) => signed = Some(v),
                Some(("Signature", v)) => signature = Some(v),
                _ => {
                    return Err(incomplete(&format!(
                        "'{part}' not a valid key=value pair (missing equal-sign) in \
                                                     Authorization header: '{value}'."
                    )));
                }
            }
        }
        let timestamp = header_timestamp(headers);
        let (Some(credential), Some(signed), Some(signature), Some(timestamp)) =
            (credential, signed, signature, &timestamp)
        else {
            let mut message = String::new();
            for (name, there) in [
                ("Credential", credential.is_some()),
                ("Signature", signature.is_some()),
                ("SignedHeaders", signed.is_some()),
            ] {
                if !there {
                    let _ = write!(message, "Authorization header requires '{name}' parameter. ");
                }
            }
            if timestamp.is_none() {
                message
                    .push_str("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ");
            }
            return Err(incomplete(&format!("{message}Authorization={value}")));
        };
        let token = match headers.get("x-amz-security-token") {
            Some(v) => Some(v.to_str().map_err(|_| AuthError::WrongToken)?.to_owned()),
            None => None,
        };
        Claim::assemble(credential, signed, signature, timestamp, token, None)
    }

    fn from_query(query: &str) -> Result<Claim, AuthError> {
        let find = |wanted: &str| {
            query_pairs(query).find(|(name, _)| name == wanted).map(|(_, value)| value).filter(|v| !v.is_empty())
        };
        let need = |name: &str| {
            find(name).ok_or_else(|| {
                incomplete(&format!(
                    "AWS query-string parameters must include '{name}'. Re-examine the query-string \
                                     parameters."
                ))
            })
        };
        let algorithm = need("X-Amz-Algorithm")?;
        if algorithm != ALGORITHM {
            return Err(incomplete(&format!("Unsupported AWS 'algorithm': '{algorithm}'.")));
        }
        let expires = find("X-Amz-Expires").unwrap_or_else(|| MAX_SKEW_SECONDS_S3.to_string());
        let seconds: u64 = expires.parse().map_err(|_| incomplete("X-Amz-Expires should be a number"))?;
        if seconds > 604_800 {
            return Err(incomplete(
                "X-Amz-Expires must be less than a week (in seconds); that is, the given \
                                   X-Amz-Expires must be less than 604800 seconds",
            ));
        }
        Claim::assemble(
            &need("X-Amz-Credential")?,
            &need("X-Amz-SignedHeaders")?,
            &need("X-Amz-Signature")?,
            &need("X-Amz-Date")?,
            find("X-Amz-Security-Token"),
            Some(seconds),
        )
    }

    fn assemble(
        credential: &str,
        signed: &str,
        signature: &str,
        timestamp: &str,
        token: Option<String>,
        presigned_for: Option<u64>,
    ) -> Result<Claim, AuthError> {
        let scope: Vec<&str> = credential.split('/').collect();
        // An access key has no slash, but a careless one may: the scope is the last four parts.
        let [access_key, date, region, service, terminal] = scope[..] else {
            return Err(incomplete(&format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. \
                                            keyid/date/region/service/term, got '{credential}'"
            )));
        };
        if terminal != "aws4_request" {
            return Err(AuthError::Scope(format!(
                "Credential should be scoped with a valid terminator: \
                                                 'aws4_request', not '{terminal}'."
            )));
        }
        let signed_headers: Vec<String> = signed.split(';').map(str::to_ascii_lowercase).collect();
        if !signed_headers.iter().any(|h| h == "host") {
            return Err(incomplete("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."));
        }
        Ok(Claim {
            access_key: access_key.into(),
            date: date.into(),
            region: region.into(),
            service: service.into(),
            signed_headers,
            signature: signature.to_ascii_lowercase(),
            timestamp: timestamp.into(),
            token,
            presigned_for,
        })
    }

    /// Holds the claim against the credentials it names. `payload` is the hexadecimal SHA-256 of the body, or the
    /// literal that S3 allows in its place.
    ///
    /// # Errors
    /// The first thing that is wrong, in AWS's order: token, expiry, date, scope, signature.
    pub fn verify(
        &self,
        head: &Parts,
        payload: &str,
        credentials: &RoleCredentials,
        expected: Expected<'_>,
    ) -> Result<(), AuthError> {
        // Temporary credentials are good only with their token.
        if self.token.as_deref() != Some(credentials.token.as_str()) {
            return Err(AuthError::WrongToken);
        }
        if credentials.expires <= expected.now {
            return Err(AuthError::Expired);
        }
        self.date_in_time(expected)?;
        self.scope(expected)?;
        let canonical = self.canonical_request(head, payload, expected.s3);
        let to_sign = format!(
            "{ALGORITHM}\n{}\n{}/{}/{}/aws4_request\n{}",
            self.timestamp,
            self.date,
            self.region,
            self.service,
            hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
        );
        let key = signing_key(&credentials.secret_key, &self.date, &self.region, &self.service);
        let given = unhex(&self.signature).ok_or(AuthError::Mismatch)?;
        hmac::verify(&key, to_sign.as_bytes(), &given).map_err(|_| AuthError::Mismatch)
    }

    fn date_in_time(&self, expected: Expected<'_>) -> Result<(), AuthError> {
        let stamp = &self.timestamp;
        let Some(at) = parse_timestamp(stamp) else {
            return Err(incomplete(&format!(
                "Date must be in ISO-8601 'basic format'. Got '{stamp}'. See http://en.wikipedia.org/wiki/ISO_8601"
            )));
        };
        let now = expected.now;
        let skew = if expected.s3 { MAX_SKEW_SECONDS_S3 } else { MAX_SKEW_SECONDS };
        if at.0 > now.0 + skew {
            let limit = basic(UnixTime(now.0 + skew));
            return Err(AuthError::Skewed(format!(
                "Signature not yet current: {stamp} is still later than {limit} ({} + {} min.)",
                basic(now),
                skew / 60
            )));
        }
        let lifetime = self.presigned_for.unwrap_or(skew);
        if at.0 + lifetime < now.0 {
            let message = format!(
                "Signature expired: {stamp} is now earlier than {} ({} - {} min.)",
                basic(UnixTime(now.0.saturating_sub(lifetime))),
                basic(now),
                lifetime / 60
            );
            return Err(match self.presigned_for {
                Some(_) => AuthError::PresignedExpired(message),
                None => AuthError::Skewed(message),
            });
        }
        Ok(())
    }

    fn scope(&self, expected: Expected<'_>) -> Result<(), AuthError> {
        if !self.timestamp.starts_with(&self.date) {
            return Err(AuthError::Scope(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != \
                 '{}', from '{}'.",
                self.date,
                self.timestamp.get(..8).unwrap_or(""),
                self.timestamp
            )));
        }
        if self.region != expected.region {
            return Err(AuthError::Scope(if expected.s3 {
                format!(
                    "The authorization header is malformed; the region '{}' is wrong; expecting '{}'",
                    self.region, expected.region
                )
            } else {
                format!("Credential should be scoped to a valid region, not '{}'. ", self.region)
            }));
        }
        match expected.service {
            Some(service) if service != self.service => {
                Err(AuthError::Scope(format!("Credential should be scoped to correct service: '{service}'. ")))
            }
            _ => Ok(()),
        }
    }

    fn canonical_request(&self, head: &Parts, payload: &str, s3: bool) -> String {
        let path = head.uri.path();
        let path = if s3 { canonical_path_s3(path) } else { canonical_path(path) };
        let query = canonical_query(head.uri.query().unwrap_or(""), self.presigned_for.is_some());
        let mut headers = String::new();
        for name in &self.signed_headers {
            let _ = writeln!(headers, "{name}:{}", header_value(&head.headers, name));
        }
        format!("{}\n{path}\n{query}\n{headers}\n{}\n{payload}", head.method, self.signed_headers.join(";"))
    }
}

/// The key that signs: derived from the secret, day by day, region by region, service by service.
pub fn signing_key(secret: &str, date: &str, region: &str, service: &str) -> hmac::Key {
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    for part in [date, region, service, "aws4_request"] {
        key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
    }
    key
}

/// Lower-case hexadecimal SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// All but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const ENCODED_BUT_SLASH: &AsciiSet = &ENCODED.remove(b'/');

/// S3: the key's bytes encoded once, nothing normalised.
fn canonical_path_s3(path: &str) -> String {
    let raw: Vec<u8> = percent_decode_str(path).collect();
    percent_encoding::percent_encode(&raw, ENCODED_BUT_SLASH).to_string()
}

/// The others: dot segments and empty segments removed, then the path as sent encoded once more.
fn canonical_path(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    let mut joined = String::from("/");
    joined.push_str(&kept.join("/"));
    if path.ends_with('/') && !kept.is_empty() {
        joined.push('/');
    }
    utf8_percent_encode(&joined, ENCODED_BUT_SLASH).to_string()
}

fn canonical_query(query: &str, presigned: bool) -> String {
    let mut pairs: Vec<(String, String)> = query_raw_pairs(query)
        .map(|(name, value)| (recode(name), recode(value)))
        .filter(|(name, _)| !(presigned && name == "X-Amz-Signature"))
        .collect();
    pairs.sort();
    let joined: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    joined.join("&")
}

fn recode(part: &str) -> String {
    let spaced = part.replace('+', " ");
    let raw: Vec<u8> = percent_decode_str(&spaced).collect();
    percent_encoding::percent_encode(&raw, ENCODED).to_string()
}

fn query_raw_pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, "")))
}

fn query_pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let decode = |s: &str| percent_decode_str(s).decode_utf8_lossy().into_owned();
    query_raw_pairs(query).map(move |(name, value)| (decode(name), decode(value)))
}

/// All values of a header, trimmed, inner runs of blanks made one, joined by commas.
fn header_value(headers: &HeaderMap, name: &str) -> String {
    let values = headers.get_all(name).iter().map(|v| {
        let text = String::from_utf8_lossy(v.as_bytes());
        text.split([' ', '\t']).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
    });
    values.collect::<Vec<_>>().join(",")
}

fn header_timestamp(headers: &HeaderMap) -> Option<String> {
    if let Some(stamp) = headers.get("x-amz-date") {
        return stamp.to_str().ok().map(|s| s.trim().to_owned());
    }
    let date = headers.get(http::header::DATE)?.to_str().ok()?;
    if parse_timestamp(date).is_some() {
        return Some(date.to_owned());
    }
    let parsed = time::OffsetDateTime::parse(date, &time::format_description::well_known::Rfc2822).ok()?;
    u64::try_from(parsed.unix_timestamp()).ok().map(|s| basic(UnixTime(s)))
}

/// `20261120T101112Z`.
fn basic(t: UnixTime) -> String {
    let (y, mo, d, h, mi, s) = t.civil();
    format!("{y:04}{mo:02}{d:02}T{h:02}{mi:02}{s:02}Z")
}

fn parse_timestamp(text: &str) -> Option<UnixTime> {
    let b = text.as_bytes();
    if b.len() != 16 || b[8] != b'T' || b[15] != b'Z' || !text.is_ascii() {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        let part = &text[range];
        part.bytes().all(|c| c.is_ascii_digit()).then(|| part.parse::<u32>().ok()).flatten()
    };
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(9..11)?, number(11..13)?, number(13..15)?);
    let month = time::Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = time::Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    let (hour, minute, second) = (u8::try_from(hour).ok()?, u8::try_from(minute).ok()?, u8::try_from(second).ok()?);
    let moment = date.with_hms(hour, minute, second).ok()?.assume_utc();
    u64::try_from(moment.unix_timestamp()).ok().map(UnixTime)
}

fn incomplete(message: &str) -> AuthError {
    AuthError::Incomplete(message.to_owned())
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01T00:00:00Z, when the vectors were signed.
    const SIGNED: u64 = 1_767_225_600;

    fn credentials() -> RoleCredentials {
        RoleCredentials {
            role: 0,
            role_name: "web".into(),
            account: "123456789012".into(),
            session: "i-0".into(),
            access_key: "ASIAWEB".into(),
            secret_key: "secret/of+ASIAWEB".into(),
            token: "token/of+ASIAWEB==".into(),
            issued: UnixTime(SIGNED),
            expires: UnixTime(SIGNED + 3_600),
        }
    }

    /// A request as botocore 1.43.11 signed it for the credentials above.
    struct Vector {
        service: &'static str,
        method: &'static str,
        uri: &'static str,
        headers: &'static [(&'static str, &'static str)],
        signed: &'static str,
        signature: &'static str,
        /// What stands for the payload.
        payload: &'static str,
    }

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    const VECTORS: [Vector; 6] = [
        Vector {
            service: "lambda",
            method: "POST",
            uri: "/2015-03-31/functions/arn%3Aaws%3Alambda/invocations?Qualifier=%24LATEST&b=2&a=x%20y&a=",
            headers: &[("x-custom", "  a   b  "), ("content-type", "application/json")],
            signed: "content-type;host;x-amz-date;x-amz-security-token;x-custom",
            signature: "33fd57401567fdeb7053b9600e89944a6a6316b39b7e1392ee4ce3795c9a9f25",
            // SHA-256 of {"a":1}
            payload: "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862",
        },
        Vector {
            service: "lambda",
            method: "GET",
            uri: "/a/./b/../c//d%20e/~f/",
            headers: &[],
            signed: "host;x-amz-date;x-amz-security-token",
            signature: "2f4022ee3691823fe3b79b50911441c4fb192daa8c1129038b208d9806825f20",
            payload: EMPTY,
        },
        Vector {
            service: "s3",
            method: "PUT",
            uri: "/x//y/../a%20b%2Bc~%C3%BC%26%3D",
            headers: &[("x-amz-content-sha256", HELLO)],
            signed: "host;x-amz-content-sha256;x-amz-date;x-amz-security-token",
            signature: "b2e0aeafb87d9031759bb0a1087cd7bca155cd4a16b43c4fd4e8df0db586d8db",
            payload: HELLO,
        },
        Vector {
            service: "s3",
            method: "GET",
            uri: "/?list-type=2&prefix=a%2Fb&delimiter=%2F&continuation-token=x%2B%2F%3D",
            headers: &[("x-amz-content-sha256", EMPTY)],
            signed: "host;x-amz-content-sha256;x-amz-date;x-amz-security-token",
            signature: "7c87252ca1d7a949f62590c02313300900de4323cb38998044ffea7d6e6f2641",
            payload: EMPTY,
        },
        Vector {
            service: "s3",
            method: "GET",
            uri: "/a%20b?response-content-type=text%2Fplain&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=ASIAWEB\
                  %2F20260101%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=600&\
                  X-Amz-SignedHeaders=host&X-Amz-Security-Token=token%2Fof%2BASIAWEB%3D%3D&X-Amz-Signature=\
                  185bd4f5d4ba0f1ab959d614892f39d3bb0a6aa431f4342eef27d62c92c81935",
            headers: &[],
            signed: "",
            signature: "",
            payload: UNSIGNED_PAYLOAD,
        },
        Vector {
            service: "sts",
            method: "GET",
            uri: "/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=\
                  ASIAWEB%2F20260101%2Feu-west-1%2Fsts%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&\
                  X-Amz-SignedHeaders=host&X-Amz-Security-Token=token%2Fof%2BASIAWEB%3D%3D&X-Amz-Signature=\
                  6c96b9683b9659715ac25532cf3ae3d20fc4e233722eac69b9d45ca0c440ff9c",
            headers: &[],
            signed: "",
            signature: "",
            payload: EMPTY,
        },
    ];

    impl Vector {
        fn head(&self) -> Parts {
            let host = match self.service {
                "s3" => "bkt.s3.eu-west-1.amazonaws.com".into(),
                other => format!("{other}.eu-west-1.amazonaws.com"),
            };
            let mut request = http::Request::builder().method(self.method).uri(self.uri).header("host", host);
            for (name, value) in self.headers {
                request = request.header(*name, *value);
            }
            if !self.signature.is_empty() {
                let authorization = format!(
                    "AWS4-HMAC-SHA256 Credential=ASIAWEB/20260101/eu-west-1/{}/aws4_request, SignedHeaders={}, \
                     Signature={}",
                    self.service, self.signed, self.signature
                );
                request = request
                    .header("x-amz-date", "20260101T000000Z")
                    .header("x-amz-security-token", "token/of+ASIAWEB==")
                    .header("authorization", authorization);
            }
            request.body(()).unwrap().into_parts().0
        }

        fn verify(&self, head: &Parts, now: u64) -> Result<(), AuthError> {
            let claim = Claim::find(head)?.unwrap();
            let service = Some(self.service);
            let expected = Expected { region: "eu-west-1", service, now: UnixTime(now), s3: self.service == "s3" };
            claim.verify(head, self.payload, &credentials(), expected)
        }
    }

    #[test]
    fn what_botocore_signed_is_good_and_no_longer_good_when_touched() {
        for vector in &VECTORS {
            let head = vector.head();
            assert_eq!(vector.verify(&head, SIGNED), Ok(()), "{}", vector.uri);
            let mut other = vector.head();
            let uri = if vector.uri.contains('?') { format!("{}&z=1", vector.uri) } else { format!("{}z", vector.uri) };
            other.uri = uri.parse().unwrap();
            assert_eq!(vector.verify(&other, SIGNED), Err(AuthError::Mismatch), "{uri}");
            let mut other = vector.head();
            other.headers.insert("host", "evil.example".parse().unwrap());
            assert_eq!(vector.verify(&other, SIGNED), Err(AuthError::Mismatch));
            let mut other = vector.head();
            other.method = http::Method::DELETE;
            assert_eq!(vector.verify(&other, SIGNED), Err(AuthError::Mismatch));
        }
    }

    #[test]
    fn times_have_their_limits() {
        let [lambda, _, s3, _, presigned, _] = &VECTORS;
        let at = |v: &Vector, now| v.verify(&v.head(), now);
        assert_eq!(at(lambda, SIGNED + 300), Ok(()));
        assert!(matches!(at(lambda, SIGNED + 301), Err(AuthError::Skewed(_))));
        assert!(matches!(at(lambda, SIGNED - 301), Err(AuthError::Skewed(_))));
        assert_eq!(at(s3, SIGNED + 900), Ok(()));
        assert!(matches!(at(s3, SIGNED + 901), Err(AuthError::Skewed(_))));
        assert_eq!(at(presigned, SIGNED + 600), Ok(()));
        assert!(matches!(at(presigned, SIGNED + 601), Err(AuthError::PresignedExpired(_))));
        assert_eq!(at(presigned, SIGNED + 3_600), Err(AuthError::Expired));
    }

    #[test]
    fn a_signature_for_elsewhere_is_refused_before_it_is_calculated() {
        let head = VECTORS[0].head();
        let claim = Claim::find(&head).unwrap().unwrap();
        let expected = |region, service| Expected { region, service, now: UnixTime(SIGNED), s3: false };
        let verify = |expected| claim.verify(&head, VECTORS[0].payload, &credentials(), expected);
        assert!(matches!(verify(expected("us-east-1", None)), Err(AuthError::Scope(_))));
        assert!(matches!(verify(expected("eu-west-1", Some("sqs"))), Err(AuthError::Scope(_))));
        assert_eq!(verify(expected("eu-west-1", None)), Ok(()));
    }

    #[test]
    fn incomplete_signatures_say_what_is_missing() {
        let find = |authorization: &str, date: bool| {
            let mut request = http::Request::get("/").header("authorization", authorization);
            if date {
                request = request.header("x-amz-date", "20260101T000000Z");
            }
            match Claim::find(&request.body(()).unwrap().into_parts().0) {
                Err(AuthError::Incomplete(message)) => message,
                other => panic!("{authorization}: {other:?}"),
            }
        };
        assert!(
            find("AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request, SignedHeaders=host", true)
                .starts_with("Authorization header requires 'Signature' parameter. Authorization=")
        );
        assert!(
            find("AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request, SignedHeaders=host, Signature=0", false)
                .contains("requires existence of either a 'X-Amz-Date' or a 'Date' header")
        );
        assert!(find("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0", true).contains("5 slash"));
        assert!(
            find("AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request, SignedHeaders=x, Signature=0", true)
                .contains("'Host'")
        );
        assert!(find("Basic dXNlcjpwYXNz", true).contains("Unsupported AWS 'algorithm': 'Basic'"));
        let (head, ()) = http::Request::get("/?X-Amz-Signature=0").body(()).unwrap().into_parts();
        assert!(matches!(Claim::find(&head), Err(AuthError::Incomplete(_))));
        let (head, ()) = http::Request::get("/?Action=X").body(()).unwrap().into_parts();
        assert_eq!(Claim::find(&head), Ok(None));
    }

    #[test]
    fn timestamps_are_read_strictly() {
        assert_eq!(parse_timestamp("20260101T000000Z"), Some(UnixTime(SIGNED)));
        for bad in
            ["20261301T000000Z", "20260101T240000Z", "2026-01-01T00:00Z", "20260101T0000+1Z", "\u{e9}0260101T00000Z"]
        {
            assert_eq!(parse_timestamp(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_breaks_the_verifier(value in "(AWS4-HMAC-SHA256 )?[ -~]{0,80}", query in "[!-~]{0,60}") {
            let uri = format!("/{}", query.replace(['#', '\\', '^', '`', '{', '|', '}', '"', '<', '>'], "?"));
            if let Ok(request) = http::Request::get(uri).header("authorization", value).body(()) {
                let head = request.into_parts().0;
                if let Ok(Some(claim)) = Claim::find(&head) {
                    let expected = Expected { region: "r", service: None, now: UnixTime(SIGNED), s3: false };
                    let _ = claim.verify(&head, EMPTY, &credentials(), expected);
                }
            }
        }
    }
}
