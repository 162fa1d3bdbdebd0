//! Taking answers: what each changes in its item.

use std::time::Duration;

use super::{Ask, Engine, JobState, Now, Outcome, Progress, Search, Step, Stranger, Where};
use crate::graph::api::{Answer, Failure, MailboxId, Message, Trouble};
use crate::graph::folder::{FolderId, WellKnown};
use crate::mail::RecordId;
use crate::retract::action::{Action, Place};
use crate::retract::guard::{Identity, owns, whose};
use crate::retract::item::{Folder, Item, Reason, State};

/// Messages of one Message-ID in one mailbox that are looked at. More is a fault: pages without end.
const CANDIDATES: usize = 100_000;

/// Messages of one Message-ID in one mailbox that are other messages, and told one by one. Anybody can send
/// many of them.
const STRANGERS: usize = 20;

impl Engine {
    /// A step came to an end.
    pub fn answer(&mut self, step: &Step, outcome: Outcome, now: Now) {
        self.progress[step.item].in_flight = false;
        if let Some(question) = self.question(step) {
            self.asking.remove(&question);
        }
        match outcome {
            Outcome::Answer(answer) => match self.take(step, &answer, now) {
                Ok(()) => self.calm(step.item),
                Err(failure) => self.trouble(step, &failure, now),
            },
            Outcome::NotRun(why) => {
                self.not_run(step);
                self.refused(step, None, Reason::Unavailable, why, now);
            }
            Outcome::Lost(why) => {
                self.progress[step.item].uncertain |= matches!(step.ask, Ask::Move(..));
                self.again(step, None, why, now);
            }
        }
        self.mirror();
    }

    fn take(&mut self, step: &Step, answer: &Answer, now: Now) -> Result<(), Failure> {
        match &step.ask {
            Ask::Locate(round) | Ask::Next(round, _) => {
                let page = answer.messages(&self.base)?;
                self.sift(step.item, page.items, round.recoverable);
                let search = &mut self.progress[step.item].search;
                search.next = page.next;
                if search.seen > CANDIDATES {
                    let detail = format!("more than {CANDIDATES} messages have this Message-ID");
                    self.give_up(step.item, Reason::TooManyCopies, detail);
                } else if search.next.is_none() {
                    self.located(step.item, *round, now);
                }
            }
            Ask::WellKnown(folder) => {
                let found = answer.folder()?;
                if let Some(mailbox) = self.mailbox(step.item) {
                    self.names
                        .insert((mailbox.clone(), found.id.clone()), found.name);
                    self.folders.insert((mailbox.clone(), *folder), found.id);
                    self.learnt(&mailbox, now);
                }
            }
            Ask::Name(folder) => {
                let name = answer.folder()?.name;
                self.named(step.item, folder, name, now);
            }
            Ask::Look(_) => {
                let message = answer.message()?;
                let none = || Failure::unreadable(answer.status, "the copy has no folder");
                let parent = message.parent.ok_or_else(none)?;
                self.looked(step.item, parent, now);
            }
            Ask::Move(..) => {
                let message = answer.message()?;
                self.moved(step.item, message, now);
            }
        }
        Ok(())
    }

    /// Tells the messages of a page apart.
    fn sift(&mut self, number: usize, messages: Vec<Message>, recoverable: bool) {
        let Some(mailbox) = self.mailbox(number) else {
            return;
        };
        let item = &self.job.items[number];
        let record = item.record;
        // An item that lost its copy looks for that one; what else is there belongs to other items.
        let own = item
            .message
            .clone()
            .filter(|_| item.state != State::Mismatch);
        for message in messages {
            self.progress[number].search.seen += 1;
            let facts = self.job.records.iter().map(|record| &record.facts);
            let (reason, record) = match whose(facts, record, &message) {
                Identity::Own => {
                    let search = &mut self.progress[number].search;
                    search.named |= own.as_ref().is_none_or(|own| *own == message.id);
                    search.found.push((message, recoverable));
                    continue;
                }
                // The item of that one tells of it.
                Identity::Other(other, _) if self.has_item(other, &mailbox) => continue,
                Identity::Other(other, reason) => (reason, Some(self.job.records[other].id)),
                Identity::Nobody(reason) => (reason, self.sibling(record, &message)),
            };
            let search = &mut self.progress[number].search;
            if search.others.len() < STRANGERS {
                search.others.push(Stranger {
                    message,
                    reason,
                    record,
                });
            } else {
                search.more += 1;
            }
        }
    }

