//! The room against an independent reading of the same bytes (etherparse), and against bytes that mean harm.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::make::{self, Echo, TcpSpec};
use super::packet::{IP_OFFSET, Malformed, Packet, tcp_flags, verify_checksums};
use super::{VnetHdr, csum, edit, fragment, gso, nat, show, vnet};
use crate::base::{FiveTuple, Proto};

mod change;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 25);

fn client() -> SocketAddrV4 {
    SocketAddrV4::new(A, 40_000)
}

fn server() -> SocketAddrV4 {
    SocketAddrV4::new(B, 443)
}

/// What etherparse reads in a frame, with both checksums computed anew by it.
struct Oracle {
    ip: etherparse::Ipv4Header,
    tcp: Option<etherparse::TcpHeader>,
    udp: Option<etherparse::UdpHeader>,
    payload: Vec<u8>,
}

fn oracle(frame: &[u8]) -> Oracle {
    let sliced = SlicedPacket::from_ip(&frame[IP_OFFSET..]).expect("etherparse reads it");
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("IPv4") };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum(), "IP checksum");
    let mut read = Oracle { ip: header, tcp: None, udp: None, payload: Vec::new() };
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let header = tcp.to_header();
            let sum = header.calc_checksum_ipv4(&read.ip, tcp.payload()).expect("sum");
            assert_eq!(header.checksum, sum, "TCP checksum");
            read.payload = tcp.payload().to_vec();
            read.tcp = Some(header);
        }
        Some(TransportSlice::Udp(udp)) => {
            let header = udp.to_header();
            let sum = header.calc_checksum_ipv4(&read.ip, udp.payload()).expect("sum");
            assert_eq!(header.checksum, sum, "UDP checksum");
            read.payload = udp.payload().to_vec();
            read.udp = Some(header);
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            let sum = icmp.icmp_type().calc_checksum(icmp.payload());
            assert_eq!(icmp.checksum(), sum, "ICMP checksum");
            read.payload = icmp.payload().to_vec();
        }
        _ => {}
    }
    read
}

fn segments(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let count = gso::segment(frame, |segment| out.push(segment.to_vec())).expect("segments");
    assert_eq!(count as usize, out.len());
    out
}

#[test]
fn frames_made_here_read_the_same_elsewhere() {
    let syn = make::tcp(&TcpSpec { payload: b"early", ..TcpSpec::syn(client(), server()) });
    let read = oracle(&syn);
    let tcp = read.tcp.expect("TCP");
    assert!(tcp.syn && !tcp.ack && read.ip.dont_fragment);
    assert_eq!((read.ip.source, read.ip.destination, read.ip.time_to_live), (A.octets(), B.octets(), 64));
    assert_eq!((tcp.source_port, tcp.destination_port, tcp.sequence_number), (40_000, 443, 1));
    assert_eq!(read.payload, b"early");
    let options: Vec<_> =
        tcp.options_iterator().map_while(Result::ok).filter(|o| *o != etherparse::TcpOptionElement::Noop).collect();
    use etherparse::TcpOptionElement::*;
    assert_eq!(options, [MaximumSegmentSize(1460), WindowScale(7), SelectiveAcknowledgementPermitted]);

    let read = oracle(&make::udp(client(), server(), b"query"));
    assert_eq!(read.payload, b"query");
    assert_eq!(read.udp.map(|u| u.length), Some(13));
    for half in [Echo::Request, Echo::Reply] {
        let echo = make::icmp_echo(A, B, half, 77, 3, b"abcdefg");
        assert_eq!(oracle(&echo).payload, b"abcdefg");
        let packet = Packet::parse(&echo).unwrap();
        assert_eq!(packet.tuple(), FiveTuple { proto: Proto::ICMP, src: A, src_port: 77, dst: B, dst_port: 77 });
        assert_eq!(packet.icmp(), Some((if half == Echo::Request { 8 } else { 0 }, 0)));
    }
    let error = make::icmp_error(B, 3, 4, 1500, &syn).expect("an error");
    assert_eq!(oracle(&error).payload, &syn[IP_OFFSET..]);
    assert_eq!(make::icmp_error(B, 3, 4, 1500, &error), None, "no error about an error");
}

