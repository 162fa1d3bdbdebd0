//! Logs and metrics: where they go, and the one table of the metrics' names.
//!
//! Logs go to journald when the service manager connected us to it (`JOURNAL_STREAM`), else to
//! stderr: text on a terminal, JSON otherwise. Metrics are kept in the process and rendered in the
//! Prometheus text format when somebody asks. No subject, body or secret is logged at any level.
//! What a stranger wrote is escaped here, on its way out, whoever logged it; in journald a value is a
//! field of its own, with its length, and can forge nothing.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::{MakeWriter, format};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::escape;

/// Names of the metrics. What each says stands in [`METRICS`].
pub mod metric {
    /// Sessions that are open now.
    pub const CONNECTIONS: &str = "clawback_connections";
    /// Connections that were made, by `result`.
    pub const CONNECTIONS_TOTAL: &str = "clawback_connections_total";
    /// TLS handshakes, by `result`.
    pub const TLS_HANDSHAKES_TOTAL: &str = "clawback_tls_handshakes_total";
    /// Commands, sessions and transactions that were refused, by `reason`.
    pub const REFUSALS_TOTAL: &str = "clawback_refusals_total";
    /// Messages that were answered, by `tenant` and `outcome`.
    pub const REPORTS_TOTAL: &str = "clawback_reports_total";
    /// Octets of content that were received.
    pub const CONTENT_OCTETS_TOTAL: &str = "clawback_content_octets_total";
    /// From the end of the content to its answer.
    pub const ANSWER_SECONDS: &str = "clawback_answer_seconds";
    /// From the first write of a group of commits to the end of its sync.
    pub const COMMIT_SECONDS: &str = "clawback_commit_seconds";
    /// Commits that one sync made durable.
    pub const COMMIT_GROUP_APPENDS: &str = "clawback_commit_group_appends";
    /// Octets written to the report log.
    pub const COMMIT_OCTETS_TOTAL: &str = "clawback_commit_octets_total";
    /// Groups that could not be committed, by `reason`.
    pub const COMMIT_FAILURES_TOTAL: &str = "clawback_commit_failures_total";
    /// Memory that content of all sessions holds now.
    pub const CONTENT_MEMORY_BYTES: &str = "clawback_content_memory_bytes";
    /// Frames of the report log that are not yet indexed.
    pub const INDEX_LAG: &str = "clawback_index_lag_frames";
    /// Reports in the index.
    pub const INDEX_REPORTS: &str = "clawback_index_reports";
    /// Partitions of the index.
    pub const INDEX_PARTITIONS: &str = "clawback_index_partitions";
    /// What report log and index take on the disk.
    pub const INDEX_OCTETS: &str = "clawback_index_octets";
    /// What the quarantine takes on the disk.
    pub const QUARANTINE_BYTES: &str = "clawback_quarantine_bytes";
    /// Since the last report of a `tenant`.
    pub const SECONDS_SINCE_LAST_REPORT: &str = "clawback_seconds_since_last_report";
    /// Until the SMTP certificate ends.
    pub const CERTIFICATE_SECONDS_LEFT: &str = "clawback_certificate_seconds_left";
}

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Many values, by size.
    Histogram,
}

