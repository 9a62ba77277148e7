//! The two bounded byte rings between a connection of the TCP stack, which lives in the router thread, and the task that
//! serves it on tokio.
//!
//! Each ring has one writer and one reader and no lock (`rtrb`). Back-pressure: a task that does not read leaves its ring
//! full, the router leaves the rest in the stack's receive buffer, and the client's window closes; a client that does not
//! read leaves the ring to it full, and the task's `poll_write` is pending.
//!
//! The end of a connection means what it means with the kernel's sockets: `shutdown` sends FIN; dropping the stream sends
//! what was written and FIN; dropping it with bytes unread, or getting more afterwards, resets; the peer's FIN is an end
//! of file after its bytes; the peer's reset is an error on both halves. A task that ends by panic or abort drops its
//! stream too, so nothing of it stays. A connection that the endpoint has forgotten is an error to a task that writes;
//! one that only reads is told nothing, if it asked for that.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::task::{Context, Poll, ready};

use crossbeam::queue::ArrayQueue;
use futures::task::AtomicWaker;
use rtrb::{Consumer, Producer, RingBuffer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::poller::Waker;

/// Bytes of each of the two rings of a connection, where nothing else is said: enough for the bytes that a task cannot
/// take while it is scheduled, at 20 Gbit/s and 200 us.
pub const RING_BYTES: usize = 512 << 10;

/// What exists now, for the proof that nothing is left behind.
#[derive(Debug, Default)]
pub struct BridgeGauges {
    pub rings_bytes: AtomicU64,
    /// Tasks that dial or serve.
    pub tasks: AtomicU64,
}

/// Where tasks say that a connection wants the router's attention.
#[derive(Clone)]
pub struct Notices {
    queue: Arc<ArrayQueue<u64>>,
    /// The queue was full: every connection wants to be looked at.
    overflow: Arc<AtomicBool>,
    waker: Waker,
}

impl Notices {
    /// A connection has at most one notice pending, so `conns` connections never overflow the queue.
    pub fn new(conns: usize, waker: Waker) -> Notices {
        Notices { queue: Arc::new(ArrayQueue::new(conns.max(1))), overflow: Arc::default(), waker }
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.overflow.load(Ordering::Acquire)
    }

    /// The next connection, by the key it was made with.
    pub fn next(&self) -> Option<u64> {
        self.queue.pop()
    }

    /// True once after an overflow.
    pub fn take_overflow(&self) -> bool {
        self.overflow.load(Ordering::Relaxed) && self.overflow.swap(false, Ordering::AcqRel)
    }

    fn put(&self, key: u64) {
        if self.queue.push(key).is_err() {
            self.overflow.store(true, Ordering::Release);
        }
        self.waker.wake();
    }
}

/// Makes both ends. `key` is what [`Notices::next`] gives for this connection.
pub fn bridge(key: u64, ring_bytes: usize, notices: &Notices, gauges: &Arc<BridgeGauges>) -> (RouterEnd, BridgeStream) {
    let (to_task, from_router) = RingBuffer::new(ring_bytes);
    let (to_router, from_task) = RingBuffer::new(ring_bytes);
    let reserved = 2 * ring_bytes as u64;
    gauges.rings_bytes.fetch_add(reserved, Ordering::Relaxed);
    let shared = Arc::new(Shared {
        key,
        notices: notices.clone(),
        notified: AtomicBool::new(false),
        wants_room: AtomicBool::new(false),
        peer: AtomicU8::new(0),
        task: AtomicU8::new(0),
        holders: AtomicU8::new(1),
        readable: AtomicWaker::new(),
        writable: AtomicWaker::new(),
        gauges: gauges.clone(),
        reserved,
    });
    let router = RouterEnd { shared: shared.clone(), to_task, from_task, ended: false };
    (router, BridgeStream { shared, from_router, to_router })
}

struct Shared {
    key: u64,
    notices: Notices,
    /// A notice is in the queue.
    notified: AtomicBool,
    /// The router holds bytes that found no room.
    wants_room: AtomicBool,
    /// What the peer did: `PEER_*`.
    peer: AtomicU8,
    /// What the task did: `TASK_*`.
    task: AtomicU8,
    /// The stream and its guard, where one was taken.
    holders: AtomicU8,
    readable: AtomicWaker,
    writable: AtomicWaker,
    gauges: Arc<BridgeGauges>,
    reserved: u64,
}

const PEER_EOF: u8 = 1;
const PEER_RESET: u8 = 2;
const PEER_FORGOTTEN: u8 = 4;

const TASK_SHUT: u8 = 1;
const TASK_GONE: u8 = 2;
const TASK_UNREAD: u8 = 4;
const TASK_ABORT: u8 = 8;
const TASK_UNTOLD: u8 = 16;

impl Shared {
    fn notify(&self) {
        // The pair to the router's swap in `take_notice`: whoever reads the other's value sees the other's bytes.
        if !self.notified.swap(true, Ordering::AcqRel) {
            self.notices.put(self.key);
        }
    }

    fn let_go(&self, flags: u8) {
        self.task.fetch_or(flags, Ordering::AcqRel);
        if self.holders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.task.fetch_or(TASK_GONE, Ordering::AcqRel);
        }
        self.notify();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.gauges.rings_bytes.fetch_sub(self.reserved, Ordering::Relaxed);
    }
}

