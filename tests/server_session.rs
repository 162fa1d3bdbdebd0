//! Sessions over real sockets: dialogue, TLS, limits, bad input.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use crate::support::service::{JOURNAL, OTHER_JOURNAL, changed};
use crate::support::{Client, Service};

#[tokio::test]
async fn mail_needs_tls() {
    let service = Service::start().await;
    let mut client = Client::connect(service.address()).await;
    assert_eq!(client.reply().await.code, 220);
    assert_eq!(client.command("EHLO client.example").await.code, 250);
    let refused = client.command("MAIL FROM:<>").await;
    assert!(refused.text().starts_with("530 5.7.0"), "{refused:?}");
}

/// What a man in the middle sends behind STARTTLS must never be taken for the client's words
/// (CVE-2011-0411).
#[tokio::test]
async fn octets_behind_starttls_end_the_connection() {
    let service = Service::start().await;
    let mut client = Client::connect(service.address()).await;
    assert_eq!(client.reply().await.code, 220);
    assert_eq!(client.command("EHLO client.example").await.code, 250);
    client.send(b"STARTTLS\r\nEHLO injected.example\r\n").await;
    let rest = client.rest().await;
    assert!(!rest.contains("250"), "{rest}");
}

/// What was said before STARTTLS is forgotten (RFC 3207 section 4.2).
#[tokio::test]
async fn state_before_starttls_is_forgotten() {
    let service = Service::start().await;
    let mut client = Client::connect(service.address()).await;
    assert_eq!(client.reply().await.code, 220);
    assert_eq!(client.command("EHLO client.example").await.code, 250);
    assert_eq!(client.command("STARTTLS").await.code, 220);
    let mut client = client.handshake(&service.ca(), None).await.unwrap();
    let reply = client.command("MAIL FROM:<>").await;
    assert_eq!(reply.code, 503, "{reply:?}");
}

/// One TLS record: the replies were written together (RFC 2920 section 3.2).
#[tokio::test]
async fn replies_of_a_group_come_together() {
    let service = Service::start().await;
    let client = Client::connect(service.address()).await;
    let (client, records) = client.counting_records();
    let mut client = client.into_encrypted(&service.ca(), None).await;
    let before = records.load(Ordering::Relaxed);
    let group = format!(
        "MAIL FROM:<>\r\nRCPT TO:<{JOURNAL}>\r\nRCPT TO:<nobody@journal.example>\r\nNOOP\r\n"
    );
    client.send(group.as_bytes()).await;
    for expected in [250, 250, 550, 250] {
        assert_eq!(client.reply().await.code, expected);
    }
    assert_eq!(records.load(Ordering::Relaxed), before + 1);
}

#[tokio::test]
async fn one_transaction_is_of_one_tenant() {
    let service = Service::start().await;
    let mut client = service.client().await;
    assert_eq!(client.command("MAIL FROM:<>").await.code, 250);
    let recipient = |address: &str| format!("RCPT TO:<{address}>");
    assert_eq!(client.command(&recipient(JOURNAL)).await.code, 250);
    assert_eq!(client.command(&recipient(OTHER_JOURNAL)).await.code, 452);
    assert_eq!(
        client
            .command(&recipient(&JOURNAL.to_uppercase()))
            .await
            .code,
        250
    );
    assert_eq!(client.command("RSET").await.code, 250);
    assert_eq!(client.command("MAIL FROM:<>").await.code, 250);
    assert_eq!(
        client.command(&recipient(OTHER_JOURNAL)).await.code,
        250,
        "RSET forgets the tenant"
    );
}

