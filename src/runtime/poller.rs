//! The one place where the router thread sleeps: epoll over the TUNs and one eventfd.
//!
//! Producers on other threads push to bounded queues and call [`Waker::wake`], which writes the eventfd only when the
//! router said that it is about to sleep: under load nobody makes a system call to wake it. The order that makes this
//! safe is Dekker's: the router stores `asleep` and then looks at its queues once more; a producer pushes and then looks
//! at `asleep`; a sequentially consistent fence stands between the two steps on both sides.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

/// Ready descriptors handed out by one wait.
pub const MAX_EVENTS: usize = 64;

/// Token of the eventfd; callers' tokens are indices and never this.
const WAKE: u64 = u64::MAX;
/// Token of the timer.
const TIME: u64 = u64::MAX - 1;

/// epoll's own timeout counts milliseconds and rounds up (before Linux 5.11), a packet's delay may be under one. So a
/// timer ends shorter sleeps; longer ones end that much too early, and what is left is a short one.
const PRECISE: Duration = Duration::from_millis(20);

pub struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    shared: Arc<Shared>,
}

struct Shared {
    eventfd: OwnedFd,
    asleep: AtomicBool,
}

/// Wakes the poller's thread; cheap where it is awake.
#[derive(Clone)]
pub struct Waker(Arc<Shared>);

impl Poller {
    /// Errors: the kernel has no descriptors left.
    pub fn new() -> io::Result<Poller> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &eventfd, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIME), epoll::EventFlags::IN)?;
        let shared = Arc::new(Shared { eventfd, asleep: AtomicBool::new(false) });
        Ok(Poller { epoll, timer, shared })
    }

    pub fn waker(&self) -> Waker {
        Waker(self.shared.clone())
    }

    /// Watches `fd` for reading (level-triggered); `token` names it in [`Poller::wait`].
    pub fn add(&self, fd: BorrowedFd<'_>, token: u32) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(u64::from(token)), epoll::EventFlags::IN)?)
    }

    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Fills `ready` with the tokens of readable descriptors. Sleeps at most `timeout` (`None`: until something comes),
    /// and not at all where `idle` says that a queue holds something. True if it slept.
    pub fn wait(&self, timeout: Option<Duration>, idle: impl Fn() -> bool, ready: &mut Vec<u32>) -> io::Result<bool> {
        ready.clear();
        let mut timeout = timeout.unwrap_or(Duration::MAX);
        if !timeout.is_zero() {
            self.shared.asleep.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if !idle() {
                self.shared.asleep.store(false, Ordering::SeqCst);
                timeout = Duration::ZERO;
            }
        }
        let sleeps = !timeout.is_zero();
        if sleeps && timeout < PRECISE * 2 {
            let timer = Itimerspec { it_interval: spec(Duration::ZERO), it_value: spec(timeout) };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer)?;
            timeout = Duration::MAX;
        } else if timeout != Duration::MAX {
            timeout = timeout.saturating_sub(PRECISE);
        }
        let spec = (timeout != Duration::MAX).then(|| spec(timeout));
        let mut space = [const { MaybeUninit::uninit() }; MAX_EVENTS];
        let waited = epoll::wait(&self.epoll, &mut space, spec.as_ref());
        if sleeps {
            self.shared.asleep.store(false, Ordering::SeqCst);
        }
        let events: &[epoll::Event] = match waited {
            Ok((events, _)) => events,
            Err(Errno::INTR) => &[],
            Err(e) => return Err(e.into()),
        };
        for event in events {
            let data = event.data;
            if data.u64() == WAKE {
                let mut count = [0; 8];
                // EAGAIN: another wait has emptied it already.
                let _ = rustix::io::read(self.shared.eventfd.as_fd(), &mut count);
            } else if data.u64() == TIME {
                let mut count = [0; 8];
                // EAGAIN: it was set anew meanwhile.
                let _ = rustix::io::read(self.timer.as_fd(), &mut count);
            } else {
                ready.push(data.u64() as u32);
            }
        }
        Ok(sleeps)
    }
}

fn spec(time: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}

impl Waker {
    /// To be called after the push that the router should see.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.0.asleep.swap(false, Ordering::SeqCst) {
            // The counter cannot overflow: one write for each sleep.
            let _ = rustix::io::write(self.0.eventfd.as_fd(), &1u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn short_sleeps_are_short_and_long_ones_never_too_long() {
        let poller = Poller::new().expect("epoll");
        let mut ready = Vec::new();
        // The best of many, because the machine may be busy: under a millisecond, which epoll alone cannot do.
        let best = (0..50).map(|_| {
            let start = std::time::Instant::now();
            assert!(poller.wait(Some(Duration::from_micros(150)), || true, &mut ready).expect("wait"));
            start.elapsed()
        });
        let best = best.min().expect("some");
        assert!((Duration::from_micros(150)..Duration::from_micros(900)).contains(&best), "{best:?}");
        // In parts, as its caller does.
        let end = std::time::Instant::now() + Duration::from_millis(120);
        let mut parts = 0;
        while let Some(left) = end.checked_duration_since(std::time::Instant::now()).filter(|left| !left.is_zero()) {
            poller.wait(Some(left), || true, &mut ready).expect("wait");
            parts += 1;
        }
        assert!(parts <= 4, "{parts} parts");
    }

    #[test]
    fn every_push_is_seen_however_push_and_sleep_interleave() {
        const PUSHES: u32 = 20_000;
        let poller = Poller::new().expect("epoll");
        let pushed = Arc::new(AtomicU32::new(0));
        let (producer, waker) = (pushed.clone(), poller.waker());
        let thread = std::thread::spawn(move || {
            for _ in 0..PUSHES {
                producer.fetch_add(1, Ordering::Release);
                waker.wake();
            }
        });
        let mut seen = 0;
        let mut ready = Vec::new();
        while seen < PUSHES {
            // No timeout: a lost wake-up would hang the test.
            poller.wait(None, || pushed.load(Ordering::Acquire) == seen, &mut ready).expect("wait");
            seen = pushed.load(Ordering::Acquire);
        }
        thread.join().expect("producer");
    }

    #[test]
    fn a_readable_descriptor_is_named_by_its_token() {
        let poller = Poller::new().expect("epoll");
        let (a, b) = std::os::unix::net::UnixStream::pair().expect("pair");
        poller.add(a.as_fd(), 7).expect("add");
        let mut ready = Vec::new();
        poller.wait(Some(Duration::ZERO), || true, &mut ready).expect("wait");
        assert!(ready.is_empty());
        rustix::io::write(&b, b"x").expect("write");
        assert!(poller.wait(None, || true, &mut ready).expect("wait"));
        assert_eq!(ready, [7]);
        poller.remove(a.as_fd()).expect("remove");
        poller.wait(Some(Duration::from_millis(1)), || true, &mut ready).expect("wait");
        assert!(ready.is_empty());
    }
}
