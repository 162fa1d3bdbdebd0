//! The simulated tenant's Graph, seen by an HTTP client; every answer is held against the OpenAPI slice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

mod batch;
mod client;
mod contract;
mod directory;
mod messages;
mod sign_in;
mod trouble;
