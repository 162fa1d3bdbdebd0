//! The commands' clock.

use jiff::Timestamp;

/// The time now.
#[expect(
    clippy::disallowed_methods,
    reason = "commands are drivers: the time comes in here"
)]
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}
