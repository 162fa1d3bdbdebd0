//! A job as a state machine: what to ask of Graph next, and what its answers change.
//!
//! Locate in all folders, then in Recoverable Items; identify; move; prove. Only what was never
//! asked for, or is known not to have been run, is asked for again without looking first.

mod take;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::action::Action;
use super::item::{Item, Reason, State};
use super::plan::JobRecord;
use crate::directory::Mailbox;
use crate::graph::api::{
    Answer, ControlCharacter, ImmutableId, MailboxId, Message, NextLink, Request, Scope,
};
use crate::graph::cloud::Base;
use crate::graph::folder::{FolderId, WellKnown};
use crate::graph::pace::Backoff;
use crate::mail::{RecordId, TenantName};

/// Names a copy: its mailbox, and its id there.
pub type CopyId = (MailboxId, ImmutableId);

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// A dry run: nothing was changed.
    Planned,
    /// Someone has to approve it.
    AwaitingApproval,
    /// Copies are being moved.
    Running,
    /// Every copy found was dealt with; late ones are watched for.
    Waiting,
    /// Nothing is left to do.
    Done,
    /// Stopped by hand.
    Cancelled,
}

impl JobState {
    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// Name, for people.
    pub who: String,
    /// Login uid; `None` where there is none.
    pub uid: Option<u32>,
}

/// A retraction job, whole: everything that it needs to go on without its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// `job_` and 26 base32 characters; `None` for a dry run.
    pub id: Option<String>,
    /// Whose mailboxes.
    pub tenant: TenantName,
    /// How far it is.
    pub state: JobState,
    /// What is done.
    pub action: Action,
    /// When it was asked for.
    pub created: Timestamp,
    /// By whom.
    pub by: By,
    /// Why.
    pub reason: Option<String>,
    /// The messages.
    pub records: Vec<JobRecord>,
    /// The copies, and why there are none.
    pub items: Vec<Item>,
}

/// The two clocks, read by the driver: waits use the one that never jumps.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Date and time.
    pub wall: Timestamp,
    /// For waits.
    pub monotonic: Instant,
}

/// Waits and patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// After trouble that passes.
    pub backoff: Backoff,
    /// Repetitions of one request after trouble that passes; then the item fails.
    pub repetitions: u32,
    /// How long an item is throttled before it fails.
    pub throttled: Duration,
    /// First wait before a missing copy is looked for again; it doubles.
    pub watch_first: Duration,
    /// Longest of those waits.
    pub watch_longest: Duration,
    /// How long after its creation a job goes on looking.
    pub watch: Duration,
    /// How old a message is before its copy is `never_seen` and no longer `not_yet_arrived`.
    pub delivery: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            repetitions: 10,
            throttled: Duration::from_secs(24 * 3600),
            watch_first: Duration::from_secs(30),
            watch_longest: Duration::from_secs(15 * 60),
            watch: Duration::from_secs(24 * 3600),
            delivery: Duration::from_secs(3600),
        }
    }
}

/// One thing to ask for an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Which messages of this Message-ID are there?
    Locate(Where),
    /// The next page of that.
    Next(Where, NextLink),
    /// Which folder is this in this mailbox?
    WellKnown(WellKnown),
    /// What is this folder called?
    Name(FolderId),
    /// Where is the copy now?
    Look(ImmutableId),
    /// Move the copy.
    Move(ImmutableId, WellKnown),
}

/// A round of locating: under which name, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Where {
    /// Which of the record's Message-IDs, by position.
    pub name: usize,
    /// As stored without brackets.
    pub bare: bool,
    /// In Recoverable Items; else in all normal folders.
    pub recoverable: bool,
}

impl Where {
    const FIRST: Self = Self {
        name: 0,
        bare: false,
        recoverable: false,
    };

    /// The round after this one. `found`: under this name nothing more is looked for.
    const fn next(self, found: bool, names: usize) -> Option<Self> {
        match (found, self.bare, self.recoverable) {
            (false, _, false) => Some(Self {
                recoverable: true,
                ..self
            }),
            (false, false, true) => Some(Self {
                bare: true,
                recoverable: false,
                ..self
            }),
            _ if self.name + 1 < names => Some(Self {
                name: self.name + 1,
                ..Self::FIRST
            }),
            _ => None,
        }
    }
}

