//! Collections in pages, and the next-links between them.

use serde_json::{Value, json};

use super::{Answer, Context};
use crate::odata::query::encoded;

/// Which part of a collection is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    skip: usize,
    top: usize,
    /// The page before was followed by an empty one; this is what comes after it.
    after_gap: bool,
    /// `$skip` or `$skiptoken`.
    option: &'static str,
}

/// Marks a `$skip` or token whose empty page was given already.
const GAP: &str = "gap";

impl Wanted {
    /// Reads `$top` (1 to `most`, `usual` if absent) and `$skip`.
    pub(crate) fn by_skip(
        context: &Context<'_>,
        usual: usize,
        most: usize,
    ) -> Result<Self, Answer> {
        let top = context.options.number("top", 1, most)?.unwrap_or(usual);
        let skip = context.options.number("skip", 0, usize::MAX)?.unwrap_or(0);
        let after_gap = context.options.text("skiptoken") == Some(GAP);
        Ok(Self {
            skip,
            top: narrowed(context, top),
            after_gap,
            option: "skip",
        })
    }

    /// Reads `$top` and the token of a next-link.
    pub(crate) fn by_token(
        context: &Context<'_>,
        usual: usize,
        most: usize,
    ) -> Result<Self, Answer> {
        let top = context.options.number("top", 1, most)?.unwrap_or(usual);
        let token = context.options.text("skiptoken").unwrap_or("RFNwdAo0");
        let refusal = || {
            Answer::error(
                400,
                "Directory_ExpiredPageToken",
                "The specified page token value has expired.",
            )
        };
        let digits = token.strip_prefix("RFNwdAo").ok_or_else(refusal)?;
        let after_gap = digits.ends_with(GAP);
        let skip = digits
            .trim_end_matches(GAP)
            .parse()
            .map_err(|_| refusal())?;
        Ok(Self {
            skip,
            top: narrowed(context, top),
            after_gap,
            option: "skiptoken",
        })
    }

    /// The page of `items`, as the body of an answer. `render` is called for its items alone.
    pub(crate) fn page<T>(
        &self,
        context: &Context<'_>,
        context_url: &str,
        items: &[T],
        count: bool,
        render: impl Fn(&T) -> Value,
    ) -> Value {
        let mut body = json!({ "@odata.context": format!("https://graph.microsoft.com/v1.0/$metadata#{context_url}") });
        if count {
            body["@odata.count"] = items.len().into();
        }
        let gap = context.conduct.links.empty_pages && self.skip > 0 && !self.after_gap;
        let shown = if gap { 0 } else { self.top };
        let values: Vec<Value> = items
            .iter()
            .skip(self.skip)
            .take(shown)
            .map(render)
            .collect();
        let next = self.skip + values.len();
        if gap || next < items.len() {
            body["@odata.nextLink"] = self.link(context, next, gap).into();
        }
        body["value"] = values.into();
        body
    }

    fn link(&self, context: &Context<'_>, next: usize, gap: bool) -> String {
        let suffix = if gap { GAP } else { "" };
        let query = match self.option {
            "skiptoken" => context
                .options
                .with("skiptoken", &format!("RFNwdAo{next}{suffix}")),
            // Options holds what was asked, the gap's mark included, which must not stay.
            _ if gap => format!(
                "{}&%24skiptoken={GAP}",
                context.options.with("skip", &next.to_string())
            ),
            _ => context
                .options
                .without("skiptoken")
                .with("skip", &next.to_string()),
        };
        let base = context
            .conduct
            .links
            .base
            .as_deref()
            .unwrap_or(context.base);
        format!("{base}/{}?{query}", path(context))
    }
}

fn narrowed(context: &Context<'_>, top: usize) -> usize {
    match context.conduct.links.page {
        0 => top,
        most => top.min(most),
    }
}

/// The path of the request again, in the form that links have.
fn path(context: &Context<'_>) -> String {
    const NAMES: [(&str, &str); 4] = [
        ("mailfolders", "mailFolders"),
        ("childfolders", "childFolders"),
        ("transitivemembers", "transitiveMembers"),
        ("mailboxsettings", "mailboxSettings"),
    ];
    if context.conduct.links.keys {
        let mut path = String::new();
        for pair in context.path.chunks(2) {
            let separator = if path.is_empty() { "" } else { "/" };
            path.push_str(separator);
            path.push_str(pair[0]);
            match pair.get(1) {
                Some(cast) if cast.starts_with("microsoft.graph.") => {
                    path = format!("{path}/{cast}")
                }
                Some(key) => path = format!("{path}('{}')", encoded(&key.replace('\'', "''"))),
                None => {}
            }
        }
        return path;
    }
    let named = context.path.iter().enumerate().map(|(position, segment)| {
        let name = NAMES
            .iter()
            .find(|(lower, _)| position % 2 == 0 && lower == segment);
        name.map_or_else(|| encoded(segment), |(_, name)| (*name).to_owned())
    });
    named.collect::<Vec<_>>().join("/")
}
