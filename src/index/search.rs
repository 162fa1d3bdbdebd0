//! Finds records: newest first, streaming, each once.
//!
//! One term drives: its entries are the candidates, read partition by partition from the newest, so
//! that no more of them are in memory than partitions overlap in time. For each candidate the other
//! reports of its message are gathered and merged, and all terms are tested on the record. Of several
//! candidates of one record only the first yields it: no set of what was yielded is needed.
//!
//! A query sees the store as it was when it began: reports that are indexed later are left out.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::StoreError;
use super::frame::Kept;
use super::identity::record_id;
use super::key::{Kind, time_hash};
use super::partition::Partition;
use super::query::Query;
use super::record::Record;
use super::rows::{EVER, Row};
use super::shared::Shared;

/// An iterator over the records that a query finds.
pub struct Search {
    shared: Arc<Shared>,
    query: Query,
    views: Vec<View>,
    /// What is not yet loaded, the piece with the newest report last.
    unloaded: Vec<Piece>,
    /// Terms of which every match has one, by tenant; `None`: every report is a candidate.
    drivers: Option<Vec<(u8, u64)>>,
    /// `received` of candidates, in milliseconds, both inclusive.
    bounds: (i64, i64),
    /// The furthest that two reports of one message are apart.
    apart: i64,
    candidates: BinaryHeap<Candidate>,
    found: BinaryHeap<Found>,
    left: u64,
    /// Why there is nothing to find.
    failed: Option<StoreError>,
}

/// A partition as the query sees it.
struct View {
    partition: Arc<Partition>,
    /// Ordinals below this one.
    reports: u32,
    received: (i64, i64),
}

/// Candidates of a view that are not yet loaded: with `received` up to this, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Piece {
    view: usize,
    newest: i64,
}

/// Candidates by time that are loaded at once, about.
const PIECE_REPORTS: i64 = 512;

/// A report that may lead to a record. Greater is newer, and yields the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    received: i64,
    view: usize,
    ordinal: u32,
    place: u64,
    /// See [`Row::alone`].
    alone: bool,
}

impl Candidate {
    const fn new(view: usize, ordinal: u32, row: Row) -> Self {
        Self {
            received: row.received,
            view,
            ordinal,
            place: row.place,
            alone: row.alone,
        }
    }
}

/// A record that waits until no newer one can come.
struct Found(Box<Record>);

impl Found {
    fn order(&self) -> (jiff::Timestamp, Reverse<crate::mail::RecordId>) {
        (self.0.received, Reverse(self.0.id))
    }
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Found {}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// A report of the message at hand.
struct Gathered {
    candidate: Candidate,
    kept: Kept,
}

impl Search {
    /// A query that only tells why there is no answer.
    pub(crate) fn failed(shared: Arc<Shared>, error: StoreError) -> Self {
        let bounds = (i64::MAX, i64::MIN);
        let mut search = Self::over(shared, Query::default(), Vec::new(), bounds, 0);
        search.failed = Some(error);
        search
    }

    fn over(
        shared: Arc<Shared>,
        query: Query,
        views: Vec<View>,
        bounds: (i64, i64),
        apart: i64,
    ) -> Self {
        Self {
            left: query.limit.unwrap_or(u64::MAX),
            shared,
            query,
            unloaded: Vec::new(),
            views,
            drivers: None,
            bounds,
            apart,
            candidates: BinaryHeap::new(),
            found: BinaryHeap::new(),
            failed: None,
        }
    }