/// The router thread's end.
pub struct RouterEnd {
    shared: Arc<Shared>,
    to_task: Producer<u8>,
    from_task: Consumer<u8>,
    ended: bool,
}

/// What the task has asked for, as far as its bytes are out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    Open,
    /// All was sent: FIN, if it was not sent yet.
    ShutWrite,
    /// All was sent and nobody will read: FIN, and a reset for whatever the peer still sends.
    Close,
    /// Reset now.
    Abort,
}

impl RouterEnd {
    /// To be called before the rings are looked at because of a notice.
    pub fn take_notice(&self) {
        self.shared.notified.swap(false, Ordering::AcqRel);
    }

    /// Gives the task what fits and says how much; less than all means that a notice will come when there is room.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let (_, mut rest) = self.to_task.push_partial_slice(bytes);
        if !rest.is_empty() {
            self.shared.wants_room.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if self.to_task.slots() >= room_worth(self.to_task.buffer().capacity()) {
                rest = self.to_task.push_partial_slice(rest).1;
            }
        }
        let taken = bytes.len() - rest.len();
        if taken > 0 {
            self.shared.readable.wake();
        }
        taken
    }

    /// Offers what the task wrote to `send` until it takes less than offered or nothing is left. True if all is out.
    pub fn pull(&mut self, mut send: impl FnMut(&[u8]) -> usize) -> bool {
        let mut moved = 0;
        let drained = loop {
            let ready = self.from_task.slots();
            if ready == 0 {
                break true;
            }
            let Ok(chunk) = self.from_task.read_chunk(ready) else { break true };
            let (first, second) = chunk.as_slices();
            let mut taken = send(first);
            if taken == first.len() && !second.is_empty() {
                taken += send(second);
            }
            chunk.commit(taken);
            moved += taken;
            if taken < ready {
                break false;
            }
        };
        if moved > 0 {
            let capacity = self.from_task.buffer().capacity();
            if capacity - self.from_task.slots() >= room_worth(capacity) {
                self.shared.writable.wake();
            }
        }
        drained
    }

    /// To be asked before the [`RouterEnd::pull`] whose result is `drained`: the task's order then covers only bytes
    /// that the pull saw.
    pub fn orders(&self) -> Orders {
        Orders(self.shared.task.load(Ordering::Acquire))
    }

    /// The peer's FIN, after all its bytes were pushed.
    pub fn peer_closed(&self) {
        self.shared.peer.fetch_or(PEER_EOF, Ordering::AcqRel);
        self.shared.readable.wake();
    }

    /// The connection is over for both. `reset`: by a reset.
    pub fn ended(mut self, reset: bool) {
        self.end(reset);
    }

    /// The endpoint has forgotten the connection. False if the task is still to find out, by writing: whoever holds
    /// this end decides how long it may wait.
    pub fn expire(&mut self) -> bool {
        self.take_notice();
        self.shared.peer.fetch_or(PEER_FORGOTTEN, Ordering::AcqRel);
        if self.shared.task.load(Ordering::Acquire) & (TASK_UNTOLD | TASK_GONE) != TASK_UNTOLD {
            self.end(true);
            return true;
        }
        // Bytes that wait to be sent will never be: a writer that waits for room finds out now.
        self.shared.writable.wake();
        false
    }

    /// Nobody holds the stream any more.
    pub fn is_left(&self) -> bool {
        self.shared.task.load(Ordering::Acquire) & TASK_GONE != 0
    }

    fn end(&mut self, reset: bool) {
        self.ended = true;
        let flags = if reset { PEER_RESET | PEER_EOF } else { PEER_EOF };
        self.shared.peer.fetch_or(flags, Ordering::AcqRel);
        self.shared.readable.wake();
        self.shared.writable.wake();
    }
}

