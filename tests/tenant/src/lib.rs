//! A simulated Microsoft 365 tenant: Graph over HTTPS and a journaling connector over SMTP.
//!
//! It stands in for the two services that clawback talks to, for tests and for `clawback demo`:
//!
//! - [`Tenant`] (in a [`Cloud`]) answers the token endpoint and the part of Microsoft Graph v1.0 that mail
//!   retraction needs. It is strict, so that it can refute a client: a real `$filter` parser, unknown
//!   options and members refused, fields missing where Graph omits them, inner requests of a batch held to
//!   the same rules as outer ones, both readings of the throttle, latency and faults by seed.
//! - [`Tenant::deliver`] puts a message into mailboxes and queues the journal reports that Exchange Online
//!   would send; a [`Connector`] sends them over SMTP, with TLS, BDAT and retries.
//!
//! What nobody outside Microsoft knows for sure can be switched: [`Guesses`].
//! Everything follows from [`Settings::seed`], times and the order of events apart.

mod ca;
mod clock;
mod connector;
mod corpus;
mod directory;
mod graph;
mod http;
mod ids;
mod login;
mod mail;
mod mailbox;
mod odata;
mod random;
mod service;
mod settings;
mod tenant;
mod traffic;
mod words;
mod world;

pub use ca::{Authority, Leaf};
pub use connector::{Connector, SmartHost, Statistics, Tls, Undeliverable};
pub use corpus::{Company, Story};
pub use mail::{Attachment, Delivered, Forks, Mail};
pub use settings::{
    Concurrency, Conduct, Contact, Fault, FaultKind, Forward, Group, GroupKind, Guesses,
    Journaling, Links, Matching, Rule, Scope, Settings, SignIn, Throttle, User, UserKind,
};
pub use tenant::{Cloud, MailboxView, MessageView, Tenant, Transport, UserAction};
pub use traffic::{Counts, Request};

/// Why a simulated service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// No port on loopback.
    #[error("the simulated tenant cannot listen on 127.0.0.1: {0}")]
    Listen(#[from] std::io::Error),
    /// No certificate.
    #[error("the simulated tenant cannot make its certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("the simulated tenant cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A certificate or a server's name cannot be read.
    #[error("the smart host's authority or name cannot be read: {0}")]
    Pem(String),
}
