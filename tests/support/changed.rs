//! A lab to be changed while it runs, and the change.
#![allow(dead_code, reason = "not every test changes all of it")]

use std::io::Write;
use std::process::Stdio;

use super::common::{Lab, Said, vpclab};

/// Two instances that reach each other, one that is left alone, an endpoint that echoes.
pub const LAB: &str = "version: 1
name: x
region: eu-west-1
vpcs:
  app:
    cidr: 10.0.0.0/16
    subnets: { a: { cidr: 10.0.1.0/24, az: a }, b: { cidr: 10.0.2.0/24, az: b } }
    security_groups:
      web: {}
      api: { ingress: [tcp 80 from sg:web, icmp from 10.0.0.0/16] }
      doors: { ingress: [tcp 1-65535 from 10.0.0.0/16] }
    instances:
      web: { subnet: a, ip: 10.0.1.10, security_groups: [web], role: r }
      api: { subnet: b, ip: 10.0.2.10, security_groups: [api], listen: [ { tcp: 80, reply: http } ] }
    endpoints:
      echo: { subnets: { a: 10.0.1.20, b: 10.0.2.20 }, security_groups: [doors] }
      sqs: { subnets: { a: 10.0.1.30, b: 10.0.2.30 }, security_groups: [doors] }
services:
  echo: { ports: [7, 9, 19] }
roles:
  r: { policy: full }
";

pub fn patch(lab: &Lab, text: &str) -> Said {
    patch_with(lab, text, &[])
}

/// `vpclab apply --patch -`.
pub fn patch_with(lab: &Lab, text: &str, more: &[&str]) -> Said {
    let mut command = vpclab();
    command.current_dir(lab.dir.path()).args(["apply", "-l", &lab.name, "--patch", "-"]).args(more);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("vpclab apply");
    child.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("patch written");
    let out = child.wait_with_output().expect("ended");
    Said {
        code: out.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

pub fn get(lab: &Lab, from: &str, url: &str) -> i32 {
    lab.exec(from, &["curl", "-sSk", "-o", "/dev/null", "-m", "1", url]).code
}
