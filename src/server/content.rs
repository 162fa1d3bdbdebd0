//! What becomes of a message: its content streams through the journal scanner, and at its end it is
//! in the index, or in the quarantine, or the peer is asked to try again.
//!
//! | what it is | where it goes |
//! |---|---|
//! | a report, and it is proven that the tenant sent it | index |
//! | a report without that proof, one that cannot be read, any other mail | quarantine, whole |
//! | Exchange Online's mail that validates a connector | the feed's state |
//!
//! Proven is: the forward-path was the tenant's journal address, the peer is on the tenant's list,
//! and the stamps in the outer header name the tenant and nobody else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use metrics::{counter, histogram};
use tracing::{info, warn};

use super::book::Place;
use super::memory::Share;
use super::spool::Spool;
use super::{Settings, Shared, clock};
use crate::escape;
use crate::index::{CommitError, Draft, NewReport};
use crate::journal::{self, Kind, Outer, Report, Scanner, Stage};
use crate::mail::{ReversePath, TenantName};
use crate::quarantine::{Meta, QuarantineError, fact};
use crate::smtp::Deferral;
use crate::telemetry::metric;

/// Recipients that are gathered before they are written; more wait in memory for nobody.
const RECIPIENTS_AT_ONCE: usize = 1000;

/// Memory is asked for in steps of so many octets, so that not each packet counts.
const MEMORY_STEP: u64 = 16 * 1024;

/// Why a message finds no memory.
const NO_MEMORY: &str = "all sessions together hold smtp.max_memory";

/// Where a message comes from and for whom it is.
pub(super) struct Origin {
    pub(super) place: Arc<Place>,
    /// The peer is on the tenant's list.
    pub(super) listed: bool,
    /// Number of the session.
    pub(super) session: u64,
    pub(super) peer: IpAddr,
    /// The names that the peer's certificate proved.
    pub(super) names: Vec<String>,
    pub(super) reverse_path: ReversePath,
}

impl Origin {
    /// The peer as records and the quarantine name it.
    fn peer(&self) -> String {
        match self.names.first() {
            Some(name) => format!("{} {}", self.peer, escape::plain(name)),
            None => self.peer.to_string(),
        }
    }

    /// Tells why the message cannot be taken now.
    fn complain(&self, shared: &Shared, reason: Deferral, error: &str) {
        let tenant = self.place.tenant.name.as_str();
        let now = clock::now();
        shared
            .complaints
            .deferred(reason, tenant, self.session, error, now);
    }

    /// What the quarantine is told before the message is judged: enough to judge it again.
    fn meta(&self) -> Meta {
        let mut facts = BTreeMap::from([
            ("forward_path".to_owned(), self.place.address.to_string()),
            ("peer_listed".to_owned(), self.listed.to_string()),
        ]);
        if let Some(region) = &self.place.region {
            facts.insert(fact::REGION.to_owned(), region.clone());
        }
        if !self.names.is_empty() {
            facts.insert(fact::PEER_NAMES.to_owned(), fact::join(&self.names));
        }
        if let Some(address) = self.reverse_path.address() {
            facts.insert("reverse_path".to_owned(), address.to_string());
        }
        Meta {
            tenant: self.place.tenant.name.clone(),
            received: clock::wall(),
            peer: self.peer(),
            kind: Kind::NotReport.as_str().to_owned(),
            reason: "not judged".to_owned(),
            message_id: None,
            facts,
        }
    }
}

/// What to answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// 250 with this text: it is on stable storage.
    Kept(String),
    /// 451 or 452: it is not.
    Deferred(Deferral),
}

/// A message under way.
pub(super) struct Content {
    shared: Arc<Shared>,
    origin: Origin,
    scanner: Scanner,
    spool: Spool,
    /// Why the octets could not be kept. A proven report goes on without them: whoever fills the
    /// quarantine must not keep the tenant's reports out.
    unkept: Option<(Deferral, String)>,
    draft: Option<Draft>,
    fate: Fate,
    share: Share,
    /// Octets so far.
    size: u64,
    began: Instant,
}

