//! Mailboxes: folders, and copies of messages in them. A million copies fit in memory, because all copies
//! of a message share what is the same for them.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::mail::Person;

/// A message as transport knew it; shared by all its copies.
#[derive(Debug)]
pub(crate) struct Message {
    /// Message-ID as stored, with brackets if it has any.
    pub(crate) message_id: Box<str>,
    /// Subject.
    pub(crate) subject: Box<str>,
    /// `From`.
    pub(crate) from: Person,
    /// `Sender`, if it is not the same.
    pub(crate) sender: Option<Person>,
    /// `To`.
    pub(crate) to: Vec<Person>,
    /// `Cc`.
    pub(crate) cc: Vec<Person>,
    /// Bcc, which only the sender's copy shows.
    pub(crate) bcc: Vec<Person>,
    /// `Date`.
    pub(crate) sent: Timestamp,
    /// Whether files are attached.
    pub(crate) has_attachments: bool,
    /// Plain text of the body.
    pub(crate) body: Box<str>,
    /// The message as it was sent.
    pub(crate) octets: Arc<[u8]>,
    /// Network message ids, one a fork.
    pub(crate) forks: Vec<Uuid>,
    /// Joins replies.
    pub(crate) conversation: Uuid,
}

/// A message in a mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    /// What it is a copy of.
    pub(crate) message: Arc<Message>,
    /// Number in its mailbox: names it for good.
    pub(crate) item: u32,
    /// How often it was moved.
    pub(crate) generation: u16,
    /// Which fork brought it; `None` for the sender's own copy.
    pub(crate) fork: Option<u16>,
    /// Where it is.
    pub(crate) folder: FolderNumber,
    /// Read.
    pub(crate) is_read: bool,
    /// Flagged by the user.
    pub(crate) is_flagged: bool,
    /// When it arrived, in seconds since 1970.
    pub(crate) received: i64,
    /// When it was changed last, in seconds since 1970.
    pub(crate) modified: i64,
}

/// Position of a folder: [`STANDARD`] first, then the mailbox's own.
pub(crate) type FolderNumber = u16;

/// A folder that every mailbox has.
#[derive(Debug)]
pub(crate) struct Standard {
    /// The well-known name.
    pub(crate) name: &'static str,
    /// The display name.
    pub(crate) display: &'static str,
    /// The well-known name of the folder above; empty for the two roots.
    pub(crate) parent: &'static str,
    /// Hidden.
    pub(crate) hidden: bool,
}

const fn standard(
    name: &'static str,
    display: &'static str,
    parent: &'static str,
    hidden: bool,
) -> Standard {
    Standard {
        name,
        display,
        parent,
        hidden,
    }
}

/// The folders that every mailbox has; Recoverable Items is a tree of its own.
pub(crate) const STANDARD: [Standard; 20] = [
    standard("msgfolderroot", "Top of Information Store", "", false),
    standard("inbox", "Inbox", "msgfolderroot", false),
    standard("drafts", "Drafts", "msgfolderroot", false),
    standard("sentitems", "Sent Items", "msgfolderroot", false),
    standard("deleteditems", "Deleted Items", "msgfolderroot", false),
    standard("junkemail", "Junk Email", "msgfolderroot", false),
    standard("outbox", "Outbox", "msgfolderroot", false),
    standard("archive", "Archive", "msgfolderroot", false),
    standard(
        "conversationhistory",
        "Conversation History",
        "msgfolderroot",
        false,
    ),
    standard("clutter", "Clutter", "msgfolderroot", true),
    standard("syncissues", "Sync Issues", "msgfolderroot", true),
    standard("conflicts", "Conflicts", "syncissues", true),
    standard("localfailures", "Local Failures", "syncissues", true),
    standard("serverfailures", "Server Failures", "syncissues", true),
    standard("scheduled", "Scheduled", "msgfolderroot", true),
    standard("recoverableitemsroot", "Recoverable Items", "", true),
    standard(
        "recoverableitemsdeletions",
        "Deletions",
        "recoverableitemsroot",
        true,
    ),
    standard(
        "recoverableitemspurges",
        "Purges",
        "recoverableitemsroot",
        true,
    ),
    standard(
        "recoverableitemsversions",
        "Versions",
        "recoverableitemsroot",
        true,
    ),
    standard(
        "recoverableitemsdiscoveryholds",
        "DiscoveryHolds",
        "recoverableitemsroot",
        true,
    ),
];

/// Top of the visible tree.
pub(crate) const ROOT: FolderNumber = 0;
/// Inbox.
pub(crate) const INBOX: FolderNumber = 1;
/// Sent Items.
pub(crate) const SENT: FolderNumber = 3;
/// The first folder of the Recoverable Items tree.
const RECOVERABLE: FolderNumber = 15;
/// Purges.
pub(crate) const PURGES: FolderNumber = 17;
/// How many folders every mailbox has.
const STANDARD_COUNT: FolderNumber = 20;

/// Whether a folder is in the Recoverable Items tree.
pub(crate) const fn is_recoverable(folder: FolderNumber) -> bool {
    folder >= RECOVERABLE && folder < STANDARD_COUNT
}

/// The number of a well-known folder.
pub(crate) fn well_known(name: &str) -> Option<FolderNumber> {
    let found = STANDARD
        .iter()
        .position(|folder| folder.name.eq_ignore_ascii_case(name))?;
    FolderNumber::try_from(found).ok()
}

/// Whether Microsoft documents the name for Graph.
pub(crate) fn is_documented(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    !lower.starts_with("recoverableitems") || lower == "recoverableitemsdeletions"
}

