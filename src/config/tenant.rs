//! `[[tenant]]`: whose reports are taken, and how its mailboxes are reached.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::{Host, Url};

use super::reader::{Choice, Section};
use super::secret::{Secret, SecretError, located};
use super::value::{Peer, Wrong, is_host_name};
use crate::journal::{Belief, Expected, Origin, Outer, belief};
use crate::mail::{Address, TenantName};

/// One tenant of Exchange Online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Names it in commands and records.
    pub name: TenantName,
    /// Directory (tenant) id, a lower-case GUID.
    pub tenant_id: String,
    /// Accepted domains, lower case. They limit the stamps that are believed and the mailboxes that
    /// jobs act on. Empty: the tenant id of the stamps decides alone.
    pub domains: Vec<String>,
    /// Which of Microsoft's clouds it is in.
    pub cloud: Cloud,
    /// Application (client) id of the app registration.
    pub client_id: Option<String>,
    /// What the application proves itself with; without it nothing can be retracted.
    pub credential: Option<Credential>,
    /// Who may hand over its reports.
    pub peers: Vec<Peer>,
    /// The unguessable addresses that its reports come to.
    pub journal: Vec<Journal>,
    /// What kind of Exchange writes the reports.
    pub origin: Origin,
    /// Microsoft Graph, up to and with the version; overrides the cloud's.
    pub graph_url: Option<Url>,
    /// The token service; overrides the cloud's.
    pub login_url: Option<Url>,
    /// Certificate authorities for those two, PEM.
    pub ca_file: Option<PathBuf>,
}

/// A journal address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// The forward-path that is accepted.
    pub address: Address,
    /// The region that its reports stay in; always `None` in this version.
    pub region: Option<String>,
}

/// What the application proves itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A client secret, in this file.
    Secret(PathBuf),
    /// A certificate and its private key, in these files.
    Certificate {
        /// PEM.
        certificate: PathBuf,
        /// PEM.
        key: PathBuf,
    },
}

/// Microsoft's clouds (national clouds have endpoints of their own).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Worldwide, and US government GCC.
    Global,
    /// US government L4.
    GccHigh,
    /// US government L5.
    Dod,
    /// Operated by 21Vianet.
    China,
}

impl Choice for Cloud {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("global", Self::Global),
        ("gcc-high", Self::GccHigh),
        ("dod", Self::Dod),
        ("china", Self::China),
    ];
}

impl Choice for Origin {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("exchange-online", Self::ExchangeOnline),
        ("exchange-server", Self::ExchangeServer),
    ];
}

/// `tenant.auth`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Auth {
    Application,
    Delegated,
}

impl Choice for Auth {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("application", Self::Application),
        ("delegated", Self::Delegated),
    ];
}

impl Tenant {
    /// Why an outer header does not prove that this tenant sent the report; `None` if it does. Journal
    /// address and peer are for the caller to check.
    pub fn doubt(&self, outer: &Outer) -> Option<String> {
        let expected = Expected {
            tenant_id: Some(&self.tenant_id),
            domains: &self.domains,
            origin: self.origin,
        };
        match belief(outer, &expected) {
            Belief::Proven => None,
            Belief::Unproven(reason) => Some(reason),
        }
    }

    /// Whether a connection from `peer`, with the names of its verified client certificate, may hand over
    /// this tenant's reports.
    pub fn admits(&self, peer: IpAddr, certificate_names: &[String]) -> bool {
        let mut peers = self.peers.iter();
        peers.any(|listed| listed.admits(peer, certificate_names))
    }

    /// The client secret, if that is the credential.
    ///
    /// # Errors
    ///
    /// [`SecretError`]: its file cannot be used.
    pub fn client_secret(&self) -> Result<Option<Secret>, SecretError> {
        match &self.credential {
            Some(Credential::Secret(path)) => Secret::read(path).map(Some),
            _ => Ok(None),
        }
    }
}

/// Every `[[tenant]]` of the file.
pub(super) fn read_all(top: &mut Section<'_, '_>) -> Vec<Tenant> {
    let Some(value) = top.value("tenant") else {
        return Vec::new();
    };
    let tables: Vec<&Spanned<DeValue<'_>>> = match value.as_ref() {
        DeValue::Array(values) => values.iter().collect(),
        _ => Vec::new(),
    };
    if tables.is_empty() || tables.iter().any(|table| !table.as_ref().is_table()) {
        let wrong = Wrong::new(
            "tenant is no list of tables",
            "write [[tenant]] above each tenant's keys",
        );
        top.reader.problem(value.span(), wrong);
        return Vec::new();
    }
    let mut taken = Taken::default();
    tables
        .into_iter()
        .filter_map(|value| Some((value.as_ref().as_table()?, value.span())))
        .filter_map(|(table, at)| read_one(top.reader.section("tenant", table, at), &mut taken))
        .collect()
}

