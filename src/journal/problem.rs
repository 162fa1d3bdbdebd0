//! What was odd in a report, for people: a bounded list of short sentences.

/// Most problems that are kept of one report.
const PROBLEMS: usize = 32;
/// Characters of a stranger's value that are shown.
const EXCERPT: usize = 80;

/// The problems of one report, each once.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    /// Adds a problem unless it is known or there are too many.
    pub(super) fn add(&mut self, text: impl Into<String>) {
        let text = text.into();
        if self.0.len() < PROBLEMS && !self.0.contains(&text) {
            self.0.push(text);
        }
    }

    /// Adds the one that decided, as the last, however many there are.
    pub(super) fn conclude(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }

    /// Octets of memory held, about.
    pub(super) fn memory(&self) -> usize {
        self.0.iter().map(String::len).sum()
    }

    /// All of them.
    pub(super) fn into_vec(self) -> Vec<String> {
        self.0
    }
}

/// The beginning of a stranger's value, escaped.
pub(super) fn excerpt(value: &str) -> String {
    let mut shown: String = value.chars().take(EXCERPT).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
