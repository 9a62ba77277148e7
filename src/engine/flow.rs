//! The flow table: what the engine remembers of connections.
//!
//! AWS keeps connection state per network interface. A flow between two ENIs is therefore one entry with two *sides*,
//! each found by the ENI and the tuple as that ENI sends it; where the way there and the way back pass different
//! ENIs, an entry has one side only. What gateways translate is the difference between one side's tuple and the other's
//! turned round, so a packet of either side is rewritten from the entry alone. [`FlowTable`] finds the entries.
//!
//! Each side forgets by its ENI's own time, and a NAT gateway by its: what a flow holds of one is its *binding*. A
//! binding that no flow holds is an entry *apart*, whose sides are both the gateway's (see `bindings`).
//!
//! There may be a million, so an entry is packed into 96 bytes and only its methods know how. A benchmark and a test
//! count what one costs with all that belongs to it.

use std::net::Ipv4Addr;

use super::event::Way;
use super::nat::Held;
use crate::base::{FiveTuple, Instant, Proto};
use crate::wire::packet::Packet;

mod table;

pub(crate) use table::{Due, Ends, FlowTable};

/// Identifies one side of a flow: which ENI, and the tuple as that ENI sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowKey {
    /// The engine's own number of the ENI, which survives changes of the plan.
    pub(crate) port: u32,
    pub(crate) src: u32,
    pub(crate) dst: u32,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) proto: u8,
    /// ICMP: the type of the request, with `ANSWERS` set for who answers it; so a request the other way with the
    /// same identifier is another flow. Else 0.
    pub(crate) class: u8,
}

impl FlowKey {
    /// The same tuple as another ENI sends it.
    pub(crate) fn at(self, port: u32) -> FlowKey {
        FlowKey { port, ..self }
    }

    /// The same side with other addresses and ports.
    pub(crate) fn with(self, port: u32, tuple: &FiveTuple) -> FlowKey {
        FlowKey {
            port,
            src: tuple.src.to_bits(),
            dst: tuple.dst.to_bits(),
            src_port: tuple.src_port,
            dst_port: tuple.dst_port,
            ..self
        }
    }
}

const ANSWERS: u8 = 0x80;

impl FlowKey {
    /// The side of the ENI that sends this packet.
    #[inline]
    pub(crate) fn of(port: u32, packet: &Packet) -> FlowKey {
        let icmp = packet.icmp().map(|(kind, _)| kind);
        FlowKey::of_tuple(port, &packet.tuple(), icmp)
    }

    #[inline]
    pub(crate) fn of_tuple(port: u32, tuple: &FiveTuple, icmp: Option<u8>) -> FlowKey {
        let class = match icmp {
            None => 0,
            Some(0) => 8 | ANSWERS,
            Some(answer @ (14 | 16 | 18)) => (answer - 1) | ANSWERS,
            Some(kind) => kind & !ANSWERS,
        };
        FlowKey {
            port,
            src: tuple.src.to_bits(),
            dst: tuple.dst.to_bits(),
            src_port: tuple.src_port,
            dst_port: tuple.dst_port,
            proto: tuple.proto.0,
            class,
        }
    }

    /// The side of the ENI that receives what this side sends.
    #[inline]
    pub(crate) fn mirrored(&self, port: u32) -> FlowKey {
        let class = if self.proto == Proto::ICMP.0 { self.class ^ ANSWERS } else { self.class };
        FlowKey {
            port,
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            proto: self.proto,
            class,
        }
    }

    pub(crate) fn tuple(&self) -> FiveTuple {
        FiveTuple {
            proto: Proto(self.proto),
            src: Ipv4Addr::from_bits(self.src),
            src_port: self.src_port,
            dst: Ipv4Addr::from_bits(self.dst),
            dst_port: self.dst_port,
        }
    }

