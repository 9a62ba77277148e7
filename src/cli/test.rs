//! `vpclab test FILE`: runs the file's checks, says what was expected, what was seen, and the rule that decided.
//!
//! With a lab of that name running, its packets answer; without one, the lab comes up for the checks and goes again.
//! `--static` asks the tables alone. A live check of a destination asks both and fails where they disagree.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::common::{Done, Failure, FileArgs, Format, FormatArg, print_json};
use super::probe::{Outcome, Seen};
use crate::control::api::{ExplainAsk, FlowRow};
use crate::control::checks::{self, CheckResult, Ran, Reached};
use crate::control::rows;
use crate::model::plan::{CheckPlan, CheckWhat, InstanceHome};
use crate::model::{Plan, latency};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub format: FormatArg,
    /// Without a lab: decide by the tables alone
    #[arg(long = "static")]
    pub is_static: bool,
    /// A JUnit report
    #[arg(long, value_name = "FILE", env = "VPCLAB_JUNIT")]
    pub junit: Option<PathBuf>,
    /// The lab, where it runs under another name than the file's
    #[arg(short = 'l', long = "lab", env = "VPCLAB_LAB", value_name = "LAB")]
    pub lab: Option<String>,
}

/// How long a name or a way may take to become what was expected, where the check says nothing.
const PROBE: Duration = Duration::from_secs(2);

pub fn run(args: Args) -> Done {
    let mut files = args.files.clone();
    files.name = files.name.or_else(|| args.lab.clone());
    let (accepted, loaded) = super::topology::read(&files)?;
    let plan = loaded.plan;
    if plan.checks.is_empty() {
        return Err(Failure::input("the topology has no checks; `checks:` lists what must hold"));
    }
    let results = if args.is_static {
        plan.checks.iter().map(|check| timed(|| judge_static(&plan, check))).collect()
    } else {
        judge_live(&plan, accepted)?
    };
    if let Some(path) = &args.junit {
        std::fs::write(path, checks::junit(&plan.name, &results))
            .map_err(|e| Failure::host(format!("{}: {e}", path.display())))?;
    }
    match args.format.format {
        Format::Json => {
            print_json(&results)?;
        }
        Format::Table => {
            if let Some(note) = latency::note(&plan) {
                println!("latency: {note}");
            }
            print!("{}", checks::render(&results));
        }
    }
    Ok(u8::from(results.iter().any(|r| !r.ok)))
}

fn timed(judge: impl FnOnce() -> CheckResult) -> CheckResult {
    let began = Instant::now();
    let mut result = judge();
    result.millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    result
}

/// The first asker whose answer is not as expected, or the last.
fn first_wrong(askers: Vec<usize>, mut judge: impl FnMut(usize) -> CheckResult) -> CheckResult {
    let mut last = None;
    for asker in askers {
        let result = judge(asker);
        if !result.ok {
            return result;
        }
        last = Some(result);
    }
    last.expect("a check has an asker: the model refuses one without instances")
}

fn judge_static(plan: &Plan, check: &CheckPlan) -> CheckResult {
    let askers = checks::askers(plan, check);
    if askers.is_empty() {
        return checks::not_made(check, "there is no instance to ask".into());
    }
    match &check.what {
        CheckWhat::To(to) => first_wrong(askers, |at| match told(plan, at, to) {
            Ok(reached) => checks::judge_reached(check, &reached),
            Err(failure) => checks::not_made(check, failure.message),
        }),
        CheckWhat::Never(way) => first_wrong(askers, |at| never(plan, check, at, way)),
        CheckWhat::Dns(name, rtype) => first_wrong(askers, |at| dns(plan, check, at, name, rtype)),
        CheckWhat::Run(_) => checks::not_asked(check, "a command needs a lab: leave --static out".into()),
    }
}

/// What `explain` says of a destination.
fn told(plan: &Plan, asker: usize, to: &str) -> Result<Reached, Failure> {
    let src = plan.instances[asker].common.path.clone();
    let ask = ExplainAsk { src, dst: to.to_owned(), request: None, unsigned: false, from_port: None };
    let told = super::common::verdict_of_plan(plan, &ask)?;
    let way = told.reachable.then(|| match (&told.kind, &told.object) {
        (Some(kind), Some(object)) => format!("{kind}:{object}"),
        _ => told.way.unwrap_or_default().to_owned(),
    });
    let rule = match (&told.object, &told.rule) {
        (Some(object), Some(rule)) if object.is_empty() => rule.clone(),
        (Some(object), Some(rule)) => format!("{object}: {rule}"),
        (Some(object), None) => object.clone(),
        _ => String::new(),
    };
    let rule = match &told.ports {
        Some(ports) => format!("{rule}, {ports}"),
        None => rule,
    };
    let told_apart = told.ports.is_some() || told.code.as_deref() == Some("WRONG_RECEIVER");
    let passed = told.passed.into_iter().chain(told.way.map(str::to_owned)).collect();
    Ok(Reached { reachable: told.reachable, code: told.code, rule, way, passed, told_apart })
}

