//! What was acknowledged is there after a crash, a power cut, a full disk and a failing one.
//!
//! A child process (this test binary again) appends to one of the stores and prints `ACK` with each
//! text once it was told that the text is durable. The test kills it, or lets its disk fail, and then
//! looks for every text that it read.

use std::collections::{BTreeSet, HashSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use clawback::audit::{self, Action, Audit, Entry};
use clawback::index::commit::{CommitError, Committer};
use clawback::index::log::{self, Event, Frame, Position, Purpose};
use clawback::key::StoreKey;
use clawback::mail::TenantName;
use clawback::quarantine::{Meta, Quarantine};
use clawback::state::log::{Fold, StateLog};
use jiff::Timestamp;

use crate::preload::Disk;

/// Threads or tasks of a child that append at the same time.
const WRITERS: u64 = 6;
const STORES: [&str; 4] = ["log", "state", "audit", "quarantine"];

// ---- The child ----

/// Does nothing unless it is a child: the store and the first number are in the environment.
#[test]
fn child() {
    let Ok(store) = std::env::var("DURABILITY_STORE") else {
        return;
    };
    let first: u64 = std::env::var("DURABILITY_FIRST").unwrap().parse().unwrap();
    let root = std::env::var_os("DURABILITY_ROOT").unwrap();
    let root = Path::new(&root).join("data").join(&store);
    let append = appender(&store, &root);
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let text = text(first + number);
                    match append(&text) {
                        Ok(()) => say(&format!("ACK {text}")),
                        Err(error) => say(&format!("ERR {error}")),
                    }
                }
            });
        }
    });
}

