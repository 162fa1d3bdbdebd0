//! `serve`: refused starts, a new configuration, one data directory, what others may see.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::Signal;

use crate::cli_serving::{Site, TENANT, change};

/// A start that cannot be is refused with exit 2, naming file or address and what to do.
#[test]
fn refused_starts_say_why() {
    type Spoil = fn(&Site) -> Option<Box<dyn std::any::Any>>;
    let cases: [(&str, Spoil, &str); 14] = [
        (
            "port in use",
            |site| {
                let taken = TcpListener::bind("127.0.0.1:0").unwrap();
                change(
                    site,
                    "127.0.0.1:0",
                    &taken.local_addr().unwrap().to_string(),
                );
                Some(Box::new(taken))
            },
            "the port is in use",
        ),
        (
            "no such address",
            |site| {
                change(site, "127.0.0.1:0", "192.0.2.1:2525");
                None
            },
            "192.0.2.1:2525",
        ),
        (
            "no certificate",
            |site| {
                fs::remove_file(site.path("certs/fullchain.pem")).unwrap();
                None
            },
            "certs/fullchain.pem",
        ),
        (
            "no key",
            |site| {
                fs::remove_file(site.path("certs/privkey.pem")).unwrap();
                None
            },
            "certs/privkey.pem",
        ),
        (
            "key of another",
            |site| {
                let out = site.path("other");
                site.run(&["certs", "self-signed", "--out", out.to_str().unwrap()]);
                fs::copy(out.join("privkey.pem"), site.path("certs/privkey.pem")).unwrap();
                None
            },
            "certs/privkey.pem",
        ),
        (
            "metrics port in use",
            |site| {
                let taken = TcpListener::bind("127.0.0.1:0").unwrap();
                let metrics = format!("metrics = \"{}\"\n[[tenant]]", taken.local_addr().unwrap());
                change(site, "[[tenant]]", &metrics);
                Some(Box::new(taken))
            },
            "admin.metrics 127.0.0.1:",
        ),
        (
            "a directory for a certificate",
            |site| {
                fs::remove_file(site.path("certs/fullchain.pem")).unwrap();
                fs::create_dir(site.path("certs/fullchain.pem")).unwrap();
                None
            },
            "certs/fullchain.pem: the certificate cannot be read (Is a directory",
        ),
        (
            "no certificate in the file",
            |site| {
                fs::write(site.path("certs/fullchain.pem"), "nothing").unwrap();
                None
            },
            "certs/fullchain.pem",
        ),
        (
            "data directory is a file",
            |site| {
                fs::write(site.path("data"), "").unwrap();
                None
            },
            "store.path",
        ),
        (
            "store key missing beside data",
            |site| {
                fs::create_dir_all(site.path("data/log")).unwrap();
                None
            },
            "restore it from your backup",
        ),
        (
            "store key is none",
            |site| {
                fs::write(site.path("store.key"), "short\n").unwrap();
                None
            },
            "store.key: not a store key",
        ),
        (
            "something else at the socket",
            |site| {
                fs::write(site.path("admin.sock"), "").unwrap();
                None
            },
            "admin.sock",
        ),
        (
            "another service at the socket",
            |site| {
                Some(Box::new(
                    UnixListener::bind(site.path("admin.sock")).unwrap(),
                ))
            },
            "another clawback answers there",
        ),
        (
            "unknown key",
            |site| {
                change(site, "hostname", "hostnam");
                None
            },
            "clawback.toml:3:1: unknown key \"hostnam\" in [smtp]; did you mean \"hostname\"?",
        ),
    ];
    for (name, spoil, words) in cases {
        let site = Site::new(TENANT);
        let _held = spoil(&site);
        let ended = site.run(&["serve"]);
        assert_eq!(ended.code, 2, "{name}: {}", ended.stderr);
        let last = ended.stderr.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("clawback: ") && last.contains(words),
            "{name}: {last}"
        );
        assert_eq!(ended.stdout, "", "{name}");
        if words.starts_with("certs/") {
            let made = site.path("data").exists() || site.path("admin.sock").exists();
            assert!(!made, "{name}: nothing is set going before a refusal");
        }
    }
}

