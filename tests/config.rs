//! The configuration file: every key, every refusal with line, column and mend.

use std::path::Path;

use clawback::config::{Config, Credential, Peer, Tls};

const ANNOTATED: &str = include_str!("../packaging/clawback.toml");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/clawback/clawback.toml")).map_err(|error| error.to_string())
}

/// A tenant that has everything, at the top of a file of its own.
const TENANT: &str = r#"[[tenant]]
name = "contoso"
tenant_id = "8B1B0AE4-2B1D-4D2E-9A3C-1C2B3A4D5E6F"
domains = ["Contoso.com", "bücher.example"]
client_id = "app"
client_secret_file = "contoso.secret"
peers = ["exchange-online", "192.0.2.0/24"]
journal_address = ["k3v9w2m8q7x4t6r1p5z0@journal.example.com"]
"#;

#[test]
fn the_annotated_file_is_the_default() {
    let annotated = parse(ANNOTATED).unwrap();
    let default = Config::default();
    assert_eq!(annotated.smtp, default.smtp);
    assert_eq!(annotated.store, default.store);
    assert_eq!(annotated.admin, default.admin);
    assert_eq!(annotated.retraction, default.retraction);
    assert_eq!(annotated.auto_retraction, default.auto_retraction);
    assert_eq!(annotated.network, default.network);
    assert_eq!(annotated.tenants, default.tenants);
    assert_eq!(annotated.warnings, [], "a default is nothing to warn of");
}

/// Every key has a line of its own, given or commented out, in its section.
#[test]
fn the_annotated_file_shows_every_key() {
    let keys = Config::known_keys();
    assert!(keys.len() > 50, "{keys:?}");
    for key in keys {
        let (section, name) = key.rsplit_once('.').unwrap();
        let header = [format!("[{section}]"), format!("# [[{section}]]")];
        let mut lines = ANNOTATED
            .lines()
            .skip_while(|line| !header.iter().any(|header| line.starts_with(header)))
            .skip(1)
            .take_while(|line| !line.starts_with('[') && !line.starts_with("# [["));
        let shown = lines.any(|line| {
            let line = line.strip_prefix("# ").unwrap_or(line);
            line.starts_with(&format!("{name} ="))
        });
        assert!(shown || key == "tenant.journal", "{key} is not shown");
    }
}

#[test]
fn values_are_read() {
    let text = format!("[smtp]\ntls = \"optional\"\nlisten = [\"127.0.0.1:0\"]\n{TENANT}");
    let config = parse(&text).unwrap();
    assert_eq!(config.smtp.tls, Tls::Optional);
    let tenant = config.tenant("contoso").unwrap();
    assert_eq!(tenant.tenant_id, "8b1b0ae4-2b1d-4d2e-9a3c-1c2b3a4d5e6f");
    assert_eq!(tenant.domains, ["contoso.com", "xn--bcher-kva.example"]);
    let secret = Credential::Secret("/etc/clawback/contoso.secret".into());
    assert_eq!(tenant.credential, Some(secret), "beside the file");
    assert_eq!(tenant.peers[0], Peer::ExchangeOnline);
    assert_eq!(
        tenant.journal[0].address.as_str(),
        "k3v9w2m8q7x4t6r1p5z0@journal.example.com"
    );
    assert_eq!(config.position("smtp.listen"), Some((3, 10)));
    assert_eq!(config.position("tenant.contoso.peers"), Some((10, 9)));
    assert_eq!(config.position("smtp.hostname"), None);
}