impl Drop for RouterEnd {
    fn drop(&mut self) {
        if !self.ended {
            self.end(true);
        }
    }
}

/// A look at what the task had asked for at one moment.
#[derive(Clone, Copy)]
pub struct Orders(u8);

impl Orders {
    /// `drained`: what a later pull said.
    pub fn intent(self, drained: bool) -> Intent {
        match self.0 {
            o if o & TASK_ABORT != 0 => Intent::Abort,
            o if o & TASK_GONE != 0 && o & TASK_UNREAD != 0 => Intent::Abort,
            o if o & TASK_GONE != 0 && drained => Intent::Close,
            o if o & TASK_SHUT != 0 && drained => Intent::ShutWrite,
            _ => Intent::Open,
        }
    }
}

/// Room at which it is worth to wake the writer: not for every byte.
const fn room_worth(capacity: usize) -> usize {
    if capacity < 4 { 1 } else { capacity / 4 }
}

/// The task's end: a connection as tokio knows it.
pub struct BridgeStream {
    shared: Arc<Shared>,
    from_router: Consumer<u8>,
    to_router: Producer<u8>,
}

/// Holds the connection open beyond the stream, so that its task can still choose how it ends.
pub struct BridgeGuard {
    shared: Arc<Shared>,
    abort: bool,
}

impl BridgeStream {
    /// The connection then closes when both are dropped.
    pub fn guard(&self) -> BridgeGuard {
        self.shared.holders.fetch_add(1, Ordering::AcqRel);
        BridgeGuard { shared: self.shared.clone(), abort: false }
    }

    /// From now on idle expiry is silent to this end, as to the service behind AWS's endpoints: it shows when this end
    /// writes or closes.
    pub fn expire_untold(&self) {
        self.shared.task.fetch_or(TASK_UNTOLD, Ordering::AcqRel);
    }

    /// Is the connection gone, as far as one who sends can tell?
    fn is_broken(&self) -> bool {
        self.shared.peer.load(Ordering::Acquire) & (PEER_RESET | PEER_FORGOTTEN) != 0
    }

    fn after_read(&self) {
        fence(Ordering::SeqCst);
        if self.shared.wants_room.load(Ordering::SeqCst) {
            let capacity = self.from_router.buffer().capacity();
            let free = capacity - self.from_router.slots();
            if free >= room_worth(capacity) && self.shared.wants_room.swap(false, Ordering::SeqCst) {
                self.shared.notify();
            }
        }
    }
}

impl BridgeGuard {
    /// Drops it; the connection ends with a reset.
    pub fn abort(mut self) {
        self.abort = true;
    }
}

impl Drop for BridgeGuard {
    fn drop(&mut self) {
        self.shared.let_go(if self.abort { TASK_ABORT } else { 0 });
    }
}

