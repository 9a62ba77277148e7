//! `vpclab __load`: the bench's own TCP load. The server speaks the protocols that an `echo` endpoint serves too, so that
//! one client measures every path: echo (RFC 862), discard (RFC 863), character generator (RFC 864).
//!
//! Bounded in time on both sides: a client ends after `--seconds`, a server when its standard input closes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::common::{Done, Failure, print_json};

/// Ports of the three protocols.
pub const ECHO: u16 = 7;
pub const DISCARD: u16 = 9;
pub const CHARGEN: u16 = 19;

/// Bytes of one `write` and `read`: the largest that a TCP superframe carries fits twice.
const BLOCK: usize = 128 * 1024;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(clap::Subcommand)]
enum Role {
    /// Serve all three ports until standard input closes
    Serve { address: std::net::IpAddr },
    /// Measure one connection
    Run {
        #[arg(value_enum)]
        kind: Kind,
        address: std::net::IpAddr,
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// The port, where it is not the protocol's own
        #[arg(long)]
        port: Option<u16>,
    },
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes to the discard port
    Send,
    /// Bytes from the character generator
    Recv,
    /// One byte to the echo port and back, again and again
    Rr,
    /// Connect, one byte to the echo port and back, close, again and again
    Crr,
}

/// What one connection, or one series of them, carried.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    pub bytes: u64,
    pub seconds: f64,
    /// Round trips, for `rr` and `crr`.
    pub trips: u64,
    /// Microseconds of a round trip.
    pub p50_us: f64,
    pub p99_us: f64,
    /// Congestion control of the live flow, as the kernel names it.
    pub congestion: String,
    /// Segments that this namespace sent again meanwhile.
    pub retransmitted: u64,
    /// CPU seconds of this process.
    pub cpu: f64,
}

impl Measured {
    pub fn gbit_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds / 1e9
    }
}

pub fn run(args: Args) -> Done {
    match args.role {
        Role::Serve { address } => serve(address),
        Role::Run { kind, address, seconds, port } => {
            let port = port.unwrap_or(match kind {
                Kind::Send => DISCARD,
                Kind::Recv => CHARGEN,
                Kind::Rr | Kind::Crr => ECHO,
            });
            let measured =
                measure(kind, SocketAddr::new(address, port), Duration::from_secs_f64(seconds.clamp(0.05, 600.0)))?;
            print_json(&measured)
        }
    }
}

fn measure(kind: Kind, to: SocketAddr, time: Duration) -> Result<Measured, Failure> {
    let failed = |e: io::Error| Failure::host(format!("{to}: {e}"));
    let before = retransmitted();
    let mut m = Measured::default();
    let began = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    m.congestion = congestion(&stream);
    match kind {
        Kind::Send => m.bytes = send(&mut stream, began + time).map_err(failed)?,
        Kind::Recv => m.bytes = receive(&mut stream, began + time).map_err(failed)?,
        Kind::Rr => {
            let mut trips = Vec::new();
            while began.elapsed() < time {
                trips.push(trip(&mut stream).map_err(failed)?);
            }
            summarise(&mut m, trips);
        }
        Kind::Crr => {
            let mut trips = Vec::new();
            while began.elapsed() < time {
                let start = Instant::now();
                let mut one = TcpStream::connect_timeout(&to, Duration::from_secs(5)).map_err(failed)?;
                one.set_nodelay(true).map_err(failed)?;
                one.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
                trip(&mut one).map_err(failed)?;
                trips.push(start.elapsed());
            }
            summarise(&mut m, trips);
        }
    }
    m.seconds = began.elapsed().as_secs_f64();
    m.retransmitted = retransmitted().saturating_sub(before);
    m.cpu = cpu_seconds(std::process::id());
    Ok(m)
}

