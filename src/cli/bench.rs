//! `vpclab bench`: what this machine carries through a VPC, beside what its kernel carries through veth, ip_forward and
//! nftables with the same rules, interleaved in one run.
//!
//! A figure is a ratio with its interval, never a lone number. Both sides use the congestion control that was set by the
//! route metric; a live flow must show it, else there is no figure.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde::Serialize;

use super::common::{Done, Failure, Format, FormatArg, print_json, table, wait_for_line};
use super::load::{Measured, cpu_seconds};
use crate::control::api::Ps;

const TOPOLOGY: &str = include_str!("../../topologies/bench.yaml");
const BASELINE: &str = include_str!("../../netns-scripts/kernel-baseline");
const CONGESTION: &str = "cubic";

const B: Ipv4Addr = Ipv4Addr::new(10, 99, 2, 10);
const ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 99, 2, 20);
/// The kernel baseline's router, where HAProxy listens.
const HAPROXY: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 1);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    format: FormatArg,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 1.0, env = "VPCLAB_DURATION")]
    duration: f64,
    /// Rounds; every path is measured once in each
    #[arg(long, default_value_t = 5, env = "VPCLAB_RUNS", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
struct Row {
    path: String,
    /// `Gbit/s`, or `trips/s`.
    unit: &'static str,
    /// Medians over the rounds.
    value: f64,
    baseline: Option<f64>,
    baseline_path: &'static str,
    /// Median of the rounds' ratios and its 95 % bootstrap interval.
    ratio: Option<[f64; 3]>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    retransmitted: u64,
    /// CPU seconds of the router process per second of measurement.
    router_cpu: f64,
    congestion: String,
}

pub fn run(args: Args) -> Done {
    let mut bench = Bench::begin()?;
    let measured = bench.measure(&args);
    bench.end();
    let rows = measured?;
    if args.format.format == Format::Json {
        return print_json(&rows);
    }
    print!("{}", render(&rows));
    println!("{} rounds of {} s each, all paths in every round; {}", args.runs, args.duration, machine());
    Ok(0)
}

/// What is measured: its name, the load's kind and target, and which path is its denominator.
struct Path {
    name: &'static str,
    place: Place,
    kind: &'static str,
    to: Ipv4Addr,
    beside: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Lab,
    Kernel,
    Haproxy,
}

const PATHS: &[Path] = &[
    Path { name: "kernel a->b", place: Place::Kernel, kind: "send", to: B, beside: None },
    Path { name: "instance a->b", place: Place::Lab, kind: "send", to: B, beside: Some("kernel a->b") },
    Path { name: "kernel b->a", place: Place::Kernel, kind: "recv", to: B, beside: None },
    Path { name: "instance b->a", place: Place::Lab, kind: "recv", to: B, beside: Some("kernel b->a") },
    Path { name: "haproxy up", place: Place::Haproxy, kind: "send", to: HAPROXY, beside: None },
    Path { name: "endpoint up", place: Place::Lab, kind: "send", to: ENDPOINT, beside: Some("haproxy up") },
    Path { name: "haproxy down", place: Place::Haproxy, kind: "recv", to: HAPROXY, beside: None },
    Path { name: "endpoint down", place: Place::Lab, kind: "recv", to: ENDPOINT, beside: Some("haproxy down") },
    Path { name: "kernel rr", place: Place::Kernel, kind: "rr", to: B, beside: None },
    Path { name: "instance rr", place: Place::Lab, kind: "rr", to: B, beside: Some("kernel rr") },
    Path { name: "endpoint rr", place: Place::Lab, kind: "rr", to: ENDPOINT, beside: Some("kernel rr") },
    Path { name: "kernel crr", place: Place::Kernel, kind: "crr", to: B, beside: None },
    Path { name: "instance crr", place: Place::Lab, kind: "crr", to: B, beside: Some("kernel crr") },
];

struct Bench {
    exe: PathBuf,
    lab: String,
    dir: PathBuf,
    /// Ended by closing their standard input, or by a signal for the attached lab.
    servers: Vec<Child>,
    up: Option<Child>,
    haproxy: bool,
    router_pid: u32,
}

