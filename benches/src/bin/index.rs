//! The index at size: loads synthetic reports through the store and measures what is promised of it.
//!
//! `cargo run --release --bin index -- [REPORTS] [DIRECTORY]` prints one figure a line. Reports are like
//! real ones in what counts here: 4.4 recipients on average out of 20,000 users, 40,000 senders, six
//! words of subject, references, attachments and URLs, one in thirty a fork of an earlier message.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clawback::index::{NewReport, Options, Query, Store};
use clawback::journal::{Attachment, Envelope, Field, Inner, Kind, Outer, Recipient, Report};
use clawback::key::StoreKey;
use clawback::mail::{MessageId, TenantName};
use jiff::{SignedDuration, Timestamp};

const USERS: u64 = 20_000;
const SENDERS: u64 = 40_000;
const WORDS: u64 = 8_000;
const DAYS: u64 = 10;
const SESSIONS: u64 = 200;
const QUERIES: u64 = 2_000;

/// A number that depends on the seed and the place alone (SplitMix64).
fn random(seed: u64, place: u64) -> u64 {
    let mut z = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(place.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Some of `most` values are far more frequent than others.
fn skewed(random: u64, most: u64) -> u64 {
    let share = (random >> 11) as f64 / (1u64 << 53) as f64;
    (share * share * share * most as f64) as u64
}

fn guid(a: u64, b: u64) -> String {
    let (a2, b2) = (random(a, b), random(b, a));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a2 >> 32,
        a2 >> 16 & 0xffff,
        a2 & 0xfff,
        b2 >> 52,
        b2 & 0xffff_ffff_ffff
    )
}

fn message_id(message: u64) -> MessageId {
    let text = format!(
        "<{:016X}{:016X}@AM{}PR07MB{}.eurprd07.prod.outlook.com>",
        random(message, 1),
        random(message, 2),
        random(message, 3) % 10,
        random(message, 4) % 10_000
    );
    MessageId::new(&text).expect("not empty")
}

fn user(number: u64) -> String {
    format!("given{}.surname{number}@contoso.example", number % 700)
}

fn sender(number: u64) -> String {
    format!("contact{number}@company{}.example", number % 9000)
}

fn attachment(message: u64) -> Option<[u8; 32]> {
    random(message, 5).is_multiple_of(5).then(|| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&random(message, 6).to_be_bytes());
        hash[8..16].copy_from_slice(&message.to_be_bytes());
        hash
    })
}

fn start() -> Timestamp {
    "2026-03-02T00:00:00Z".parse().expect("a time")
}

/// When message `message` of `all` was received.
fn received(message: u64, all: u64) -> Timestamp {
    let seconds = message * DAYS * 86_400 / all.max(1);
    start() + SignedDuration::from_secs(seconds as i64)
}

fn recipients(report: u64) -> Vec<Recipient> {
    // 1 to 3 mostly, sometimes a list: 4.4 on average.
    let count = match random(report, 7) % 100 {
        0..=54 => 1,
        55..=84 => 2 + random(report, 8) % 3,
        85..=98 => 5 + random(report, 8) % 13,
        _ => 50 + random(report, 8) % 150,
    };
    // Each once, as a parsed report gives them.
    let users: BTreeSet<u64> = (0..count)
        .map(|place| skewed(random(report, 100 + place), USERS))
        .collect();
    (0..)
        .zip(users)
        .map(|(place, number)| Recipient {
            address: user(number).parse().expect("address"),
            field: if place == 0u64 { Field::To } else { Field::Cc },
            expanded_from: (count > 20).then(|| "everyone@contoso.example".parse().expect("address")),
            forwarded_from: None,
        })
        .collect()
}

