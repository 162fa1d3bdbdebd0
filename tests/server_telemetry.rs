//! What the receiver tells: one log line a report, the metrics page, and never what a message says.

use std::sync::Arc;

use clawback::server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::support::service::{JOURNAL, changed, metric};
use crate::support::{Client, Log, Mail, Service, alone};

/// Without a scraper, which is how it is by default, the samples of histograms must not gather.
#[tokio::test]
async fn samples_do_not_gather_while_nobody_asks() {
    // Where nothing else takes memory.
    if !alone("server_telemetry::samples_do_not_gather_while_nobody_asks") {
        return;
    }
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.unwrap().split_whitespace().nth(1);
        kilobytes.unwrap().parse::<u64>().unwrap() << 10
    };
    let service = Service::start().await;
    let samples = metrics::histogram!("clawback_commit_seconds");
    let mut before = 0;
    for round in 0..101 {
        for _ in 0..50_000 {
            samples.record(0.001);
        }
        service.receiver.publish_metrics();
        if round == 0 {
            before = resident();
        }
    }
    let grown = resident().saturating_sub(before);
    // Five million samples are 80 MB.
    assert!(grown < 40 << 20, "{grown} octets");
}

/// A report is one line with its facts; its subject, body and addresses are in no line at any level,
/// and what a stranger wrote cannot begin a line of its own.
#[tokio::test]
async fn a_report_is_one_log_line_without_its_content() {
    if !alone("server_telemetry::a_report_is_one_log_line_without_its_content") {
        return;
    }
    let log = Log::start();
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

    let (text, lines) = (log.text(), log.lines());
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

/// What is short is told at the normal level, once, however often it comes.
#[tokio::test]
async fn trouble_is_told_and_not_repeated() {
    if !alone("server_telemetry::trouble_is_told_and_not_repeated") {
        return;
    }
    let log = Log::start();
    let config = changed(&[(
        "hostname = \"localhost\"",
        "hostname = \"localhost\"\nmax_memory = \"16 KiB\"\nmax_connections_per_peer = 2",
    )]);
    let service = Service::with(&config).await;
    let (mut first, mut second) = (service.client().await, service.client().await);
    let commands = format!("MAIL FROM:<>\r\nRCPT TO:<{JOURNAL}>\r\nDATA\r\n");
    first.send(commands.as_bytes()).await;
    for expected in [250, 250, 354] {
        assert_eq!(first.reply().await.code, expected);
    }
    for _ in 0..5 {
        second.send(commands.as_bytes()).await;
        for expected in [250, 250, 452] {
            assert_eq!(second.reply().await.code, expected);
        }
    }
    for _ in 0..5 {
        let rest = Client::connect(service.address()).await.rest().await;
        assert!(rest.starts_with("421 "), "{rest}");
    }
    // The first report makes the directory of the log: it cannot.
    let log_directory = service.directory.path().join("data/log");
    std::fs::write(log_directory, "no directory").unwrap();
    drop(first);
    for number in 0..5 {
        let mail = Mail::new(&format!("trouble-{number}@x.example"));
        let mut reply = second.deliver("", JOURNAL, &mail.report()).await;
        // The memory of the first comes back when its end was seen.
        while reply.code == 452 {
            reply = second.deliver("", JOURNAL, &mail.report()).await;
        }
        assert_eq!(reply.code, 451, "{reply:?}");
    }
    let told: Vec<_> = log
        .lines()
        .into_iter()
        .filter(|line| line["level"] != "DEBUG" && line["times"] == 1)
        .map(|line| (line["level"].clone(), line["reason"].clone()))
        .collect();
    let expected = [
        ("WARN", "memory"),
        ("WARN", "too_many_from_peer"),
        ("ERROR", "storage_failed"),
    ];
    let expected = expected.map(|(level, reason)| (level.into(), reason.into()));
    assert_eq!(told, expected, "{}", log.text());
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
    // All tests of this process share one page: this tenant is of this test alone.
    let config = changed(&[("name = \"contoso\"", "name = \"counted\"")]);
    let service = Service::with(&config).await;
    const REFUSED: &str = "clawback_refusals_total{reason=\"unknown_recipient\"}";
    const COMMITS: &str = "clawback_commit_seconds_count";
    let (refused, commits) = (service.metric(REFUSED), service.metric(COMMITS));
    let mut client = service.client().await;
    let mail = |name: &str| Mail::new(&format!("{name}@x.example"));
    let mut stranger = mail("stranger");
    stranger.originator_org = Some("attacker.example".to_owned());
    let mut other = mail("other");
    other.marked = false;
    let malformed = mail("malformed")
        .report()
        .replace("Recipient: ", "Nobody: ");
    for content in [
        mail("one").report(),
        mail("two").report(),
        stranger.report(),
        other.report(),
        malformed,
    ] {
        let reply = client.deliver("", JOURNAL, &content).await;
        assert_eq!(reply.code, 250, "{reply:?}");
    }
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
    for (outcome, expected) in [
        ("recorded", 2.0),
        ("unproven", 1.0),
        ("not_report", 1.0),
        ("malformed", 1.0),
        ("deferred", 0.0),
    ] {
        let name = format!("clawback_reports_total{{tenant=\"counted\",outcome=\"{outcome}\"}}");
        let found = metric(&page, &name);
        assert!((found - expected).abs() < 0.5, "{outcome}: {found}");
    }
    assert!(metric(&page, REFUSED) >= refused + 1.0, "{page}");
    assert!(metric(&page, COMMITS) >= commits + 2.0, "{page}");
    for expected in [
        "clawback_seconds_since_last_report{tenant=\"counted\"}",
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
