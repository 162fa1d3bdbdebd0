//! A request from its arrival to its answer: signed in, read, admitted, perhaps disturbed, handled, logged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde_json::Value;
use tokio::time::sleep_until;
use uuid::Uuid;

use crate::clock;
use crate::graph::route::Route;
use crate::graph::{self, Answer, Context, Payload, batch};
use crate::random::Random;
use crate::settings::{Conduct, FaultKind, Scope};
use crate::traffic::{Place, Request, Subject, admit};
use crate::world::{Grant, World, locked};

/// Graph and sign-in for all tenants of a simulated cloud.
#[derive(Debug)]
pub(crate) struct Service {
    /// The tenants.
    pub(crate) worlds: RwLock<Vec<Arc<World>>>,
    /// `https://127.0.0.1:port`.
    pub(crate) base: String,
    /// For ids of requests.
    pub(crate) random: Mutex<Random>,
    /// Requests with a token that no tenant issued, or that had ended.
    pub(crate) unauthorized: Mutex<u64>,
}

/// A request, wherever it came from.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// Path and query below the version, as sent.
    pub(crate) target: String,
    /// By lower-case name.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Option<Value>,
    /// The batch that it is part of.
    pub(crate) batch: Option<u64>,
}

/// Whose token it was.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) world: Arc<World>,
    pub(crate) grant: Grant,
}

/// How a request ends.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// With an answer.
    Answer(Answer),
    /// Cut.
    Dropped,
    /// Cut together with its connection.
    Disconnected,
}

impl Call {
    /// A header field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// What sort of request it is.
    pub(crate) fn scope(&self) -> Scope {
        Route::parse(&self.target).map_or(Scope::Directory, |route| route.scope)
    }

    fn prefers_immutable(&self) -> bool {
        self.header("prefer").is_some_and(|prefer| {
            prefer.split(',').any(|preference| {
                preference
                    .trim()
                    .replace(' ', "")
                    .eq_ignore_ascii_case("IdType=\"ImmutableId\"")
            })
        })
    }
}

impl Service {
    /// Answers a request of the Graph host. `target` of the call begins with `/v1.0`.
    pub(crate) async fn graph(self: &Arc<Self>, mut call: Call) -> Outcome {
        let Some(below) = call
            .target
            .strip_prefix("/v1.0")
            .filter(|below| below.starts_with('/'))
        else {
            return Outcome::Answer(Answer::error(400, "BadRequest", "Invalid version."));
        };
        call.target = below.to_owned();
        let signed = match self.signed(call.header("authorization")) {
            Ok(signed) => signed,
            Err(refusal) => return Outcome::Answer(refusal),
        };
        if call.target.eq_ignore_ascii_case("/$batch")
            || call.target.eq_ignore_ascii_case("/%24batch")
        {
            return self.batch(&signed, &call).await;
        }
        self.run(&signed, &call).await
    }

