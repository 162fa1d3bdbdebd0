//! The outbound connector: sends waiting journal reports to a smart host over SMTP, as Exchange Online does.
//!
//! Several connections take from one queue. A 4xx reply, a refused connection or a lost one puts the message
//! back with a growing delay; a 5xx reply makes it undeliverable for good.

mod smtp;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::smtp::{Connection, Failure};
use crate::mail::journal::Report;
use crate::mail::{Mail, compose};
use crate::random::Random;
use crate::tenant::Tenant;
use crate::world::{World, locked};
use crate::{TenantError, clock};

/// Where reports go, and how.
#[derive(Debug, Clone)]
pub struct SmartHost {
    /// Address of the receiver.
    pub addr: SocketAddr,
    /// The name in its certificate.
    pub server_name: String,
    /// The authority of its certificate, in PEM.
    pub ca_pem: String,
    /// The forward-path of reports.
    pub journal_address: String,
    /// What EHLO says.
    pub helo: String,
    /// Whether TLS is used.
    pub tls: Tls,
    /// A certificate of the tenant's own authority for `mail.protection.outlook.com` is shown to the receiver.
    pub client_certificate: bool,
    /// How many connections at once.
    pub connections: usize,
    /// A connection is closed after so many messages.
    pub messages_per_connection: usize,
    /// BDAT for every message if CHUNKING is offered; otherwise only for those with bare LF.
    pub bdat: bool,
    /// Octets of a BDAT chunk; the last may be shorter.
    pub chunk: usize,
    /// Commands are sent in groups if PIPELINING is offered.
    pub pipelining: bool,
    /// Delays before the second, third … attempt; the last one is repeated.
    pub retry: Vec<Duration>,
    /// Attempts after which a message is undeliverable; `None`: never.
    pub attempts: Option<u32>,
    /// How long a reply may take.
    pub patience: Duration,
}

impl SmartHost {
    /// TLS required, two connections, BDAT where offered, quick retries.
    pub fn new(addr: SocketAddr, ca_pem: &str, journal_address: &str) -> Self {
        Self {
            addr,
            server_name: "localhost".into(),
            ca_pem: ca_pem.into(),
            journal_address: journal_address.into(),
            helo: "NAM12-BN8-obe.outbound.protection.outlook.com".into(),
            tls: Tls::Required,
            client_certificate: false,
            connections: 2,
            messages_per_connection: 100,
            bdat: true,
            chunk: 64 << 10,
            pipelining: true,
            retry: [20, 50, 100, 200].map(Duration::from_millis).to_vec(),
            attempts: None,
            patience: Duration::from_secs(60),
        }
    }
}

/// Whether a connector uses TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS with a certificate of the given authority, or nothing is sent.
    Required,
    /// STARTTLS if it is offered.
    Opportunistic,
    /// Never.
    Off,
}

/// What a connector has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Messages that got 250.
    pub sent: u64,
    /// Attempts that failed for the moment.
    pub retried: u64,
    /// Messages that were refused for good.
    pub refused: u64,
    /// Connections made.
    pub connections: u64,
    /// Messages sent with BDAT.
    pub bdat: u64,
    /// Octets of messages that got 250.
    pub octets: u64,
    /// Why the last attempt failed.
    pub last_failure: Option<String>,
}

/// A message that will not be tried again: what the undeliverable-report address would get.
#[derive(Debug, Clone)]
pub struct Undeliverable {
    /// The message.
    pub octets: Vec<u8>,
    /// The last reply, or what else was wrong.
    pub reply: String,
}

/// How long a connection stays open without a message to send.
const IDLE: Duration = Duration::from_millis(200);

