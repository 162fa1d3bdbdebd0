//! The listener: TLS, HTTP/1.1 and HTTP/2, and what a front end checks before a service sees a request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Response, Version, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::graph::{Answer, Body};
use crate::login;
use crate::service::{Call, Outcome, Service};
use crate::settings::{FaultKind, Scope};
use crate::traffic::Subject;
use crate::world::{World, locked};

/// Largest request body.
const BODY: usize = 4 << 20;

/// A connection or a stream that is cut on purpose.
#[derive(Debug, thiserror::Error)]
#[error("cut as asked")]
struct Cut;

/// Serves until `shutdown`.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service: Arc<Service>,
    shutdown: CancellationToken,
) {
    loop {
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "the simulated tenant cannot accept a connection");
                    continue;
                }
            },
        };
        let (tls, service, ended) = (tls.clone(), Arc::clone(&service), shutdown.child_token());
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = connection(stream, peer, tls, service, ended.clone()) => {}
            }
        });
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    service: Arc<Service>,
    ended: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY refused");
    }
    match tls {
        None => http(stream, service, ended).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => http(stream, service, ended).await,
            Err(error) => tracing::debug!(%peer, %error, "no TLS session"),
        },
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: Arc<Service>,
    ended: CancellationToken,
) {
    let answer = hyper::service::service_fn(move |request| {
        let (service, ended) = (Arc::clone(&service), ended.clone());
        async move { answer(request, &service, &ended).await }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), answer).await {
        tracing::debug!(%error, "connection ended");
    }
}

/// Answers one request, or cuts it.
async fn answer(
    request: hyper::Request<Incoming>,
    service: &Arc<Service>,
    ended: &CancellationToken,
) -> Result<Response<Full<Bytes>>, Cut> {
    let (parts, body) = request.into_parts();
    let headers: HashMap<String, String> = parts
        .headers
        .iter()
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let client_request_id = headers.get("client-request-id").cloned();
    let refused = |answer| {
        Ok(response(
            service.refused(answer, client_request_id.as_deref()),
        ))
    };
    // A front end asks for a length even where there is nothing to send (RFC 9110 §15.5.12).
    let unsized_body =
        !headers.contains_key("content-length") && !headers.contains_key("transfer-encoding");
    if parts.version == Version::HTTP_11 && parts.method == Method::POST && unsized_body {
        return refused(Answer::error(
            411,
            "LengthRequired",
            "HTTP Error 411. The request must be chunked or have a content length.",
        ));
    }
    let octets = match Limited::new(body, BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            return refused(Answer::error(
                413,
                "RequestEntityTooLarge",
                "The request body is too large.",
            ));
        }
    };
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str())
        .to_owned();
    if let Some(tenant) = token_path(&target) {
        return token(service, &parts.method, tenant, &headers, &octets, ended).await;
    }
    let body = match json(&headers, &octets) {
        Ok(body) => body,
        Err(refusal) => return refused(refusal),
    };
    let call = Call {
        method: parts.method.to_string(),
        target,
        headers: headers.clone(),
        body,
        batch: None,
    };
    match service.graph(call).await {
        Outcome::Answer(answer) if answer.headers.iter().any(|(name, _)| *name == "request-id") => {
            Ok(response(answer))
        }
        Outcome::Answer(answer) => refused(answer),
        Outcome::Dropped => Err(Cut),
        Outcome::Disconnected => {
            ended.cancel();
            Err(Cut)
        }
    }
}

/// The body of a Graph request.
fn json(headers: &HashMap<String, String>, octets: &[u8]) -> Result<Option<Value>, Answer> {
    if octets.is_empty() {
        return Ok(None);
    }
    let content_type = headers.get("content-type").map_or("", String::as_str);
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Answer::error(
            415,
            "UnsupportedMediaType",
            format!("The content type {content_type:?} is not supported; application/json is."),
        ));
    }
    let value = serde_json::from_slice(octets);
    value.map(Some).map_err(|error| {
        Answer::error(
            400,
            "BadRequest",
            format!("Unable to read JSON request payload: {error}"),
        )
    })
}