    /// A query over what is indexed now.
    pub(crate) fn new(shared: Arc<Shared>, query: Query) -> Self {
        // The partitions first: a report that is seen widens the distance before it can be found.
        let mut tenants = Vec::new();
        let mut views = Vec::new();
        for partition in shared.all() {
            let Some(source) = partition.source() else {
                continue;
            };
            let seen = source.with_summary(|summary| {
                for tenant in &summary.tenants {
                    if !tenants.contains(tenant) {
                        tenants.push(tenant.clone());
                    }
                }
                summary.received.map(|received| (summary.reports, received))
            });
            if let Some((reports, received)) = seen {
                views.push(View {
                    partition,
                    reports,
                    received,
                });
            }
        }
        if let Some(tenant) = &query.tenant {
            tenants.retain(|known| known == tenant);
        }
        let apart = shared.apart.load(Ordering::Acquire);
        let since = query.since.map_or(i64::MIN, |since| since.as_millisecond());
        let until = query.until.map_or(i64::MAX, |until| {
            // A report of the message may be this much later than the record.
            until
                .as_millisecond()
                .saturating_add(apart)
                .saturating_add(1)
        });
        let mut search = Self::over(shared, query, views, (since, until), apart);
        if tenants.is_empty() {
            search.left = 0;
        }
        let pieces = search.views_in(search.bounds).into_iter();
        let newest = |view: usize| search.views.get(view).map(|view| view.received.1);
        let pieces = pieces.filter_map(|view| newest(view).map(|newest| Piece { view, newest }));
        search.unloaded = pieces.collect();
        search.unloaded.sort_by_key(|piece| piece.newest);
        let drivers = tenants.iter().map(|tenant| search.driver(tenant));
        let drivers = drivers.collect::<Result<Vec<_>, _>>();
        let drivers = drivers.map(|drivers| drivers.into_iter().collect::<Option<Vec<_>>>());
        match drivers {
            Ok(drivers) => search.drivers = drivers,
            Err(error) => search.failed = Some(error),
        }
        search
    }

    /// Positions of the views that can hold reports with `received` in these bounds.
    fn views_in(&self, (from, to): (i64, i64)) -> Vec<usize> {
        let views = self.views.iter().enumerate();
        views
            .filter(|(_, view)| view.received.0 <= to && view.received.1 >= from)
            .map(|(position, _)| position)
            .collect()
    }

    /// The term of a tenant with the fewest entries; `None`: there is no term. Time is no better than
    /// any: of a term's reports only those of the time are read, and an entry costs next to nothing.
    fn driver(&self, tenant: &crate::mail::TenantName) -> Result<Option<(u8, u64)>, StoreError> {
        let terms = self.query.terms(&self.shared.hasher, tenant);
        let Some((kind, hash)) = terms.first() else {
            return Ok(None);
        };
        // One with a single entry or so costs less than knowing which is best.
        let mut best = (*kind as u8, *hash);
        if Kind::is_rare(best.0) || terms.len() == 1 {
            return Ok(Some(best));
        }
        let mut fewest = u64::MAX;
        for (kind, hash) in terms {
            let count = self.estimate(kind as u8, (hash, hash))?;
            if count < fewest {
                (fewest, best) = (count, (kind as u8, hash));
            }
        }
        Ok(Some(best))
    }

    fn estimate(&self, kind: u8, range: (u64, u64)) -> Result<u64, StoreError> {
        let mut sum = 0;
        for view in self.views_in(self.bounds) {
            let Some(view) = self.views.get(view) else {
                continue;
            };
            let counted = self
                .shared
                .ask(&view.partition, |source| source.estimate(kind, range))?;
            sum += counted.unwrap_or(0);
        }
        Ok(sum)
    }