#[test]
fn a_udp_answer_is_written_around_its_payload_in_place() {
    let mut buffer = [0xaa; 200];
    buffer[make::UDP_PAYLOAD_OFFSET..make::UDP_PAYLOAD_OFFSET + 4].copy_from_slice(b"data");
    let len = make::write_udp_into(&mut buffer, server(), client(), 255, 4);
    assert_eq!(len, make::UDP_PAYLOAD_OFFSET + 4);
    let read = oracle(&buffer[..len]);
    assert_eq!((read.payload.as_slice(), read.ip.time_to_live), (&b"data"[..], 255));
    assert_eq!(buffer[len], 0xaa, "nothing behind it is touched");
    assert_eq!(make::write_udp_into(&mut buffer, server(), client(), 64, 163), 0, "does not fit");
    assert_eq!(make::write_udp_into(&mut buffer, server(), client(), 64, usize::MAX), 0);
}

#[test]
fn a_udp_sum_of_zero_is_sent_as_all_ones() {
    // The last word is chosen so that everything sums to 0xffff, of which the complement is 0.
    let plain = make::udp(client(), server(), &[0, 0]);
    let sum = u16::from_be_bytes([plain[36], plain[37]]);
    let zero = make::udp(client(), server(), &sum.to_be_bytes());
    assert_eq!([zero[36], zero[37]], [0xff, 0xff]);
    assert!(verify_checksums(&zero));
    let big: Vec<u8> = [sum.to_be_bytes(), sum.to_be_bytes()].concat();
    let frame = make::udp_superframe(client(), server(), &big, 2);
    for segment in segments(&frame) {
        assert_eq!([segment[36], segment[37]], [0xff, 0xff]);
    }
    assert_eq!(segments(&frame).len(), 2);
}

#[test]
fn resets_answer_as_rfc_9293_says() {
    let syn = make::tcp(&TcpSpec { seq: 100, payload: b"xy", ..TcpSpec::syn(client(), server()) });
    let reset = oracle(&make::rst_for(&syn).expect("a reset"));
    let tcp = reset.tcp.expect("TCP");
    assert!(tcp.rst && tcp.ack);
    assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (0, 103), "SYN and two bytes");
    assert_eq!((tcp.source_port, tcp.destination_port), (443, 40_000));
    let late = TcpSpec { seq: 5, ack: 900, ..TcpSpec::new(client(), server(), tcp_flags::ACK | tcp_flags::FIN) };
    let tcp = oracle(&make::rst_for(&make::tcp(&late)).expect("a reset")).tcp.expect("TCP");
    assert!(tcp.rst && !tcp.ack);
    assert_eq!(tcp.sequence_number, 900);
    assert_eq!(make::rst_for(&make::tcp(&TcpSpec::new(client(), server(), tcp_flags::RST))), None);
    assert_eq!(make::rst_for(&make::udp(client(), server(), b"")), None);
}

#[test]
fn a_superframe_is_counted_as_its_packets() {
    let payload = vec![1; 10_000];
    let frame =
        make::tcp_superframe(&TcpSpec { payload: &payload, ..TcpSpec::new(client(), server(), tcp_flags::ACK) }, 1448);
    let packet = Packet::parse(&frame).unwrap();
    assert_eq!(packet.segments(), 7);
    assert_eq!(packet.max_segment_ip_len(), 1488);
    let parts = segments(&frame);
    assert_eq!(packet.wire_bytes() as usize, parts.iter().map(|p| p.len() - IP_OFFSET).sum::<usize>());
    assert_eq!(parts.iter().map(|p| p.len() - IP_OFFSET).max(), Some(1488));
    assert_eq!(packet.payload_len(), 10_000);
    let small =
        make::tcp_superframe(&TcpSpec { payload: &[1; 9], ..TcpSpec::new(client(), server(), tcp_flags::ACK) }, 1448);
    let packet = Packet::parse(&small).unwrap();
    assert_eq!((packet.segments(), packet.max_segment_ip_len(), packet.wire_bytes()), (1, 49, 49));
}