/// No way of a kind: no address outside is reached by it. Hosts outside have no such ways to lose.
fn never(plan: &Plan, check: &CheckPlan, asker: usize, way: &str) -> CheckResult {
    let vpc = plan.instances[asker].vpc();
    for address in vpc.map(|_| outside(plan, asker)).unwrap_or_default() {
        match told(plan, asker, &format!("{address}:443")) {
            Ok(reached) if reached.reachable && reached.passed.iter().any(|passed| passed == way) => {
                let name = &plan.instances[asker].common.path;
                return checks::not_made(check, format!("{name} reaches {address} by {}", reached.passed.join(", ")));
            }
            Ok(_) => {}
            Err(failure) => return checks::not_made(check, failure.message),
        }
    }
    let mut result = checks::not_made(check, format!("no way to {way}"));
    result.ok = true;
    result
}

/// Addresses outside that a way could lead to: services of the asker's region and of another, every Internet host, and
/// every public address of others.
fn outside(plan: &Plan, asker: usize) -> Vec<Ipv4Addr> {
    let region = plan.region_of(&plan.instances[asker]);
    let other = if region == "us-east-1" { "eu-west-1" } else { "us-east-1" };
    let services = ["s3", "dynamodb", "sts"];
    let names = [region, other].into_iter().flat_map(|r| services.map(|s| format!("{s}.{r}.amazonaws.com")));
    let public = names.filter_map(|name| plan.public_blocks.addr(&name));
    let hosts = plan.instances.iter().filter(|i| i.home == InstanceHome::Internet);
    let hosts = hosts.filter_map(|i| Some(plan.eni(*i.enis.first()?).ip));
    let own = &plan.instances[asker].enis;
    let others = plan.public_addresses.iter().filter(|public| !own.contains(&public.eni)).map(|public| public.addr);
    public.chain(hosts).chain(others).collect()
}

fn dns(plan: &Plan, check: &CheckPlan, asker: usize, name: &str, rtype: &str) -> CheckResult {
    let zones = crate::dns::compile(plan);
    match rows::dns_answer(&zones, plan.dns_view(plan.instances[asker].vpc()), name, rtype) {
        Ok(answer) => checks::judge_ran(check, &ran_of(&answer.answers, &answer.rcode)),
        Err(message) => checks::not_made(check, message),
    }
}

fn ran_of(answers: &[String], rcode: &str) -> Ran {
    Ran {
        exit: i32::from(answers.is_empty()),
        stdout: if answers.is_empty() { rcode.to_owned() } else { answers.join("\n") },
        addresses: answers.iter().filter_map(|a| a.parse::<Ipv4Addr>().ok()).collect(),
        ..Ran::default()
    }
}

#[cfg(not(target_os = "linux"))]
fn judge_live(_: &Plan, _: crate::control::store::Accepted) -> Result<Vec<CheckResult>, Failure> {
    Err(Failure::input("labs run on Linux only; --static asks the tables"))
}

#[cfg(target_os = "linux")]
fn judge_live(plan: &Plan, accepted: crate::control::store::Accepted) -> Result<Vec<CheckResult>, Failure> {
    use crate::runtime::launch::{Launch, choose, launch};

    let own = match choose(Some(&plan.name)) {
        Ok(_) => None,
        Err(_) => Some(launch(Launch { accepted, leash: true, own_id: false })?),
    };
    let live = Live { plan, exe: std::env::current_exe()? };
    let results = plan.checks.iter().map(|check| timed(|| live.judge(check))).collect();
    if let Some(running) = own {
        running.end()?;
    }
    Ok(results)
}

/// A running lab that answers checks; training labs ask it too. `plan.name` is the lab's name.
#[cfg(target_os = "linux")]
pub(super) struct Live<'a> {
    pub plan: &'a Plan,
    pub exe: PathBuf,
}

