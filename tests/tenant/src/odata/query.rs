//! Path segments and query options, decoded as Graph's front end decodes them.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::QueryError;

/// One decoded segment of a path: `messages`, an id, or `messages('id')` taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The text before any parentheses, percent-decoded.
    pub(crate) name: String,
    /// The key in parentheses, quotes removed and doubled quotes undone.
    pub(crate) key: Option<String>,
}

/// The decoded segments of `path` (which begins with "/").
///
/// A key in parentheses becomes a segment of its own, so that `users('x')/messages` and
/// `users/x/messages` read alike; `appId='x'` keeps its name as `appId=x`.
///
/// # Errors
///
/// Empty segments, broken percent-encoding, octets that may not stand unencoded in a path, and
/// parentheses that do not match.
pub(crate) fn segments(path: &str) -> Result<Vec<Segment>, QueryError> {
    let rest = path
        .strip_prefix('/')
        .ok_or_else(|| QueryError::bad("The path does not begin with a slash."))?;
    let mut segments = Vec::new();
    for raw in rest.split('/') {
        let unencoded = raw
            .chars()
            .find(|c| !c.is_ascii() || c.is_ascii_control() || " \"<>\\^`{|}#?".contains(*c));
        if let Some(character) = unencoded {
            return Err(QueryError::bad(format!(
                "The path holds {character:?} unencoded."
            )));
        }
        let text = percent_decoded(raw)?;
        if text.is_empty() {
            return Err(QueryError::bad("Resource not found for the segment ''."));
        }
        // The quote is looked for in the decoded text: clients may send %27.
        match text.find("('").or_else(|| text.find("(appId=")) {
            Some(open) if text.ends_with(')') && open > 0 => {
                let (name, key) = (text[..open].to_owned(), &text[open + 1..text.len() - 1]);
                segments.push(Segment {
                    name,
                    key: Some(unquoted(key)?),
                });
            }
            _ => segments.push(Segment {
                name: text,
                key: None,
            }),
        }
    }
    Ok(segments)
}

/// The text of `'x'`, or `name=x` for `name='x'`.
fn unquoted(key: &str) -> Result<String, QueryError> {
    let (name, quoted) = match key.split_once("='") {
        Some((name, rest)) if !key.starts_with('\'') => (format!("{name}="), format!("'{rest}")),
        _ => (String::new(), key.to_owned()),
    };
    let inner = quoted
        .strip_prefix('\'')
        .and_then(|text| text.strip_suffix('\''))
        .ok_or_else(|| QueryError::bad(format!("The key {key:?} is not a quoted string.")))?;
    if inner.replace("''", "").contains('\'') {
        return Err(QueryError::bad(format!(
            "The key {key:?} holds a quote that is not doubled."
        )));
    }
    Ok(name + &inner.replace("''", "'"))
}

/// Percent-decoded text.
fn percent_decoded(raw: &str) -> Result<String, QueryError> {
    let octets = raw.as_bytes();
    for (position, _) in raw.match_indices('%') {
        let digits = octets.get(position + 1..position + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(QueryError::bad(format!(
                "{raw:?} has a \"%\" without two hexadecimal digits."
            )));
        }
    }
    let text = percent_decode_str(raw).decode_utf8();
    text.map(String::from)
        .map_err(|_| QueryError::bad(format!("{raw:?} is not UTF-8 once decoded.")))
}

/// The query options of a request by lower-case name without the "$", values decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options(BTreeMap<String, String>);

