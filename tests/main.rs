//! The product seen from outside: one test binary, a module for each feature that a user can see.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod bare;
mod cli_check;
mod cli_command;
mod cli_demo;
mod cli_owner;
mod cli_parse;
mod cli_quarantine;
mod cli_retract;
mod cli_search;
mod cli_serve;
mod cli_serving;
mod cli_usage;
mod config;
mod crash_faults;
mod crash_service;
mod crash_support;
mod durability;
mod graph_client;
mod hostile_reports;
mod layering;
mod parse_oracle;
mod parse_reports;
mod peers;
mod preload;
mod retract_copies;
mod retract_faults;
mod retract_kill;
mod retract_support;
mod retract_tenants;
mod security_page;
mod server_dialogues;
mod server_flood;
mod server_process;
mod server_reports;
mod server_session;
mod server_shutdown;
mod server_telemetry;
mod server_tls;
mod smtp_dialogues;
mod smtp_oracle;
mod smtp_session;
mod standards;
mod store_recovery;
mod store_retention;
mod store_search;
mod store_support;
mod support;
mod tenant_feed;
mod tenant_reports;