fn report(number: u64, all: u64) -> NewReport {
    let fork = number > 1000 && random(number, 9).is_multiple_of(30);
    let message = if fork { number - random(number, 10) % 1000 } else { number };
    let received = received(message, all);
    let subject: Vec<String> = (0..6)
        .map(|place| format!("word{}", skewed(random(message, 20 + place), WORDS)))
        .collect();
    let subject = subject.join(" ");
    let from = sender(skewed(random(message, 11), SENDERS));
    let mut digest = [3; 32];
    digest[..8].copy_from_slice(&random(message, 12).to_be_bytes());
    let mut envelope_digest = [4; 32];
    envelope_digest[..8].copy_from_slice(&random(number, 13).to_be_bytes());
    let recipients = recipients(number);
    let references = (0..random(message, 14) % 4)
        .map(|place| message_id(skewed(random(message, 30 + place), message + 1)))
        .collect();
    let url_domains = (0..random(message, 15) % 4)
        .map(|place| format!("site{}.example", skewed(random(message, 40 + place), 30_000)))
        .collect();
    let attachments = attachment(message).map(|sha256| Attachment {
        name: Some(format!("document {message}.pdf")),
        sha256,
    });
    NewReport {
        tenant: TenantName::new("contoso"),
        region: None,
        arrived: received_at_arrival(number, all),
        peer: format!("40.107.{}.{}", number % 20, number % 250),
        report: Report {
            kind: Kind::Report,
            outer: Outer {
                message_id: MessageId::new(&format!("{}@journal.report.generator", guid(number, 16))),
                ..Outer::default()
            },
            envelope: Envelope {
                sender: from.parse().ok(),
                subject: Some(subject.clone()),
                message_id: Some(message_id(message)),
                sent: Some(received - SignedDuration::from_secs(3)),
                received: Some(received),
                ..Envelope::default()
            },
            envelope_digest,
            recipient_count: recipients.len() as u64,
            recipients,
            inner: Inner {
                present: true,
                from: from.parse().ok(),
                date: Some(received - SignedDuration::from_secs(4)),
                subject: Some(subject),
                message_id: Some(message_id(message)),
                references,
                network_message_id: Some(guid(number, 17)),
                size: 20_000 + random(message, 18) % 200_000,
                attachments: attachments.into_iter().collect(),
                url_domains,
                content_digest: Some(digest),
                partly_read: false,
            },
            problems: Vec::new(),
        },
    }
}

fn received_at_arrival(number: u64, all: u64) -> Timestamp {
    received(number, all) + SignedDuration::from_secs(5)
}

/// Value of a line of /proc/self/status, in MiB.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|l| l.strip_prefix(line));
    let kib = found.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// What this thread worked: on a busy machine the figure that says something.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn options(root: &Path) -> Options {
    let path = root.join("store.key");
    let key = StoreKey::load(&path).or_else(|_| StoreKey::create(&path)).expect("key");
    Options::new(root.join("data"), key)
}

fn tree_octets(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => tree_octets(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

async fn load(store: &Store, all: u64) {
    let next = Arc::new(AtomicU64::new(0));
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let (store, next) = (store.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= all {
                        return;
                    }
                    let kept = store.begin().commit(report(number, all)).await;
                    kept.expect("commit");
                }
            })
        })
        .collect();
    for session in sessions {
        session.await.expect("session");
    }
}

/// Asks `QUERIES` times and prints how long it took and how much was found.
fn ask(name: &str, store: &Store, query: impl Fn(u64) -> Query) {
    for pass in ["first", "second"] {
        let (mut times, mut work) = (Vec::new(), Vec::new());
        let mut found = 0;
        for number in 0..QUERIES {
            let query = query(number);
            let (before, worked) = (Instant::now(), thread_cpu());
            for record in store.search(&query) {
                record.expect("record");
                found += 1;
            }
            times.push(before.elapsed());
            work.push(thread_cpu() - worked);
        }
        times.sort_unstable();
        work.sort_unstable();
        let at = |share: usize| times[times.len() * share / 1000].as_micros();
        let cpu = |share: usize| work[work.len() * share / 1000].as_micros();
        println!(
            "{name}, {pass} pass: p50 {} us, p99 {} us, p99.9 {} us (CPU {}, {}, {}), {:.1} records",
            at(500),
            at(990),
            at(999),
            cpu(500),
            cpu(990),
            cpu(999),
            found as f64 / QUERIES as f64
        );
    }
}

fn queries(store: &Store, all: u64) {
    let message = |n: u64| random(n, 50) % all;
    ask("Message-ID", store, |n| Query {
        message_id: Some(message_id(message(n))),
        ..Query::default()
    });
    ask("Message-ID that is not there", store, |n| Query {
        message_id: Some(message_id(all * 7 + n)),
        ..Query::default()
    });
    ask("recipient in two hours", store, |n| {
        let since = received(message(n), all);
        let who = user(random(n, 53) % USERS);
        Query {
            recipient: who.parse().ok(),
            since: Some(since),
            until: Some(since + SignedDuration::from_hours(2)),
            ..Query::default()
        }
    });
    ask("recipient, newest 50", store, |n| Query {
        recipient: user(skewed(random(n, 51), USERS)).parse().ok(),
        limit: Some(50),
        ..Query::default()
    });
    ask("sender, newest 50", store, |n| Query {
        sender: sender(skewed(random(n, 52), SENDERS)).parse().ok(),
        limit: Some(50),
        ..Query::default()
    });
    ask("attachment hash", store, |n| Query {
        attachment_sha256: (message(n)..).find_map(attachment),
        ..Query::default()
    });
    ask("newest 50 of a time", store, |n| Query {
        until: Some(received(message(n), all)),
        limit: Some(50),
        ..Query::default()
    });
}