fn say(line: &str) {
    // One write, so that lines of several threads do not mix; the harness prints too.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// A text of its own for each number, some longer than a page.
fn text(number: u64) -> String {
    let octets = usize::try_from(number * 7919 % 9000).unwrap();
    format!("{number}-{}", "x".repeat(octets))
}

type Append = Box<dyn Fn(&str) -> Result<(), String> + Sync>;

/// How to append a text durably to a store.
fn appender(store: &str, root: &Path) -> Append {
    match store {
        "log" => log_appender(root),
        "state" => {
            let state = Mutex::new(StateLog::<Texts>::open(root).unwrap());
            Box::new(move |text| {
                let mut state = state.lock().unwrap();
                let result = state.append(vec![text.to_owned()]);
                if state.value().0.len().is_multiple_of(16) {
                    // The changes are safe without it.
                    if let Err(error) = state.snapshot() {
                        say(&format!("SNAPSHOT {error}"));
                    }
                }
                result.map_err(|error| error.to_string())
            })
        }
        "audit" => {
            let audit = Audit::open(root, &key()).unwrap();
            Box::new(move |text| audit.append(vec![entry(text)]).map_err(|e| e.to_string()))
        }
        _ => {
            let quarantine = quarantine(root);
            Box::new(move |text| {
                let mut writer = quarantine.begin(meta(text)).map_err(|e| e.to_string())?;
                writer.write(text.as_bytes()).map_err(|e| e.to_string())?;
                writer.finish().map(drop).map_err(|e| e.to_string())
            })
        }
    }
}

fn log_appender(root: &Path) -> Append {
    let log = Arc::new(log::open(root).unwrap());
    let partition = log.partitions().last().copied().unwrap_or(1);
    let (committer, feed) = Committer::start(Arc::clone(&log), partition).unwrap();
    let rotating = committer.clone();
    thread::spawn(move || {
        let mut taken = 0;
        let mut partition = partition;
        while let Some(entries) = feed.recv(100) {
            taken += entries.len();
            if taken > 40 {
                taken = 0;
                partition += 1;
                rotating.rotate(partition);
            }
        }
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    Box::new(move |text| {
        runtime.block_on(async {
            // Two frames: the text counts only with both.
            let frames = vec![frame(1, text), frame(2, text)];
            committer
                .append(frames)
                .await
                .map(drop)
                .map_err(|error| match error {
                    CommitError::Full(_) => format!("full: {error}"),
                    other => other.to_string(),
                })
        })
    })
}

fn frame(kind: u8, text: &str) -> Frame {
    Frame::new(kind, text.as_bytes().to_vec())
}

fn key() -> StoreKey {
    StoreKey::from_octets([1; 32])
}

fn quarantine(root: &Path) -> Quarantine {
    Quarantine::open(root, &key(), 1 << 30, Duration::from_secs(1)).unwrap()
}

fn meta(text: &str) -> Meta {
    Meta {
        tenant: TenantName::new("t"),
        received: Timestamp::UNIX_EPOCH,
        peer: String::new(),
        kind: String::new(),
        reason: String::new(),
        message_id: Some(text.to_owned()),
        facts: std::collections::BTreeMap::new(),
    }
}

fn entry(text: &str) -> Entry {
    Entry {
        at: Timestamp::from_second(1_700_000_000).unwrap(),
        who: String::new(),
        uid: None,
        action: Action::Intent,
        job: None,
        message_id: Some(text.to_owned()),
        mailbox: None,
        detail: None,
    }
}

#[derive(Default)]
struct Texts(BTreeSet<String>);

impl Fold for Texts {
    const PURPOSE: Purpose = Purpose {
        tag: *b"text",
        version: 1,
    };
    type Change = String;
    type Snapshot = BTreeSet<String>;

    fn apply(&mut self, change: String) {
        self.0.insert(change);
    }
    fn snapshot(&self) -> BTreeSet<String> {
        self.0.clone()
    }
    fn restore(snapshot: BTreeSet<String>) -> Self {
        Self(snapshot)
    }
}

// ---- The parent ----

/// A child and what it said.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    last: String,
}

/// What was acknowledged, over all children of a disk.
struct History {
    store: &'static str,
    acknowledged: HashSet<String>,
    next: u64,
}

impl History {
    fn new(store: &'static str) -> Self {
        Self {
            store,
            acknowledged: HashSet::new(),
            next: 0,
        }
    }

    fn start(&mut self, disk: &Disk) -> Running {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "durability::child", "--nocapture"])
            .env("DURABILITY_STORE", self.store)
            .env("DURABILITY_FIRST", self.next.to_string())
            .env("DURABILITY_ROOT", disk.path())
            .stdout(Stdio::piped());
        self.next += 1_000_000;
        let mut child = disk.attach(&mut command).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running {
            child,
            lines,
            last: String::new(),
        }
    }

    /// Reads what the child says until `enough` lines of a kind came, or it ended; how many came.
    fn read(&mut self, running: &mut Running, kind: &str, enough: usize) -> usize {
        let mut count = 0;
        while count < enough {
            let line = &mut running.last;
            line.clear();
            if running.lines.read_line(line).unwrap() == 0 {
                break;
            }
            if let Some(text) = line.trim_end().strip_prefix("ACK ") {
                self.acknowledged.insert(text.to_owned());
            }
            count += usize::from(line.starts_with(kind));
        }
        count
    }

    /// Reads until an attempt was refused and others were acknowledged after it, or until so many
    /// were acknowledged that the fault cannot come any more; whether one was refused.
    fn read_past_fault(&mut self, running: &mut Running) -> bool {
        let mut left = 40;
        let mut refused = false;
        while left > 0 {
            assert_eq!(
                self.read(running, "", 1),
                1,
                "{}: the child ended",
                self.store
            );
            if running.last.starts_with("ERR") && !refused {
                (refused, left) = (true, 6);
            }
            left -= usize::from(running.last.starts_with("ACK"));
        }
        refused
    }

    /// Kills the child and reads what it had said before.
    fn kill(&mut self, mut running: Running) {
        running.child.kill().unwrap();
        let mut rest = Vec::new();
        running.lines.read_to_end(&mut rest).unwrap();
        running.child.wait().unwrap();
        let rest = String::from_utf8(rest).unwrap();
        // The last line may be cut.
        let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let texts = whole.lines().filter_map(|line| line.strip_prefix("ACK "));
        self.acknowledged.extend(texts.map(str::to_owned));
    }

    /// Every acknowledged text is there, and nothing looks damaged.
    fn check(&self, disk: &Disk, when: &str) {
        let store = self.store;
        let found = texts(store, &disk.path().join("data").join(store));
        let lost: Vec<_> = self
            .acknowledged
            .difference(&found)
            .map(|text| name(text))
            .collect();
        let acknowledged = self.acknowledged.len();
        assert!(
            lost.is_empty(),
            "{store}, {when}: lost of {acknowledged}: {lost:?}"
        );
    }
}

fn name(text: &str) -> &str {
    text.split('-').next().unwrap_or_default()
}

