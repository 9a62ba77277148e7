//! A query in, an answer out, in caller's buffers. Allocates nothing.

use super::compile::Zones;
use super::name::WireName;
use super::zone::{NEGATIVE_TTL, Outcome, QType, Rcode, Zone};

/// The UDP payload size, in bytes, that the resolver announces and sends at most (Route 53 Resolver: 4096).
pub const EDNS_UDP_SIZE: u16 = 4096;
/// What a client without EDNS takes (RFC 1035 2.3.4).
const PLAIN_UDP_SIZE: usize = 512;
const HEADER: usize = 12;
/// OPT record without options: root, type, size, rcode and flags, length.
const OPT_LEN: usize = 11;
/// A pointer to the question's name, which always begins right after the header.
const QUESTION_POINTER: u16 = 0xc000 | HEADER as u16;

const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;
const FLAG_QR: u8 = 0x80;
const FLAG_TC: u8 = 0x02;
const FLAG_RD: u8 = 0x01;
const FLAG_RA: u8 = 0x80;
const FLAG_CD: u8 = 0x10;
const OPCODE: u8 = 0x78;
const EDNS_DO: u8 = 0x80;

/// How the query came, which limits the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// 512 bytes, or what EDNS announces up to 4096; a longer answer is cut off with TC set.
    Udp,
    /// 65,535 bytes. The two bytes of length before a message are the caller's (see [`super::Session`]).
    Tcp,
}

impl Zones {
    /// Answers `query` as the resolver of a VPC (index in `Plan::vpcs`) into `out`; gives the answer's length. 0: no
    /// answer at all, because the VPC has no `dns_support`, because what came is no query, or because `out` has no room
    /// for an empty answer. `shuffle_seed` orders the addresses: another seed, another order. 4,096 bytes of `out` are
    /// enough for UDP.
    pub fn answer(&self, vpc: usize, query: &[u8], shuffle_seed: u64, out: &mut [u8], transport: Transport) -> usize {
        let Some(vpc) = self.vpcs.get(vpc).filter(|v| v.serves) else { return 0 };
        // Shorter than a header or itself an answer: replying could loop between two servers.
        if query.len() < HEADER || query[2] & FLAG_QR != 0 {
            return 0;
        }
        let asked = match Asked::read(query) {
            Ok(asked) => asked,
            Err(rcode) => return bare(query, rcode, out),
        };
        let limit = match transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => asked
                .edns
                .as_ref()
                .map_or(PLAIN_UDP_SIZE, |e| usize::from(e.size).clamp(PLAIN_UDP_SIZE, usize::from(EDNS_UDP_SIZE))),
        };
        let room = limit.min(out.len());
        let Some(mut writer) = Writer::new(&mut out[..room], query, &asked) else { return 0 };
        match asked.refusal() {
            Some(rcode) => writer.rcode = rcode,
            None => match self.authority(vpc, &asked.name) {
                Some((apex_at, zone)) => fill(&mut writer, zone, apex_at, &asked, shuffle_seed),
                None => writer.rcode = Rcode::NxDomain,
            },
        }
        writer.finish()
    }
}

fn fill(writer: &mut Writer<'_>, zone: &Zone, apex_at: usize, asked: &Asked, shuffle_seed: u64) {
    let outcome = zone.ask(&asked.name, asked.qtype, &mut |rtype, ttl, data| {
        writer.record(Section::Answer, QUESTION_POINTER, rtype, ttl, data);
    });
    if outcome == Outcome::Records {
        writer.shuffle(shuffle_seed);
        return;
    }
    if outcome == Outcome::NoName {
        writer.rcode = Rcode::NxDomain;
    }
    // The apex is a suffix of the question's name: point to it there.
    let owner = QUESTION_POINTER + apex_at as u16;
    writer.record(Section::Authority, owner, QType::SOA, NEGATIVE_TTL, &zone.soa);
}

/// What a well-formed query asks.
struct Asked {
    name: WireName,
    qtype: QType,
    class: u16,
    /// Offset of what follows the question.
    question_end: usize,
    edns: Option<Edns>,
}

