//! Group commit: many sessions, one `fdatasync`.
//!
//! Sessions enqueue frames and wait; one thread takes all that is there, writes it with one call,
//! syncs it with one more, and only then tells each of them. While one sync runs the next group
//! gathers by itself, so no timer is needed. What was committed goes on to the indexer through a
//! bounded [`Feed`].
//!
//! Promises to the receiver (a `250` rests on the first):
//!
//! - positions are given out only after `fdatasync` returned 0;
//! - frames of one append stand next to each other, appends in the order of their enqueueing;
//! - after an error none of the append's frames counts, and the next append tries anew.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use metrics::{counter, histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::error;

use super::feed::{self, Bounds, Sender};
pub use super::feed::{Committed, Feed};
use super::log::{Frame, Log, Position};
use crate::segment::{AppendError, MAX_PAYLOAD, Writer};
use crate::telemetry::metric;

/// Appends that one group takes.
const GROUP_APPENDS: usize = 1024;
/// Octets of frames that one group takes (the append that passes it included).
const GROUP_OCTETS: usize = 4 << 20;
/// Octets of frames that wait or are being written; more wait with their sessions.
const QUEUED_OCTETS: usize = 4 * GROUP_OCTETS;
/// What waits for the indexer.
const FEED: Bounds = Bounds {
    entries: 64 * 1024,
    octets: 32 << 20,
};

/// Why an append was not committed. The peer is told to try again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// No space: answer 452.
    #[error("no space left for the report log: {0}")]
    Full(#[source] Arc<io::Error>),
    /// The write or the sync failed: answer 451.
    #[error("the report log could not be written: {0}")]
    Sync(#[source] Arc<io::Error>),
    /// A frame is longer than a log can hold; the same append will never succeed.
    #[error("a frame of {octets} octets is over the limit of {MAX_PAYLOAD}")]
    TooLong {
        /// Octets of the frame's payload.
        octets: usize,
    },
    /// The service is shutting down: answer 421 or 451.
    #[error("the report log is closed")]
    Closed,
}

impl From<AppendError> for CommitError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full(source) => Self::Full(Arc::new(source)),
            AppendError::Failed(source) => Self::Sync(Arc::new(source)),
            AppendError::TooLong { octets } => Self::TooLong { octets },
        }
    }
}

/// Handle to the committing thread; clones share it.
#[derive(Debug, Clone)]
pub struct Committer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: mpsc::Sender<Command>,
    octets: Arc<Semaphore>,
    rotation: Arc<AtomicU32>,
    committed: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
enum Command {
    Append(Request),
    /// Look at the rotation even if nobody appends.
    Wake,
    Stop,
}

#[derive(Debug)]
struct Request {
    frames: Vec<Frame>,
    answer: oneshot::Sender<Result<Vec<Position>, CommitError>>,
    /// Given back when the frames have left for the feed.
    room: OwnedSemaphorePermit,
}

/// An append that is queued. Dropping it does not take it back.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Vec<Position>, CommitError>>);

impl Future for Pending {
    type Output = Result<Vec<Position>, CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(CommitError::Closed)))
    }
}

impl Committer {
    /// Starts the thread. It appends to `partition`, or to the log's newest one if that is later.
    ///
    /// Nothing is written before the first append: on a full disk this succeeds, and appends answer
    /// [`CommitError::Full`] until there is space.
    ///
    /// # Errors
    ///
    /// The system gave no thread.
    pub fn start(log: Arc<Log>, partition: u32) -> io::Result<(Self, Feed)> {
        Self::start_with(Writer::new(log, partition), FEED)
    }

    fn start_with(writer: Writer, bounds: Bounds) -> io::Result<(Self, Feed)> {
        let (queue, commands) = mpsc::channel(GROUP_APPENDS);
        let (sender, feed) = feed::channel(bounds);
        let rotation = Arc::new(AtomicU32::new(writer.partition()));
        let committed = Arc::new(AtomicU64::new(0));
        let worker = Worker {
            commands,
            writer,
            sender,
            rotation: Arc::clone(&rotation),
            committed: Arc::clone(&committed),
        };
        let thread = thread::Builder::new()
            .name("commit".to_owned())
            .spawn(move || worker.run())?;
        let shared = Shared {
            queue,
            octets: Arc::new(Semaphore::new(QUEUED_OCTETS)),
            rotation,
            committed,
            thread: Mutex::new(Some(thread)),
        };
        Ok((Self(Arc::new(shared)), feed))
    }

    /// Commits the frames: returns when they are on stable storage, next to each other, in order.
    ///
    /// # Errors
    ///
    /// [`CommitError`]: none of the frames counts.
    pub async fn append(&self, frames: Vec<Frame>) -> Result<Vec<Position>, CommitError> {
        self.enqueue(frames).await?.await
    }