    /// Two folded multiplications: well mixed and about 2 ns. The seed is the owner's.
    #[inline]
    pub(crate) fn hash(&self, seed: u64) -> u64 {
        let addrs = u64::from(self.src) << 32 | u64::from(self.dst);
        let ports = u64::from(self.src_port) << 48
            | u64::from(self.dst_port) << 32
            | u64::from(self.proto) << 24
            | u64::from(self.class) << 16;
        let a = fold(addrs ^ 0x9e37_79b9_7f4a_7c15, ports ^ seed ^ u64::from(self.port).rotate_left(40));
        fold(a ^ u64::from(self.port), 0xa076_1d64_78bd_642f)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ (wide >> 64) as u64
}

/// How a flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// Packets of the initiator only, or a TCP handshake that is not finished.
    New,
    /// TCP after the handshake.
    Established,
    /// TCP after a FIN of each side, or a RST.
    Closing,
    /// UDP and ICMP: one request and perhaps its answer.
    Single,
    /// UDP with more than one exchange.
    Stream,
    /// Other protocols.
    Open,
}

impl FlowState {
    pub const fn as_str(self) -> &'static str {
        match self {
            FlowState::New => "new",
            FlowState::Established => "established",
            FlowState::Closing => "closing",
            FlowState::Single => "single",
            FlowState::Stream => "stream",
            FlowState::Open => "open",
        }
    }
}

/// Which side of a flow: the initiator's or the target's.
pub(crate) type Side = usize;
pub(crate) const INITIATOR: Side = 0;
pub(crate) const TARGET: Side = 1;

/// What a way does to packets besides leading somewhere. Few differ, so flows keep a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passage {
    /// Hops that count.
    pub(crate) ttl: u8,
    /// TCP's MSS is lowered to this; 0: untouched.
    pub(crate) mss: u16,
    pub(crate) latency_us: u32,
    pub(crate) shapes: [u16; 3],
}

/// What a flow remembers of a way: numbers of the program under which it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) passage: Passage,
    /// Larger packets ask the whole way.
    pub(crate) mtu: u16,
    /// The NAT gateway that counts the packets.
    pub(crate) nat: Option<u16>,
}

/// One flow with its two sides, packed.
///
/// Protocol and ICMP class are the same at both sides but for the class's direction. Times are exact where they decide
/// something: an end is the last packet's nanosecond and a life in milliseconds. Packets are counted to 2^48, nine
/// years at a million a second; bytes to 2^64.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// The initiator's packet as its ENI sends it, then the target's.
    ports: [u32; 2],
    addrs: [[u32; 2]; 2],
    l4: [[u16; 2]; 2],
    /// The last packet.
    last: Instant,
    bytes: [u64; 2],
    packets_low: [u32; 2],
    packets_high: [u16; 2],
    /// Milliseconds from the last packet to when it is not asked any more as it stands. `FOREVER`: none.
    life: u32,
    /// Milliseconds.
    started_low: u32,
    started_high: u16,
    /// Under which `courses` were decided.
    epoch: u16,
    courses: [u16; 2],
    nat_port: u16,
    /// `NOWHERE` if it holds no port.
    nat_at: u32,
    proto: u8,
    class: u8,
    pub(crate) state: FlowState,
    /// A `Way` in the lowest two bits, then marks.
    way: u8,
    flags: u16,
}

const _: () = assert!(size_of::<Flow>() == 96);

const FOREVER: u32 = u32::MAX;
const NOWHERE: u32 = u32::MAX;

/// One side's tuple is not the other's turned round.
const TRANSLATED: u16 = 1;
const TERMINATES: u16 = 1 << 1;
const ENDPOINT: u16 = 1 << 2;
const RESET: u16 = 1 << 3;
/// Both its ENIs have forgotten it; a NAT gateway has not.
const RESTS: u16 = 1 << 4;
/// Is in the table.
const LIVE: u16 = 1 << 5;
/// Two bits each: the initiator's side and the target's.
const PRESENT: u16 = 1 << 6;
const TRACKED: u16 = 1 << 8;
const FIN: u16 = 1 << 10;
const DECIDED: u16 = 1 << 12;

const WAY: u8 = 3;
const _: () = assert!(Way::ALL.len() == 4);
/// The port that it holds is a NAT gateway's, which has a time of its own.
const BOUND: u8 = 1 << 2;
/// It is a binding and nothing else.
const APART: u8 = 1 << 3;