struct Edns {
    size: u16,
    version: u8,
    dnssec_ok: bool,
}

impl Asked {
    fn read(query: &[u8]) -> Result<Asked, Rcode> {
        if query[2] & OPCODE != 0 {
            return Err(Rcode::NotImp);
        }
        let count = |at: usize| u16::from_be_bytes([query[at], query[at + 1]]);
        let (questions, answers, authorities, additionals) = (count(4), count(6), count(8), count(10));
        // More than one question has no agreed meaning (RFC 9619).
        if questions != 1 {
            return Err(Rcode::FormErr);
        }
        let name = WireName::read(&query[HEADER..]).ok_or(Rcode::FormErr)?;
        let mut at = HEADER + name.as_bytes().len();
        let qtype = QType(be16(query, at)?);
        let class = be16(query, at + 2)?;
        at += 4;
        let question_end = at;
        let mut edns = None;
        let before = usize::from(answers) + usize::from(authorities);
        for record in 0..before + usize::from(additionals) {
            let start = at;
            at = skip_name(query, at)?;
            let rtype = QType(be16(query, at)?);
            let length = usize::from(be16(query, at + 8)?);
            let end = at + 10 + length;
            if end > query.len() {
                return Err(Rcode::FormErr);
            }
            if rtype == QType::OPT {
                // One OPT, owned by the root, among the additional records (RFC 6891 6.1.1).
                if record < before || edns.is_some() || query[start] != 0 {
                    return Err(Rcode::FormErr);
                }
                edns = Some(Edns {
                    size: be16(query, at + 2)?,
                    version: query[at + 5],
                    dnssec_ok: query[at + 6] & EDNS_DO != 0,
                });
            }
            at = end;
        }
        Ok(Asked { name, qtype, class, question_end, edns })
    }

    /// Questions that are well-formed but not for this resolver.
    fn refusal(&self) -> Option<Rcode> {
        if self.edns.as_ref().is_some_and(|e| e.version != 0) {
            return Some(Rcode::BadVers);
        }
        if self.class != CLASS_IN && self.class != CLASS_ANY {
            return Some(Rcode::Refused);
        }
        // Zone transfers, and OPT, which is no data.
        matches!(self.qtype, QType::AXFR | QType::IXFR | QType::OPT).then_some(Rcode::Refused)
    }
}

fn be16(bytes: &[u8], at: usize) -> Result<u16, Rcode> {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(Rcode::FormErr),
    }
}

/// The end of a name that may end in a pointer. Where the pointer leads does not matter.
fn skip_name(bytes: &[u8], mut at: usize) -> Result<usize, Rcode> {
    loop {
        let length = *bytes.get(at).ok_or(Rcode::FormErr)?;
        match length >> 6 {
            0 if length == 0 => return Ok(at + 1),
            0 => at += 1 + usize::from(length),
            3 => return Ok(at + 2),
            _ => return Err(Rcode::FormErr),
        }
    }
}

/// A header that says only why there is no answer.
fn bare(query: &[u8], rcode: Rcode, out: &mut [u8]) -> usize {
    let Some(out) = out.get_mut(..HEADER) else { return 0 };
    out.fill(0);
    header(query, rcode, out);
    HEADER
}

fn header(query: &[u8], rcode: Rcode, out: &mut [u8]) {
    out[..2].copy_from_slice(&query[..2]);
    out[2] = FLAG_QR | (query[2] & (OPCODE | FLAG_RD));
    // CD is copied (RFC 4035 3.2.2); AA and AD are not ours to set.
    out[3] = FLAG_RA | (query[3] & FLAG_CD) | (rcode.bits() & 0x0f) as u8;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Answer,
    Authority,
}

struct Writer<'a> {
    out: &'a mut [u8],
    query: &'a [u8],
    at: usize,
    question_end: usize,
    rcode: Rcode,
    answers: u16,
    authorities: u16,
    /// Something did not fit.
    truncated: bool,
    /// Whether to add an OPT, with the DO bit copied (RFC 3225 3).
    edns: Option<bool>,
    /// Where the first address record begins, and how many follow each other.
    addresses: (usize, usize),
}