/// Every metric: name, kind, unit, and what it says.
pub const METRICS: &[(&str, MetricKind, Unit, &str)] = {
    use MetricKind::{Counter, Gauge, Histogram};
    &[
        (
            metric::CONNECTIONS,
            Gauge,
            Unit::Count,
            "SMTP sessions open now",
        ),
        (
            metric::CONNECTIONS_TOTAL,
            Counter,
            Unit::Count,
            "SMTP connections, by result: accepted, too_many, too_many_of_peer, evicted",
        ),
        (
            metric::TLS_HANDSHAKES_TOTAL,
            Counter,
            Unit::Count,
            "TLS handshakes, by result: TLSv1_2, TLSv1_3, failed, timeout",
        ),
        (
            metric::REFUSALS_TOTAL,
            Counter,
            Unit::Count,
            "commands and transactions refused, by reason",
        ),
        (
            metric::REPORTS_TOTAL,
            Counter,
            Unit::Count,
            "messages answered after their end, by tenant and outcome: recorded; unproven, not_report and malformed are quarantined; validation, deferred",
        ),
        (
            metric::CONTENT_OCTETS_TOTAL,
            Counter,
            Unit::Bytes,
            "octets of content received",
        ),
        (
            metric::ANSWER_SECONDS,
            Histogram,
            Unit::Seconds,
            "from the end of the content to its answer",
        ),
        (
            metric::COMMIT_SECONDS,
            Histogram,
            Unit::Seconds,
            "from the first write of a group of commits to the end of its fdatasync",
        ),
        (
            metric::COMMIT_GROUP_APPENDS,
            Histogram,
            Unit::Count,
            "commits that one fdatasync made durable",
        ),
        (
            metric::COMMIT_OCTETS_TOTAL,
            Counter,
            Unit::Bytes,
            "octets written to the report log",
        ),
        (
            metric::COMMIT_FAILURES_TOTAL,
            Counter,
            Unit::Count,
            "groups that could not be committed, by reason: full, failed",
        ),
        (
            metric::CONTENT_MEMORY_BYTES,
            Gauge,
            Unit::Bytes,
            "memory that content of all sessions holds; bounded by smtp.max_memory",
        ),
        (
            metric::INDEX_LAG,
            Gauge,
            Unit::Count,
            "frames of the report log (a report, or many recipients of one) that are not yet indexed",
        ),
        (
            metric::INDEX_REPORTS,
            Gauge,
            Unit::Count,
            "reports in the index",
        ),
        (
            metric::INDEX_PARTITIONS,
            Gauge,
            Unit::Count,
            "partitions of the index",
        ),
        (
            metric::INDEX_OCTETS,
            Gauge,
            Unit::Bytes,
            "what report log and index take on the disk",
        ),
        (
            metric::QUARANTINE_BYTES,
            Gauge,
            Unit::Bytes,
            "what the quarantine takes on the disk; bounded by store.quarantine",
        ),
        (
            metric::SECONDS_SINCE_LAST_REPORT,
            Gauge,
            Unit::Seconds,
            "since the last report of a tenant, or since the start if there was none; silence means that reports are being lost",
        ),
        (
            metric::CERTIFICATE_SECONDS_LEFT,
            Gauge,
            Unit::Seconds,
            "until the SMTP certificate ends",
        ),
    ]
};

/// How much is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// `-q`: what needs a person, and what may.
    Quiet,
    /// One line a report, a retraction and a lifecycle change.
    #[default]
    Normal,
    /// `-v`: the dialogue without content.
    Debug,
    /// `-vv`: everything, the libraries included.
    Trace,
}

impl Verbosity {
    /// The filter: our own modules at the level asked for, libraries at `warn` below `Trace`.
    fn filter(self) -> EnvFilter {
        let (ours, theirs) = match self {
            Self::Quiet => ("warn", LevelFilter::WARN),
            Self::Normal => ("info", LevelFilter::WARN),
            Self::Debug => ("debug", LevelFilter::WARN),
            Self::Trace => ("trace", LevelFilter::DEBUG),
        };
        EnvFilter::builder()
            .with_default_directive(theirs.into())
            .parse_lossy(format!("clawback={ours}"))
    }
}

/// Starts logging for the process: journald under the service manager, else stderr.
///
/// A second call does nothing: tests and commands that run inside one process share the first.
pub fn start_logs(verbosity: Verbosity) {
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match journald() {
        Some(layer) => layer,
        None if io::stderr().is_terminal() => text(io::stderr),
        None => json(io::stderr),
    };
    let layer = layer.with_filter(verbosity.filter());
    // An error says that logging was started before.
    drop(tracing_subscriber::registry().with(layer).try_init());
}

type Logs = Box<dyn Layer<Registry> + Send + Sync>;

/// Text for a terminal.
fn text(out: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) -> Logs {
    let fields = format::debug_fn(|out, field, value| {
        let value = format!("{value:?}");
        let value = escape::plain(&value);
        match field.name() {
            "message" => write!(out, "{value}"),
            name => write!(out, "{name}={value}"),
        }
    });
    fmt::layer()
        .fmt_fields(fields.delimited(" "))
        .with_writer(out)
        .with_target(false)
        .boxed()
}

