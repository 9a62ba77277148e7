//! Session tokens of IMDSv2: opaque, bound to one instance, with a life of 1 second to 6 hours.

use std::collections::BTreeMap;

use crate::base::UnixTime;
use crate::base::ids::stable_hash;

/// Longest life of a token, in seconds (EC2 User Guide: 6 hours).
pub(super) const MAX_TTL: u32 = 21_600;
/// Characters of a token.
const TOKEN_LEN: usize = 56;
/// Tokens of one instance that are remembered. AWS says "any number"; beyond this the one that was used longest ago
/// is forgotten, and its holder gets a 401 and asks for another.
const MAX_TOKENS: usize = 4_096;

/// The tokens that one instance holds.
pub struct Tokens {
    seed: u64,
    instance: String,
    made: u64,
    uses: u64,
    known: BTreeMap<[u8; TOKEN_LEN], Known>,
}

struct Known {
    expires: UnixTime,
    used: u64,
}

impl Tokens {
    /// `instance` is the instance's id. Tokens follow from `seed`, the id and their number: the same in every run of the
    /// same seed, and of no use to another instance.
    pub fn new(seed: u64, instance: &str) -> Tokens {
        Tokens { seed, instance: instance.to_owned(), made: 0, uses: 0, known: BTreeMap::new() }
    }

    /// A new token that is good for `ttl` seconds.
    pub(super) fn issue(&mut self, now: UnixTime, ttl: u32) -> [u8; TOKEN_LEN] {
        if self.known.len() >= MAX_TOKENS {
            self.known.retain(|_, known| known.expires > now);
        }
        if self.known.len() >= MAX_TOKENS {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.used).map(|(token, _)| *token);
            self.known.retain(|token, _| Some(*token) != oldest);
        }
        self.made += 1;
        let token = self.name(self.made);
        self.uses += 1;
        self.known.insert(token, Known { expires: UnixTime(now.0 + u64::from(ttl)), used: self.uses });
        token
    }

    /// Seconds for which a presented token is still good; `None` if it is unknown or expired.
    pub(super) fn check(&mut self, now: UnixTime, token: &[u8]) -> Option<u64> {
        let token: [u8; TOKEN_LEN] = token.try_into().ok()?;
        let known = self.known.get_mut(&token)?;
        let left = known.expires.0.saturating_sub(now.0);
        if left == 0 {
            self.known.remove(&token);
            return None;
        }
        self.uses += 1;
        known.used = self.uses;
        Some(left)
    }

    /// Base64 of 40 bytes with `==` at the end, and `AQAE` in front as EC2's have it.
    fn name(&self, number: u64) -> [u8; TOKEN_LEN] {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        const CHARS_A_ROUND: usize = 10;
        let (seed, number) = (self.seed.to_string(), number.to_string());
        let hash = stable_hash(&["imds-token", &seed, &self.instance, &number]);
        let (mut low, mut high) = (hash as u64, (hash >> 64) as u64);
        let mut token = [b'='; TOKEN_LEN];
        token[..4].copy_from_slice(b"AQAE");
        for chars in token[4..54].chunks_mut(CHARS_A_ROUND) {
            let mut bits = splitmix(&mut low) ^ splitmix(&mut high).rotate_left(32);
            for c in chars {
                *c = ALPHABET[(bits & 0x3f) as usize];
                bits >>= 6;
            }
        }
        token
    }
}

/// Steele, Lea and Flood's generator: the hash alone leaves neighbouring numbers alike.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000);

    #[test]
    fn a_token_is_good_for_its_time_and_its_instance() {
        let mut web = Tokens::new(7, "i-1");
        let token = web.issue(NOW, 60);
        assert!(token.starts_with(b"AQAE") && token.ends_with(b"=="));
        assert_eq!(web.check(NOW, &token), Some(60));
        assert_eq!(web.check(UnixTime(1_059), &token), Some(1));
        assert_eq!(web.check(UnixTime(1_060), &token), None);
        assert_eq!(web.check(UnixTime(1_060), b"short"), None);
        let mut other = Tokens::new(7, "i-2");
        assert_ne!(other.issue(NOW, 60), token);
        assert_eq!(other.check(NOW, &token), None);
        assert_eq!(Tokens::new(7, "i-1").issue(NOW, 60), token, "the same seed, the same token");
        assert_ne!(Tokens::new(8, "i-1").issue(NOW, 60), token);
        let next = web.issue(NOW, 60);
        let same = token[4..54].iter().zip(&next[4..54]).filter(|(a, b)| a == b).count();
        assert!(same < 10, "one token says nothing about the next: {same} characters alike");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_what_was_used_longest_ago() {
        let mut tokens = Tokens::new(7, "i-1");
        let kept = tokens.issue(NOW, 21_600);
        let forgotten = tokens.issue(NOW, 21_600);
        for _ in 0..MAX_TOKENS - 2 {
            tokens.issue(NOW, 21_600);
        }
        assert!(tokens.check(NOW, &kept).is_some());
        tokens.issue(NOW, 21_600);
        assert_eq!(tokens.known.len(), MAX_TOKENS);
        assert_eq!(tokens.check(NOW, &forgotten), None);
        assert!(tokens.check(NOW, &kept).is_some());
        // Expired ones go first.
        let mut tokens = Tokens::new(7, "i-1");
        for _ in 0..MAX_TOKENS {
            tokens.issue(NOW, 1);
        }
        tokens.issue(UnixTime(1_001), 1);
        assert_eq!(tokens.known.len(), 1);
    }
}
