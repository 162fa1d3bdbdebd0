//! What a partition says of itself without being read: counts, times, tenants, how far it goes.

use super::codec::{DecodeError, Reader, Writer};
use super::frame::Kept;
use crate::mail::TenantName;
use crate::segment::Position;

/// The facts of the reports that are indexed in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Reports, retries not counted: also the next ordinal.
    pub(crate) reports: u32,
    /// Retries that were found and left out.
    pub(crate) repeated: u64,
    /// Recipients of all reports.
    pub(crate) recipients: u64,
    /// The earliest and the latest `received`, in milliseconds.
    pub(crate) received: Option<(i64, i64)>,
    /// The earliest and the latest arrival (of an imported report its own date), in milliseconds.
    pub(crate) arrived: Option<(i64, i64)>,
    /// The furthest that two reports of one message were found apart in `received`, in milliseconds.
    pub(crate) apart: i64,
    /// Something in the log could not be read: nobody knows how old it was.
    pub(crate) damaged: bool,
    /// Whose reports they are.
    pub(crate) tenants: Vec<TenantName>,
    /// The log is indexed up to here.
    pub(crate) end: Position,
}

impl Summary {
    /// Nothing is indexed yet.
    pub(crate) fn new(end: Position) -> Self {
        Self {
            reports: 0,
            repeated: 0,
            recipients: 0,
            received: None,
            arrived: None,
            apart: 0,
            damaged: false,
            tenants: Vec::new(),
            end,
        }
    }

    /// One report more.
    pub(crate) fn add(&mut self, kept: &Kept) {
        self.reports += 1;
        self.recipients += kept.recipient_count;
        widen(&mut self.received, kept.received().as_millisecond());
        widen(&mut self.arrived, kept.arrived.as_millisecond());
        if !self.tenants.contains(&kept.tenant) {
            self.tenants.push(kept.tenant.clone());
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.number(self.reports.into());
        out.number(self.repeated);
        out.number(self.recipients);
        for range in [self.received, self.arrived] {
            out.octet(range.is_some().into());
            let (first, last) = range.unwrap_or_default();
            out.raw(&first.to_le_bytes());
            out.raw(&last.to_le_bytes());
        }
        out.raw(&self.apart.to_le_bytes());
        out.octet(self.damaged.into());
        out.number(self.end.partition.into());
        out.number(self.end.segment.into());
        out.number(self.end.offset);
        out.number(self.tenants.len() as u64);
        for tenant in &self.tenants {
            out.text(tenant.as_str());
        }
        out.into_octets()
    }

    pub(crate) fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(octets);
        let narrow = |number: u64| u32::try_from(number).map_err(|_| DecodeError::Value("summary"));
        let reports = narrow(from.number("reports")?)?;
        let repeated = from.number("repeated")?;
        let recipients = from.number("recipients")?;
        let mut range = || -> Result<Option<(i64, i64)>, DecodeError> {
            let there = from.octet("range")? == 1;
            let first = i64::from_le_bytes(from.array("range")?);
            let last = i64::from_le_bytes(from.array("range")?);
            Ok(there.then_some((first, last)))
        };
        let (received, arrived) = (range()?, range()?);
        let apart = i64::from_le_bytes(from.array("apart")?);
        let damaged = from.octet("damaged")? == 1;
        let end = Position {
            partition: narrow(from.number("partition")?)?,
            segment: narrow(from.number("segment")?)?,
            offset: from.number("offset")?,
        };
        let mut tenants = Vec::new();
        for _ in 0..from.count(1, "tenants")? {
            tenants.push(TenantName::new(&from.text("tenant")?));
        }
        Ok(Self {
            reports,
            repeated,
            recipients,
            received,
            arrived,
            apart,
            damaged,
            tenants,
            end,
        })
    }
}

pub(crate) fn widen(range: &mut Option<(i64, i64)>, value: i64) {
    let (first, last) = range.unwrap_or((value, value));
    *range = Some((first.min(value), last.max(value)));
}