#[cfg(target_os = "linux")]
impl Live<'_> {
    pub fn judge(&self, check: &CheckPlan) -> CheckResult {
        let askers = checks::askers(self.plan, check);
        if askers.is_empty() {
            return checks::not_made(check, "there is no instance to ask".into());
        }
        match &check.what {
            CheckWhat::To(to) => first_wrong(askers, |at| self.destination(check, at, to)),
            CheckWhat::Never(way) => first_wrong(askers, |at| never(self.plan, check, at, way)),
            CheckWhat::Dns(name, rtype) => first_wrong(askers, |at| self.dns(check, at, name, rtype)),
            CheckWhat::Run(cmd) => first_wrong(askers, |at| self.command(check, at, cmd)),
        }
    }

    /// A real connection or datagram, and beside it what the tables say: they must agree.
    fn destination(&self, check: &CheckPlan, asker: usize, to: &str) -> CheckResult {
        let table = match told(self.plan, asker, to) {
            Ok(reached) => reached,
            Err(failure) => return checks::not_made(check, failure.message),
        };
        let result = checks::judge_reached(check, &table);
        let Some((kind, host, port)) = probe_of(self.plan, to) else { return result };
        let exe = self.exe.display().to_string();
        let command = [exe.as_str(), "__probe", kind, &host, &port.to_string(), "--timeout", "1s"].map(str::to_owned);
        let said = match self.exec(asker, &command, Some(PROBE * 3), None) {
            Ok(said) => said,
            Err(failure) => return checks::not_made(check, failure.message),
        };
        let Ok(seen) = serde_json::from_slice::<Seen>(&said.stdout) else {
            return checks::not_made(
                check,
                format!("the probe failed: {}", String::from_utf8_lossy(&said.stderr).trim()),
            );
        };
        // A refusal came from the far end, so the packets arrived; a datagram that nobody answers may have arrived too.
        let arrived = matches!(seen.result, Outcome::Connected | Outcome::Answered | Outcome::Refused);
        let agrees =
            arrived == table.reachable || table.told_apart || (kind == "udp" && seen.result == Outcome::Silent);
        if agrees {
            return result;
        }
        let mut wrong = result;
        wrong.ok = false;
        wrong.seen = format!("live {:?}, but the tables say {}", seen.result, wrong.seen).to_lowercase();
        wrong
    }

    fn dns(&self, check: &CheckPlan, asker: usize, name: &str, rtype: &str) -> CheckResult {
        match self.answers(asker, name, rtype) {
            Ok(ran) => checks::judge_ran(check, &ran),
            Err(why) => checks::not_made(check, why),
        }
    }

    /// What the resolver answers to an instance, or why it could not be asked.
    pub fn answers(&self, asker: usize, name: &str, rtype: &str) -> Result<Ran, String> {
        use crate::control::api::{Reply, Request};

        let ask = Request::Dns {
            instance: self.plan.instances[asker].common.path.clone(),
            name: name.to_owned(),
            rtype: rtype.to_owned(),
        };
        match self.ask(ask) {
            Ok(Reply::Dns(answer)) => Ok(ran_of(&answer.answers, &answer.rcode)),
            Ok(_) => Err(Failure::unexpected().message),
            Err(failure) => Err(failure.message),
        }
    }

    /// The command as the user wrote it.
    fn command(&self, check: &CheckPlan, asker: usize, cmd: &str) -> CheckResult {
        match self.ran(asker, cmd, check.within, None) {
            Ok(ran) => checks::judge_ran(check, &ran),
            Err(failure) => checks::not_made(check, failure.message),
        }
    }

    /// What a command gave; the ways are those of flows that began while it ran.
    pub fn ran(&self, asker: usize, cmd: &str, within: Duration, user: Option<&str>) -> Result<Ran, Failure> {
        let before = self.flows(asker);
        let began = Instant::now();
        let command = ["sh", "-c", cmd].map(str::to_owned);
        let said = self.exec(asker, &command, Some(within), user)?;
        let mut ran = Ran {
            exit: said.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&said.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&said.stderr).into_owned(),
            ..Ran::default()
        };
        // A flow that was there before is another command's, even if its last packets pass only now.
        let is = |a: &FlowRow, b: &FlowRow| {
            (&a.src, &a.dst, &a.proto, a.started_ms) == (&b.src, &b.dst, &b.proto, b.started_ms)
        };
        let begun = self.flows(asker).into_iter().filter(|flow| !before.iter().any(|b| is(b, flow)));
        // The target, and the kind of way: `endpoint:s3` and `private`.
        ran.ways = begun.flat_map(|flow| [self.way_of(&flow), flow.way]).collect();
        ran.ways.sort();
        ran.ways.dedup();
        ran.drops = self.drops(asker, began.elapsed() + Duration::from_millis(50));
        Ok(ran)
    }

    fn way_of(&self, flow: &FlowRow) -> String {
        match flow.to.split_once('@') {
            Some((endpoint, _)) => format!("endpoint:{endpoint}"),
            None if flow.way == "gateway-endpoint" => format!("endpoint:{}", flow.to),
            None => format!("instance:{}", flow.to),
        }
    }

    fn flows(&self, asker: usize) -> Vec<FlowRow> {
        use crate::control::api::{Filter, Reply, Request};
        let from = Some(self.plan.eni_label(self.plan.instances[asker].enis[0]));
        match self.ask(Request::Flows(Filter { from, ..Filter::default() })) {
            Ok(Reply::Flows(rows)) => rows,
            _ => Vec::new(),
        }
    }

    fn drops(&self, asker: usize, since: Duration) -> Vec<String> {
        use crate::control::api::{Filter, Reply, Request};
        let filter = Filter {
            from: Some(self.plan.eni_label(self.plan.instances[asker].enis[0])),
            since_ms: u64::try_from(since.as_millis()).ok(),
            ..Filter::default()
        };
        let Ok(Reply::Drops(rows)) = self.ask(Request::Drops(filter)) else { return Vec::new() };
        let mut drops: Vec<String> = rows.iter().map(|r| format!("{} at {}", r.code, r.object)).collect();
        drops.dedup();
        drops
    }

    pub fn ask(&self, request: crate::control::api::Request) -> Result<crate::control::api::Reply, Failure> {
        let lab = super::common::LabArg { lab: Some(self.plan.name.clone()) };
        Ok(super::up::connect(&lab)?.ask(request)?)
    }

    fn exec(
        &self,
        asker: usize,
        command: &[String],
        limit: Option<Duration>,
        user: Option<&str>,
    ) -> Result<std::process::Output, Failure> {
        let mut c = std::process::Command::new(&self.exe);
        c.current_dir(&self.plan.dir).args(["exec", "-l", &self.plan.name]);
        if let Some(limit) = limit {
            c.args(["--timeout", &format!("{}ms", limit.as_millis())]);
        }
        if let Some(user) = user {
            c.args(["--user", user]);
        }
        c.arg(&self.plan.instances[asker].common.path).arg("--").args(command).stdin(std::process::Stdio::null());
        Ok(c.output()?)
    }
}