/// An ask, and the item that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Position of the item.
    pub item: usize,
    /// What to ask.
    pub ask: Ask,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Graph answered.
    Answer(Answer),
    /// It certainly did not run: it was never sent, or refused before. With what to tell people.
    NotRun(String),
    /// It was sent, and nobody knows whether it ran.
    Lost(String),
}

/// What other jobs did.
pub trait Others: fmt::Debug + Send {
    /// Another job moved this copy, or has a move of it under way.
    fn moved(&self, copy: &CopyId) -> bool;
}

impl Others for HashSet<CopyId> {
    fn moved(&self, copy: &CopyId) -> bool {
        self.contains(copy)
    }
}

/// The running job.
#[derive(Debug)]
pub struct Engine {
    job: Job,
    progress: Vec<Progress>,
    base: Base,
    timing: Timing,
    seed: u64,
    others: Box<dyn Others>,
    folders: HashMap<(MailboxId, WellKnown), FolderId>,
    /// Names that were asked for; `None`: Graph did not say.
    names: HashMap<(MailboxId, FolderId), Option<String>>,
    /// Folder questions that are under way: they are asked once for all items of a mailbox.
    asking: HashSet<(MailboxId, String)>,
    changed: BTreeSet<usize>,
    /// Items whose doubtful move came to be known, and what is known: for the audit log.
    resolved: Vec<(usize, String)>,
    /// The items of each mailbox.
    by_mailbox: HashMap<MailboxId, Vec<usize>>,
    /// The items that tell of another one's copy, by that one.
    twins: HashMap<usize, Vec<usize>>,
}

/// What need not survive a restart.
#[derive(Debug, Clone, Default)]
struct Progress {
    in_flight: bool,
    search: Search,
    not_before: Option<Instant>,
    failures: u32,
    /// Refusals of the token, one after the other.
    token_refusals: u32,
    /// Since when nothing that was asked for was run.
    refused_since: Option<Instant>,
    /// The last move may have run: look before anything else.
    uncertain: bool,
    /// The copy was located, and was gone when it was to be moved.
    vanished: bool,
    watches: u32,
    watch_at: Option<Instant>,
}

/// A search for a copy, through all pages of all rounds.
#[derive(Debug, Clone, Default)]
struct Search {
    round: Option<Where>,
    next: Option<NextLink>,
    /// Messages that were looked at.
    seen: usize,
    /// Those that are the message, and whether they are in Recoverable Items.
    found: Vec<(Message, bool)>,
    /// Something was found under this name.
    named: bool,
    /// Something was found.
    done: bool,
    /// Some of those that are other messages.
    others: Vec<Stranger>,
    /// How many more of them there were.
    more: usize,
}

/// A message of the Message-ID that is not the one that was asked for.
#[derive(Debug, Clone)]
struct Stranger {
    message: Message,
    reason: Reason,
    /// The record that it is of, if the journal knows.
    record: Option<RecordId>,
}

impl Engine {
    /// A job that begins or goes on. `seed` for jitter.
    pub fn new(
        job: Job,
        base: Base,
        timing: Timing,
        seed: u64,
        others: Box<dyn Others>,
        now: Now,
    ) -> Self {
        let progress = job.items.iter().map(|item| Progress {
            uncertain: (item.state.under_way() || item.state == State::NotFound)
                && item.asked_at.is_some()
                && !(item.state == State::Acted && item.folder_after.is_some()),
            ..Progress::default()
        });
        let mut engine = Self {
            progress: progress.collect(),
            job,
            base,
            timing,
            seed,
            others,
            folders: HashMap::new(),
            names: HashMap::new(),
            asking: HashSet::new(),
            changed: BTreeSet::new(),
            resolved: Vec::new(),
            by_mailbox: HashMap::new(),
            twins: HashMap::new(),
        };
        for number in 0..engine.job.items.len() {
            engine.index(number);
            if let Some(other) = engine.job.items[number].same_as {
                engine.twins.entry(other).or_default().push(number);
            }
        }
        engine.watch_missing(now);
        engine
    }