impl Options {
    /// Reads a query string: "+" is a space, "%2B" is a plus.
    ///
    /// # Errors
    ///
    /// An option given twice, one without "=", or broken encoding.
    pub(crate) fn parse(query: &str) -> Result<Self, QueryError> {
        let mut options = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let unencoded = pair
                .chars()
                .find(|c| !c.is_ascii() || c.is_ascii_control() || " \"<>".contains(*c));
            if let Some(character) = unencoded {
                return Err(QueryError::bad(format!(
                    "The query holds {character:?} unencoded."
                )));
            }
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                QueryError::bad(format!("The query option {pair:?} has no value."))
            })?;
            let name = percent_decoded(&name.replace('+', " "))?.to_lowercase();
            let name = name
                .strip_prefix('$')
                .map_or_else(|| name.clone(), ToOwned::to_owned);
            let value = percent_decoded(&value.replace('+', " "))?;
            if options.insert(name.clone(), value).is_some() {
                return Err(QueryError::bad(format!(
                    "Query option '{name}' was specified more than once, but it must be specified at most once."
                )));
            }
        }
        Ok(Self(options))
    }

    /// # Errors
    ///
    /// An option that is not among `known`.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), QueryError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(QueryError::bad(format!(
                "The query option '{name}' is not supported here."
            ))),
        }
    }

    /// The value of an option.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether any option was given.
    pub(crate) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// A whole number between `least` and `most`.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub(crate) fn number(
        &self,
        name: &str,
        least: usize,
        most: usize,
    ) -> Result<Option<usize>, QueryError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let number = text
            .parse()
            .ok()
            .filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| {
            let message = format!("Invalid value '{text}' for ${name} query option found. It must be between {least} and {most}.");
            QueryError::coded("ErrorInvalidUrlQuery", message)
        })
    }

    /// `true` or `false`; absent is `false`.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, QueryError> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(QueryError::bad(format!(
                "Invalid value '{text}' for ${name}; true or false is expected."
            ))),
        }
    }

    /// The names of `$select`; `None` if it was not given.
    ///
    /// # Errors
    ///
    /// An empty name.
    pub(crate) fn select(&self) -> Result<Option<Vec<String>>, QueryError> {
        let Some(text) = self.text("select") else {
            return Ok(None);
        };
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        if names.iter().any(String::is_empty) {
            return Err(QueryError::bad(
                "Parsing OData Select and Expand failed: an empty name.",
            ));
        }
        Ok(Some(names))
    }

    /// The properties of `$orderby` with "descending".
    ///
    /// # Errors
    ///
    /// A direction that is neither `asc` nor `desc`.
    pub(crate) fn order(&self) -> Result<Vec<(String, bool)>, QueryError> {
        let mut order = Vec::new();
        for item in self
            .text("orderby")
            .into_iter()
            .flat_map(|text| text.split(','))
        {
            let mut words = item.split_whitespace();
            let name = words.next().unwrap_or_default().to_owned();
            let descending = match (words.next(), words.next()) {
                (None | Some("asc"), None) => false,
                (Some("desc"), None) => true,
                _ => {
                    return Err(QueryError::bad(format!(
                        "Syntax error in $orderby: {item:?}."
                    )));
                }
            };
            order.push((name, descending));
        }
        Ok(order)
    }

    /// The options but one.
    pub(crate) fn without(&self, name: &str) -> Self {
        let mut options = self.clone();
        options.0.remove(name);
        options
    }

    /// The options again, encoded, with `name` set to `value`: the query of a next-link.
    pub(crate) fn with(&self, name: &str, value: &str) -> String {
        let mut options = self.0.clone();
        options.insert(name.to_owned(), value.to_owned());
        let pairs = options.iter().map(|(name, value)| {
            let prefix = if name == "includehiddenfolders" {
                ""
            } else {
                "%24"
            };
            format!("{prefix}{name}={}", encoded(value))
        });
        pairs.collect::<Vec<_>>().join("&")
    }
}

/// `text` percent-encoded for a query value or a path segment: letters, digits and "-_.~" stay.
pub(crate) fn encoded(text: &str) -> String {
    const SET: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    percent_encoding::utf8_percent_encode(text, SET).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let plain = |name: &str| Segment {
            name: name.into(),
            key: None,
        };
        let keyed = |name: &str, key: &str| Segment {
            name: name.into(),
            key: Some(key.into()),
        };
        for (name, path, expected) in [
            (
                "plain",
                "/users/a%40b.example/messages",
                Some(vec![
                    plain("users"),
                    plain("a@b.example"),
                    plain("messages"),
                ]),
            ),
            (
                "an at sign may stand",
                "/users/a@b",
                Some(vec![plain("users"), plain("a@b")]),
            ),
            (
                "key form",
                "/users('a%40b')/mailfolders('inbox')",
                Some(vec![keyed("users", "a@b"), keyed("mailfolders", "inbox")]),
            ),
            (
                "encoded quotes",
                "/users(%27O%27%27B%27)",
                Some(vec![keyed("users", "O'B")]),
            ),
            (
                "named key",
                "/servicePrincipals(appId='x')",
                Some(vec![keyed("servicePrincipals", "appId=x")]),
            ),
            (
                "encoded slash stays in its segment",
                "/users/a%2Fb",
                Some(vec![plain("users"), plain("a/b")]),
            ),
            (
                "plus is a plus in a path",
                "/users/a+b",
                Some(vec![plain("users"), plain("a+b")]),
            ),
            ("empty segment", "/users//messages", None),
            ("broken encoding", "/users/%4", None),
            ("raw blank", "/users/a b", None),
            ("raw umlaut", "/users/ä", None),
            ("quote not doubled", "/users('O'B')", None),
        ] {
            assert_eq!(segments(path).ok(), expected, "{name}");
        }
    }

    #[test]
    fn queries() {
        let options = Options::parse("$filter=a+eq+%27x%2By%27&%24top=5&$COUNT=true").unwrap();
        assert_eq!(options.text("filter"), Some("a eq 'x+y'"));
        assert_eq!(options.number("top", 1, 1000), Ok(Some(5)));
        assert_eq!(options.flag("count"), Ok(true));
        assert!(options.only(&["filter", "top", "count"]).is_ok());
        assert!(options.only(&["filter", "top"]).is_err());
        for (name, query) in [
            ("given twice", "$top=1&%24top=2"),
            ("no value", "$top"),
            ("raw blank", "$filter=a eq 1"),
            ("raw angle bracket", "$filter=a+eq+'<x>'"),
            ("broken encoding", "$filter=%zz"),
            ("not UTF-8", "$filter=%ff"),
        ] {
            assert!(Options::parse(query).is_err(), "{name}");
        }
    }

    #[test]
    fn next_links_are_read_back() {
        let options =
            Options::parse("$filter=a+eq+%27x%2By%26%27&includeHiddenFolders=true").unwrap();
        let again = Options::parse(&options.with("skip", "10")).unwrap();
        assert_eq!(again.text("filter"), options.text("filter"));
        assert_eq!(again.text("skip"), Some("10"));
        assert_eq!(again.text("includehiddenfolders"), Some("true"));
    }
}
