//! Secrets that systemd hands to the service alone: what the unit says of them.

use std::fs;
use std::path::{Path, PathBuf};

/// Where units are, the first ones over the later ones.
const UNITS: [&str; 3] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
];

/// The unit file that hands over a credential of this file's name. Its content is for the service
/// alone to see.
pub(super) fn unit_of(secret: &Path) -> Option<PathBuf> {
    let name = secret.file_name()?.to_str()?;
    UNITS
        .iter()
        .find_map(|units| unit_in(Path::new(units), name))
}

fn unit_in(units: &Path, name: &str) -> Option<PathBuf> {
    let mut files = vec![units.join("clawback.service")];
    let drop_ins = fs::read_dir(units.join("clawback.service.d"));
    files.extend(
        drop_ins
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    files.into_iter().find(|file| {
        fs::read_to_string(file).is_ok_and(|unit| unit.lines().any(|line| hands_over(line, name)))
    })
}

/// Whether a line of a unit makes a credential of this name (systemd.exec(5), "Credentials").
fn hands_over(line: &str, name: &str) -> bool {
    let Some((key, value)) = line.split_once('=') else {
        return false;
    };
    let id = value.split(':').next().unwrap_or_default();
    matches!(
        key.trim(),
        "LoadCredential" | "LoadCredentialEncrypted" | "SetCredential" | "SetCredentialEncrypted"
    ) && id.trim() == name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_those_of_the_unit_and_its_drop_ins() {
        let units = tempfile::tempdir().unwrap();
        let drop_ins = units.path().join("clawback.service.d");
        fs::create_dir(&drop_ins).unwrap();
        let unit = units.path().join("clawback.service");
        fs::write(
            &unit,
            "[Service]\nLoadCredential=a.secret:/x/a\n#LoadCredential=c.secret:/x/c\n",
        )
        .unwrap();
        let drop_in = drop_ins.join("secret.conf");
        fs::write(
            &drop_in,
            "[Service]\nLoadCredentialEncrypted = b.secret:/x/b\n",
        )
        .unwrap();
        for (name, expected) in [
            ("a.secret", Some(unit)),
            ("b.secret", Some(drop_in)),
            ("c.secret", None),
            ("a", None),
        ] {
            assert_eq!(unit_in(units.path(), name), expected, "{name}");
        }
    }
}
