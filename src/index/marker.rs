//! Whether the index was left in order, and by whom.
//!
//! After a crash of the process the kernel still has what sled wrote: the index goes on from its
//! watermark. After a loss of power sled may open without an error and have holes; the boot id tells
//! the two apart. The marker also names the index format and a check of the key that the terms are
//! hashed with: an index made with another key finds nothing, so it is made again.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::error::StoreError;
use super::key::TermHasher;
use super::partition::Layout;
use super::seal;
use crate::mail::TenantName;
use crate::proc::proc_root;
use crate::segment::{create_dir_durable, fsync_dir, write_file_durable};

/// Layout of everything under the index directory. Another one is removed and made again.
const FORMAT: u32 = 1;

/// Below [`proc_root`].
const BOOT_ID: &str = "sys/kernel/random/boot_id";

/// What this process writes into the marker.
#[derive(Debug)]
pub(crate) struct Marker {
    /// Format and key.
    head: String,
    boot: String,
}

impl Marker {
    /// What this process would write.
    pub(crate) fn new(hasher: &TermHasher) -> Self {
        let check = hasher.hash(&TenantName::new(""), b"which key is this");
        Self {
            head: format!("clawback index {FORMAT} key {check:016x}"),
            // Without a boot id every unclean stop counts as a loss of power.
            boot: fs::read_to_string(proc_root().join(BOOT_ID))
                .map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned()),
        }
    }

    /// Looks at what the last process left, and removes what cannot be relied on. Needs no space.
    pub(crate) fn remove_doubtful(&self, layout: &Layout) -> Result<(), StoreError> {
        let found = fs::read_to_string(layout.marker()).unwrap_or_default();
        let mut lines = found.lines();
        let (head, boot, state) = (lines.next(), lines.next(), lines.next());
        if head != Some(&*self.head) {
            for directory in [layout.runs(), layout.opens()] {
                seal::remove_open(&directory)?;
            }
        } else if state != Some("closed") && (boot != Some(&*self.boot) || self.boot == "unknown") {
            seal::remove_open(&layout.opens())?;
        }
        Ok(())
    }

    /// Marks the index as being in use: before anything is written there.
    pub(crate) fn take(&self, layout: &Layout) -> Result<(), StoreError> {
        for directory in [layout.runs(), layout.opens()] {
            create_dir_durable(&directory).map_err(StoreError::io(&directory))?;
        }
        self.write(layout, "open")
    }

    /// Syncs what sled has written and marks the index as closed.
    pub(crate) fn leave_in_order(&self, layout: &Layout) -> Result<(), StoreError> {
        let opens = layout.opens();
        sync_tree(&opens).map_err(StoreError::io(&opens))?;
        self.write(layout, "closed")
    }

    fn write(&self, layout: &Layout, state: &str) -> Result<(), StoreError> {
        let path = layout.marker();
        let text = format!("{}\n{}\n{state}\n", self.head, self.boot);
        write_file_durable(&path, text.as_bytes()).map_err(StoreError::io(&path))
    }
}

/// Makes all files below a directory, and their names, durable.
fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    fsync_dir(path)
}
