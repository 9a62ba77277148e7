//! `vpclab __probe`: one connection attempt, datagram or echo request from wherever it is run, and what came of it as
//! JSON. `demo` and `test` run it inside instances, where no tool may be taken for granted.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::common::{Done, Failure, print_json};

#[derive(clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    kind: Kind,
    /// Host name or address
    host: String,
    /// Not used by `ping`
    #[arg(default_value_t = 0)]
    port: u16,
    #[arg(long, default_value = "2s", value_parser = super::common::duration)]
    timeout: Duration,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP connection, closed at once
    Tcp,
    /// A TCP connection over which one line goes and an answer is awaited
    Line,
    /// One datagram, and an answer awaited
    Udp,
    /// One ICMP echo request, and its reply awaited
    Ping,
    /// A TCP connection over IPv6, from a temporary address made for it
    Tcp6,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub result: Outcome,
    /// The address that was tried, where a name led to one.
    pub address: Option<String>,
    pub millis: u64,
    /// What came back, or the system's words for the failure.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Connected,
    Answered,
    Refused,
    /// Nothing came back in time.
    Silent,
    /// An ICMP error, or no route.
    Unreachable,
    /// The name has no address.
    NoName,
}

pub fn run(args: Args) -> Done {
    let seen = probe(&args)?;
    let reached = matches!(seen.result, Outcome::Connected | Outcome::Answered);
    print_json(&seen)?;
    Ok(u8::from(!reached))
}

fn probe(args: &Args) -> Result<Seen, Failure> {
    let began = Instant::now();
    let seen = |result, address: Option<SocketAddr>, text: String| Seen {
        result,
        address: address.map(|a| a.ip().to_string()),
        millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        text,
    };
    if args.kind == Kind::Tcp6 {
        give_this_namespace_an_ipv6_route()?;
    }
    let resolved = (args.host.as_str(), args.port).to_socket_addrs();
    let address = match resolved.map(|mut all| all.find(|a| a.is_ipv6() == (args.kind == Kind::Tcp6))) {
        Ok(Some(address)) => address,
        Ok(None) => return Ok(seen(Outcome::NoName, None, "no address of this family".into())),
        Err(e) => return Ok(seen(Outcome::NoName, None, e.to_string())),
    };
    let tried = match args.kind {
        Kind::Tcp | Kind::Tcp6 => {
            TcpStream::connect_timeout(&address, args.timeout).map(|_| (Outcome::Connected, String::new()))
        }
        Kind::Line => line(address, args.timeout),
        Kind::Udp => udp(address, args.timeout),
        Kind::Ping => ping(address.ip(), args.timeout),
    };
    Ok(match tried {
        Ok((result, text)) => seen(result, Some(address), text),
        Err(e) => seen(outcome_of(&e), Some(address), e.to_string()),
    })
}

fn outcome_of(e: &std::io::Error) -> Outcome {
    match e.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Outcome::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Silent,
        _ => Outcome::Unreachable,
    }
}

fn line(address: SocketAddr, timeout: Duration) -> std::io::Result<(Outcome, String)> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"hello\n")?;
    let mut got = [0; 512];
    let n = stream.read(&mut got)?;
    Ok((Outcome::Answered, String::from_utf8_lossy(&got[..n]).trim_end().to_owned()))
}

fn udp(address: SocketAddr, timeout: Duration) -> std::io::Result<(Outcome, String)> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(address)?;
    socket.send(b"hello")?;
    let mut got = [0; 512];
    let n = socket.recv(&mut got)?;
    Ok((Outcome::Answered, String::from_utf8_lossy(&got[..n]).into_owned()))
}

/// One echo request over an ICMP socket (RFC 792): a raw one where this user may, else the kernel's ping socket.
#[cfg(target_os = "linux")]
fn ping(address: IpAddr, timeout: Duration) -> std::io::Result<(Outcome, String)> {
    use rustix::net::{AddressFamily, SocketType, ipproto, sendto, socket, sockopt};
    let fd = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))
        .or_else(|_| socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP)))?;
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(timeout))?;
    // Type 8, code 0, checksum, identifier, sequence 1; the ping socket overwrites identifier and checksum.
    let mut echo = [8, 0, 0, 0, 0x76, 0x6c, 0, 1];
    let sum = echo.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    sendto(&fd, &echo, rustix::net::SendFlags::empty(), &SocketAddr::new(address, 0))?;
    let mut got = [0; 256];
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        let (n, _) = rustix::net::recv(&fd, &mut got[..], rustix::net::RecvFlags::empty())?;
        // A raw socket gives the IP header too, and sees our own request if it loops back.
        let start = if got[0] >> 4 == 4 && n > 20 { usize::from(got[0] & 15) * 4 } else { 0 };
        if got.get(start) == Some(&0) {
            return Ok((Outcome::Answered, "echo reply".into()));
        }
    }
    Err(ErrorKind::TimedOut.into())
}

#[cfg(not(target_os = "linux"))]
fn ping(_: IpAddr, _: Duration) -> std::io::Result<(Outcome, String)> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn give_this_namespace_an_ipv6_route() -> Result<(), Failure> {
    crate::host::netlink::add_ipv6_default("eth0", "2001:db8::10".parse().expect("a literal"))
        .map_err(|e| Failure::host(format!("no temporary IPv6 address: {e}")))
}

#[cfg(not(target_os = "linux"))]
fn give_this_namespace_an_ipv6_route() -> Result<(), Failure> {
    Err(Failure::host("namespaces need Linux"))
}
