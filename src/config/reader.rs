//! Walks the TOML of a configuration file: every value with its line and column, every problem
//! collected, unknown keys named with the nearest known one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::{Peer, Size, Span, Wrong};

/// Something wrong with the configuration, or worth a warning, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The configuration file.
    pub path: PathBuf,
    /// Line, from 1; 0 if it concerns the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 with line 0.
    pub column: usize,
    /// What was seen.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        write!(f, " {}; {}", self.what, self.mend)
    }
}

/// Reads one file.
pub(super) struct Reader<'i> {
    path: &'i Path,
    text: &'i str,
    /// Relative paths are relative to this.
    base: PathBuf,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    /// Where each key of the file stands: `smtp.listen`, `tenant.contoso.peers`.
    pub(super) positions: BTreeMap<String, (usize, usize)>,
    /// Every key that was asked for, with the section's name.
    pub(super) known: Vec<String>,
}

impl<'i> Reader<'i> {
    pub(super) fn new(path: &'i Path, text: &'i str) -> Self {
        let directory = path.parent().unwrap_or_else(|| Path::new("")).to_path_buf();
        Self {
            path,
            text,
            base: std::path::absolute(&directory).unwrap_or(directory),
            problems: Vec::new(),
            warnings: Vec::new(),
            positions: BTreeMap::new(),
            known: Vec::new(),
        }
    }

    /// The file's root table; a syntax error is a problem and gives none.
    pub(super) fn root(&mut self) -> Option<Spanned<DeTable<'i>>> {
        match DeTable::parse(self.text) {
            Ok(root) => Some(root),
            Err(error) => {
                let message = error.message().replace('\n', ", ");
                let mend = "mend the TOML there";
                self.problem(error.span().unwrap_or(0..0), Wrong::new(message, mend));
                None
            }
        }
    }

    /// A table to read keys from.
    pub(super) fn section<'r>(
        &'r mut self,
        name: &str,
        table: &'r DeTable<'i>,
        at: Range<usize>,
    ) -> Section<'r, 'i> {
        Section {
            at,
            name: name.to_owned(),
            keyed: name.to_owned(),
            table: Some(table),
            asked: Vec::new(),
            reader: self,
        }
    }

    pub(super) fn problem(&mut self, at: Range<usize>, wrong: Wrong) {
        let problem = self.at(at, wrong);
        self.problems.push(problem);
    }

    pub(super) fn warning(&mut self, at: Range<usize>, wrong: Wrong) {
        let warning = self.at(at, wrong);
        self.warnings.push(warning);
    }

    fn at(&self, at: Range<usize>, wrong: Wrong) -> Problem {
        let (line, column) = position(self.text, at.start);
        Problem {
            path: self.path.to_path_buf(),
            line,
            column,
            what: wrong.what,
            mend: wrong.mend,
        }
    }
}

/// Line and column, from 1, of an octet.
fn position(text: &str, octet: usize) -> (usize, usize) {
    let mut before = text.get(..octet.min(text.len())).unwrap_or(text);
    // An error at the very end belongs to the last line that has something.
    if octet >= text.len() {
        before = before.strip_suffix('\n').unwrap_or(before);
    }
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|c| *c == b'\n').count() + 1;
    let column = before
        .get(line_start..)
        .map_or(0, |rest| rest.chars().count());
    (line, column + 1)
}

/// One table of the file.
pub(super) struct Section<'r, 'i> {
    /// As people write it: `smtp`, `tenant`.
    name: String,
    /// As [`Reader::positions`] has it: `tenant.contoso` once the name is known.
    keyed: String,
    /// `None`: the file does not have it.
    table: Option<&'r DeTable<'i>>,
    /// Where the table itself stands.
    at: Range<usize>,
    asked: Vec<&'static str>,
    pub(super) reader: &'r mut Reader<'i>,
}

impl<'r, 'i> Section<'r, 'i> {
    /// The value of a key that the file gives; `None` if it does not, or the value is wrong.
    pub(super) fn take<T: Value>(&mut self, key: &'static str) -> Option<T> {
        let value = self.value(key)?;
        let full = format!("{}.{key}", self.name);
        match T::read(value.as_ref(), &self.reader.base) {
            Ok(read) => Some(read),
            Err((inside, wrong)) => {
                let at = inside.unwrap_or_else(|| value.span());
                let what = format!("{full}: {}", wrong.what);
                self.reader.problem(at, Wrong::new(what, wrong.mend));
                None
            }
        }
    }

    /// Writes the value of a key, if the file gives it, over the default.
    pub(super) fn read<T: Value>(&mut self, key: &'static str, into: &mut T) {
        if let Some(value) = self.take(key) {
            *into = value;
        }
    }

