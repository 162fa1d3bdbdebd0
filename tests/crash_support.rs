//! A whole service on a disk that fails, kills and loses power, clients that feed it, and what they
//! were told; and a look for all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, RwLock};

use arc_swap::ArcSwap;
use clawback::admin;
use clawback::audit::Audit;
use clawback::config::Config;
use clawback::index::{Options, Store};
use clawback::key::StoreKey;
use clawback::server::{self, Receiver};
use clawback::state::jobs::Jobs;
use clawback::state::log::StateLog;
use clawback::telemetry::{self, Verbosity};
use clawback::worker::Worker;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::cli_serving::{EndedEarly, Serving, Site, change};
use crate::preload::Disk;
use crate::support::report::TENANT_ID;
use crate::support::service::{self, JOURNAL};
use crate::support::{Client, Mail};

/// Clients that send at the same time.
const CLIENTS: usize = 6;
/// Recipients of a large report: so many do not fit into one frame.
const MANY: usize = 2100;
/// How often something that must come is asked for.
const PATIENCE: usize = 600;

/// Rounds of a test: few, or as many times more as `CRASH_ROUNDS` says.
pub(crate) fn rounds(few: u64) -> u64 {
    let more = std::env::var("CRASH_ROUNDS").map_or(1, |text| text.parse().unwrap());
    few * more
}

/// Numbers that follow from a seed, which `CRASH_SEED` fixes.
pub(crate) struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    pub(crate) fn new() -> Self {
        let seed = std::env::var("CRASH_SEED").map_or_else(
            |_| RandomState::new().hash_one("seed"),
            |text| text.parse().unwrap(),
        );
        Self { seed, state: seed }
    }

    /// A number from 1 to `most` (splitmix64).
    pub(crate) fn up_to(&mut self, most: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        1 + (z ^ (z >> 31)) % most
    }
}

impl std::fmt::Display for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CRASH_SEED={}", self.seed)
    }
}

// ---- The service ----

/// What runs on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// The real binary.
    Binary,
    /// The same parts in a child of this test binary, with partitions of so many reports: closing and
    /// sealing them is a part of each round.
    SmallPartitions(u64),
}

/// A configuration whose data are on a [`Disk`].
pub(crate) struct Bench {
    pub(crate) site: Site,
    pub(crate) disk: Disk,
    program: Program,
}

impl Bench {
    /// Data and store key are on the disk, and not there yet.
    pub(crate) fn new(disk: Disk, program: Program) -> Self {
        let site = Site::new(&format!(
            "[[tenant]]\nname = \"contoso\"\ntenant_id = \"{TENANT_ID}\"\n\
             domains = [\"contoso.onmicrosoft.example\", \"contoso.example\"]\n\
             peers = [\"127.0.0.0/8\"]\njournal_address = [\"{JOURNAL}\"]\n"
        ));
        let root = disk.path().display().to_string();
        let place = format!("path = \"{root}/data\"\nkey_file = \"{root}/store.key\"");
        change(&site, "path = \"data\"", &place);
        Self {
            site,
            disk,
            program,
        }
    }

    /// Starts the service; or how it ended before it ran.
    pub(crate) fn try_start(&self) -> Result<Serving<'_>, EndedEarly> {
        self.site.try_started(self.command())
    }

    /// Starts the service.
    pub(crate) fn start(&self) -> Serving<'_> {
        self.site.started(self.command())
    }

    fn command(&self) -> Command {
        let mut command = match self.program {
            Program::Binary => {
                let mut command = self.site.command();
                command.arg("serve");
                command
            }
            Program::SmallPartitions(reports) => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command
                    .args(["--exact", "crash_support::child", "--nocapture"])
                    .env("CRASH_CONFIG", &self.site.config)
                    .env("CRASH_PARTITION", reports.to_string())
                    .stdout(Stdio::null());
                command
            }
        };
        self.disk.attach(&mut command);
        command
    }

    /// Clients of it.
    pub(crate) fn feed(&self) -> Feed {
        Feed {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
            ca: fs::read_to_string(self.site.path("certs/fullchain.pem")).unwrap(),
            told: BTreeMap::new(),
            codes: BTreeSet::new(),
        }
    }
}

/// Does nothing unless it is a child: the configuration is named in the environment.
#[test]
fn child() {
    let Some(path) = std::env::var_os("CRASH_CONFIG") else {
        return;
    };
    let reports = std::env::var("CRASH_PARTITION").unwrap().parse().unwrap();
    let config = Arc::new(Config::load(Path::new(&path)).unwrap());
    telemetry::start_logs(Verbosity::Normal);
    Runtime::new().unwrap().block_on(serve(config, reports));
}