/// Name pointer, type, class, TTL, length and an IPv4 address.
const ADDRESS_RECORD: usize = 16;

impl<'a> Writer<'a> {
    /// Copies the question as it came: its letters' case is the client's (draft "0x20").
    fn new(out: &'a mut [u8], query: &'a [u8], asked: &Asked) -> Option<Writer<'a>> {
        let end = asked.question_end;
        let edns = asked.edns.as_ref().map(|e| e.dnssec_ok);
        if out.len() < end + edns.map_or(0, |_| OPT_LEN) {
            return None;
        }
        out[HEADER..end].copy_from_slice(&query[HEADER..end]);
        Some(Writer {
            out,
            query,
            at: end,
            question_end: end,
            rcode: Rcode::NoError,
            answers: 0,
            authorities: 0,
            truncated: false,
            edns,
            addresses: (0, 0),
        })
    }

    fn record(&mut self, section: Section, owner: u16, rtype: QType, ttl: u32, data: &[u8]) {
        let end = self.at + 12 + data.len();
        if self.truncated || end + self.edns.map_or(0, |_| OPT_LEN) > self.out.len() {
            self.truncated = true;
            return;
        }
        let record = &mut self.out[self.at..end];
        record[..2].copy_from_slice(&owner.to_be_bytes());
        record[2..4].copy_from_slice(&rtype.0.to_be_bytes());
        record[4..6].copy_from_slice(&CLASS_IN.to_be_bytes());
        record[6..10].copy_from_slice(&ttl.to_be_bytes());
        record[10..12].copy_from_slice(&(data.len() as u16).to_be_bytes());
        record[12..].copy_from_slice(data);
        if rtype == QType::A {
            if self.addresses.1 == 0 {
                self.addresses.0 = self.at;
            }
            self.addresses.1 += 1;
        }
        self.at = end;
        match section {
            Section::Answer => self.answers += 1,
            Section::Authority => self.authorities += 1,
        }
    }

    /// Fisher and Yates over the address records, which stand in a row.
    fn shuffle(&mut self, seed: u64) {
        let (start, count) = self.addresses;
        let mut state = seed;
        for last in (1..count).rev() {
            let other = (splitmix(&mut state) % (last as u64 + 1)) as usize;
            if other != last {
                let (low, high) = self.out[start..].split_at_mut(last * ADDRESS_RECORD);
                low[other * ADDRESS_RECORD..][..ADDRESS_RECORD].swap_with_slice(&mut high[..ADDRESS_RECORD]);
            }
        }
    }

    fn finish(mut self) -> usize {
        if self.truncated {
            // A client must ask again by TCP and not use what came (RFC 2181 9): give nothing rather than a part.
            self.at = self.question_end;
            self.answers = 0;
            self.authorities = 0;
        }
        header(self.query, self.rcode, self.out);
        if self.truncated {
            self.out[2] |= FLAG_TC;
        }
        let counts = [1, self.answers, self.authorities, u16::from(self.edns.is_some())];
        for (n, count) in counts.iter().enumerate() {
            self.out[4 + 2 * n..][..2].copy_from_slice(&count.to_be_bytes());
        }
        if let Some(dnssec_ok) = self.edns {
            let opt = &mut self.out[self.at..self.at + OPT_LEN];
            opt.fill(0);
            opt[1..3].copy_from_slice(&QType::OPT.0.to_be_bytes());
            opt[3..5].copy_from_slice(&EDNS_UDP_SIZE.to_be_bytes());
            opt[5] = (self.rcode.bits() >> 4) as u8;
            opt[7] = if dnssec_ok { EDNS_DO } else { 0 };
            self.at += OPT_LEN;
        }
        self.at
    }
}

/// Steele, Lea and Flood's generator: one addition and three multiplications a number, good from any seed.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