/// All texts in a store.
fn texts(store: &str, root: &Path) -> HashSet<String> {
    match store {
        "log" => log_texts(root),
        "state" => {
            let state = StateLog::<Texts>::open(root).unwrap();
            assert_eq!(state.damage(), [""; 0]);
            state.value().0.iter().cloned().collect()
        }
        "audit" => {
            let verified = audit::verify(root, &key(), &[]).unwrap();
            assert_eq!(verified.broken, None);
            let shown = audit::show(root).unwrap();
            shown
                .map(|r| r.unwrap().entry.message_id.unwrap())
                .collect()
        }
        _ => {
            let quarantine = quarantine(root);
            assert_eq!(quarantine.unreadable(), [""; 0]);
            let items = quarantine.list().into_iter();
            items
                .map(|item| {
                    let mut content = String::new();
                    let mut read = quarantine.read(item.id).unwrap();
                    read.read_to_string(&mut content).unwrap();
                    assert_eq!(item.meta.message_id.as_ref(), Some(&content));
                    content
                })
                .collect()
        }
    }
}

fn log_texts(root: &Path) -> HashSet<String> {
    let log = log::open(root).unwrap();
    let (mut first, mut both) = (HashSet::new(), HashSet::new());
    for partition in log.partitions() {
        for event in log.scan(Position::start_of(partition)) {
            match event.unwrap() {
                Event::Frame(position, frame) => {
                    assert_eq!(log.read(position).unwrap(), frame);
                    let text = String::from_utf8(frame.payload).unwrap();
                    if frame.kind == 1 {
                        first.insert(text);
                    } else if first.contains(&text) {
                        both.insert(text);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    both
}

// ---- The tests ----

#[test]
fn kill_at_any_moment_loses_nothing() {
    for store in STORES {
        let disk = Disk::new();
        let mut history = History::new(store);
        for round in 0..6 {
            let mut running = history.start(&disk);
            assert!(history.read(&mut running, "ACK", 1 + round * 23) > 0);
            history.kill(running);
            history.check(&disk, "killed");
        }
        assert!(history.acknowledged.len() > 300);
    }
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing() {
    for store in STORES {
        let disk = Disk::with_power_cuts();
        let mut history = History::new(store);
        for round in 0..8 {
            let mut running = history.start(&disk);
            assert!(history.read(&mut running, "ACK", 1 + round * 23) > 0);
            history.kill(running);
            disk.cut_power();
            history.check(&disk, "power cut");
        }
        assert!(history.acknowledged.len() > 400);
    }
}

/// The library is worth something only if it takes away what was not synced.
#[test]
fn a_power_cut_takes_what_was_not_synced() {
    let disk = Disk::with_power_cuts();
    let script = "cd \"$0\" && echo synced > a && sync a . && echo more >> a && echo new > b && mv a c \
                  && mkdir d && echo inner > d/e && sync d/e d && kill -9 $$";
    let mut command = Command::new("sh");
    let status = disk
        .attach(command.args(["-c", script]).arg(disk.path()))
        .status();
    assert!(!status.unwrap().success());
    disk.cut_power();
    let names: Vec<_> = std::fs::read_dir(disk.path())
        .unwrap()
        .map(|f| f.unwrap().file_name())
        .collect();
    assert_eq!(names, ["a"]);
    assert_eq!(
        std::fs::read_to_string(disk.path().join("a")).unwrap(),
        "synced\n"
    );
}

/// One call fails, for each of the first calls of each kind, at the start of a child and while it
/// runs; then the power goes.
#[test]
fn one_fault_anywhere_loses_nothing_and_passes() {
    const FAULTS: [&str; 7] = [
        "write N ERROR",
        "sync N ERROR",
        "open N ERROR",
        "rename N ERROR",
        "mkdir N ERROR",
        "write N ERROR\ntruncate 1 EIO",
        "sync N ERROR\ntruncate 1 EIO",
    ];
    for store in STORES {
        let mut refused = 0;
        for (start, fault) in (1..).zip(FAULTS) {
            let disk = Disk::with_power_cuts();
            let mut history = History::new(store);
            let lines = |nth: u64, error| {
                let fault = fault.replace('N', &nth.to_string());
                fault.replace("ERROR", error)
            };
            disk.fail(&lines(start, "EIO"));
            let mut running = history.start(&disk);
            refused += usize::from(history.read_past_fault(&mut running));
            for (nth, error) in (1..=8).zip(["EIO", "ENOSPC", "EDQUOT"].into_iter().cycle()) {
                disk.fail(&lines(nth, error));
                refused += usize::from(history.read_past_fault(&mut running));
            }
            history.kill(running);
            disk.cut_power();
            history.check(&disk, fault);
        }
        // The faults do meet the store. One that meets the audit log's head file refuses nothing.
        assert!(refused > 20, "{store}: {refused} refused");
    }
}

/// Nothing can be written or synced any more, then everything works again: no restart is needed.
#[test]
fn the_store_recovers_when_the_fault_clears() {
    for store in STORES {
        for fault in [
            "write 5 ENOSPC 0",
            "write 3 EIO 0",
            "sync 4 EIO 0",
            "space 20000",
            "open 1 EIO 0\nsync 3 EIO 2",
        ] {
            let disk = Disk::with_power_cuts();
            let mut history = History::new(store);
            disk.fail(&format!("{fault}\n"));
            let mut running = history.start(&disk);
            assert_eq!(
                history.read(&mut running, "ERR", 30),
                30,
                "{store}, {fault}"
            );
            let before = history.acknowledged.len();
            disk.fail("");
            assert_eq!(
                history.read(&mut running, "ACK", 30),
                30,
                "{store}, {fault}"
            );
            assert!(history.acknowledged.len() > before);
            history.kill(running);
            disk.cut_power();
            history.check(&disk, fault);
        }
    }
}

/// A snapshot that has its name, but not durably, must not stand for changes that come after it.
#[test]
fn a_snapshot_that_failed_at_any_step_loses_nothing() {
    for fault in ["dirsync", "rename", "open", "write"] {
        let mut failed = 0;
        for nth in 1..=6 {
            let disk = Disk::with_power_cuts();
            let mut history = History::new("state");
            let mut running = history.start(&disk);
            assert_eq!(history.read(&mut running, "ACK", 10), 10);
            disk.fail(&format!("{fault} {nth} EIO"));
            let (mut left, mut again) = (40, 0);
            while left > 0 {
                assert_eq!(history.read(&mut running, "", 1), 1);
                if running.last.starts_with("SNAPSHOT") {
                    failed += 1;
                    left = 3;
                } else if running.last.starts_with("ERR") && again < 50 {
                    // It met an append. Where the store is when a fault is set depends on the
                    // scheduler: set it anew until it meets a snapshot.
                    again += 1;
                    left = 40;
                    disk.fail(&format!("{fault} {} EIO", 1 + (nth + again) % 9));
                }
                left -= usize::from(running.last.starts_with("ACK"));
            }
            history.kill(running);
            history.check(&disk, &format!("{fault} {nth}, killed"));
            disk.cut_power();
            history.check(&disk, &format!("{fault} {nth}, power cut"));
        }
        assert!(failed > 0, "{fault}");
    }
}

/// The system may call a later sync of the same file a success although it has dropped octets.
#[test]
fn a_file_whose_sync_failed_is_not_used_again() {
    let disk = Disk::with_power_cuts();
    let mut history = History::new("log");
    disk.fail("sync 8 EIO");
    let mut running = history.start(&disk);
    assert!(history.read_past_fault(&mut running));
    history.kill(running);
    disk.cut_power();
    history.check(&disk, "one failed sync");
    let files = std::fs::read_dir(disk.path().join("data/log")).unwrap();
    let names: Vec<_> = files
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().any(|name| name.ends_with("-0002.log")),
        "{names:?}"
    );
}

/// A disk that is full from the start: the child starts, is refused, and goes on when there is space.
#[test]
fn a_start_on_a_full_disk_waits_for_space() {
    for store in STORES {
        let disk = Disk::with_power_cuts();
        let mut history = History::new(store);
        disk.fail("space 0\nmkdir 1 ENOSPC 0\n");
        let mut running = history.start(&disk);
        assert_eq!(history.read(&mut running, "ERR", 20), 20, "{store}");
        assert!(history.acknowledged.is_empty());
        disk.fail("");
        assert_eq!(history.read(&mut running, "ACK", 20), 20, "{store}");
        history.kill(running);
        disk.cut_power();
        history.check(&disk, "full at the start");
    }
}
