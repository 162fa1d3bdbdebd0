//! The service stops: what runs may end, nothing new begins, what was acknowledged is kept.

use std::time::Duration;

use tokio::time::timeout;

use crate::support::client::stuffed;
use crate::support::service::JOURNAL;
use crate::support::{Client, Mail, Service};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_transaction_ends_and_the_rest_is_sent_away() {
    let service = Service::start().await;
    let address = service.address();
    let mut idle = service.client().await;
    let mut busy = service.client().await;
    let id = "shutdown@tailspin.example";
    let content = stuffed(&Mail::new(id).report());
    let (first, second) = content.split_at(content.len() / 2);
    busy.send(format!("MAIL FROM:<>\r\nRCPT TO:<{JOURNAL}>\r\nDATA\r\n").as_bytes())
        .await;
    for expected in [250, 250, 354] {
        assert_eq!(busy.reply().await.code, expected);
    }
    busy.send(first.as_bytes()).await;

    let parts = service.parts.clone();
    let stopping = tokio::spawn(service.receiver.shutdown());
    let told = idle.rest().await;
    assert!(told.starts_with("421 4.3.2"), "{told}");
    assert!(!stopping.is_finished(), "it waits for the transaction");

    busy.send(second.as_bytes()).await;
    let reply = busy.reply().await;
    assert_eq!(reply.text(), "250 2.0.0 report recorded, 1 recipients");
    let told = busy.rest().await;
    assert!(told.starts_with("421 4.3.2"), "{told}");
    stopping.await.unwrap();
    let records = crate::support::service::records(&parts, id).await;
    assert_eq!(records.len(), 1, "what was acknowledged is kept");
    let refused = tokio::net::TcpStream::connect(address).await;
    assert!(refused.is_err(), "nobody listens any more");
}

/// A client that holds its transaction open for ever does not hold the service.
#[tokio::test]
async fn patience_has_an_end() {
    let service = Service::start().await;
    let mut client = service.client().await;
    assert_eq!(client.command("MAIL FROM:<>").await.code, 250);
    let patience = Duration::from_millis(200);
    service.receiver.shutdown_within(patience).await;
    assert_eq!(client.rest().await, "");
}

/// Nor does one that does not read what it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_replies_do_not_hold_a_stop() {
    let service = Service::start().await;
    let mut client = Client::deaf(service.address()).await;
    let stopped = service.receiver.shutdown_within(Duration::from_millis(200));
    timeout(Duration::from_secs(20), stopped)
        .await
        .expect("patience is over, and so is the write");
    assert!(!client.rest().await.contains("421 "));
}
