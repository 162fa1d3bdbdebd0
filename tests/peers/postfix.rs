//! Postfix relays a feed to the receiver, which is restarted in the middle of it.

use std::fmt::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{interval, timeout};

use super::{account, program, run};
use crate::support::client::stuffed;
use crate::support::service::JOURNAL;
use crate::support::{Mail, Service};

/// Reports in the feed.
const REPORTS: usize = 1000;

/// A private instance of Postfix; stopped when dropped.
struct Postfix {
    directory: tempfile::TempDir,
}

impl Postfix {
    async fn start(port: u16, ca: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("postfix")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let root = directory.path();
        for name in ["etc", "queue", "data"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        let owner = account("postfix");
        chown(root.join("data"), Some(owner), None)
            .expect("a private Postfix needs root, as its own programs do");
        std::fs::write(root.join("ca.pem"), ca).unwrap();
        std::fs::write(root.join("etc/main.cf"), main_cf(root, port)).unwrap();
        std::fs::write(root.join("etc/master.cf"), MASTER_CF).unwrap();
        let postfix = Self { directory };
        postfix.control("start").await;
        postfix
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn control(&self, command: &str) {
        let etc = self.path("etc");
        run(
            &program("postfix"),
            &["-c", etc.to_str().unwrap(), command],
            b"",
        )
        .await;
    }

    /// Puts messages into the queue: `sendmail -bs` speaks SMTP on its standard input.
    async fn submit(&self, mails: &[Mail]) {
        let mut dialogue = "EHLO client.example\r\n".to_owned();
        for mail in mails {
            let content = stuffed(&mail.report());
            write!(
                dialogue,
                "MAIL FROM:<>\r\nRCPT TO:<{JOURNAL}>\r\nDATA\r\n{content}"
            )
            .unwrap();
        }
        dialogue += "QUIT\r\n";
        let etc = self.path("etc");
        let arguments = ["-C", etc.to_str().unwrap(), "-bs"];
        let output = run(&program("sendmail"), &arguments, dialogue.as_bytes()).await;
        let replies = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            replies.matches("queued as").count(),
            mails.len(),
            "{replies}"
        );
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let stopped = std::process::Command::new(program("postfix"))
            .arg("-c")
            .arg(self.path("etc"))
            .arg("abort")
            .output();
        drop(stopped);
    }
}

/// TLS is verified against the test's authority; retries come within seconds, not minutes.
fn main_cf(root: &Path, port: u16) -> String {
    let root = root.display();
    format!(
        "compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.example
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
smtp_host_lookup = native
alias_maps =
local_recipient_maps =
mynetworks = 127.0.0.0/8
maillog_file = {root}/log
maillog_file_prefixes = {root}
relayhost = [localhost]:{port}
smtp_tls_security_level = verify
smtp_tls_verify_cert_match = nexthop
smtp_tls_CAfile = {root}/ca.pem
smtp_tls_loglevel = 1
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
transport_retry_time = 1s
message_size_limit = 0
"
    )
}

/// What relaying needs, nothing in a chroot, no listener.
const MASTER_CF: &str = "\
pickup    unix  n  -  n  1  1  pickup
cleanup   unix  n  -  n  -  0  cleanup
qmgr      unix  n  -  n  1  1  qmgr
rewrite   unix  -  -  n  -  -  trivial-rewrite
tlsmgr    unix  -  -  n  1000? 1 tlsmgr
bounce    unix  -  -  n  -  0  bounce
defer     unix  -  -  n  -  0  bounce
trace     unix  -  -  n  -  0  bounce
verify    unix  -  -  n  -  1  verify
flush     unix  n  -  n  1000? 0 flush
proxymap  unix  -  -  n  -  -  proxymap
smtp      unix  -  -  n  -  -  smtp
relay     unix  -  -  n  -  -  smtp
showq     unix  n  -  n  -  -  showq
error     unix  -  -  n  -  -  error
retry     unix  -  -  n  -  -  error
discard   unix  -  -  n  -  -  discard
anvil     unix  -  -  n  -  1  anvil
scache    unix  -  -  n  -  1  scache
postlog   unix-dgram n - n - 1 postlogd
";

/// 1,000 reports, and the receiver is stopped and started in the middle: none is lost, and none
/// becomes two records, although Postfix sends some of them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_of_a_feed_loses_nothing() {
    let service = Service::start().await;
    let address = service.address();
    let postfix = Postfix::start(address.port(), &service.ca()).await;
    let mails: Vec<_> = (0..REPORTS)
        .map(|number| {
            Mail::new(&format!("postfix-{number}@tailspin.example")).with_recipients(1 + number % 7)
        })
        .collect();
    postfix.submit(&mails).await;

    reached(&service, REPORTS as u64 / 3, &postfix).await;
    let service = service.restart().await;
    assert_eq!(service.address(), address, "on the same port");
    reached(&service, REPORTS as u64, &postfix).await;

    for mail in &mails {
        let records = service.records(&mail.message_id).await;
        assert_eq!(records.len(), 1, "{}", mail.message_id);
        assert_eq!(
            records[0].recipients.len(),
            mail.recipients.len(),
            "{}",
            mail.message_id
        );
    }
    let log = postfix.log();
    assert!(log.contains("Verified TLS connection established"), "{log}");
    assert!(!log.contains("status=bounced"), "{log}");
}

/// Waits until so many reports are in the index.
async fn reached(service: &Service, reports: u64, postfix: &Postfix) {
    let mut ticks = interval(Duration::from_millis(50));
    let waiting = async {
        while service.parts.store.stats().reports < reports {
            ticks.tick().await;
        }
    };
    if timeout(Duration::from_secs(90), waiting).await.is_err() {
        let indexed = service.parts.store.stats().reports;
        panic!("{indexed} of {reports} reports came: {}", postfix.log());
    }
}
