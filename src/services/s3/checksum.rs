//! The sums S3 keeps beside an object: MD5 for the ETag, and one of five checksums.
//!
//! Source: Amazon S3 User Guide, "Checking object integrity": an object sent without a checksum gets a CRC64NVME of
//! ours; the checksum of a multipart object is of the whole object or a checksum of checksums with `-PARTS`.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};

/// One of S3's checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub(super) const ALL: [Algorithm; 5] =
        [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme, Algorithm::Sha1, Algorithm::Sha256];

    /// `CRC32`, as in `x-amz-checksum-algorithm`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
        }
    }

    /// `x-amz-checksum-crc32`: header and trailer.
    pub(super) const fn header(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "x-amz-checksum-crc32",
            Algorithm::Crc32c => "x-amz-checksum-crc32c",
            Algorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Algorithm::Sha1 => "x-amz-checksum-sha1",
            Algorithm::Sha256 => "x-amz-checksum-sha256",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| a.as_str().eq_ignore_ascii_case(name))
    }

    /// The kind of a multipart object's checksum if the client names none.
    pub(super) const fn default_kind(self) -> Kind {
        match self {
            Algorithm::Crc64Nvme => Kind::FullObject,
            _ => Kind::Composite,
        }
    }

    /// Whether a multipart object may have a checksum of this kind: SHA sums cannot be joined, CRC64NVME is never
    /// composite.
    pub(super) const fn allows(self, kind: Kind) -> bool {
        match self {
            Algorithm::Crc32 | Algorithm::Crc32c => true,
            Algorithm::Crc64Nvme => matches!(kind, Kind::FullObject),
            Algorithm::Sha1 | Algorithm::Sha256 => matches!(kind, Kind::Composite),
        }
    }

    const fn crc(self) -> Option<(CrcAlgorithm, usize)> {
        match self {
            Algorithm::Crc32 => Some((CrcAlgorithm::Crc32IsoHdlc, 4)),
            Algorithm::Crc32c => Some((CrcAlgorithm::Crc32Iscsi, 4)),
            Algorithm::Crc64Nvme => Some((CrcAlgorithm::Crc64Nvme, 8)),
            Algorithm::Sha1 | Algorithm::Sha256 => None,
        }
    }
}

/// What a checksum is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    FullObject,
    /// Of the parts' checksums.
    Composite,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Kind::FullObject => "FULL_OBJECT",
            Kind::Composite => "COMPOSITE",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Kind> {
        [Kind::FullObject, Kind::Composite].into_iter().find(|k| k.as_str() == name)
    }
}

/// A checksum as it is kept and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksum {
    pub(super) algorithm: Algorithm,
    /// Base64; `-PARTS` follows if composite.
    pub(super) value: String,
    pub(super) kind: Kind,
}

/// Sums bytes as they pass.
pub(super) struct Hasher {
    md5: Md5,
    running: Vec<(Algorithm, Running)>,
    len: u64,
}

enum Running {
    Crc(Box<crc_fast::Digest>, usize),
    Sha(digest::Context),
}

/// What came out.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    pub(super) md5: [u8; 16],
    pub(super) len: u64,
    values: Vec<(Algorithm, Vec<u8>)>,
}

impl Hasher {
    /// MD5 is always taken, further sums as named.
    pub(super) fn new(algorithms: &[Algorithm]) -> Hasher {
        let running = algorithms.iter().map(|a| (*a, Running::new(*a))).collect();
        Hasher { md5: Md5::new(), running, len: 0 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.md5.update(bytes);
        for (_, running) in &mut self.running {
            match running {
                Running::Crc(crc, _) => crc.update(bytes),
                Running::Sha(sha) => sha.update(bytes),
            }
        }
    }

    pub(super) fn finish(self) -> Sums {
        let values = self.running.into_iter().map(|(a, r)| (a, r.finish())).collect();
        Sums { md5: self.md5.finalize().into(), len: self.len, values }
    }
}

impl Running {
    fn new(algorithm: Algorithm) -> Running {
        match algorithm.crc() {
            Some((crc, bytes)) => Running::Crc(Box::new(crc_fast::Digest::new(crc)), bytes),
            None if algorithm == Algorithm::Sha1 => {
                Running::Sha(digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY))
            }
            None => Running::Sha(digest::Context::new(&digest::SHA256)),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Running::Crc(crc, bytes) => crc.finalize().to_be_bytes()[8 - bytes..].to_vec(),
            Running::Sha(sha) => sha.finish().as_ref().to_vec(),
        }
    }
}