/// A folder that a user made.
#[derive(Debug, Clone)]
pub(crate) struct OwnFolder {
    /// Display name.
    pub(crate) display: String,
    /// The folder above.
    pub(crate) parent: FolderNumber,
    /// Hidden.
    pub(crate) hidden: bool,
}

/// Messages and folders of one user.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    /// Sorted by item number.
    pub(crate) copies: Vec<Copy>,
    /// Folders beyond [`STANDARD`].
    pub(crate) own: Vec<OwnFolder>,
    next_item: u32,
}

impl Mailbox {
    /// Puts a copy into a folder.
    pub(crate) fn add(
        &mut self,
        message: Arc<Message>,
        fork: Option<u16>,
        folder: FolderNumber,
        received: Timestamp,
    ) -> u32 {
        self.next_item += 1;
        if self.copies.is_empty() {
            // Most of a million mailboxes hold one message in a load test.
            self.copies.reserve_exact(1);
        }
        let received = received.as_second();
        let is_read = fork.is_none();
        self.copies.push(Copy {
            message,
            item: self.next_item,
            generation: 0,
            fork,
            folder,
            is_read,
            is_flagged: false,
            received,
            modified: received,
        });
        self.next_item
    }

    /// The copy with this number.
    pub(crate) fn copy(&self, item: u32) -> Option<&Copy> {
        self.copies
            .binary_search_by_key(&item, |copy| copy.item)
            .ok()
            .and_then(|at| self.copies.get(at))
    }

    /// The copy with this number, to be changed.
    pub(crate) fn copy_mut(&mut self, item: u32) -> Option<&mut Copy> {
        let at = self
            .copies
            .binary_search_by_key(&item, |copy| copy.item)
            .ok()?;
        self.copies.get_mut(at)
    }

    /// Removes a copy for good.
    pub(crate) fn remove(&mut self, item: u32) {
        self.copies.retain(|copy| copy.item != item);
    }

    /// Duplicates a copy into a folder and gives the number of the new one.
    pub(crate) fn duplicate(&mut self, item: u32, folder: FolderNumber) -> Option<u32> {
        let copy = self.copy(item)?.clone();
        self.next_item += 1;
        self.copies.push(Copy {
            item: self.next_item,
            generation: 0,
            folder,
            ..copy
        });
        Some(self.next_item)
    }

    /// Makes a folder and gives its number.
    pub(crate) fn add_folder(
        &mut self,
        display: &str,
        parent: FolderNumber,
        hidden: bool,
    ) -> FolderNumber {
        self.own.push(OwnFolder {
            display: display.into(),
            parent,
            hidden,
        });
        STANDARD_COUNT + FolderNumber::try_from(self.own.len() - 1).unwrap_or(0)
    }

    /// The folder with a well-known name or, below the top, this display name; made if it is missing.
    pub(crate) fn folder_named(&mut self, name: &str) -> FolderNumber {
        well_known(name)
            .or_else(|| self.own_named(name))
            .unwrap_or_else(|| self.add_folder(name, ROOT, false))
    }

    /// The user's folder with this display name.
    pub(crate) fn own_named(&self, display: &str) -> Option<FolderNumber> {
        let at = self
            .own
            .iter()
            .position(|folder| folder.display == display)?;
        FolderNumber::try_from(at)
            .ok()
            .map(|at| STANDARD_COUNT + at)
    }

    /// Whether there is a folder with this number.
    pub(crate) fn has_folder(&self, folder: FolderNumber) -> bool {
        usize::from(folder) < STANDARD.len() + self.own.len()
    }

    /// All folder numbers.
    pub(crate) fn folders(&self) -> impl Iterator<Item = FolderNumber> + use<> {
        0..STANDARD_COUNT + FolderNumber::try_from(self.own.len()).unwrap_or(0)
    }

    /// Display name, folder above (`None` for the roots) and whether it is hidden.
    pub(crate) fn folder(
        &self,
        folder: FolderNumber,
    ) -> Option<(&str, Option<FolderNumber>, bool)> {
        match STANDARD.get(usize::from(folder)) {
            Some(standard) => Some((
                standard.display,
                well_known(standard.parent),
                standard.hidden,
            )),
            None => {
                let own = self.own.get(usize::from(folder - STANDARD_COUNT))?;
                Some((&own.display, Some(own.parent), own.hidden))
            }
        }
    }

    /// The well-known name of a folder, or its display name.
    pub(crate) fn folder_label(&self, folder: FolderNumber) -> String {
        match STANDARD.get(usize::from(folder)) {
            Some(standard) => standard.name.to_owned(),
            None => self
                .folder(folder)
                .map(|(display, ..)| display.to_owned())
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_name_the_folders() {
        for (number, name) in [
            (ROOT, "msgfolderroot"),
            (INBOX, "inbox"),
            (SENT, "sentitems"),
            (RECOVERABLE, "recoverableitemsroot"),
            (PURGES, "recoverableitemspurges"),
        ] {
            assert_eq!(well_known(name), Some(number), "{name}");
        }
        assert_eq!(usize::from(STANDARD_COUNT), STANDARD.len());
        for folder in &STANDARD {
            assert!(
                folder.parent.is_empty() || well_known(folder.parent).is_some(),
                "{}",
                folder.name
            );
        }
    }

    #[test]
    fn a_copy_is_lean() {
        assert!(
            size_of::<Copy>() <= 48,
            "{} octets a copy",
            size_of::<Copy>()
        );
    }
}
