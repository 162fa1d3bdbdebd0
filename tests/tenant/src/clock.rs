//! The one place that reads the clocks.

use jiff::Timestamp;
use tokio::time::Instant;

/// The time of day.
#[expect(
    clippy::disallowed_methods,
    reason = "the simulated services are drivers; this is where they read the clock"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// The time that timers run by.
pub(crate) fn instant() -> Instant {
    Instant::now()
}