    /// Like [`read`](Self::read), for a key that may be absent.
    pub(super) fn read_some<T: Value>(&mut self, key: &'static str, into: &mut Option<T>) {
        if let Some(value) = self.take(key) {
            *into = Some(value);
        }
    }

    /// The value as it stands in the file.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'r Spanned<DeValue<'i>>> {
        self.asked.push(key);
        self.reader.known.push(format!("{}.{key}", self.name));
        let value = self.table?.get(key)?;
        let place = position(self.reader.text, value.span().start);
        self.reader
            .positions
            .insert(format!("{}.{key}", self.keyed), place);
        Some(value)
    }

    /// The table of that name; one without keys if the file does not have it.
    pub(super) fn table(&mut self, name: &'static str) -> Section<'_, 'i> {
        let value = self.value(name);
        let table = value.and_then(|value| value.as_ref().as_table());
        if let (Some(value), None) = (value, table) {
            let wrong = Wrong::new(format!("{name} is no table"), format!("write [{name}]"));
            self.reader.problem(value.span(), wrong);
        }
        Section {
            name: name.to_owned(),
            keyed: name.to_owned(),
            at: value.map_or(0..0, Spanned::span),
            table,
            asked: Vec::new(),
            reader: self.reader,
        }
    }

    /// Names the section anew for [`Reader::positions`], keys read so far included.
    pub(super) fn rename(&mut self, name: &str) {
        for key in &self.asked {
            if let Some(place) = self
                .reader
                .positions
                .remove(&format!("{}.{key}", self.keyed))
            {
                self.reader.positions.insert(format!("{name}.{key}"), place);
            }
        }
        name.clone_into(&mut self.keyed);
    }

    /// Where a key's value stands; the table's place if the file does not give it.
    pub(super) fn span(&self, key: &str) -> Range<usize> {
        let value = self.table.and_then(|table| table.get(key));
        value.map_or_else(|| self.at.clone(), Spanned::span)
    }

    /// A problem with a key's value.
    pub(super) fn problem(&mut self, key: &str, what: impl std::fmt::Display, mend: &str) {
        let what = format!("{}.{key}: {what}", self.name);
        let at = self.span(key);
        self.reader.problem(at, Wrong::new(what, mend));
    }

    /// A warning about a key's value.
    pub(super) fn warning(&mut self, key: &str, what: impl std::fmt::Display, mend: &str) {
        let what = format!("{}.{key} {what}", self.name);
        let at = self.span(key);
        self.reader.warning(at, Wrong::new(what, mend));
    }

    /// A key that this version knows but cannot do.
    pub(super) fn not_yet(&mut self, key: &str) {
        self.problem(key, "is not available in this version", "remove the line");
    }

    /// Ends the section: whatever key was not asked for is unknown.
    pub(super) fn finish(self) {
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let place = match self.name.as_str() {
                "" => String::new(),
                section => format!(" in [{section}]"),
            };
            let wrong = Wrong::new(
                format!("unknown key {name:?}{place}"),
                nearest(name, &self.asked),
            );
            self.reader.problem(key.span(), wrong);
        }
    }
}

/// The mend for an unknown key: the nearest known one, or all of them.
fn nearest(name: &str, known: &[&str]) -> String {
    let best = known
        .iter()
        .map(|key| (strsim::damerau_levenshtein(name, key), *key))
        .min();
    match best {
        Some((distance, key)) if distance <= 1 + name.chars().count() / 3 => {
            format!("did you mean {key:?}?")
        }
        _ => format!("the keys here are {}", known.join(", ")),
    }
}

/// A value that a key can have; an error may say where inside the value it is.
pub(super) trait Value: Sized {
    fn read(value: &DeValue<'_>, base: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)>;
}

/// What a value is, for people: its text, or its type.
fn seen(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Float(number) => number.to_string(),
        other => format!("a {}", other.type_str()),
    }
}

fn wrong<T>(
    value: &DeValue<'_>,
    what: &str,
    mend: &str,
) -> Result<T, (Option<Range<usize>>, Wrong)> {
    Err((None, Wrong::new(format!("{} is {what}", seen(value)), mend)))
}

impl Value for bool {
    fn read(value: &DeValue<'_>, _: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)> {
        match value.as_bool() {
            Some(value) => Ok(value),
            None => wrong(
                value,
                "not true or false",
                "write true or false, without quotes",
            ),
        }
    }
}

impl Value for u64 {
    fn read(value: &DeValue<'_>, _: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)> {
        let number = value
            .as_integer()
            .and_then(|number| Self::from_str_radix(number.as_str(), number.radix()).ok());
        match number {
            Some(number) if number > 0 => Ok(number),
            _ => wrong(
                value,
                "no whole number above 0",
                "write a number such as 1000",
            ),
        }
    }
}