/// A running connector. It stops when dropped.
#[derive(Debug)]
pub struct Connector {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

#[derive(Debug)]
struct Shared {
    world: Arc<World>,
    host: SmartHost,
    client: smtp::Client,
    queue: Mutex<Queue>,
    /// Told when a message is done or put back.
    changed: Notify,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Queue {
    /// Messages that wait for their next attempt.
    delayed: BinaryHeap<Reverse<Delayed>>,
    in_flight: usize,
    sequence: u64,
    statistics: Statistics,
    undeliverable: Vec<Undeliverable>,
}

/// A message on its way.
#[derive(Debug, Clone)]
struct Item {
    content: Content,
    attempts: u32,
}

#[derive(Debug, Clone)]
enum Content {
    Report(Report),
    Octets {
        reverse_path: Option<String>,
        octets: Arc<[u8]>,
    },
}

#[derive(Debug)]
struct Delayed {
    due: Instant,
    sequence: u64,
    item: Item,
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Delayed {}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

impl Tenant {
    /// Starts a connector: waiting reports, and those to come, go to `host`.
    ///
    /// # Errors
    ///
    /// If the authority's certificate cannot be read or the server's name is none.
    pub fn connector(&self, host: SmartHost) -> Result<Connector, TenantError> {
        let client = smtp::Client::new(&host, self.cloud().authority())?;
        let connections = host.connections.max(1);
        let shared = Arc::new(Shared {
            world: Arc::clone(&self.world),
            host,
            client,
            queue: Mutex::default(),
            changed: Notify::new(),
            stop: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        for _ in 0..connections {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move {
                tokio::select! {
                    () = shared.stop.cancelled() => {}
                    () = shared.work() => {}
                }
            });
        }
        tasks.close();
        Ok(Connector { shared, tasks })
    }
}

impl Connector {
    /// Waits until nothing is queued, delayed or on its way.
    pub async fn drain(&self) {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.waiting() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// How many messages are queued, delayed or on their way.
    pub fn waiting(&self) -> usize {
        let queue = locked(&self.shared.queue);
        queue.delayed.len() + queue.in_flight + locked(&self.shared.world.journal).len()
    }

    /// Sums so far.
    pub fn statistics(&self) -> Statistics {
        locked(&self.shared.queue).statistics.clone()
    }

    /// What could not be delivered.
    pub fn undeliverable(&self) -> Vec<Undeliverable> {
        locked(&self.shared.queue).undeliverable.clone()
    }

    /// Queues a message of any kind for the journal address.
    pub fn submit(&self, reverse_path: Option<&str>, octets: &[u8]) {
        let content = Content::Octets {
            reverse_path: reverse_path.map(ToOwned::to_owned),
            octets: octets.into(),
        };
        self.shared.put(
            Item {
                content,
                attempts: 0,
            },
            clock::instant(),
        );
    }

    /// Queues the mail that Exchange Online sends when an administrator validates a connector.
    pub fn send_validation(&self) {
        let domain = &self.shared.world.stamps.initial_domain;
        let from = format!("O365ConnectorValidation@{domain}");
        let mail = Mail {
            body: "This test email message was sent from Microsoft 365 to check the settings of a connector.\r\n".into(),
            ..Mail::new(&from, [&self.shared.host.journal_address], "Test email for connector validation")
        };
        let now = clock::now();
        let mut random = Random::new(now.as_nanosecond().unsigned_abs() as u64);
        let message_id = format!("<{}@{domain}>", random.guid());
        self.submit(
            Some(&from),
            &compose::message(&mail, &message_id, now, &mut random),
        );
    }

    /// Stops and waits for the connections to end. What was not sent stays queued in the tenant.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.tasks.wait().await;
        self.shared.give_back();
    }
}

impl Shared {
    /// One connection after the other, message after message, until stopped.
    async fn work(&self) {
        let mut connection: Option<Connection> = None;
        let mut sent = 0;
        loop {
            let idle_until = connection.as_ref().map(|_| clock::instant() + IDLE);
            let Some(item) = self.next(idle_until).await else {
                if let Some(connection) = connection.take() {
                    connection.quit().await;
                }
                continue;
            };
            let guard = InFlight {
                shared: self,
                item: Some(item),
            };
            let result = self.attempt(&mut connection, &mut sent, &guard).await;
            guard.finish(result);
            if sent >= self.host.messages_per_connection
                && let Some(connection) = connection.take()
            {
                connection.quit().await;
            }
        }
    }

    /// Sends one message, over the open connection or a new one.
    async fn attempt(
        &self,
        connection: &mut Option<Connection>,
        sent: &mut usize,
        guard: &InFlight<'_>,
    ) -> Result<Sent, (Failure, Vec<u8>)> {
        let (reverse_path, octets) = guard.written();
        if connection.is_none() {
            let made = self
                .client
                .connect()
                .await
                .map_err(|failure| (failure, Vec::new()))?;
            locked(&self.queue).statistics.connections += 1;
            *connection = Some(made);
            *sent = 0;
        }
        let Some(open) = connection.as_mut() else {
            return Err((Failure::lost("no connection"), octets));
        };
        let result = open
            .send(&self.host, reverse_path.as_deref(), &octets)
            .await;
        *sent += 1;
        match result {
            Ok(bdat) => Ok(Sent {
                octets: octets.len(),
                bdat,
            }),
            Err(failure) => {
                if failure.is_over() {
                    *connection = None;
                }
                Err((failure, octets))
            }
        }
    }

