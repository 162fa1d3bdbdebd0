//! The paths of MAIL and RCPT (RFC 5321 §4.1.2), UTF-8 as RFC 6531 §3.3 adds it.
//!
//! Text in, an address out exactly as it was sent: quotes stay, since `"a@b"@x` without them is
//! another address. A source route is read and forgotten (RFC 5321 appendix C).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::mail::{Address, ForwardPath, ReversePath};

/// The longest domain and the longest label in it, in octets (RFC 1035 §2.3.4).
const DOMAIN_OCTETS: usize = 255;
const LABEL_OCTETS: usize = 63;

/// A reverse-path and what follows it.
pub(super) fn reverse_path(text: &str) -> Option<(ReversePath, &str)> {
    if let Some(rest) = text.strip_prefix("<>") {
        return Some((ReversePath::Null, rest));
    }
    let (address, rest) = mailbox_path(text)?;
    Some((ReversePath::Mailbox(address), rest))
}

/// A forward-path and what follows it. `<>` is none, and `<postmaster>` is not the same as it.
pub(super) fn forward_path(text: &str) -> Option<(ForwardPath, &str)> {
    const POSTMASTER: &str = "<postmaster>";
    if let Some((path, rest)) = text.split_at_checked(POSTMASTER.len())
        && path.eq_ignore_ascii_case(POSTMASTER)
    {
        return Some((ForwardPath::Postmaster, rest));
    }
    let (address, rest) = mailbox_path(text)?;
    Some((ForwardPath::Mailbox(address), rest))
}

/// `"<" [ A-d-l ":" ] Mailbox ">"` and what follows it.
fn mailbox_path(text: &str) -> Option<(Address, &str)> {
    let text = text.strip_prefix('<')?;
    let text = match text.starts_with('@') {
        true => source_route(text)?,
        false => text,
    };
    let end = mailbox(text)?;
    let (address, rest) = text.split_at_checked(end)?;
    Some((address.parse().ok()?, rest.strip_prefix('>')?))
}

/// What follows `@a,@b:`.
fn source_route(mut text: &str) -> Option<&str> {
    loop {
        text = text.strip_prefix('@')?;
        text = text.get(domain(text)?..)?;
        if let Some(rest) = text.strip_prefix(':') {
            return Some(rest);
        }
        text = text.strip_prefix(',')?;
    }
}

/// Octets of the `Mailbox` that the text begins with.
fn mailbox(text: &str) -> Option<usize> {
    let local_part = match text.strip_prefix('"') {
        Some(quoted) => 1 + quoted_string(quoted)?,
        None => dot_string(text)?,
    };
    let rest = text.get(local_part..)?.strip_prefix('@')?;
    let domain = match rest.strip_prefix('[') {
        Some(literal) => 1 + address_literal(literal)?,
        None => domain(rest)?,
    };
    Some(local_part + 1 + domain)
}

/// Octets up to the closing quote, which is one of them.
fn quoted_string(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            ' '..='~' if escaped => escaped = false,
            '"' => return Some(at + 1),
            '\\' if !escaped => escaped = true,
            ' '..='~' => {}
            _ if !character.is_ascii() && !escaped => {}
            _ => return None,
        }
    }
    None
}

/// Octets of the `Dot-string` that the text begins with.
fn dot_string(text: &str) -> Option<usize> {
    let end = text
        .find(|character| !is_atext(character) && character != '.')
        .unwrap_or(text.len());
    let well_formed = text.get(..end)?.split('.').all(|atom| !atom.is_empty());
    well_formed.then_some(end)
}

fn is_atext(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || !character.is_ascii()
        || "!#$%&'*+-/=?^_`{|}~".contains(character)
}

/// Octets of the `Domain` that the text begins with. `_` is taken too: names of Windows hosts have it.
fn domain(text: &str) -> Option<usize> {
    let is_label = |character: char| {
        character.is_ascii_alphanumeric() || !character.is_ascii() || "-_".contains(character)
    };
    let end = text
        .find(|character| !is_label(character) && character != '.')
        .unwrap_or(text.len());
    let well_formed = |label: &str| {
        let hyphen = label.starts_with('-') || label.ends_with('-');
        !label.is_empty() && !hyphen && label.len() <= LABEL_OCTETS
    };
    (end <= DOMAIN_OCTETS && text.get(..end)?.split('.').all(well_formed)).then_some(end)
}