    fn has_item(&self, record: usize, mailbox: &MailboxId) -> bool {
        let items = self.by_mailbox.get(mailbox);
        items.is_some_and(|items| items.iter().any(|n| self.job.items[*n].record == record))
    }

    /// The message of the journal, outside of the job, that this copy is of.
    fn sibling(&self, record: usize, message: &Message) -> Option<RecordId> {
        let siblings = &self.job.records[record].siblings;
        let sibling = siblings
            .iter()
            .find(|s| owns(&s.network_message_ids, message));
        sibling.map(|sibling| sibling.id)
    }

    /// A round of locating is complete.
    fn located(&mut self, number: usize, round: Where, now: Now) {
        let record = self.job.items[number].record;
        let names = self.job.records[record].facts.message_ids().count();
        let search = &mut self.progress[number].search;
        search.done |= search.named;
        search.round = round.next(search.named, names);
        search.named = false;
        if search.round.is_some() {
            return;
        }
        let search = std::mem::take(&mut self.progress[number].search);
        let mut taken = None;
        for (message, recoverable) in &search.found {
            match self.taken(number, message) {
                None => self.found(number, message, *recoverable, now),
                by => taken = taken.or(by),
            }
        }
        let item = &self.job.items[number];
        if let Some(by) = taken
            && item.message.is_none()
            && matches!(item.state, State::Pending | State::NotFound)
        {
            self.share(number, by);
        }
        for other in &search.others {
            self.mismatch(number, other, search.done, search.more);
        }
        if !search.done {
            self.missing(number, now);
        }
    }

    /// The item of another record that has this copy already.
    fn taken(&self, asked: usize, message: &Message) -> Option<usize> {
        let record = self.job.items[asked].record;
        let of_mailbox = self.by_mailbox.get(self.mailbox_of(asked)?)?;
        of_mailbox.iter().copied().find(|number| {
            let item = &self.job.items[*number];
            item.record != record
                && item.state != State::Mismatch
                && item.message.as_ref() == Some(&message.id)
        })
    }

    /// An item has no copy of its own, but another record's item has one that fits its message as well.
    fn share(&mut self, number: usize, with: usize) {
        self.progress[number].watch_at = None;
        self.change(number).same_as = Some(with);
        self.twins.entry(with).or_default().push(number);
        self.changed.insert(with);
        self.mirror();
    }

    /// Items that share another's copy go where it goes.
    pub(super) fn mirror(&mut self) {
        let mut shared: Vec<usize> = Vec::new();
        shared.extend(self.changed.iter().filter(|n| self.twins.contains_key(n)));
        for number in shared {
            let item = self.job.items[number].clone();
            let record = self.job.records[item.record].id;
            for twin in self.twins.get(&number).cloned().unwrap_or_default() {
                let twin = self.change(twin);
                twin.set(item.state, item.reason);
                twin.verified_at = item.verified_at;
                twin.detail = Some(format!("the same copy as that of record {record}"));
            }
        }
    }

    /// A copy that is the message.
    fn found(&mut self, asked: usize, message: &Message, recoverable: bool, now: Now) {
        self.progress[asked].watch_at = None;
        let number = self.item_for(asked, message);
        if !matches!(
            self.job.items[number].state,
            State::Pending | State::NotFound
        ) {
            // Another item has it already.
            return;
        }
        let uncertain = self.progress[number].uncertain;
        let item = self.change(number);
        item.message = Some(message.id.clone());
        item.is_read = message.is_read;
        item.received = message.received;
        item.set(State::Located, None);
        if !uncertain || item.folder_before.is_none() {
            item.folder_before = message.parent.clone().map(|id| Folder { id, name: None });
        }
        if recoverable {
            let mailbox = self.mailbox(number);
            if let (Some(mailbox), Some(parent)) = (mailbox, message.parent.clone()) {
                let folder = WellKnown::RecoverableItemsDeletions;
                self.folders.insert((mailbox, folder), parent);
            }
            self.place(number, message.parent.clone(), now);
        } else if !uncertain {
            // If our call may have run, the item is looked up again when the target's id is known.
            self.place(number, message.parent.clone(), now);
        }
    }