    /// Queues the frames, waiting for room in the queue only; the result is told by the [`Pending`].
    ///
    /// This is how a long report is written while it streams in: its recipients are enqueued in
    /// chunks without waiting for their sync, and before the report is acknowledged all pendings are
    /// awaited (mostly the last frame's sync has covered them). If one of them failed, the report is
    /// not acknowledged; chunks without their final frame mean nothing to a reader.
    ///
    /// # Errors
    ///
    /// [`CommitError::TooLong`] and [`CommitError::Closed`].
    pub async fn enqueue(&self, frames: Vec<Frame>) -> Result<Pending, CommitError> {
        if let Some(long) = frames.iter().find(|f| f.payload.len() > MAX_PAYLOAD) {
            let octets = long.payload.len();
            return Err(CommitError::TooLong { octets });
        }
        let octets: usize = frames.iter().map(Frame::octets).sum();
        let permits = u32::try_from(octets.min(QUEUED_OCTETS)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.0.octets).acquire_many_owned(permits).await;
        let (answer, pending) = oneshot::channel();
        let request = Request {
            frames,
            answer,
            room: permit.map_err(|_| CommitError::Closed)?,
        };
        let sent = self.0.queue.send(Command::Append(request)).await;
        sent.map_err(|_| CommitError::Closed)?;
        Ok(Pending(pending))
    }

    /// Frames appended from now on go to this partition (those that are queued may still go to the
    /// current one). Does not wait; the feed tells when the old partition is closed. Ignored if the
    /// number is not above the current one.
    pub fn rotate(&self, partition: u32) {
        self.0.rotation.fetch_max(partition, Ordering::AcqRel);
        // A full queue wakes the thread by itself.
        let _ = self.0.queue.try_send(Command::Wake);
    }

    /// Frames committed since the start, counted before their sessions are told. A reader that waits
    /// until the indexer took as many frames from the feed sees everything acknowledged before.
    pub fn committed(&self) -> u64 {
        self.0.committed.load(Ordering::Acquire)
    }

    /// Commits what is queued and ends the thread; later appends get [`CommitError::Closed`]. Blocks
    /// until it is done, the feed taken: not to be called from an async task.
    pub fn shut_down(&self) {
        let thread = self
            .0
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(thread) = thread else {
            return;
        };
        // Fails only if the thread has ended.
        let _ = self.0.queue.blocking_send(Command::Stop);
        if thread.join().is_err() {
            error!("the committing thread panicked; what it acknowledged is safe");
        }
    }
}

/// The committing thread.
struct Worker {
    commands: mpsc::Receiver<Command>,
    writer: Writer,
    sender: Sender,
    rotation: Arc<AtomicU32>,
    committed: Arc<AtomicU64>,
}

impl Worker {
    fn run(mut self) {
        let mut stop = false;
        while !stop && let Some(first) = self.commands.blocking_recv() {
            let mut group = Vec::new();
            let mut octets = 0;
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Append(request) => {
                        octets += request.frames.iter().map(Frame::octets).sum::<usize>();
                        group.push(request);
                    }
                    Command::Wake => {}
                    Command::Stop => {
                        stop = true;
                        break;
                    }
                }
                let room = group.len() < GROUP_APPENDS && octets < GROUP_OCTETS;
                next = room.then(|| self.commands.try_recv().ok()).flatten();
            }
            self.rotate();
            if !group.is_empty() {
                self.commit(group, octets);
            }
        }
    }

    fn rotate(&mut self) {
        let wanted = self.rotation.load(Ordering::Acquire);
        let old = self.writer.partition();
        if wanted > old {
            self.writer.rotate(wanted);
            self.sender.send(Committed::PartitionClosed(old));
        }
    }

    fn commit(&mut self, group: Vec<Request>, octets: usize) {
        let started = stopwatch();
        let frames = group.iter().flat_map(|request| &request.frames);
        let positions = match self.writer.append(frames) {
            Ok(positions) => positions,
            Err(error) => return fail(group, error.into()),
        };
        histogram!(metric::COMMIT_SECONDS).record(started.elapsed());
        histogram!(metric::COMMIT_GROUP_APPENDS).record(small(group.len()));
        counter!(metric::COMMIT_OCTETS_TOTAL).increment(u64::try_from(octets).unwrap_or(u64::MAX));
        let count = u64::try_from(positions.len()).unwrap_or(u64::MAX);
        self.committed.fetch_add(count, Ordering::AcqRel);

        // First everybody is told, then the indexer gets the frames: waiting for it must not hold
        // back what is durable already.
        let mut rest = positions.as_slice();
        let mut indexed = Vec::with_capacity(group.len());
        for request in group {
            let (own, others) = rest.split_at(request.frames.len().min(rest.len()));
            rest = others;
            // A session that is gone does not want to know.
            let _ = request.answer.send(Ok(own.to_vec()));
            indexed.push((request.frames, request.room));
        }
        let mut positions = positions.into_iter();
        for (frames, room) in indexed {
            for (frame, position) in frames.into_iter().zip(&mut positions) {
                self.sender.send(Committed::Frame(position, frame));
            }
            drop(room);
        }
    }
}

