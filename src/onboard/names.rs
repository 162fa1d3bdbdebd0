//! Names that must resolve: the host's own, as Exchange Online looks it up.

use std::net::ToSocketAddrs as _;

use super::{Finding, Level};
use crate::config::Config;

const SUBJECT: &str = "names";

pub(super) fn check(config: &Config, findings: &mut Vec<Finding>) {
    let name = config.smtp.hostname.as_str();
    // Names are resolved as the system resolves them (hosts file, DNS); the port plays no part.
    let addresses: Vec<String> = match (name, 25).to_socket_addrs() {
        Ok(addresses) => addresses.map(|address| address.ip().to_string()).collect(),
        Err(error) => {
            let problem = config.problem(
                "smtp.hostname",
                format!("{name} does not resolve here: {error}"),
                "publish its address in DNS: the connector's smart host is looked up by name",
            );
            findings.push(Finding::of_problem(SUBJECT, Level::Warn, problem));
            return;
        }
    };
    findings.push(Finding::ok(
        SUBJECT,
        format!("{name} is {}", addresses.join(", ")),
    ));
}