/// 10,000 RCPTs: the first 1,000 are taken, the rest is for another transaction.
#[tokio::test]
async fn recipients_are_bounded() {
    let service = Service::start().await;
    let mut client = service.client().await;
    assert_eq!(client.command("MAIL FROM:<>").await.code, 250);
    let group = format!("RCPT TO:<{JOURNAL}>\r\n").repeat(100);
    let (mut accepted, mut later) = (0, 0);
    for _ in 0..100 {
        client.send(group.as_bytes()).await;
        for _ in 0..100 {
            let reply = client.reply().await;
            if reply.code == 250 {
                assert_eq!(later, 0, "the first are taken");
                accepted += 1;
            } else {
                assert!(reply.text().starts_with("452 4.5.3"), "{reply:?}");
                later += 1;
            }
        }
    }
    assert_eq!((accepted, later), (1000, 9000));
    assert_eq!(client.command("DATA").await.code, 354, "for the first");
}

#[tokio::test]
async fn a_nul_in_a_command_ends_the_session() {
    let service = Service::start().await;
    let mut client = service.client().await;
    client.send(b"NO\0OP\r\nNOOP\r\n").await;
    let rest = client.rest().await;
    assert!(rest.starts_with("500 "), "{rest}");
    assert!(!rest.contains("250 "), "{rest}");
}

#[tokio::test]
async fn bdat_with_a_size_of_23_digits_ends_the_session() {
    let service = Service::start().await;
    let mut client = service.client().await;
    assert_eq!(client.command("MAIL FROM:<>").await.code, 250);
    let to = format!("RCPT TO:<{JOURNAL}>");
    assert_eq!(client.command(&to).await.code, 250);
    client
        .send(b"BDAT 99999999999999999999999 LAST\r\nQUIT\r\n")
        .await;
    let rest = client.rest().await;
    assert!(
        rest.starts_with("501 ") || rest.starts_with("552 "),
        "{rest}"
    );
    assert!(
        !rest.contains("221 "),
        "what follows is content, not a command: {rest}"
    );
}

/// Clients that connect and say nothing, half of them in the middle of the TLS handshake, go away
/// by themselves.
#[tokio::test]
async fn silent_clients_are_sent_away() {
    let config = changed(&[(
        "hostname = \"localhost\"",
        "hostname = \"localhost\"\nidle_timeout = \"200 ms\"\nhandshake_timeout = \"200 ms\"",
    )]);
    let service = Service::with(&config).await;
    let mut silent = Client::connect(service.address()).await;
    assert_eq!(silent.reply().await.code, 220);
    let mut shaking = Client::connect(service.address()).await;
    assert_eq!(shaking.reply().await.code, 220);
    assert_eq!(shaking.command("EHLO client.example").await.code, 250);
    assert_eq!(shaking.command("STARTTLS").await.code, 220);
    let rest = silent.rest().await;
    assert!(rest.starts_with("421 "), "{rest}");
    assert_eq!(shaking.rest().await, "", "no word in the clear");
}

/// A client that sends a command an octet at a time is not kept alive by it.
#[tokio::test]
async fn a_slow_command_is_no_activity() {
    let config = changed(&[(
        "hostname = \"localhost\"",
        "hostname = \"localhost\"\nidle_timeout = \"300 ms\"",
    )]);
    let service = Service::with(&config).await;
    let mut client = Client::connect(service.address()).await;
    assert_eq!(client.reply().await.code, 220);
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let dripping = async {
        loop {
            ticks.tick().await;
            if client.try_send(b"E").await.is_err() {
                return;
            }
        }
    };
    timeout(Duration::from_secs(20), dripping)
        .await
        .expect("the connection ends");
}