    /// The tenant and the permissions of a bearer token.
    fn signed(&self, authorization: Option<&str>) -> Result<Signed, Answer> {
        let now = clock::instant();
        let refusal = |message: &str| {
            *locked(&self.unauthorized) += 1;
            let mut answer = Answer::error(401, "InvalidAuthenticationToken", message);
            let challenge = "Bearer realm=\"\", authorization_uri=\"https://login.microsoftonline.com/common/oauth2/authorize\", client_id=\"00000003-0000-0000-c000-000000000000\"";
            answer.headers.push(("WWW-Authenticate", challenge.into()));
            answer
        };
        let token = authorization
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| refusal("Access token is empty."))?;
        for world in self
            .worlds
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            if let Some(grant) = locked(&world.tokens).get(token) {
                if grant.expires <= now {
                    return Err(refusal("Lifetime validation failed, the token is expired."));
                }
                return Ok(Signed {
                    world: Arc::clone(world),
                    grant: grant.clone(),
                });
            }
        }
        Err(refusal(
            "CompactToken parsing failed with error code: 80049217",
        ))
    }

    /// `$batch`, which can meet faults of its own.
    async fn batch(self: &Arc<Self>, signed: &Signed, call: &Call) -> Outcome {
        let world = &signed.world;
        let conduct = world.conduct();
        if call.method != "POST" {
            return Outcome::Answer(Answer::error(
                405,
                "BadRequest",
                "Only POST is supported for $batch.",
            ));
        }
        let key = call
            .body
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let subject = Subject {
            method: "POST",
            path: "/$batch",
            key: &key,
            scope: Scope::Batch,
            mailbox: None,
        };
        let fault = locked(&world.traffic).fault(world.seed, &conduct, &subject);
        let after = match before(fault).await {
            Before::End(outcome) => return outcome,
            Before::Run(after) => after,
        };
        let answer = batch::run(self, signed, call.body.as_ref(), call).await;
        after.unwrap_or(Outcome::Answer(answer))
    }

    /// One request, alone or of a batch.
    pub(crate) async fn run(&self, signed: &Signed, call: &Call) -> Outcome {
        let world = &signed.world;
        let conduct = world.conduct();
        let route = match Route::parse(&call.target) {
            Ok(route) => route,
            Err(error) => {
                return Outcome::Answer(self.finished(
                    world,
                    call,
                    None,
                    Outcome::Answer(error.into()),
                ));
            }
        };
        let user = route.user_key().and_then(|key| self.user(world, key));
        let path = format!("/{}", route.path.join("/"));
        let subject = Subject {
            method: &call.method,
            path: &path,
            key: &call.target,
            scope: route.scope,
            mailbox: user,
        };
        let outcome = match admit(world, &subject, &conduct.throttle, clock::instant()) {
            Err(seconds) => Outcome::Answer(Answer::throttled(seconds)),
            Ok(place) => {
                self.admitted(signed, call, &route, &subject, &conduct, place)
                    .await
            }
        };
        self.logged(world, call, &route, user, &outcome);
        match outcome {
            Outcome::Answer(_) => Outcome::Answer(self.finished(world, call, user, outcome)),
            cut => cut,
        }
    }

    /// A request that runs, with its faults and its time.
    async fn admitted(
        &self,
        signed: &Signed,
        call: &Call,
        route: &Route,
        subject: &Subject<'_>,
        conduct: &Conduct,
        place: Place,
    ) -> Outcome {
        let world = &signed.world;
        let fault = locked(&world.traffic).fault(world.seed, conduct, subject);
        if !conduct.service_time.is_zero() {
            sleep_until(clock::instant() + conduct.service_time).await;
        }
        let after = match before(fault).await {
            Before::End(outcome) => return outcome,
            Before::Run(after) => after,
        };
        let path: Vec<&str> = route.path.iter().map(String::as_str).collect();
        let base = format!("{}/v1.0", self.base);
        let context = Context {
            world,
            conduct,
            grant: &signed.grant,
            method: &call.method,
            path: &path,
            options: &route.options,
            payload: call.body.as_ref().map_or(Payload::None, Payload::Json),
            user: subject.mailbox,
            immutable: call.prefers_immutable(),
            eventual: call
                .header("consistencylevel")
                .is_some_and(|level| level.eq_ignore_ascii_case("eventual")),
            base: &base,
        };
        let answer = graph::handle(&context);
        drop(place);
        after.unwrap_or(Outcome::Answer(answer))
    }

    /// The user that a key names; a user of another tenant is noted, for that is always a client's mistake.
    fn user(&self, world: &Arc<World>, key: &str) -> Option<u32> {
        let found = locked(&world.state).directory.user(key);
        if found.is_none() {
            let worlds = self
                .worlds
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let others = worlds.iter().filter(|other| !Arc::ptr_eq(other, world));
            if others
                .into_iter()
                .any(|other| locked(&other.state).directory.user(key).is_some())
            {
                locked(&world.traffic).counts.foreign += 1;
            }
        }
        found
    }

    /// The answer with the ids of the request in it.
    fn finished(&self, world: &World, call: &Call, _user: Option<u32>, outcome: Outcome) -> Answer {
        let Outcome::Answer(mut answer) = outcome else {
            return Answer::no_content();
        };
        if answer.status == 429 {
            locked(&world.traffic).counts.throttled += 1;
        }
        let request_id = locked(&self.random).guid();
        let client_request_id = call
            .header("client-request-id")
            .map_or_else(|| request_id.to_string(), ToOwned::to_owned);
        answer.headers.push(("request-id", request_id.to_string()));
        answer
            .headers
            .push(("client-request-id", client_request_id.clone()));
        if call.prefers_immutable() {
            answer
                .headers
                .push(("Preference-Applied", "IdType=\"ImmutableId\"".into()));
        }
        answer.with_ids(request_id, &client_request_id, clock::now())
    }

    fn logged(
        &self,
        world: &World,
        call: &Call,
        route: &Route,
        user: Option<u32>,
        outcome: &Outcome,
    ) {
        if !world.conduct().log {
            return;
        }
        let address = user.and_then(|user| {
            locked(&world.state)
                .directory
                .user_at(user)
                .map(|user| user.is.address.clone())
        });
        let (_, query) = call.target.split_once('?').unwrap_or_default();
        let query = percent_encoding::percent_decode_str(&query.replace('+', " "))
            .decode_utf8_lossy()
            .into_owned();
        let request = Request {
            at: clock::now(),
            method: call.method.clone(),
            path: format!("/{}", route.path.join("/")),
            query,
            mailbox: address,
            status: match outcome {
                Outcome::Answer(answer) => answer.status,
                Outcome::Dropped | Outcome::Disconnected => 0,
            },
            batch: call.batch,
            immutable: call.prefers_immutable(),
        };
        locked(&world.traffic).log.push(request);
    }

    /// The answer to what is wrong before a tenant is known.
    pub(crate) fn refused(&self, answer: Answer, client_request_id: Option<&str>) -> Answer {
        let request_id: Uuid = locked(&self.random).guid();
        let echoed = client_request_id.map_or_else(|| request_id.to_string(), ToOwned::to_owned);
        let mut answer = answer.with_ids(request_id, &echoed, clock::now());
        answer.headers.push(("request-id", request_id.to_string()));
        answer.headers.push(("client-request-id", echoed));
        answer
    }
}

