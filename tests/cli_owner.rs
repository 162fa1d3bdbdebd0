//! A service with a user of its own: what root does for it, and what that user may not do.
//! Needs root, as the test command does.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::cli_command::Ended;
use crate::cli_serving::{Site, TENANT, imported, sample};

/// The user that the service runs as in these tests: one that owns nothing.
const SERVICE: u32 = 65_534;

fn give(path: &Path) {
    chown(path, Some(SERVICE), Some(SERVICE)).expect("the tests run as root");
}

/// A site whose data directory belongs to the service's user.
fn installed() -> Site {
    let site = Site::new(TENANT);
    fs::set_permissions(site.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(site.path("data")).unwrap();
    give(&site.path("data"));
    fs::write(site.path("store.key"), format!("{}\n", "5a".repeat(32))).unwrap();
    give(&site.path("store.key"));
    site
}

/// Runs a command as the service's user, who may not be able to reach the folder of the build.
fn as_service(site: &Site, arguments: &[&str]) -> Ended {
    let program = site.path("clawback");
    let built = env!("CARGO_BIN_EXE_clawback");
    fs::hard_link(built, &program)
        .or_else(|_| fs::copy(built, &program).map(drop))
        .unwrap();
    let mut command = Command::new(&program);
    command.arg("--config").arg(&site.config).args(arguments);
    command.uid(SERVICE).gid(SERVICE);
    let ended = command.output().unwrap().into();
    fs::remove_file(program).unwrap();
    ended
}

#[test]
fn a_certificate_made_by_root_belongs_to_the_services_user() {
    let site = installed();
    fs::remove_dir_all(site.path("certs")).unwrap();
    let made = site.run(&["certs", "self-signed"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    for (name, mode) in [
        ("certs", 0o755),
        ("certs/fullchain.pem", 0o644),
        ("certs/privkey.pem", 0o600),
    ] {
        let metadata = fs::metadata(site.path(name)).unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid()),
            (SERVICE, SERVICE),
            "{name}"
        );
        assert_eq!(metadata.mode() & mode, mode, "{name}");
    }
}

/// Root can read everything, so what root sees says nothing about the service.
#[test]
fn a_check_by_root_judges_for_the_services_user() {
    let site = installed();
    let check = || site.run(&["check"]);
    let ended = check();
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    assert!(
        ended
            .stdout
            .contains("privkey.pem: the private key cannot be read (Permission denied"),
        "{}",
        ended.stdout
    );
    give(&site.path("certs/privkey.pem"));
    let ended = check();
    assert_eq!(ended.code, 0, "{}", ended.stdout);
}

#[test]
fn what_the_services_user_may_not_read_or_write_refuses_the_start() {
    type Spoil = fn(&Site);
    let cases: [(&str, Spoil, &str); 4] = [
        (
            "key",
            |_| (),
            "certs/privkey.pem: the private key cannot be read (Permission denied",
        ),
        (
            "certificate",
            |site| {
                give(&site.path("certs/privkey.pem"));
                fs::set_permissions(
                    site.path("certs/fullchain.pem"),
                    fs::Permissions::from_mode(0o0),
                )
                .unwrap();
            },
            "certs/fullchain.pem: the certificate cannot be read (Permission denied",
        ),
        (
            "data directory",
            |site| {
                give(&site.path("certs/privkey.pem"));
                chown(site.path("data"), Some(0), Some(0)).unwrap();
            },
            "make the directory writable for this user",
        ),
        (
            "configuration",
            |site| fs::set_permissions(&site.config, fs::Permissions::from_mode(0o0)).unwrap(),
            "make it readable for this user",
        ),
    ];
    for (name, spoil, words) in cases {
        let site = installed();
        // What the start may have made before it was refused is the service's.
        chown(site.directory.path(), Some(SERVICE), None).unwrap();
        spoil(&site);
        let ended = as_service(&site, &["serve"]);
        assert_eq!(ended.code, 2, "{name}: {}", ended.stderr);
        let last = ended.stderr.lines().last().unwrap_or_default();
        assert!(last.contains(words), "{name}: {last}");
    }
}

/// An index made by root would lock the service out.
#[test]
fn an_index_is_made_by_the_services_user_alone() {
    let site = Site::new(TENANT);
    let service = site.serve();
    imported(&site);
    assert!(service.stop().success());
    give(&site.path("data"));
    let refused = site.run(&["store", "reindex"]);
    assert_eq!(refused.code, 2, "{}", refused.stdout);
    assert!(
        refused.stderr.contains("clawback store reindex"),
        "{}",
        refused.stderr
    );
    chown(site.path("data"), Some(0), Some(0)).unwrap();
    assert_eq!(site.run(&["store", "reindex"]).code, 0);
}

/// One bad file does not cost the others, and is told apart from a service that is gone.
#[test]
fn a_file_that_cannot_be_imported_is_named() {
    let site = Site::new(TENANT);
    let service = site.serve();
    let folder = site.path("folder");
    fs::create_dir(&folder).unwrap();
    fs::copy(sample("01_inbound.eml"), folder.join("1.eml")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", folder.join("2.eml")).unwrap();
    fs::copy(sample("06_ordinary_mail.eml"), folder.join("3.eml")).unwrap();
    let folder = folder.to_str().unwrap();
    let ended = service.run(&["--json", "--tenant", "northwind", "import", folder]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("2.eml: No such file"),
        "{}",
        ended.stderr
    );
    let counts = &ended.documents()[0];
    assert_eq!(
        (&counts["read"], &counts["proven"]),
        (&2.into(), &1.into()),
        "{counts}"
    );
}
