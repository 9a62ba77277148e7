//! What is remembered of connections whose stack is gone. Bounded: the oldest is forgotten first.

use std::collections::{HashMap, VecDeque};

use super::Port;
use super::hash::Seeded;
use crate::base::{FiveTuple, Instant};

pub(super) type Key = (Port, FiveTuple);

/// Facts about ended connections, all kept for the same time.
pub(super) struct Remnants<T> {
    map: HashMap<Key, (T, u64), Seeded>,
    /// In the order they were added. Entries whose number is not the map's are stale.
    order: VecDeque<(Key, u64, Instant)>,
    serial: u64,
    limit: usize,
}

impl<T: Copy> Remnants<T> {
    pub(super) fn new(limit: usize, hasher: Seeded) -> Remnants<T> {
        Remnants { map: HashMap::with_hasher(hasher), order: VecDeque::new(), serial: 0, limit }
    }

    pub(super) fn add(&mut self, key: Key, fact: T, until: Instant) {
        if self.limit == 0 {
            return;
        }
        while self.order.len() >= self.limit {
            self.drop_oldest();
        }
        self.serial += 1;
        self.map.insert(key, (fact, self.serial));
        self.order.push_back((key, self.serial, until));
    }

    pub(super) fn get(&self, key: &Key) -> Option<T> {
        self.map.get(key).map(|(fact, _)| *fact)
    }

    pub(super) fn remove(&mut self, key: &Key) {
        self.map.remove(key);
    }

    /// Forgets what is due.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(_, _, until)| *until <= now) {
            self.drop_oldest();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    fn drop_oldest(&mut self) {
        if let Some((key, serial, _)) = self.order.pop_front()
            && self.map.get(&key).is_some_and(|(_, current)| *current == serial)
        {
            self.map.remove(&key);
        }
    }
}
