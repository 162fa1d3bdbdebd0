//! TLS: versions, certificates that change under a running service, names that clients prove.

use std::sync::Arc;

use clawback::certs::{self, Authority, Pair};
use clawback::server::Receiver;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use crate::support::service::{self, JOURNAL, changed, config_text, now, place_certificate};
use crate::support::{Client, Mail, Service};

/// A client in front of the TLS handshake.
async fn before_tls(service: &Service) -> Client {
    let mut client = Client::connect(service.address()).await;
    assert_eq!(client.reply().await.code, 220);
    assert_eq!(client.command("EHLO client.example").await.code, 250);
    assert_eq!(client.command("STARTTLS").await.code, 220);
    client
}

#[tokio::test]
async fn both_tls_versions_are_served() {
    let service = Service::start().await;
    for (name, version) in [
        ("TLSv1_2", &rustls::version::TLS12),
        ("TLSv1_3", &rustls::version::TLS13),
    ] {
        let counted = format!("clawback_tls_handshakes_total{{result=\"{name}\"}}");
        let before = service.metric(&counted);
        let client = before_tls(&service).await;
        let client = client.handshake_with(&service.ca(), None, &[version]).await;
        let mut client = client.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            client.command("EHLO client.example").await.code,
            250,
            "{name}"
        );
        assert!(service.metric(&counted) > before, "{name}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_served_without_dropping_a_session() {
    let service = Service::start().await;
    let mut old = service.client().await;
    assert_eq!(old.command("MAIL FROM:<>").await.code, 250);

    let authority = Authority::new("another authority", now(), 30).unwrap();
    let pair = authority.issue("localhost", now(), 30).unwrap();
    place_certificate(service.directory.path(), &pair);
    service.receiver.refresh_certificate();

    let new = before_tls(&service).await;
    assert!(new.handshake(&authority.certificate(), None).await.is_ok());
    let distrusting = before_tls(&service).await;
    assert!(distrusting.handshake(&service.ca(), None).await.is_err());
    let reply = old.command(&format!("RCPT TO:<{JOURNAL}>")).await;
    assert_eq!(reply.code, 250, "the session goes on with its transaction");
}

#[tokio::test]
async fn a_bad_new_certificate_leaves_the_old_one() {
    let service = Service::start().await;
    let stranger = service.authority.issue("localhost", now(), 30).unwrap();
    let expired = service
        .authority
        .issue(
            "localhost",
            now() - jiff::SignedDuration::from_hours(24 * 60),
            30,
        )
        .unwrap();
    let mut mixed = service.authority.issue("localhost", now(), 30).unwrap();
    mixed.private_key = stranger.private_key;
    let text = |certificate: &str| Pair {
        certificate: certificate.to_owned(),
        private_key: String::new().into(),
    };
    for (name, pair) in [
        ("no PEM", text("hello")),
        ("another's key", mixed),
        ("expired", expired),
    ] {
        place_certificate(service.directory.path(), &pair);
        service.receiver.refresh_certificate();
        let mut client = service.client().await;
        assert_eq!(client.command("NOOP").await.code, 250, "{name}");
    }
}

#[tokio::test]
async fn a_start_without_a_good_certificate_is_refused() {
    let service = Service::start().await;
    for (name, file, content, expected) in [
        ("key gone", "key.pem", None, "key.pem: no such file"),
        (
            "certificate broken",
            "certificate.pem",
            Some("hello"),
            "certificate.pem: no certificate in PEM form",
        ),
        ("key unreadable", "key.pem", Some(""), "key.pem: "),
        (
            "certificate unreadable",
            "certificate.pem",
            Some(""),
            "certificate.pem: ",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let pair = service.authority.issue("localhost", now(), 30).unwrap();
        place_certificate(directory.path(), &pair);
        let file = directory.path().join(file);
        match content {
            None => std::fs::remove_file(&file).unwrap(),
            Some(content) => std::fs::write(&file, content).unwrap(),
        }
        if content == Some("") {
            // What nobody can read, not even root.
            std::fs::remove_file(&file).unwrap();
            std::fs::create_dir(&file).unwrap();
        }
        let config = service::parse(&config_text(), directory.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let started = Receiver::start(Arc::clone(&config), service.parts.clone(), vec![listener]);
        let error = started.map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

/// A tenant whose peer is known by a certificate: with it reports are believed, without they are
/// not, and a certificate that nobody vouches for hurts nobody but its owner.
#[tokio::test]
async fn a_peer_can_prove_its_name_by_a_certificate() {
    let config = changed(&[
        (
            "peers = [\"127.0.0.0/8\"]",
            "peers = [\"certificate:peer.example\"]",
        ),
        ("[store]", "[network]\nca_file = \"clients.pem\"\n\n[store]"),
    ]);
    let authority = Authority::new("clients", now(), 30).unwrap();
    let certificate = authority.certificate();
    let service = Service::prepared(&config, |directory| {
        std::fs::write(directory.join("clients.pem"), certificate).unwrap();
    })
    .await;
    let stranger = Authority::new("clients", now(), 30).unwrap();
    for (name, identity, records) in [
        (
            "proven",
            Some(authority.issue("peer.example", now(), 30).unwrap()),
            1,
        ),
        (
            "another name",
            Some(authority.issue("other.example", now(), 30).unwrap()),
            0,
        ),
        (
            "unknown authority",
            Some(stranger.issue("peer.example", now(), 30).unwrap()),
            0,
        ),
        ("none", None, 0),
    ] {
        let client = Client::connect(service.address()).await;
        let mut client = client
            .into_encrypted(&service.ca(), identity.as_ref())
            .await;
        let id = format!("{}@tailspin.example", name.replace(' ', "-"));
        let reply = client.deliver("", JOURNAL, &Mail::new(&id).report()).await;
        assert_eq!(reply.code, 250, "{name}: {reply:?}");
        assert_eq!(service.records(&id).await.len(), records, "{name}");
    }
}

/// SIGHUP: new sessions follow the new configuration, a session under way keeps its own.
#[tokio::test]
async fn a_new_configuration_is_for_new_sessions() {
    let service = Service::start().await;
    let mut old = service.client().await;
    assert_eq!(old.command("MAIL FROM:<>").await.code, 250);
    let moved = "a1b2c3d4e5f6g7h8@journal.example";
    service.reload(&changed(&[(JOURNAL, moved)]));
    let mut new = service.client().await;
    assert_eq!(new.command("MAIL FROM:<>").await.code, 250);
    let recipient = |address: &str| format!("RCPT TO:<{address}>");
    assert_eq!(old.command(&recipient(JOURNAL)).await.code, 250);
    assert_eq!(new.command(&recipient(JOURNAL)).await.code, 550);
    assert_eq!(new.command(&recipient(moved)).await.code, 250);
}

/// A client that comes again resumes its TLS session: that saves both sides most of a handshake.
#[tokio::test]
async fn tls_sessions_are_resumed() {
    let service = Service::start().await;
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(service.ca().as_bytes()).unwrap())
        .unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = ClientConfig::builder_with_provider(certs::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let stream = before_tls(&service).await.into_stream();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            // The ticket of TLS 1.3 comes with the first reply.
            stream.write_all(b"EHLO client.example\r\n").await.unwrap();
            let mut reply = [0; 1024];
            assert!(stream.read(&mut reply).await.unwrap() > 0);
            kinds.push(stream.get_ref().1.handshake_kind());
        }
        let expected = [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)];
        assert_eq!(kinds, expected, "{:?}", version.version);
    }
}
