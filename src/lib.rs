//! clawback takes delivered mail back.
//!
//! Exchange Online journals every message to it over SMTP; clawback remembers who received what, and
//! when a message turns out to be bad, finds each copy through Microsoft Graph, moves it out of
//! reach, and proves that it did.
//!
//! ```text
//! receive   EXO --SMTP/TLS--> session --> journal report --> commit --> 250 --> index
//! retract   request --> plan (index) --> resolve (directory) --> locate --> act --> verify --> report
//! ```

pub mod admin;
pub mod audit;
pub mod calendar;
pub mod certs;
pub mod cli;
pub mod config;
pub mod directory;
pub mod escape;
pub mod graph;
pub mod index;
pub mod journal;
pub mod key;
pub mod mail;
pub mod onboard;
pub mod proc;
pub mod quarantine;
pub mod retract;
pub mod segment;
pub mod server;
pub mod smtp;
pub mod state;
pub mod telemetry;
pub mod worker;
