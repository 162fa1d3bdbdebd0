//! How each section is read: its keys in the order of the annotated file, then the warnings.

use std::time::Duration;

use super::reader::{Choice, Section};
use super::value::is_host_name;
use super::{
    Admin, AutoMode, AutoRetraction, DAY, Network, Retraction, Size, Smtp, Span, Store, Tls,
    located,
};

impl Smtp {
    pub(super) fn read(&mut self, mut section: Section<'_, '_>) {
        section.read("listen", &mut self.listen);
        if self.listen.is_empty() {
            section.problem("listen", "is empty", "write [\"[::]:25\"]");
        }
        section.read("hostname", &mut self.hostname);
        if !is_host_name(&self.hostname) {
            let what = format!("{:?} is no host name", self.hostname);
            section.problem(
                "hostname",
                what,
                "write one such as \"journal.example.com\"",
            );
        }
        section.read("tls", &mut self.tls);
        section.read("certificate", &mut self.certificate);
        section.read("private_key", &mut self.private_key);
        self.private_key = located(&self.private_key);
        section.read("max_message", &mut self.max_message);
        section.read(
            "max_recipients_per_report",
            &mut self.max_recipients_per_report,
        );
        section.read("max_connections", &mut self.max_connections);
        section.read(
            "max_connections_per_peer",
            &mut self.max_connections_per_peer,
        );
        section.read("max_recipients", &mut self.max_recipients);
        section.read("max_errors", &mut self.max_errors);
        section.read("idle_timeout", &mut self.idle_timeout);
        section.read("handshake_timeout", &mut self.handshake_timeout);
        section.read("max_memory", &mut self.max_memory);
        self.warn_if_low(&mut section);
        section.finish();
    }

    /// Limits that lose or delay real reports.
    fn warn_if_low(&self, section: &mut Section<'_, '_>) {
        let floor = Size::from_octets(165_000_000);
        if self.max_message < floor {
            section.warning(
                "max_message",
                format_args!(
                    "is {}, below what Exchange Online may send (150 MB and the envelope)",
                    self.max_message
                ),
                "raise it to \"200 MiB\", or such reports are refused with 552 and lost",
            );
        }
        if self.max_recipients_per_report < 10_000 {
            section.warning(
                "max_recipients_per_report",
                format_args!(
                    "is {}, low for expanded groups",
                    self.max_recipients_per_report
                ),
                "raise it to 100000, or such reports go to the quarantine",
            );
        }
        if self.max_connections < 20 {
            section.warning(
                "max_connections",
                format_args!(
                    "is {}, fewer than Exchange Online may open",
                    self.max_connections
                ),
                "raise it to 1000",
            );
        }
        if self.max_connections_per_peer > self.max_connections {
            section.warning(
                "max_connections_per_peer",
                "is above max_connections and so never reached",
                "lower it",
            );
        }
        if self.max_recipients < 100 {
            section.warning(
                "max_recipients",
                format_args!(
                    "is {}, below the 100 of RFC 5321 §4.5.3.1.8",
                    self.max_recipients
                ),
                "raise it to 1000",
            );
        }
        if self.idle_timeout < Duration::from_mins(5) {
            section.warning(
                "idle_timeout",
                format_args!(
                    "is {}, below the 5 min of RFC 5321 §4.5.3.2.7",
                    Span(self.idle_timeout)
                ),
                "raise it to \"5 min\"",
            );
        }
        if self.max_memory < Size::mib(32) {
            section.warning(
                "max_memory",
                format_args!("is {}, enough for few reports at a time", self.max_memory),
                "raise it to \"256 MiB\", or busy hours get 452",
            );
        }
        if self.tls == Tls::Optional {
            section.warning(
                "tls",
                "is \"optional\": reports may arrive in the clear",
                "write \"required\"",
            );
        }
    }
}