impl Flow {
    /// `keys` are the initiator's and the target's, of one protocol.
    pub(crate) fn new(now: Instant, keys: [FlowKey; 2], state: FlowState) -> Flow {
        let [key, there] = keys;
        debug_assert_eq!((there.proto, there.class), (key.proto, key.mirrored(0).class));
        let started = now.as_millis();
        let translated = there != key.mirrored(there.port);
        Flow {
            ports: [key.port, there.port],
            addrs: [[key.src, key.dst], [there.src, there.dst]],
            l4: [[key.src_port, key.dst_port], [there.src_port, there.dst_port]],
            last: now,
            bytes: [0; 2],
            packets_low: [0; 2],
            packets_high: [0; 2],
            life: 0,
            started_low: started as u32,
            started_high: (started >> 32) as u16,
            epoch: 0,
            courses: [0; 2],
            nat_port: 0,
            nat_at: NOWHERE,
            proto: key.proto,
            class: key.class,
            state,
            way: 0,
            flags: PRESENT | PRESENT << TARGET | TRACKED | TRACKED << TARGET | if translated { TRANSLATED } else { 0 },
        }
    }

    #[inline]
    pub(crate) fn key(&self, side: Side) -> FlowKey {
        let ([src, dst], [src_port, dst_port]) = (self.addrs[side], self.l4[side]);
        let turned = side == TARGET && self.proto == Proto::ICMP.0;
        let class = if turned { self.class ^ ANSWERS } else { self.class };
        FlowKey { port: self.ports[side], src, dst, src_port, dst_port, proto: self.proto, class }
    }

    /// The engine's number of a side's ENI.
    #[inline]
    pub(crate) fn port(&self, side: Side) -> u32 {
        self.ports[side]
    }

    #[inline]
    pub(crate) fn proto(&self) -> Proto {
        Proto(self.proto)
    }

    #[inline]
    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    fn set(&mut self, flag: u16, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }

    /// One side's tuple is not the other's turned round.
    #[inline]
    pub(crate) fn is_translated(&self) -> bool {
        self.has(TRANSLATED)
    }

    /// TCP ends at the target in a stack of ours.
    #[inline]
    pub(crate) fn terminates(&self) -> bool {
        self.has(TERMINATES)
    }

    pub(crate) fn set_terminates(&mut self, on: bool) {
        self.set(TERMINATES, on);
    }

    /// An interface endpoint's ENI, with idle times of its own, is at one of the ends.
    #[inline]
    pub(crate) fn is_endpoint(&self) -> bool {
        self.has(ENDPOINT)
    }

    pub(crate) fn set_endpoint(&mut self, on: bool) {
        self.set(ENDPOINT, on);
    }

    /// Is the side in the index?
    #[inline]
    pub(crate) fn is_present(&self, side: Side) -> bool {
        self.has(PRESENT << side)
    }

    pub(crate) fn set_present(&mut self, present: [bool; 2]) {
        self.set(PRESENT, present[INITIATOR]);
        self.set(PRESENT << TARGET, present[TARGET]);
    }

    /// Do packets of this side pass their ENI's security groups without asking the rules?
    #[inline]
    pub(crate) fn is_tracked(&self, side: Side) -> bool {
        self.has(TRACKED << side)
    }

    /// A flow in the table: see [`FlowTable::track`].
    pub(crate) fn set_tracked(&mut self, side: Side, on: bool) {
        self.set(TRACKED << side, on);
    }

    /// Remembered by the security groups of one end at least.
    pub(crate) fn is_tracked_somewhere(&self) -> bool {
        let here = |side| self.is_present(side) && self.is_tracked(side);
        here(INITIATOR) || here(TARGET)
    }

    #[inline]
    pub(crate) fn was_reset(&self) -> bool {
        self.has(RESET)
    }

    pub(crate) fn note_reset(&mut self) {
        self.set(RESET, true);
    }

    /// Notes a FIN of a side. Was there one of each?
    #[inline]
    pub(crate) fn note_fin(&mut self, side: Side) -> bool {
        self.set(FIN << side, true);
        self.flags & (FIN | FIN << TARGET) == FIN | FIN << TARGET
    }

    /// Number of the way of a side's packets, if it was decided in this epoch.
    #[inline]
    pub(crate) fn course(&self, side: Side, epoch: u16) -> Option<usize> {
        (self.epoch == epoch && self.has(DECIDED << side)).then_some(usize::from(self.courses[side]))
    }

