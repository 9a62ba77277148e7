//! SigV4 as a client does it: written from the guide, not from s3s, so that each checks the other.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use http::Request;

use crate::base::UnixTime;
use crate::services::s3::checksum::hex;

pub(super) const KEY: &str = "ASIAEXAMPLE000000000";
pub(super) const SECRET: &str = "secret/key";
pub(super) const TOKEN: &str = "tok+en/==";
pub(super) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Who signs, and for what.
#[derive(Clone)]
pub(super) struct Signer {
    pub(super) key: String,
    pub(super) secret: String,
    pub(super) token: Option<String>,
    pub(super) region: String,
    pub(super) service: String,
}

impl Default for Signer {
    fn default() -> Signer {
        Signer {
            key: KEY.into(),
            secret: SECRET.into(),
            token: Some(TOKEN.into()),
            region: "eu-west-1".into(),
            service: "s3".into(),
        }
    }
}

/// What chunks are signed with.
pub(super) struct Seal {
    pub(super) signature: String,
    key: hmac::Key,
    stamp: String,
    scope: String,
}

impl Signer {
    /// Signs the headers of a request, whose path and query are already encoded.
    pub(super) fn sign<B>(&self, request: Request<B>, payload: &str) -> (Request<B>, Seal) {
        let (mut head, body) = request.into_parts();
        // s3s reads the clock of the operating system.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let stamp: String = UnixTime(now).iso8601().chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let mut set = |name: &'static str, value: &str| {
            head.headers.insert(name, value.parse().unwrap());
        };
        set("x-amz-date", &stamp);
        set("x-amz-content-sha256", payload);
        if let Some(token) = &self.token {
            set("x-amz-security-token", token);
        }
        let mut names: Vec<&str> = head
            .headers
            .keys()
            .map(http::HeaderName::as_str)
            .filter(|n| *n == "host" || n.starts_with("x-amz-"))
            .collect();
        names.sort_unstable();
        let mut headers = String::new();
        for name in &names {
            let _ = writeln!(headers, "{name}:{}", head.headers[*name].to_str().unwrap());
        }
        let mut query: Vec<String> = head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|p| !p.is_empty())
            .map(|p| if p.contains('=') { p.to_owned() } else { format!("{p}=") })
            .collect();
        query.sort_unstable();
        let signed = names.join(";");
        let canonical =
            format!("{}\n{}\n{}\n{headers}\n{signed}\n{payload}", head.method, head.uri.path(), query.join("&"));
        let scope = format!("{}/{}/{}/aws4_request", &stamp[..8], self.region, self.service);
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{}", self.secret).as_bytes());
        for part in scope.split('/') {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
        }
        let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let signature = hex(hmac::sign(&key, text.as_bytes()).as_ref());
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}", self.key);
        head.headers.insert("authorization", authorization.parse().unwrap());
        (Request::from_parts(head, body), Seal { signature, key, stamp, scope })
    }
}

impl Seal {
    /// The body of `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`: every chunk signed over the one before it.
    pub(super) fn chunks(&self, pieces: &[&[u8]]) -> Vec<u8> {
        let mut previous = self.signature.clone();
        let mut body = Vec::new();
        for piece in pieces.iter().copied().chain([&b""[..]]) {
            let text = format!(
                "AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{previous}\n{}\n{}",
                self.stamp,
                self.scope,
                sha256(b""),
                sha256(piece)
            );
            previous = hex(hmac::sign(&self.key, text.as_bytes()).as_ref());
            body.extend(format!("{:x};chunk-signature={previous}\r\n", piece.len()).into_bytes());
            body.extend_from_slice(piece);
            body.extend_from_slice(b"\r\n");
        }
        body
    }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}