impl Drop for BridgeStream {
    fn drop(&mut self) {
        let unread = self.from_router.slots() > 0;
        self.shared.let_go(TASK_SHUT | if unread { TASK_UNREAD } else { 0 });
    }
}

impl AsyncRead for BridgeStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.read_some(buf)? {
            return Poll::Ready(Ok(()));
        }
        this.shared.readable.register(cx.waker());
        if this.read_some(buf)? { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl BridgeStream {
    /// True if bytes were read or the end was reached.
    fn read_some(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        // Flags before bytes: an end that is seen here comes after every byte that is in the ring now.
        let peer = self.shared.peer.load(Ordering::Acquire);
        if peer & PEER_RESET != 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let ready = self.from_router.slots().min(buf.remaining());
        if ready > 0 {
            let space = buf.initialize_unfilled_to(ready);
            let read = self.from_router.pop_partial_slice(space).0.len();
            buf.advance(read);
            self.after_read();
            return Ok(true);
        }
        Ok(peer & PEER_EOF != 0)
    }

    /// How much of `bytes` was taken; `None` if the ring is full.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        if self.is_broken() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.shared.task.load(Ordering::Relaxed) & TASK_SHUT != 0 || self.to_router.is_abandoned() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = self.to_router.push_partial_slice(bytes).0.len();
        if taken == 0 && !bytes.is_empty() {
            return Ok(None);
        }
        self.shared.notify();
        Ok(Some(taken))
    }
}

impl AsyncWrite for BridgeStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(taken) = this.write_some(bytes)? {
            return Poll::Ready(Ok(taken));
        }
        this.shared.writable.register(cx.waker());
        match this.write_some(bytes)? {
            Some(taken) => Poll::Ready(Ok(taken)),
            None => Poll::Pending,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        if self.shared.peer.load(Ordering::Acquire) & PEER_FORGOTTEN != 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.shared.task.fetch_or(TASK_SHUT, Ordering::AcqRel) & TASK_SHUT == 0 {
            self.shared.notify();
        }
        Poll::Ready(Ok(()))
    }
}

/// Counts a task for as long as it lives.
pub struct TaskCount(Arc<BridgeGauges>);

impl TaskCount {
    pub fn new(gauges: &Arc<BridgeGauges>) -> TaskCount {
        gauges.tasks.fetch_add(1, Ordering::Relaxed);
        TaskCount(gauges.clone())
    }
}