    /// The item for a copy: the one that has it already, else the one that was asked for if it is free,
    /// else a new one.
    fn item_for(&mut self, asked: usize, message: &Message) -> usize {
        if let Some(known) = self.known(asked, message) {
            return known;
        }
        match self.job.items[asked].message {
            None => asked,
            Some(_) => self.add_item(asked),
        }
    }

    /// The item of the same record and mailbox that is about this message.
    fn known(&self, asked: usize, message: &Message) -> Option<usize> {
        let of_mailbox = self.by_mailbox.get(self.mailbox_of(asked)?)?;
        let record = self.job.items[asked].record;
        of_mailbox.iter().copied().find(|number| {
            let item = &self.job.items[*number];
            item.record == record && item.message.as_ref() == Some(&message.id)
        })
    }

    /// One more item for the same record, mailbox and recipients.
    fn add_item(&mut self, like: usize) -> usize {
        let like = &self.job.items[like];
        let mut item = Item::new(like.record, like.recipient.clone(), like.mailbox.clone());
        item.also_for.clone_from(&like.also_for);
        self.job.items.push(item);
        self.progress.push(Progress::default());
        let number = self.job.items.len() - 1;
        self.changed.insert(number);
        self.index(number);
        number
    }

    /// A message of this Message-ID that is another; there are so many `more`. `beside`: the copy itself was
    /// found, too.
    fn mismatch(&mut self, asked: usize, other: &Stranger, beside: bool, more: usize) {
        let message = &other.message;
        if self.known(asked, message).is_some() {
            return;
        }
        let free = !beside && self.job.items[asked].message.is_none();
        if !free && self.is_told(asked, message) {
            return;
        }
        let number = if free { asked } else { self.add_item(asked) };
        let item = self.change(number);
        item.message = Some(message.id.clone());
        item.folder_before = message.parent.clone().map(|id| Folder { id, name: None });
        item.is_read = message.is_read;
        item.received = message.received;
        item.other_record = other.record;
        item.set(State::Mismatch, Some(other.reason));
        if more > 0 {
            let detail = format!("{more} more messages of this Message-ID are not listed");
            item.detail = Some(detail);
        }
    }

    /// An item of any record is about this message.
    fn is_told(&self, asked: usize, message: &Message) -> bool {
        let of_mailbox = self.mailbox_of(asked).and_then(|m| self.by_mailbox.get(m));
        let about = |n: &usize| self.job.items[*n].message.as_ref() == Some(&message.id);
        of_mailbox.is_some_and(|items| items.iter().any(about))
    }

    /// No round found the copy.
    fn missing(&mut self, number: usize, now: Now) {
        let lost = self.progress[number].uncertain;
        let facts = &self.job.records[self.job.items[number].record].facts;
        let age = facts
            .times
            .iter()
            .max()
            .map(|at| now.wall.duration_since(*at));
        let age = age
            .and_then(|age| Duration::try_from(age).ok())
            .unwrap_or_default();
        let young = age < self.timing.delivery;
        let item = &self.job.items[number];
        if item.state != State::Mismatch {
            let seen = item.message.is_some();
            let reason = match (seen, young) {
                (true, _) => Reason::GoneBefore,
                (false, true) => Reason::NotYetArrived,
                (false, false) => Reason::NeverSeen,
            };
            if (item.state, item.reason) != (State::NotFound, Some(reason)) {
                let item = self.change(number);
                item.set(State::NotFound, Some(reason));
                if lost {
                    let detail = "a move was sent and its answer lost; the copy is in none of the folders that Graph shows";
                    item.detail = Some(detail.to_owned());
                    self.resolve(
                        number,
                        "not found: the copy is in none of the folders that Graph shows",
                    );
                }
            }
        }
        self.watch(number, now);
    }

    /// Looks for missing copies again later, one item for each mailbox.
    pub(super) fn watch_missing(&mut self, now: Now) {
        let mut seen = std::collections::HashSet::new();
        let of_mailbox = |item: &Item| Some((item.record, item.mailbox.as_ref()?.id.clone()));
        let missing = |item: &Item| {
            item.same_as.is_none() && matches!(item.state, State::NotFound | State::Mismatch)
        };
        let items = &self.job.items;
        seen.extend(
            items
                .iter()
                .filter(|item| !missing(item))
                .filter_map(of_mailbox),
        );
        let again: Vec<usize> = (0..items.len())
            .filter(|n| missing(&items[*n]))
            .filter(|n| of_mailbox(&items[*n]).is_some_and(|key| seen.insert(key)))
            .collect();
        for number in again {
            self.watch(number, now);
        }
    }