#[test]
fn refusals_say_where_what_and_what_to_do() {
    for (name, text, expected) in [
        (
            "unknown key",
            "[smtp]\nlisten = [\"[::]:25\"]\nmax_mesage = \"1 GiB\"\n",
            ":3:1: unknown key \"max_mesage\" in [smtp]; did you mean \"max_message\"?",
        ),
        (
            "unknown key, nothing near",
            "[network]\nflux_capacitor = 1\n",
            ":2:1: unknown key \"flux_capacitor\" in [network]; the keys here are proxy, ca_file",
        ),
        (
            "unknown section",
            "[stor]\npath = \"/x\"\n",
            ":1:2: unknown key \"stor\"; did you mean \"store\"?",
        ),
        (
            "syntax",
            "[smtp]\nlisten = [\"[::]:25\"\nhostname = \"a\"\n",
            ":3:",
        ),
        (
            "given twice",
            "[smtp]\nmax_errors = 1\nmax_errors = 2\n",
            ":3:1: duplicate key",
        ),
        (
            "size",
            "[smtp]\nmax_message = \"12 parsecs\"\n",
            ":2:15: smtp.max_message: \"12 parsecs\" is no size; write a whole number and a unit, such as \"200 MiB\"",
        ),
        (
            "duration",
            "[smtp]\nidle_timeout = 300\n",
            ":2:16: smtp.idle_timeout: 300 is no duration; write a whole number and a unit",
        ),
        (
            "zero",
            "[smtp]\nmax_connections = 0\n",
            ":2:19: smtp.max_connections: 0 is no whole number above 0",
        ),
        (
            "no size",
            "[smtp]\nmax_memory = \"0 B\"\n",
            ":2:14: smtp.max_memory: \"0 B\" is no size above 0; write",
        ),
        (
            "no time",
            "[store]\nretention = \"0 s\"\n",
            ":2:13: store.retention: \"0 s\" is no duration above 0; write",
        ),
        (
            "no journal address",
            &format!("{TENANT}[[tenant.journal]]\n"),
            "tenant.journal.address: is missing; write the address",
        ),
        (
            "choice",
            "[smtp]\ntls = \"requird\"\n",
            ":2:7: smtp.tls: \"requird\" is not known; write one of \"required\", \"optional\"",
        ),
        (
            "address",
            "[smtp]\nlisten = [\"[::]:25\", \"25\"]\n",
            ":2:22: smtp.listen: \"25\" is no socket address; write an IP address and a port",
        ),
        (
            "CIDR",
            &TENANT.replace("192.0.2.0/24", "192.0.2.0/33"),
            ":7:29: tenant.peers: \"192.0.2.0/33\" is no peer: the prefix length \"33\" is not 0 to 32; write a network",
        ),
        (
            "tenant id",
            &TENANT.replace("8B1B0AE4", "contoso"),
            ":3:13: tenant.tenant_id: \"contoso-2B1D-4D2E-9A3C-1C2B3A4D5E6F\" is no GUID; write the directory",
        ),
        (
            "no name",
            "[[tenant]]\ntenant_id = \"8B1B0AE4-2B1D-4D2E-9A3C-1C2B3A4D5E6F\"\n",
            ":1:1: tenant.name: is missing; give each [[tenant]] a name",
        ),
        (
            "one address, two tenants",
            &format!(
                "{TENANT}{}",
                TENANT
                    .replace("\"contoso\"", "\"fabrikam\"")
                    .replace("k3v9w2m8q7x4t6r1p5z0@j", "K3V9W2M8Q7X4T6R1P5Z0@J")
            ),
            ":16:19: tenant.journal_address: K3V9W2M8Q7X4T6R1P5Z0@Journal.example.com belongs to the tenants \"contoso\" and \"fabrikam\"; give each tenant an address of its own",
        ),
        (
            "one name, two tenants",
            &format!("{TENANT}{}", TENANT.replace("k3v9", "other")),
            ":10:8: tenant.name: two tenants are named \"contoso\"; rename one",
        ),
        (
            "plain HTTP",
            &format!("{TENANT}graph_url = \"http://graph.example/v1.0\"\n"),
            "tenant.graph_url: http://graph.example/v1.0 is not HTTPS; use https",
        ),
        (
            "later: postgres",
            "[store]\nbackend = \"postgres\"\n",
            ":2:11: store.backend: is not available in this version; remove the line",
        ),
        (
            "later: region",
            &format!("{TENANT}[[tenant.journal]]\naddress = \"b@x\"\nregion = \"eu\"\n"),
            ":11:10: tenant.journal.region: is not available in this version",
        ),
        (
            "later: delegated",
            &format!("{TENANT}auth = \"delegated\"\n"),
            "tenant.auth: is not available in this version",
        ),
        (
            "later: directory application",
            &format!("{TENANT}directory_client_id = \"b\"\n"),
            "tenant.directory_client_id: is not available in this version",
        ),
        (
            "later: automatic retraction",
            "[auto_retraction]\nmalicious = \"trash\"\n",
            ":2:13: auto_retraction.malicious: is not available in this version",
        ),
    ] {
        let error = parse(text).expect_err(name);
        let expected = if expected.starts_with(':') {
            format!("/etc/clawback/clawback.toml{expected}")
        } else {
            expected.to_owned()
        };
        assert!(error.contains(&expected), "{name}: {error}");
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let error = parse("[smtp]\ntls = 1\nx = 2\n[admin]\nviewers = \"a\"\n").unwrap_err();
    let lines: Vec<&str> = error
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .collect();
    assert_eq!(lines, ["2", "3", "5"], "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nonexistent/clawback.toml")).unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("/nonexistent/clawback.toml: "), "{error}");
    assert!(error.contains("--config"), "{error}");
}

#[test]
fn a_guessable_journal_address_is_a_warning() {
    for (address, expected) in [
        ("k3v9w2m8q7x4t6r1p5z@journal.example.com", 1),
        ("k3v9w2m8q7x4t6r1p5z0@journal.example.com", 0),
    ] {
        let text = TENANT.replace("k3v9w2m8q7x4t6r1p5z0@journal.example.com", address);
        let warnings = parse(&text).unwrap().warnings;
        assert_eq!(warnings.len(), expected, "{address}: {warnings:?}");
        for warning in warnings {
            let text = warning.to_string();
            let place = "clawback.toml:8:19: tenant.journal_address: ";
            assert!(text.contains(place) && text.contains("guessed"), "{text}");
        }
    }
}

#[test]
fn low_limits_are_warnings() {
    let text = format!("[smtp]\nmax_message = \"100 MiB\"\nmax_recipients = 50\n{TENANT}");
    let warnings = parse(&text).unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    let text = warnings[0].to_string();
    assert!(
        text.contains("clawback.toml:2:15: smtp.max_message is 100 MiB"),
        "{text}"
    );
    assert!(text.contains("raise it to \"200 MiB\""), "{text}");
}
