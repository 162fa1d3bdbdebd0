//! What is done with a copy.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::graph::folder::WellKnown;

/// Where a retraction puts each copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// To Junk Email: the user can open it there.
    Junk,
    /// To Deleted Items: the user can restore it.
    Trash,
    /// To Recoverable Items: the user can recover it with "Recover deleted items".
    SoftDelete,
    /// Out of the user's reach.
    HardDelete,
    /// Back to the inbox.
    Inbox,
}

impl Action {
    /// Every action, in the order of the manual.
    pub const ALL: [Self; 5] = [
        Self::Junk,
        Self::Trash,
        Self::SoftDelete,
        Self::HardDelete,
        Self::Inbox,
    ];

    /// The word in commands, configuration and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Junk => "junk",
            Self::Trash => "trash",
            Self::SoftDelete => "soft-delete",
            Self::HardDelete => "hard-delete",
            Self::Inbox => "inbox",
        }
    }

    /// The folder that a copy is moved to; `None` for what is no move.
    pub const fn folder(self) -> Option<WellKnown> {
        match self {
            Self::Junk => Some(WellKnown::JunkEmail),
            Self::Trash => Some(WellKnown::DeletedItems),
            Self::SoftDelete => Some(WellKnown::RecoverableItemsDeletions),
            Self::Inbox => Some(WellKnown::Inbox),
            Self::HardDelete => None,
        }
    }

    /// The folders whose ids must be known before a copy in a normal folder may be moved, so that no
    /// copy is moved to where its user reaches it more easily.
    pub const fn needs(self) -> &'static [WellKnown] {
        match self {
            Self::Junk | Self::Inbox => &[WellKnown::JunkEmail, WellKnown::DeletedItems],
            Self::Trash => &[WellKnown::DeletedItems],
            Self::SoftDelete | Self::HardDelete => &[],
        }
    }

    /// Where a copy in this folder stands; `None` is any other normal folder.
    pub fn place(self, folder: Option<WellKnown>) -> Place {
        let depth = |folder| match folder {
            None | Some(WellKnown::Inbox) => 0,
            Some(WellKnown::JunkEmail) => 1,
            Some(WellKnown::DeletedItems) => 2,
            Some(WellKnown::RecoverableItemsDeletions) => 3,
        };
        if self == Self::Inbox {
            // Out of every other folder of the user it would be moved against the user's will.
            return if depth(folder) == 0 {
                Place::At
            } else {
                Place::Short
            };
        }
        let target = self.folder().map_or(4, |target| depth(Some(target)));
        match depth(folder).cmp(&target) {
            std::cmp::Ordering::Less => Place::Short,
            std::cmp::Ordering::Equal => Place::At,
            std::cmp::Ordering::Greater => Place::Beyond,
        }
    }
}

/// Where a copy stands, seen from the folder it is to be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Not there yet.
    Short,
    /// There.
    At,
    /// Further out of the user's reach.
    Beyond,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown action {0:?}; one of junk, trash, soft-delete, hard-delete, inbox")]
pub struct UnknownAction(String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let found = Self::ALL.into_iter().find(|action| action.name() == text);
        found.ok_or_else(|| UnknownAction(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for action in Action::ALL {
            assert_eq!(action.name().parse(), Ok(action));
            assert_eq!(serde_json::to_value(action).unwrap(), action.name());
        }
        let error = "trsh".parse::<Action>().unwrap_err().to_string();
        for action in Action::ALL {
            assert!(error.contains(action.name()), "{error}");
        }
    }

    #[test]
    fn a_copy_is_never_made_easier_to_reach() {
        let folders = [
            (None, [Place::Short, Place::Short, Place::Short]),
            (
                Some(WellKnown::Inbox),
                [Place::Short, Place::Short, Place::Short],
            ),
            (
                Some(WellKnown::JunkEmail),
                [Place::At, Place::Short, Place::Short],
            ),
            (
                Some(WellKnown::DeletedItems),
                [Place::Beyond, Place::At, Place::Short],
            ),
            (
                Some(WellKnown::RecoverableItemsDeletions),
                [Place::Beyond, Place::Beyond, Place::At],
            ),
        ];
        for (folder, expected) in folders {
            let actions = [Action::Junk, Action::Trash, Action::SoftDelete];
            assert_eq!(actions.map(|a| a.place(folder)), expected, "{folder:?}");
            assert_eq!(Action::HardDelete.place(folder), Place::Short, "{folder:?}");
        }
        assert_eq!(Action::Inbox.place(None), Place::At);
        assert_eq!(
            Action::Inbox.place(Some(WellKnown::JunkEmail)),
            Place::Short
        );
    }
}