    /// Puts the newest candidates that are left among the others: those of a term from all of a
    /// partition, those by time some hundred at once.
    fn load(&mut self) -> Result<(), StoreError> {
        let Some(piece) = self.unloaded.pop() else {
            return Ok(());
        };
        let position = piece.view;
        let Some(view) = self.views.get(position) else {
            return Ok(());
        };
        let (mut from, to) = (self.bounds.0, self.bounds.1.min(piece.newest));
        if self.drivers.is_none() {
            let oldest = view.received.0.max(from);
            let span = view.received.1.saturating_sub(view.received.0);
            let pieces = (i64::from(view.reports) / PIECE_REPORTS).max(1);
            from = to.saturating_sub(span / pieces).max(oldest);
            if from > oldest {
                let newest = from - 1;
                let place = self
                    .unloaded
                    .partition_point(|piece| piece.newest <= newest);
                self.unloaded.insert(
                    place,
                    Piece {
                        view: position,
                        newest,
                    },
                );
            }
        }
        let times = [(Kind::Time as u8, time_range((from, to)))];
        let terms = self.drivers.iter().flatten();
        let terms = terms.map(|(kind, hash)| (*kind, (*hash, *hash)));
        let loaded = self
            .shared
            .ask(&view.partition, |source| match &self.drivers {
                Some(_) => source.find_rows(terms.clone(), (from, to)),
                None => source.find_rows(times, (from, to)),
            })?;
        for (ordinal, row) in loaded.unwrap_or_default() {
            if ordinal < view.reports {
                let candidate = Candidate::new(position, ordinal, row);
                self.candidates.push(candidate);
            }
        }
        Ok(())
    }

    /// The newest candidate; loads partitions until none can hold a newer one.
    fn next_candidate(&mut self) -> Result<Option<Candidate>, StoreError> {
        while let Some(piece) = self.unloaded.last() {
            let top = self.candidates.peek();
            if top.is_some_and(|top| top.received > piece.newest) {
                break;
            }
            self.load()?;
        }
        Ok(self.candidates.pop())
    }

    /// The record that a candidate leads to, if it is the one to yield it and all terms hold.
    fn record(&self, candidate: Candidate) -> Result<Option<Record>, StoreError> {
        let gathered = self.gather(candidate)?;
        let mut others = gathered.iter().filter(|other| other.candidate > candidate);
        if others.any(|other| self.is_candidate(other)) {
            return Ok(None);
        }
        let reports = gathered.into_iter().map(|gathered| gathered.kept);
        let record = Record::merge(reports.collect());
        Ok(record.filter(|record| self.query.matches(record)))
    }

    /// Was this report loaded as a candidate?
    fn is_candidate(&self, report: &Gathered) -> bool {
        let (from, to) = self.bounds;
        let received = report.candidate.received;
        if received < from || received > to {
            return false;
        }
        let Some(drivers) = &self.drivers else {
            return true;
        };
        let hasher = &self.shared.hasher;
        let kept = &report.kept;
        let mut driven = false;
        hasher.terms(kept, |kind, hash| {
            driven |= drivers.contains(&(kind as u8, hash))
        });
        let wanted = Kind::Recipient as u8;
        driven || {
            drivers.iter().any(|(kind, _)| *kind == wanted)
                && kept.recipients.iter().any(|recipient| {
                    let hash = hasher.recipient(&kept.tenant, recipient);
                    drivers.contains(&(wanted, hash))
                })
        }
    }

    /// All reports of the candidate's message: those that share a record id or a network message id
    /// with one of them.
    fn gather(&self, candidate: Candidate) -> Result<Vec<Gathered>, StoreError> {
        let mut gathered: Vec<Gathered> = Vec::new();
        let mut asked: Vec<(u8, Vec<u8>)> = Vec::new();
        let mut unreadable = Vec::new();
        let mut queue: VecDeque<Gathered> = self.read(candidate)?.into_iter().collect();
        while let Some(report) = queue.pop_front() {
            let near = self.near(report.candidate);
            if near.is_empty() {
                gathered.push(report);
                continue;
            }
            let kept = &report.kept;
            let network = kept.inner.network_message_id.as_ref();
            let network =
                network.map(|id| (Kind::NetworkMessageId, id.to_lowercase().into_bytes()));
            let record = (Kind::Record, record_id(kept).octets().to_vec());
            let tenant = kept.tenant.clone();
            gathered.push(report);
            for (kind, value) in [Some(record), network].into_iter().flatten() {
                let term = (kind as u8, value);
                if asked.contains(&term) {
                    continue;
                }
                let hash = self.shared.hasher.hash(&tenant, &term.1);
                for other in self.look_up((term.0, hash), &near)? {
                    let known = |had: &Gathered| {
                        had.candidate.view == other.view && had.candidate.ordinal == other.ordinal
                    };
                    if gathered.iter().any(known) || queue.iter().any(known) {
                        continue;
                    }
                    match self.read(other) {
                        Ok(read) => queue.extend(
                            read.filter(|r| r.kept.tenant == tenant && shares(&r.kept, &term)),
                        ),
                        // What the others say must still be found.
                        Err(error) => unreadable.push(error.to_string()),
                    }
                }
                asked.push(term);
            }
        }
        if let (Some(first), Some(error)) = (gathered.first_mut(), unreadable.pop()) {
            let problem = format!("a report of this message cannot be read: {error}");
            first.kept.problems.push(problem);
        }
        Ok(gathered)
    }