/// Whoever holds a half-sent request, or does not read an answer, does not hold the service.
#[test]
fn a_stop_waits_for_nobody_for_long() {
    let site = Site::new(&format!("metrics = \"127.0.0.1:0\"\n{TENANT}"));
    let mut service = site.serve();
    let metrics = service.said("metrics and health are answered")["address"].clone();
    let request = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n";
    let mut scraper = TcpStream::connect(metrics.as_str().unwrap()).unwrap();
    scraper.write_all(request).unwrap();
    let mut admin = UnixStream::connect(site.path("admin.sock")).unwrap();
    admin.write_all(request).unwrap();
    let mut whole = UnixStream::connect(site.path("admin.sock")).unwrap();
    whole
        .write_all(&[request.as_slice(), b"\r\n"].concat())
        .unwrap();
    // Its answer says that the service has read what came before it.
    let read = whole.read(&mut [0; 12]).unwrap();
    assert_eq!(read, 12);
    let mut idle = TcpStream::connect(service.address()).unwrap();
    idle.write_all(b"EHLO x\r\nMAIL").unwrap();
    service.signal(Signal::TERM);
    let left = service.wait_for("does not end and is left behind");
    assert_eq!(left["part"], "requests");
    service.wait_for("stopped");
    assert!(service.stop().success());
    assert!(!site.path("admin.sock").exists());
}

#[test]
fn one_data_directory_has_one_service() {
    let site = Site::new(TENANT);
    let _service = site.serve();
    change(&site, "admin.sock", "other.sock");
    let ended = site.run(&["serve"]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.contains("in use by process"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_new_configuration_is_taken_and_a_bad_one_refused() {
    let site = Site::new(TENANT);
    let mut service = site.serve();
    let fabrikam = TENANT
        .replace("northwind", "fabrikam")
        .replace("k3v9", "other")
        .replace("9f8e7d6c", "00000000");
    let good = fs::read_to_string(&site.config).unwrap();
    fs::write(&site.config, format!("{good}{fabrikam}")).unwrap();
    service.signal(Signal::HUP);
    service.wait_for("the new configuration is in use");
    assert_eq!(
        site.run(&["--tenant", "fabrikam", "search"]).code,
        1,
        "the new tenant is known"
    );
    fs::write(&site.config, format!("{good}[smpt]\n")).unwrap();
    service.signal(Signal::HUP);
    let line = service.wait_for("new configuration refused, the old one stays");
    assert!(
        line["message"]
            .as_str()
            .unwrap()
            .contains("did you mean \"smtp\"?"),
        "{line}"
    );
    fs::write(&site.config, &good).unwrap();
    assert_eq!(
        site.run(&["--tenant", "fabrikam", "search"]).code,
        1,
        "the old configuration stays"
    );
    fs::write(site.path("certs/privkey.pem"), "nothing").unwrap();
    service.signal(Signal::HUP);
    let line = service.wait_for("new configuration refused, the old one stays");
    assert!(
        line["message"].as_str().unwrap().contains("privkey.pem"),
        "{line}"
    );
    assert_eq!(
        site.run(&["--tenant", "fabrikam", "search"]).code,
        1,
        "the old configuration stays"
    );
}

/// A directory that the service does not use is looked for by nobody.
#[test]
fn what_takes_a_restart_is_named_and_left_as_it_was() {
    let site = Site::new(TENANT);
    let mut service = site.serve();
    change(&site, "\"data\"", "\"other\"");
    service.signal(Signal::HUP);
    let line = service.wait_for("changed, which takes a restart; the old value is in use");
    assert_eq!(line["key"], "store.path");
    service.wait_for("the new configuration is in use");
    let status = site.run(&["--json", "status"]).documents().remove(0);
    assert!(status["disk"]["free"].is_u64(), "{status}");
}

#[test]
fn the_service_keeps_to_itself() {
    let site = Site::new(TENANT);
    fs::create_dir(site.path("data")).unwrap();
    fs::set_permissions(site.path("data"), fs::Permissions::from_mode(0o755)).unwrap();
    let service = site.serve();
    let mode = |name: &str| fs::metadata(site.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("admin.sock"), 0o660);
    assert_eq!(mode("store.key"), 0o600);
    assert_eq!(mode("data"), 0o700);
    assert!(service.stop().success());
    assert!(
        !site.path("admin.sock").exists(),
        "the socket goes with the service"
    );
}

/// After a kill the old socket is in the way of nobody.
#[test]
fn a_stale_socket_is_replaced() {
    let site = Site::new(TENANT);
    drop(site.serve());
    assert!(site.path("admin.sock").exists());
    let service = site.serve();
    assert_eq!(service.run(&["status"]).code, 0);
}