/// The tenant of `/{tenant}/oauth2/v2.0/token`.
fn token_path(target: &str) -> Option<&str> {
    let tenant = target
        .strip_prefix('/')?
        .strip_suffix("/oauth2/v2.0/token")?;
    (!tenant.is_empty() && !tenant.contains('/')).then_some(tenant)
}

/// The token endpoint.
async fn token(
    service: &Arc<Service>,
    method: &Method,
    tenant: &str,
    headers: &HashMap<String, String>,
    octets: &[u8],
    ended: &CancellationToken,
) -> Result<Response<Full<Bytes>>, Cut> {
    let now = clock::now();
    let content_type = headers.get("content-type").map_or("", String::as_str);
    if *method != Method::POST
        || !content_type
            .to_lowercase()
            .starts_with("application/x-www-form-urlencoded")
    {
        let answer = Answer::error(
            400,
            "invalid_request",
            "POST with application/x-www-form-urlencoded is expected.",
        );
        return Ok(response(answer));
    }
    let Some(world) = world(service, tenant) else {
        return Ok(token_response(login::unknown_tenant(tenant, now)));
    };
    let fault = {
        let subject = Subject {
            method: "POST",
            path: "/token",
            key: "/token",
            scope: Scope::Token,
            mailbox: None,
        };
        locked(&world.traffic).fault(world.seed, &world.conduct(), &subject)
    };
    match fault {
        Some(FaultKind::Status(status, _) | FaultKind::StatusAfter(status)) => {
            return Ok(response(Answer::error(
                status,
                "temporarily_unavailable",
                "Trouble.",
            )));
        }
        Some(FaultKind::Disconnected) => {
            ended.cancel();
            return Err(Cut);
        }
        Some(FaultKind::Dropped | FaultKind::DroppedAfter) => return Err(Cut),
        Some(FaultKind::Slow(time)) => tokio::time::sleep_until(clock::instant() + time).await,
        Some(FaultKind::Unauthorized) | None => {}
    }
    let answered = match login::form(octets, now) {
        Err(refusal) => refusal,
        Ok(fields) => {
            let basic = headers.get("authorization").map(String::as_str);
            login::token(
                &world,
                &fields,
                basic,
                now,
                clock::instant(),
                &mut locked(&service.random),
            )
        }
    };
    Ok(token_response(answered))
}

/// The tenant with a GUID or a verified domain.
fn world(service: &Service, key: &str) -> Option<Arc<World>> {
    let worlds = service
        .worlds
        .read()
        .unwrap_or_else(PoisonError::into_inner);
    let found = worlds.iter().find(|world| {
        world.tenant_id.eq_ignore_ascii_case(key)
            || locked(&world.state)
                .directory
                .domains
                .iter()
                .any(|domain| domain.eq_ignore_ascii_case(key))
    });
    found.cloned()
}

fn token_response((status, body): login::TokenAnswer) -> Response<Full<Bytes>> {
    let mut answer = Answer::json(status, body);
    answer
        .headers
        .push(("Cache-Control", "no-store, no-cache".into()));
    response(answer)
}

/// The answer on the wire.
fn response(answer: Answer) -> Response<Full<Bytes>> {
    let (content_type, octets) = match answer.body {
        Body::None => (None, Bytes::new()),
        Body::Json(body) => (
            Some(
                "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8",
            ),
            Bytes::from(body.to_string()),
        ),
        Body::Mime(octets) => (Some("text/plain"), Bytes::from(octets)),
    };
    let mut builder = Response::builder().status(answer.status);
    if let Some(content_type) = content_type {
        builder = builder.header(header::CONTENT_TYPE, content_type);
    }
    for (name, value) in answer.headers {
        builder = builder.header(name, value);
    }
    builder.body(Full::new(octets)).unwrap_or_default()
}