    /// The views that can hold other reports of a report's message.
    fn near(&self, of: Candidate) -> Vec<usize> {
        let mut near = self.views_in((
            of.received.saturating_sub(self.apart),
            of.received.saturating_add(self.apart),
        ));
        near.retain(|view| !(of.alone && *view == of.view));
        near
    }

    /// Reports in these views under a term that reports of one message share.
    fn look_up(
        &self,
        (kind, hash): (u8, u64),
        views: &[usize],
    ) -> Result<Vec<Candidate>, StoreError> {
        let mut found = Vec::new();
        for &position in views {
            let Some(view) = self.views.get(position) else {
                continue;
            };
            let rows = self.shared.ask(&view.partition, |source| {
                source.find_rows([(kind, (hash, hash))], EVER)
            })?;
            let rows = rows.unwrap_or_default().into_iter();
            let rows = rows.filter(|(ordinal, _)| *ordinal < view.reports);
            found.extend(rows.map(|(ordinal, row)| Candidate::new(position, ordinal, row)));
        }
        Ok(found)
    }

    /// `None`: retention dropped it since the query began.
    fn read(&self, candidate: Candidate) -> Result<Option<Gathered>, StoreError> {
        let Some(view) = self.views.get(candidate.view) else {
            return Ok(None);
        };
        let kept = view.partition.read(candidate.place)?;
        Ok(kept.map(|kept| Gathered { candidate, kept }))
    }

    fn advance(&mut self) -> Result<Option<Record>, StoreError> {
        loop {
            let candidate = self.next_candidate()?;
            let Some(next) = candidate else {
                return Ok(self.found.pop().map(|found| *found.0));
            };
            // Whatever a candidate leads to was not received after it.
            if let Some(ready) = self.found.peek()
                && ready.0.received.as_millisecond() > next.received
            {
                self.candidates.push(next);
                return Ok(self.found.pop().map(|found| *found.0));
            }
            if let Some(record) = self.record(next)? {
                self.found.push(Found(Box::new(record)));
            }
        }
    }
}

impl Iterator for Search {
    type Item = Result<Record, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.left = 0;
            return Some(Err(error));
        }
        if self.left == 0 {
            return None;
        }
        let next = self.advance().transpose();
        match &next {
            Some(_) => self.left -= 1,
            None => self.left = 0,
        }
        next
    }
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search")
            .field("partitions", &self.views.len())
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

fn time_range((from, to): (i64, i64)) -> (u64, u64) {
    (time_hash(from), time_hash(to))
}

/// Does the report have this value, and not just its hash?
fn shares(kept: &Kept, (kind, value): &(u8, Vec<u8>)) -> bool {
    if *kind == Kind::Record as u8 {
        return record_id(kept).octets()[..] == value[..];
    }
    let network = kept.inner.network_message_id.as_ref();
    network.is_some_and(|id| id.to_lowercase().as_bytes() == &value[..])
}
