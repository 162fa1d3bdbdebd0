//! The engine against a pure stand-in for Graph, with faults and crashes.
#![expect(clippy::disallowed_methods, reason = "an instant to count from")]

use super::*;
use crate::directory::Resolution;
use crate::graph::api::ImmutableId;
use crate::mail::{MessageId, RecordId};
use crate::retract::guard::Facts;
use crate::retract::plan::{items, tests as values};
use proptest::prelude::*;
use serde_json::{Value, json};

const INBOX: &str = "f-inbox";
const USERS: &str = "f-projects";
const JUNK: &str = "f-junk";
const DELETED: &str = "f-deleted";
const RECOVERABLE: &str = "f-recoverable";

/// What the stand-in does with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    NotRun,
    LostBefore,
    LostAfter,
    Throttled,
    BusyBefore,
    BusyAfter,
    /// The process dies before the answer is seen; the call took effect.
    CrashAfter,
    /// The process dies before the call.
    CrashBefore,
}

#[derive(Debug, Clone)]
struct Copy {
    id: String,
    mailbox: String,
    folder: String,
    network: &'static str,
    moves: u32,
    read: bool,
}

#[derive(Debug, Default)]
struct Graph {
    copies: Vec<Copy>,
    no_mailbox: Vec<String>,
    denied: Vec<String>,
    log: Vec<String>,
}

impl Graph {
    fn with(copies: &[(&str, &str, &str)]) -> Self {
        let mut graph = Self::default();
        for (n, (mailbox, folder, network)) in copies.iter().enumerate() {
            graph.copies.push(Copy {
                id: format!("c{n}"),
                mailbox: (*mailbox).into(),
                folder: (*folder).into(),
                network: if *network == "n1" { "n1" } else { "n2" },
                moves: 0,
                read: n % 2 == 0,
            });
        }
        graph
    }

    fn message(copy: &Copy) -> Value {
        json!({"id": copy.id, "internetMessageId": "<m@x>", "parentFolderId": copy.folder,
            "isRead": copy.read, "receivedDateTime": "2026-01-31T10:00:00Z",
            "internetMessageHeaders": [
                {"name": "X-MS-Exchange-Organization-Network-Message-Id", "value": copy.network}]})
    }

    fn ask(&mut self, user: &str, ask: &Ask) -> Answer {
        self.log.push(format!("{user} {ask:?}"));
        let refuse = |status, code: &str| Answer {
            status,
            retry_after: None,
            body: json!({"error": {"code": code}}),
        };
        if self.no_mailbox.iter().any(|name| name == user) {
            return refuse(404, "MailboxNotEnabledForRESTAPI");
        }
        if self.denied.iter().any(|name| name == user) {
            return refuse(403, "ErrorAccessDenied");
        }
        let found = |id: &ImmutableId, copies: &[Copy]| {
            copies
                .iter()
                .position(|c| c.mailbox == user && c.id == id.0)
        };
        let body = match ask {
            Ask::Locate(round) => {
                let here = |c: &&Copy| {
                    c.mailbox == user
                        && !round.bare()
                        && (c.folder == RECOVERABLE) == round.recoverable()
                        && c.folder != "purged"
                };
                json!({"value": self.copies.iter().filter(here).map(Self::message).collect::<Value>()})
            }
            Ask::WellKnown(folder) => {
                let id = match folder {
                    WellKnown::Inbox => INBOX,
                    WellKnown::JunkEmail => JUNK,
                    WellKnown::DeletedItems => DELETED,
                    WellKnown::RecoverableItemsDeletions => RECOVERABLE,
                };
                json!({"id": id, "displayName": id.to_uppercase()})
            }
            Ask::Name(folder) => json!({"id": folder.0, "displayName": folder.0.to_uppercase()}),
            Ask::Look(id) => match found(id, &self.copies) {
                // As in the field: by id, what is recoverable may not be shown.
                Some(n) if self.copies[n].folder != RECOVERABLE => Self::message(&self.copies[n]),
                _ => return refuse(404, "ErrorItemNotFound"),
            },
            Ask::Move(id, to) => match found(id, &self.copies) {
                Some(n) if self.copies[n].folder != "purged" => {
                    let copy = &mut self.copies[n];
                    copy.folder = match to {
                        WellKnown::Inbox => INBOX,
                        WellKnown::JunkEmail => JUNK,
                        WellKnown::DeletedItems => DELETED,
                        WellKnown::RecoverableItemsDeletions => RECOVERABLE,
                    }
                    .into();
                    copy.moves += 1;
                    Self::message(copy)
                }
                _ => return refuse(404, "ErrorItemNotFound"),
            },
            Ask::Next(..) => unreachable!("the stand-in has one page"),
        };
        Answer {
            status: 200,
            retry_after: None,
            body,
        }
    }
}

