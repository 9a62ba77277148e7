//! Who asked for what, and what became of it: a bounded ring of the newest requests, and a live feed.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use super::world::GateKind;
use crate::base::UnixTime;

/// One request that reached a service, after it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEvent {
    pub time: UnixTime,
    /// Path of the endpoint, `VPC.NAME`; `public` where none was on the way.
    pub endpoint: String,
    /// How the service was reached.
    pub gate: GateKind,
    /// The service's short name, `sqs`.
    pub service: String,
    pub region: String,
    /// The client's address: private through an endpoint (`aws:VpcSourceIp`), public on the public side (`aws:SourceIp`).
    pub client: SocketAddrV4,
    /// ARN of who signed; `None` for an unsigned request or one whose signature was refused.
    pub principal: Option<String>,
    /// `sqs:SendMessage`; empty where the request was refused before its action was known.
    pub action: String,
    /// ARN, or empty.
    pub resource: String,
    /// HTTP status of the answer.
    pub status: u16,
    pub decision: Decision,
    pub request_id: String,
}

/// Why a request was let through or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Decision {
    /// No policy was asked: the service has none, or the request failed before.
    #[default]
    NotJudged,
    Allowed,
    /// The signature, key, token or date was refused; the AWS error code.
    BadSignature(String),
    /// A policy refused; the message the client got.
    Denied(String),
    /// The backend behind the front door failed; how.
    Backend(String),
}

/// Longest text of an event that is kept, bytes: room for a message that has the longest key of S3 (1,024) in it.
const MAX_TEXT: usize = 4_096;

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
        text.shrink_to_fit();
    }
}

/// The ring and its feed. Cheap to share.
#[derive(Debug)]
pub struct Events {
    ring: Mutex<VecDeque<Arc<ServiceEvent>>>,
    capacity: usize,
    feed: broadcast::Sender<Arc<ServiceEvent>>,
}

impl Events {
    /// Keeps the newest `capacity` events.
    pub fn new(capacity: usize) -> Events {
        let capacity = capacity.max(1);
        Events { ring: Mutex::default(), capacity, feed: broadcast::channel(capacity).0 }
    }

    /// Stores an event, displacing the oldest when full, and hands it to subscribers. What a client chose is cut to
    /// [`MAX_TEXT`]: a name may be as long as a body.
    pub fn push(&self, mut event: ServiceEvent) {
        cut(&mut event.action);
        cut(&mut event.resource);
        if let Decision::Denied(text) | Decision::BadSignature(text) | Decision::Backend(text) = &mut event.decision {
            cut(text);
        }
        let event = Arc::new(event);
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == self.capacity {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&event));
        drop(ring);
        // Nobody listening is no fault.
        let _ = self.feed.send(event);
    }

    /// The kept events, oldest first.
    pub fn recent(&self) -> Vec<Arc<ServiceEvent>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Takes the kept events, oldest first.
    pub fn drain(&self) -> Vec<Arc<ServiceEvent>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    /// Every event from now on. A subscriber that falls behind by the ring's capacity is told how many it lost.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<ServiceEvent>> {
        self.feed.subscribe()
    }
}

impl Default for Events {
    fn default() -> Events {
        Events::new(4_096)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_ring_holds_so_many_events_of_so_many_bytes() {
        let events = Events::new(2);
        for n in 0..3 {
            events.push(ServiceEvent {
                time: UnixTime(n),
                endpoint: "app.sqs".into(),
                gate: GateKind::Interface,
                service: "sqs".into(),
                region: "eu-west-1".into(),
                client: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1),
                principal: None,
                action: "sqs:SendMessage".into(),
                resource: "é".repeat(1 << 20),
                status: 403,
                decision: Decision::Denied("x".repeat(1 << 20)),
                request_id: String::new(),
            });
        }
        let kept = events.recent();
        assert_eq!(kept.iter().map(|e| e.time.0).collect::<Vec<_>>(), [1, 2]);
        assert!(kept.iter().all(|e| e.resource.capacity() < 2 * MAX_TEXT && e.action == "sqs:SendMessage"));
        assert!(matches!(&kept[0].decision, Decision::Denied(text) if text.len() < 2 * MAX_TEXT));
    }
}