    /// Looks for this copy again later, until the watch ends.
    fn watch(&mut self, number: usize, now: Now) {
        let progress = &mut self.progress[number];
        progress.watch_at = None;
        progress.search = Search::default();
        if self.job.state == JobState::Planned {
            return;
        }
        let doubled = 2u32.saturating_pow(progress.watches.min(30));
        let wait = self
            .timing
            .watch_first
            .saturating_mul(doubled)
            .min(self.timing.watch_longest);
        let age = Duration::try_from(now.wall.duration_since(self.job.created)).unwrap_or_default();
        if age + wait <= self.timing.watch {
            progress.watches += 1;
            progress.watch_at = Some(now.monotonic + wait);
        } else if self.job.items[number].reason == Some(Reason::NotYetArrived) {
            self.change(number).reason = Some(Reason::NeverSeen);
        }
    }

    /// Decides whether a located copy in this folder is to be moved, as soon as all that takes is known.
    fn place(&mut self, number: usize, parent: Option<FolderId>, now: Now) {
        let Some(mailbox) = self.mailbox(number) else {
            return;
        };
        let action = self.job.action;
        let all = action
            .needs()
            .iter()
            .chain(&[WellKnown::RecoverableItemsDeletions]);
        let mut known = all.filter_map(|f| Some((*f, self.folders.get(&(mailbox.clone(), *f))?)));
        let folder = known
            .find(|(_, id)| Some(*id) == parent.as_ref())
            .map(|(f, _)| f);
        if folder.is_none() && self.needs_folders(&mailbox) {
            return;
        }
        let place = action.place(folder);
        let uncertain = std::mem::take(&mut self.progress[number].uncertain);
        if uncertain {
            let told = match place {
                Place::Short => "not run, or put back since",
                Place::At => "moved",
                Place::Beyond => "the copy is further away than it was asked to be",
            };
            self.resolve(number, told);
        }
        if place == Place::Short {
            return;
        }
        let id = self.job.items[number].message.clone();
        let earlier = id.is_some_and(|id| self.others.moved(&(mailbox, id)));
        let item = self.change(number);
        if uncertain || earlier {
            let reason = match (earlier, place) {
                (true, _) => Some(Reason::EarlierJob),
                (false, Place::Beyond) => Some(Reason::Beyond),
                (false, _) => None,
            };
            item.folder_after = parent.map(|id| Folder { id, name: None });
            item.set(State::Verified, reason);
            item.verified_at = Some(now.wall);
        } else {
            let reason = match action {
                Action::Inbox => Reason::AtTarget,
                _ => Reason::GoneBefore,
            };
            item.set(State::AlreadyGone, Some(reason));
        }
    }

    /// Something was learnt about the folders of a mailbox: other items may have waited for it.
    fn learnt(&mut self, mailbox: &MailboxId, now: Now) {
        for number in self.by_mailbox.get(mailbox).cloned().unwrap_or_default() {
            let item = &self.job.items[number];
            if item.state == State::Located && !self.progress[number].uncertain {
                let parent = item.folder_before.as_ref().map(|folder| folder.id.clone());
                self.place(number, parent, now);
            }
            self.prove(number, now);
        }
    }

    /// The answer to a move. It is the proof, once the target's id is known.
    fn moved(&mut self, number: usize, message: Message, now: Now) {
        self.progress[number].uncertain = message.parent.is_none();
        let item = self.change(number);
        // An immutable id stays; should it not, the new one is what the copy has now.
        item.message = Some(message.id);
        item.folder_after = message.parent.map(|id| Folder { id, name: None });
        item.set(State::Acted, None);
        self.prove(number, now);
    }

