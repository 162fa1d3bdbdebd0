//! What was committed, on its way to the indexer: a queue bounded in octets and in frames.
//!
//! When it is full the committer waits, so that no more is acknowledged than the indexer can take:
//! acknowledgements slow down to its pace.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::segment::{Frame, Position};

/// Something that the committer did, in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// A frame is durable at this position.
    Frame(Position, Frame),
    /// No frame will ever be put into this partition, or one before it, again: it can be sealed.
    PartitionClosed(u32),
}

/// How much the queue holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) entries: usize,
    pub(super) octets: usize,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Committed>,
    octets: usize,
    closed: bool,
    /// Nothing is held: what comes is counted here.
    skipped: Option<Skipped>,
}

/// What the indexer did not take from the feed, and reads from the log instead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    /// How many frames.
    pub(super) frames: u64,
    /// The highest partition that was closed.
    pub(super) closed: Option<u32>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    bounds: Bounds,
}

/// The committer's end.
#[derive(Debug)]
pub(super) struct Sender(Arc<Shared>);

/// The indexer's end. Dropping it tells the committer that nobody listens: it goes on without.
#[derive(Debug)]
pub struct Feed(Arc<Shared>);

pub(super) fn channel(bounds: Bounds) -> (Sender, Feed) {
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        changed: Condvar::new(),
        bounds,
    });
    (Sender(Arc::clone(&shared)), Feed(shared))
}

impl Sender {
    /// Waits for room.
    pub(super) fn send(&self, entry: Committed) {
        let mut queue = self.0.lock();
        while !queue.closed && !self.0.has_room(&queue) {
            queue = self.0.wait(queue);
        }
        if let Some(skipped) = &mut queue.skipped {
            skipped.add(&entry);
        } else if !queue.closed {
            queue.octets += octets(&entry);
            queue.entries.push_back(entry);
            drop(queue);
            self.0.changed.notify_all();
        }
    }
}

impl Feed {
    /// At least one and at most `most` entries; waits for the first. `None`: the committer has ended
    /// and everything was taken.
    pub fn recv(&self, most: usize) -> Option<Vec<Committed>> {
        let mut queue = self.0.lock();
        while queue.entries.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.0.wait(queue);
        }
        Some(self.0.take(queue, most))
    }

    /// What is there now, at most `most` entries; perhaps nothing.
    pub fn try_recv(&self, most: usize) -> Vec<Committed> {
        self.0.take(self.0.lock(), most)
    }

    /// Passes over what waits and what comes, so that the committer never waits for an index that
    /// cannot be written.
    pub(super) fn skip(&self) {
        let mut queue = self.0.lock();
        let mut skipped = queue.skipped.unwrap_or_default();
        queue
            .entries
            .drain(..)
            .for_each(|entry| skipped.add(&entry));
        queue.octets = 0;
        queue.skipped = Some(skipped);
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Holds again what comes from now on. What was passed over is in the log by now.
    pub(super) fn resume(&self) -> Skipped {
        self.0.lock().skipped.take().unwrap_or_default()
    }

    /// Waits so long, or until the committer has ended: then `true`.
    pub(super) fn ends_within(&self, time: Duration) -> bool {
        let queue = self.0.lock();
        let waited = self
            .0
            .changed
            .wait_timeout_while(queue, time, |queue| !queue.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.0.lock().entries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Skipped {
    fn add(&mut self, entry: &Committed) {
        match entry {
            Committed::Frame(..) => self.frames += 1,
            Committed::PartitionClosed(number) => self.closed = self.closed.max(Some(*number)),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change under the lock is complete before anything can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed
            .wait(queue)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, queue: &Queue) -> bool {
        queue.entries.is_empty()
            || (queue.entries.len() < self.bounds.entries && queue.octets < self.bounds.octets)
    }

    fn take(&self, mut queue: MutexGuard<'_, Queue>, most: usize) -> Vec<Committed> {
        let most = most.max(1).min(queue.entries.len());
        let taken: Vec<Committed> = queue.entries.drain(..most).collect();
        queue.octets -= taken.iter().map(octets).sum::<usize>();
        drop(queue);
        self.changed.notify_all();
        taken
    }
}

fn octets(entry: &Committed) -> usize {
    match entry {
        Committed::Frame(_, frame) => frame.octets(),
        Committed::PartitionClosed(_) => 0,
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn entry(offset: u64) -> Committed {
        let position = Position {
            partition: 1,
            segment: 1,
            offset,
        };
        Committed::Frame(position, Frame::new(1, vec![0; 100]))
    }

    #[test]
    fn a_full_queue_waits_and_keeps_the_order() {
        for (name, bounds) in [
            (
                "entries",
                Bounds {
                    entries: 2,
                    octets: 1 << 20,
                },
            ),
            (
                "octets",
                Bounds {
                    entries: 1000,
                    octets: 200,
                },
            ),
            (
                "one entry over the bound passes",
                Bounds {
                    entries: 1,
                    octets: 1,
                },
            ),
        ] {
            let (sender, feed) = channel(bounds);
            let producer = thread::spawn(move || (0..500).for_each(|n| sender.send(entry(n))));
            let mut taken = Vec::new();
            while let Some(entries) = feed.recv(3) {
                assert!(entries.len() <= 3 && feed.len() <= 2, "{name}");
                taken.extend(entries);
            }
            producer.join().unwrap();
            assert_eq!(taken, (0..500).map(entry).collect::<Vec<_>>(), "{name}");
        }
    }

    #[test]
    fn nobody_waits_for_an_indexer_that_is_gone() {
        let (sender, feed) = channel(Bounds {
            entries: 1,
            octets: 1,
        });
        drop(feed);
        sender.send(entry(1));
        sender.send(entry(2));
    }
}
