//! What a partition's log holds, as the index sees it: reports, and what cannot be read.
//!
//! The one place that decides what becomes of damage: it costs what stood there and nothing else, it is
//! told, and a partition that has some is not dropped by age.

use tracing::error;

use super::error::StoreError;
use super::frame::{KIND_REPORT, Kept};
use super::log::{Event, Frame, Position};
use super::partition::{Partition, read_spilled};
use super::shared::after;

/// Something in the log of a partition.
#[derive(Debug)]
pub(crate) enum Logged {
    /// A report with all its recipients: where it stands, and where the next frame does.
    Report(Position, Box<Kept>, Position),
    /// A frame of another kind: where the next one stands.
    Other(Position),
    /// Something that cannot be read.
    Damaged,
}

impl Logged {
    /// What a frame is.
    pub(crate) fn of(partition: &Partition, position: Position, frame: &Frame) -> Self {
        let end = after(position, frame.payload.len());
        if frame.kind != KIND_REPORT {
            return Self::Other(end);
        }
        match Kept::decode(&frame.payload) {
            Ok(mut kept) => {
                read_spilled(&partition.log, &mut kept);
                Self::Report(position, Box::new(kept), end)
            }
            Err(error) => {
                error!(partition = %partition.name, ?position, %error, "a frame that is no report is not indexed");
                Self::Damaged
            }
        }
    }
}

/// What stands in a partition's log from a position up to another one.
pub(crate) fn reports(
    partition: &Partition,
    from: Position,
    until: Position,
) -> impl Iterator<Item = Result<Logged, StoreError>> + '_ {
    let events = partition.log.scan(from);
    let before = move |event: &Result<Event, _>| !matches!(event, Ok(Event::Frame(position, _)) if *position >= until);
    events.take_while(before).map(|event| {
        Ok(match event? {
            Event::Frame(position, frame) => Logged::of(partition, position, &frame),
            Event::Damage { position, length } => {
                error!(partition = %partition.name, ?position, length, "the report log is damaged; what stood there is lost");
                Logged::Damaged
            }
            Event::Unreadable { position, reason } => {
                error!(partition = %partition.name, ?position, reason, "a segment of the report log cannot be read");
                Logged::Damaged
            }
        })
    })
}
