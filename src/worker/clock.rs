//! The worker's clocks.

use std::time::Instant;

use jiff::Timestamp;

use crate::graph::client::Clock;
use crate::retract::job::Now;

/// Both clocks, now.
pub(super) fn now() -> Now {
    Now {
        wall: wall(),
        monotonic: monotonic(),
    }
}

/// The clocks for a client.
pub(super) const CLOCK: Clock = Clock { wall, monotonic };

#[expect(clippy::disallowed_methods, reason = "the worker is a driver")]
fn wall() -> Timestamp {
    Timestamp::now()
}

/// Tokio's, so that a test can pause it.
fn monotonic() -> Instant {
    tokio::time::Instant::now().into_std()
}
