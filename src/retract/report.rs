//! A job as JSON: the documents of `jobs show` and `jobs list`.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::item::{Folder, Item, State};
use super::job::Job;
use crate::mail::Address;

impl Job {
    /// How many items are in each state; states without any are left out.
    pub fn counts(&self) -> Map<String, Value> {
        let mut counts = HashMap::new();
        for item in &self.items {
            *counts.entry(item.state).or_insert(0u64) += 1;
        }
        let of = |state: State| Some((state.name().to_owned(), (*counts.get(&state)?).into()));
        State::ALL.into_iter().filter_map(of).collect()
    }

    /// Copies that are to be moved, or were.
    pub fn copies(&self) -> usize {
        let moved =
            |item: &&Item| matches!(item.state, State::Located | State::Acted | State::Verified);
        self.items.iter().filter(moved).count()
    }

    /// The job without its recipients and items.
    pub fn head(&self) -> Value {
        let mut head = json!({
            "tenant": self.tenant,
            "state": self.state.name(),
            "action": self.action.name(),
            "created": self.created,
            "by": self.by.who,
            "reason": self.reason,
            "counts": self.counts(),
        });
        if let (Some(id), Some(head)) = (&self.id, head.as_object_mut()) {
            head.insert("id".to_owned(), id.as_str().into());
        }
        head
    }

    /// The whole job.
    pub fn document(&self) -> Value {
        let mut document = self.head();
        if let Some(document) = document.as_object_mut() {
            document.insert("recipients".to_owned(), self.recipients());
            let items = self.items.iter().map(|item| self.item(item));
            document.insert("items".to_owned(), items.collect());
        }
        document
    }

    /// One entry for each journaled recipient: they sum to the number of recipients.
    fn recipients(&self) -> Value {
        let mut items: HashMap<(usize, &Address), Vec<&Item>> = HashMap::new();
        for item in &self.items {
            for address in std::iter::once(&item.recipient).chain(&item.also_for) {
                items.entry((item.record, address)).or_default().push(item);
            }
        }
        let all = self.records.iter().enumerate();
        let all = all.flat_map(|(n, record)| record.recipients.iter().map(move |r| (n, r)));
        all.map(|(record, address)| {
            let items = items.get(&(record, address)).map_or(&[][..], Vec::as_slice);
            let (item, mailbox) = outcome(items);
            json!({
                "address": address,
                "outcome": item.map_or(State::Pending, |item| item.state).name(),
                "reason": item.and_then(|item| item.reason),
                "mailbox": mailbox,
                "message_id": self.records.get(record).map(|record| record.facts.message_id.as_str()),
            })
        })
        .collect()
    }

    fn item(&self, item: &Item) -> Value {
        let folder = |folder: &Option<Folder>| {
            let folder = folder.as_ref();
            folder.map(|folder| json!({"id": folder.id, "name": folder.name}))
        };
        let record = self.records.get(item.record);
        json!({
            "message_id": record.map(|record| record.facts.message_id.as_str()),
            "record": record.map(|record| record.id),
            "recipient": item.recipient,
            "also_for": item.also_for,
            "mailbox": item.mailbox.as_ref().map(|mailbox| &mailbox.address),
            "mailbox_id": item.mailbox.as_ref().map(|mailbox| mailbox.id.user.as_str()),
            "immutable_id": item.message,
            "folder_before": folder(&item.folder_before),
            "folder_after": folder(&item.folder_after),
            "state": item.state,
            "reason": item.reason,
            "detail": item.detail,
            "other_record": item.other_record,
            "attempts": item.attempts,
            "verified_at": item.verified_at,
        })
    }
}

/// The item that tells what happened for a recipient, and the mailbox if it is one alone.
///
/// Within a mailbox a copy that was dealt with outweighs another that was not the message; between
/// mailboxes (a group's) the one that needs attention most is told.
fn outcome<'a>(items: &[&'a Item]) -> (Option<&'a Item>, Option<&'a Address>) {
    let mut mailboxes: Vec<(Option<&str>, &Item)> = Vec::new();
    for item in items {
        let mailbox = item
            .mailbox
            .as_ref()
            .map(|mailbox| mailbox.id.user.as_str());
        match mailboxes
            .iter_mut()
            .find(|(known, _)| mailbox.is_some() && *known == mailbox)
        {
            None => mailboxes.push((mailbox, item)),
            Some((_, known)) => {
                if item.state.weight_in_mailbox() > known.state.weight_in_mailbox() {
                    *known = item;
                }
            }
        }
    }
    let worst = mailboxes.iter().max_by_key(|(_, item)| item.state.weight());
    let mailbox = match mailboxes.as_slice() {
        [(_, item)] => item.mailbox.as_ref().map(|mailbox| &mailbox.address),
        _ => None,
    };
    (worst.map(|(_, item)| *item), mailbox)
}
