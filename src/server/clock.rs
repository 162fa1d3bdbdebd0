//! The clock of the receiver: the only place of it that looks at one.

use std::time::Instant;

use jiff::Timestamp;

/// For time-outs.
#[expect(
    clippy::disallowed_methods,
    reason = "the driver's one look at the clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// For what is recorded.
#[expect(
    clippy::disallowed_methods,
    reason = "the driver's one look at the calendar"
)]
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}
