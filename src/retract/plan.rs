//! Records and resolved recipients in, a job's recipients and items out.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::guard::Facts;
use super::item::{Item, Reason, State};
use crate::directory::{Absent, Mailbox, Resolution};
use crate::mail::{Address, RecordId};

/// A record as a job keeps it: the job outlives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    pub id: RecordId,
    /// What the guard needs.
    pub facts: Facts,
    /// Its recipients, as journaled and as asked for.
    pub recipients: Vec<Address>,
    /// Other messages of the journal with one of its Message-IDs.
    #[serde(default)]
    pub siblings: Vec<Sibling>,
}

/// Another message of the journal with the same Message-ID. Its copies are not touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sibling {
    /// Its record.
    pub id: RecordId,
    /// Exchange's network message ids, of every fork.
    pub network_message_ids: Vec<String>,
}

/// The addresses to be resolved, each once, in order.
pub fn addresses(records: &[JobRecord]) -> Vec<Address> {
    let mut seen = std::collections::HashSet::new();
    let all = records.iter().flat_map(|record| &record.recipients);
    all.filter(|address| seen.insert(address.folded()))
        .cloned()
        .collect()
}

/// The first items of a job: one for each mailbox of each record, and one for each recipient without one.
///
/// Every recipient is in at least one item. An address that was not resolved is `no_mailbox`, never dropped.
pub fn items(records: &[JobRecord], resolved: &HashMap<Address, Resolution>) -> Vec<Item> {
    let mut items = Vec::new();
    for (number, record) in records.iter().enumerate() {
        let mut places = Places {
            items: &mut items,
            record: number,
            by_mailbox: HashMap::new(),
            alone: HashMap::new(),
        };
        for recipient in &record.recipients {
            match resolved.get(recipient) {
                Some(Resolution::Mailboxes { mailboxes, beside }) => {
                    for mailbox in mailboxes {
                        places.mailbox(recipient, mailbox);
                    }
                    for absent in beside {
                        places.none(recipient, State::NoMailbox, (*absent).into());
                    }
                }
                Some(Resolution::External) => {
                    places.none(recipient, State::External, Reason::OtherDomain);
                }
                Some(Resolution::None(Absent::NotPermitted)) => {
                    places.none(recipient, State::Denied, Reason::Permission);
                }
                Some(Resolution::None(absent)) => {
                    places.none(recipient, State::NoMailbox, (*absent).into());
                }
                None => places.none(recipient, State::NoMailbox, Reason::NoMailbox),
            }
        }
    }
    items
}

/// The items of one record while they are made.
struct Places<'a> {
    items: &'a mut Vec<Item>,
    record: usize,
    by_mailbox: HashMap<String, usize>,
    alone: HashMap<(Address, Reason), usize>,
}

impl Places<'_> {
    fn mailbox(&mut self, recipient: &Address, mailbox: &Mailbox) {
        let next = self.items.len();
        let position = *self
            .by_mailbox
            .entry(mailbox.id.user.clone())
            .or_insert(next);
        match self.items.get_mut(position) {
            None => {
                let item = Item::new(self.record, recipient.clone(), Some(mailbox.clone()));
                self.items.push(item);
            }
            Some(item) if item.recipient != *recipient && !item.also_for.contains(recipient) => {
                item.also_for.push(recipient.clone());
            }
            Some(_) => {}
        }
    }

    fn none(&mut self, recipient: &Address, state: State, reason: Reason) {
        let next = self.items.len();
        let key = (recipient.clone(), reason);
        if *self.alone.entry(key).or_insert(next) == next {
            let mut item = Item::new(self.record, recipient.clone(), None);
            item.set(state, Some(reason));
            self.items.push(item);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::graph::api::MailboxId;
    use crate::mail::{MessageId, TenantName};

    pub(in crate::retract) fn mailbox(name: &str) -> Mailbox {
        Mailbox {
            id: MailboxId {
                tenant: TenantName::new("t"),
                user: name.into(),
            },
            address: format!("{name}@x").parse().unwrap(),
            without: Absent::OnPremises,
        }
    }

    pub(in crate::retract) fn record(recipients: &[&str]) -> JobRecord {
        JobRecord {
            id: RecordId::from_octets([7; 16]),
            facts: Facts {
                message_id: MessageId::new("<m@x>").unwrap(),
                also: Vec::new(),
                network_message_ids: vec!["n1".into()],
                times: vec!["2026-01-31T10:00:00Z".parse().unwrap()],
                from: Some("evil@y".parse().unwrap()),
                sender: None,
            },
            recipients: recipients.iter().map(|r| r.parse().unwrap()).collect(),
            siblings: Vec::new(),
        }
    }

    pub(in crate::retract) fn in_mailboxes(names: &[&str]) -> Resolution {
        Resolution::Mailboxes {
            mailboxes: names.iter().map(|name| mailbox(name)).collect(),
            beside: Vec::new(),
        }
    }

    #[test]
    fn nobody_is_dropped_and_no_mailbox_is_taken_twice() {
        let recipients = [
            "a@x", "alias@x", "list@x", "out@y", "gone@x", "lost@x", "A@X",
        ];
        let records = [record(&recipients), record(&["a@x"])];
        let resolved = HashMap::from([
            ("a@x".parse().unwrap(), in_mailboxes(&["a"])),
            ("alias@x".parse().unwrap(), in_mailboxes(&["a"])),
            (
                "list@x".parse().unwrap(),
                Resolution::Mailboxes {
                    mailboxes: vec![mailbox("a"), mailbox("b")],
                    beside: vec![Absent::GroupMailbox],
                },
            ),
            ("out@y".parse().unwrap(), Resolution::External),
            (
                "gone@x".parse().unwrap(),
                Resolution::None(Absent::DeletedUser),
            ),
        ]);
        let items = items(&records, &resolved);
        let seen: Vec<_> = items
            .iter()
            .map(|item| {
                let mailbox = item.mailbox.as_ref().map_or("-", |m| m.id.user.as_str());
                (
                    item.record,
                    item.recipient.as_str(),
                    mailbox,
                    item.state,
                    item.also_for.len(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (0, "a@x", "a", State::Pending, 2),
                (0, "list@x", "b", State::Pending, 0),
                (0, "list@x", "-", State::NoMailbox, 0),
                (0, "out@y", "-", State::External, 0),
                (0, "gone@x", "-", State::NoMailbox, 0),
                (0, "lost@x", "-", State::NoMailbox, 0),
                (1, "a@x", "a", State::Pending, 0),
            ]
        );
        assert_eq!(addresses(&records).len(), 6);
    }
}
