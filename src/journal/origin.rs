//! Where a report comes from: what the outer header says, and whether that names the tenant.
//!
//! Exchange Online's addresses and certificate are shared by all tenants, so the source of a report
//! proves little. What Exchange stamps on the outer header names the tenant; nothing inside the
//! journaled message does, since its sender wrote that.

use super::charset::utf8_or_windows_1252;
use super::header::{Field, fields};
use super::report::Outer;
use crate::mail::{Address, MessageId};

/// Most stamps of a kind that are kept; a report has one.
const STAMPS: usize = 16;
/// Longest stamp that is kept whole, in octets. A domain name has at most 255.
const STAMP_OCTETS: usize = 255;
/// Stands for what is not kept of the stamps, so that it names nobody: no domain and no tenant id has it.
const UNREAD: &str = "…";

/// How a tenant's reports come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// From Exchange Online, which stamps what it sends.
    #[default]
    ExchangeOnline,
    /// From Exchange Server, which does not.
    ExchangeServer,
}

/// What the stamps of a tenant's reports must say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The tenant's id, a GUID; compared without regard to case.
    pub tenant_id: Option<&'a str>,
    /// The tenant's domains; if empty, the tenant id alone decides.
    pub domains: &'a [String],
    /// Where the reports come from.
    pub origin: Origin,
}

/// Whether the outer header proves that the tenant sent the report. The journal address and the peer
/// are for the caller to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Belief {
    /// At least one stamp names the tenant and none names another (for Exchange Server: none names another).
    Proven,
    /// Anything else, and why, for people.
    Unproven(String),
}

/// Judges the stamps of an outer header.
pub fn belief(outer: &Outer, expected: &Expected<'_>) -> Belief {
    let mut named = false;
    if !expected.domains.is_empty() {
        for stamp in &outer.originator_org {
            let is = |domain: &String| same_domain(domain, stamp);
            if !expected.domains.iter().any(is) {
                return Belief::Unproven(format!(
                    "X-OriginatorOrg names {stamp:?}, which is not a domain of the tenant"
                ));
            }
            named = true;
        }
    }
    if let Some(tenant_id) = expected.tenant_id {
        for stamp in &outer.tenant_ids {
            if !stamp.eq_ignore_ascii_case(tenant_id) {
                return Belief::Unproven(format!("a stamp names the tenant {stamp:?}"));
            }
            named = true;
        }
    }
    if named || expected.origin == Origin::ExchangeServer {
        Belief::Proven
    } else {
        Belief::Unproven("no stamp on the outer header names the tenant".into())
    }
}

fn same_domain(domain: &str, stamp: &str) -> bool {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    domain.to_lowercase() == stamp.strip_suffix('.').unwrap_or(stamp)
}

/// Whether a message that is no report is the mail by which Exchange Online validates a connector:
/// its reverse-path or its From is `O365ConnectorValidation@…`. That the peer is listed and the
/// recipient right is for the caller to check.
pub fn is_connector_validation(outer: &Outer, reverse_path: Option<&str>) -> bool {
    [reverse_path, outer.from.as_deref()]
        .into_iter()
        .flatten()
        .filter_map(|path| path.trim_matches(['<', '>', ' ']).parse::<Address>().ok())
        .any(|address| {
            address
                .local_part()
                .eq_ignore_ascii_case("O365ConnectorValidation")
        })
}

/// The facts of an outer header block that count, and whether it marks a journal report.
pub(super) fn outer(block: &[u8]) -> (Outer, bool) {
    let (mut outer, mut marked) = (Outer::default(), false);
    for field in fields(block) {
        if field.is("X-MS-Journal-Report") {
            marked = true;
        } else if field.is("Message-ID") {
            first(&mut outer.message_id, || message_id(field));
        } else if field.is("X-MS-Exchange-Parent-Message-Id") {
            first(&mut outer.parent_message_id, || message_id(field));
        } else if field.is("X-OriginatorOrg") {
            stamp(&mut outer.originator_org, &field.unfolded());
        } else if field.is("X-LD-Processed") {
            let value = field.unfolded();
            let id = value.split(|&octet| octet == b',').next();
            stamp(&mut outer.tenant_ids, id.unwrap_or_default());
        } else if field.is("X-MS-Exchange-CrossTenant-Id") {
            stamp(&mut outer.tenant_ids, &field.unfolded());
        } else if field.is("From") {
            first(&mut outer.from, || from(field).map(|from| from.to_string()));
        } else if field.is("Subject") {
            first(&mut outer.subject, || Some(field.text()));
        }
    }
    (outer, marked)
}

