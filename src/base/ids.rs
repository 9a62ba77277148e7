//! Indices into a `Plan`, and ids of AWS's form.

/// Index of an ENI in `Plan::enis`: the engine's port number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EniIx(pub u32);

/// Index of an endpoint in `Plan::endpoints`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointIx(pub u32);

impl EniIx {
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

impl EndpointIx {
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

/// FNV-1a over 128 bits: stable between runs and releases, which ids need and `std`'s hashers do not promise.
pub fn stable_hash(parts: &[&str]) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut h: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for part in parts {
        for b in part.bytes().chain([0xff]) {
            h = (h ^ u128::from(b)).wrapping_mul(PRIME);
        }
    }
    // The low bits of FNV are its best mixed; fold the upper half in.
    h ^ (h >> 64)
}

/// An id of AWS's form, `vpce-` and 17 hexadecimal digits of which the first is 0. The same lab, kind and
/// name give the same id in every run.
pub fn aws_id(prefix: &str, lab: &str, path: &str) -> String {
    format!("{prefix}-0{:016x}", stable_hash(&[prefix, lab, path]) as u64)
}

/// `n` characters of `[a-z0-9]` that depend on nothing but the parts: the random label in endpoint names.
pub fn token36(parts: &[&str], n: usize) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut h = stable_hash(parts);
    (0..n)
        .map(|_| {
            let c = ALPHABET[(h % 36) as usize];
            h /= 36;
            char::from(c)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_awss_form_and_differ_by_every_part() {
        let id = aws_id("vpce", "lab", "app.s3");
        assert_eq!(id.len(), "vpce-".len() + 17);
        assert_eq!(id, aws_id("vpce", "lab", "app.s3"));
        assert_ne!(id, aws_id("vpce", "lab", "app.sts"));
        assert_ne!(id[5..], aws_id("eni", "lab", "app.s3")[4..]);
        assert_ne!(stable_hash(&["ab", "c"]), stable_hash(&["a", "bc"]));
    }
}
