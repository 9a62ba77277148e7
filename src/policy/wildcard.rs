//! `*` and `?` of policy documents.

/// Does an action pattern (`s3:Get*`) cover an action? Case is ignored (IAM User Guide, element Action).
pub(super) fn action(pattern: &str, action: &str) -> bool {
    let (p, a) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    glob(p.as_bytes(), a.as_bytes(), |_, _| true)
}

/// Does a resource pattern cover an ARN? Case counts. In the first five fields of an ARN a wildcard stays within its
/// field unless it is a `*` at the field's end (IAM User Guide, element Resource, "Specifying wildcards in ARNs").
pub(super) fn resource(pattern: &str, arn: &str) -> bool {
    let p = pattern.as_bytes();
    glob(p, arn.as_bytes(), |at, byte| {
        if byte != b':' {
            return true;
        }
        let in_last_field = p[..at].iter().filter(|b| **b == b':').count() >= 5;
        in_last_field || (p[at] == b'*' && matches!(p.get(at + 1), None | Some(b':')))
    })
}

/// Greedy matching with one point of return: time is at most the product of both lengths. `may(at, byte)` says whether
/// the wildcard at `p[at]` may stand for `byte`. A `?` stands for one character, not one byte.
fn glob(p: &[u8], s: &[u8], may: impl Fn(usize, u8) -> bool) -> bool {
    let (mut i, mut j) = (0, 0);
    // Every star passed so far with the place it has matched up to, innermost last. A star that may not go on is left
    // for the one before it.
    let mut stars: Vec<(usize, usize)> = Vec::new();
    loop {
        if i < p.len() && p[i] == b'*' {
            // Stars of equal rights: only the last can matter. A restricted star keeps the earlier ones.
            if may(i, b':') {
                stars.clear();
            }
            stars.push((i, j));
            i += 1;
            continue;
        }
        if i == p.len() && j == s.len() {
            return true;
        }
        if i < p.len() && j < s.len() {
            if p[i] == b'?' && may(i, s[j]) {
                j += char_len(s, j);
                i += 1;
                continue;
            }
            if p[i] != b'?' && p[i] == s[j] {
                i += 1;
                j += 1;
                continue;
            }
        }
        loop {
            let Some((star, upto)) = stars.pop() else { return false };
            if upto < s.len() && may(star, s[upto]) {
                stars.push((star, upto + 1));
                i = star + 1;
                j = upto + 1;
                break;
            }
        }
    }
}

fn char_len(s: &[u8], at: usize) -> usize {
    1 + s[at + 1..].iter().take_while(|b| **b & 0xC0 == 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_ignore_case() {
        assert!(action("S3:getobject", "s3:GetObject"));
        assert!(action("s3:*Object", "s3:GetObject"));
        assert!(action("*", "sts:GetCallerIdentity"));
        assert!(action("s3:?etObject", "s3:GetObject"));
        assert!(!action("s3:Get", "s3:GetObject"));
        assert!(!action("s3:*Bucket", "s3:GetObject"));
    }

    #[test]
    fn resources_keep_case_and_fields() {
        assert!(resource("*", "arn:aws:s3:::b/k"));
        assert!(resource("arn:aws:s3:::b*", "arn:aws:s3:::b/deep/key"));
        assert!(resource("arn:aws:s3:::b/*.txt", "arn:aws:s3:::b/a:b.txt"));
        assert!(resource("arn:*:s3:::b", "arn:aws:s3:::b"));
        assert!(resource("arn:aws:sqs:*:q", "arn:aws:sqs:eu-west-1:123456789012:q"), "a star at a field's end goes on");
        assert!(!resource("arn:aws:sqs:e*1:q", "arn:aws:sqs:eu-west-1:1:q"), "a star inside a field does not");
        assert!(!resource("arn:aws:s3:::B", "arn:aws:s3:::b"));
        assert!(!resource("arn:aws:s3:::b", "arn:aws:s3:::b/k"));
        assert!(resource("arn:aws:s3:::b/?", "arn:aws:s3:::b/é"), "one character, two bytes");
        assert!(!resource("arn:aws:s3:?::b", "arn:aws:s3::::b"));
    }

    #[test]
    fn a_restricted_star_leaves_the_work_to_an_earlier_one() {
        assert!(resource("arn:*:s*3:::b", "arn:x:s:y:s3:::b"));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let p = format!("arn:aws:s3:::{}b", "a*".repeat(200));
        assert!(!resource(&p, &format!("arn:aws:s3:::{}", "a".repeat(1_024))));
    }
}
