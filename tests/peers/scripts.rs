//! Clients that administrators and programmers reach for: swaks and Python's smtplib.

use super::{program, run};
use crate::support::service::JOURNAL;
use crate::support::{Mail, Service};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaks_delivers() {
    let service = Service::start().await;
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, service.ca()).unwrap();
    let report = files.path().join("report.eml");
    // swaks makes CRLF of LF.
    std::fs::write(
        &report,
        Mail::new("swaks@tailspin.example")
            .report()
            .replace("\r\n", "\n"),
    )
    .unwrap();
    let server = format!("localhost:{}", service.address().port());
    let data = format!("@{}", report.display());
    let arguments = [
        "--server",
        &server,
        "--ehlo",
        "client.example",
        "--from",
        "<>",
        "--to",
        JOURNAL,
        "--tls",
        "--tls-verify",
        "--tls-ca-path",
        ca.to_str().unwrap(),
        "--data",
        &data,
    ];
    let output = run(&program("swaks"), &arguments, b"").await;
    let dialogue = String::from_utf8_lossy(&output.stdout);
    assert!(
        dialogue.contains("250 2.0.0 report recorded, 1 recipients"),
        "{dialogue}"
    );
    assert_eq!(service.records("swaks@tailspin.example").await.len(), 1);
}

/// smtplib sends from the tenant's address with SIZE; the script also says EHLO twice and RSET.
const SMTPLIB: &str = r#"
import smtplib, ssl, sys
port, ca, recipient = int(sys.argv[1]), sys.argv[2], sys.argv[3]
report = sys.stdin.buffer.read()
with smtplib.SMTP("localhost", port, local_hostname="client.example", timeout=30) as smtp:
    smtp.ehlo()
    smtp.starttls(context=ssl.create_default_context(cafile=ca))
    smtp.ehlo()
    smtp.rset()
    refused = smtp.sendmail("journal-ndr@contoso.example", [recipient], report)
    assert refused == {}, refused
    assert smtp.noop()[0] == 250
    assert smtp.verify("x")[0] == 252
    try:
        smtp.sendmail("", ["nobody@elsewhere.example"], report)
        sys.exit("a foreign recipient was accepted")
    except smtplib.SMTPRecipientsRefused as refusal:
        assert list(refusal.recipients.values())[0][0] == 550, refusal
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smtplib_delivers() {
    let service = Service::start().await;
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, service.ca()).unwrap();
    let port = service.address().port().to_string();
    let arguments = ["-c", SMTPLIB, &port, ca.to_str().unwrap(), JOURNAL];
    let mut mail = Mail::new("smtplib@tailspin.example");
    mail.body = ".a line that begins with a dot\r\n..\r\n".to_owned();
    run(&program("python3"), &arguments, mail.report().as_bytes()).await;
    assert_eq!(service.records("smtplib@tailspin.example").await.len(), 1);
}
