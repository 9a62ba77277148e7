//! The environment of a command that runs as an instance.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::ExecInfo;

/// Variables that name a bundle of trusted certificates: aws-cli and SDKs, Python requests, OpenSSL and Go, curl, Node.
pub const CA_VARIABLES: [&str; 5] =
    ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"];
/// Names lab and instance to whoever looks at a process: `LAB/VPC.NAME`.
pub const MARK: &str = "VPCLAB_IN";

/// `--env K` keeps the caller's value, `--env K=V` sets one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    pub name: String,
    pub value: Option<String>,
}

impl Keep {
    /// From the command line's text.
    pub fn parse(text: &str) -> Keep {
        match text.split_once('=') {
            Some((name, value)) => Keep { name: name.to_owned(), value: Some(value.to_owned()) },
            None => Keep { name: text.to_owned(), value: None },
        }
    }
}

/// The caller's variables without what speaks of another network: every `AWS_*`, every proxy, every bundle of
/// certificates. Then the region (aws-cli v1 and boto3 read `AWS_DEFAULT_REGION` alone), the instance's own variables,
/// and what the caller insists on. The bundle's path is added by the helper, which knows it.
pub fn environment(
    caller: impl Iterator<Item = (OsString, OsString)>,
    info: &ExecInfo,
    keep: &[Keep],
) -> BTreeMap<OsString, OsString> {
    let caller: BTreeMap<OsString, OsString> = caller.collect();
    let mut result: BTreeMap<OsString, OsString> = caller
        .iter()
        .filter(|(name, _)| !foreign(&name.to_string_lossy()))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    result.insert("AWS_REGION".into(), (&info.region).into());
    result.insert("AWS_DEFAULT_REGION".into(), (&info.region).into());
    result.insert(MARK.into(), format!("{}/{}", info.lab, info.instance).into());
    result.extend(info.env.iter().map(|(name, value)| (name.into(), value.into())));
    for Keep { name, value } in keep {
        let value = value.as_ref().map(OsString::from).or_else(|| caller.get(&OsString::from(name)).cloned());
        if let Some(value) = value {
            result.insert(name.into(), value);
        }
    }
    result
}

fn foreign(name: &str) -> bool {
    name.starts_with("AWS_") || name.to_ascii_lowercase().ends_with("_proxy") || CA_VARIABLES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(keep: &[&str]) -> BTreeMap<String, String> {
        let caller = [
            ("PATH", "/bin"),
            ("HOME", "/home/u"),
            ("AWS_PROFILE", "prod"),
            ("AWS_ENDPOINT_URL", "http://x"),
            ("AWS_REGION", "us-west-2"),
            ("https_proxy", "http://p"),
            ("NO_PROXY", "*"),
            ("SSL_CERT_FILE", "/x"),
        ];
        let info = ExecInfo {
            lab: "l".into(),
            instance: "v.i".into(),
            region: "eu-west-1".into(),
            env: vec![("A".into(), "1".into())],
            ..ExecInfo::default()
        };
        let keep: Vec<Keep> = keep.iter().map(|text| Keep::parse(text)).collect();
        environment(caller.into_iter().map(|(n, v)| (n.into(), v.into())), &info, &keep)
            .into_iter()
            .map(|(n, v)| (n.into_string().unwrap(), v.into_string().unwrap()))
            .collect()
    }

    #[test]
    fn another_networks_variables_go_and_the_rest_stays() {
        let names: Vec<String> = result(&[]).into_keys().collect();
        assert_eq!(names, ["A", "AWS_DEFAULT_REGION", "AWS_REGION", "HOME", "PATH", "VPCLAB_IN"]);
        assert_eq!(result(&[])["AWS_REGION"], "eu-west-1");
    }

    #[test]
    fn the_caller_may_insist() {
        let kept = result(&["AWS_PROFILE", "https_proxy=http://10.0.1.9:1", "ABSENT", "A=2", "EMPTY="]);
        assert_eq!(kept["AWS_PROFILE"], "prod");
        assert_eq!(kept["https_proxy"], "http://10.0.1.9:1");
        assert_eq!(kept["A"], "2");
        assert_eq!(kept["EMPTY"], "");
        assert!(!kept.contains_key("ABSENT"));
    }
}