fn first<T>(place: &mut Option<T>, value: impl FnOnce() -> Option<T>) {
    if place.is_none() {
        *place = value();
    }
}

/// The Message-ID of a field, unfolded.
pub(super) fn message_id(field: Field<'_>) -> Option<MessageId> {
    MessageId::new(&utf8_or_windows_1252(&field.unfolded()))
}

/// Longest part of a From field that is read, in octets: its first mailbox is in it.
const FROM_OCTETS: usize = 4096;

/// Address of the first mailbox of a `From` field.
pub(super) fn from(field: Field<'_>) -> Option<Address> {
    let value = field.unfolded();
    let mut line = value.get(..FROM_OCTETS).unwrap_or(&value).to_vec();
    line.push(b'\n');
    let parsed = mail_parser::parsers::MessageStream::new(&line).parse_address();
    let first = parsed.as_address()?.first()?.address.as_deref()?;
    first.trim().parse().ok()
}

/// Keeps a stamp in lower case, as it stands otherwise: Exchange encodes none. Of one that is too long
/// and of those that are too many something is kept that names another tenant.
fn stamp(stamps: &mut Vec<String>, value: &[u8]) {
    let value = value.trim_ascii();
    let over = stamps.len() >= STAMPS;
    if over || value.len() > STAMP_OCTETS {
        if !over || stamps.len() == STAMPS {
            stamps.push(UNREAD.to_owned());
        }
        return;
    }
    stamps.push(utf8_or_windows_1252(value).to_lowercase());
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "9f8e7d6c-0000-4000-8000-000000000001";
    const OTHER: &str = "11111111-0000-4000-8000-000000000001";

    /// Every combination of what a stamp may be: absent, right, foreign, both, empty, no id at all.
    #[test]
    fn belief_of_every_combination_of_stamps() {
        let orgs: [(&[&str], Option<bool>); 7] = [
            (&[], None),
            (&["northwind.onmicrosoft.example"], Some(true)),
            (
                &["northwind.example", "northwind.onmicrosoft.example"],
                Some(true),
            ),
            (&["tailspin.example"], Some(false)),
            (&["northwind.example", "tailspin.example"], Some(false)),
            (&["evil.northwind.example"], Some(false)),
            (&[""], Some(false)),
        ];
        let ids: [(&[&str], Option<bool>); 6] = [
            (&[], None),
            (&[TENANT], Some(true)),
            (&[OTHER], Some(false)),
            (&[TENANT, OTHER], Some(false)),
            (&["no-guid"], Some(false)),
            (&[""], Some(false)),
        ];
        let domains = [
            "Northwind.onmicrosoft.example".into(),
            "northwind.example".into(),
        ];
        for (orgs, org) in &orgs {
            for (ids, id) in &ids {
                let outer = Outer {
                    originator_org: orgs.iter().map(ToString::to_string).collect(),
                    tenant_ids: ids.iter().map(ToString::to_string).collect(),
                    ..Outer::default()
                };
                for (tenant_id, domains, origin) in [
                    (Some(TENANT), &domains[..], Origin::ExchangeOnline),
                    (Some(TENANT), &domains[..], Origin::ExchangeServer),
                    (Some(TENANT), &[][..], Origin::ExchangeOnline),
                    (Some(TENANT), &[][..], Origin::ExchangeServer),
                    (None, &domains[..], Origin::ExchangeOnline),
                    (None, &[][..], Origin::ExchangeOnline),
                ] {
                    let says = [
                        org.filter(|_| !domains.is_empty()),
                        id.filter(|_| tenant_id.is_some()),
                    ];
                    let foreign = says.contains(&Some(false));
                    let named = says.contains(&Some(true)) || origin == Origin::ExchangeServer;
                    let found = belief(
                        &outer,
                        &Expected {
                            tenant_id,
                            domains,
                            origin,
                        },
                    );
                    assert_eq!(
                        found == Belief::Proven,
                        named && !foreign,
                        "{orgs:?} {ids:?} {tenant_id:?} {domains:?} {origin:?}: {found:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn stamps_are_read_from_every_field_of_their_name() {
        let block = format!(
            "x-originatororg: A.example\r\nX-OriginatorOrg:\r\n b.example\r\n\
             X-LD-Processed: {},ExtAddr,ExtAddr\r\nX-MS-Exchange-CrossTenant-id: {OTHER}\r\n\
             X-MS-Exchange-CrossTenant-Network-Message-Id: {OTHER}\r\n\
             Message-ID:\r\n\t<a@journal.report.generator>\r\n\
             From: \"x\" <O365ConnectorValidation@y.example>\r\n\r\n",
            TENANT.to_uppercase()
        );
        let (outer, marked) = outer(block.as_bytes());
        assert!(!marked);
        assert_eq!(outer.originator_org, ["a.example", "b.example"]);
        assert_eq!(outer.tenant_ids, [TENANT, OTHER]);
        assert_eq!(
            outer.message_id.unwrap().as_str(),
            "a@journal.report.generator"
        );
        assert_eq!(outer.from.unwrap(), "O365ConnectorValidation@y.example");
    }

    /// Nothing that stands beside the tenant's own stamp is overlooked, however it is written.
    #[test]
    fn a_foreign_stamp_cannot_hide() {
        let domains = ["northwind.example".to_owned()];
        let expected = Expected {
            tenant_id: Some(TENANT),
            domains: &domains,
            origin: Origin::ExchangeOnline,
        };
        let org = "X-OriginatorOrg: northwind.example\r\n";
        let id = format!("X-LD-Processed: {TENANT},ExtAddr\r\n");
        let blanks = " ".repeat(300);
        for (name, block, proven) in [
            ("one", org.to_owned(), true),
            ("sixteen", org.repeat(16), true),
            ("seventeen", org.repeat(17), false),
            (
                "the seventeenth is foreign",
                org.repeat(16) + "X-OriginatorOrg: tailspin.example\r\n",
                false,
            ),
            (
                "the seventeenth id is foreign",
                id.repeat(16) + "X-MS-Exchange-CrossTenant-Id: " + OTHER + "\r\n",
                false,
            ),
            (
                "blanks around",
                format!("X-OriginatorOrg:{blanks}northwind.example{blanks}\r\n"),
                true,
            ),
            (
                "far behind",
                format!("X-OriginatorOrg: northwind.example{blanks}tailspin.example\r\n"),
                false,
            ),
            (
                "an id far behind",
                format!("X-MS-Exchange-CrossTenant-Id: {TENANT}{blanks}{OTHER}\r\n"),
                false,
            ),
            (
                "encoded",
                "X-OriginatorOrg: =?utf-8?Q?northwind.example?=\r\n".to_owned(),
                false,
            ),
        ] {
            let (outer, _) = outer(format!("{block}\r\n").as_bytes());
            let found = belief(&outer, &expected);
            assert_eq!(found == Belief::Proven, proven, "{name}: {found:?}");
            assert!(outer.originator_org.len() + outer.tenant_ids.len() <= 17);
        }
    }

    #[test]
    fn connector_validation() {
        for (from, reverse_path, expected) in [
            (Some("O365ConnectorValidation@x.example"), None, true),
            (None, Some("<o365connectorvalidation@x.example>"), true),
            (Some("a@x"), Some("O365ConnectorValidation@x"), true),
            (Some("a@x"), Some(""), false),
            (Some("xO365ConnectorValidation@x"), None, false),
            (Some("a@O365ConnectorValidation"), None, false),
            (None, None, false),
        ] {
            let outer = Outer {
                from: from.map(Into::into),
                ..Outer::default()
            };
            let found = is_connector_validation(&outer, reverse_path);
            assert_eq!(found, expected, "{from:?} {reverse_path:?}");
        }
    }
}