#[test]
fn flags_that_belong_to_one_end_stay_there() {
    use tcp_flags::*;
    let payload = vec![1; 3_000];
    let spec = TcpSpec {
        payload: &payload,
        seq: u32::MAX - 500,
        ..TcpSpec::new(client(), server(), FIN | PSH | ACK | CWR | ECE)
    };
    let mut frame = make::tcp_superframe(&spec, 1000);
    frame[1] |= vnet::GSO_ECN;
    frame[IP_OFFSET + 4..IP_OFFSET + 6].copy_from_slice(&0xffffu16.to_be_bytes());
    edit::set_ttl(&mut frame, 9);
    // The identification changed under the checksum: what a superframe's own header says is made anew.
    let parts: Vec<Oracle> = segments(&frame).iter().map(|p| oracle(p)).collect();
    let ids: Vec<u16> = parts.iter().map(|p| p.ip.identification).collect();
    assert_eq!(ids, [0xffff, 0, 1]);
    let tcps: Vec<_> = parts.iter().map(|p| p.tcp.clone().unwrap()).collect();
    assert_eq!(tcps.iter().map(|t| t.sequence_number).collect::<Vec<_>>(), [u32::MAX - 500, 499, 1499]);
    assert_eq!(
        tcps.iter().map(|t| (t.fin, t.psh, t.cwr, t.ece)).collect::<Vec<_>>(),
        [(false, false, true, true), (false, false, false, true), (true, true, false, true),]
    );
    assert!(parts.iter().all(|p| p.ip.time_to_live == 9));
}

#[test]
fn malformed_frames_say_why() {
    let good = make::tcp(&TcpSpec { payload: b"x", ..TcpSpec::syn(client(), server()) });
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        Packet::parse(&frame).err()
    };
    let ip = IP_OFFSET;
    assert_eq!(with(&|_| {}), None);
    assert_eq!(with(&|f| f.truncate(9)), Some(Malformed::Short));
    assert_eq!(with(&|f| f.truncate(10)), Some(Malformed::Short));
    assert_eq!(with(&|f| f.truncate(29)), Some(Malformed::Short));
    assert_eq!(with(&|f| f.truncate(f.len() - 1)), Some(Malformed::TotalLength));
    assert_eq!(with(&|f| f[ip] = 0x65), Some(Malformed::Ipv6));
    assert_eq!(with(&|f| f[ip] = 0x55), Some(Malformed::Version));
    assert_eq!(with(&|f| f[ip] = 0x44), Some(Malformed::HeaderLength));
    assert_eq!(with(&|f| f[ip + 3] = 19), Some(Malformed::TotalLength));
    assert_eq!(with(&|f| f[ip + 32] = 0x40), Some(Malformed::Transport));
    assert_eq!(with(&|f| f[ip + 32] = 0xf0), Some(Malformed::Transport));
    assert_eq!(with(&|f| f[ip + 3] = 39), Some(Malformed::Transport));
    assert_eq!(with(&|f| f[1] = vnet::GSO_TCPV4), Some(Malformed::Vnet), "no size, no checksum");
    assert_eq!(with(&|f| f[0] = vnet::NEEDS_CSUM), Some(Malformed::Vnet), "no place of the checksum");
    assert_eq!(with(&|f| f[1] = vnet::GSO_UDP), Some(Malformed::Vnet));
    assert_eq!(with(&|f| f[ip + 6] = 0x20), Some(Malformed::Fragment), "no multiple of 8");
    assert_eq!(
        with(&|f| f[ip + 6..ip + 8].copy_from_slice(&[0x1f, 0xff])),
        Some(Malformed::Fragment),
        "beyond the end"
    );
    // The mutant of UDP: a length that lies.
    let mut udp = make::udp(client(), server(), b"12345");
    udp[ip + 25] = 14;
    assert_eq!(Packet::parse(&udp), Err(Malformed::Transport));
    udp[ip + 25] = 7;
    assert_eq!(Packet::parse(&udp), Err(Malformed::Transport));
    udp[ip + 25] = 10;
    assert_eq!(Packet::parse(&udp).map(|p| p.payload_len()), Ok(2), "a shorter datagram than its packet");
}