    /// Where a copy is whose move may have run.
    fn looked(&mut self, number: usize, parent: FolderId, now: Now) {
        let target = self.job.action.folder();
        let mailbox = self.mailbox(number);
        let target = mailbox
            .zip(target)
            .and_then(|key| self.folders.get(&key).cloned());
        let folder = Some(Folder {
            id: parent.clone(),
            name: None,
        });
        if target.as_ref() == Some(&parent) {
            self.progress[number].uncertain = false;
            self.resolve(number, "moved");
            let item = self.change(number);
            item.folder_after = folder;
            item.set(State::Acted, None);
            self.prove(number, now);
            return;
        }
        let again = self.job.items[number].attempts < self.timing.repetitions;
        let item = self.change(number);
        item.set(State::Located, None);
        item.folder_after = None;
        if item.folder_before.as_ref().map(|folder| &folder.id) != Some(&parent) {
            item.folder_before = folder;
        }
        if again {
            self.place(number, Some(parent), now);
            // Not run, or undone by the user since: it may be asked again.
            self.progress[number].uncertain = false;
            let item = &mut self.job.items[number];
            if item.state == State::Located {
                item.asked_at = None;
            }
        } else {
            let detail = "moved several times, and each time found elsewhere".to_owned();
            self.give_up(number, Reason::Unavailable, detail);
        }
    }

    /// A folder's name came, or will never come.
    fn named(&mut self, number: usize, folder: &FolderId, name: Option<String>, now: Now) {
        if let Some(mailbox) = self.mailbox(number) {
            self.names.insert((mailbox.clone(), folder.clone()), name);
            self.learnt(&mailbox, now);
        }
    }

    /// Compares where a moved copy is with where it was asked to be, once both are known.
    fn prove(&mut self, number: usize, now: Now) {
        let item = &self.job.items[number];
        if item.state != State::Acted || self.progress[number].uncertain {
            return;
        }
        let (Some(mailbox), Some(target)) = (self.mailbox(number), self.job.action.folder()) else {
            return;
        };
        let Some(target_id) = self.folders.get(&(mailbox.clone(), target)).cloned() else {
            return;
        };
        let name = |folder: &Option<Folder>| {
            let id = folder.as_ref()?.id.clone();
            self.names.get(&(mailbox.clone(), id)).cloned()
        };
        let before = name(&item.folder_before);
        if before.is_none() && item.folder_before.is_some() {
            return;
        }
        let after = name(&item.folder_after).flatten();
        let item = self.change(number);
        if let Some(folder) = &mut item.folder_before {
            folder.name = before.flatten();
        }
        let arrived = item.folder_after.as_mut().is_some_and(|folder| {
            folder.name = after;
            folder.id == target_id
        });
        if arrived {
            item.set(State::Verified, None);
            item.verified_at = Some(now.wall);
        } else {
            item.set(State::Failed, Some(Reason::WrongFolder));
            item.detail = Some(format!(
                "Graph took the move to {target}, but shows another folder"
            ));
        }
    }

    /// An answer that is an error.
    fn trouble(&mut self, step: &Step, failure: &Failure, now: Now) {
        let (number, detail) = (step.item, failure.to_string());
        let passing = matches!(
            failure.trouble,
            Trouble::Throttled | Trouble::Transient | Trouble::Token
        );
        if let (Ask::Name(folder), false) = (&step.ask, passing) {
            return self.named(number, folder, None, now);
        }
        match failure.trouble {
            Trouble::Throttled => {
                self.not_run(step);
                self.refused(step, failure.retry_after, Reason::Throttled, detail, now);
            }
            Trouble::Transient | Trouble::Unknown | Trouble::Conflict => {
                self.progress[number].uncertain |= matches!(step.ask, Ask::Move(..));
                self.again(step, failure.retry_after, detail, now);
            }
            Trouble::Token if self.progress[number].token_refusals > 0 => {
                self.end(number, State::Denied, Reason::Credentials, detail);
            }
            Trouble::Token | Trouble::Dependency => {
                if failure.trouble == Trouble::Token {
                    self.progress[number].token_refusals += 1;
                }
                self.not_run(step);
                self.again(step, None, detail, now);
            }
            Trouble::Denied | Trouble::DirectoryDenied => {
                self.end(number, State::Denied, Reason::Permission, detail);
            }
            Trouble::NoMailbox => {
                let mailbox = self.job.items[number].mailbox.as_ref();
                let reason = mailbox.map_or(Reason::NoMailbox, |mailbox| mailbox.without.into());
                self.end(number, State::NoMailbox, reason, detail);
            }
            Trouble::NoUser => self.end(number, State::NoMailbox, Reason::DeletedUser, detail),
            Trouble::Missing => match &step.ask {
                Ask::Move(..) => self.vanished(number),
                Ask::Look(_) => self.change(number).set(State::Pending, None),
                _ => self.again(step, None, detail, now),
            },
            Trouble::WrongMailbox => self.give_up(number, Reason::WrongMailbox, detail),
            Trouble::Full => self.give_up(number, Reason::MailboxFull, detail),
            Trouble::Held | Trouble::Locked => self.give_up(number, Reason::Held, detail),
            Trouble::Request | Trouble::NoFolder | Trouble::Resync => {
                self.give_up(number, Reason::Refused, detail);
            }
        }
    }

