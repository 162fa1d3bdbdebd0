//! An item: a copy within a job, with its state. Both lists of words are closed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::directory::{Absent, Mailbox};
use crate::graph::api::ImmutableId;
use crate::graph::folder::FolderId;
use crate::mail::{Address, RecordId};

/// How far an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not looked for yet.
    Pending,
    /// Found and identified, not touched yet.
    Located,
    /// Graph took the call, proof outstanding.
    Acted,
    /// Proven where it was asked to be.
    Verified,
    /// At or beyond the target before this job touched it.
    AlreadyGone,
    /// No copy found.
    NotFound,
    /// A message with this Message-ID, but not the one that was meant. Not touched.
    Mismatch,
    /// Graph does not let us.
    Denied,
    /// Could not be done.
    Failed,
    /// Outside the tenant.
    External,
    /// No mailbox that Graph reaches.
    NoMailbox,
    /// Put back.
    Undone,
}

impl State {
    /// Every state, in the order in which counts are printed.
    pub const ALL: [Self; 12] = [
        Self::Pending,
        Self::Located,
        Self::Acted,
        Self::Verified,
        Self::AlreadyGone,
        Self::NotFound,
        Self::Mismatch,
        Self::Denied,
        Self::Failed,
        Self::External,
        Self::NoMailbox,
        Self::Undone,
    ];

    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Located => "located",
            Self::Acted => "acted",
            Self::Verified => "verified",
            Self::AlreadyGone => "already_gone",
            Self::NotFound => "not_found",
            Self::Mismatch => "mismatch",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::External => "external",
            Self::NoMailbox => "no_mailbox",
            Self::Undone => "undone",
        }
    }

    /// Something is still to be done right away.
    pub const fn under_way(self) -> bool {
        matches!(self, Self::Pending | Self::Located | Self::Acted)
    }

    /// A copy within reach is not where it was asked to be.
    pub const fn is_failure(self) -> bool {
        matches!(
            self,
            Self::NotFound | Self::Mismatch | Self::Denied | Self::Failed
        )
    }

    /// Which of two outcomes in different mailboxes is told for a recipient: the one that needs attention more.
    pub(super) const fn weight(self) -> u8 {
        match self {
            Self::Pending => 12,
            Self::Located => 11,
            Self::Acted => 10,
            Self::Failed => 9,
            Self::Denied => 8,
            Self::Mismatch => 7,
            Self::NotFound => 6,
            Self::Undone => 5,
            Self::Verified => 4,
            Self::AlreadyGone => 3,
            Self::NoMailbox => 2,
            Self::External => 1,
        }
    }

    /// Within one mailbox a copy that was dealt with outweighs another that was not the message.
    pub(super) const fn weight_in_mailbox(self) -> u8 {
        match self {
            Self::Mismatch | Self::NotFound => 0,
            _ => self.weight(),
        }
    }
}

/// Why an item is in its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// `not_found`: no copy was ever seen in this mailbox.
    NeverSeen,
    /// `already_gone`: the user (or a rule) put it there or further. `not_found`: it was seen, and gone before we
    /// could move it.
    GoneBefore,
    /// `not_found`: the message is young, its delivery may be late; the watch goes on.
    NotYetArrived,
    /// `already_gone`: exactly where it was asked to be.
    AtTarget,
    /// `verified`: moved by an earlier job of ours.
    EarlierJob,
    /// `verified`: our move's answer was lost, and the copy is now further away than it was asked to be.
    Beyond,
    /// `mismatch`: Exchange's network message id is another.
    OtherNetworkMessageId,
    /// `mismatch`: the Message-ID is another.
    OtherMessageId,
    /// `mismatch`: received at another time.
    OtherTime,
    /// `mismatch`: neither `from` nor `sender` is the journaled one.
    OtherSender,
    /// `external`: not in a domain of the tenant.
    OtherDomain,
    /// `no_mailbox`: a guest of the tenant, whose mail is elsewhere.
    Guest,
    /// `no_mailbox`: the tenant has no user or group of this address (any more).
    DeletedUser,
    /// `no_mailbox`: the mailbox is on premises.
    OnPremises,
    /// `no_mailbox`: the user has no Exchange licence.
    NoLicence,
    /// `no_mailbox`: the account is disabled and has no mailbox that answers.
    Disabled,
    /// `no_mailbox`: the mailbox of a Microsoft 365 group, which the mail API does not reach.
    GroupMailbox,
    /// `no_mailbox`: a group without members.
    EmptyGroup,
    /// `no_mailbox`: Graph says that there is none, and not why.
    NoMailbox,
    /// `denied`: the application may not use this mailbox; without a mailbox, it may not see whether the address
    /// is a group's.
    Permission,
    /// `denied`: the token is refused.
    Credentials,
    /// `failed`: throttled until we gave up.
    Throttled,
    /// `failed`: Graph had a problem until we gave up.
    Unavailable,
    /// `failed`: the move was answered, but the copy is in another folder.
    WrongFolder,
    /// `failed`: no room for it in the mailbox.
    MailboxFull,
    /// `failed`: the id belongs to another mailbox.
    WrongMailbox,
    /// `failed`: a hold or a lock.
    Held,
    /// `failed`: Graph refused the request as wrong.
    Refused,
    /// `failed`: more messages of this Message-ID than are looked at.
    TooManyCopies,
}

