//! Microsoft Graph v1.0: a request in, an answer out. No sockets; the world is the only state.

pub(crate) mod batch;
mod copies;
mod directory;
mod folders;
mod message;
mod page;
pub(crate) mod route;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::odata::QueryError;
use crate::odata::query::Options;
use crate::settings::Conduct;
use crate::world::{Grant, World};

/// An answer of Graph.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// Header fields of this answer alone.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// What it says.
    pub(crate) body: Body,
}

/// What a body holds.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// Nothing.
    None,
    /// JSON.
    Json(Value),
    /// A message as octets.
    Mime(Vec<u8>),
}

/// What a request brought along.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// Nothing.
    None,
    /// JSON.
    Json(&'a Value),
}

/// A request, read and admitted.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// The tenant.
    pub(crate) world: &'a World,
    /// How it behaves at this moment.
    pub(crate) conduct: &'a Conduct,
    /// What the token allows.
    pub(crate) grant: &'a Grant,
    /// The method.
    pub(crate) method: &'a str,
    /// Path segments; names in lower case, keys as they are.
    pub(crate) path: &'a [&'a str],
    /// Query options.
    pub(crate) options: &'a Options,
    /// The body.
    pub(crate) payload: Payload<'a>,
    /// The user whose mailbox it is about.
    pub(crate) user: Option<u32>,
    /// `Prefer: IdType="ImmutableId"`.
    pub(crate) immutable: bool,
    /// `ConsistencyLevel: eventual`.
    pub(crate) eventual: bool,
    /// Where next-links point: `https://host:port/v1.0`.
    pub(crate) base: &'a str,
}

/// An answer, or the answer that says why not.
pub(crate) type Handled = Result<Answer, Answer>;

impl Answer {
    /// An answer with JSON.
    pub(crate) const fn json(status: u16, body: Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Json(body),
        }
    }

    /// 204.
    pub(crate) const fn no_content() -> Self {
        Self {
            status: 204,
            headers: Vec::new(),
            body: Body::None,
        }
    }

    /// An error body in the OData shape; the ids are filled in when it is sent.
    pub(crate) fn error(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self::json(
            status,
            json!({ "error": { "code": code, "message": message.into() } }),
        )
    }

    /// With `Retry-After`.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.headers.push(("Retry-After", seconds.to_string()));
        self
    }

    /// 429 as Outlook words it.
    pub(crate) fn throttled(seconds: u32) -> Self {
        Self::error(
            429,
            "ApplicationThrottled",
            "Application is over its MailboxConcurrency limit.",
        )
        .retry_after(seconds)
    }

    /// Puts the ids of the request into an error body.
    pub(crate) fn with_ids(
        mut self,
        request_id: Uuid,
        client_request_id: &str,
        now: jiff::Timestamp,
    ) -> Self {
        if let Body::Json(body) = &mut self.body
            && let Some(error) = body.get_mut("error").and_then(Value::as_object_mut)
        {
            error.insert(
                "innerError".into(),
                json!({
                    "date": now.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
                    "request-id": request_id.to_string(),
                    "client-request-id": client_request_id,
                }),
            );
        }
        self
    }
}

impl From<QueryError> for Answer {
    fn from(error: QueryError) -> Self {
        Self::error(400, error.code, error.message)
    }
}