impl Bench {
    fn begin() -> Result<Bench, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::host("bench makes its kernel baseline with `ip netns`: run it as root"));
        }
        let exe = std::env::current_exe()?;
        let lab = format!("bench{}", std::process::id());
        let dir = std::env::temp_dir().join(format!("vpclab-{lab}"));
        std::fs::create_dir_all(&dir)?;
        let mut bench = Bench { exe, lab, dir, servers: Vec::new(), up: None, haproxy: false, router_pid: 0 };
        if let Err(failure) = bench.build() {
            bench.end();
            return Err(failure);
        }
        Ok(bench)
    }

    fn build(&mut self) -> Result<(), Failure> {
        std::fs::write(self.dir.join("bench.vpclab.yaml"), TOPOLOGY)?;
        std::fs::write(self.dir.join("kernel-baseline"), BASELINE)?;
        self.baseline("up")?;
        self.haproxy = Command::new("haproxy").arg("-v").output().is_ok_and(|o| o.status.success());
        if self.haproxy {
            self.baseline("haproxy")?;
        }
        let mut up = Command::new(&self.exe)
            .current_dir(&self.dir)
            .args(["up", "--attach", "--name", &self.lab, "bench.vpclab.yaml"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let ready = wait_for_line(&mut up);
        self.up = Some(up);
        if !ready {
            return Err(Failure::host("the bench's lab did not come up"));
        }
        for place in [Place::Lab, Place::Kernel] {
            let mut server = self
                .at(place, "b")
                .args(["__load", "serve", "0.0.0.0"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let ready = wait_for_line(&mut server);
            self.servers.push(server);
            if !ready {
                return Err(Failure::host("a load server did not start"));
            }
        }
        let said = Command::new(&self.exe).args(["ps", "-l", &self.lab, "-f", "json"]).output()?;
        let ps: Ps = serde_json::from_slice(&said.stdout).map_err(|e| Failure::host(format!("ps: {e}")))?;
        self.router_pid = ps.router_pid;
        Ok(())
    }

    /// A command of ours in a place's namespace `a` or `b`.
    fn at(&self, place: Place, end: &str) -> Command {
        match place {
            Place::Lab => {
                let mut c = Command::new(&self.exe);
                c.current_dir(&self.dir).args(["exec", "-l", &self.lab, end, "--"]).arg(&self.exe);
                c
            }
            Place::Kernel | Place::Haproxy => {
                let mut c = Command::new("ip");
                c.args(["netns", "exec", &format!("{}-{end}", self.lab)]).arg(&self.exe);
                c
            }
        }
    }

    fn baseline(&self, verb: &str) -> Result<(), Failure> {
        let said = Command::new("sh")
            .arg(self.dir.join("kernel-baseline"))
            .args([verb, &self.lab])
            .env("TMPDIR", &self.dir)
            .output()?;
        if said.status.success() {
            return Ok(());
        }
        Err(Failure::host(format!("kernel baseline: {}", String::from_utf8_lossy(&said.stderr).trim())))
    }

    fn measure(&self, args: &Args) -> Result<Vec<Row>, Failure> {
        let paths: Vec<&Path> = PATHS.iter().filter(|p| p.place != Place::Haproxy || self.haproxy).collect();
        let mut values: Vec<Vec<f64>> = vec![Vec::new(); paths.len()];
        let mut rows: Vec<Row> = paths.iter().map(|p| Row::of(p)).collect();
        for round in 0..args.runs {
            for (at, path) in paths.iter().enumerate() {
                eprint!("\rround {} of {}: {:14}", round + 1, args.runs, path.name);
                let cpu = cpu_seconds(self.router_pid);
                let m = self.one(path, args.duration)?;
                rows[at].take(
                    &m,
                    if path.place == Place::Lab { cpu_seconds(self.router_pid) - cpu } else { 0.0 },
                    args.runs,
                );
                values[at].push(if rows[at].unit == "Gbit/s" {
                    m.gbit_per_second()
                } else {
                    m.trips as f64 / m.seconds
                });
            }
        }
        eprintln!("\r{:40}\r", "");
        for (at, path) in paths.iter().enumerate() {
            rows[at].value = median(&values[at]);
            let beside = path.beside.and_then(|name| paths.iter().position(|p| p.name == name));
            if let Some(other) = beside {
                rows[at].baseline = Some(median(&values[other]));
                let ratios: Vec<f64> = values[at].iter().zip(&values[other]).map(|(a, b)| a / b).collect();
                rows[at].ratio = Some(with_interval(&ratios));
            }
        }
        Ok(rows)
    }

    fn one(&self, path: &Path, seconds: f64) -> Result<Measured, Failure> {
        let said = self
            .at(path.place, "a")
            .args(["__load", "run", path.kind, &path.to.to_string(), "--seconds", &seconds.to_string()])
            .stdin(Stdio::null())
            .output()?;
        let m: Measured = serde_json::from_slice(&said.stdout)
            .map_err(|_| Failure::host(format!("{}: {}", path.name, String::from_utf8_lossy(&said.stderr).trim())))?;
        if m.congestion != CONGESTION {
            return Err(Failure::host(format!(
                "{}: the flow ran under {}, not {CONGESTION}; a ratio of different congestion controls says nothing",
                path.name, m.congestion
            )));
        }
        Ok(m)
    }

    fn end(&mut self) {
        for mut server in self.servers.drain(..) {
            drop(server.stdin.take());
            let _ = server.wait();
        }
        if let Some(mut up) = self.up.take() {
            let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&up), rustix::process::Signal::TERM);
            let _ = up.wait();
        }
        if let Err(failure) = self.baseline("down") {
            failure.print();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Row {
    fn of(path: &Path) -> Row {
        Row {
            path: path.name.to_owned(),
            unit: if matches!(path.kind, "send" | "recv") { "Gbit/s" } else { "trips/s" },
            value: 0.0,
            baseline: None,
            baseline_path: path.beside.unwrap_or(""),
            ratio: None,
            p50_us: None,
            p99_us: None,
            retransmitted: 0,
            router_cpu: 0.0,
            congestion: String::new(),
        }
    }

    fn take(&mut self, m: &Measured, router_cpu: f64, runs: u32) {
        if m.trips > 0 {
            self.p50_us = Some(self.p50_us.unwrap_or(0.0) + m.p50_us / f64::from(runs));
            self.p99_us = Some(self.p99_us.unwrap_or(0.0) + m.p99_us / f64::from(runs));
        }
        self.retransmitted += m.retransmitted;
        self.router_cpu += router_cpu / m.seconds / f64::from(runs);
        self.congestion.clone_from(&m.congestion);
    }
}

fn render(rows: &[Row]) -> String {
    let shown: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            vec![
                r.path.clone(),
                format!("{:.*}", if r.unit == "Gbit/s" { 1 } else { 0 }, r.value),
                r.unit.to_owned(),
                r.ratio.map_or_else(String::new, |[low, mid, high]| {
                    format!("{mid:.2} [{low:.2}, {high:.2}] of {}", r.baseline_path)
                }),
                r.p50_us.map_or_else(String::new, |us| format!("{us:.0}")),
                r.p99_us.map_or_else(String::new, |us| format!("{us:.0}")),
                r.retransmitted.to_string(),
                if r.router_cpu > 0.0 { format!("{:.2}", r.router_cpu) } else { String::new() },
                r.congestion.clone(),
            ]
        })
        .collect();
    table(&["path", "median", "unit", "ratio [95 %]", "p50 us", "p99 us", "retr", "router cpu", "cc"], &shown)
}

fn machine() -> String {
    let uname = rustix::system::uname();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("Linux {}, {cores} cores, MTU 9001", uname.release().to_string_lossy())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Low end, median, high end: the 95 % percentile bootstrap of the median, from a fixed seed so that one set of
/// measurements gives one interval.
fn with_interval(values: &[f64]) -> [f64; 3] {
    const RESAMPLES: usize = 2_000;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sample: Vec<f64> = (0..values.len())
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    values[(state >> 33) as usize % values.len()]
                })
                .collect();
            median(&sample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    [medians[RESAMPLES / 40], median(values), medians[RESAMPLES - 1 - RESAMPLES / 40]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_median_and_is_wide_for_wide_values() {
        let [low, mid, high] = with_interval(&[0.8, 0.9, 1.0, 1.1, 1.2]);
        assert!(low <= mid && mid <= high && (mid - 1.0).abs() < 1e-9, "{low} {mid} {high}");
        let [l, _, h] = with_interval(&[1.0; 5]);
        assert!((h - l).abs() < 1e-9);
        assert!(high - low > 0.1);
    }

    #[test]
    fn every_ratio_has_its_denominator_in_the_set() {
        for path in PATHS {
            if let Some(beside) = path.beside {
                assert!(PATHS.iter().any(|p| p.name == beside && p.kind == path.kind), "{beside}");
            }
        }
    }
}