impl Store {
    pub(super) fn read(&mut self, mut section: Section<'_, '_>) {
        if section.take("backend") == Some(Backend::Postgres) {
            section.not_yet("backend");
        }
        section.read("path", &mut self.path);
        section.read("key_file", &mut self.key_file);
        self.key_file = located(&self.key_file);
        if section.value("url_file").is_some() {
            section.not_yet("url_file");
        }
        section.read("retention", &mut self.retention);
        section.read("quarantine", &mut self.quarantine);
        section.read("quarantine_retention", &mut self.quarantine_retention);
        section.read("audit_retention", &mut self.audit_retention);
        if self.retention < DAY {
            section.warning(
                "retention",
                format_args!(
                    "is {}: mail is forgotten before anyone reports it",
                    Span(self.retention)
                ),
                "raise it to \"90 days\"",
            );
        }
        if self.quarantine < Size::mib(200) {
            section.warning(
                "quarantine",
                format_args!("is {}, less than one large message", self.quarantine),
                "raise it to \"1 GiB\", or mail that belongs there gets 452",
            );
        }
        if self.audit_retention < self.retention {
            section.warning(
                "audit_retention",
                "is shorter than retention",
                "raise it to \"2 years\"",
            );
        }
        section.finish();
    }
}

impl Admin {
    pub(super) fn read(&mut self, mut section: Section<'_, '_>) {
        section.read("socket", &mut self.socket);
        // `sun_path` holds 108 octets with the closing NUL (unix(7)).
        if self.socket.as_os_str().len() > 107 {
            let what = "is longer than the 107 octets that a socket's path may have";
            section.problem("socket", what, "choose a shorter path");
        }
        section.read("viewers", &mut self.viewers);
        section.read("operators", &mut self.operators);
        section.read("approvers", &mut self.approvers);
        if section.value("api").is_some() {
            section.not_yet("api");
        }
        section.read_some("metrics", &mut self.metrics);
        section.finish();
    }
}

impl Retraction {
    pub(super) fn read(&mut self, mut section: Section<'_, '_>) {
        section.read(
            "max_copies_without_approval",
            &mut self.max_copies_without_approval,
        );
        section.read(
            "hard_delete_needs_approval",
            &mut self.hard_delete_needs_approval,
        );
        section.read("two_person", &mut self.two_person);
        for key in ["keep_before_hard_delete", "message_trace"] {
            if section.take(key) == Some(true) {
                section.not_yet(key);
            }
        }
        section.read("concurrency", &mut self.concurrency);
        section.read("watch", &mut self.watch);
        section.finish();
    }
}

impl AutoRetraction {
    pub(super) fn read(&mut self, mut section: Section<'_, '_>) {
        section.read("mode", &mut self.mode);
        if self.mode == AutoMode::Act {
            section.not_yet("mode");
        }
        for key in ["malicious", "suspicious", "spoof", "spam", "bulk"] {
            if section.take(key) == Some(AutoAction(true)) {
                section.not_yet(key);
            }
        }
        section.finish();
    }
}

impl Network {
    pub(super) fn read(&mut self, mut section: Section<'_, '_>) {
        section.read_some("proxy", &mut self.proxy);
        section.read_some("ca_file", &mut self.ca_file);
        section.finish();
    }
}

impl Choice for Tls {
    const WORDS: &'static [(&'static str, Self)] =
        &[("required", Self::Required), ("optional", Self::Optional)];
}

impl Choice for AutoMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("observe", Self::Observe), ("act", Self::Act)];
}

/// What `[auto_retraction]` can name for a verdict.
#[derive(Clone, Copy, PartialEq, Eq)]
struct AutoAction(bool);

impl Choice for AutoAction {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("none", Self(false)),
        ("junk", Self(true)),
        ("trash", Self(true)),
        ("soft-delete", Self(true)),
        ("hard-delete", Self(true)),
    ];
}

/// `store.backend`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backend {
    Sled,
    Postgres,
}

impl Choice for Backend {
    const WORDS: &'static [(&'static str, Self)] =
        &[("sled", Self::Sled), ("postgres", Self::Postgres)];
}