/// What a fault does before the request takes effect.
enum Before {
    /// It ends the request.
    End(Outcome),
    /// The request runs; then this instead of its answer, if something.
    Run(Option<Outcome>),
}

async fn before(fault: Option<FaultKind>) -> Before {
    let Some(fault) = fault else {
        return Before::Run(None);
    };
    match fault {
        FaultKind::Status(status, retry_after) => {
            let answer = trouble(status);
            let answer = match retry_after {
                Some(seconds) => answer.retry_after(seconds),
                None => answer,
            };
            Before::End(Outcome::Answer(answer))
        }
        FaultKind::StatusAfter(status) => Before::Run(Some(Outcome::Answer(trouble(status)))),
        FaultKind::Unauthorized => Before::End(Outcome::Answer(Answer::error(
            401,
            "InvalidAuthenticationToken",
            "Access token validation failure.",
        ))),
        FaultKind::Dropped => Before::End(Outcome::Dropped),
        FaultKind::DroppedAfter => Before::Run(Some(Outcome::Dropped)),
        FaultKind::Disconnected => Before::End(Outcome::Disconnected),
        FaultKind::Slow(time) => {
            sleep_until(clock::instant() + time).await;
            Before::Run(None)
        }
    }
}

/// An error body for a status that a fault gives.
fn trouble(status: u16) -> Answer {
    let (code, message) = match status {
        429 => (
            "ApplicationThrottled",
            "Application is over its MailboxConcurrency limit.",
        ),
        500 => ("ErrorInternalServerTransientError", "Cannot open mailbox."),
        502 => ("BadGateway", "Failed to execute backend request."),
        503 => (
            "ErrorServerBusy",
            "The server cannot service this request right now. Try again later.",
        ),
        504 => ("UnknownError", "The gateway did not get an answer in time."),
        _ => ("UnknownError", "Something went wrong."),
    };
    Answer::error(status, code, message)
}