fn job(action: Action, recipients: &[&str]) -> Job {
    let mut record = values::record(recipients);
    record.facts.times = vec!["2026-01-31T10:00:00Z".parse().unwrap()];
    let records = vec![record];
    let resolved = |address: &crate::mail::Address| match address.domain() {
        "x" => values::in_mailboxes(&[address.local_part()]),
        _ => Resolution::External,
    };
    let resolved = recipients
        .iter()
        .map(|r| r.parse().unwrap())
        .map(|a| (resolved(&a), a));
    let resolved = resolved.map(|(r, a)| (a, r)).collect();
    Job {
        id: Some("job_test".into()),
        tenant: TenantName::new("t"),
        state: JobState::Running,
        action,
        created: "2026-01-31T11:00:00Z".parse().unwrap(),
        by: By {
            who: "ana".into(),
            uid: Some(1000),
        },
        reason: None,
        items: items(&records, &resolved),
        records,
    }
}

struct Run {
    engine: Engine,
    stored: Job,
    now: Now,
    start: Now,
}

impl Run {
    fn new(job: Job) -> Self {
        let start = Now {
            wall: "2026-01-31T11:00:00Z".parse().unwrap(),
            monotonic: Instant::now(),
        };
        Self {
            engine: Self::engine(job.clone(), start),
            stored: job,
            now: start,
            start,
        }
    }

    fn engine(job: Job, now: Now) -> Engine {
        let base = Base::parse("https://graph.example/v1.0").unwrap();
        let timing = Timing {
            repetitions: 1000,
            watch: Duration::ZERO,
            ..Timing::default()
        };
        Engine::new(job, base, timing, 7, HashSet::new(), now)
    }

    fn store(&mut self) {
        for (n, item) in self.engine.take_changed() {
            if n == self.stored.items.len() {
                self.stored.items.push(item);
            } else {
                self.stored.items[n] = item;
            }
        }
    }

    fn crash(&mut self) {
        self.engine = Self::engine(self.stored.clone(), self.now);
    }

    /// Runs until the job is settled, a fault for each request in turn, then none.
    fn run(&mut self, graph: &mut Graph, faults: &[Fault]) {
        let mut faults = faults.iter().copied();
        for _ in 0..10_000 {
            if self.engine.settled() {
                self.store();
                return;
            }
            let Some(step) = self.engine.ready(self.now).into_iter().next() else {
                let until = self
                    .engine
                    .next_timer(self.now)
                    .expect("something to wait for");
                let waited = until - self.start.monotonic;
                self.now = Now {
                    wall: self.start.wall + waited,
                    monotonic: until,
                };
                continue;
            };
            self.engine.request(&step).unwrap().expect("a mailbox");
            self.engine.start(&step, self.now);
            self.store();
            let item = &self.engine.job().items[step.item];
            let user = item.mailbox.as_ref().unwrap().id.user.clone();
            let busy = |status| Answer {
                status,
                retry_after: None,
                body: Value::Null,
            };
            let outcome = match faults.next().unwrap_or(Fault::None) {
                Fault::None => Outcome::Answer(graph.ask(&user, &step.ask)),
                Fault::NotRun => Outcome::NotRun("refused".into()),
                Fault::LostBefore => Outcome::Lost("reset".into()),
                Fault::LostAfter => {
                    graph.ask(&user, &step.ask);
                    Outcome::Lost("reset".into())
                }
                Fault::Throttled => Outcome::Answer(busy(429)),
                Fault::BusyBefore => Outcome::Answer(busy(503)),
                Fault::BusyAfter => {
                    graph.ask(&user, &step.ask);
                    Outcome::Answer(busy(503))
                }
                Fault::CrashBefore => {
                    self.crash();
                    continue;
                }
                Fault::CrashAfter => {
                    graph.ask(&user, &step.ask);
                    self.crash();
                    continue;
                }
            };
            self.engine.answer(&step, outcome, self.now);
            self.store();
        }
        panic!("never settled: {:#?}", self.engine.job().items);
    }