    /// What may be asked now, most urgent first: moves of unread and recent copies, then whatever leads to a
    /// move, then proofs, then the watch.
    pub fn ready(&self, now: Now) -> Vec<Step> {
        let mut asked = HashSet::new();
        let mut steps: Vec<Step> = (0..self.job.items.len())
            .filter(|item| self.may_ask(*item, now))
            .filter_map(|item| {
                let ask = self.next_ask(item, now)?;
                Some(Step { item, ask })
            })
            .filter(|step| match self.question(step) {
                Some(question) => !self.asking.contains(&question) && asked.insert(question),
                None => true,
            })
            .collect();
        steps.sort_by_cached_key(|step| self.urgency(step));
        steps
    }

    /// The next instant at which more may be asked, if nothing else happens.
    pub fn next_timer(&self, now: Now) -> Option<Instant> {
        let waits = self.job.items.iter().zip(&self.progress);
        let waits = waits.filter(|(_, progress)| !progress.in_flight);
        let waits = waits.filter_map(|(item, progress)| match item.state.under_way() {
            true => progress.not_before,
            false => progress
                .watch_at
                .max(progress.not_before.filter(|_| progress.watch_at.is_some())),
        });
        waits.filter(|at| *at > now.monotonic).min()
    }

    /// The request of a step.
    ///
    /// # Errors
    ///
    /// [`ControlCharacter`]: it must not be sent. [`refuse`](Self::refuse) the step.
    pub fn request(&self, step: &Step) -> Result<Option<Request>, ControlCharacter> {
        let item = &self.job.items[step.item];
        let Some(Mailbox { id, .. }) = &item.mailbox else {
            return Ok(None);
        };
        let request = match &step.ask {
            Ask::Locate(round) => {
                let facts = &self.job.records[item.record].facts;
                let name = facts.message_ids().nth(round.name);
                let name = name.unwrap_or(&facts.message_id);
                let scope = match round.recoverable {
                    true => Scope::Folder(WellKnown::RecoverableItemsDeletions),
                    false => Scope::AllFolders,
                };
                let message_id = match round.bare {
                    true => name.to_string(),
                    false => format!("<{name}>"),
                };
                Request::locate(id, scope, &message_id)
            }
            Ask::Next(_, link) => Ok(Request::next(id, link)),
            Ask::WellKnown(folder) => Request::well_known(id, *folder),
            Ask::Name(folder) => Request::folder(id, folder),
            Ask::Look(message) => Request::message(id, message),
            Ask::Move(message, to) => Request::move_message(id, message, *to),
        };
        request.map(Some)
    }

    /// A step is about to be asked. For a move the item must be stored with this change before the call is made.
    pub fn start(&mut self, step: &Step, now: Now) {
        self.progress[step.item].in_flight = true;
        if let Some(question) = self.question(step) {
            self.asking.insert(question);
        }
        if matches!(step.ask, Ask::Move(..)) {
            let item = self.change(step.item);
            item.asked_at = Some(now.wall);
            item.attempts += 1;
        }
    }

    /// A step was not asked after all, through no fault of its own: again in a while.
    pub fn postpone(&mut self, step: &Step, until: Instant) {
        if let Some(question) = self.question(step) {
            self.asking.remove(&question);
        }
        let progress = &mut self.progress[step.item];
        progress.in_flight = false;
        progress.not_before = Some(until);
        if matches!(step.ask, Ask::Move(..)) {
            let item = self.change(step.item);
            item.asked_at = None;
            item.attempts -= 1;
        }
    }

    /// A step whose request must not be sent.
    pub fn refuse(&mut self, step: &Step, why: &ControlCharacter) {
        self.give_up(step.item, Reason::Refused, format!("the Message-ID {why}"));
        self.mirror();
    }

    /// Another job has a move of this copy under way, or moved it since it was located: instead of the step,
    /// which was not started, it is located again, not before this instant.
    pub fn relocate(&mut self, step: &Step, until: Instant) {
        let progress = &mut self.progress[step.item];
        progress.not_before = Some(until);
        progress.search = Search::default();
        self.change(step.item).set(State::Pending, None);
        self.mirror();
    }

    /// The moves of which it came to be known whether they ran, since the last call: positions of their items,
    /// and what is known.
    pub fn take_resolved(&mut self) -> Vec<(usize, String)> {
        std::mem::take(&mut self.resolved)
    }

