//! Delivery and journaling: what the connector brings to a smart host, and how it takes refusals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

mod delivery;
mod feed;
mod host;