    fn states(&self) -> Vec<(State, Option<Reason>)> {
        self.stored
            .items
            .iter()
            .map(|item| (item.state, item.reason))
            .collect()
    }
}

#[test]
fn every_copy_is_moved_and_proven() {
    let mut graph = Graph::with(&[("a", INBOX, "n1"), ("b", USERS, "n1"), ("b", INBOX, "n1")]);
    let mut run = Run::new(job(Action::SoftDelete, &["a@x", "b@x", "c@y"]));
    run.run(&mut graph, &[]);
    assert!(
        graph
            .copies
            .iter()
            .all(|c| c.folder == RECOVERABLE && c.moves == 1)
    );
    let verified = (State::Verified, None);
    let external = (State::External, Some(Reason::OtherDomain));
    assert_eq!(run.states(), [verified, verified, external, verified]);
    let before: Vec<_> = run
        .stored
        .items
        .iter()
        .filter_map(|i| i.folder_before.clone())
        .collect();
    assert!(
        before.iter().all(|f| f.name == Some(f.id.0.to_uppercase())),
        "{before:?}"
    );
    let document = run.stored.document();
    assert_eq!(document["counts"], json!({"verified": 3, "external": 1}));
    assert_eq!(document["recipients"].as_array().unwrap().len(), 3);
    assert_eq!(document["recipients"][1]["outcome"], "verified");
}

#[test]
fn where_copies_stand_before() {
    use Action::{Inbox, Junk, SoftDelete, Trash};
    let gone = Some(Reason::GoneBefore);
    for (name, action, folder, state, reason, after) in [
        (
            "elsewhere",
            SoftDelete,
            USERS,
            State::Verified,
            None,
            RECOVERABLE,
        ),
        (
            "recoverable",
            SoftDelete,
            RECOVERABLE,
            State::AlreadyGone,
            gone,
            RECOVERABLE,
        ),
        (
            "recoverable is beyond trash",
            Trash,
            RECOVERABLE,
            State::AlreadyGone,
            gone,
            RECOVERABLE,
        ),
        (
            "in trash",
            Trash,
            DELETED,
            State::AlreadyGone,
            gone,
            DELETED,
        ),
        (
            "trash is beyond junk",
            Junk,
            DELETED,
            State::AlreadyGone,
            gone,
            DELETED,
        ),
        ("junk to trash", Trash, JUNK, State::Verified, None, DELETED),
        ("to junk", Junk, INBOX, State::Verified, None, JUNK),
        ("back", Inbox, RECOVERABLE, State::Verified, None, INBOX),
        ("back from junk", Inbox, JUNK, State::Verified, None, INBOX),
        (
            "never away",
            Inbox,
            USERS,
            State::AlreadyGone,
            Some(Reason::AtTarget),
            USERS,
        ),
        (
            "nowhere",
            SoftDelete,
            "purged",
            State::NotFound,
            Some(Reason::NeverSeen),
            "purged",
        ),
    ] {
        let mut graph = Graph::with(&[("a", folder, "n1")]);
        let mut run = Run::new(job(action, &["a@x"]));
        run.run(&mut graph, &[]);
        assert_eq!(run.states(), [(state, reason)], "{name}");
        assert_eq!(graph.copies[0].folder, after, "{name}");
    }
}