    pub(crate) fn set_course(&mut self, side: Side, epoch: u16, course: Option<u16>) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.forget_courses();
        }
        self.courses[side] = course.unwrap_or_default();
        self.set(DECIDED << side, course.is_some());
    }

    pub(crate) fn forget_courses(&mut self) {
        self.set(DECIDED | DECIDED << TARGET, false);
    }

    pub(crate) fn way(&self) -> Way {
        Way::ALL[usize::from(self.way & WAY)]
    }

    pub(crate) fn set_way(&mut self, way: Way) {
        self.way = self.way & !WAY | way as u8;
    }

    /// The port of a NAT gateway, or of a NAT instance, that it holds.
    #[inline]
    pub(crate) fn held(&self) -> Option<Held> {
        (self.nat_at != NOWHERE).then_some(Held { at: self.nat_at, port: self.nat_port })
    }

    /// `gateway`: a NAT gateway's, and no NAT instance's.
    pub(crate) fn hold(&mut self, held: Held, gateway: bool) {
        (self.nat_at, self.nat_port) = (held.at, held.port);
        self.way = if gateway { self.way | BOUND } else { self.way & !BOUND };
    }

    /// Somebody else has the port from now on, or nobody; no way that was decided is followed any more.
    pub(crate) fn let_go(&mut self) {
        (self.nat_at, self.nat_port) = (NOWHERE, 0);
        self.way &= !BOUND;
        self.forget_courses();
    }

    /// Holds a port of a NAT gateway.
    #[inline]
    pub(crate) fn is_bound(&self) -> bool {
        self.way & BOUND != 0
    }

    /// Is it a gateway's own record of what no flow holds?
    #[inline]
    pub(crate) fn is_apart(&self) -> bool {
        self.way & APART != 0
    }

    /// All that is left of it is a binding.
    pub(crate) fn rests(&self) -> bool {
        self.has(RESTS)
    }

    /// The binding that it holds, as a record of its own with these keys.
    pub(crate) fn apart(&self, keys: [FlowKey; 2]) -> Flow {
        let mut apart = Flow::new(self.last, keys, self.state);
        apart.flags |= self.flags & (RESET | FIN | FIN << TARGET);
        apart.set(TRACKED | TRACKED << TARGET, false);
        (apart.nat_at, apart.nat_port) = (self.nat_at, self.nat_port);
        apart.way = BOUND | APART;
        apart.count(INITIATOR, self.packets(INITIATOR).min(2) as u32, 0);
        apart.count(TARGET, self.packets(TARGET).min(2) as u32, 0);
        apart
    }

    #[inline]
    pub(crate) fn count(&mut self, side: Side, packets: u32, bytes: u64) {
        let (low, carry) = self.packets_low[side].overflowing_add(packets);
        self.packets_low[side] = low;
        self.packets_high[side] = self.packets_high[side].wrapping_add(u16::from(carry));
        self.bytes[side] = self.bytes[side].wrapping_add(bytes);
    }

    #[inline]
    pub(crate) fn packets(&self, side: Side) -> u64 {
        u64::from(self.packets_high[side]) << 32 | u64::from(self.packets_low[side])
    }

    pub(crate) fn bytes(&self, side: Side) -> u64 {
        self.bytes[side]
    }

    /// To the millisecond below.
    pub(crate) fn started(&self) -> Instant {
        Instant::from_millis(u64::from(self.started_high) << 32 | u64::from(self.started_low))
    }

    pub(crate) fn last(&self) -> Instant {
        self.last
    }

    /// When the first of those who know of it forgets it, if nothing more comes.
    #[inline]
    pub(crate) fn expires(&self) -> Instant {
        self.ends_after(self.life)
    }

    /// So many milliseconds after the last packet.
    #[inline]
    pub(crate) fn ends_after(&self, millis: u32) -> Instant {
        if millis == FOREVER {
            return Instant::NEVER;
        }
        Instant(self.last.0.saturating_add(u64::from(millis) * 1_000_000))
    }

    /// Milliseconds from the last packet to [`Flow::expires`]. A flow in the table: see [`FlowTable::touch`].
    pub(crate) fn set_life(&mut self, millis: u32) {
        self.life = millis;
    }
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowEnd {
    /// A FIN of each side.
    Fin,
    Reset,
    Idle,
    /// A new connection with the same addresses and ports.
    Replaced,
    /// An ENI of it is gone from the plan.
    EniGone,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(src: Ipv4Addr, dst: Ipv4Addr) -> FiveTuple {
        FiveTuple { proto: Proto::ICMP, src, src_port: 9, dst, dst_port: 9 }
    }

    #[test]
    fn a_ping_the_other_way_with_the_same_identifier_is_another_flow() {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 4), Ipv4Addr::new(10, 0, 0, 5));
        let request = FlowKey::of_tuple(1, &echo(a, b), Some(8));
        assert_eq!(request.mirrored(2), FlowKey::of_tuple(2, &echo(b, a), Some(0)));
        assert_ne!(request.mirrored(2), FlowKey::of_tuple(2, &echo(b, a), Some(8)));
    }

    #[test]
    fn what_is_packed_comes_out_as_it_went_in() {
        let (a, b, public) = (Ipv4Addr::new(10, 0, 0, 4), Ipv4Addr::new(192, 0, 2, 5), Ipv4Addr::new(203, 0, 113, 7));
        let tcp = FlowKey::of_tuple(1, &FiveTuple::tcp(a, 4_000, b, 443), None);
        let there = tcp.mirrored(u32::MAX - 1).with(u32::MAX - 1, &FiveTuple::tcp(b, 443, public, 1_025));
        let ping = FlowKey::of_tuple(1, &echo(a, b), Some(8));
        for keys in [[tcp, there], [tcp, tcp.mirrored(3)], [ping, ping.mirrored(2)], [ping.mirrored(2), ping]] {
            let now = Instant(u64::MAX / 3);
            let mut flow = Flow::new(now, keys, FlowState::New);
            assert_eq!([flow.key(INITIATOR), flow.key(TARGET)], keys);
            assert_eq!(flow.is_translated(), keys[1] == there);
            assert_eq!((flow.started().as_millis(), flow.last()), (now.as_millis(), now));
            assert_eq!((flow.held(), flow.course(TARGET, 0)), (None, None));
            let held = Held { at: 7, port: u16::MAX };
            for (way, gateway) in Way::ALL.into_iter().zip([true, false, true, false]) {
                flow.set_way(way);
                flow.hold(held, gateway);
                assert_eq!((flow.held(), flow.way(), flow.is_bound()), (Some(held), way, gateway));
                assert!(flow.apart(keys).is_apart() && !flow.is_apart());
                flow.let_go();
                assert_eq!((flow.held(), flow.way(), flow.is_bound()), (None, way, false));
            }
            flow.set_life(432_000_000);
            assert_eq!(flow.expires().since(now).as_secs(), 432_000);
            flow.set_life(u32::MAX);
            assert_eq!(flow.expires(), Instant::NEVER);
            assert!(!flow.note_fin(TARGET) && flow.note_fin(INITIATOR) && !flow.was_reset());
        }
    }

    #[test]
    fn packets_are_counted_beyond_32_bits_and_each_side_alone() {
        let key = FlowKey::of_tuple(1, &echo(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST), Some(8));
        let mut flow = Flow::new(Instant::ZERO, [key, key.mirrored(2)], FlowState::Single);
        for _ in 0..3 {
            flow.count(TARGET, u32::MAX, 1 << 50);
        }
        flow.count(INITIATOR, 1, 40);
        assert_eq!((flow.packets(TARGET), flow.bytes(TARGET)), (3 * u64::from(u32::MAX), 3 << 50));
        assert_eq!((flow.packets(INITIATOR), flow.bytes(INITIATOR)), (1, 40));
    }

    #[test]
    fn a_way_holds_in_its_epoch_only_and_for_its_side_only() {
        let key = FlowKey::of_tuple(1, &echo(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST), Some(8));
        let mut flow = Flow::new(Instant::ZERO, [key, key.mirrored(2)], FlowState::Single);
        flow.set_course(INITIATOR, 4, Some(0));
        assert_eq!((flow.course(INITIATOR, 4), flow.course(TARGET, 4)), (Some(0), None));
        flow.set_course(TARGET, 5, Some(9));
        assert_eq!((flow.course(INITIATOR, 5), flow.course(TARGET, 5)), (None, Some(9)));
        assert_eq!((flow.course(INITIATOR, 4), flow.course(TARGET, 4)), (None, None));
        flow.set_course(TARGET, 5, None);
        assert_eq!(flow.course(TARGET, 5), None);
    }
}
