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
    /// The token is refused.
    Token,
}

#[derive(Debug, Clone)]
struct Copy {
    id: String,
    mailbox: String,
    folder: String,
    network: &'static str,
    /// Under which of the record's Message-IDs it is found.
    name: usize,
    moves: u32,
    read: bool,
}

#[derive(Debug, Default)]
struct Graph {
    copies: Vec<Copy>,
    no_mailbox: Vec<String>,
    denied: Vec<String>,
    /// So many looks are answered without a parent folder.
    no_parent: u32,
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
                network: match *network {
                    "n1" => "n1",
                    "n2" => "n2",
                    _ => "",
                },
                name: 0,
                moves: 0,
                read: n % 2 == 0,
            });
        }
        graph
    }

    fn message(copy: &Copy) -> Value {
        let header = "X-MS-Exchange-Organization-Network-Message-Id";
        let headers = match copy.network {
            "" => json!([]),
            id => json!([{"name": header, "value": id}]),
        };
        json!({"id": copy.id, "internetMessageId": "<m@x>", "parentFolderId": copy.folder,
            "from": {"emailAddress": {"address": "evil@y"}},
            "isRead": copy.read, "receivedDateTime": "2026-01-31T10:00:00Z",
            "internetMessageHeaders": headers})
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
                        && c.name == round.name
                        && !round.bare
                        && (c.folder == RECOVERABLE) == round.recoverable
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
                Some(n) if ![RECOVERABLE, "purged"].contains(&self.copies[n].folder.as_str()) => {
                    let mut message = Self::message(&self.copies[n]);
                    if self.no_parent > 0 {
                        self.no_parent -= 1;
                        message["parentFolderId"] = Value::Null;
                    }
                    message
                }
                _ => return refuse(404, "ErrorItemNotFound"),
            },
            Ask::Move(id, to) => match found(id, &self.copies) {
                Some(n) if self.copies[n].folder != "purged" => {
                    let copy = &mut self.copies[n];
                    let target = match to {
                        WellKnown::Inbox => INBOX,
                        WellKnown::JunkEmail => JUNK,
                        WellKnown::DeletedItems => DELETED,
                        WellKnown::RecoverableItemsDeletions => RECOVERABLE,
                    };
                    if copy.folder == target {
                        return refuse(400, "ErrorMoveCopyFailed");
                    }
                    copy.folder = target.into();
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
        Engine::new(job, base, timing, 7, Box::new(HashSet::new()), now)
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
                Fault::Token => Outcome::Answer(busy(401)),
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
    let copy = (mailbox, ImmutableId("c0".into()));
    run.engine.others = Box::new(HashSet::from([copy]));
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

/// A job for two records of one Message-ID; the second one's network message ids are given.
fn job_of_two(recipients: &[&str], first: &[&str], second: &[&str]) -> Job {
    let mut job = job(Action::SoftDelete, recipients);
    let mut other = job.records[0].clone();
    other.id = RecordId::from_octets([8; 16]);
    let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    job.records[0].facts.network_message_ids = owned(first);
    other.facts.network_message_ids = owned(second);
    job.records.push(other);
    let resolved = recipients.iter().map(|r| {
        let address: crate::mail::Address = r.parse().unwrap();
        let mailbox = values::in_mailboxes(&[address.local_part()]);
        (address, mailbox)
    });
    job.items = items(&job.records, &resolved.collect());
    job
}

#[test]
fn each_of_two_records_is_told_by_its_own_items() {
    let mut graph = Graph::with(&[("a", INBOX, "n1"), ("a", INBOX, "n2")]);
    let mut run = Run::new(job_of_two(&["a@x"], &["n1"], &["n2"]));
    run.run(&mut graph, &[]);
    assert_eq!(
        run.stored.document()["counts"],
        json!({"verified": 2}),
        "{:#?}",
        run.stored.items
    );
}

#[test]
fn a_copy_that_fits_two_records_is_moved_once_and_told_for_both() {
    for (name, network, first, second) in [
        ("none known", "", &[][..], &[][..]),
        ("one known", "n1", &["n1"], &[]),
        ("the other known", "n2", &[], &["n2"]),
    ] {
        let mut graph = Graph::with(&[("a", INBOX, network)]);
        let mut run = Run::new(job_of_two(&["a@x"], first, second));
        run.run(&mut graph, &[]);
        assert_eq!(graph.copies[0].moves, 1, "{name}");
        let verified = (State::Verified, None);
        assert_eq!(run.states(), [verified; 2], "{name}");
        let document = run.stored.document();
        for recipient in document["recipients"].as_array().unwrap() {
            assert_eq!(recipient["outcome"], "verified", "{name}");
        }
    }
}

#[test]
fn a_fork_under_another_message_id_is_found_as_well() {
    let mut graph = Graph::with(&[("a", INBOX, "n1"), ("a", INBOX, "n1"), ("b", INBOX, "n1")]);
    graph.copies[0].name = 1;
    graph.copies[2].name = 2;
    let mut several = job(Action::SoftDelete, &["a@x", "b@x"]);
    let other = |id: &str| MessageId::new(id).unwrap();
    several.records[0].facts.also = vec![other("<n@x>"), other("<o@x>")];
    let mut run = Run::new(several);
    run.run(&mut graph, &[]);
    assert_eq!(run.states(), [(State::Verified, None); 3]);
    let moves: Vec<u32> = graph.copies.iter().map(|copy| copy.moves).collect();
    assert_eq!(moves, [1, 1, 1]);
}

#[test]
fn other_trouble_before_a_refused_token_is_no_second_refusal() {
    let mut graph = Graph::with(&[("a", INBOX, "n1")]);
    let mut run = Run::new(job(Action::SoftDelete, &["a@x"]));
    // Located, then trouble with the move.
    run.run(&mut graph, &[Fault::None, Fault::Throttled, Fault::Token]);
    assert_eq!(run.states(), [(State::Verified, None)]);

    let mut graph = Graph::with(&[("a", INBOX, "n1")]);
    let mut run = Run::new(job(Action::SoftDelete, &["a@x"]));
    run.run(&mut graph, &[Fault::None, Fault::Token, Fault::Token]);
    assert_eq!(run.states(), [(State::Denied, Some(Reason::Credentials))]);
}

#[test]
fn many_messages_of_the_same_message_id_do_not_protect_the_copy() {
    let mut copies = vec![("a", INBOX, "n2"); 1001];
    copies.push(("a", INBOX, "n1"));
    let mut graph = Graph::with(&copies);
    let mut run = Run::new(job(Action::SoftDelete, &["a@x"]));
    run.run(&mut graph, &[]);
    assert_eq!(run.states()[0], (State::Verified, None));
    assert!(graph.copies[..1001].iter().all(|copy| copy.moves == 0));
    assert!(run.states().len() <= 22, "{}", run.states().len());
    let details = run
        .stored
        .items
        .iter()
        .filter_map(|item| item.detail.as_deref());
    assert!(
        details
            .into_iter()
            .any(|detail| detail.contains("981 more"))
    );
}

#[test]
fn a_copy_that_its_user_took_on_after_our_lost_move_is_ours() {
    let mut graph = Graph::with(&[("a", INBOX, "n1")]);
    let mut run = Run::new(job(Action::Junk, &["a@x"]));
    // Two folders, the copy, and a move whose answer dies with the process.
    while graph.copies[0].moves == 0 {
        let step = run.engine.ready(run.now).remove(0);
        run.engine.start(&step, run.now);
        run.store();
        let answer = graph.ask("a", &step.ask);
        if graph.copies[0].moves == 0 {
            run.engine.answer(&step, Outcome::Answer(answer), run.now);
            run.store();
        }
    }
    graph.copies[0].folder = DELETED.into();
    run.crash();
    run.run(&mut graph, &[]);
    assert_eq!(run.states(), [(State::Verified, Some(Reason::Beyond))]);
    assert_eq!(graph.copies[0].moves, 1);
}

#[test]
fn a_restart_does_not_forget_that_a_lost_move_may_have_run() {
    let mut graph = Graph::with(&[("a", INBOX, "n1")]);
    let mut run = Run::new(job(Action::SoftDelete, &["a@x"]));
    let step = run.engine.ready(run.now).remove(0);
    run.engine.start(&step, run.now);
    run.engine
        .answer(&step, Outcome::Answer(graph.ask("a", &step.ask)), run.now);
    let step = run.engine.ready(run.now).remove(0);
    run.engine.start(&step, run.now);
    // It ran, but for a while Graph shows the copy nowhere.
    graph.copies[0].moves = 1;
    graph.copies[0].folder = "purged".into();
    run.engine
        .answer(&step, Outcome::Lost("reset".into()), run.now);
    run.run(&mut graph, &[]);
    assert_eq!(run.states()[0].0, State::NotFound);
    let resolved = run.engine.take_resolved();
    assert!(
        matches!(&resolved[..], [(0, told)] if told.starts_with("not found")),
        "{resolved:?}"
    );
    run.crash();
    run.engine.timing = Timing::default();
    run.engine.watch_missing(run.now);
    graph.copies[0].folder = RECOVERABLE.into();
    run.now.monotonic = run.engine.next_timer(run.now).unwrap();
    let [step] = &run.engine.ready(run.now)[..] else {
        panic!("the watch asks")
    };
    run.engine.start(step, run.now);
    let answer = Outcome::Answer(graph.ask("a", &step.ask));
    run.engine.answer(step, answer, run.now);
    while !run.engine.ready(run.now).is_empty() {
        let step = run.engine.ready(run.now).remove(0);
        run.engine.start(&step, run.now);
        let answer = Outcome::Answer(graph.ask("a", &step.ask));
        run.engine.answer(&step, answer, run.now);
    }
    run.store();
    assert_eq!(run.states()[0].0, State::Verified);
    assert_eq!(run.engine.take_resolved(), [(0, "moved".to_owned())]);
}

#[test]
fn a_look_that_shows_no_folder_proves_nothing() {
    let mut graph = Graph::with(&[("a", INBOX, "n1")]);
    graph.no_parent = 2;
    let mut run = Run::new(job(Action::Trash, &["a@x"]));
    // The folder, the copy, the move.
    let faults = [Fault::None, Fault::None, Fault::LostAfter];
    run.run(&mut graph, &faults);
    assert_eq!(run.states(), [(State::Verified, None)]);
    assert_eq!(graph.copies[0].moves, 1, "{:?}", graph.log);
    assert_eq!(graph.no_parent, 0);
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
