//! Writes pcapng (draft-ietf-opsawg-pcapng): one section, an interface description for each ENI, enhanced packets with
//! comment and direction. Everything is little endian and appended to a buffer: where the bytes go is the caller's
//! matter. Interfaces may be added between packets, as the format allows.

use std::net::Ipv4Addr;

/// Raw IP: a packet begins with its IP header (LINKTYPE_IPV4; Wireshark and tcpdump go by the version in it). Not
/// LINKTYPE_RAW: libpcap (1.10.3) compares the number of each further interface with its own number of the first one's
/// type, which is another for LINKTYPE_RAW, and ends where a second interface begins.
pub const LINKTYPE: u16 = 228;
/// Longer comments are cut: a packet's is one line.
const TEXT_MAX: usize = 4_096;

mod block {
    pub const SECTION: u32 = 0x0a0d_0d0a;
    pub const INTERFACE: u32 = 1;
    pub const PACKET: u32 = 6;
}

mod option {
    pub const END: u16 = 0;
    pub const COMMENT: u16 = 1;
    pub const APPLICATION: u16 = 4;
    pub const IF_NAME: u16 = 2;
    pub const IF_DESCRIPTION: u16 = 3;
    pub const IF_IPV4: u16 = 4;
    pub const IF_TSRESOL: u16 = 9;
    pub const PACKET_FLAGS: u16 = 2;
    pub const PACKET_DROPCOUNT: u16 = 4;
}

/// The beginning of a file. `application` is who writes it.
pub fn section(out: &mut Vec<u8>, application: &str, comment: &str) {
    write(out, block::SECTION, |out| {
        out.extend_from_slice(&0x1a2b_3c4du32.to_le_bytes());
        // Version 1.0; the section's length is not known.
        out.extend_from_slice(&[1, 0, 0, 0]);
        out.extend_from_slice(&u64::MAX.to_le_bytes());
        text(out, option::COMMENT, comment);
        text(out, option::APPLICATION, application);
        put(out, option::END, &[]);
    });
}

/// What a file says of an ENI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub description: String,
    pub address: Option<Ipv4Addr>,
}

/// One interface; its number is how many came before it. Times are in nanoseconds. `snaplen` 0 is no limit; libpcap
/// wants the same of all interfaces of a file.
pub fn interface(out: &mut Vec<u8>, interface: &Interface, snaplen: u32) {
    write(out, block::INTERFACE, |out| {
        out.extend_from_slice(&LINKTYPE.to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&snaplen.to_le_bytes());
        text(out, option::IF_NAME, &interface.name);
        text(out, option::IF_DESCRIPTION, &interface.description);
        if let Some(address) = interface.address {
            put(out, option::IF_IPV4, &[address.octets(), [255; 4]].concat());
        }
        put(out, option::IF_TSRESOL, &[9]);
        put(out, option::END, &[]);
    });
}

/// One packet as it passed an interface.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// From the ENI's owner into the network.
    pub outbound: bool,
    /// The IP packet, or its beginning.
    pub bytes: &'a [u8],
    /// Bytes that it had.
    pub len: u32,
    pub comment: &'a str,
    /// Packets that were to be captured since the last one, and got lost.
    pub lost: u64,
}

pub fn packet(out: &mut Vec<u8>, record: &Record<'_>) {
    write(out, block::PACKET, |out| {
        out.extend_from_slice(&record.interface.to_le_bytes());
        out.extend_from_slice(&((record.time_ns >> 32) as u32).to_le_bytes());
        out.extend_from_slice(&(record.time_ns as u32).to_le_bytes());
        out.extend_from_slice(&(record.bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&record.len.to_le_bytes());
        out.extend_from_slice(record.bytes);
        pad(out);
        text(out, option::COMMENT, record.comment);
        let flags: u32 = if record.outbound { 2 } else { 1 };
        put(out, option::PACKET_FLAGS, &flags.to_le_bytes());
        if record.lost > 0 {
            put(out, option::PACKET_DROPCOUNT, &record.lost.to_le_bytes());
        }
        put(out, option::END, &[]);
    });
}

/// Type and length before the body, and the length again behind it.
fn write(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&kind.to_le_bytes());
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = (out.len() - at + 8) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
}

/// An option that is left out where there is nothing to say.
fn text(out: &mut Vec<u8>, code: u16, text: &str) {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    if end > 0 {
        put(out, code, &text.as_bytes()[..end]);
    }
}

