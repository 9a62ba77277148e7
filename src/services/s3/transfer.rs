//! Taking the body of an upload: to its place, through the sums, and against what the client said of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use http::HeaderMap;
use s3s::dto::StreamingBlob;
use s3s::{S3Result, TrailingHeaders};

use super::blob::{Place, Segment, Sink};
use super::checksum::{Algorithm, Hasher, Sums};
use super::error::{disk, fail, fail_with, of_body};

/// Largest object of one request, and largest part (Amazon S3 quotas).
const MAX_UPLOAD: u64 = 5 * 1024 * 1024 * 1024;

/// What a client says of a body.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Base64 of the MD5.
    md5: Option<String>,
    /// From a header.
    checksum: Option<(Algorithm, String)>,
    /// To come after the body.
    trailer: Option<Algorithm>,
    /// Named without a value: the sum is ours to take.
    named: Option<Algorithm>,
    /// Bytes without framing.
    len: Option<u64>,
}

impl Claims {
    /// Reads the headers of an upload.
    pub(super) fn of(headers: &HeaderMap) -> S3Result<Claims> {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
        let mut given = Algorithm::ALL.into_iter().filter_map(|a| Some((a, text(a.header())?.to_owned())));
        let checksum = given.next();
        if given.next().is_some() {
            return Err(fail_with(
                "InvalidRequest",
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
            ));
        }
        if let Some((algorithm, value)) = &checksum
            && STANDARD.decode(value).is_err()
        {
            return Err(invalid_checksum(*algorithm));
        }
        let trailers = text("x-amz-trailer").unwrap_or_default();
        let trailer = trailers
            .split(',')
            .find_map(|t| Algorithm::ALL.into_iter().find(|a| t.trim().eq_ignore_ascii_case(a.header())));
        let named = text("x-amz-sdk-checksum-algorithm").or_else(|| text("x-amz-checksum-algorithm"));
        let chunked = text("x-amz-content-sha256").is_some_and(|v| v.starts_with("STREAMING-"));
        let len = if chunked { text("x-amz-decoded-content-length") } else { text("content-length") };
        let md5 = text("content-md5").map(str::to_owned);
        if md5.as_ref().is_some_and(|m| STANDARD.decode(m).map_or(true, |raw| raw.len() != 16)) {
            return Err(fail("InvalidDigest"));
        }
        Ok(Claims {
            md5,
            checksum,
            trailer,
            named: named.and_then(Algorithm::from_name),
            len: len.and_then(|l| l.parse().ok()),
        })
    }

    /// The checksum that the client chose, if any.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        self.checksum.as_ref().map(|(a, _)| *a).or(self.trailer).or(self.named)
    }

    fn check(&self, sums: &Sums, trailing: Option<TrailingHeaders>) -> S3Result<()> {
        if self.len.is_some_and(|len| len != sums.len) {
            return Err(fail("IncompleteBody"));
        }
        if let Some(md5) = &self.md5
            && *md5 != STANDARD.encode(sums.md5)
        {
            return Err(fail("BadDigest"));
        }
        if let Some((algorithm, value)) = &self.checksum {
            compare(*algorithm, value, sums)?;
        }
        if let Some(algorithm) = self.trailer {
            let value = trailing.and_then(|t| {
                t.read(|h| h.get(algorithm.header()).and_then(|v| v.to_str().ok()).map(|v| v.trim().to_owned()))
            });
            let Some(value) = value.flatten() else { return Err(fail("MalformedTrailerError")) };
            compare(algorithm, &value, sums)?;
        }
        Ok(())
    }
}

/// A body that arrived whole and is what the client said.
pub(super) struct Received {
    pub(super) segment: Segment,
    pub(super) sums: Sums,
}

/// Takes a body to its place. At most one piece of it is in memory if the place is on disk. On an error nothing stays.
pub(super) async fn receive(
    body: Option<StreamingBlob>,
    place: Place,
    claims: &Claims,
    trailing: Option<TrailingHeaders>,
    algorithms: &[Algorithm],
) -> S3Result<Received> {
    if claims.len.is_some_and(|len| len > MAX_UPLOAD) {
        return Err(fail("EntityTooLarge"));
    }
    let mut wanted = algorithms.to_vec();
    wanted.extend(claims.algorithm());
    wanted.dedup();
    let mut hasher = Hasher::new(&wanted);
    let mut sink = Sink::open(place).await.map_err(open_failed)?;
    let mut len = 0u64;
    if let Some(mut body) = body {
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|e| of_body(&*e))?;
            len += bytes.len() as u64;
            if len > MAX_UPLOAD {
                return Err(fail("EntityTooLarge"));
            }
            hasher.update(&bytes);
            sink.write(&bytes).await.map_err(disk)?;
        }
    }
    let sums = hasher.finish();
    claims.check(&sums, trailing)?;
    let segment = sink.finish().await.map_err(disk)?;
    Ok(Received { segment, sums })
}

/// The folder goes with its bucket.
fn open_failed(error: std::io::Error) -> s3s::S3Error {
    if error.kind() == std::io::ErrorKind::NotFound { fail("NoSuchBucket") } else { disk(error) }
}

fn compare(algorithm: Algorithm, value: &str, sums: &Sums) -> S3Result<()> {
    match sums.get(algorithm) {
        Some(ours) if ours == value => Ok(()),
        _ => Err(fail_with(
            "BadDigest",
            format!("The {} you specified did not match the calculated checksum.", algorithm.as_str()),
        )),
    }
}

fn invalid_checksum(algorithm: Algorithm) -> s3s::S3Error {
    fail_with("InvalidRequest", format!("Value for {} header is invalid.", algorithm.header()))
}