/// Until `end`; counts only when the far side has read all of it and closed, so no byte in a queue is counted early.
fn send(stream: &mut TcpStream, end: Instant) -> io::Result<u64> {
    let block = vec![0x5a; BLOCK];
    let mut sent = 0;
    while Instant::now() < end {
        sent += stream.write(&block)? as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut rest = [0; 64];
    while stream.read(&mut rest)? > 0 {}
    Ok(sent)
}

fn receive(stream: &mut TcpStream, end: Instant) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut got = 0;
    while Instant::now() < end {
        match stream.read(&mut block)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => got += n as u64,
        }
    }
    Ok(got)
}

fn trip(stream: &mut TcpStream) -> io::Result<Duration> {
    let start = Instant::now();
    let mut byte = [1];
    stream.write_all(&byte)?;
    stream.read_exact(&mut byte)?;
    Ok(start.elapsed())
}

fn summarise(m: &mut Measured, mut trips: Vec<Duration>) {
    trips.sort_unstable();
    let at =
        |share: f64| trips.get(((trips.len() as f64 - 1.0) * share) as usize).map_or(0.0, |t| t.as_secs_f64() * 1e6);
    m.p50_us = at(0.5);
    m.p99_us = at(0.99);
    m.trips = trips.len() as u64;
    m.bytes = m.trips * 2;
}

/// One thread per port and connection: what a bench opens is few and long.
fn serve(address: std::net::IpAddr) -> Done {
    for port in [ECHO, DISCARD, CHARGEN] {
        let listener = TcpListener::bind(SocketAddr::new(address, port))
            .map_err(|e| Failure::host(format!("{address}:{port}: {e}")))?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer(port, stream));
            }
        });
    }
    println!("ready");
    let mut nothing = [0; 64];
    while io::stdin().read(&mut nothing).is_ok_and(|n| n > 0) {}
    Ok(0)
}

/// Ends with the connection; how it ended is the client's matter.
fn answer(port: u16, mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut block = vec![0x5a; BLOCK];
    loop {
        let alive = match port {
            CHARGEN => stream.write(&block).is_ok(),
            _ => match stream.read(&mut block) {
                Ok(0) | Err(_) => false,
                Ok(n) if port == ECHO => stream.write_all(&block[..n]).is_ok(),
                Ok(_) => true,
            },
        };
        if !alive {
            return;
        }
    }
}

#[cfg(target_os = "linux")]
fn congestion(stream: &TcpStream) -> String {
    rustix::net::sockopt::tcp_congestion(stream).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn congestion(_: &TcpStream) -> String {
    String::new()
}

/// `Tcp: RetransSegs` of this network namespace (RFC 4022, tcpRetransSegs).
fn retransmitted() -> u64 {
    let text = std::fs::read_to_string("/proc/self/net/snmp").unwrap_or_default();
    let mut rows = text.lines().filter(|l| l.starts_with("Tcp:"));
    let (Some(names), Some(values)) = (rows.next(), rows.next()) else { return 0 };
    let at = names.split_whitespace().position(|n| n == "RetransSegs");
    at.and_then(|at| values.split_whitespace().nth(at)).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// User and system time of a process, from `/proc/PID/stat`, at the kernel's 100 ticks a second.
pub fn cpu_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |at: usize| after_name.split_whitespace().nth(at).and_then(|v| v.parse::<f64>().ok()).unwrap_or(0.0);
    // utime and stime are fields 14 and 15; the name was field 2.
    (ticks(11) + ticks(12)) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_over_loopback_moves_bytes_both_ways() {
        let listeners: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let to: Vec<SocketAddr> = listeners.iter().map(|l| l.local_addr().expect("an address")).collect();
        for (listener, port) in listeners.into_iter().zip([DISCARD, CHARGEN]) {
            std::thread::spawn(move || answer(port, listener.accept().expect("a client").0));
        }
        let sent = measure(Kind::Send, to[0], Duration::from_millis(50)).expect("sent");
        let got = measure(Kind::Recv, to[1], Duration::from_millis(50)).expect("received");
        assert!(sent.bytes > BLOCK as u64 && got.bytes > 0, "{sent:?} {got:?}");
        assert!(!sent.congestion.is_empty());
    }
}