impl Reason {
    /// The word in JSON.
    pub fn name(self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        value.as_str().unwrap_or_default().to_owned()
    }
}

impl From<Absent> for Reason {
    fn from(absent: Absent) -> Self {
        match absent {
            Absent::Guest => Self::Guest,
            Absent::DeletedUser => Self::DeletedUser,
            Absent::OnPremises => Self::OnPremises,
            Absent::NoLicence => Self::NoLicence,
            Absent::Disabled => Self::Disabled,
            Absent::GroupMailbox => Self::GroupMailbox,
            Absent::EmptyGroup => Self::EmptyGroup,
            Absent::NotPermitted => Self::Permission,
            Absent::Unknown => Self::NoMailbox,
        }
    }
}

/// A folder as a job knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Its id.
    pub id: FolderId,
    /// Its name in the user's language, once looked up.
    pub name: Option<String>,
}

/// A copy, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Which of the job's records, by position.
    pub record: usize,
    /// The journaled recipient through whom the mailbox was found.
    pub recipient: Address,
    /// Other journaled recipients with the same mailbox.
    pub also_for: Vec<Address>,
    /// Where the copy is; `None` if there is no mailbox.
    pub mailbox: Option<Mailbox>,
    /// The copy.
    pub message: Option<ImmutableId>,
    /// Where it was before we touched it.
    pub folder_before: Option<Folder>,
    /// Where it is since.
    pub folder_after: Option<Folder>,
    /// How far it is.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// Why, for people.
    pub detail: Option<String>,
    /// Calls that were made to move it.
    pub attempts: u32,
    /// When the last of them was about to be made; `None` again once it is known that it did not run. Durable
    /// before the call: if it is there and the item is under way without a folder after, nobody knows whether
    /// the call took effect until the copy has been looked up.
    pub asked_at: Option<Timestamp>,
    /// When it was proven where it is.
    pub verified_at: Option<Timestamp>,
    /// Whether the user had read it.
    pub is_read: Option<bool>,
    /// When the user received it.
    pub received: Option<Timestamp>,
    /// `mismatch`: the journal knows the message that it is.
    #[serde(default)]
    pub other_record: Option<RecordId>,
    /// The item, by position, whose copy is this one's, too: it fits both their messages. What becomes of
    /// that one becomes of this one.
    #[serde(default)]
    pub same_as: Option<usize>,
}

impl Item {
    /// An item of which nothing is known but for whom.
    pub fn new(record: usize, recipient: Address, mailbox: Option<Mailbox>) -> Self {
        Self {
            record,
            recipient,
            also_for: Vec::new(),
            mailbox,
            message: None,
            folder_before: None,
            folder_after: None,
            state: State::Pending,
            reason: None,
            detail: None,
            attempts: 0,
            asked_at: None,
            verified_at: None,
            is_read: None,
            received: None,
            other_record: None,
            same_as: None,
        }
    }

    /// Goes to a state.
    pub fn set(&mut self, state: State, reason: Option<Reason>) {
        self.state = state;
        self.reason = reason;
        self.detail = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_serde_writes() {
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        assert_eq!(
            Reason::OtherNetworkMessageId.name(),
            "other_network_message_id"
        );
    }

    #[test]
    fn nothing_under_way_is_outweighed() {
        for state in State::ALL.into_iter().filter(|state| !state.under_way()) {
            assert!(state.weight() < State::Acted.weight(), "{state:?}");
        }
    }
}