/// What earlier tenants of the file have, and no second one may.
#[derive(Default)]
struct Taken {
    names: HashMap<String, ()>,
    /// Folded journal address → tenant.
    addresses: HashMap<String, String>,
}

fn read_one(mut section: Section<'_, '_>, taken: &mut Taken) -> Option<Tenant> {
    let name = name(&mut section, taken);
    section.rename(&format!("tenant.{}", name.as_deref().unwrap_or("?")));
    let label = name.clone().unwrap_or_else(|| "(without a name)".into());
    let tenant_id = tenant_id(&mut section);
    let mut domains: Vec<String> = section.take("domains").unwrap_or_default();
    for domain in &mut domains {
        domain.make_ascii_lowercase();
        match idna::domain_to_ascii(domain) {
            Ok(ascii) if is_host_name(&ascii) => *domain = ascii,
            _ => section.problem(
                "domains",
                format_args!("{domain:?} is no domain"),
                "write accepted domains such as \"contoso.com\"",
            ),
        }
    }
    let cloud = section.take("cloud").unwrap_or(Cloud::Global);
    let mut client_id: Option<String> = None;
    section.read_some("client_id", &mut client_id);
    let credential = credential(&mut section);
    let peers = section
        .take("peers")
        .unwrap_or_else(|| vec![Peer::ExchangeOnline]);
    if peers.is_empty() {
        section.warning(
            "peers",
            "is empty: every report of this tenant is unproven",
            "write [\"exchange-online\"]",
        );
    }
    let journal = journal(&mut section, &label, taken);
    let origin = section.take("origin").unwrap_or(Origin::ExchangeOnline);
    let graph_url = endpoint(&mut section, "graph_url");
    let login_url = endpoint(&mut section, "login_url");
    let ca_file = section.take("ca_file");
    refuse_what_is_later(&mut section);
    if client_id.is_some() != credential.is_some() {
        section.warning(
            if client_id.is_some() {
                "client_id"
            } else {
                "client_secret_file"
            },
            "stands alone: client_id and a credential belong together",
            "give both, or nothing can be retracted for this tenant",
        );
    }
    section.finish();
    Some(Tenant {
        name: TenantName::new(&name?),
        tenant_id: tenant_id?,
        domains,
        cloud,
        client_id,
        credential,
        peers,
        journal,
        origin,
        graph_url,
        login_url,
        ca_file,
    })
}

fn name(section: &mut Section<'_, '_>, taken: &mut Taken) -> Option<String> {
    let given = section.value("name").is_some();
    let Some(name) = section.take::<String>("name") else {
        if !given {
            section.problem("name", "is missing", "give each [[tenant]] a name");
        }
        return None;
    };
    let plain = name.len() <= 64
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    if !plain || name.starts_with(['.', '-']) {
        let what = format!("{name:?} is no tenant name");
        section.problem(
            "name",
            what,
            "use letters, digits, \"-\", \"_\" and \".\", 64 at most",
        );
        return None;
    }
    if taken.names.insert(name.clone(), ()).is_some() {
        section.problem(
            "name",
            format_args!("two tenants are named {name:?}"),
            "rename one",
        );
    }
    Some(name)
}

fn tenant_id(section: &mut Section<'_, '_>) -> Option<String> {
    const MEND: &str = "write the directory (tenant) id from the Entra admin centre, a GUID";
    let given = section.value("tenant_id").is_some();
    let Some(id) = section.take::<String>("tenant_id") else {
        if !given {
            section.problem("tenant_id", "is missing", MEND);
        }
        return None;
    };
    if let Ok(id) = uuid::Uuid::try_parse(&id) {
        Some(id.hyphenated().to_string())
    } else {
        section.problem("tenant_id", format_args!("{id:?} is no GUID"), MEND);
        None
    }
}

fn credential(section: &mut Section<'_, '_>) -> Option<Credential> {
    let secret: Option<PathBuf> = section.take("client_secret_file");
    let certificate: Option<PathBuf> = section.take("client_certificate_file");
    let key: Option<PathBuf> = section.take("client_key_file");
    if certificate.is_some() {
        section.not_yet("client_certificate_file");
    }
    match (secret, certificate, key) {
        (Some(secret), None, None) => Some(Credential::Secret(located(&secret))),
        (None, Some(certificate), Some(key)) => Some(Credential::Certificate {
            certificate: located(&certificate),
            key: located(&key),
        }),
        (None, None, None) => None,
        (Some(_), _, _) => {
            let what = "a client secret and a certificate are both given";
            section.problem(
                "client_secret_file",
                what,
                "keep the certificate, or the secret",
            );
            None
        }
        (None, _, _) => {
            let what = "client_certificate_file and client_key_file belong together";
            section.problem("client_certificate_file", what, "give both");
            None
        }
    }
}

