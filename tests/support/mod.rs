//! What several test modules need: a running receiver, an SMTP client, journal reports.

pub(crate) mod client;
pub(crate) mod report;
pub(crate) mod service;

pub(crate) use client::Client;
pub(crate) use report::Mail;
pub(crate) use service::Service;
