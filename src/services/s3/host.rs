//! Which bucket a host name names.

use s3s::S3Result;
use s3s::host::{S3Host, VirtualHost};

use super::error::fail_with;

/// Host names of one region's S3.
#[derive(Debug)]
pub(super) struct Hosts {
    region: String,
}

/// What comes before the service's own name.
#[derive(Debug, PartialEq, Eq)]
enum Named<'a> {
    /// `s3.eu-west-1.amazonaws.com`: the bucket is in the path.
    Service,
    /// `reports.s3.eu-west-1.amazonaws.com`, `reports.bucket.vpce-...`.
    Bucket(&'a str),
    /// Access points, control, websites and their kind: not in this version.
    Other(&'static str),
}

impl Hosts {
    pub(super) fn new(region: &str) -> Hosts {
        Hosts { region: region.to_owned() }
    }

    fn named<'a>(&self, host: &'a str) -> Named<'a> {
        // `bucket.vpce-0123-abcd.s3.eu-west-1.vpce.amazonaws.com`, and with a bucket before it; zonal names alike.
        if host.ends_with(&format!(".s3.{}.vpce.amazonaws.com", self.region)) {
            let labels: Vec<&str> = host.split('.').collect();
            let Some(at) = labels.iter().position(|l| l.starts_with("vpce-")) else { return Named::Service };
            // Length of what stands before the type label, with its dots.
            let before = |type_at: usize| labels[..type_at].iter().map(|l| l.len() + 1).sum::<usize>();
            return match at.checked_sub(1).map(|t| (t, labels[t])) {
                None | Some((0, "bucket")) => Named::Service,
                Some((t, "bucket")) => Named::Bucket(&host[..before(t) - 1]),
                Some((_, "accesspoint")) => Named::Other("access points"),
                Some((_, "control")) => Named::Other("S3 Control"),
                Some(_) => Named::Service,
            };
        }
        let r = &self.region;
        for kind in ["s3-accesspoint", "s3-control"] {
            if host.ends_with(&format!(".{kind}.{r}.amazonaws.com")) || host == format!("{kind}.{r}.amazonaws.com") {
                return Named::Other(if kind == "s3-control" { "S3 Control" } else { "access points" });
            }
        }
        if host.split('.').skip(1).any(|label| label.starts_with("s3-website")) {
            return Named::Other("websites");
        }
        if host.ends_with("s3-accelerate.amazonaws.com") || host.ends_with("s3-accelerate.dualstack.amazonaws.com") {
            return Named::Other("transfer acceleration");
        }
        if host.contains(".s3express-") || host.starts_with("s3express-control.") {
            return Named::Other("directory buckets");
        }
        let bases = [
            format!("s3.{r}.amazonaws.com"),
            format!("s3.dualstack.{r}.amazonaws.com"),
            format!("s3-{r}.amazonaws.com"),
            format!("s3-fips.{r}.amazonaws.com"),
            format!("s3-fips.dualstack.{r}.amazonaws.com"),
            "s3-external-1.amazonaws.com".to_owned(),
            "s3.amazonaws.com".to_owned(),
        ];
        for base in bases {
            if let Some(before) = host.strip_suffix(base.as_str()) {
                if before.is_empty() {
                    return Named::Service;
                }
                if let Some(bucket) = before.strip_suffix('.') {
                    return Named::Bucket(bucket);
                }
            }
        }
        // Another name of ours (a test's, an alias in a private zone): the bucket is in the path.
        Named::Service
    }
}

/// The bucket that a `Host` header names; `None`: the path does.
pub(in crate::services) fn bucket_of(region: &str, host: &str) -> Option<String> {
    let hosts = Hosts::new(region);
    hosts.parse_host_header(host).ok()?.bucket().map(str::to_owned)
}

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let lower = name.to_ascii_lowercase();
        let virtual_host = VirtualHost::new(name).with_region(self.region.as_str());
        match self.named(lower.trim_end_matches('.')) {
            Named::Service => Ok(virtual_host),
            Named::Bucket(bucket) => Ok(virtual_host.with_bucket(bucket.to_owned())),
            Named::Other(what) => Err(fail_with("NotImplemented", format!("{what}: not in this version"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_region() {
        let hosts = Hosts::new("eu-west-1");
        let v = "vpce-0a-1b.s3.eu-west-1.vpce.amazonaws.com";
        for (host, expected) in [
            ("s3.eu-west-1.amazonaws.com", Named::Service),
            ("reports.s3.eu-west-1.amazonaws.com", Named::Bucket("reports")),
            ("a.b.s3.eu-west-1.amazonaws.com", Named::Bucket("a.b")),
            ("reports.s3.dualstack.eu-west-1.amazonaws.com", Named::Bucket("reports")),
            ("reports.s3.amazonaws.com", Named::Bucket("reports")),
            (&format!("bucket.{v}"), Named::Service),
            (v, Named::Service),
            (&format!("reports.bucket.{v}"), Named::Bucket("reports")),
            (&format!("a.b.bucket.{v}"), Named::Bucket("a.b")),
            ("x.bucket.vpce-0a-1b-eu-west-1a.s3.eu-west-1.vpce.amazonaws.com", Named::Bucket("x")),
            (&format!("ap-1.accesspoint.{v}"), Named::Other("access points")),
            (&format!("1.control.{v}"), Named::Other("S3 Control")),
            ("ap-1.s3-accesspoint.eu-west-1.amazonaws.com", Named::Other("access points")),
            ("reports.s3-fips.eu-west-1.amazonaws.com", Named::Bucket("reports")),
            ("reports.s3-website-eu-west-1.amazonaws.com", Named::Other("websites")),
            ("reports.s3-website.eu-west-1.amazonaws.com", Named::Other("websites")),
            ("reports.s3-accelerate.amazonaws.com", Named::Other("transfer acceleration")),
            ("b--x-s3.s3express-euw1-az1.eu-west-1.amazonaws.com", Named::Other("directory buckets")),
            ("my-s3-website.s3.eu-west-1.amazonaws.com", Named::Bucket("my-s3-website")),
            ("localhost", Named::Service),
        ] {
            assert_eq!(hosts.named(host), expected, "{host}");
        }
        let parsed = hosts.parse_host_header("Reports.s3.eu-west-1.amazonaws.com:443").unwrap();
        assert_eq!((parsed.bucket(), parsed.region()), (Some("reports"), Some("eu-west-1")));
    }
}