fn fail(group: Vec<Request>, error: CommitError) {
    let reason = match error {
        CommitError::Full(_) => "full",
        _ => "failed",
    };
    counter!(metric::COMMIT_FAILURES_TOTAL, "reason" => reason).increment(1);
    for request in group {
        let _ = request.answer.send(Err(error.clone()));
    }
}

fn small(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a sync took is measured where it happens"
)]
fn stopwatch() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::log;
    use super::*;
    use crate::segment::Event;

    fn start(root: &Path) -> (Arc<Log>, Committer, Feed) {
        let log = Arc::new(log::open(root).unwrap());
        let (committer, feed) = Committer::start(Arc::clone(&log), 1).unwrap();
        (log, committer, feed)
    }

    fn frame(text: &str) -> Frame {
        Frame::new(1, text.as_bytes().to_vec())
    }

    fn texts(log: &Log, partition: u32) -> Vec<String> {
        log.scan(Position::start_of(partition))
            .map(|event| match event.unwrap() {
                Event::Frame(_, frame) => String::from_utf8(frame.payload).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[tokio::test]
    async fn what_was_appended_is_in_the_log_and_in_the_feed() {
        let root = tempfile::tempdir().unwrap();
        let (log, committer, feed) = start(root.path());
        let first = committer
            .enqueue(vec![frame("a1"), frame("a2")])
            .await
            .unwrap();
        let second = committer.append(vec![frame("b")]).await.unwrap();
        let mut positions = first.await.unwrap();
        positions.extend(second);
        assert_eq!(committer.committed(), 3);
        for (position, text) in positions.iter().zip(["a1", "a2", "b"]) {
            assert_eq!(log.read(*position).unwrap(), frame(text));
            let packed = Position::from_packed(position.partition, position.packed());
            assert_eq!(packed, *position);
        }
        tokio::task::spawn_blocking(move || committer.shut_down())
            .await
            .unwrap();
        let mut fed = Vec::new();
        while let Some(entries) = feed.recv(100) {
            fed.extend(entries);
        }
        let expected: Vec<_> = positions
            .into_iter()
            .zip(["a1", "a2", "b"])
            .map(|(position, text)| Committed::Frame(position, frame(text)))
            .collect();
        assert_eq!(fed, expected);
        assert_eq!(
            texts(&log::open(root.path()).unwrap(), 1),
            ["a1", "a2", "b"]
        );
    }

    #[tokio::test]
    async fn a_new_partition_is_told_after_the_old_ones_last_frame() {
        let root = tempfile::tempdir().unwrap();
        let (log, committer, feed) = start(root.path());
        let old = committer.append(vec![frame("old")]).await.unwrap()[0];
        committer.rotate(2);
        committer.rotate(1);
        let new = committer.append(vec![frame("new")]).await.unwrap()[0];
        tokio::task::spawn_blocking(move || committer.shut_down())
            .await
            .unwrap();
        let mut fed = Vec::new();
        while let Some(entries) = feed.recv(100) {
            fed.extend(entries);
        }
        assert_eq!(
            fed,
            [
                Committed::Frame(old, frame("old")),
                Committed::PartitionClosed(1),
                Committed::Frame(new, frame("new")),
            ]
        );
        assert_eq!(log.partitions(), [1, 2]);
        log.drop_partition(1).unwrap();
        let again = log::open(root.path()).unwrap();
        assert_eq!(again.partitions(), [2]);
        assert_eq!(texts(&again, 2), ["new"]);
    }

    #[tokio::test]
    async fn an_append_that_can_never_fit_fails_alone() {
        let root = tempfile::tempdir().unwrap();
        let (_, committer, _feed) = start(root.path());
        let long = vec![Frame::new(1, vec![0; MAX_PAYLOAD + 1])];
        let error = committer.append(long).await.unwrap_err();
        assert!(matches!(error, CommitError::TooLong { .. }), "{error}");
        committer
            .append(vec![Frame::new(1, vec![0; MAX_PAYLOAD])])
            .await
            .unwrap();
        committer.append(vec![frame("next")]).await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_committer_says_so() {
        let root = tempfile::tempdir().unwrap();
        let (_, committer, _feed) = start(root.path());
        let other = committer.clone();
        tokio::task::spawn_blocking(move || other.shut_down())
            .await
            .unwrap();
        let error = committer.append(vec![frame("late")]).await.unwrap_err();
        assert!(matches!(error, CommitError::Closed), "{error}");
    }
}