impl Value for usize {
    fn read(value: &DeValue<'_>, base: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)> {
        let number = u64::read(value, base)?;
        Self::try_from(number).or_else(|_| wrong(value, "too large", "write a number such as 1000"))
    }
}

impl Value for String {
    fn read(value: &DeValue<'_>, _: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)> {
        match value.as_str() {
            Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
            Some(_) => wrong(value, "empty", "give it a value or remove the line"),
            None => wrong(value, "not a text", "write it between quotes"),
        }
    }
}

impl Value for PathBuf {
    fn read(value: &DeValue<'_>, base: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)> {
        String::read(value, base).map(|text| base.join(text))
    }
}

impl Value for Size {
    fn read(value: &DeValue<'_>, _: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)> {
        const MEND: &str = "write a whole number and a unit, such as \"200 MiB\"";
        match value.as_str().map(str::parse::<Self>) {
            Some(Ok(size)) if size.octets() == 0 => wrong(value, "no size above 0", MEND),
            Some(Ok(size)) => Ok(size),
            _ => wrong(value, "no size", MEND),
        }
    }
}

impl Value for Duration {
    fn read(value: &DeValue<'_>, _: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)> {
        const MEND: &str =
            "write a whole number and a unit, such as \"30 s\", \"5 min\", \"24 h\", \"90 days\"";
        match value.as_str().map(str::parse::<Span>) {
            Some(Ok(span)) if span.0.is_zero() => wrong(value, "no duration above 0", MEND),
            Some(Ok(span)) => Ok(span.0),
            _ => wrong(value, "no duration", MEND),
        }
    }
}

impl Value for SocketAddr {
    fn read(value: &DeValue<'_>, _: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)> {
        const MEND: &str =
            "write an IP address and a port, such as \"[::]:25\" or \"192.0.2.1:25\"";
        match value.as_str().map(str::parse) {
            Some(Ok(address)) => Ok(address),
            _ => wrong(value, "no socket address", MEND),
        }
    }
}

impl Value for Peer {
    fn read(value: &DeValue<'_>, _: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)> {
        const MEND: &str =
            "write a network such as \"192.0.2.0/24\", \"exchange-online\" or \"certificate:NAME\"";
        match value.as_str().map(str::parse) {
            Some(Ok(peer)) => Ok(peer),
            Some(Err(why)) => wrong(value, &format!("no peer: {why}"), MEND),
            None => wrong(value, "no peer", MEND),
        }
    }
}

impl Value for crate::mail::Address {
    fn read(value: &DeValue<'_>, _: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)> {
        const MEND: &str = "write an address such as \"k3v9@journal.example.com\"";
        match value.as_str().map(str::parse) {
            Some(Ok(address)) => Ok(address),
            Some(Err(why)) => wrong(value, &format!("no mail address: {why}"), MEND),
            None => wrong(value, "no mail address", MEND),
        }
    }
}

impl Value for url::Url {
    fn read(value: &DeValue<'_>, _: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)> {
        const MEND: &str = "write a URL such as \"https://graph.microsoft.com/v1.0\"";
        match value.as_str().map(str::parse) {
            Some(Ok(url)) => Ok(url),
            Some(Err(why)) => wrong(value, &format!("no URL: {why}"), MEND),
            None => wrong(value, "no URL", MEND),
        }
    }
}

impl<T: Value> Value for Vec<T> {
    fn read(value: &DeValue<'_>, base: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)> {
        let Some(values) = value.as_array() else {
            return wrong(value, "no list", "write a list such as [\"…\", \"…\"]");
        };
        values
            .iter()
            .map(|inner| {
                T::read(inner.as_ref(), base)
                    .map_err(|(at, wrong)| (at.or_else(|| Some(inner.span())), wrong))
            })
            .collect()
    }
}

/// An enumeration whose values are words.
pub(super) trait Choice: Copy + 'static {
    /// Every word with its value.
    const WORDS: &'static [(&'static str, Self)];
}

impl<T: Choice> Value for T {
    fn read(value: &DeValue<'_>, _: &Path) -> Result<Self, (Option<Range<usize>>, Wrong)> {
        let found = value
            .as_str()
            .and_then(|text| Self::WORDS.iter().find(|(word, _)| *word == text));
        match found {
            Some((_, choice)) => Ok(*choice),
            None => {
                let words: Vec<String> =
                    Self::WORDS.iter().map(|(w, _)| format!("{w:?}")).collect();
                wrong(
                    value,
                    "not known",
                    &format!("write one of {}", words.join(", ")),
                )
            }
        }
    }
}
