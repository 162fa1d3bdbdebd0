//! A record: one message as journaled, merged from its reports at read time.

use indexmap::IndexSet;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::frame::Kept;
use super::identity::{ReportKey, record_id, report_key};
use crate::journal::{Inner, Recipient};
use crate::mail::{Address, MessageId, RecordId, TenantName};

/// One message as journaled: the union of what its reports say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name: that of the earliest report with a content digest, else of the earliest.
    pub id: RecordId,
    /// All its names, `id` among them: records that share a network message id are one.
    pub ids: Vec<RecordId>,
    /// Whose it is.
    pub tenant: TenantName,
    /// The region of the journal address.
    pub region: Option<String>,
    /// The Message-ID of the envelope, else the journaled message's.
    pub message_id: Option<MessageId>,
    /// Every Message-ID that its reports give, each once.
    pub message_ids: Vec<MessageId>,
    /// The envelope's Sender.
    pub sender: Option<Address>,
    /// The envelope's On-Behalf-Of.
    pub on_behalf_of: Option<Address>,
    /// Every sender: envelope, on behalf of, and journaled From, each once.
    pub senders: Vec<Address>,
    /// The envelope's subject, else the journaled message's.
    pub subject: Option<String>,
    /// Every subject, each once.
    pub subjects: Vec<String>,
    /// Message classification.
    pub label: Option<String>,
    /// SentUtc, else the journaled Date, else `received`.
    pub sent: Timestamp,
    /// The earliest ReceivedUtc; of a report without one, its arrival.
    pub received: Timestamp,
    /// When the first and the last of the reports arrived.
    pub arrivals: (Timestamp, Timestamp),
    /// Everyone who got it; exact duplicates once.
    pub recipients: Vec<Recipient>,
    /// The network message ids of its reports, each once.
    pub network_message_ids: Vec<String>,
    /// Which report's network message id came with which recipient: positions in `recipients` and
    /// `network_message_ids`, in order.
    pub routes: Vec<(u32, u32)>,
    /// The journaled message; of several reports the earliest's, lists united.
    pub inner: Inner,
    /// Octets of the journaled message.
    pub size: u64,
    /// How many reports told of it, retries not counted.
    pub reports: u64,
    /// What was odd, each once.
    pub problems: Vec<String>,
}

impl Record {
    /// The record of these reports, which are all of one message; recipients that were spilled are in
    /// them. The order does not matter. `None` without a report.
    pub fn merge(mut reports: Vec<Kept>) -> Option<Self> {
        if reports.len() > 1 {
            reports.sort_by_cached_key(|kept| (kept.received(), kept.arrived, report_key(kept)));
            let mut seen: Vec<ReportKey> = Vec::with_capacity(reports.len());
            reports.retain(|kept| {
                let key = report_key(kept);
                let new = !seen.contains(&key);
                if new {
                    seen.push(key);
                }
                new
            });
        }
        let head = reports
            .iter()
            .position(|kept| kept.inner.content_digest.is_some())
            .or_else(|| reports.iter().position(|kept| kept.inner.present))
            .unwrap_or(0);
        let received = reports.first()?.received();
        let ids: Vec<RecordId> = reports.iter().map(record_id).collect();
        let mut record = Self::head(reports.get(head)?, *ids.get(head)?, received);
        // No report gives a recipient twice.
        let mut united = (reports.len() > 1).then(IndexSet::new);
        for (kept, id) in reports.into_iter().zip(ids) {
            record.take(kept, id, &mut united);
        }
        if let Some(united) = united {
            record.recipients = united.into_iter().collect();
        }
        record.ids.sort_unstable();
        record.routes.sort_unstable();
        Some(record)
    }

    /// What the leading report says, without what is united later.
    fn head(kept: &Kept, id: RecordId, received: Timestamp) -> Self {
        let (envelope, inner) = (&kept.envelope, &kept.inner);
        let message_id = envelope.message_id.as_ref().or(inner.message_id.as_ref());
        Self {
            id,
            ids: Vec::new(),
            tenant: kept.tenant.clone(),
            region: kept.region.clone(),
            message_id: message_id.cloned(),
            message_ids: Vec::new(),
            sender: envelope.sender.clone(),
            on_behalf_of: envelope.on_behalf_of.clone(),
            senders: Vec::new(),
            subject: kept.subject().map(str::to_owned),
            subjects: Vec::new(),
            label: envelope.label.clone(),
            sent: envelope.sent.or(inner.date).unwrap_or(received),
            received,
            arrivals: (kept.arrived, kept.arrived),
            recipients: Vec::new(),
            network_message_ids: Vec::new(),
            routes: Vec::new(),
            inner: inner.clone(),
            size: inner.size,
            reports: 0,
            problems: Vec::new(),
        }
    }

