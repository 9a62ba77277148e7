//! Queues: messages in order, what is visible when, receipts, retention. Time comes as an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::message::Message;

/// Bytes that the messages of all queues of a lab may hold: AWS has no bound, this machine has.
const MAX_HELD: usize = 512 * 1024 * 1024;
/// Queues of one account and region in a lab; as above.
const MAX_QUEUES: usize = 10_000;
/// Tags of a queue (Amazon SQS Developer Guide, "Queue quotas").
pub(super) const MAX_TAGS: usize = 50;
/// Messages of a queue that may be in flight (Amazon SQS Developer Guide, "Queue quotas").
const MAX_IN_FLIGHT: usize = 120_000;
/// How long a FIFO queue remembers a deduplication id, milliseconds.
const DEDUPLICATION_MS: u64 = 300_000;

/// All queues, by account and region, then name.
#[derive(Debug, Default)]
pub(super) struct Store {
    queues: Mutex<BTreeMap<Place, BTreeMap<String, Arc<Queue>>>>,
    /// Bytes of the messages of all queues.
    held: Arc<AtomicUsize>,
}

/// Account and region.
pub(super) type Place = (String, String);

impl Store {
    pub(super) fn find(&self, place: &Place, name: &str) -> Option<Arc<Queue>> {
        self.lock().get(place)?.get(name).cloned()
    }

    /// The queue of this name, made with `make` if there is none; whether it was made.
    ///
    /// # Errors
    /// There are [`MAX_QUEUES`] already.
    pub(super) fn find_or_make(
        &self,
        place: &Place,
        name: &str,
        make: impl FnOnce() -> Queue,
    ) -> Result<(Arc<Queue>, bool), Full> {
        let mut all = self.lock();
        let queues = all.entry(place.clone()).or_default();
        if let Some(found) = queues.get(name) {
            return Ok((Arc::clone(found), false));
        }
        if queues.len() >= MAX_QUEUES {
            return Err(Full);
        }
        let made = make();
        made.lock().held = Arc::clone(&self.held);
        let made = Arc::new(made);
        queues.insert(name.to_owned(), Arc::clone(&made));
        Ok((made, true))
    }

    pub(super) fn remove(&self, place: &Place, name: &str) -> bool {
        self.lock().get_mut(place).is_some_and(|queues| queues.remove(name).is_some())
    }

    /// In the order of their names.
    pub(super) fn list(&self, place: &Place) -> Vec<Arc<Queue>> {
        self.lock().get(place).map_or_else(Vec::new, |queues| queues.values().cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, BTreeMap<String, Arc<Queue>>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) created: u64,
    inner: Mutex<Inner>,
    /// A message became visible.
    pub(super) arrived: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    /// As set or by default; computed ones are not here.
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) modified: u64,
    pub(super) purged_ms: Option<u64>,
    messages: BTreeMap<u64, Message>,
    /// `(visible_ms, seq)` of every message.
    by_visibility: BTreeSet<(u64, u64)>,
    /// [`Message::held`] of all messages.
    bytes: usize,
    /// The same of all queues of the store.
    held: Arc<AtomicUsize>,
    next_seq: u64,
    next_receipt: u64,
    /// FIFO: deduplication id to when, which message and its number. Bounded by what can be sent in five minutes.
    deduplication: HashMap<String, (u64, String, u64)>,
}

/// Why a message was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What a receiver gets.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<(u64, Message)>,
    /// Received too often: to be moved to the dead-letter queue.
    pub(super) dead: Vec<Message>,
    pub(super) over_limit: bool,
}

