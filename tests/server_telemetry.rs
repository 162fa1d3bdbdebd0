//! What the receiver tells: one log line a report, the metrics page, and never what a message says.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use clawback::server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::service::JOURNAL;
use crate::support::{Mail, Service};

/// Where the log of a test goes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// A report is one line with its facts; its subject, body and addresses are in no line at any level,
/// and what a stranger wrote cannot begin a line of its own.
#[tokio::test]
async fn a_report_is_one_log_line_without_its_content() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    // The tasks of this test run on its thread.
    let _guard = tracing::subscriber::set_default(subscriber);
    let service = Service::start().await;
    let mut client = service.client().await;
    let mut mail = Mail::new("logged@x.example").with_recipients(2);
    mail.subject = "canary-subject".to_owned();
    mail.body = "canary-body\r\n".to_owned();
    let reply = client.deliver("", JOURNAL, &mail.report()).await;
    assert_eq!(reply.code, 250, "{reply:?}");
    mail.originator_org = Some("evil.example\u{1b}[31m\u{202e}".to_owned());
    let reply = client.deliver("", JOURNAL, &mail.report()).await;
    assert_eq!(reply.code, 250, "{reply:?}");

    let text = log.text();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line["target"] != "rustls")
        .collect();
    let recorded: Vec<_> = lines
        .iter()
        .filter(|line| line["message"] == "report recorded")
        .collect();
    assert_eq!(recorded.len(), 1, "{text}");
    let line = recorded[0];
    assert_eq!(
        (line["tenant"].as_str(), line["recipients"].as_u64()),
        (Some("contoso"), Some(2))
    );
    assert!(
        line["record"].as_str().unwrap().starts_with("rec_"),
        "{line}"
    );
    assert!(
        line["octets"].as_u64().unwrap() > 500 && line["ms"].is_u64(),
        "{line}"
    );
    let quarantined = lines
        .iter()
        .filter(|line| line["tenant"] == "contoso" && line["quarantine"].is_string());
    assert_eq!(quarantined.count(), 1, "{text}");
    for canary in [
        "canary-subject",
        "canary-body",
        "user0@",
        "\u{1b}",
        "\u{202e}",
    ] {
        assert!(!text.contains(canary), "{canary:?} is in the log: {text}");
    }
}

/// One plain GET; status line and body.
async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_metrics_page_tells_what_happened() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let reply = client
        .deliver("", JOURNAL, &Mail::new("counted@x.example").report())
        .await;
    assert_eq!(reply.code, 250, "{reply:?}");
    assert_eq!(client.command("MAIL FROM:<>").await.code, 250);
    assert_eq!(client.command("RCPT TO:<nobody@x.example>").await.code, 550);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let receiver = Arc::new(service.receiver);
    let publisher = Arc::clone(&receiver);
    let answering = tokio::spawn(server::serve_health(
        listener,
        move || publisher.publish_metrics(),
        || false,
        stopped,
    ));
    let page = get(address, "/metrics").await;
    for expected in [
        "clawback_reports_total{tenant=\"contoso\",outcome=\"recorded\"}",
        "clawback_refusals_total{reason=\"unknown_recipient\"}",
        "clawback_seconds_since_last_report{tenant=\"contoso\"}",
        "clawback_commit_seconds_count",
        "clawback_answer_seconds_count",
        "clawback_connections ",
        "clawback_index_lag_frames ",
        "clawback_index_partitions ",
        "clawback_quarantine_bytes ",
        "clawback_certificate_seconds_left ",
    ] {
        assert!(page.contains(expected), "{expected} is missing in {page}");
    }
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(
        get(address, "/readyz").await.starts_with("HTTP/1.1 503"),
        "not ready"
    );
    stop.cancel();
    answering.await.unwrap().unwrap();
}
