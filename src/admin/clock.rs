//! The admin API's clock.

use jiff::Timestamp;

/// The time now.
#[expect(
    clippy::disallowed_methods,
    reason = "the API is a driver: the time comes in here"
)]
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}