#[test]
fn another_message_of_this_message_id_is_told_and_never_touched() {
    let other = (State::Mismatch, Some(Reason::OtherNetworkMessageId));
    let mut graph = Graph::with(&[("a", INBOX, "n2"), ("b", INBOX, "n2"), ("b", INBOX, "n1")]);
    let mut run = Run::new(job(Action::SoftDelete, &["a@x", "b@x"]));
    run.run(&mut graph, &[]);
    assert_eq!(run.states(), [other, (State::Verified, None), other]);
    assert_eq!(
        graph.copies.iter().map(|c| c.moves).collect::<Vec<_>>(),
        [0, 0, 1]
    );
    let document = run.stored.document();
    let outcomes = document["recipients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["outcome"].clone());
    assert_eq!(outcomes.collect::<Vec<_>>(), ["mismatch", "verified"]);
}

#[test]
fn what_graph_refuses_is_told() {
    let mut graph = Graph::with(&[("a", INBOX, "n1"), ("b", INBOX, "n1")]);
    graph.no_mailbox = vec!["a".into()];
    graph.denied = vec!["b".into()];
    let mut run = Run::new(job(Action::SoftDelete, &["a@x", "b@x"]));
    run.run(&mut graph, &[]);
    let no_mailbox = (State::NoMailbox, Some(Reason::OnPremises));
    assert_eq!(
        run.states(),
        [no_mailbox, (State::Denied, Some(Reason::Permission))]
    );
}

#[test]
fn a_dry_run_moves_nothing() {
    let mut graph = Graph::with(&[("a", INBOX, "n1"), ("b", DELETED, "n1")]);
    let mut planned = job(Action::Trash, &["a@x", "b@x"]);
    planned.state = JobState::Planned;
    let mut run = Run::new(planned);
    run.run(&mut graph, &[]);
    let gone = (State::AlreadyGone, Some(Reason::GoneBefore));
    assert_eq!(run.states(), [(State::Located, None), gone]);
    assert!(graph.copies.iter().all(|c| c.moves == 0));
}

#[test]
fn unread_copies_are_moved_first() {
    let mut graph = Graph::with(&[("a", INBOX, "n1"), ("b", INBOX, "n1")]);
    let mut run = Run::new(job(Action::SoftDelete, &["a@x", "b@x"]));
    for step in run.engine.ready(run.now) {
        run.engine.start(&step, run.now);
        let user = run.engine.job().items[step.item]
            .mailbox
            .as_ref()
            .unwrap()
            .id
            .user
            .clone();
        run.engine
            .answer(&step, Outcome::Answer(graph.ask(&user, &step.ask)), run.now);
    }
    let order: Vec<_> = run
        .engine
        .ready(run.now)
        .iter()
        .map(|step| step.item)
        .collect();
    assert_eq!(order, [1, 0]);
}

#[test]
fn a_copy_that_an_earlier_job_moved_is_ours() {
    let mut graph = Graph::with(&[("a", RECOVERABLE, "n1")]);
    let mut run = Run::new(job(Action::SoftDelete, &["a@x"]));
    let mailbox = values::mailbox("a").id;
    run.engine.ours.insert((mailbox, ImmutableId("c0".into())));
    run.run(&mut graph, &[]);
    assert_eq!(run.states(), [(State::Verified, Some(Reason::EarlierJob))]);
}

#[test]
fn a_late_copy_replaces_the_entry_that_said_there_was_none() {
    let mut graph = Graph::with(&[("a", "purged", "n1")]);
    let mut run = Run::new(job(Action::SoftDelete, &["a@x"]));
    run.engine.timing = Timing::default();
    run.run(&mut graph, &[]);
    assert_eq!(run.states()[0].0, State::NotFound);
    assert!(run.engine.settled() && !run.engine.finished());
    assert!(run.engine.ready(run.now).is_empty());
    graph.copies[0].folder = INBOX.into();
    run.now.monotonic = run.engine.next_timer(run.now).unwrap();
    assert_eq!(
        run.now.monotonic - run.start.monotonic,
        Duration::from_secs(30)
    );
    let [step] = &run.engine.ready(run.now)[..] else {
        panic!("the watch asks")
    };
    run.engine.start(step, run.now);
    run.engine
        .answer(step, Outcome::Answer(graph.ask("a", &step.ask)), run.now);
    run.run(&mut graph, &[]);
    assert_eq!(run.states(), [(State::Verified, None)]);
    assert!(run.engine.finished());
}

#[test]
fn a_message_id_that_may_not_be_sent_fails_alone() {
    let mut bad = job(Action::SoftDelete, &["a@x"]);
    bad.records[0].facts = Facts {
        message_id: MessageId::new("<a\u{1}b@x>").unwrap(),
        ..bad.records[0].facts.clone()
    };
    bad.records[0].id = RecordId::from_octets([1; 16]);
    let mut run = Run::new(bad);
    let step = run.engine.ready(run.now).remove(0);
    let error = run.engine.request(&step).unwrap_err();
    run.engine.refuse(&step, &error);
    run.store();
    assert_eq!(run.states(), [(State::Failed, Some(Reason::Refused))]);
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::NotRun),
        1 => Just(Fault::LostBefore),
        1 => Just(Fault::LostAfter),
        1 => Just(Fault::Throttled),
        1 => Just(Fault::BusyBefore),
        1 => Just(Fault::BusyAfter),
        1 => Just(Fault::CrashBefore),
        1 => Just(Fault::CrashAfter),
    ]
}

