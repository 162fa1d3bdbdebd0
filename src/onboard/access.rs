//! Files that hold secrets: are they there, and who can read them?

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Finding, Level, credential};
use crate::config::{Config, Credential, Secret};

const SUBJECT: &str = "secrets";

/// Bits that let others than the owner and the group's readers in.
const TOO_OPEN: u32 = 0o027;

pub(super) fn check(config: &Config, findings: &mut Vec<Finding>) {
    let before = findings.len();
    let mut looked = 0;
    for tenant in &config.tenants {
        let key = |key: &str| format!("tenant.{}.{key}", tenant.name);
        match &tenant.credential {
            None => {
                let what = format!(
                    "tenant {} has no credential, so nothing can be retracted for it",
                    tenant.name
                );
                findings.push(Finding::new(
                    SUBJECT,
                    Level::Warn,
                    what,
                    "give it client_id and client_secret_file",
                ));
            }
            Some(Credential::Secret(path)) => {
                looked += 1;
                if handed_over(path, findings) {
                    continue;
                }
                if let Err(error) = Secret::read(path) {
                    let (what, mend) = Finding::split(&error.to_string());
                    let problem = config.problem(&key("client_secret_file"), what, mend);
                    findings.push(Finding::of_problem(SUBJECT, Level::Fail, problem));
                }
            }
            Some(Credential::Certificate {
                certificate,
                key: private,
            }) => {
                looked += 1;
                for (name, path) in [
                    ("client_certificate_file", certificate),
                    ("client_key_file", private),
                ] {
                    if let Err(error) = fs::File::open(path) {
                        let what = format!("{}: {error}", path.display());
                        let problem = config.problem(
                            &key(name),
                            what,
                            "put it there, readable for the service",
                        );
                        findings.push(Finding::of_problem(SUBJECT, Level::Fail, problem));
                    }
                }
            }
        }
    }
    open_modes(config, findings);
    if findings.len() == before {
        findings.push(Finding::ok(
            SUBJECT,
            format!("{looked} credentials, readable for the service alone"),
        ));
    }
}

/// Whether systemd gives the service what is not here; then nobody else can look into it.
pub(super) fn handed_over(path: &Path, findings: &mut Vec<Finding>) -> bool {
    let unit = if path.exists() {
        None
    } else {
        credential::unit_of(path)
    };
    if let Some(unit) = &unit {
        let name = path.file_name().unwrap_or_default().display();
        let found = format!(
            "{name}: a credential by {}, for the service alone",
            unit.display()
        );
        findings.push(Finding::ok(SUBJECT, found));
    }
    unit.is_some()
}

/// The certificate authorities to trust: without them Graph is not reached.
pub(super) fn authorities(config: &Config, findings: &mut Vec<Finding>) {
    let tenants = config.tenants.iter().filter_map(|tenant| {
        let key = format!("tenant.{}.ca_file", tenant.name);
        Some((key, tenant.ca_file.as_ref()?))
    });
    let network = config.network.ca_file.as_ref();
    let network = network.map(|path| ("network.ca_file".to_owned(), path));
    for (key, path) in tenants.chain(network) {
        let what = match fs::read_to_string(path) {
            Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => continue,
            Ok(_) => format!("{} holds no certificate", path.display()),
            Err(error) => format!("{}: {error}", path.display()),
        };
        let mend = "put the authorities' certificates there (PEM), or remove the line";
        let problem = config.problem(&key, what, mend);
        findings.push(Finding::of_problem("network", Level::Fail, problem));
    }
}

/// Warns of every file with a secret that too many can read.
pub(super) fn open_modes(config: &Config, findings: &mut Vec<Finding>) {
    for tenant in &config.tenants {
        let (key, path) = match &tenant.credential {
            Some(Credential::Secret(path)) => ("client_secret_file", path),
            Some(Credential::Certificate { key, .. }) => ("client_key_file", key),
            None => continue,
        };
        mode(
            config,
            &format!("tenant.{}.{key}", tenant.name),
            path,
            findings,
        );
    }
    mode(
        config,
        "smtp.private_key",
        &config.smtp.private_key,
        findings,
    );
    mode(config, "store.key_file", &config.store.key_file, findings);
}

/// Warns of a file that too many can read or write. One that is not there is not our business here.
fn mode(config: &Config, key: &str, path: &Path, findings: &mut Vec<Finding>) {
    let Ok(metadata) = fs::metadata(path) else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & TOO_OPEN != 0 {
        let what = format!("{} has mode {mode:04o}, open to others", path.display());
        let mend = format!("chmod 0600 {}", path.display());
        findings.push(Finding::of_problem(
            SUBJECT,
            Level::Warn,
            config.problem(key, what, mend),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_modes_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "x").unwrap();
        for (bits, told) in [
            (0o600, 0),
            (0o640, 0),
            (0o400, 0),
            (0o644, 1),
            (0o660, 1),
            (0o602, 1),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
            let mut findings = Vec::new();
            mode(&Config::default(), "store.key_file", &path, &mut findings);
            assert_eq!(findings.len(), told, "{bits:o}");
        }
    }
}