/// What `serve` does, with partitions of this size.
async fn serve(config: Arc<Config>, partition_reports: u64) {
    let listeners = server::listen(&config.smtp.listen).unwrap();
    let section = &config.store;
    let key = StoreKey::load(&section.key_file)
        .or_else(|_| StoreKey::create(&section.key_file))
        .unwrap();
    let received = service::parts_with(
        &config,
        Options {
            partition_reports,
            ..Options::new(section.path.clone(), key.clone())
        },
    );
    let audit = Arc::new(Audit::open(&section.path.join("audit"), &key).unwrap());
    let state = StateLog::<Jobs>::open(&section.path.join("state")).unwrap();
    let store: Store = received.store.clone();
    let state_damage = state.damage().into();
    let parts = admin::Parts {
        state_damage,
        worker: Worker::start(Arc::clone(&config), store, state, Arc::clone(&audit)),
        store: received.store.clone(),
        quarantine: received.quarantine.clone(),
        audit,
        feed: received.feed.clone(),
        calendar: received.calendar.clone(),
        receiver: Arc::new(RwLock::new(None)),
        key: Arc::new(key),
        started: service::now(),
        config: Arc::new(ArcSwap::new(Arc::clone(&config))),
    };
    let socket = admin::bind(&config.admin.socket, &[]).unwrap();
    let receiver = Receiver::start(config, received, listeners).unwrap();
    *parts.receiver.write().unwrap() = Some(receiver);
    tracing::info!("started");
    let never = CancellationToken::new();
    admin::serve(parts, socket, never).await.unwrap();
}

// ---- The clients ----

/// What a client was told of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Kept,
    /// 4xx, or nothing: it is sent again.
    Again,
}

/// Numbered reports, and what was said to each.
pub(crate) struct Feed {
    runtime: Runtime,
    ca: String,
    told: BTreeMap<u64, Told>,
    /// Replies to ends of data.
    codes: BTreeSet<u16>,
}

/// What several clients share.
struct Round {
    waiting: Vec<u64>,
    told: BTreeMap<u64, Told>,
    codes: BTreeSet<u16>,
}

/// Report number `number`: some have very many recipients, some cannot be believed.
fn mail(number: u64) -> Mail {
    let mut mail = Mail::new(&message_id(number));
    if number % 20 == 7 {
        mail = mail.with_recipients(MANY);
    }
    mail.recipients
        .push(format!("Recipient: {}", recipient(number)));
    mail.sender = format!("s{number}@tailspin.example");
    mail.subject = format!("Invoice w{number}");
    if is_doubtful(number) {
        (mail.originator_org, mail.tenant_id) = (None, None);
    }
    mail
}

fn is_doubtful(number: u64) -> bool {
    number % 20 == 13
}

fn message_id(number: u64) -> String {
    format!("m{number}@tailspin.example")
}

fn recipient(number: u64) -> String {
    format!("u{number}@contoso.example")
}