    /// Takes in one report more, its recipients among the united ones unless it is the only report.
    fn take(&mut self, kept: Kept, id: RecordId, united: &mut Option<IndexSet<Recipient>>) {
        self.reports += 1;
        let (first, last) = self.arrivals;
        self.arrivals = (first.min(kept.arrived), last.max(kept.arrived));
        add(&mut self.ids, id);
        let ids = [&kept.envelope.message_id, &kept.inner.message_id];
        for id in ids.into_iter().flatten() {
            add(&mut self.message_ids, id.clone());
        }
        for sender in kept.senders() {
            add(&mut self.senders, sender.clone());
        }
        let envelope = kept.envelope;
        for subject in [&envelope.subject, &kept.inner.subject]
            .into_iter()
            .flatten()
        {
            add(&mut self.subjects, subject.clone());
        }
        self.message_id = self.message_id.take().or(envelope.message_id);
        self.sender = self.sender.take().or(envelope.sender);
        self.on_behalf_of = self.on_behalf_of.take().or(envelope.on_behalf_of);
        self.label = self.label.take().or(envelope.label);
        self.region = self.region.take().or(kept.region);
        let inner = kept.inner;
        unite(&mut self.inner.references, inner.references);
        unite(&mut self.inner.attachments, inner.attachments);
        unite(&mut self.inner.url_domains, inner.url_domains);
        unite(&mut self.problems, kept.problems);
        let network = inner.network_message_id.map(|id| {
            add(&mut self.network_message_ids, id.clone());
            let place = self.network_message_ids.iter().position(|had| *had == id);
            place.unwrap_or(0) as u32
        });
        let places: Vec<usize> = match united {
            None => {
                self.recipients = kept.recipients;
                (0..self.recipients.len()).collect()
            }
            Some(united) => {
                let recipients = kept.recipients.into_iter();
                recipients
                    .map(|recipient| united.insert_full(recipient).0)
                    .collect()
            }
        };
        if let Some(network) = network {
            let routes = places.into_iter().map(|place| (place as u32, network));
            self.routes.extend(routes);
        }
        self.routes.dedup();
    }

    /// The network message ids under which the recipient at this place got it.
    pub fn routes_of(&self, recipient: usize) -> impl Iterator<Item = &str> {
        let first = self
            .routes
            .partition_point(|(place, _)| (*place as usize) < recipient);
        self.routes
            .iter()
            .skip(first)
            .take_while(move |(place, _)| *place as usize == recipient)
            .filter_map(|(_, network)| self.network_message_ids.get(*network as usize))
            .map(String::as_str)
    }

    /// The document of `search` and `show`; `verdict` and `jobs` are the caller's to fill.
    pub fn json(&self) -> Value {
        json!({
            "kind": "report",
            "id": self.id,
            "ids": self.ids,
            "tenant": self.tenant,
            "region": self.region,
            "sender": self.sender,
            "on_behalf_of": self.on_behalf_of,
            "subject": self.subject,
            "message_id": self.message_id,
            "label": self.label,
            "sent": self.sent,
            "received": self.received,
            "recipients": self.recipients,
            "network_message_ids": self.network_message_ids,
            "inner": {
                "present": self.inner.present,
                "partly_read": self.inner.partly_read,
                "from": self.inner.from,
                "date": self.inner.date,
                "references": self.inner.references,
                "size": self.inner.size,
                "attachments": self.inner.attachments,
                "url_domains": self.inner.url_domains,
            },
            "size": self.size,
            "reports": self.reports,
            "problems": self.problems,
            "verdict": null,
            "jobs": [],
        })
    }
}

/// Adds a value that is not there yet.
fn add<T: PartialEq>(values: &mut Vec<T>, value: T) {
    if !values.contains(&value) {
        values.push(value);
    }
}

fn unite<T: PartialEq>(values: &mut Vec<T>, more: Vec<T>) {
    for value in more {
        add(values, value);
    }
}