#[test]
fn later_fragments_have_no_ports_and_first_ones_do() {
    let mut first = make::udp(client(), server(), &[7; 24]);
    // More fragments follow, and the datagram is longer than this part of it.
    first[IP_OFFSET + 6] = 0x20;
    first[IP_OFFSET + 25] = 200;
    let packet = Packet::parse(&first).unwrap();
    assert!(packet.is_fragment() && packet.more_fragments() && packet.fragment_offset() == 0);
    assert_eq!(packet.tuple(), FiveTuple::udp(A, 40_000, B, 443));
    let mut later = first.clone();
    later[IP_OFFSET + 6..IP_OFFSET + 8].copy_from_slice(&[0, 4]);
    let packet = Packet::parse(&later).unwrap();
    assert_eq!((packet.fragment_offset(), packet.more_fragments()), (32, false));
    assert_eq!(packet.tuple(), FiveTuple::udp(A, 0, B, 0));
    assert_eq!(packet.payload_len(), 32, "all of it is payload");
}

#[test]
fn checksums_count_unless_the_virtio_header_vouches_for_them() {
    let good = make::tcp(&TcpSpec { payload: b"hello", ..TcpSpec::new(client(), server(), tcp_flags::ACK) });
    assert!(verify_checksums(&good));
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    assert!(!verify_checksums(&bad));
    bad[0] = vnet::DATA_VALID;
    assert!(verify_checksums(&bad));
    bad[IP_OFFSET + 8] ^= 1;
    assert!(!verify_checksums(&bad), "the IP header's own sum always counts");

    let mut partial =
        make::tcp_superframe(&TcpSpec { payload: b"hello", ..TcpSpec::new(client(), server(), tcp_flags::ACK) }, 1448);
    partial[1] = vnet::GSO_NONE;
    assert!(verify_checksums(&partial));
    let packet = Packet::parse(&partial).unwrap();
    edit::finish_checksum(&mut partial, &packet);
    assert_eq!(VnetHdr::read(&partial).unwrap().flags, 0);
    assert_eq!(partial[IP_OFFSET..], good[IP_OFFSET..]);

    let mut silent = make::udp(client(), server(), b"hello");
    silent[36..38].fill(0);
    assert!(verify_checksums(&silent), "UDP may have none");
    let mut echo = make::icmp_echo(A, B, Echo::Request, 1, 1, b"x");
    assert!(verify_checksums(&echo));
    echo[IP_OFFSET + 24] ^= 1;
    assert!(!verify_checksums(&echo));
}