/// What to try for a destination: kind of probe, host, port. `None` where one packet cannot tell (a port left open).
fn probe_of(plan: &Plan, to: &str) -> Option<(&'static str, String, u16)> {
    use crate::control::explain::{Destination, Target};

    let destination = Destination::parse(plan, to).ok()?;
    let host = match &destination.target {
        Target::Host(name) => name.clone(),
        Target::Address6(_) => return None,
        Target::Address(address) => address.to_string(),
        Target::Endpoint(at) => plan.eni(*plan.endpoints[*at].enis.first()?).ip.to_string(),
        Target::Instance(at) => plan.eni(*plan.instances[*at].enis.first()?).ip.to_string(),
    };
    let kind = match destination.proto {
        crate::base::Proto::TCP => "tcp",
        crate::base::Proto::UDP => "udp",
        crate::base::Proto::ICMP => "ping",
        _ => return None,
    };
    Some((kind, host, destination.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_refuse_what_gets_back_to_a_part_of_the_ports_only() {
        let text = |last: u16| {
            format!(
                r#"
version: 1
name: part
region: us-west-2
vpcs:
  v:
    cidr: 172.20.0.0/16
    subnets:
      web: {{ cidr: 172.20.1.0/24, az: a }}
      db: {{ cidr: 172.20.2.0/24, az: b, nacl: n-db }}
    network_acls:
      n-db: {{ ingress: {{ 100: allow all from 0.0.0.0/0 }}, egress: {{ 100: allow tcp 32768-{last} to 0.0.0.0/0 }} }}
    security_groups: {{ open: {{ ingress: [all from 0.0.0.0/0] }} }}
    instances:
      w: {{ subnet: web, ip: 172.20.1.10, security_groups: [open] }}
      d: {{ subnet: db, ip: 172.20.2.10, security_groups: [open], listen: [{{ tcp: 5432, reply: hello }}] }}
checks: [{{ from: w, to: "172.20.2.10:5432" }}]
"#
            )
        };
        let judged = |last: u16| {
            let source = crate::model::Source::new("part.yaml", text(last));
            let loaded = crate::model::load(&[source], &crate::model::Around::default());
            let plan = loaded.unwrap_or_else(|report| panic!("{}", report.render(false))).plan;
            judge_static(&plan, &plan.checks[0])
        };
        let part = judged(40_000);
        assert_eq!((part.ok, part.seen.as_str()), (false, "NACL_OUT"));
        assert_eq!(part.rule, "v.n-db: * deny: no rule matches, from ports 40001-60999");
        assert!(judged(60_999).ok);
    }
}