fn put(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    out.extend_from_slice(value);
    pad(out);
}

/// To 32 bits from the buffer's start: blocks begin there.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block read by the book: type, body without options, options by their codes.
    #[derive(Debug)]
    struct Block {
        kind: u32,
        fixed: Vec<u8>,
        options: Vec<(u16, Vec<u8>)>,
    }

    fn read(mut bytes: &[u8]) -> Vec<Block> {
        let word = |b: &[u8], at: usize| u32::from_le_bytes(b[at..at + 4].try_into().unwrap());
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            let (kind, len) = (word(bytes, 0), word(bytes, 4) as usize);
            assert_eq!(len % 4, 0);
            assert_eq!(word(bytes, len - 4) as usize, len, "the length stands at both ends");
            let body = &bytes[8..len - 4];
            let fixed = match kind {
                0x0a0d_0d0a => 16,
                1 => 8,
                6 => 20 + (word(body, 12) as usize).div_ceil(4) * 4,
                other => panic!("block {other}"),
            };
            let (mut options, mut rest) = (Vec::new(), &body[fixed..]);
            loop {
                let code = u16::from_le_bytes([rest[0], rest[1]]);
                let len = usize::from(u16::from_le_bytes([rest[2], rest[3]]));
                if code == 0 {
                    assert_eq!((len, rest.len()), (0, 4), "the end is the end");
                    break;
                }
                options.push((code, rest[4..4 + len].to_vec()));
                assert!(rest[4 + len..4 + len.next_multiple_of(4)].iter().all(|b| *b == 0));
                rest = &rest[4 + len.next_multiple_of(4)..];
            }
            blocks.push(Block { kind, fixed: body[..fixed].to_vec(), options });
            bytes = &bytes[len..];
        }
        blocks
    }

    #[test]
    fn a_file_reads_as_it_was_written() {
        let mut out = Vec::new();
        section(&mut out, "vpclab 1", "lab demo");
        let eni = Interface {
            name: "demo.app.web/eth0".into(),
            description: "eni-1".into(),
            address: Some(Ipv4Addr::new(10, 0, 1, 10)),
        };
        interface(&mut out, &eni, 96);
        let record = Record {
            interface: 0,
            time_ns: 0x0123_4567_89ab_cdef,
            outbound: true,
            bytes: &[0x45, 1, 2, 3, 4],
            len: 1_500,
            comment: "DROP SG_INGRESS",
            lost: 7,
        };
        packet(&mut out, &record);
        packet(&mut out, &Record { outbound: false, comment: "", lost: 0, bytes: &[], ..record });

        let blocks = read(&out);
        let kinds: Vec<u32> = blocks.iter().map(|b| b.kind).collect();
        assert_eq!(kinds, [0x0a0d_0d0a, 1, 6, 6]);
        assert_eq!(blocks[0].fixed, [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(blocks[0].options, [(1, b"lab demo".to_vec()), (4, b"vpclab 1".to_vec())]);
        assert_eq!(blocks[1].fixed, [228, 0, 0, 0, 96, 0, 0, 0]);
        assert_eq!(
            blocks[1].options,
            [
                (2, b"demo.app.web/eth0".to_vec()),
                (3, b"eni-1".to_vec()),
                (4, vec![10, 0, 1, 10, 255, 255, 255, 255]),
                (9, vec![9]),
            ]
        );
        assert_eq!(
            blocks[2].fixed,
            [
                0, 0, 0, 0, 0x67, 0x45, 0x23, 0x01, 0xef, 0xcd, 0xab, 0x89, 5, 0, 0, 0, 0xdc, 5, 0, 0, 0x45, 1, 2, 3,
                4, 0, 0, 0
            ]
        );
        assert_eq!(
            blocks[2].options,
            [(1, b"DROP SG_INGRESS".to_vec()), (2, vec![2, 0, 0, 0]), (4, vec![7, 0, 0, 0, 0, 0, 0, 0])]
        );
        assert_eq!(blocks[3].options, [(2, vec![1, 0, 0, 0])], "nothing to say is not said");
    }

    #[test]
    fn a_long_comment_is_cut_between_characters() {
        let mut out = Vec::new();
        section(&mut out, "", &"ä".repeat(40_000));
        let blocks = read(&out);
        assert_eq!(blocks[0].options[0].1, "ä".repeat(2_048).into_bytes());
    }
}