/// Octets up to the closing bracket, which is one of them (RFC 5321 §4.1.3).
fn address_literal(text: &str) -> Option<usize> {
    let end = text.find(']')?;
    let literal = text.get(..end)?;
    let valid = match literal.split_once(':') {
        None => literal.parse::<Ipv4Addr>().is_ok(),
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6") => {
            address.parse::<Ipv6Addr>().is_ok()
        }
        Some((tag, address)) => {
            let is_dcontent = |octet: u8| matches!(octet, 33..=90 | 94..=126);
            let is_tag = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
            !tag.is_empty()
                && !tag.ends_with('-')
                && tag.bytes().all(is_tag)
                && !address.is_empty()
                && address.bytes().all(is_dcontent)
        }
    };
    valid.then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_stay_as_they_were_sent() {
        for (name, text, address) in [
            ("plain", "<a@x.example>", "a@x.example"),
            ("case stays", "<A.b@X.Example>", "A.b@X.Example"),
            ("atext", "<!#$%&'*+-/=?^_`{|}~@x>", "!#$%&'*+-/=?^_`{|}~@x"),
            ("quoted blank", r#"<"a b"@x>"#, r#""a b"@x"#),
            ("quoted at", r#"<"a@b"@x>"#, r#""a@b"@x"#),
            ("quoted bracket", r#"<"a>b"@x>"#, r#""a>b"@x"#),
            ("quoted pair", r#"<"a\"\\"@x>"#, r#""a\"\\"@x"#),
            ("quoted, empty", r#"<""@x>"#, r#"""@x"#),
            ("digits", "<1@2.3>", "1@2.3"),
            ("host of Windows", "<a@exch_01.local>", "a@exch_01.local"),
            ("source route", "<@a,@b.example:c@d>", "c@d"),
            ("IPv4", "<a@[127.0.0.1]>", "a@[127.0.0.1]"),
            ("IPv6", "<a@[IPv6:::1]>", "a@[IPv6:::1]"),
            ("tagged literal", "<a@[x-y:z]>", "a@[x-y:z]"),
            ("UTF-8", "<ünï@exämple.example>", "ünï@exämple.example"),
            ("UTF-8, quoted", r#"<"ü ï"@x>"#, r#""ü ï"@x"#),
        ] {
            let expected: Address = address.parse().unwrap();
            let text = [text, " X=1"].concat();
            let (path, rest) = forward_path(&text).expect(name);
            assert_eq!(path, ForwardPath::Mailbox(expected.clone()), "{name}");
            assert_eq!(path.address().map(Address::as_str), Some(address), "{name}");
            assert_eq!(rest, " X=1", "{name}");
            let path = reverse_path(&text).map(|(path, _)| path);
            assert_eq!(path, Some(ReversePath::Mailbox(expected)), "{name}");
        }
    }

    #[test]
    fn what_is_no_path() {
        let long_label = format!("<a@{}>", "x".repeat(64));
        let long_domain = format!("<a@{}x>", "x.".repeat(128));
        for text in [
            "",
            "a@x",
            "<a@x",
            "<a>",
            "<@x>",
            "<a@>",
            "<a@x.>",
            "<a@.x>",
            "<a@x..y>",
            "<.a@x>",
            "<a.@x>",
            "<a..b@x>",
            "<a b@x>",
            "< a@x>",
            "<a@x >",
            "<a@-x>",
            "<a@x->",
            "<a@b@x>",
            "<a@x\u{7}>",
            "<a\u{a0}b@x>",
            "<a,b@x>",
            "<a@x,y>",
            "<<a@x>>",
            r#"<"a@x>"#,
            r#"<"a"b@x>"#,
            r#"<"a\"@x>"#,
            "<\"a\tb\"@x>",
            "<a@[]>",
            "<a@[1.2.3]>",
            "<a@[1.2.3.256]>",
            "<a@[IPv6:1]>",
            "<a@[IPv6:::1>",
            "<a@[x:]>",
            "<a@[:y]>",
            "<@a>",
            "<@a:>",
            "<@a b@x>",
            "<@a,b:c@d>",
            "<@:c@d>",
            "<postmaster",
            "<postmaster@>",
            &long_label,
            &long_domain,
        ] {
            assert_eq!(forward_path(text), None, "{text:?}");
            assert_eq!(reverse_path(text), None, "{text:?}");
        }
    }

    #[test]
    fn null_and_postmaster_are_different() {
        assert_eq!(reverse_path("<> A"), Some((ReversePath::Null, " A")));
        assert_eq!(forward_path("<>"), None);
        assert_eq!(
            forward_path("<PostMaster> A"),
            Some((ForwardPath::Postmaster, " A"))
        );
        assert_eq!(reverse_path("<postmaster>"), None);
        let postmaster =
            forward_path("<postmaster@x>").and_then(|(path, _)| path.address().cloned());
        assert_eq!(postmaster, "postmaster@x".parse().ok());
    }
}
