//! A packet as one line of text, for people.

use super::packet::{IP_OFFSET, Malformed, Packet, tcp_flags};
use crate::base::Proto;

/// One line, in the manner of tcpdump: `tcp 10.0.1.10:40000 > 10.0.1.25:443 [S] seq 1 win 64240 mss 1460 len 0`.
/// A superframe ends in `(45 x 1448)`. Never fails: a malformed frame is shown as such.
pub fn line(frame: &[u8]) -> String {
    let packet = match Packet::parse(frame) {
        Ok(packet) => packet,
        Err(Malformed::Ipv6) => return ipv6(&frame[IP_OFFSET..]),
        Err(why) => return format!("malformed, {} bytes: {why}", frame.len().saturating_sub(IP_OFFSET)),
    };
    let mut text = packet.tuple().to_string();
    if packet.proto() == Proto::TCP && packet.l4_header_len() != 0 {
        text.push_str(&tcp(frame, &packet));
    } else if let Some((kind, code)) = packet.icmp() {
        text.push_str(&icmp(frame, &packet, kind, code));
    }
    text.push_str(&format!(" len {}", packet.payload_len()));
    if packet.gso_size() != 0 {
        text.push_str(&format!(" ({} x {})", packet.segments(), packet.gso_size()));
    }
    if packet.is_fragment() {
        let more = if packet.more_fragments() { "+" } else { "" };
        text.push_str(&format!(" frag {}{more}", packet.fragment_offset()));
    }
    if !packet.verify_checksums(frame) {
        text.push_str(" bad checksum");
    }
    text
}

fn tcp(frame: &[u8], packet: &Packet) -> String {
    let flags = packet.tcp_flags();
    let names = [
        (tcp_flags::SYN, 'S'),
        (tcp_flags::FIN, 'F'),
        (tcp_flags::RST, 'R'),
        (tcp_flags::PSH, 'P'),
        (tcp_flags::URG, 'U'),
        (tcp_flags::ECE, 'E'),
        (tcp_flags::CWR, 'W'),
        (tcp_flags::ACK, '.'),
    ];
    let names: String = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, c)| c).collect();
    let mut text = format!(" [{names}] seq {}", packet.tcp_seq(frame));
    if flags & tcp_flags::ACK != 0 {
        text.push_str(&format!(" ack {}", packet.tcp_ack(frame)));
    }
    text.push_str(&format!(" win {}", packet.tcp_window(frame)));
    let header = &frame[packet.l4_offset()..packet.payload().start];
    if let Ok(slice) = etherparse::TcpHeaderSlice::from_slice(header) {
        for option in slice.options_iterator().map_while(Result::ok) {
            use etherparse::TcpOptionElement::*;
            text.push_str(&match option {
                MaximumSegmentSize(mss) => format!(" mss {mss}"),
                WindowScale(shift) => format!(" wscale {shift}"),
                SelectiveAcknowledgementPermitted => " sackOK".to_owned(),
                SelectiveAcknowledgement((from, to), rest) => {
                    let others: String = rest.iter().flatten().map(|(from, to)| format!(",{from}-{to}")).collect();
                    format!(" sack {from}-{to}{others}")
                }
                Timestamp(value, echo) => format!(" ts {value}/{echo}"),
                Noop => String::new(),
            });
        }
    }
    text
}

fn icmp(frame: &[u8], packet: &Packet, kind: u8, code: u8) -> String {
    let word = &frame[packet.l4_offset() + 4..packet.l4_offset() + 8];
    let (first, second) = (u16::from_be_bytes([word[0], word[1]]), u16::from_be_bytes([word[2], word[3]]));
    match (kind, code) {
        (8, _) => format!(" echo request id {first} seq {second}"),
        (0, _) => format!(" echo reply id {first} seq {second}"),
        (3, 0) => " net unreachable".to_owned(),
        (3, 1) => " host unreachable".to_owned(),
        (3, 2) => " protocol unreachable".to_owned(),
        (3, 3) => " port unreachable".to_owned(),
        (3, 4) => format!(" fragmentation needed, mtu {second}"),
        (3, 13) => " administratively prohibited".to_owned(),
        (11, _) => " time exceeded".to_owned(),
        _ => format!(" type {kind} code {code}"),
    }
}

fn ipv6(ip: &[u8]) -> String {
    match etherparse::Ipv6HeaderSlice::from_slice(ip) {
        Ok(head) => format!(
            "ipv6 {} > {} next header {} len {}",
            head.source_addr(),
            head.destination_addr(),
            head.next_header().0,
            head.payload_length()
        ),
        Err(_) => format!("malformed, {} bytes: {}", ip.len(), Malformed::Short),
    }
}