/// 2,000 idle connections: the oldest give way, whatever they pretend to be doing, and a good client
/// is served within a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_give_way() {
    let config = changed(&[(
        "hostname = \"localhost\"",
        "hostname = \"localhost\"\nmax_connections_per_peer = 1000",
    )]);
    let service = Service::with(&config).await;
    let mut chunk = Client::connect(service.address()).await;
    assert_eq!(chunk.reply().await.code, 220);
    chunk.send(b"BDAT 100000\r\n").await;
    let mut mail = service.client().await;
    assert_eq!(mail.command("MAIL FROM:<>").await.code, 250);
    let mut sender = service.client().await;
    sender
        .send(format!("MAIL FROM:<>\r\nRCPT TO:<{JOURNAL}>\r\n").as_bytes())
        .await;
    for _ in 0..2 {
        assert_eq!(sender.reply().await.code, 250);
    }
    let mut idle = Vec::new();
    for _ in 0..2000 {
        idle.push(Client::connect(service.address()).await);
    }
    let served = timeout(Duration::from_secs(1), service.client()).await;
    let mut client = served.expect("a good client is served within a second");
    assert_eq!(client.command("MAIL FROM:<>").await.code, 250);
    let mut oldest = idle.swap_remove(0);
    assert_eq!(oldest.reply().await.code, 220);
    for (name, mut gone) in [("chunk", chunk), ("MAIL", mail), ("silence", oldest)] {
        let rest = gone.rest().await;
        assert!(rest.starts_with("421 "), "{name}: {rest}");
    }
    assert_eq!(
        sender.command("NOOP").await.code,
        250,
        "a message for us is under way here"
    );
}

/// Clients that read nothing do not keep their places until a write to them is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deaf_clients_give_way() {
    let config = changed(&[(
        "hostname = \"localhost\"",
        "hostname = \"localhost\"\ntls = \"optional\"\nmax_connections = 3",
    )]);
    let service = Service::with(&config).await;
    let address = service.address();
    let _deaf = tokio::join!(Client::deaf(address), Client::deaf(address));
    let transaction = format!("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<{JOURNAL}>\r\n");
    let mut good = Vec::new();
    let served = async {
        while good.len() < 3 {
            let mut client = Client::connect(address).await;
            if client.reply().await.code == 220 {
                client.send(transaction.as_bytes()).await;
                for _ in 0..3 {
                    assert_eq!(client.reply().await.code, 250);
                }
                good.push(client);
            }
        }
    };
    timeout(Duration::from_secs(20), served)
        .await
        .expect("all places are given to those who have mail for us");
}

/// One peer cannot take the places of all others.
#[tokio::test]
async fn one_peer_gets_its_share_only() {
    let config = changed(&[(
        "hostname = \"localhost\"",
        "hostname = \"localhost\"\nmax_connections_per_peer = 3",
    )]);
    let service = Service::with(&config).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(service.address()).await;
        assert_eq!(client.reply().await.code, 220);
        clients.push(client);
    }
    let mut fourth = Client::connect(service.address()).await;
    let rest = fourth.rest().await;
    assert!(rest.starts_with("421 "), "{rest}");
    let mut other = Client::connect_from(service.address(), [127, 0, 0, 2]).await;
    assert_eq!(other.reply().await.code, 220);
}

/// A client that sends commands and reads no reply is cut off, and our memory stays bounded.
#[tokio::test]
async fn unread_replies_end_the_session() {
    let config = changed(&[(
        "hostname = \"localhost\"",
        "hostname = \"localhost\"\nidle_timeout = \"300 ms\"",
    )]);
    let service = Service::with(&config).await;
    let mut client = service.client().await;
    let commands = "NOOP\r\n".repeat(10_000);
    let flood = async { while client.try_send(commands.as_bytes()).await.is_ok() {} };
    timeout(Duration::from_secs(20), flood)
        .await
        .expect("the connection ends");
}

/// The reply that explains a close arrives although the client was still sending.
#[tokio::test]
async fn the_last_reply_arrives() {
    let service = Service::start().await;
    for _ in 0..20 {
        let mut client = service.client().await;
        client.send(b"NO\0OP\r\n").await;
        // Behind the session's back: it does not read this any more.
        drop(client.try_send(&[b'x'; 100_000]).await);
        let rest = client.rest().await;
        assert!(rest.starts_with("500 "), "{rest:?}");
    }
}