impl Queue {
    pub(super) fn new(place: Place, name: &str, now_s: u64, attributes: BTreeMap<String, String>) -> Queue {
        let inner = Inner { attributes, modified: now_s, ..Inner::default() };
        Queue { place, name: name.to_owned(), created: now_s, inner: Mutex::new(inner), arrived: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn arn(&self) -> String {
        format!("arn:aws:sqs:{}:{}:{}", self.place.1, self.place.0, self.name)
    }

    pub(super) fn fifo(&self) -> bool {
        self.name.ends_with(".fifo")
    }
}

impl Inner {
    /// A numeric attribute; they are checked when set.
    pub(super) fn number(&self, attribute: &str) -> u64 {
        self.attributes.get(attribute).and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    pub(super) fn push(&mut self, message: Message) -> Result<u64, Full> {
        let bytes = message.held();
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > MAX_HELD {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Full);
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        self.bytes += bytes;
        self.by_visibility.insert((message.visible_ms, seq));
        self.messages.insert(seq, message);
        Ok(seq)
    }

    /// The message that was sent with this deduplication id in the last five minutes.
    pub(super) fn duplicate(&mut self, id: &str, now_ms: u64) -> Option<(String, u64)> {
        self.deduplication.retain(|_, (at, ..)| *at + DEDUPLICATION_MS > now_ms);
        self.deduplication.get(id).map(|(_, message, seq)| (message.clone(), *seq))
    }

    pub(super) fn remember(&mut self, id: String, now_ms: u64, message: String, seq: u64) {
        self.deduplication.insert(id, (now_ms, message, seq));
    }

    /// Takes up to `max` visible messages out of sight for `hidden_ms`. In a FIFO queue a group waits for its messages
    /// in flight. `max_receives`: of a redrive policy.
    pub(super) fn receive(
        &mut self,
        now_ms: u64,
        max: usize,
        hidden_ms: u64,
        fifo: bool,
        max_receives: Option<u32>,
    ) -> Batch {
        self.retire(now_ms);
        let mut batch = Batch::default();
        let candidates: Vec<u64> = if fifo {
            self.fifo_candidates(now_ms, max)
        } else {
            if self.in_flight(now_ms) >= MAX_IN_FLIGHT {
                batch.over_limit = true;
                return batch;
            }
            self.by_visibility.range(..=(now_ms, u64::MAX)).map(|(_, seq)| *seq).take(max).collect()
        };
        for seq in candidates {
            let count = self.messages.get(&seq).map_or(0, |m| m.receive_count);
            if max_receives.is_some_and(|most| count >= most) {
                batch.dead.extend(self.remove(seq));
                continue;
            }
            self.next_receipt += 1;
            let receipt = self.next_receipt;
            self.show_at(seq, now_ms + hidden_ms);
            if let Some(message) = self.messages.get_mut(&seq) {
                message.receive_count += 1;
                message.first_received_ms.get_or_insert(now_ms);
                message.receipt = receipt;
                batch.messages.push((seq, message.clone()));
            }
        }
        batch
    }

    fn fifo_candidates(&self, now_ms: u64, max: usize) -> Vec<u64> {
        let mut waiting: HashSet<&str> = HashSet::new();
        let mut taken = Vec::new();
        for (seq, message) in &self.messages {
            let group = message.group.as_deref().unwrap_or("");
            if taken.len() == max {
                break;
            }
            if waiting.contains(group) {
                continue;
            }
            if message.visible_ms > now_ms {
                waiting.insert(group);
            } else {
                taken.push(*seq);
            }
        }
        taken
    }

    /// When the next hidden message comes into sight; `None` if there is none.
    pub(super) fn next_visible_ms(&self, now_ms: u64) -> Option<u64> {
        self.by_visibility.range((now_ms + 1, 0)..).next().map(|(at, _)| *at)
    }

    /// Whether the receipt is of this queue: a number that was given out. Deleting twice is no error.
    pub(super) fn delete(&mut self, seq: u64) {
        self.remove(seq);
    }

    /// Whether a message is in flight under this receipt.
    pub(super) fn in_flight_as(&self, seq: u64, receipt: u64, now_ms: u64) -> bool {
        self.messages.get(&seq).is_some_and(|m| m.receipt == receipt && m.visible_ms > now_ms)
    }

    /// Moves the moment at which a message comes into sight.
    pub(super) fn show_at(&mut self, seq: u64, at_ms: u64) {
        if let Some(message) = self.messages.get_mut(&seq) {
            self.by_visibility.remove(&(message.visible_ms, seq));
            message.visible_ms = at_ms;
            self.by_visibility.insert((at_ms, seq));
        }
    }

    pub(super) fn given_out(&self, seq: u64, receipt: u64) -> bool {
        seq < self.next_seq && (1..=self.next_receipt).contains(&receipt)
    }

    pub(super) fn purge(&mut self) {
        self.messages.clear();
        self.by_visibility.clear();
        self.release(self.bytes);
    }

    fn release(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Visible, in flight, delayed.
    pub(super) fn counts(&mut self, now_ms: u64) -> (usize, usize, usize) {
        self.retire(now_ms);
        let visible = self.by_visibility.range(..=(now_ms, u64::MAX)).count();
        let hidden = self.by_visibility.range((now_ms + 1, 0)..).filter_map(|(_, seq)| self.messages.get(seq));
        let delayed = hidden.filter(|m| m.receive_count == 0).count();
        (visible, self.messages.len() - visible - delayed, delayed)
    }

    fn in_flight(&self, now_ms: u64) -> usize {
        if self.messages.len() < MAX_IN_FLIGHT {
            return 0;
        }
        self.by_visibility.range((now_ms + 1, 0)..).count()
    }

    /// Drops what is older than the retention period.
    fn retire(&mut self, now_ms: u64) {
        let retention = self.number("MessageRetentionPeriod") * 1_000;
        while let Some((seq, message)) = self.messages.first_key_value() {
            if message.sent_ms + retention > now_ms {
                break;
            }
            let seq = *seq;
            self.remove(seq);
        }
    }

    fn remove(&mut self, seq: u64) -> Option<Message> {
        let message = self.messages.remove(&seq)?;
        self.by_visibility.remove(&(message.visible_ms, seq));
        self.release(message.held());
        Some(message)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.lock().purge();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str, group: Option<&str>) -> Message {
        Message {
            id: body.into(),
            body: body.into(),
            attributes: Vec::new(),
            sender: String::new(),
            sent_ms: 1_000,
            first_received_ms: None,
            receive_count: 0,
            visible_ms: 1_000,
            receipt: 0,
            group: group.map(str::to_owned),
            deduplication: None,
            trace_header: None,
        }
    }

    fn inner() -> Inner {
        let attributes = [("MessageRetentionPeriod".to_owned(), "60".to_owned())].into();
        Inner { attributes, ..Inner::default() }
    }

    fn bodies(batch: &Batch) -> Vec<&str> {
        batch.messages.iter().map(|(_, m)| m.body.as_str()).collect()
    }

    #[test]
    fn a_received_message_is_hidden_comes_back_and_ends_in_the_dead_letter_queue() {
        let mut q = inner();
        q.push(message("a", None)).unwrap();
        q.push(message("b", None)).unwrap();
        assert_eq!(bodies(&q.receive(1_000, 1, 30_000, false, Some(2))), ["a"]);
        assert_eq!(bodies(&q.receive(1_000, 10, 30_000, false, Some(2))), ["b"]);
        assert_eq!(q.counts(1_000), (0, 2, 0));
        assert_eq!(q.next_visible_ms(1_000), Some(31_000));
        let again = q.receive(31_000, 10, 1_000, false, Some(2));
        assert_eq!(bodies(&again), ["a", "b"]);
        let (seq, a) = &again.messages[0];
        assert!(q.in_flight_as(*seq, a.receipt, 31_500) && !q.in_flight_as(*seq, a.receipt, 32_000));
        q.delete(*seq);
        let last = q.receive(32_000, 10, 1_000, false, Some(2));
        assert!(last.messages.is_empty());
        assert_eq!(last.dead.iter().map(|m| m.body.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!((q.bytes, q.counts(32_000)), (0, (0, 0, 0)));
    }

    #[test]
    fn a_fifo_group_waits_for_its_message_in_flight() {
        let mut q = inner();
        for (body, group) in [("a1", "a"), ("b1", "b"), ("a2", "a")] {
            q.push(message(body, Some(group))).unwrap();
        }
        assert_eq!(bodies(&q.receive(1_000, 1, 5_000, true, None)), ["a1"]);
        let second = q.receive(1_000, 10, 5_000, true, None);
        assert_eq!(bodies(&second), ["b1"], "a2 waits for a1");
        q.delete(0);
        assert_eq!(bodies(&q.receive(1_000, 10, 5_000, true, None)), ["a2"]);
    }

    #[test]
    fn messages_retire_after_the_retention_period_and_a_full_queue_takes_no_more() {
        let mut q = inner();
        q.push(message("a", None)).unwrap();
        assert_eq!(q.counts(60_999), (1, 0, 0));
        assert_eq!(q.counts(61_000), (0, 0, 0));
        q.held.store(MAX_HELD, Ordering::Relaxed);
        assert_eq!(q.push(message("b", None)), Err(Full));
        assert_eq!(q.held.load(Ordering::Relaxed), MAX_HELD);
    }

    #[test]
    fn all_queues_share_one_bound_and_give_back_what_they_held() {
        let store = Store::default();
        let place = ("1".to_owned(), "eu-west-1".to_owned());
        let make =
            |name: &str| store.find_or_make(&place, name, || Queue::new(place.clone(), name, 0, inner().attributes));
        let (a, b) = (make("a").unwrap().0, make("b").unwrap().0);
        a.lock().push(message("1", None)).unwrap();
        b.lock().push(message("2", None)).unwrap();
        assert_eq!(store.held.load(Ordering::Relaxed), 2 * message("1", None).held());
        a.lock().purge();
        assert_eq!(store.held.load(Ordering::Relaxed), message("2", None).held());
        assert!(store.remove(&place, "b"));
        drop(b);
        assert_eq!(store.held.load(Ordering::Relaxed), 0);
        for n in 1..MAX_QUEUES {
            make(&n.to_string()).unwrap();
        }
        assert!(make("one-more").is_err());
        assert!(!make("a").unwrap().1, "what is there is found");
    }
}