fn scan(store: &Store) {
    let (before, worked) = (Instant::now(), thread_cpu());
    let (mut rows, mut records) = (0u64, 0u64);
    for record in store.search(&Query::default()) {
        records += 1;
        rows += record.expect("record").recipients.len() as u64;
    }
    let took = before.elapsed().as_secs_f64();
    println!(
        "everything: {records} records, {rows} rows in {took:.1} s, {:.0} rows/s, {:.0} a second of CPU, {} MiB",
        rows as f64 / took,
        rows as f64 / (thread_cpu() - worked).as_secs_f64(),
        memory("VmRSS:")
    );
}

fn open(root: &Path, what: &str) -> Store {
    let before = Instant::now();
    let store = Store::open(options(root)).expect("open");
    let opened = before.elapsed();
    store.settle().expect("settle");
    println!(
        "open {what}: commits after {} ms, queries after {} ms, {} MiB",
        opened.as_millis(),
        before.elapsed().as_millis(),
        memory("VmRSS:")
    );
    store
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let all = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let temporary = tempfile::tempdir().expect("directory");
    let given = arguments.next().map(PathBuf::from);
    let loaded = given.as_deref().is_some_and(|path| path.join("data").exists());
    let root = given.unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&root).expect("directory");
    let now = received_at_arrival(all, all);
    if !loaded {
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        let store = open(&root, "new");
        let (before, cpu_before) = (Instant::now(), cpu());
        runtime.block_on(load(&store, all));
        let committed = before.elapsed();
        store.settle().expect("settle");
        let took = before.elapsed();
        println!(
            "load: {all} reports committed in {:.1} s, indexed in {:.1} s, {:.0} reports/s, {:.0} us CPU a report (making it included), {} MiB at most",
            committed.as_secs_f64(),
            took.as_secs_f64(),
            all as f64 / took.as_secs_f64(),
            (cpu() - cpu_before).as_micros() as f64 / all as f64,
            memory("VmHWM:")
        );
        drop(runtime);
        let before = Instant::now();
        store.close();
        println!("close: {} ms", before.elapsed().as_millis());
        let making = cpu();
        (0..all.min(100_000)).for_each(|n| drop(std::hint::black_box(report(n, all))));
        println!(
            "making a report: {:.1} us CPU",
            (cpu() - making).as_micros() as f64 / all.min(100_000) as f64
        );
    }
    let store = open(&root, "again");
    let stats = store.stats();
    let (log, index) = stats.partitions.iter().fold((0, 0), |(log, index), p| {
        (log + p.log_octets, index + p.index_octets)
    });
    println!(
        "disk: {} octets a report (log {}, index {}), files {}; {} partitions, {:.2} recipients a report",
        stats.octets / stats.reports.max(1),
        log / stats.reports.max(1),
        index / stats.reports.max(1),
        tree_octets(&root) / stats.reports.max(1),
        stats.partitions.len(),
        stats.recipients as f64 / stats.reports.max(1) as f64
    );
    queries(&store, all);
    println!("after the queries: {} MiB", memory("VmRSS:"));
    scan(&store);
    let before = Instant::now();
    let verified = store.verify(false).expect("verify");
    println!(
        "verify: {} frames, {} compared, {} findings in {:.1} s",
        verified.frames,
        verified.compared,
        verified.findings.len(),
        before.elapsed().as_secs_f64()
    );
    store.close();
    // As after a loss of power: another boot, the index in use.
    let marker = root.join("data/index/marker");
    let text = std::fs::read_to_string(&marker).expect("marker");
    let head = text.lines().next().unwrap_or_default();
    std::fs::write(&marker, format!("{head}\nanother-boot\nopen\n")).expect("marker");
    open(&root, "after a loss of power").close();
    if !loaded {
        expire(&root, now);
    }
}

/// Drops the oldest partition.
fn expire(root: &Path, now: Timestamp) {
    let before = tree_octets(root);
    let mut options = options(root);
    options.retention = Duration::from_secs((DAYS - 1) * 86_400 - 3600);
    let store = Store::open(options).expect("open");
    store.settle().expect("settle");
    let started = Instant::now();
    let expired = store.expire(now).expect("expire");
    println!(
        "expire: {} partitions, {} reports in {} ms, {} MiB back",
        expired.partitions,
        expired.reports,
        started.elapsed().as_millis(),
        before.saturating_sub(tree_octets(root)) >> 20
    );
    store.close();
}