#[test]
fn an_mss_is_lowered_wherever_its_option_stands() {
    for shift in [None, Some(7)] {
        for partial in [false, true] {
            let spec = TcpSpec { mss: Some(8961), window_scale: shift, ..TcpSpec::syn(client(), server()) };
            let mut frame = if partial { make::tcp_superframe(&spec, 1448) } else { make::tcp(&spec) };
            frame[1] = 0;
            let packet = Packet::parse(&frame).unwrap();
            assert!(edit::clamp_mss(&mut frame, &packet, 8460));
            assert!(!edit::clamp_mss(&mut frame, &packet, 8460), "fits already");
            assert!(!edit::clamp_mss(&mut frame, &packet, 9000), "never raised");
            edit::finish_checksum(&mut frame, &packet);
            assert_eq!(edit::mss_of(&frame, &packet), Some(8460));
            oracle(&frame);
        }
    }
    // An option at an odd offset: a lone no-op before it. Kinds: nop, mss, end.
    let mut frame = make::tcp(&TcpSpec {
        mss: Some(0),
        window_scale: Some(0),
        sack_permitted: false,
        ..TcpSpec::syn(client(), server())
    });
    frame[50..58].copy_from_slice(&[1, 2, 4, 0x23, 0x01, 0, 0, 0]);
    frame[46..48].fill(0);
    let sum = csum::transport(A, B, Proto::TCP, &frame[30..]);
    frame[46..48].copy_from_slice(&sum.to_be_bytes());
    let packet = Packet::parse(&frame).unwrap();
    assert!(edit::clamp_mss(&mut frame, &packet, 1400));
    assert_eq!(edit::mss_of(&frame, &packet), Some(1400));
    oracle(&frame);
    let mut answer = make::tcp(&TcpSpec { flags: tcp_flags::SYN | tcp_flags::ACK, ..TcpSpec::syn(server(), client()) });
    let packet = Packet::parse(&answer).unwrap();
    assert!(edit::clamp_mss(&mut answer, &packet, 1379), "a SYN-ACK as well");
    oracle(&answer);
    let mut bare = make::tcp(&TcpSpec::new(client(), server(), tcp_flags::SYN));
    let (packet, before) = (Packet::parse(&bare).unwrap(), bare.clone());
    assert!(!edit::clamp_mss(&mut bare, &packet, 100) && bare == before, "none is added");
    let other = make::tcp(&TcpSpec { mss: Some(9000), ..TcpSpec::new(client(), server(), tcp_flags::ACK) });
    assert!(!edit::clamp_mss(&mut other.clone(), &Packet::parse(&other).unwrap(), 100), "no SYN");
}

#[test]
fn lines_tell_what_a_person_asks() {
    let line = |frame: &[u8]| show::line(frame);
    assert_eq!(
        line(&make::tcp(&TcpSpec::syn(client(), server()))),
        "tcp 10.0.1.10:40000 > 10.0.1.25:443 [S] seq 1 win 64240 mss 1460 wscale 7 sackOK len 0"
    );
    let spec =
        TcpSpec { ack: 9, payload: &[0; 3_000], ..TcpSpec::new(client(), server(), tcp_flags::ACK | tcp_flags::PSH) };
    assert_eq!(
        line(&make::tcp_superframe(&spec, 1448)),
        "tcp 10.0.1.10:40000 > 10.0.1.25:443 [P.] seq 1 ack 9 win 64240 len 3000 (3 x 1448)"
    );
    assert_eq!(line(&make::udp(client(), server(), b"abc")), "udp 10.0.1.10:40000 > 10.0.1.25:443 len 3");
    assert_eq!(
        line(&make::icmp_echo(A, B, Echo::Request, 7, 2, b"abc")),
        "icmp 10.0.1.10 > 10.0.1.25 echo request id 7 seq 2 len 3"
    );
    let mut bad = make::udp(client(), server(), b"abc");
    bad[38] ^= 1;
    assert_eq!(line(&bad), "udp 10.0.1.10:40000 > 10.0.1.25:443 len 3 bad checksum");
    assert_eq!(line(&[0; 12]), "malformed, 2 bytes: neither IPv4 nor IPv6");
    assert_eq!(line(&[]), "malformed, 0 bytes: shorter than its headers");
    let mut six = vec![0; 10 + 40];
    six[10] = 0x60;
    six[16] = 17;
    six[49] = 1;
    assert_eq!(line(&six), "ipv6 :: > ::1 next header 17 len 0");
}

/// Frames of every kind made here.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let addr = any::<u32>().prop_map(Ipv4Addr::from_bits);
    let payload = prop::collection::vec(any::<u8>(), 0..5_000);
    (addr.clone(), addr, any::<(u16, u16, u32, u32, u8, u16)>(), payload, 0u8..5, 1u16..3_000).prop_map(
        |(src, dst, (sport, dport, seq, ack, flags, window), payload, kind, gso)| {
            let (from, to) = (SocketAddrV4::new(src, sport), SocketAddrV4::new(dst, dport));
            let spec = TcpSpec {
                seq,
                ack,
                window,
                payload: &payload,
                mss: (flags & 1 != 0).then_some(window),
                window_scale: (flags & 2 != 0).then_some(flags % 15),
                ..TcpSpec::new(from, to, flags)
            };
            match kind {
                0 => make::tcp(&spec),
                1 => make::tcp_superframe(&spec, gso),
                2 => make::udp(from, to, &payload),
                3 => make::udp_superframe(from, to, &payload, gso),
                _ => make::icmp_echo(src, dst, Echo::Request, sport, dport, &payload),
            }
        },
    )
}

