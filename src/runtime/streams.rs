//! Replies without a foreseeable end: captures and traces. The thread of the connection writes what the router's tap
//! hands it, until enough was seen, the time is over, the client has enough, or the lab ends.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::node::Shared;
use super::router::RouterGone;
use super::tap::Feed;
use crate::control::api::{self, MAX_BLOCK, Reply, StreamEnd, WatchAsk};
use crate::control::watch::{self, CaptureFile};
use crate::model::Plan;
use crate::observe::Sight;

/// How long nothing may come before the client is looked after.
const GLANCE: Duration = Duration::from_millis(100);

/// A block is sent when it is this long, or nothing more waits. A superframe and its comments fit behind it.
const BLOCK: usize = MAX_BLOCK / 4;

/// What is told of each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Capture,
    Trace,
}

/// Serves one stream, from its reply to its end.
///
/// Errors: those of the connection.
pub fn serve(stream: &UnixStream, shared: &Shared, told: Told, ask: WatchAsk) -> io::Result<()> {
    let mut to = stream;
    let (count, millis) = (ask.count.unwrap_or(u64::MAX), ask.millis);
    let wish = ask.clone();
    let begun = shared.router.call(move |inside| {
        let plan = inside.tables.plan.clone();
        let feed = inside.ports.taps.add(&plan, ask, told == Told::Trace)?;
        Ok::<_, String>((plan, feed))
    });
    let (plan, feed) = match begun {
        Ok(Ok(begun)) => begun,
        Ok(Err(message)) => return api::write_message(&mut to, &Reply::Failed { message, exit: 2 }),
        Err(gone) => return api::write_message(&mut to, &Reply::Failed { message: gone.to_string(), exit: 3 }),
    };
    let mut tap = Registered { shared, feed, ended: false };
    api::write_message(&mut to, &Reply::Stream)?;

    let mut teller = Teller::new(told, &wish, shared);
    let mut block = Vec::new();
    teller.begin(&plan, &tap.feed, &mut block);
    write_block(to, &mut block)?;
    let deadline = millis.map(|ms| Instant::now() + Duration::from_millis(ms));
    let mut end = StreamEnd::default();
    while end.seen < count {
        let left = deadline.map_or(GLANCE, |at| at.saturating_duration_since(Instant::now()).min(GLANCE));
        let mut next = match tap.feed.next(left) {
            Err(RouterGone) => break,
            Ok(None) if left.is_zero() || has_enough(stream) => break,
            Ok(next) => next,
        };
        while let Some((plan, sight)) = next {
            end.lost += sight.lost;
            end.seen += teller.tell(&plan, &sight, &mut block);
            if teller.is_one_each() || block.len() >= BLOCK {
                write_block(to, &mut block)?;
            }
            next = if end.seen < count { tap.feed.next(Duration::ZERO).unwrap_or(None) } else { None };
        }
        write_block(to, &mut block)?;
        if deadline.is_some_and(|at| Instant::now() >= at) {
            break;
        }
    }
    end.lost += tap.end();
    to.write_all(&0u32.to_le_bytes())?;
    api::write_message(&mut to, &end)
}

/// Takes its tap away, however the stream ends.
struct Registered<'a> {
    shared: &'a Shared,
    feed: Feed,
    ended: bool,
}

impl Registered<'_> {
    /// What it lost after the last packet it told.
    fn end(&mut self) -> u64 {
        self.ended = true;
        let id = self.feed.id;
        self.shared.router.call(move |inside| inside.ports.taps.remove(id)).unwrap_or(0)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
        }
    }
}

/// Turns what was seen into bytes of blocks.
struct Teller<'a> {
    told: Told,
    text: bool,
    snaplen: u32,
    file: Option<CaptureFile>,
    shared: &'a Shared,
}

impl<'a> Teller<'a> {
    fn new(told: Told, ask: &WatchAsk, shared: &'a Shared) -> Teller<'a> {
        Teller { told, text: ask.text, snaplen: ask.snaplen.unwrap_or(0), file: None, shared }
    }

    fn begin(&mut self, plan: &Arc<Plan>, feed: &Feed, out: &mut Vec<u8>) {
        if self.told == Told::Capture && !self.text {
            self.file = Some(CaptureFile::begin(plan, &feed.watch, self.snaplen, out));
        }
    }

    /// How many packets that was.
    fn tell(&mut self, plan: &Plan, sight: &Sight, out: &mut Vec<u8>) -> u64 {
        let ns = self.shared.clock.unix_ns(sight.at);
        if let Some(file) = &mut self.file {
            return file.add(plan, sight, ns, out);
        }
        if self.told == Told::Trace {
            let Some(row) = watch::trace_row(plan, sight, ns / 1_000_000) else { return 0 };
            return serde_json::to_writer(out, &row).map_or(0, |()| 1);
        }
        let (secs, micros) = (ns / 1_000_000_000, ns / 1_000 % 1_000_000);
        let (_, _, _, h, m, s) = crate::base::UnixTime(secs).civil();
        let line = format!("{h:02}:{m:02}:{s:02}.{micros:06} {}\n", watch::line(plan, sight));
        out.extend_from_slice(line.as_bytes());
        1
    }

    /// A block for each packet.
    fn is_one_each(&self) -> bool {
        self.told == Told::Trace
    }
}

/// Sends what is there, in blocks of bounded size, and forgets it.
fn write_block(mut to: &UnixStream, block: &mut Vec<u8>) -> io::Result<()> {
    for part in block.chunks(MAX_BLOCK) {
        to.write_all(&(part.len() as u32).to_le_bytes())?;
        to.write_all(part)?;
    }
    block.clear();
    Ok(())
}

/// The client has shut down its sending half, or is gone.
fn has_enough(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::RDHUP)];
    let none = Timespec { tv_sec: 0, tv_nsec: 0 };
    let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    poll(&mut fds, Some(&none)).is_ok_and(|_| fds[0].revents().intersects(gone))
}