impl Context<'_> {
    /// # Errors
    ///
    /// 403 in the words of the service, if the token has none of these roles.
    pub(crate) fn need(&self, roles: &[&str]) -> Result<(), Answer> {
        let by_exchange = |user| self.conduct.exchange_role.contains(&user);
        if self.user.is_some_and(by_exchange) {
            return Ok(());
        }
        if self
            .grant
            .roles
            .iter()
            .any(|role| roles.contains(&role.as_str()))
        {
            return Ok(());
        }
        Err(match self.user {
            Some(_) => Answer::error(
                403,
                "ErrorAccessDenied",
                "Access is denied. Check credentials and try again.",
            ),
            None => Answer::error(
                403,
                "Authorization_RequestDenied",
                "Insufficient privileges to complete the operation.",
            ),
        })
    }

    /// # Errors
    ///
    /// 400 if a body came where none belongs.
    pub(crate) fn no_payload(&self) -> Result<(), Answer> {
        match self.payload {
            Payload::None => Ok(()),
            Payload::Json(_) => Err(Answer::error(
                400,
                "BadRequest",
                "The request has a body, but this call takes none.",
            )),
        }
    }

    /// The body's members.
    ///
    /// # Errors
    ///
    /// 400 if there is none, if it is no object, or if it has a member that is not `known`.
    pub(crate) fn members(
        &self,
        known: &[&str],
    ) -> Result<&serde_json::Map<String, Value>, Answer> {
        let Payload::Json(value) = self.payload else {
            return Err(Answer::error(
                400,
                "BadRequest",
                "Empty Payload. JSON content expected.",
            ));
        };
        let members = value.as_object().ok_or_else(|| {
            Answer::error(
                400,
                "BadRequest",
                "Unable to read JSON request payload: no object.",
            )
        })?;
        match members.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(members),
            Some(name) => Err(Answer::error(
                400,
                "RequestBodyRead",
                format!("The property '{name}' does not exist or is not supported here."),
            )),
        }
    }
}

/// Answers a request.
pub(crate) fn handle(context: &Context<'_>) -> Answer {
    dispatch(context).unwrap_or_else(|refusal| refusal)
}

/// The handler for a path and method.
fn dispatch(context: &Context<'_>) -> Handled {
    match (context.method, context.path) {
        ("GET", ["users"]) => directory::list_users(context),
        ("GET", ["users", key]) => directory::user(context, key),
        ("GET", ["groups"]) => directory::list_groups(context),
        ("GET", ["groups", key]) => directory::group(context, key),
        ("GET", ["groups", key, "transitivemembers"]) => {
            directory::members(context, key, true, None)
        }
        ("GET", ["groups", key, "transitivemembers", cast]) => {
            directory::members(context, key, true, Some(cast))
        }
        ("GET", ["groups", key, "members"]) => directory::members(context, key, false, None),
        ("GET", ["groups", key, "members", cast]) => {
            directory::members(context, key, false, Some(cast))
        }
        ("GET", ["contacts"]) => directory::list_contacts(context),
        ("GET", ["organization"]) => directory::organization(context),
        ("GET", ["domains"]) => directory::domains(context),
        ("GET", ["users", _, "mailboxsettings"]) => directory::mailbox_settings(context),
        ("GET", ["users", _, "messages"]) => copies::list(context, None),
        (method, ["users", _, "messages", id, rest @ ..]) => {
            copies::one(context, method, None, id, rest)
        }
        ("GET", ["users", _, "mailfolders"]) => folders::list(context, None),
        ("POST", ["users", _, "mailfolders"]) => folders::create(context, None),
        ("GET", ["users", _, "mailfolders", folder]) => folders::one(context, folder),
        ("GET", ["users", _, "mailfolders", folder, "childfolders"]) => {
            folders::list(context, Some(folder))
        }
        ("POST", ["users", _, "mailfolders", folder, "childfolders"]) => {
            folders::create(context, Some(folder))
        }
        ("GET", ["users", _, "mailfolders", folder, "messages"]) => {
            copies::list(context, Some(folder))
        }
        (method, ["users", _, "mailfolders", folder, "messages", id, rest @ ..]) => {
            copies::one(context, method, Some(folder), id, rest)
        }
        _ => Err(unknown(context)),
    }
}

/// 405 for what exists with another method, else 400 as Graph answers paths that its metadata lacks.
pub(crate) fn unknown(context: &Context<'_>) -> Answer {
    match context.path {
        ["users" | "groups" | "organization" | "domains" | "contacts"]
        | ["users" | "groups", _]
        | ["users", _, "messages" | "mailfolders", ..] => {
            let message = format!("The method '{}' is not supported here.", context.method);
            Answer::error(405, "Request_BadRequest", message)
        }
        path => {
            let last = path.last().copied().unwrap_or_default();
            Answer::error(
                400,
                "BadRequest",
                format!("Resource not found for the segment '{last}'."),
            )
        }
    }
}