/// What is known of a message's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The outer header is not read yet.
    Open,
    /// A report that is proven: its octets are kept only until its envelope part is read.
    Proven,
    /// Its octets go to the quarantine, whatever else it says.
    Doubted,
    /// We have no memory or space for it.
    Lost(Deferral),
}

impl Content {
    /// Begins a message, if there is memory for one.
    pub(super) fn begin(
        shared: Arc<Shared>,
        settings: &Settings,
        origin: Origin,
    ) -> Result<Self, Deferral> {
        let mut share = shared.budget.share();
        if !share.hold(MEMORY_STEP) {
            origin.complain(&shared, Deferral::Memory, NO_MEMORY);
            return Err(Deferral::Memory);
        }
        Ok(Self {
            scanner: Scanner::new(settings.journal.clone()),
            spool: Spool::new(shared.parts.quarantine.clone(), origin.meta()),
            unkept: None,
            draft: None,
            fate: Fate::Open,
            share,
            size: 0,
            began: clock::now(),
            origin,
            shared,
        })
    }

    /// The next octets of the content.
    pub(super) async fn handle_octets(&mut self, octets: &[u8]) {
        self.size += octets.len() as u64;
        counter!(metric::CONTENT_OCTETS_TOTAL).increment(octets.len() as u64);
        if matches!(self.fate, Fate::Lost(_)) {
            return;
        }
        // In doubt, only what names the message is still of interest.
        let stage = self.scanner.stage();
        if self.fate != Fate::Doubted || matches!(stage, Stage::OuterHeader | Stage::Envelope) {
            self.scanner.handle_octets(octets);
        }
        let kept = self.spool.write(octets).await;
        self.note_unkept(kept);
        if let Err(reason) = self.advance().await {
            self.lose(reason);
        }
    }

    /// Goes on without the octets if they could not be written.
    fn note_unkept(&mut self, written: Result<(), QuarantineError>) {
        if let Err(error) = written {
            self.unkept = Some((quarantine_trouble(&error), error.to_string()));
            self.spool.drop_all();
        }
    }

    /// Judges as soon as it can, and lets go of what is not needed any more.
    async fn advance(&mut self) -> Result<(), Deferral> {
        let stage = self.scanner.stage();
        if self.fate == Fate::Open
            && stage != Stage::OuterHeader
            && let Some(outer) = self.scanner.outer()
        {
            self.fate = match doubt(&self.origin, outer) {
                None => Fate::Proven,
                Some(_) => Fate::Doubted,
            };
        }
        match self.fate {
            Fate::Proven if stage != Stage::Failed => {
                if matches!(stage, Stage::Journaled | Stage::Rest) {
                    self.spool.drop_all();
                }
                if self.scanner.pending_recipients() >= RECIPIENTS_AT_ONCE {
                    self.write_recipients().await?;
                }
            }
            Fate::Proven | Fate::Doubted => {
                self.fate = Fate::Doubted;
                if let Some((reason, error)) = &self.unkept {
                    self.complain(*reason, error);
                    return Err(*reason);
                }
                // Nobody will look for them.
                drop(self.scanner.take_recipients());
            }
            Fate::Open | Fate::Lost(_) => {}
        }
        self.hold_memory().await
    }

    /// Writes the recipients that are known so far ahead of the report.
    async fn write_recipients(&mut self) -> Result<(), Deferral> {
        let recipients = self.scanner.take_recipients();
        let draft = self
            .draft
            .get_or_insert_with(|| self.shared.parts.store.begin());
        let written = draft.recipients(recipients).await;
        written.map_err(|error| {
            let reason = commit_trouble(&error);
            self.complain(reason, &error.to_string());
            reason
        })
    }