proptest! {
    /// Whatever fails and whenever the process dies: every copy ends where it was asked to be, is moved
    /// once, is never called `already_gone` if we moved it, and the outcomes sum to the recipients.
    #[test]
    fn faults_and_crashes(
        action in prop::sample::select(vec![Action::Junk, Action::Trash, Action::SoftDelete]),
        folders in prop::collection::vec(prop::sample::select(vec![INBOX, USERS, JUNK, DELETED, RECOVERABLE]), 1..5),
        other in any::<bool>(),
        faults in prop::collection::vec(fault(), 0..60),
    ) {
        let names = ["a", "b", "a", "c"];
        let mut copies: Vec<_> = folders.iter().zip(names).map(|(f, m)| (m, *f, "n1")).collect();
        if other {
            copies.push(("a", INBOX, "n2"));
        }
        let mut graph = Graph::with(&copies);
        let started = graph.copies.clone();
        let mut run = Run::new(job(action, &["a@x", "b@x", "c@x", "d@y"]));
        run.run(&mut graph, &faults);
        for (copy, before) in graph.copies.iter().zip(&started) {
            let items: Vec<_> = run.stored.items.iter().filter(|i| i.message == Some(ImmutableId(copy.id.clone()))).collect();
            if copy.network == "n2" {
                prop_assert_eq!(copy.moves, 0);
                continue;
            }
            let folder = |f: &str| match f {
                JUNK => Some(WellKnown::JunkEmail),
                DELETED => Some(WellKnown::DeletedItems),
                RECOVERABLE => Some(WellKnown::RecoverableItemsDeletions),
                _ => None,
            };
            let was = action.place(folder(&before.folder));
            let expected_moves = u32::from(was == crate::retract::action::Place::Short);
            prop_assert_eq!(copy.moves, expected_moves, "{:?}", graph.log);
            // A second copy is looked for where the first was found.
            if let [item] = items[..] {
                let state = if expected_moves == 1 { State::Verified } else { State::AlreadyGone };
                prop_assert_eq!(item.state, state, "{:?}", item);
            } else {
                prop_assert!(items.is_empty() && before.folder == RECOVERABLE, "{:?}", items);
            }
        }
        let document = run.stored.document();
        prop_assert_eq!(document["recipients"].as_array().unwrap().len(), 4);
        let counted: u64 = document["counts"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        prop_assert_eq!(counted as usize, run.stored.items.len());
    }
}