impl Sums {
    /// Base64 of one of the sums that were asked for.
    pub(super) fn get(&self, algorithm: Algorithm) -> Option<String> {
        self.values.iter().find(|(a, _)| *a == algorithm).map(|(_, v)| STANDARD.encode(v))
    }

    /// The ETag of an object sent in one piece.
    pub(super) fn etag(&self) -> String {
        hex(&self.md5)
    }
}

/// The ETag of a multipart object: MD5 of the parts' MD5s, and their number.
pub(super) fn multipart_etag(parts: &[[u8; 16]]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    format!("{}-{}", hex(&md5.finalize()), parts.len())
}

/// The checksum of a multipart object from those of its parts (base64, length in bytes). `None` if a part's checksum
/// is malformed or the kind is impossible for the algorithm.
pub(super) fn of_parts(algorithm: Algorithm, kind: Kind, parts: &[(String, u64)]) -> Option<Checksum> {
    if !algorithm.allows(kind) {
        return None;
    }
    let value = match kind {
        Kind::Composite => {
            let mut running = Running::new(algorithm);
            for (sum, _) in parts {
                let raw = STANDARD.decode(sum).ok()?;
                match &mut running {
                    Running::Crc(crc, _) => crc.update(&raw),
                    Running::Sha(sha) => sha.update(&raw),
                }
            }
            format!("{}-{}", STANDARD.encode(running.finish()), parts.len())
        }
        Kind::FullObject => {
            let (crc, bytes) = algorithm.crc()?;
            let mut whole: Option<u64> = None;
            for (sum, len) in parts {
                let raw = STANDARD.decode(sum).ok().filter(|r| r.len() == bytes)?;
                let part = raw.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
                whole = Some(whole.map_or(part, |w| crc_fast::checksum_combine(crc, w, part, *len)));
            }
            STANDARD.encode(&whole?.to_be_bytes()[8 - bytes..])
        }
    };
    Some(Checksum { algorithm, value, kind })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(bytes: &[u8]) -> Sums {
        let mut hasher = Hasher::new(&Algorithm::ALL);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Values that botocore sent for the same bytes.
    #[test]
    fn sums_agree_with_botocore() {
        assert_eq!(sums(b"hello world").get(Algorithm::Crc32).as_deref(), Some("DUoRhQ=="));
        assert_eq!(sums(b"hello").get(Algorithm::Crc32).as_deref(), Some("NhCmhg=="));
        assert_eq!(
            sums(b"hello").get(Algorithm::Sha256).as_deref(),
            Some("LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=")
        );
        assert_eq!(sums(b"hello").etag(), "5d41402abc4b2a76b9719d911017c592");
        // The check values of the CRC catalogue for "123456789".
        assert_eq!(sums(b"123456789").get(Algorithm::Crc32c), Some(STANDARD.encode([0xe3, 0x06, 0x92, 0x83])));
        assert_eq!(
            sums(b"123456789").get(Algorithm::Crc64Nvme),
            Some(STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_be_bytes()))
        );
    }

    #[test]
    fn joined_sums_of_parts_are_those_of_the_whole() {
        let (a, b, c) = (vec![1u8; 70_000], vec![2u8; 1], vec![3u8; 12_345]);
        let whole: Vec<u8> = [&a[..], &b, &c].concat();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let parts: Vec<_> =
                [&a, &b, &c].map(|p| (sums(p).get(algorithm).unwrap(), p.len() as u64)).into_iter().collect();
            let joined = of_parts(algorithm, Kind::FullObject, &parts).unwrap();
            assert_eq!(Some(joined.value), sums(&whole).get(algorithm), "{algorithm:?}");
        }
        assert!(of_parts(Algorithm::Sha256, Kind::FullObject, &[]).is_none());
    }
}