    /// The copy was gone when it was to be moved: located again, once.
    fn vanished(&mut self, number: usize) {
        let again = !std::mem::replace(&mut self.progress[number].vanished, true);
        self.progress[number].uncertain = false;
        let item = self.change(number);
        item.asked_at = None;
        if again {
            item.set(State::Pending, None);
        } else {
            item.set(State::NotFound, Some(Reason::GoneBefore));
        }
    }

    /// The call of a move certainly did not run.
    fn not_run(&mut self, step: &Step) {
        if matches!(step.ask, Ask::Move(..)) {
            self.change(step.item).asked_at = None;
        }
    }

    /// The same again after a while: it was not run, for want of a network, a token or an allowance. That may
    /// take long, and harms nobody.
    fn refused(
        &mut self,
        step: &Step,
        wait: Option<Duration>,
        reason: Reason,
        detail: String,
        now: Now,
    ) {
        let progress = &mut self.progress[step.item];
        let since = *progress.refused_since.get_or_insert(now.monotonic);
        if now.monotonic.saturating_duration_since(since) > self.timing.throttled {
            return match self.job.items[step.item].state.under_way() {
                true => self.give_up(step.item, reason, detail),
                false => self.watch(step.item, now),
            };
        }
        let seed = self.seed ^ step.item as u64;
        let backoff = self.timing.backoff.wait(progress.failures, seed);
        progress.failures = progress.failures.saturating_add(1).min(16);
        progress.not_before = Some(now.monotonic + wait.unwrap_or(backoff));
    }

    /// The same again after a while, or a failure if it was tried often enough.
    fn again(&mut self, step: &Step, wait: Option<Duration>, detail: String, now: Now) {
        let progress = &mut self.progress[step.item];
        progress.failures += 1;
        if progress.failures <= self.timing.repetitions {
            let seed = self.seed ^ step.item as u64;
            let backoff = self.timing.backoff.wait(progress.failures - 1, seed);
            progress.not_before = Some(now.monotonic + backoff.max(wait.unwrap_or_default()));
            return;
        }
        let detail = match progress.uncertain {
            true => format!("a move was sent and its outcome could not be learnt: {detail}"),
            false => detail,
        };
        match &step.ask {
            Ask::Name(folder) => self.named(step.item, &folder.clone(), None, now),
            _ if !self.job.items[step.item].state.under_way() => self.watch(step.item, now),
            _ => self.give_up(step.item, Reason::Unavailable, detail),
        }
    }

    fn calm(&mut self, number: usize) {
        let progress = &mut self.progress[number];
        progress.failures = 0;
        progress.token_refusals = 0;
        progress.refused_since = None;
        progress.not_before = None;
    }

    pub(super) fn give_up(&mut self, number: usize, reason: Reason, detail: String) {
        self.end(number, State::Failed, reason, detail);
    }

    fn end(&mut self, number: usize, state: State, reason: Reason, detail: String) {
        let progress = &mut self.progress[number];
        progress.watch_at = None;
        progress.search = Search::default();
        if progress.uncertain {
            self.resolve(number, &format!("not known: {detail}"));
        }
        let item = self.change(number);
        item.set(state, Some(reason));
        item.detail = Some(detail);
    }

    /// What became of a move whose answer was lost, for the audit log.
    fn resolve(&mut self, number: usize, told: &str) {
        if self.job.items[number].asked_at.is_some() {
            self.resolved.push((number, told.to_owned()));
        }
    }

    pub(super) fn change(&mut self, number: usize) -> &mut Item {
        self.changed.insert(number);
        &mut self.job.items[number]
    }

    fn mailbox(&self, number: usize) -> Option<MailboxId> {
        self.mailbox_of(number).cloned()
    }

    /// A folder that the action needs to know beforehand is not known yet.
    pub(super) fn needs_folders(&self, mailbox: &MailboxId) -> bool {
        let mut needs = self.job.action.needs().iter();
        needs.any(|folder| !self.folders.contains_key(&(mailbox.clone(), *folder)))
    }
}
