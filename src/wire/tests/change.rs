//! Changes of packets: translation, ICMP errors about them, fragments. The strongest check is that two ways lead to the
//! same bytes: translate and then quote or fragment, or the other way round.

use super::*;
use crate::wire::fragment::NotFragmented;
use crate::wire::nat::Rewrite;

fn ends_of(frame: &[u8]) -> Rewrite {
    Packet::parse(frame).expect("valid").tuple().into()
}

fn rewritten(frame: &[u8], to: &Rewrite) -> Vec<u8> {
    let mut changed = frame.to_vec();
    nat::rewrite(&mut changed, &Packet::parse(frame).expect("valid"), to);
    changed
}

fn fragments(frame: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let count = fragment::fragment(frame, mtu, |piece| out.push(piece.to_vec())).expect("fragments");
    assert_eq!(count as usize, out.len());
    out
}

/// The frame without DF and with an identification, as a sender of what may be fragmented sets it.
fn soft(mut frame: Vec<u8>, id: u16) -> Vec<u8> {
    frame[IP_OFFSET + 4..IP_OFFSET + 6].copy_from_slice(&id.to_be_bytes());
    frame[IP_OFFSET + 6] &= !0x40;
    fix_ip_sum(&mut frame);
    frame
}

fn fix_ip_sum(frame: &mut [u8]) {
    let ihl = usize::from(frame[IP_OFFSET] & 15) * 4;
    let ip = &mut frame[IP_OFFSET..IP_OFFSET + ihl];
    ip[10..12].fill(0);
    let sum = csum::checksum(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// What a receiver makes of fragments of one packet, in whatever order: read with etherparse, holes and overlaps are
/// failures.
fn reassemble(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut parts = std::collections::BTreeMap::new();
    let (mut head, mut end) = (None, None);
    for piece in pieces {
        let ip = etherparse::Ipv4HeaderSlice::from_slice(&piece[IP_OFFSET..]).expect("a header");
        let header = ip.to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum(), "IP checksum");
        assert_eq!(usize::from(header.total_len), piece.len() - IP_OFFSET);
        let at = usize::from(header.fragment_offset.value()) * 8;
        let data = piece[IP_OFFSET + header.header_len()..].to_vec();
        if !header.more_fragments {
            assert_eq!(end.replace(at + data.len()), None, "one last fragment");
        }
        if at == 0 {
            head = Some(piece[..IP_OFFSET + header.header_len()].to_vec());
        }
        assert!(parts.insert(at, data).is_none(), "two fragments at {at}");
    }
    let mut whole = head.expect("a first fragment");
    let mut next = 0;
    for (at, data) in parts {
        assert_eq!(at, next, "a hole or an overlap");
        next += data.len();
        whole.extend_from_slice(&data);
    }
    assert_eq!(Some(next), end, "the last fragment ends it");
    let total = (whole.len() - IP_OFFSET) as u16;
    whole[IP_OFFSET + 2..IP_OFFSET + 4].copy_from_slice(&total.to_be_bytes());
    whole[IP_OFFSET + 6] &= !0x20;
    fix_ip_sum(&mut whole);
    whole
}

#[test]
fn a_translated_packet_says_so_in_addresses_ports_and_sums() {
    let to = Rewrite { src: Ipv4Addr::new(203, 0, 113, 9), src_port: 1_024, dst: B, dst_port: 8_443 };
    let syn = rewritten(&make::tcp(&TcpSpec::syn(client(), server())), &to);
    let read = oracle(&syn);
    let tcp = read.tcp.expect("TCP");
    assert_eq!((read.ip.source, read.ip.destination), (to.src.octets(), to.dst.octets()));
    assert_eq!((tcp.source_port, tcp.destination_port), (1_024, 8_443));

    let ping = make::icmp_echo(A, B, Echo::Request, 77, 3, b"abc");
    let to = Rewrite { src: to.src, src_port: 500, dst: B, dst_port: 500 };
    let changed = rewritten(&ping, &to);
    oracle(&changed);
    assert_eq!(
        Packet::parse(&changed).unwrap().tuple(),
        FiveTuple { proto: Proto::ICMP, ..FiveTuple::udp(to.src, 500, B, 500) }
    );

    let mut silent = make::udp(client(), server(), b"hello");
    silent[36..38].fill(0);
    assert_eq!(rewritten(&silent, &to)[36..38], [0, 0], "no checksum stays none");
    let mut wrong = make::udp(client(), server(), b"hello");
    wrong[40] ^= 1;
    assert!(!verify_checksums(&rewritten(&wrong, &to)), "a wrong sum is not mended");
    let other = make::ipv4(A, B, Proto(47), 64, &[1; 40]);
    let changed = rewritten(&other, &to);
    assert_eq!(changed[30..], other[30..], "a protocol without ports");
    assert!(verify_checksums(&changed));
}

#[test]
fn a_udp_sum_that_becomes_zero_is_sent_as_all_ones() {
    // The address word is chosen so that everything sums to 0xffff.
    let frame = make::udp(client(), server(), b"hi");
    let sum = u16::from_be_bytes([frame[36], frame[37]]);
    let low = csum::add(u16::from_be_bytes([A.octets()[2], A.octets()[3]]), sum);
    let [c, d] = low.to_be_bytes();
    let to = Rewrite { src: Ipv4Addr::new(10, 0, c, d), ..ends_of(&frame) };
    let zero = rewritten(&frame, &to);
    assert_eq!(zero[36..38], [0xff, 0xff]);
    oracle(&zero);
    assert_eq!(rewritten(&zero, &ends_of(&frame)), frame);
}

#[test]
fn hops_are_taken_off_down_to_nothing() {
    let mut frame = make::udp(client(), server(), b"x");
    let packet = Packet::parse(&frame).unwrap();
    assert_eq!(nat::ttl(&mut frame, &packet, 1), 63);
    assert_eq!(nat::ttl(&mut frame, &packet, 60), 3);
    assert_eq!(oracle(&frame).ip.time_to_live, 3);
    assert_eq!(nat::ttl(&mut frame, &packet, 5), 0);
    assert_eq!(oracle(&frame).ip.time_to_live, 0);
}

#[test]
fn an_error_goes_to_the_sender_with_the_packet_as_it_was_on_the_wire() {
    let router = Ipv4Addr::new(10, 0, 1, 1);
    let payload = vec![5; 20_000];
    let spec = TcpSpec {
        payload: &payload,
        ..TcpSpec::new(client(), server(), tcp_flags::ACK | tcp_flags::PSH | tcp_flags::FIN)
    };
    let mut space = [0xaa; 700];
    let frame = make::tcp_superframe(&spec, 8_960);
    let packet = Packet::parse(&frame).unwrap();
    let len = make::write_frag_needed_into(&mut space, router, &packet, &frame, 1_500);
    assert_eq!(len, make::ICMP_ERROR_MAX);
    let error = oracle(&space[..len]);
    assert_eq!((error.ip.source, error.ip.destination, error.ip.total_len), (router.octets(), A.octets(), 576));
    assert_eq!(space[30..38], [3, 4, space[32], space[33], 0, 0, 0x05, 0xdc]);
    assert_eq!(error.payload, segments(&frame)[0][IP_OFFSET..][..548]);
    assert_eq!(space[len], 0xaa);
    assert_eq!(nat::quoted(&space[..len], &Packet::parse(&space[..len]).unwrap()), Some((packet.tuple(), None)));

    let small = make::udp(client(), server(), b"probe");
    let packet = Packet::parse(&small).unwrap();
    let len = make::write_time_exceeded_into(&mut space, router, &packet, &small);
    assert_eq!(space[30..32], [11, 0]);
    assert_eq!(oracle(&space[..len]).payload, small[IP_OFFSET..]);
    assert_eq!(make::write_time_exceeded_into(&mut space[..400], router, &packet, &small), 0, "no room");

    let error = space[..len].to_vec();
    let about_error = Packet::parse(&error).unwrap();
    assert_eq!(make::write_time_exceeded_into(&mut space, router, &about_error, &error), 0);
    let pieces = fragments(&soft(make::udp(client(), server(), &[1; 3_000]), 7), 1_500);
    assert!(make::icmp_error(router, 11, 0, 0, &pieces[0]).is_some());
    assert_eq!(make::icmp_error(router, 11, 0, 0, &pieces[1]), None, "a later fragment");
    for (src, dst) in [
        ("0.0.0.0", "10.0.0.1"),
        ("224.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "239.1.1.1"),
        ("127.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "255.255.255.255"),
    ] {
        let lost = make::ipv4(src.parse().unwrap(), dst.parse().unwrap(), Proto(50), 1, &[0; 8]);
        assert_eq!(make::icmp_error(router, 11, 0, 0, &lost), None, "{src} > {dst}");
    }
}

#[test]
fn a_short_quote_is_translated_as_far_as_it_goes() {
    let syn = make::tcp(&TcpSpec::syn(client(), server()));
    let to = Rewrite { src: Ipv4Addr::new(192, 168, 0, 1), src_port: 9, dst: B, dst_port: 10 };
    let outer = Rewrite { src: B, src_port: 0, dst: to.src, dst_port: 0 };
    for quote in [20, 22, 24, 28, 36, 38, 40, 48] {
        let about = |packet: &[u8]| {
            let mut message = vec![3, 1, 0, 0, 0, 0, 0, 0];
            message.extend_from_slice(&packet[IP_OFFSET..IP_OFFSET + quote]);
            let sum = csum::checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            message
        };
        let mut error = make::ipv4(B, A, Proto::ICMP, 64, &about(&syn));
        let packet = Packet::parse(&error).unwrap();
        assert!(nat::rewrite_quote(&mut error, &packet, &outer, &to));
        // A quote that ends within a header cannot hold more than was changed.
        let mut changed = rewritten(&syn, &to);
        if quote < 38 {
            changed[46..48].copy_from_slice(&syn[46..48]);
        }
        if quote < 24 {
            changed[30..34].copy_from_slice(&syn[30..34]);
        }
        assert_eq!(error, make::ipv4(B, to.src, Proto::ICMP, 64, &about(&changed)), "{quote} bytes");
    }
    for bad in [&[][..], &[0x45; 19], &[0x65; 40], &[0x4f; 40], &[0x44; 40]] {
        let mut message = vec![3, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(bad);
        let mut error = make::ipv4(B, A, Proto::ICMP, 64, &message);
        let (packet, before) = (Packet::parse(&error).unwrap(), error.clone());
        assert!(!nat::rewrite_quote(&mut error, &packet, &outer, &to) && error == before);
        assert_eq!(nat::quoted(&error, &packet), None);
    }
}

#[test]
fn fragments_keep_what_the_sender_forbade_and_what_was_cut_before() {
    let hard = make::udp(client(), server(), &[1; 3_000]);
    assert_eq!(fragment::fragment(&hard, 1_500, |_| panic!("nothing")), Err(NotFragmented::DontFragment));
    assert_eq!(fragment::fragment(&hard, 67, |_| panic!("nothing")), Err(NotFragmented::Mtu));
    assert_eq!(fragments(&hard, 3_028), std::slice::from_ref(&hard), "it fits");
    let twice: Vec<Vec<u8>> =
        fragments(&soft(hard.clone(), 3), 1_500).iter().flat_map(|piece| fragments(piece, 576)).collect();
    assert_eq!(twice.len(), 3 + 3 + 1);
    let offsets: Vec<u16> = twice.iter().map(|p| Packet::parse(p).unwrap().fragment_offset()).collect();
    assert_eq!(offsets, [0, 552, 1_104, 1_480, 2_032, 2_584, 2_960]);
    assert_eq!(reassemble(&twice), soft(hard, 3));
    // A superframe that is cut by both: datagrams of 2,000 bytes, each in two pieces.
    let superframe = soft(make::udp_superframe(client(), server(), &[9; 5_000], 2_000), 40);
    let pieces = fragments(&superframe, 1_500);
    assert_eq!(pieces.len(), 5, "two, two, and a last one of 1,000 bytes");
    assert_eq!(
        [reassemble(&pieces[..2]), reassemble(&pieces[2..4]), pieces[4].clone()].to_vec(),
        segments(&superframe)
    );
}

#[test]
fn only_options_that_are_to_be_copied_are() {
    let mut frame = soft(make::udp(client(), server(), &[1; 200]), 3);
    // Timestamp (not copied) of 8 bytes, router alert (copied), no-op, end.
    let options = [68, 8, 9, 0, 1, 2, 3, 4, 148, 4, 0, 0, 1, 0, 0, 0];
    frame.splice(30..30, options);
    frame[IP_OFFSET] = 0x49;
    let total = (frame.len() - IP_OFFSET) as u16;
    frame[IP_OFFSET + 2..IP_OFFSET + 4].copy_from_slice(&total.to_be_bytes());
    fix_ip_sum(&mut frame);
    let pieces = fragments(&frame, 108);
    assert_eq!(pieces.len(), 3);
    assert_eq!(pieces[0][30..46], options);
    for later in &pieces[1..] {
        assert_eq!(later[30..46], [1, 1, 1, 1, 1, 1, 1, 1, 148, 4, 0, 0, 1, 0, 0, 0]);
    }
    assert_eq!(reassemble(&pieces), frame);
}

fn rewrites() -> impl Strategy<Value = Rewrite> {
    let word = || prop_oneof![any::<u16>(), Just(0), Just(0xffff)];
    (word(), word(), word(), word(), word(), word()).prop_map(|(a, b, c, d, src_port, dst_port)| {
        let address = |upper: u16, lower: u16| Ipv4Addr::from_bits(u32::from(upper) << 16 | u32::from(lower));
        Rewrite { src: address(a, b), src_port, dst: address(c, d), dst_port }
    })
}

/// As the tuple of a frame of `proto` has it: a ping's two ports are one.
fn expected(proto: Proto, to: &Rewrite) -> Rewrite {
    if proto == Proto::ICMP { Rewrite { dst_port: to.src_port, ..*to } } else { *to }
}

proptest! {
    #[test]
    fn translation_changes_nothing_else_and_can_be_undone(frame in frames(), to in rewrites()) {
        let packet = Packet::parse(&frame).unwrap();
        let changed = rewritten(&frame, &to);
        prop_assert_eq!(ends_of(&changed), expected(packet.proto(), &to));
        for (before, after) in segments(&frame).iter().zip(segments(&changed)) {
            prop_assert_eq!(oracle(before).payload, oracle(&after).payload);
            prop_assert!(verify_checksums(&after));
        }
        prop_assert!(rewritten(&changed, &ends_of(&frame)) == frame);
    }

    /// An incremental sum is the sum that a new packet would have.
    #[test]
    fn a_translated_packet_is_the_packet_sent_from_there(to in rewrites(), payload in prop::collection::vec(any::<u8>(), 0..200), id: u16) {
        let (from, dst) = (SocketAddrV4::new(to.src, to.src_port), SocketAddrV4::new(to.dst, to.dst_port));
        let tcp = |src, dst| TcpSpec { payload: &payload, ..TcpSpec::syn(src, dst) };
        prop_assert_eq!(rewritten(&make::tcp(&tcp(client(), server())), &to), make::tcp(&tcp(from, dst)));
        prop_assert_eq!(
            rewritten(&make::tcp_superframe(&tcp(client(), server()), 50), &to),
            make::tcp_superframe(&tcp(from, dst), 50)
        );
        prop_assert_eq!(rewritten(&make::udp(client(), server(), &payload), &to), make::udp(from, dst, &payload));
        prop_assert_eq!(
            rewritten(&make::icmp_echo(A, B, Echo::Reply, id, 1, &payload), &to),
            make::icmp_echo(to.src, to.dst, Echo::Reply, to.src_port, 1, &payload)
        );
    }

    /// Translating a packet and then each fragment, or each fragment of the packet: the same.
    #[test]
    fn fragments_reassemble_before_and_after_translation(
        frame in frames(),
        to in rewrites(),
        id: u16,
        mtu in 68usize..2_000,
    ) {
        let frame = soft(frame, id);
        let pieces = fragments(&frame, mtu);
        prop_assert!(pieces.iter().all(|p| Packet::parse(p).unwrap().total_len() <= mtu));
        let wholes = segments(&frame);
        let mut groups: std::collections::BTreeMap<u16, Vec<Vec<u8>>> = Default::default();
        let mut translated = groups.clone();
        for piece in &pieces {
            let id = u16::from_be_bytes([piece[IP_OFFSET + 4], piece[IP_OFFSET + 5]]).wrapping_sub(id);
            groups.entry(id).or_default().push(piece.clone());
            translated.entry(id).or_default().push(rewritten(piece, &to));
        }
        prop_assert_eq!(groups.len(), wholes.len());
        for (n, whole) in wholes.iter().enumerate() {
            prop_assert!(&reassemble(&groups[&(n as u16)]) == whole);
            prop_assert!(reassemble(&translated[&(n as u16)]) == rewritten(whole, &to));
        }
    }

    /// An error about a translated packet, and the translated error about a packet: the same.
    #[test]
    fn a_translated_error_is_the_error_about_the_translated_packet(frame in frames(), to in rewrites(), soften: bool) {
        let frame = if soften { soft(frame, 99) } else { frame };
        let (router, outside) = (Ipv4Addr::new(10, 0, 1, 1), Ipv4Addr::new(198, 18, 0, 9));
        let to = expected(Packet::parse(&frame).unwrap().proto(), &to);
        let about = |from, frame: &[u8]| make::icmp_error(from, 3, 4, 1_400, frame);
        let (Some(mut error), Some(wanted)) = (about(router, &frame), about(outside, &rewritten(&frame, &to))) else {
            return Ok(());
        };
        let packet = Packet::parse(&error).unwrap();
        prop_assert_eq!(nat::quoted(&error, &packet).map(|(tuple, _)| Rewrite::from(tuple)), Some(ends_of(&frame)));
        let outer = Rewrite { src: outside, src_port: 1, dst: to.src, dst_port: 2 };
        prop_assert!(nat::rewrite_quote(&mut error, &packet, &outer, &to));
        prop_assert!(error == wanted);
        oracle(&error);
        let quote = &segments(&rewritten(&frame, &to))[0][IP_OFFSET..];
        prop_assert_eq!(&oracle(&error).payload[..], &quote[..quote.len().min(548)]);
    }

    #[test]
    fn an_mss_is_lowered_and_the_sums_stay_right(
        mss: u16,
        limit: u16,
        ack: bool,
        partial: bool,
        to in rewrites(),
    ) {
        let flags = if ack { tcp_flags::SYN | tcp_flags::ACK } else { tcp_flags::SYN };
        let spec = TcpSpec { mss: Some(mss), flags, ..TcpSpec::syn(client(), server()) };
        let mut frame = if partial { make::tcp_superframe(&spec, 1) } else { make::tcp(&spec) };
        frame[1] = 0;
        let packet = Packet::parse(&frame).unwrap();
        nat::rewrite(&mut frame, &packet, &to);
        prop_assert_eq!(edit::clamp_mss(&mut frame, &packet, limit), mss > limit);
        prop_assert_eq!(edit::mss_of(&frame, &packet), Some(mss.min(limit)));
        edit::finish_checksum(&mut frame, &packet);
        oracle(&frame);
    }
}
