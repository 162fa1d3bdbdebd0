//! A retraction job as a state machine: plain values in, plain values out, no I/O and no clock.
//!
//! [`plan`] makes items of records and resolved recipients, [`job`] says what to ask of Graph next
//! and takes the answers, [`guard`] decides whether a copy is the message that was meant, and
//! [`report`] prints the job as JSON. The driver is `worker`.

pub mod action;
pub mod guard;
pub mod item;
pub mod job;
pub mod plan;
pub mod report;

pub use action::Action;
