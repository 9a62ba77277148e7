//! Does a site on premises use S3 as sites do: over Direct Connect and an interface endpoint, a gigabyte by `aws s3 sync`,
//! and not over the gateway endpoint? `VPCLAB_SYNC_MB` is the size in MiB.
#![cfg(target_os = "linux")]

mod common;

use std::path::Path;
use std::time::Instant;

use common::{Lab, Said, topology};
use serde_json::Value;

const FILES: u64 = 8;

#[test]
fn a_site_syncs_much_over_direct_connect_and_the_interface_endpoint_only() {
    let mb: u64 = std::env::var("VPCLAB_SYNC_MB").map_or(1_024, |text| text.parse().expect("a number of MiB"));
    let lab = Lab::up(&hybrid());
    let keys = keys(&lab);
    let aws = common::aws2();
    let s3 = |args: &[&str]| -> Said {
        let mut command = common::vpclab();
        command.current_dir(lab.dir.path()).args(["exec", "-l", &lab.name]);
        for key in &keys {
            command.args(["--env", key]);
        }
        common::run(command.args(["dc1", "--", &aws, "s3"]).args(args))
    };
    let endpoint = lab.vpclab("names", &["s3"]).ok();
    let url = format!("https://bucket.{}", endpoint.lines().next().expect("a name"));

    let up = lab.dir.path().join("up");
    std::fs::create_dir(&up).expect("folder");
    let fill = format!(
        "for n in $(seq {FILES}); do head -c {} /dev/urandom >up/$n; touch -d '1 minute ago' up/$n; done",
        (mb << 20) / FILES
    );
    common::run(std::process::Command::new("sh").current_dir(lab.dir.path()).args(["-c", &fill])).ok();
    let bytes = (mb << 20) / FILES * FILES;

    let begun = Instant::now();
    s3(&["sync", "--quiet", "--endpoint-url", &url, "up", "s3://lab/data"]).ok();
    let sent = begun.elapsed();
    let after_up = counted(&lab);
    assert!(after_up.into_endpoint > bytes && after_up.into_endpoint < bytes / 10 * 12, "{after_up:?}");
    assert!(after_up.out_of_endpoint < bytes / 10 + (10 << 20), "{after_up:?}");

    let begun = Instant::now();
    s3(&["sync", "--quiet", "--endpoint-url", &url, "s3://lab/data", "down"]).ok();
    let taken = begun.elapsed();
    let after_down = counted(&lab);
    let came = after_down.out_of_endpoint - after_up.out_of_endpoint;
    assert!(came > bytes && came < bytes / 10 * 12 + (10 << 20), "{after_down:?}");
    println!("{mb} MiB: {:.1} s up, {:.1} s down", sent.as_secs_f64(), taken.as_secs_f64());
    assert_eq!(sums(&lab, "up"), sums(&lab, "down"));
    assert_eq!(sums(&lab, "up").lines().count() as u64, FILES);
    // Nothing to do any more, and nothing is done.
    assert_eq!(s3(&["sync", "--endpoint-url", &url, "up", "s3://lab/data"]).ok(), "");

    // By the interface endpoint, all of it: from the site to the endpoint's address, nothing by the door.
    assert_eq!((after_down.door, after_down.internet), (0, 0), "{after_down:?}");
    assert!(after_down.private > 2 * bytes, "{after_down:?}");

    // The same by the names of S3 itself, whose addresses the site's router sends over Direct Connect too.
    let said = s3(&["sync", "--only-show-errors", "--cli-connect-timeout", "1", "up", "s3://lab/again"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains("Connect timeout on endpoint URL: \"https://lab.s3.us-east-1.amazonaws.com/"),
        "{}",
        said.err
    );
    let drops: Value = json(&lab, "drops", &["--from", "dc1"]);
    let drops = drops.as_array().expect("rows");
    assert!(!drops.is_empty());
    for row in drops {
        let judged = (row["code"].as_str(), row["object"].as_str(), row["to"].as_str());
        assert_eq!((judged.0, judged.1), (Some("GWE_NOT_IN_VPC"), Some("gateway-endpoint:vpc.door")), "{row}");
    }
    let why = lab.vpclab("explain", &["dc1", "https://lab.s3.us-east-1.amazonaws.com"]);
    assert!(why.code == 1 && why.out.contains("GWE_NOT_IN_VPC"), "{why:?}");
    let curl = ["curl", "-sS", "--connect-timeout", "1", "https://lab.s3.us-east-1.amazonaws.com/x"];
    let said = lab.exec("dc1", &curl);
    assert!(said.code == 28 && said.err.contains("GWE_NOT_IN_VPC"), "{said:?}");
    // From its own VPC the same door is open.
    assert_eq!(lab.exec("app-a", &[&aws, "s3", "ls", "s3://lab/again/"]).code, 1, "nothing came by the door");
    lab.down();
}

/// t-hyb with Direct Connect instead of the VPN, both kinds of endpoints for S3, and S3's addresses routed to the VPC.
fn hybrid() -> String {
    let yaml = topology("t-hyb.yaml");
    let yaml = &yaml[..yaml.find("\nchecks:").expect("checks")];
    let replaced = [
        (
            "    vpn: { to: \"vgw:vpc\" }\n",
            "    direct_connect: { to: \"vgw:vpc\", vif: private, mtu: 9001 }\n    routes:\n      \
             - { to: 10.0.0.0/16, via: direct_connect }\n      - { to: 198.18.0.0/15, via: direct_connect }\n",
        ),
        (
            "      sts: {",
            "      s3: { subnets: { vpce-a: 10.0.101.30, vpce-b: 10.0.102.30 }, security_groups: [vpce], private_dns: false }\n      \
             door: { service: s3, type: gateway, route_tables: [private] }\n      sts: {",
        ),
    ];
    replaced.into_iter().fold(yaml.to_owned(), |yaml, (from, to)| {
        assert!(yaml.contains(from), "{from}");
        yaml.replacen(from, to, 1)
    })
}

/// A role's keys, as variables: what is on premises has no metadata service, and is given some.
fn keys(lab: &Lab) -> Vec<String> {
    let ask = "
t=$(curl -sS -m 3 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
curl -sS -m 3 -H \"X-aws-ec2-metadata-token: $t\" http://169.254.169.254/latest/meta-data/iam/security-credentials/app-role";
    let said: Value = serde_json::from_str(&lab.sh("app-a", ask).ok()).expect("keys");
    [("AWS_ACCESS_KEY_ID", "AccessKeyId"), ("AWS_SECRET_ACCESS_KEY", "SecretAccessKey"), ("AWS_SESSION_TOKEN", "Token")]
        .map(|(name, key)| format!("{name}={}", said[key].as_str().expect("a key")))
        .into_iter()
        .chain(["AWS_MAX_ATTEMPTS=1".to_owned()])
        .collect()
}

/// Bytes, as the lab counted them.
#[derive(Debug)]
struct Counted {
    into_endpoint: u64,
    out_of_endpoint: u64,
    door: u64,
    /// Of the site's host, by way.
    private: u64,
    internet: u64,
}

fn counted(lab: &Lab) -> Counted {
    let ps = json(lab, "ps", &[]);
    let row = |list: &str, path: &str| {
        let rows = ps[list].as_array().expect("rows");
        rows.iter().find(|row| row["path"] == path).cloned().unwrap_or_else(|| panic!("no {path} in {ps}"))
    };
    let enis = row("endpoints", "vpc.s3");
    let sum = |key: &str| {
        let enis = enis["enis"].as_array().expect("interfaces");
        enis.iter().map(|eni| eni["counters"][key].as_u64().expect("bytes")).sum()
    };
    let ways = row("instances", "dc.dc1")["ways"].as_array().expect("ways").clone();
    let way = |name: &str| ways.iter().find(|row| row[0] == name).map_or(0, |row| row[1].as_u64().expect("bytes"));
    Counted {
        into_endpoint: sum("bytes_in"),
        out_of_endpoint: sum("bytes_out"),
        door: row("gateways", "vpc.door")["bytes_in"].as_u64().expect("bytes"),
        private: way("private"),
        internet: way("internet"),
    }
}

/// Names and checksums of a folder's files.
fn sums(lab: &Lab, folder: &str) -> String {
    let sum = |folder: &Path| {
        common::run(std::process::Command::new("sh").current_dir(folder).args(["-c", "sha256sum * | sort"])).ok()
    };
    sum(&lab.dir.path().join(folder))
}

fn json(lab: &Lab, verb: &str, args: &[&str]) -> Value {
    let text = lab.vpclab(verb, &[&["-f", "json"], args].concat()).ok();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}
