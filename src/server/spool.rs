//! The octets of a message for as long as it is not known that nobody will need them.
//!
//! Most messages are reports that are believed: after their envelope part the octets are dropped.
//! What goes to the quarantine, or takes long to decide, is written there as it comes, encrypted;
//! a writer that is dropped before its end leaves nothing behind.

use std::io;
use std::path::PathBuf;

use crate::quarantine::{ItemId, Meta, Quarantine, QuarantineError, Writer};

/// Octets that are kept in memory before a file is begun.
pub(super) const IN_MEMORY: usize = 256 * 1024;

/// Octets that are written to a file at once.
const AT_ONCE: usize = 64 * 1024;

/// A message's octets so far.
pub(super) struct Spool {
    quarantine: Quarantine,
    /// What a file says of the message until that is known.
    meta: Meta,
    state: State,
}

enum State {
    /// All of it.
    Memory(Vec<u8>),
    /// What the writer does not have yet.
    File(Box<Writer>, Vec<u8>),
    /// Nobody needs it.
    Dropped,
}

impl Spool {
    pub(super) fn new(quarantine: Quarantine, meta: Meta) -> Self {
        Self {
            quarantine,
            meta,
            state: State::Memory(Vec::new()),
        }
    }

    /// Keeps these octets too.
    pub(super) async fn write(&mut self, octets: &[u8]) -> Result<(), QuarantineError> {
        let full = match &mut self.state {
            State::Dropped => return Ok(()),
            State::Memory(kept) => {
                kept.extend_from_slice(octets);
                kept.len() > IN_MEMORY
            }
            State::File(_, kept) => {
                kept.extend_from_slice(octets);
                kept.len() >= AT_ONCE
            }
        };
        if full { self.flush().await } else { Ok(()) }
    }

    /// Moves what is in memory to a file.
    pub(super) async fn flush(&mut self) -> Result<(), QuarantineError> {
        let (writer, mut octets) = match std::mem::replace(&mut self.state, State::Dropped) {
            State::Dropped => return Ok(()),
            State::Memory(octets) => (None, octets),
            State::File(writer, octets) => (Some(writer), octets),
        };
        let (quarantine, meta) = (self.quarantine.clone(), self.meta.clone());
        let written = blocking(move || {
            let mut writer = match writer {
                Some(writer) => writer,
                None => Box::new(quarantine.begin(meta)?),
            };
            writer.write(&octets)?;
            octets.clear();
            octets.shrink_to(AT_ONCE);
            Ok((writer, octets))
        });
        let (writer, octets) = written.await?;
        self.state = State::File(writer, octets);
        Ok(())
    }

    /// Forgets everything, and keeps nothing from now on.
    pub(super) fn drop_all(&mut self) {
        self.state = State::Dropped;
    }

    /// Puts the message into the quarantine. When this returns an id, it is on stable storage.
    pub(super) async fn quarantine(mut self, meta: Meta) -> Result<ItemId, QuarantineError> {
        self.flush().await?;
        let State::File(mut writer, _) = self.state else {
            return Err(internal(
                "the octets were dropped before the message was judged",
            ));
        };
        *writer.meta_mut() = meta;
        blocking(move || writer.finish()).await
    }

    /// Octets of memory in use.
    pub(super) fn memory(&self) -> usize {
        match &self.state {
            State::Memory(octets) | State::File(_, octets) => octets.capacity(),
            State::Dropped => 0,
        }
    }
}

/// Runs what waits for the disk where waiting hurts nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QuarantineError> + Send + 'static,
) -> Result<T, QuarantineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(internal(error)),
    }
}

/// What can only be a defect of ours, as the error that the caller knows how to answer.
fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> QuarantineError {
    QuarantineError::Io {
        path: PathBuf::new(),
        source: io::Error::other(error),
    }
}
