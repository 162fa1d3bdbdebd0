//! The dialogues of `tests/dialogues` again, over real sockets with real TLS: what the bare session
//! promises, the driver keeps.

use std::collections::BTreeMap;
use std::time::Duration;

use clawback::smtp::{Settings, TlsPolicy};
use tokio::runtime::Handle;

use crate::smtp_dialogues::{Dialogue, Peer, dialogues};
use crate::support::service::{JOURNAL, OTHER_JOURNAL, config_text};
use crate::support::{Client, Service};

/// A connection as the dialogues see one.
struct Socket {
    runtime: Handle,
    ca: String,
    client: Option<Client>,
}

impl Socket {
    fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect("a connection")
    }
}

impl Peer for Socket {
    fn send(&mut self, octets: &[u8]) {
        let runtime = self.runtime.clone();
        // A server that has closed says so where the dialogue expects it.
        drop(runtime.block_on(self.client().try_send(octets)));
    }

    fn line(&mut self) -> Option<String> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.client().line())
    }

    fn start_tls(&mut self) {
        let client = self.client.take().expect("a connection");
        let shaken = self.runtime.block_on(client.handshake(&self.ca, None));
        self.client = Some(shaken.expect("a TLS session"));
    }

    fn message(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn elapse(&mut self, _: Duration) {
        unreachable!("time passes in bare dialogues only");
    }
}

/// The configuration that gives these settings.
fn configuration(settings: &Settings) -> String {
    let tls = match settings.tls {
        TlsPolicy::Required => "required",
        TlsPolicy::Optional => "optional",
    };
    let section = format!(
        "hostname = \"{}\"\ntls = \"{tls}\"\nmax_message = \"{} B\"\nmax_recipients = {}\nmax_errors = {}",
        settings.hostname, settings.max_message, settings.max_recipients, settings.max_errors
    );
    config_text()
        .replace("hostname = \"localhost\"", &section)
        .replace(JOURNAL, "journal@mx.example")
        .replace(OTHER_JOURNAL, "other@mx.example")
}

#[test]
fn sockets_hold_every_dialogue() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut by_settings: BTreeMap<String, Vec<Dialogue>> = BTreeMap::new();
    for dialogue in dialogues().into_iter().filter(|dialogue| !dialogue.bare) {
        let configuration = configuration(&dialogue.settings);
        by_settings.entry(configuration).or_default().push(dialogue);
    }
    let mut held = 0;
    for (configuration, dialogues) in by_settings {
        let service = runtime.block_on(Service::with(&configuration));
        for dialogue in dialogues {
            let mut socket = Socket {
                runtime: runtime.handle().clone(),
                ca: service.ca(),
                client: Some(runtime.block_on(Client::connect(service.address()))),
            };
            dialogue.run(&mut socket);
            held += 1;
        }
        runtime.block_on(service.receiver.shutdown());
    }
    assert!(held > 40, "only {held} dialogues are for sockets");
}
