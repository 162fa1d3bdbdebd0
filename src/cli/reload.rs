//! What a new configuration cannot change while the service runs.
//!
//! Such a key keeps its value of the running configuration wherever the configuration is read, so that
//! nobody looks for the data in a directory that the service does not use.

use crate::config::Config;

/// Takes the value of the running configuration (first) into the new one; whether they differed.
type Keep = fn(&Config, &mut Config) -> bool;

macro_rules! fixed {
    ($($section:ident . $key:ident),* $(,)?) => {
        &[$((
            concat!(stringify!($section), ".", stringify!($key)),
            |old, new| {
                let differs = old.$section.$key != new.$section.$key;
                new.$section.$key.clone_from(&old.$section.$key);
                differs
            },
        )),*]
    };
}

/// Every key that is read at the start alone. All others are in use after a reload.
const FIXED: &[(&str, Keep)] = fixed![
    smtp.listen,
    store.path,
    store.key_file,
    store.retention,
    store.quarantine,
    store.quarantine_retention,
    admin.socket,
    admin.metrics,
    retraction.concurrency,
    retraction.watch,
];

/// Gives the new configuration the values that it cannot change; the keys that it wanted to change.
pub(super) fn keep_fixed(old: &Config, new: &mut Config) -> Vec<&'static str> {
    let differing = FIXED.iter().filter(|(_, keep)| keep(old, new));
    differing.map(|(key, _)| *key).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Sections and keys that whoever needs them reads anew from the configuration of now.
    const LIVE: &[&str] = &[
        "smtp.hostname",
        "smtp.tls",
        "smtp.certificate",
        "smtp.private_key",
        "smtp.max_message",
        "smtp.max_recipients_per_report",
        "smtp.max_connections",
        "smtp.max_connections_per_peer",
        "smtp.max_recipients",
        "smtp.max_errors",
        "smtp.idle_timeout",
        "smtp.handshake_timeout",
        "smtp.max_memory",
        "store.audit_retention",
        "admin.viewers",
        "admin.operators",
        "admin.approvers",
        "retraction.max_copies_without_approval",
        "retraction.hard_delete_needs_approval",
        "retraction.two_person",
        "network.proxy",
        "network.ca_file",
    ];
    /// Keys with one value that this version takes, or none.
    const WITHOUT_CHOICE: &[&str] = &[
        "store.backend",
        "store.url_file",
        "admin.api",
        "retraction.keep_before_hard_delete",
        "retraction.message_trace",
    ];

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("/etc/clawback/clawback.toml")).unwrap()
    }

    /// Every key of the annotated file has an answer to what a reload makes of it. Tenants are taken as a
    /// whole, and `auto_retraction` does nothing yet.
    #[test]
    fn every_key_is_applied_or_named() {
        let mut section = String::new();
        let mut keys = BTreeSet::new();
        for line in include_str!("../../packaging/clawback.toml").lines() {
            let line = line.trim_start_matches(['#', ' ']);
            if let Some(name) = line.strip_prefix('[') {
                section = name.split(']').next().unwrap().trim_matches('[').to_owned();
            } else if let Some((key, _)) = line.split_once(" = ")
                && key
                    .bytes()
                    .all(|octet| octet.is_ascii_lowercase() || octet == b'_')
            {
                keys.insert(format!("{section}.{key}"));
            }
        }
        keys.retain(|key| !key.starts_with("tenant.") && !key.starts_with("auto_retraction."));
        let fixed = FIXED.iter().map(|(key, _)| *key);
        let known = fixed.chain(LIVE.iter().chain(WITHOUT_CHOICE).copied());
        let known: BTreeSet<String> = known.map(str::to_owned).collect();
        assert_eq!(keys, known);
    }

    #[test]
    fn what_cannot_be_changed_is_named_and_kept() {
        let old = parse("");
        let mut new = parse(
            r#"
[smtp]
listen = ["127.0.0.1:2525"]
max_errors = 3
[store]
path = "/srv/other"
key_file = "/srv/key"
retention = "5 days"
quarantine = "5 MiB"
quarantine_retention = "5 days"
[admin]
socket = "/srv/sock"
metrics = "127.0.0.1:9999"
[retraction]
concurrency = 2
watch = "1 h"
"#,
        );
        let named = keep_fixed(&old, &mut new);
        let fixed: Vec<&str> = FIXED.iter().map(|(key, _)| *key).collect();
        assert_eq!(named, fixed);
        assert_eq!(new.store, old.store);
        assert_eq!(new.smtp.listen, old.smtp.listen);
        assert_eq!(new.smtp.max_errors, 3);
        assert!(keep_fixed(&old, &mut new).is_empty());
    }
}