/// A JSON object a line.
fn json(out: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) -> Logs {
    fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_writer(JsonLines(out))
        .boxed()
}

/// Makes writers of JSON lines.
struct JsonLines<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for JsonLines<M> {
    type Writer = JsonLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        JsonLine(self.0.make_writer())
    }
}

/// Escapes what the JSON formatter leaves as it is: C1, bidirectional and invisible characters. It is given
/// one line a call.
struct JsonLine<W>(W);

impl<W: io::Write> io::Write for JsonLine<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(octets);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut escaped = escape::in_json(line).into_owned();
        escaped.push('\n');
        self.0.write_all(escaped.as_bytes())?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The layer that writes to journald, if systemd connected our stderr to it.
fn journald() -> Option<Box<dyn Layer<Registry> + Send + Sync>> {
    std::env::var_os("JOURNAL_STREAM")?;
    let layer = tracing_journald::layer().ok()?;
    Some(
        layer
            .with_field_prefix(Some("CLAWBACK".to_owned()))
            .with_syslog_identifier("clawback".to_owned())
            .boxed(),
    )
}

/// The metrics of this process; the first call begins to collect them.
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .and_then(|builder| {
                let appends = Matcher::Suffix("_appends".to_owned());
                builder.set_buckets_for_metric(appends, &APPENDS)
            })
            .unwrap_or_else(|_| PrometheusBuilder::new())
            .build_recorder();
        let handle = recorder.handle();
        // An error says that the process has a recorder already: ours then stays empty.
        drop(metrics::set_global_recorder(recorder));
        describe();
        handle
    })
}

/// Bounds of the histograms: a commit takes from 100 µs (battery-backed disk) to seconds (a sick one).
const SECONDS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
    30.0,
];

/// Bounds for how many commits one sync covers.
const APPENDS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0];

/// Gives the recorder the unit and the text of each metric.
fn describe() {
    for &(name, kind, unit, text) in METRICS {
        match kind {
            MetricKind::Counter => describe_counter!(name, unit, text),
            MetricKind::Gauge => describe_gauge!(name, unit, text),
            MetricKind::Histogram => describe_histogram!(name, unit, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// However it is logged: as a text, shown, or in the message itself.
    #[test]
    fn nothing_in_the_log_acts() {
        let stranger = "a\u{1b}[2Jb\nforged=line\u{202e}c\u{9b}d\u{200b}e";
        for style in ["text", "json"] {
            let kept = Kept::default();
            let writer = kept.clone();
            let out = move || writer.clone();
            let layer = if style == "text" {
                text(out)
            } else {
                json(out)
            };
            let subscriber = tracing_subscriber::registry().with(layer);
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!(shown = %stranger, quoted = ?stranger, text = stranger, "said {stranger}");
            });
            let log = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
            assert_eq!(log.lines().count(), 1, "{style}: {log:?}");
            let line = log.trim_end().replace("\u{1b}[2m", "");
            let line = line.replace("\u{1b}[0m", "").replace("\u{1b}[31m", "");
            assert_eq!(escape::plain(&line), line, "{style}");
            assert_eq!(line.matches("forged").count(), 4, "{style}: {line}");
            if style == "json" {
                let value: serde_json::Value = serde_json::from_str(&log).unwrap();
                assert_eq!(value["shown"], stranger);
            }
        }
    }

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut seen = BTreeSet::new();
        for (name, kind, _, _) in METRICS {
            assert!(seen.insert(name), "{name} stands twice");
            assert!(name.starts_with("clawback_"), "{name}");
            let counter = name.ends_with("_total");
            assert_eq!(counter, *kind == MetricKind::Counter, "{name}");
        }
    }

    #[test]
    fn metrics_are_rendered_with_their_text() {
        let handle = metrics();
        metrics::counter!(metric::REFUSALS_TOTAL, "reason" => "test").increment(1);
        metrics::histogram!(metric::COMMIT_SECONDS).record(0.002);
        let text = handle.render();
        for expected in [
            "# HELP clawback_refusals_total ",
            "clawback_refusals_total{reason=\"test\"} 1",
            "clawback_commit_seconds_bucket{le=\"0.0025\"}",
        ] {
            assert!(text.contains(expected), "{expected} is missing in {text}");
        }
    }
}
