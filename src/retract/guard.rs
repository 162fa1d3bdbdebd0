//! Is this copy that record? Nothing is touched that was not identified.
//!
//! An outsider can copy every header of a message but not Exchange's network message id, which is
//! stamped inside the organisation and stripped from mail that comes from outside. So that id decides
//! where both sides have it; where one lacks it, all of Message-ID, time and sender must agree.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::item::Reason;
use crate::graph::api::Message;
use crate::mail::{Address, MessageId};

/// How much earlier than every journaled time a copy may have been received: clocks differ.
const EARLIER: SignedDuration = SignedDuration::from_mins(15);

/// How much later: Exchange Online retries a delivery for a day.
const LATER: SignedDuration = SignedDuration::from_hours(24);

/// What the journal says about the message: copied into the job, which outlives the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Message-ID.
    pub message_id: MessageId,
    /// Other Message-IDs that the reports give: a gateway stamped a fork anew, or envelope and message differ.
    #[serde(default)]
    pub also: Vec<MessageId>,
    /// Exchange's network message ids, of every fork.
    pub network_message_ids: Vec<String>,
    /// Journaled Date, SentUtc, ReceivedUtc and the arrivals of the reports, as far as known.
    pub times: Vec<Timestamp>,
    /// Journaled From.
    pub from: Option<Address>,
    /// Envelope Sender.
    pub sender: Option<Address>,
}

impl Facts {
    /// Every Message-ID, the envelope's first.
    pub fn message_ids(&self) -> impl Iterator<Item = &MessageId> {
        std::iter::once(&self.message_id).chain(&self.also)
    }
}

/// Which of a job's messages a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The one that was asked for.
    Own,
    /// Another one of the job, at this position; and why it is not the one that was asked for.
    Other(usize, Reason),
    /// None of them.
    Nobody(Reason),
}

/// Tells a copy that was found for one of the job's messages (`own`, by position) from the copies of the
/// others, which may have the same Message-ID.
pub fn whose<'a>(
    messages: impl IntoIterator<Item = &'a Facts> + Clone,
    own: usize,
    copy: &Message,
) -> Identity {
    let fits = |facts: &&Facts| identify(facts, copy);
    let reason = match messages.clone().into_iter().nth(own).as_ref().map(fits) {
        Some(Ok(())) => return Identity::Own,
        Some(Err(reason)) => reason,
        None => Reason::OtherMessageId,
    };
    let other = messages.into_iter().position(|facts| fits(&facts).is_ok());
    other.map_or(Identity::Nobody(reason), |n| Identity::Other(n, reason))
}

/// Whether these are the network message ids of the copy, all of them.
pub fn owns(network_message_ids: &[String], copy: &Message) -> bool {
    let known: Vec<String> = network_message_ids.iter().map(|id| folded(id)).collect();
    !copy.network_message_ids.is_empty()
        && copy
            .network_message_ids
            .iter()
            .all(|id| known.contains(&folded(id)))
}

/// Whether the copy is the message; if it is not, why.
///
/// # Errors
///
/// The [`Reason`] of a mismatch: the copy must not be touched.
pub fn identify(facts: &Facts, copy: &Message) -> Result<(), Reason> {
    if !facts.network_message_ids.is_empty() && !copy.network_message_ids.is_empty() {
        // Several in one header is nothing that Exchange does, so all of them must be the record's.
        return match owns(&facts.network_message_ids, copy) {
            true => Ok(()),
            false => Err(Reason::OtherNetworkMessageId),
        };
    }
    let same = |id: &MessageId| facts.message_ids().any(|known| known == id);
    if !copy.message_id.as_ref().is_some_and(same) {
        return Err(Reason::OtherMessageId);
    }
    if !copy
        .received
        .is_some_and(|received| in_window(facts, received))
    {
        return Err(Reason::OtherTime);
    }
    let journaled = [facts.from.as_ref(), facts.sender.as_ref()];
    let mut seen = [copy.from.as_ref(), copy.sender.as_ref()]
        .into_iter()
        .flatten();
    if !seen.any(|address| journaled.contains(&Some(address))) {
        return Err(Reason::OtherSender);
    }
    Ok(())
}

