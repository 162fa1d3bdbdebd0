//! What several test modules need: a running receiver, an SMTP client, journal reports, a process for a test.

pub(crate) mod alone;
pub(crate) mod client;
pub(crate) mod report;
pub(crate) mod service;

pub(crate) use alone::{Log, alone};
pub(crate) use client::Client;
pub(crate) use report::Mail;
pub(crate) use service::Service;
