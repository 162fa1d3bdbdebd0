//! Exim sends with BDAT wherever CHUNKING is offered, as Exchange Online does.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use super::{account, run};
use crate::support::service::JOURNAL;
use crate::support::{Mail, Service};

/// Everything to the receiver, TLS verified, chunking tried.
fn configuration(directory: &Path, program: &Path, port: u16) -> String {
    format!(
        "
exim_path = {program}
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
primary_hostname = exim.example
disable_ipv6 = true
never_users =
keep_environment =
trusted_users = root

begin routers
smart_host:
  driver = manualroute
  domains = *
  route_list = * localhost::{port} byname
  self = send
  transport = remote

begin transports
remote:
  driver = smtp
  hosts_require_tls = *
  hosts_try_chunking = *
  tls_verify_certificates = {directory}/ca.pem
  tls_verify_hosts = *

begin retry
* * F,1h,1s
",
        program = program.display(),
        directory = directory.display()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exim_delivers_by_bdat() {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/exim/usr/sbin/exim4");
    assert!(
        unpacked.is_file(),
        "Exim is not there; run tests/install-peers"
    );
    let service = Service::start().await;
    // Exim's own user must be able to walk in.
    let files = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    for name in ["log", "spool"] {
        std::fs::create_dir(files.path().join(name)).unwrap();
        chown(files.path().join(name), Some(account("Debian-exim")), None)
            .expect("Exim must start as root and gives it up, as in real life");
    }
    std::fs::write(files.path().join("ca.pem"), service.ca()).unwrap();
    // It calls itself as its own user, who may not be able to walk to where this repository is.
    // Another process writes the copy: a fork of another test would hold ours open, and a program
    // that is open for writing cannot be run.
    let program = files.path().join("exim4");
    run(&super::program("cp"), &[&unpacked, &program], b"").await;
    let file: PathBuf = files.path().join("exim.conf");
    std::fs::write(
        &file,
        configuration(files.path(), &program, service.address().port()),
    )
    .unwrap();
    for number in 0..20 {
        let id = format!("exim-{number}@tailspin.example");
        let mut mail = Mail::new(&id).with_recipients(1 + number * 50);
        mail.body = ".\r\n".repeat(number * 2000);
        let arguments = ["-C", file.to_str().unwrap(), "-odi", "-f", "<>", JOURNAL];
        // Exim takes local mail with LF line ends, and sends CRLF.
        run(
            &program,
            &arguments,
            mail.report()
                .replace("\r\n", "\n")
                .replace("\n.\n", "\n..\n")
                .as_bytes(),
        )
        .await;
        let records = service.records(&id).await;
        let log = std::fs::read_to_string(files.path().join("log/mainlog")).unwrap();
        assert_eq!(records.len(), 1, "{id}: {log}");
        assert_eq!(records[0].recipients.len(), 1 + number * 50, "{id}");
    }
    let log = std::fs::read_to_string(files.path().join("log/mainlog")).unwrap();
    let chunked = log
        .lines()
        .filter(|line| line.contains("=> ") && line.contains(" K "));
    assert_eq!(chunked.count(), 20, "every delivery used BDAT: {log}");
}