/// `journal_address` and `[[tenant.journal]]`.
fn journal(section: &mut Section<'_, '_>, tenant: &str, taken: &mut Taken) -> Vec<Journal> {
    let mut journal = Vec::new();
    let short: Vec<Address> = section.take("journal_address").unwrap_or_default();
    let at = section.span("journal_address");
    for address in short {
        journal_address(section, at.clone(), &address, tenant, taken);
        journal.push(Journal {
            address,
            region: None,
        });
    }
    if let Some(value) = section.value("journal") {
        let tables: Vec<&DeTable<'_>> = value
            .as_ref()
            .as_array()
            .map(|values| {
                values
                    .iter()
                    .filter_map(|v| v.as_ref().as_table())
                    .collect()
            })
            .unwrap_or_default();
        if tables.is_empty() {
            let wrong = Wrong::new(
                "tenant.journal is no list of tables",
                "write [[tenant.journal]]",
            );
            section.reader.problem(value.span(), wrong);
        }
        for table in tables {
            let inner = section
                .reader
                .section("tenant.journal", table, value.span());
            journal.extend(long_form(inner, tenant, taken));
        }
    }
    if journal.is_empty() {
        section.reader.warning(
            section.span("name"),
            Wrong::new(
                format!("tenant {tenant:?} has no journal_address, so no report of it is accepted"),
                "give it an unguessable address at smtp.hostname",
            ),
        );
    }
    journal
}

fn long_form(mut section: Section<'_, '_>, tenant: &str, taken: &mut Taken) -> Option<Journal> {
    let given = section.value("address").is_some();
    let address: Option<Address> = section.take("address");
    if !given {
        section.problem(
            "address",
            "is missing",
            "write the address that its reports come to",
        );
    }
    if section.value("region").is_some() {
        section.not_yet("region");
    }
    if let Some(address) = &address {
        let at = section.span("address");
        journal_address(&mut section, at, address, tenant, taken);
    }
    section.finish();
    address.map(|address| Journal {
        address,
        region: None,
    })
}

/// Characters of a local part that can hold 96 bits: letters and digits in one case have five each.
const UNGUESSABLE: usize = 20;

/// Notes an address, and tells what is wrong with it: whoever knows it can send reports.
fn journal_address(
    section: &mut Section<'_, '_>,
    at: Range<usize>,
    address: &Address,
    tenant: &str,
    taken: &mut Taken,
) {
    if let Some(wrong) = claim(address, tenant, taken) {
        section.reader.problem(at.clone(), wrong);
    }
    if address.local_part().chars().count() < UNGUESSABLE {
        let what = format!(
            "tenant.journal_address: {address} can be guessed, and whoever knows it can send what \
             looks like reports"
        );
        let mend = format!(
            "give it {UNGUESSABLE} or more random letters and digits before the \"@\" (\"openssl rand -hex \
             16\" makes some)"
        );
        section.reader.warning(at, Wrong::new(what, mend));
    }
}

/// Notes whose address it is; what is wrong if another tenant, or the same, has it already.
fn claim(address: &Address, tenant: &str, taken: &mut Taken) -> Option<Wrong> {
    let owner = taken
        .addresses
        .insert(address.folded(), tenant.to_owned())?;
    Some(if owner == tenant {
        Wrong::new(
            format!("tenant.journal_address: {address} is given twice"),
            "remove one",
        )
    } else {
        Wrong::new(
            format!(
                "tenant.journal_address: {address} belongs to the tenants {owner:?} and {tenant:?}"
            ),
            "give each tenant an address of its own, as it tells whose report it is",
        )
    })
}

/// A URL of a service: HTTPS, or HTTP on loopback; no closing slash.
fn endpoint(section: &mut Section<'_, '_>, key: &'static str) -> Option<Url> {
    let mut url: Url = section.take(key)?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" if url.host().is_some() => {}
        "http" if loopback => {}
        _ => {
            section.problem(
                key,
                format_args!("{url} is not HTTPS"),
                "use https (http is for loopback alone)",
            );
            return None;
        }
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Some(url)
}

/// Keys of `[[tenant]]` that a later version brings.
fn refuse_what_is_later(section: &mut Section<'_, '_>) {
    if section.take("auth") == Some(Auth::Delegated) {
        section.not_yet("auth");
    }
    for key in [
        "redirect_url",
        "directory_client_id",
        "directory_client_secret_file",
        "directory_client_certificate_file",
        "directory_client_key_file",
    ] {
        if section.value(key).is_some() {
            section.not_yet(key);
        }
    }
}