    /// The next message that is due; `None` if there is none until `idle_until`.
    async fn next(&self, idle_until: Option<Instant>) -> Option<Item> {
        loop {
            let (journaled, changed) = (self.world.journaled.notified(), self.changed.notified());
            tokio::pin!(journaled, changed);
            journaled.as_mut().enable();
            changed.as_mut().enable();
            let due = {
                let mut queue = locked(&self.queue);
                let now = clock::instant();
                if queue
                    .delayed
                    .peek()
                    .is_some_and(|Reverse(next)| next.due <= now)
                {
                    queue.in_flight += 1;
                    return queue.delayed.pop().map(|Reverse(next)| next.item);
                }
                if let Some(report) = locked(&self.world.journal).pop_front() {
                    queue.in_flight += 1;
                    return Some(Item {
                        content: Content::Report(report),
                        attempts: 0,
                    });
                }
                queue.delayed.peek().map(|Reverse(next)| next.due)
            };
            if idle_until.is_some_and(|until| until <= clock::instant()) {
                return None;
            }
            let timer = async {
                match due.into_iter().chain(idle_until).min() {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut journaled => {}
                () = &mut changed => {}
                () = timer => {}
            }
        }
    }

    /// Queues a message for a time.
    fn put(&self, item: Item, due: Instant) {
        let mut queue = locked(&self.queue);
        queue.sequence += 1;
        let sequence = queue.sequence;
        queue.delayed.push(Reverse(Delayed {
            due,
            sequence,
            item,
        }));
        drop(queue);
        self.changed.notify_waiters();
    }

    /// Puts delayed reports back into the tenant's queue.
    fn give_back(&self) {
        let delayed = std::mem::take(&mut locked(&self.queue).delayed);
        let reports =
            delayed
                .into_iter()
                .filter_map(|Reverse(delayed)| match delayed.item.content {
                    Content::Report(report) => Some(report),
                    Content::Octets { .. } => None,
                });
        self.world.queue(reports.collect());
    }
}

/// A message that got 250.
struct Sent {
    octets: usize,
    bdat: bool,
}

/// A message on its way; put back if its connection is stopped meanwhile.
struct InFlight<'a> {
    shared: &'a Shared,
    item: Option<Item>,
}

impl InFlight<'_> {
    /// The reverse-path and the octets.
    fn written(&self) -> (Option<String>, Vec<u8>) {
        match self.item.as_ref().map(|item| &item.content) {
            Some(Content::Report(report)) => {
                let stamps = &self.shared.world.stamps;
                (
                    stamps.journaling.undeliverable.clone(),
                    report.write(stamps),
                )
            }
            Some(Content::Octets {
                reverse_path,
                octets,
            }) => (reverse_path.clone(), octets.to_vec()),
            None => (None, Vec::new()),
        }
    }

    /// Counts what happened, and puts the message back if it should be tried again.
    fn finish(mut self, result: Result<Sent, (Failure, Vec<u8>)>) {
        let Some(mut item) = self.item.take() else {
            return;
        };
        let host = &self.shared.host;
        let mut queue = locked(&self.shared.queue);
        queue.in_flight -= 1;
        match result {
            Ok(sent) => {
                queue.statistics.sent += 1;
                queue.statistics.octets += sent.octets as u64;
                queue.statistics.bdat += u64::from(sent.bdat);
            }
            Err((failure, octets)) => {
                item.attempts += 1;
                queue.statistics.last_failure = Some(failure.to_string());
                let hopeless = failure.is_permanent()
                    || host.attempts.is_some_and(|most| item.attempts >= most);
                if hopeless {
                    queue.statistics.refused += 1;
                    queue.undeliverable.push(Undeliverable {
                        octets,
                        reply: failure.to_string(),
                    });
                } else {
                    queue.statistics.retried += 1;
                    let step = (item.attempts as usize - 1).min(host.retry.len().saturating_sub(1));
                    let delay = host
                        .retry
                        .get(step)
                        .copied()
                        .unwrap_or(Duration::from_millis(100));
                    drop(queue);
                    self.shared.put(item, clock::instant() + delay);
                    return;
                }
            }
        }
        drop(queue);
        self.shared.changed.notify_waiters();
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(item) = self.item.take() {
            locked(&self.shared.queue).in_flight -= 1;
            self.shared.put(item, clock::instant());
        }
    }
}