fn in_window(facts: &Facts, received: Timestamp) -> bool {
    let (Some(earliest), Some(latest)) = (facts.times.iter().min(), facts.times.iter().max())
    else {
        return false;
    };
    // At the ends of time there is nothing earlier or later to exclude.
    let from = earliest.checked_sub(EARLIER).unwrap_or(Timestamp::MIN);
    let to = latest.checked_add(LATER).unwrap_or(Timestamp::MAX);
    (from..=to).contains(&received)
}

fn folded(id: &str) -> String {
    id.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::api::ImmutableId;
    use proptest::prelude::*;

    const OURS: &str = "11111111-1111-1111-1111-111111111111";
    const THEIRS: &str = "22222222-2222-2222-2222-222222222222";

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn facts() -> Facts {
        Facts {
            message_id: MessageId::new("<a@x>").unwrap(),
            also: Vec::new(),
            network_message_ids: vec![OURS.into()],
            times: vec![time("2026-01-31T10:00:00Z"), time("2026-01-31T11:00:00Z")],
            from: Some("boss@x".parse().unwrap()),
            sender: Some("bounce@list".parse().unwrap()),
        }
    }

    fn copy() -> Message {
        Message {
            id: ImmutableId("i".into()),
            message_id: MessageId::new("<a@x>"),
            parent: None,
            from: Some("Boss@X".parse().unwrap()),
            sender: None,
            received: Some(time("2026-01-31T10:30:00Z")),
            is_read: None,
            network_message_ids: vec![OURS.to_uppercase()],
        }
    }

    #[test]
    fn table() {
        type Change = fn(&mut Facts, &mut Message);
        let rows: &[(&str, Change, Result<(), Reason>)] = &[
            ("equal", |_, _| {}, Ok(())),
            (
                "the id decides alone",
                |_, c| {
                    c.message_id = None;
                    c.received = None;
                    c.from = None;
                },
                Ok(()),
            ),
            (
                "any fork of the record",
                |f, _| f.network_message_ids.insert(0, THEIRS.into()),
                Ok(()),
            ),
            (
                "attacker with the victim's Message-ID",
                |_, c| {
                    c.network_message_ids = vec![THEIRS.into()];
                    c.from = Some("evil@y".parse().unwrap());
                },
                Err(Reason::OtherNetworkMessageId),
            ),
            (
                "attacker who copied every header fact",
                |_, c| {
                    c.network_message_ids = vec![THEIRS.into()];
                },
                Err(Reason::OtherNetworkMessageId),
            ),
            (
                "attacker who slipped in a second id",
                |_, c| {
                    c.network_message_ids.push(THEIRS.into());
                },
                Err(Reason::OtherNetworkMessageId),
            ),
            (
                "id missing in the copy",
                |_, c| c.network_message_ids.clear(),
                Ok(()),
            ),
            (
                "id missing in the journal",
                |f, _| f.network_message_ids.clear(),
                Ok(()),
            ),
            (
                "then the Message-ID must be equal",
                |_, c| {
                    c.network_message_ids.clear();
                    c.message_id = MessageId::new("<A@x>");
                },
                Err(Reason::OtherMessageId),
            ),
            (
                "then any Message-ID of the record does",
                |f, c| {
                    c.network_message_ids.clear();
                    c.message_id = MessageId::new("<b@x>");
                    f.also = MessageId::new("<b@x>").into_iter().collect();
                },
                Ok(()),
            ),
            (
                "then a Message-ID must be there",
                |_, c| {
                    c.network_message_ids.clear();
                    c.message_id = None;
                },
                Err(Reason::OtherMessageId),
            ),
            (
                "then the time must fit: 15 minutes early",
                |_, c| {
                    c.network_message_ids.clear();
                    c.received = Some("2026-01-31T09:45:00Z".parse().unwrap());
                },
                Ok(()),
            ),
            (
                "then the time must fit: earlier",
                |_, c| {
                    c.network_message_ids.clear();
                    c.received = Some("2026-01-31T09:44:59Z".parse().unwrap());
                },
                Err(Reason::OtherTime),
            ),
            (
                "then the time must fit: 24 hours late",
                |_, c| {
                    c.network_message_ids.clear();
                    c.received = Some("2026-02-01T11:00:00Z".parse().unwrap());
                },
                Ok(()),
            ),
            (
                "then the time must fit: later",
                |_, c| {
                    c.network_message_ids.clear();
                    c.received = Some("2026-02-01T11:00:01Z".parse().unwrap());
                },
                Err(Reason::OtherTime),
            ),
            (
                "then a time must be there",
                |_, c| {
                    c.network_message_ids.clear();
                    c.received = None;
                },
                Err(Reason::OtherTime),
            ),
            (
                "then a time must be journaled",
                |f, c| {
                    c.network_message_ids.clear();
                    f.times.clear();
                },
                Err(Reason::OtherTime),
            ),
            (
                "then the sender may be the envelope's",
                |_, c| {
                    c.network_message_ids.clear();
                    c.from = Some("other@y".parse().unwrap());
                    c.sender = Some("bounce@list".parse().unwrap());
                },
                Ok(()),
            ),
            (
                "then the sender must be equal",
                |_, c| {
                    c.network_message_ids.clear();
                    c.from = Some("other@y".parse().unwrap());
                },
                Err(Reason::OtherSender),
            ),
            (
                "then a sender must be there",
                |f, c| {
                    c.network_message_ids.clear();
                    c.from = None;
                    f.from = None;
                    f.sender = None;
                },
                Err(Reason::OtherSender),
            ),
        ];
        for (name, change, expected) in rows {
            let (mut facts, mut copy) = (facts(), copy());
            change(&mut facts, &mut copy);
            assert_eq!(identify(&facts, &copy), *expected, "{name}");
        }
    }

    #[test]
    fn a_copy_of_another_message_of_the_job_is_told_apart() {
        let with = |ids: &[&str], from: &str| Facts {
            network_message_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            from: from.parse().ok(),
            sender: None,
            ..facts()
        };
        let (ours, theirs) = (with(&[OURS], "boss@x"), with(&[THEIRS], "boss@x"));
        let (none, stranger) = (with(&[], "boss@x"), with(&[], "other@y"));
        let other = Reason::OtherNetworkMessageId;
        for (name, records, own, expected) in [
            ("own by id", [&ours, &theirs], 0, Identity::Own),
            (
                "the other's by id",
                [&ours, &theirs],
                1,
                Identity::Other(0, other),
            ),
            ("both fit", [&ours, &none], 1, Identity::Own),
            (
                "the other's without id",
                [&theirs, &none],
                0,
                Identity::Other(1, other),
            ),
            ("nobody's", [&theirs, &stranger], 0, Identity::Nobody(other)),
            (
                "nobody's, without id",
                [&theirs, &stranger],
                1,
                Identity::Nobody(Reason::OtherSender),
            ),
        ] {
            assert_eq!(whose(records, own, &copy()), expected, "{name}");
        }
    }

    proptest! {
        /// Whatever else is equal, a copy with a foreign network message id is never identified.
        #[test]
        fn a_foreign_id_never_passes(
            known in prop::collection::vec("[0-9a-f]{8}", 1..4),
            foreign in "[0-9a-f]{9}",
            also in prop::option::of(0usize..4),
        ) {
            let mut facts = facts();
            facts.network_message_ids.clone_from(&known);
            let mut copy = copy();
            copy.network_message_ids = vec![foreign];
            copy.network_message_ids.extend(also.and_then(|n| known.get(n).cloned()));
            prop_assert_eq!(identify(&facts, &copy), Err(Reason::OtherNetworkMessageId));
        }
    }
}
