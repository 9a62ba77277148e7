//! `vpclab demo`: the built-in topology comes up, real commands tell what an interface endpoint does, all goes away.
//!
//! Every line of the story is the output of a command that anybody could type; what a command shows is compared with
//! what the story says, and a difference makes the demo fail.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::common::{Done, Failure};
use super::probe::{Outcome, Seen};
use crate::control::api::{DropRow, Ps};

const TOPOLOGY: &str = include_str!("../../topologies/demo.yaml");
const S3: &str = "s3.eu-west-1.amazonaws.com";
const STS: &str = "sts.eu-west-1.amazonaws.com";

#[derive(clap::Args)]
pub struct Args {
    /// Take this client instead of the first of aws, curl that is found
    #[arg(long, value_enum, env = "VPCLAB_CLIENT")]
    client: Option<Client>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// aws-cli, any version
    Aws,
    /// curl with --aws-sigv4
    Curl,
}

pub fn run(args: Args) -> Done {
    let client = choose_client(args.client)?;
    let mut story = Story::begin(client)?;
    let told = story.tell();
    let ended = story.end();
    told.and(ended)?;
    Ok(u8::from(!story.wrong.is_empty()))
}

fn choose_client(wanted: Option<Client>) -> Result<Client, Failure> {
    let has = |tool: &str| output(Command::new(tool).arg("--version")).is_ok_and(|said| said.code == 0);
    match wanted {
        Some(Client::Aws) if !has("aws") => Err(Failure::host("aws is not on PATH")),
        Some(Client::Curl) if !has("curl") => Err(Failure::host("curl is not on PATH")),
        Some(client) => Ok(client),
        None if has("aws") => Ok(Client::Aws),
        None if has("curl") => Ok(Client::Curl),
        None => Err(Failure::host("the demo needs aws-cli or curl: apt-get install curl (or your distribution's way)")),
    }
}

#[cfg(target_os = "linux")]
fn come_up(dir: &Path, lab: &str) -> Result<Up, Failure> {
    use crate::control::store::accept;
    use crate::model::{Around, Source};
    use crate::runtime::launch::{Launch, launch};

    let around = Around { name: Some(lab), ..Around::default() };
    let (accepted, _) = accept(&[Source::new("demo.yaml", TOPOLOGY)], &around, dir)
        .map_err(|report| Failure::input(report.render(false)))?;
    Ok(launch(Launch { accepted, leash: true, own_id: false })?)
}

#[cfg(target_os = "linux")]
fn go_down(up: Up) -> Result<(), Failure> {
    Ok(up.end()?)
}

/// Ctrl-C and SIGTERM leave no folder behind; the lab goes with the process.
#[cfg(target_os = "linux")]
fn remove_at_signal(dir: PathBuf) -> Result<(), Failure> {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::Signal;

    let signals = crate::host::signals::block()?;
    std::thread::spawn(move || {
        loop {
            let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None);
            while let Some(received) = crate::host::signals::read(&signals) {
                if [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT].iter().any(|s| s.as_raw() == received.signal)
                {
                    std::fs::remove_dir_all(&dir).ok();
                    std::process::exit(128 + received.signal);
                }
            }
        }
    });
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn come_up(_: &Path, _: &str) -> Result<Up, Failure> {
    Err(Failure::host("a lab needs Linux"))
}

#[cfg(not(target_os = "linux"))]
fn go_down(up: Up) -> Result<(), Failure> {
    match up {}
}

#[cfg(not(target_os = "linux"))]
fn remove_at_signal(_: PathBuf) -> Result<(), Failure> {
    Ok(())
}

struct Story {
    exe: PathBuf,
    lab: String,
    /// Working folder of the commands.
    dir: PathBuf,
    client: Client,
    /// The lab, until it is ended; it ends with this process whatever that dies of.
    up: Option<Up>,
    step: u32,
    began: Instant,
    /// Where the world differed from the story.
    wrong: Vec<String>,
}