/// Everything that takes a frame from outside: none may panic, and what is valid stays valid.
fn use_everything(frame: &[u8]) {
    show::line(frame);
    let parsed = Packet::parse(frame);
    let mut count = 0;
    let segmented = gso::segment(frame, |segment| {
        count += 1;
        assert!(Packet::parse(segment).is_ok());
    });
    assert_eq!(segmented.map(|_| ()), parsed.map(|_| ()));
    make::rst_for(frame);
    make::icmp_error(A, 3, 4, 1500, frame);
    let mut pieces = 0;
    if let Ok(count) = fragment::fragment(frame, 100, |piece| {
        pieces += 1;
        assert!(Packet::parse(piece).is_ok_and(|p| p.total_len() <= 100) && piece[..vnet::LEN] == [0; vnet::LEN]);
    }) {
        assert_eq!(count, pieces);
    }
    verify_checksums(frame);
    let mut changed = frame.to_vec();
    edit::set_ttl(&mut changed, 1);
    if let Ok(packet) = parsed {
        assert_eq!(packet.segments(), count);
        assert!(packet.payload().end <= frame.len() && packet.payload().start <= packet.payload().end);
        edit::clamp_mss(&mut changed, &packet, 500);
        edit::finish_checksum(&mut changed, &packet);
        assert!(Packet::parse(&changed).is_ok());
        let to = nat::Rewrite { src: B, src_port: 7, dst: A, dst_port: 7 };
        nat::ttl(&mut changed, &packet, 1);
        nat::rewrite(&mut changed, &packet, &to);
        let translated = Packet::parse(&changed).expect("as valid as before");
        assert_eq!((translated.tuple().src, translated.tuple().dst), (B, A));
        let before = changed.clone();
        let quote = nat::quoted(&changed, &packet);
        let done = nat::rewrite_quote(&mut changed, &packet, &to, &to);
        assert!(done || (changed == before && quote.is_none()));
        assert!(Packet::parse(&changed).is_ok());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        use_everything(&frame);
    }

    #[test]
    fn mutated_packets_never_panic(
        mut frame in frames(),
        changes in prop::collection::vec((0usize..80, any::<u8>()), 0..6),
        cut in prop::option::of(0usize..90),
    ) {
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut.unwrap_or(frame.len()));
        use_everything(&frame);
    }

    /// Cutting and reading again with etherparse gives the payload, one packet after the other.
    #[test]
    fn segments_are_what_the_superframe_says(frame in frames()) {
        let packet = Packet::parse(&frame).unwrap();
        let mut payload = Vec::new();
        let parts = segments(&frame);
        prop_assert_eq!(parts.len() as u32, packet.segments());
        let mut wire = 0;
        for part in &parts {
            let read = oracle(part);
            prop_assert!(part[..vnet::LEN].iter().all(|b| *b == 0));
            prop_assert_eq!(usize::from(read.ip.total_len), part.len() - vnet::LEN);
            if let Some(tcp) = read.tcp {
                prop_assert_eq!(tcp.sequence_number, packet.tcp_seq(&frame).wrapping_add(payload.len() as u32));
                prop_assert_eq!(tcp.window_size, packet.tcp_window(&frame));
            }
            if packet.gso_size() != 0 {
                prop_assert!(read.payload.len() <= usize::from(packet.gso_size()));
            }
            wire += part.len() - vnet::LEN;
            payload.extend_from_slice(&read.payload);
            let segment = Packet::parse(part).unwrap();
            prop_assert_eq!(segment.tuple(), packet.tuple());
            prop_assert!(segment.verify_checksums(part));
        }
        prop_assert_eq!(wire as u64, packet.wire_bytes());
        prop_assert_eq!(&payload[..], &frame[packet.payload()]);
    }

    /// Each segment, byte for byte, as etherparse writes the headers that segmentation must give it.
    #[test]
    fn segments_are_those_that_another_writer_makes(frame in frames(), id: u16, ecn: bool) {
        let mut frame = frame;
        frame[IP_OFFSET + 4..IP_OFFSET + 6].copy_from_slice(&id.to_be_bytes());
        let packet = Packet::parse(&frame).unwrap();
        if packet.gso_size() == 0 {
            return Ok(());
        }
        if ecn && packet.proto() == Proto::TCP {
            frame[1] |= vnet::GSO_ECN;
        }
        let sliced = SlicedPacket::from_ip(&frame[IP_OFFSET..]).unwrap();
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("IPv4") };
        let all = &frame[packet.payload()];
        let datas: Vec<&[u8]> =
            if all.is_empty() { vec![all] } else { all.chunks(usize::from(packet.gso_size())).collect() };
        let mut expected = Vec::new();
        for (n, data) in datas.iter().enumerate() {
            let mut ip = ip.header().to_header();
            ip.identification = id.wrapping_add(n as u16);
            let mut transport = Vec::new();
            match &sliced.transport {
                Some(TransportSlice::Tcp(tcp)) => {
                    let mut tcp = tcp.to_header();
                    tcp.sequence_number = tcp.sequence_number.wrapping_add((n * usize::from(packet.gso_size())) as u32);
                    tcp.cwr &= n == 0;
                    tcp.fin &= n + 1 == datas.len();
                    tcp.psh &= n + 1 == datas.len();
                    tcp.checksum = tcp.calc_checksum_ipv4(&ip, data).unwrap();
                    tcp.write(&mut transport).unwrap();
                }
                Some(TransportSlice::Udp(udp)) => {
                    let (from, to) = (udp.source_port(), udp.destination_port());
                    let udp = etherparse::UdpHeader::with_ipv4_checksum(from, to, &ip, data).unwrap();
                    udp.write(&mut transport).unwrap();
                }
                other => panic!("{other:?}"),
            }
            ip.total_len = (20 + transport.len() + data.len()) as u16;
            ip.header_checksum = ip.calc_header_checksum();
            let mut bytes = vec![0; vnet::LEN];
            ip.write_raw(&mut bytes).unwrap();
            bytes.extend_from_slice(&transport);
            bytes.extend_from_slice(data);
            expected.push(bytes);
        }
        prop_assert!(segments(&frame) == expected);
    }

    /// Both readers agree about every field the engine uses.
    #[test]
    fn fields_agree_with_etherparse(frame in frames()) {
        let packet = Packet::parse(&frame).unwrap();
        let sliced = SlicedPacket::from_ip(&frame[IP_OFFSET..]).unwrap();
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("IPv4") };
        prop_assert_eq!(packet.tuple().src, ip.header().source_addr());
        prop_assert_eq!(packet.tuple().dst, ip.header().destination_addr());
        prop_assert_eq!(packet.ttl(), ip.header().ttl());
        prop_assert_eq!(packet.total_len(), usize::from(ip.header().total_len()));
        match sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                prop_assert_eq!((packet.tuple().src_port, packet.tuple().dst_port), (tcp.source_port(), tcp.destination_port()));
                prop_assert_eq!(packet.tcp_seq(&frame), tcp.sequence_number());
                prop_assert_eq!(packet.tcp_ack(&frame), tcp.acknowledgment_number());
                prop_assert_eq!(packet.is_tcp_syn(), tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin());
                prop_assert_eq!(&frame[packet.payload()], tcp.payload());
            }
            Some(TransportSlice::Udp(udp)) => {
                prop_assert_eq!((packet.tuple().src_port, packet.tuple().dst_port), (udp.source_port(), udp.destination_port()));
                prop_assert_eq!(&frame[packet.payload()], udp.payload());
            }
            Some(TransportSlice::Icmpv4(icmp)) => prop_assert_eq!(&frame[packet.payload()], icmp.payload()),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