    /// The items that changed since the last call, with their positions: to be stored together.
    pub fn take_changed(&mut self) -> Vec<(usize, Item)> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .map(|n| (n, self.job.items[n].clone()))
            .collect()
    }

    /// Sets how far the job is.
    pub fn set_state(&mut self, state: JobState) {
        self.job.state = state;
    }

    /// The job as it is now.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// No item is pending, located or acted. A dry run is settled when all is located.
    pub fn settled(&self) -> bool {
        let planned = self.job.state == JobState::Planned;
        let unplaced = |item: &Item| {
            let mailbox = item.mailbox.as_ref();
            item.state == State::Located && mailbox.is_some_and(|m| self.needs_folders(&m.id))
        };
        let open = |item: &Item| match planned {
            true => item.state == State::Pending || unplaced(item),
            false => item.state.under_way(),
        };
        !self.job.items.iter().any(open)
    }

    /// The mailbox of an item.
    pub fn mailbox_of(&self, item: usize) -> Option<&MailboxId> {
        self.job
            .items
            .get(item)?
            .mailbox
            .as_ref()
            .map(|mailbox| &mailbox.id)
    }

    fn index(&mut self, number: usize) {
        if let Some(mailbox) = self.mailbox_of(number).cloned() {
            self.by_mailbox.entry(mailbox).or_default().push(number);
        }
    }

    /// Nothing is left to do, not even to watch.
    pub fn finished(&self) -> bool {
        self.settled()
            && self
                .progress
                .iter()
                .all(|p| p.watch_at.is_none() && !p.in_flight)
    }

    fn may_ask(&self, item: usize, now: Now) -> bool {
        let progress = &self.progress[item];
        !progress.in_flight && progress.not_before.is_none_or(|at| at <= now.monotonic)
    }

    fn next_ask(&self, number: usize, now: Now) -> Option<Ask> {
        let (item, progress) = (&self.job.items[number], &self.progress[number]);
        let mailbox = &item.mailbox.as_ref()?.id;
        if item.same_as.is_some() {
            return None;
        }
        let unknown = |folder: &WellKnown| !self.folders.contains_key(&(mailbox.clone(), *folder));
        let target = self.job.action.folder();
        match item.state {
            State::Pending => Some(self.locate(progress)),
            State::NotFound | State::Mismatch
                if progress.watch_at.is_some_and(|at| at <= now.monotonic) =>
            {
                Some(self.locate(progress))
            }
            State::Located => {
                let message = item.message.clone()?;
                if progress.uncertain {
                    // Where it is found is told by these, so they come first.
                    let needs = self.job.action.needs().iter().copied();
                    let folder = needs.chain(target).find(unknown).map(Ask::WellKnown);
                    return Some(folder.unwrap_or(Ask::Look(message)));
                }
                if let Some(folder) = self.job.action.needs().iter().find(|f| unknown(f)) {
                    return Some(Ask::WellKnown(*folder));
                }
                let planned = self.job.state == JobState::Planned;
                target.filter(|_| !planned).map(|to| Ask::Move(message, to))
            }
            State::Acted => {
                if let Some(folder) = target.filter(unknown) {
                    return Some(Ask::WellKnown(folder));
                }
                if progress.uncertain {
                    return item.message.clone().map(Ask::Look);
                }
                let before = item.folder_before.as_ref()?;
                Some(Ask::Name(before.id.clone()))
            }
            _ => None,
        }
    }

    fn locate(&self, progress: &Progress) -> Ask {
        let round = progress.search.round.unwrap_or(Where::FIRST);
        match &progress.search.next {
            Some(link) => Ask::Next(round, link.clone()),
            None => Ask::Locate(round),
        }
    }

    /// Smaller is sooner.
    fn urgency(&self, step: &Step) -> (u8, bool, std::cmp::Reverse<Option<Timestamp>>) {
        let item = &self.job.items[step.item];
        let class = match (&step.ask, item.state) {
            (Ask::Move(..), _) => 0,
            (Ask::Look(_) | Ask::WellKnown(_), State::Located) => 1,
            (_, State::Pending) => 2,
            (_, State::Acted) => 3,
            _ => 4,
        };
        let read = item.is_read.unwrap_or(false);
        (class, read, std::cmp::Reverse(item.received))
    }

    /// A question about a mailbox that several items may have.
    fn question(&self, step: &Step) -> Option<(MailboxId, String)> {
        let mailbox = self.job.items[step.item].mailbox.as_ref()?.id.clone();
        match &step.ask {
            Ask::WellKnown(folder) => Some((mailbox, folder.name().to_owned())),
            Ask::Name(folder) => Some((mailbox, folder.0.clone())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