#[cfg(target_os = "linux")]
type Up = crate::runtime::launch::Running;
#[cfg(not(target_os = "linux"))]
type Up = std::convert::Infallible;

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Story {
    fn begin(client: Client) -> Result<Story, Failure> {
        let began = Instant::now();
        let exe = std::env::current_exe()?;
        let lab = format!("demo{}", std::process::id());
        let dir = std::env::temp_dir().join(format!("vpclab-{lab}"));
        std::fs::create_dir_all(&dir)?;
        remove_at_signal(dir.clone())?;
        let version = match client {
            Client::Aws => output(Command::new("aws").arg("--version"))?,
            Client::Curl => output(Command::new("curl").arg("--version"))?,
        };
        let version = version.out.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        println!("VPC app 10.0.0.0/16 in eu-west-1: two zones, a private subnet in each, no Internet gateway, no NAT.");
        println!("Interface endpoints for S3, STS, SQS, SNS and Secrets Manager; web may use them, guest may not.");
        println!("Client: {version}");
        let up = match come_up(&dir, &lab) {
            Ok(up) => up,
            Err(why) => {
                std::fs::remove_dir_all(&dir).ok();
                let message = format!("the lab did not come up: {}", why.message);
                return Err(Failure { message, ..why });
            }
        };
        println!("Up in {} ms.", began.elapsed().as_millis());
        Ok(Story { exe, lab, dir, client, up: Some(up), step: 0, began, wrong: Vec::new() })
    }

    fn tell(&mut self) -> Result<(), Failure> {
        // The refused command waits for its timeout: let it wait while the story goes on.
        let refused = self.start("guest", &self.refused_command())?;
        self.the_name()?;
        self.the_caller()?;
        self.an_object_up_and_down()?;
        self.the_path()?;
        self.the_refusal(refused)?;
        self.what_an_endpoint_drops()?;
        self.the_trap()?;
        self.the_bytes()
    }

    fn the_name(&mut self) -> Result<(), Failure> {
        self.title("The name: which zone answers");
        let said = self.show(&["dns", "web", S3])?;
        self.expect("S3's name has private addresses", said.out.contains("10.0.1.") && said.out.contains("10.0.2."));
        self.expect("the endpoint's private zone answers", said.out.contains("private DNS of endpoint"));
        Ok(())
    }

    fn the_caller(&mut self) -> Result<(), Failure> {
        self.title("The caller: credentials come from the instance's own metadata service");
        let said = match self.client {
            Client::Aws => self.show_exec("web", &words("aws sts get-caller-identity --output json"), None)?,
            Client::Curl => {
                let script = format!(
                    "{CREDENTIALS}{SIGNED} --aws-sigv4 aws:amz:eu-west-1:sts -d 'Action=GetCallerIdentity&Version=2011-06-15' https://{STS}/"
                );
                self.show_exec("web", &sh(&script), Some("curl --aws-sigv4 aws:amz:eu-west-1:sts -d Action=GetCallerIdentity https://sts.eu-west-1.amazonaws.com/"))?
            }
        };
        self.expect("the caller is web's role", said.out.contains(":assumed-role/web-role/i-"));
        Ok(())
    }

    fn an_object_up_and_down(&mut self) -> Result<(), Failure> {
        self.title("An object: 1 MB up, down, and the same");
        let body: Vec<u8> = (0..1_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        std::fs::write(self.dir.join("up.bin"), &body)?;
        match self.client {
            Client::Aws => {
                self.show_exec("web", &words("aws s3 cp --no-progress up.bin s3://reports/up.bin"), None)?;
                self.show_exec("web", &words("aws s3 cp --no-progress s3://reports/up.bin down.bin"), None)?;
            }
            Client::Curl => {
                // curl before 8.x leaves out a header that S3 wants.
                for what in ["-T up.bin", "-o down.bin"] {
                    let rest = format!(
                        "-H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' --aws-sigv4 aws:amz:eu-west-1:s3 {what} https://reports.{S3}/up.bin"
                    );
                    let script = format!("{CREDENTIALS}{SIGNED} --fail {rest}");
                    self.show_exec("web", &sh(&script), Some(&format!("curl {rest}")))?;
                }
            }
        }
        let back = std::fs::read(self.dir.join("down.bin")).unwrap_or_default();
        let same = back == body;
        println!("   {} bytes came back, {}", back.len(), if same { "equal to what went" } else { "NOT what went" });
        self.expect("the object is unchanged", same);
        Ok(())
    }

    fn the_path(&mut self) -> Result<(), Failure> {
        self.title("The path, with the rule that decided at each step");
        let said = self.show(&["explain", "web", &format!("https://{S3}")])?;
        self.expect("the path is open", said.code == 0);
        Ok(())
    }

    fn the_refusal(&mut self, refused: std::process::Child) -> Result<(), Failure> {
        self.title("The refusal: guest asks for the same and hears nothing");
        let asked = refused.wait_with_output()?;
        let text = String::from_utf8_lossy(&asked.stderr).into_owned();
        println!("   $ vpclab exec guest -- {}", self.refused_command().join(" "));
        indent(&text);
        self.expect("guest's command fails", !asked.status.success());
        let said = self.show(&["explain", "guest", &format!("https://{STS}")])?;
        self.expect("explain names the endpoint's security group", said.out.contains("SG_INGRESS"));
        Ok(())
    }

    fn what_an_endpoint_drops(&mut self) -> Result<(), Failure> {
        self.title("What an endpoint drops: UDP, ping, IPv6");
        let ps = self.ps()?;
        let address = ps
            .endpoints
            .iter()
            .find(|e| e.name == "sts")
            .and_then(|e| e.enis.first())
            .map(|eni| eni.ip.to_string())
            .unwrap_or_default();
        // web's security group allows only TCP 443; a group of its own would hide the endpoint's own rule.
        let probes = [
            ("udp", vec!["__probe", "udp", address.as_str(), "443", "--timeout", "300ms"], "VPCE_PROTO"),
            ("ping", vec!["__probe", "ping", address.as_str(), "--timeout", "300ms"], "VPCE_PROTO"),
            ("IPv6 SYN", vec!["__probe", "tcp6", "2001:db8::53", "443", "--timeout", "300ms"], "IPV6"),
        ];
        let exe = self.exe.display().to_string();
        for (what, args, code) in probes {
            let user: &[&str] = if what == "udp" { &[] } else { &["--user", "root"] };
            let command: Vec<String> =
                std::iter::once(exe.clone()).chain(args.iter().map(|a| (*a).to_owned())).collect();
            let said = self.exec("web", user, &command)?;
            let seen: Option<Seen> = serde_json::from_str(&said.out).ok();
            let silent = seen.as_ref().is_some_and(|s| s.result == Outcome::Silent);
            let row = self.drops("web")?.into_iter().rev().find(|row| row.code == code || row.proto == what);
            let said_code = row.as_ref().map_or("no drop recorded", |r| r.code.as_str());
            println!(
                "   web: {what:8} {}   {said_code}",
                if silent { "nothing comes back" } else { "SOMETHING CAME BACK" }
            );
            if !silent {
                indent(&said.err);
            }
            self.expect(&format!("{what} is dropped in silence"), silent);
            self.expect(&format!("{what} is counted under {code}"), said_code == code);
        }
        Ok(())
    }

    fn the_trap(&mut self) -> Result<(), Failure> {
        self.title("A trap: aws-cli v1 asks for SQS under a legacy name that private DNS does not cover");
        let said = self.show(&["explain", "web", "https://eu-west-1.queue.amazonaws.com"])?;
        self.expect("the legacy name leads nowhere", said.code == 1 && said.out.contains("RT_NO_ROUTE"));
        Ok(())
    }

    fn the_bytes(&mut self) -> Result<(), Failure> {
        self.title("The bytes: which way they took");
        let ps = self.ps()?;
        for i in &ps.instances {
            let ways: Vec<String> = i.ways.iter().map(|(way, bytes)| format!("{way} {bytes} bytes")).collect();
            let c = &i.counters;
            println!(
                "   {:24} out {:>9}  in {:>9}  dropped {:>3}   {}",
                i.name,
                c.bytes_out,
                c.bytes_in,
                c.drops,
                ways.join(", ")
            );
        }
        let mut private = 0;
        for e in &ps.endpoints {
            for eni in e.enis.iter().filter(|eni| eni.counters.packets_in > 0) {
                let c = &eni.counters;
                private += c.bytes_in + c.bytes_out;
                println!(
                    "   {:24} in  {:>9}  out {:>8}",
                    format!("{}@{} {}", e.name, eni.az, eni.ip),
                    c.bytes_in,
                    c.bytes_out
                );
            }
        }
        self.expect("two megabytes went through endpoints", private > 2_000_000);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        if let Some(up) = self.up.take() {
            go_down(up)?;
        }
        std::fs::remove_dir_all(&self.dir).ok();
        println!();
        if self.wrong.is_empty() {
            println!("All gone again. {:.1} s.", self.began.elapsed().as_secs_f64());
            println!("Next: vpclab init > lab.vpclab.yaml && vpclab up");
        } else {
            println!("All gone again, but the story was not true: {}", self.wrong.join("; "));
        }
        Ok(())
    }

    fn refused_command(&self) -> Vec<String> {
        match self.client {
            Client::Aws => words("aws sts get-caller-identity --cli-connect-timeout 1"),
            Client::Curl => words(&format!("curl -sS --connect-timeout 1 https://{STS}/")),
        }
    }

    fn title(&mut self, text: &str) {
        self.step += 1;
        println!("\n{}  {text}", self.step);
    }

    fn expect(&mut self, what: &str, holds: bool) {
        if !holds {
            println!("   DIFFERENT: {what}: it is not so");
            self.wrong.push(what.to_owned());
        }
    }

    /// Runs a verb of ours, shows what it was and what it said.
    fn show(&self, args: &[&str]) -> Result<Said, Failure> {
        println!("   $ vpclab {}", args.join(" "));
        let said = output(Command::new(&self.exe).arg(args[0]).args(["-l", &self.lab]).args(&args[1..]))?;
        indent(&said.out);
        indent(&said.err);
        Ok(said)
    }

    fn show_exec(&self, instance: &str, command: &[String], shown: Option<&str>) -> Result<Said, Failure> {
        println!("   $ vpclab exec {instance} -- {}", shown.map_or_else(|| command.join(" "), str::to_owned));
        let said = self.exec(instance, &[], command)?;
        indent(&said.out);
        indent(&said.err);
        Ok(said)
    }

    fn exec(&self, instance: &str, flags: &[&str], command: &[String]) -> Result<Said, Failure> {
        output(self.exec_command(instance, flags, command).stdin(Stdio::null()))
    }

    fn start(&self, instance: &str, command: &[String]) -> Result<std::process::Child, Failure> {
        let mut c = self.exec_command(instance, &[], command);
        Ok(c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("AWS_MAX_ATTEMPTS", "1").spawn()?)
    }

    fn exec_command(&self, instance: &str, flags: &[&str], command: &[String]) -> Command {
        let mut c = Command::new(&self.exe);
        c.current_dir(&self.dir).args(["exec", "-l", &self.lab, "--env", "AWS_MAX_ATTEMPTS=1"]);
        c.args(flags).arg(instance).arg("--").args(command);
        c
    }

    fn ps(&self) -> Result<Ps, Failure> {
        let said = output(Command::new(&self.exe).args(["ps", "-l", &self.lab, "-f", "json"]))?;
        serde_json::from_str(&said.out).map_err(|e| Failure::host(format!("ps: {e}: {}", said.err)))
    }

    fn drops(&self, from: &str) -> Result<Vec<DropRow>, Failure> {
        let said = output(Command::new(&self.exe).args(["drops", "-l", &self.lab, "-f", "json", "--from", from]))?;
        serde_json::from_str(&said.out).map_err(|e| Failure::host(format!("drops: {e}: {}", said.err)))
    }
}

/// Reads the role's credentials from IMDSv2 as a script would.
const CREDENTIALS: &str = r#"I=http://169.254.169.254/latest
T=$(curl -sS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $I/api/token)
R=$(curl -sS -H "X-aws-ec2-metadata-token: $T" $I/meta-data/iam/security-credentials/)
C=$(curl -sS -H "X-aws-ec2-metadata-token: $T" $I/meta-data/iam/security-credentials/$R)
of() { printf '%s' "$C" | tr -d '\n' | sed "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/"; }
"#;

const SIGNED: &str =
    r#"curl -sS --user "$(of AccessKeyId):$(of SecretAccessKey)" -H "x-amz-security-token: $(of Token)""#;

fn words(command: &str) -> Vec<String> {
    command.split_whitespace().map(str::to_owned).collect()
}

fn sh(script: &str) -> Vec<String> {
    vec!["sh".into(), "-c".into(), script.into()]
}

fn output(command: &mut Command) -> Result<Said, Failure> {
    let said = command.output().map_err(|e| Failure::host(format!("{}: {e}", command.get_program().display())))?;
    Ok(Said {
        code: said.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&said.stdout).into_owned(),
        err: String::from_utf8_lossy(&said.stderr).into_owned(),
    })
}

fn indent(text: &str) {
    for line in text.trim_end().lines() {
        println!("   {line}");
    }
}