impl Feed {
    /// Sends everything that was not kept yet, and new reports up to this many in all; until all are
    /// sent, or the service is gone.
    pub(crate) fn send(&mut self, address: SocketAddr, count: usize) {
        let mut waiting: Vec<u64> = self.unkept();
        let first = self.told.len() as u64;
        waiting.extend((first..).take(count.saturating_sub(waiting.len())));
        self.told.extend(waiting.iter().map(|n| (*n, Told::Again)));
        waiting.reverse();
        let round = Arc::new(Mutex::new(Round {
            waiting,
            told: BTreeMap::new(),
            codes: BTreeSet::new(),
        }));
        self.runtime.block_on(async {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| tokio::spawn(client(address, self.ca.clone(), Arc::clone(&round))))
                .collect();
            for client in clients {
                client.await.unwrap();
            }
        });
        let mut round = round.lock().unwrap();
        self.told.append(&mut round.told);
        self.codes.append(&mut round.codes);
    }

    /// Sends until everything was kept.
    pub(crate) fn send_all(&mut self, address: SocketAddr) {
        for _ in 0..PATIENCE {
            self.send(address, 0);
            if self.unkept().is_empty() {
                return;
            }
        }
        panic!("never kept: {:?}, replies {:?}", self.unkept(), self.codes);
    }

    fn unkept(&self) -> Vec<u64> {
        let unkept = self.told.iter().filter(|(_, told)| **told != Told::Kept);
        unkept.map(|(number, _)| *number).collect()
    }

    fn kept(&self) -> impl Iterator<Item = u64> {
        let kept = self.told.iter().filter(|(_, told)| **told == Told::Kept);
        kept.map(|(number, _)| *number)
    }

    /// Replies to ends of data since this was asked last.
    pub(crate) fn take_codes(&mut self) -> BTreeSet<u16> {
        std::mem::take(&mut self.codes)
    }

    // ---- The look ----

    /// Everything that was kept is there, once, whole and in its place, and nothing is damaged.
    pub(crate) fn check(&self, service: &Serving<'_>, when: &str) {
        self.check_found(service, when);
        self.check_quarantine(service, when);
        for (number, option, value) in self.samples() {
            let ended = service.run(&["--json", "search", option, &value]);
            let id = message_id(number);
            let documents = ended.documents();
            let found = documents.iter().any(|record| record["message_id"] == id);
            assert!(found, "{when}: {id} by {option} {value}: {}", ended.stderr);
        }
        for arguments in [["store", "verify"], ["audit", "verify"]] {
            let ended = service.run(&arguments);
            assert_eq!(ended.code, 0, "{when}: {arguments:?}: {ended:#?}");
        }
    }

    /// Search gives every report that was kept, and none twice. The service may need a moment after a
    /// fault.
    pub(crate) fn check_found(&self, service: &Serving<'_>, when: &str) {
        let ended = (0..PATIENCE)
            .map(|_| service.run(&["--json", "search", "--since", "2020-01-01"]))
            .find(|ended| ended.code <= 1)
            .unwrap_or_else(|| panic!("{when}: search does not answer: {:#?}", service.unread()));
        let mut found: BTreeMap<String, Value> = BTreeMap::new();
        for document in ended.documents() {
            assert_eq!(document["reports"], 1, "{when}: {document}");
            let id = document["message_id"].as_str().unwrap().to_owned();
            assert!(found.insert(id.clone(), document).is_none(), "{when}: {id}");
        }
        let believed = self.kept().filter(|number| !is_doubtful(*number));
        let lost: Vec<u64> = believed
            .filter(|number| !found.contains_key(&message_id(*number)))
            .collect();
        let kept = self.kept().count();
        assert!(lost.is_empty(), "{when}: lost of {kept}: {lost:?}");
        for number in self.told.keys() {
            let Some(document) = found.remove(&message_id(*number)) else {
                continue;
            };
            assert!(!is_doubtful(*number), "{when}: believed: {document}");
            let recipients = document["recipients"].as_array().unwrap().iter();
            let addresses: BTreeSet<&str> = recipients
                .map(|recipient| recipient["address"].as_str().unwrap())
                .collect();
            let mail = mail(*number);
            let lines = mail.recipients.iter();
            let expected: BTreeSet<&str> = lines
                .map(|line| line.strip_prefix("Recipient: ").unwrap())
                .collect();
            assert!(
                addresses == expected,
                "{when}: report {number} has {} recipients",
                addresses.len()
            );
        }
        assert!(found.is_empty(), "{when}: nobody sent {:?}", found.keys());
    }

    fn check_quarantine(&self, service: &Serving<'_>, when: &str) {
        let listed = service.run(&["--json", "quarantine", "list"]);
        assert_eq!(listed.code, 0, "{when}: {}", listed.stderr);
        let held: BTreeMap<String, String> = listed
            .documents()
            .iter()
            .map(|item| {
                let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
                (text("message_id"), text("id"))
            })
            .collect();
        let doubtful: Vec<u64> = self.kept().filter(|number| is_doubtful(*number)).collect();
        for number in &doubtful {
            let id = message_id(*number);
            assert!(held.contains_key(&id), "{when}: {id} is not held");
        }
        if let Some(number) = doubtful.last() {
            let shown = service.run(&["quarantine", "show", &held[&message_id(*number)]]);
            assert_eq!(shown.stdout, mail(*number).report(), "{when}");
        }
    }

    /// Some reports, and what to find them by.
    fn samples(&self) -> Vec<(u64, &'static str, String)> {
        let mut kept = self.kept().filter(|number| !is_doubtful(*number));
        let (first, last) = (kept.next(), kept.last());
        let samples = first.into_iter().chain(last).flat_map(|number| {
            [
                (number, "--message-id", message_id(number)),
                (number, "--recipient", recipient(number)),
                (number, "--sender", format!("s{number}@tailspin.example")),
                (number, "--subject", format!("w{number}")),
            ]
        });
        samples.collect()
    }
}

/// Sends what waits, over one connection after another, until nothing does or nobody answers.
async fn client(address: SocketAddr, ca: String, round: Arc<Mutex<Round>>) {
    let next = || round.lock().unwrap().waiting.pop();
    let mut number = next();
    let mut connection = None;
    while let Some(this) = number {
        let client = match &mut connection {
            Some(client) => client,
            None => match Client::try_encrypted(address, &ca).await {
                Some(client) => connection.insert(client),
                None => return,
            },
        };
        let report = mail(this).report();
        let mut kept = false;
        // Exchange repeats a report whose 250 it did not see.
        for _ in 0..1 + u64::from(this % 10 == 4) {
            let Some(reply) = client.try_deliver("", JOURNAL, &report).await else {
                connection = None;
                break;
            };
            kept |= reply.code == 250;
            round.lock().unwrap().codes.insert(reply.code);
        }
        let told = if kept { Told::Kept } else { Told::Again };
        round.lock().unwrap().told.insert(this, told);
        number = next();
    }
}