    /// Accounts for the memory in use. When there is too little, what can be on the disk goes there.
    async fn hold_memory(&mut self) -> Result<(), Deferral> {
        if self.hold() {
            return Ok(());
        }
        let moved = self.spool.flush().await;
        self.note_unkept(moved);
        if self.hold() {
            Ok(())
        } else {
            self.complain(Deferral::Memory, NO_MEMORY);
            Err(Deferral::Memory)
        }
    }

    fn hold(&mut self) -> bool {
        let draft = self.draft.as_ref().map_or(0, Draft::memory);
        let used = (self.spool.memory() + self.scanner.memory() + draft) as u64;
        self.share
            .hold(used.next_multiple_of(MEMORY_STEP).max(MEMORY_STEP))
    }

    /// Gives everything back; the rest of the content is swallowed.
    fn lose(&mut self, reason: Deferral) {
        self.fate = Fate::Lost(reason);
        self.draft = None;
        self.spool.drop_all();
        drop(self.take_scanner());
        // Less than before is always granted.
        let _: bool = self.share.hold(0);
    }

    /// The content is whole: keeps what it told.
    pub(super) async fn finish(self: Box<Self>) -> Outcome {
        let tenant = self.origin.place.tenant.name.clone();
        let ended = clock::now();
        let (result, outcome) = Box::pin(self.keep()).await;
        let seconds = clock::now().duration_since(ended).as_secs_f64();
        histogram!(metric::ANSWER_SECONDS).record(seconds);
        count_report(&tenant, result);
        outcome
    }

    /// The label for the metrics and the answer.
    async fn keep(self: Box<Self>) -> (&'static str, Outcome) {
        let mut this = *self;
        if let Fate::Lost(reason) = this.fate {
            return ("deferred", Outcome::Deferred(reason));
        }
        let report = this.take_scanner().finish();
        let doubt = doubt(&this.origin, &report.outer);
        match (report.kind, doubt) {
            (Kind::Report, None) => this.index(report).await,
            (Kind::Report, Some(doubt)) => {
                let reason = format!("unproven: {doubt}");
                this.quarantine(&report, "unproven", reason).await
            }
            (Kind::NotReport, _) if this.is_validation(&report.outer) => {
                this.validated(&report).await
            }
            (Kind::NotReport, _) => {
                let kind = report.kind.as_str();
                this.quarantine(&report, kind, kind.to_owned()).await
            }
            (Kind::Malformed, _) => {
                let kind = report.kind.as_str();
                let reason = format!("{kind}: {}", report.failure());
                this.quarantine(&report, kind, reason).await
            }
        }
    }

    /// The scanner; an empty one stays.
    fn take_scanner(&mut self) -> Scanner {
        let empty = Scanner::new(journal::Limits::default());
        std::mem::replace(&mut self.scanner, empty)
    }

    fn complain(&self, reason: Deferral, error: &str) {
        self.origin.complain(&self.shared, reason, error);
    }

    /// Commits a proven report.
    async fn index(mut self, report: Report) -> (&'static str, Outcome) {
        let tenant = self.origin.place.tenant.name.clone();
        let now = clock::wall();
        let new = NewReport {
            tenant: tenant.clone(),
            region: self.origin.place.region.clone(),
            arrived: self.shared.parts.calendar.stamp(now),
            peer: self.origin.peer(),
            report,
        };
        let store = &self.shared.parts.store;
        let draft = self.draft.take().unwrap_or_else(|| store.begin());
        match draft.commit(new).await {
            Ok(committed) => {
                self.shared.parts.feed.report(&tenant, now);
                info!(
                    tenant = tenant.as_str(),
                    session = self.origin.session,
                    record = %committed.record,
                    recipients = committed.recipients,
                    octets = self.size,
                    ms = elapsed_ms(self.began),
                    "report recorded"
                );
                let text = format!("report recorded, {} recipients", committed.recipients);
                ("recorded", Outcome::Kept(text))
            }
            Err(error) => {
                let reason = commit_trouble(&error);
                self.complain(reason, &error.to_string());
                ("deferred", Outcome::Deferred(reason))
            }
        }
    }

