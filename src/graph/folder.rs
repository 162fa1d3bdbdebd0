//! Well-known folders: names that mean the same folder in every mailbox and language.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A folder that Graph knows by name (Graph reference, `mailFolder`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WellKnown {
    /// Where mail arrives.
    Inbox,
    /// Junk Email.
    JunkEmail,
    /// Deleted Items.
    DeletedItems,
    /// Recoverable Items \ Deletions: what "Recover deleted items" shows to the user.
    RecoverableItemsDeletions,
}

impl WellKnown {
    /// The name that stands in a path or as `destinationId`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::JunkEmail => "junkemail",
            Self::DeletedItems => "deleteditems",
            Self::RecoverableItemsDeletions => "recoverableitemsdeletions",
        }
    }
}

impl fmt::Display for WellKnown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Id of a folder. Folder ids are constant and compared as they stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FolderId(pub String);

impl fmt::Display for FolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