impl Drop for TaskCount {
    fn drop(&mut self) {
        self.0.tasks.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::poller::Poller;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Rig {
        poller: Poller,
        notices: Notices,
        gauges: Arc<BridgeGauges>,
        tokio: tokio::runtime::Runtime,
    }

    fn rig() -> Rig {
        let poller = Poller::new().expect("epoll");
        let notices = Notices::new(8, poller.waker());
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("tokio");
        Rig { poller, notices, gauges: Arc::default(), tokio }
    }

    impl Rig {
        /// Sleeps as the router does until a notice is there, and takes it.
        fn await_notice(&self, end: &RouterEnd) {
            let mut ready = Vec::new();
            while self.notices.next().is_none() {
                self.poller.wait(None, || self.notices.is_empty(), &mut ready).expect("wait");
            }
            end.take_notice();
        }
    }

    /// A stream of bytes that shows every loss, doubling and swap.
    fn byte_at(n: u64) -> u8 {
        (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
    }

    #[test]
    fn bytes_cross_both_ways_through_rings_far_smaller_than_the_stream() {
        const TOTAL: u64 = 3_000_000;
        let rig = rig();
        let (mut end, mut stream) = bridge(1, 4096, &rig.notices, &rig.gauges);
        // The task sends back every byte, one higher.
        let task = rig.tokio.spawn(async move {
            let mut buf = vec![0; 1500];
            loop {
                let n = stream.read(&mut buf).await.expect("read");
                if n == 0 {
                    stream.shutdown().await.expect("shutdown");
                    return;
                }
                buf[..n].iter_mut().for_each(|b| *b = b.wrapping_add(1));
                stream.write_all(&buf[..n]).await.expect("write");
            }
        });
        let (mut sent, mut got, mut closed) = (0, 0, false);
        loop {
            while sent < TOTAL {
                let chunk: Vec<u8> = (sent..TOTAL.min(sent + 1000)).map(byte_at).collect();
                let taken = end.push(&chunk) as u64;
                sent += taken;
                if taken < chunk.len() as u64 {
                    break;
                }
            }
            if sent == TOTAL && !closed {
                closed = true;
                end.peer_closed();
            }
            let orders = end.orders();
            let drained = end.pull(|bytes| {
                for b in bytes {
                    assert_eq!(*b, byte_at(got).wrapping_add(1), "byte {got}");
                    got += 1;
                }
                bytes.len()
            });
            if matches!(orders.intent(drained), Intent::ShutWrite | Intent::Close) {
                break;
            }
            rig.await_notice(&end);
        }
        assert_eq!(got, TOTAL);
        rig.tokio.block_on(task).expect("task");
        end.ended(false);
        assert_eq!(rig.gauges.rings_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_reset_reaches_reader_and_writer() {
        let rig = rig();
        let (end, mut stream) = bridge(1, 64, &rig.notices, &rig.gauges);
        let task = rig.tokio.spawn(async move {
            let read = stream.read_u8().await.expect_err("reset").kind();
            (read, stream.write_all(b"x").await.expect_err("reset").kind())
        });
        end.ended(true);
        let kinds = rig.tokio.block_on(task).expect("task");
        assert_eq!(kinds, (io::ErrorKind::ConnectionReset, io::ErrorKind::ConnectionReset));
    }

    #[test]
    fn a_forgotten_connection_shows_only_to_a_task_that_writes() {
        let rig = rig();
        let (mut end, mut stream) = bridge(1, 64, &rig.notices, &rig.gauges);
        stream.expire_untold();
        assert_eq!(end.push(b"!"), 1);
        assert!(!end.expire());
        rig.tokio.block_on(async {
            assert_eq!(stream.read_u8().await.expect("came before"), b'!');
            let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), stream.read_u8()).await;
            waiting.expect_err("a reader is told nothing");
            assert_eq!(stream.write_u8(b'?').await.expect_err("reset").kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(stream.shutdown().await.expect_err("reset").kind(), io::ErrorKind::ConnectionReset);
        });
        assert!(!end.is_left());
        drop(stream);
        assert!(end.is_left());

        // Nobody asked for silence: both are told.
        let (mut end, mut stream) = bridge(2, 64, &rig.notices, &rig.gauges);
        assert!(end.expire());
        let read = rig.tokio.block_on(stream.read_u8());
        assert_eq!(read.expect_err("reset").kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn dropping_the_stream_closes_after_its_bytes_and_resets_if_some_were_unread() {
        let rig = rig();
        let (mut end, mut stream) = bridge(1, 64, &rig.notices, &rig.gauges);
        rig.tokio.block_on(async move { stream.write_all(b"bye").await.expect("room") });
        rig.await_notice(&end);
        let orders = end.orders();
        assert_eq!(orders.intent(false), Intent::Open, "bytes first");
        let drained = end.pull(<[u8]>::len);
        assert_eq!(orders.intent(drained), Intent::Close);

        let (mut end, stream) = bridge(2, 64, &rig.notices, &rig.gauges);
        assert_eq!(end.push(b"unread"), 6);
        drop(stream);
        rig.await_notice(&end);
        assert_eq!(end.orders().intent(true), Intent::Abort);
    }

    #[test]
    fn a_guard_outlives_the_stream_and_may_still_reset() {
        let rig = rig();
        let (end, stream) = bridge(1, 64, &rig.notices, &rig.gauges);
        let guard = stream.guard();
        drop(stream);
        assert_eq!(end.orders().intent(true), Intent::ShutWrite);
        guard.abort();
        rig.await_notice(&end);
        assert_eq!(end.orders().intent(false), Intent::Abort);
    }
}