    /// Puts the whole message aside; `label` is for the metrics, `reason` for people.
    async fn quarantine(
        self,
        report: &Report,
        label: &'static str,
        reason: String,
    ) -> (&'static str, Outcome) {
        if let Some((reason, error)) = &self.unkept {
            self.complain(*reason, error);
            return ("deferred", Outcome::Deferred(*reason));
        }
        let tenant = self.origin.place.tenant.name.clone();
        let peer = self.origin.peer();
        let id = report.envelope.message_id.clone();
        let meta = Meta {
            kind: report.kind.as_str().to_owned(),
            reason: reason.clone(),
            message_id: id
                .or_else(|| report.outer.message_id.clone())
                .map(|id| id.as_str().to_owned()),
            received: self.shared.parts.calendar.stamp(clock::wall()),
            ..self.origin.meta()
        };
        match self.spool.quarantine(meta).await {
            Ok(quarantined) => {
                warn!(
                    tenant = tenant.as_str(),
                    session = self.origin.session,
                    peer,
                    quarantine = %quarantined,
                    octets = self.size,
                    ms = elapsed_ms(self.began),
                    reason = ?reason,
                    "message quarantined; see \"clawback quarantine show\""
                );
                (label, Outcome::Kept("message quarantined".to_owned()))
            }
            Err(error) => {
                let reason = quarantine_trouble(&error);
                self.origin
                    .complain(&self.shared, reason, &error.to_string());
                ("deferred", Outcome::Deferred(reason))
            }
        }
    }

    /// Whether Exchange Online validates the tenant's connector with this mail.
    fn is_validation(&self, outer: &Outer) -> bool {
        let reverse_path = self
            .origin
            .reverse_path
            .address()
            .map(|address| address.as_str());
        self.origin.listed && journal::is_connector_validation(outer, reverse_path)
    }

    /// Remembers that the connector was validated.
    async fn validated(self, report: &Report) -> (&'static str, Outcome) {
        let tenant = self.origin.place.tenant.name.clone();
        let feed = self.shared.parts.feed.clone();
        feed.connector_validated(&tenant, clock::wall());
        let saved = tokio::task::spawn_blocking(move || feed.save()).await;
        match saved {
            Ok(Ok(())) => {
                info!(
                    tenant = tenant.as_str(),
                    session = self.origin.session,
                    "Exchange Online has validated the connector"
                );
                (
                    "validation",
                    Outcome::Kept("connector validation seen".to_owned()),
                )
            }
            // Its octets are still here: they say the same.
            _ => {
                let reason = "connector_validation".to_owned();
                self.quarantine(report, report.kind.as_str(), reason).await
            }
        }
    }
}

/// Why a message is not proven to come from the tenant; `None` if it is.
fn doubt(origin: &Origin, outer: &Outer) -> Option<String> {
    if !origin.listed {
        return Some("the peer is not on the tenant's list".to_owned());
    }
    origin.place.tenant.doubt(outer)
}

/// What to answer when a commit fails.
fn commit_trouble(error: &CommitError) -> Deferral {
    match error {
        CommitError::Full(_) => Deferral::StorageFull,
        CommitError::Sync(_) => Deferral::StorageFailed,
        CommitError::TooLong { .. } => Deferral::Internal,
        CommitError::Closed => Deferral::ShuttingDown,
    }
}

/// What to answer when the quarantine does not take a message.
fn quarantine_trouble(error: &QuarantineError) -> Deferral {
    match error {
        QuarantineError::Full(_) => Deferral::QuarantineFull,
        _ => Deferral::StorageFailed,
    }
}

/// Milliseconds since then.
fn elapsed_ms(began: Instant) -> u64 {
    let elapsed = clock::now().duration_since(began);
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

fn count_report(tenant: &TenantName, outcome: &'static str) {
    counter!(metric::REPORTS_TOTAL, "tenant" => tenant.as_str().to_owned(), "outcome" => outcome)
        .increment(1);
}
