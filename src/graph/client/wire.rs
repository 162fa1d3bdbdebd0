//! HTTP: one pool, TLS with the system's and the configured authorities, no redirects.

use std::error::Error;
use std::fmt::Write as _;

use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, NoProxy, Proxy, Response};
use serde_json::Value;
use tracing::debug;
use uuid::Uuid;

use super::{ClientError, Clock, Outgoing, Settings};
use crate::graph::api::{Answer, retry_after};

/// Octets of an answer that are read. A batch of 20 pages of messages with their headers stays well below.
const ANSWER_OCTETS: usize = 64 << 20;

/// The connection pool. Clones share it.
#[derive(Clone)]
pub(super) struct Wire {
    http: reqwest::Client,
    clock: Clock,
}

impl Wire {
    pub(super) fn new(settings: &Settings) -> Result<Self, ClientError> {
        let setup = |what: &str, error: reqwest::Error| {
            ClientError::Setup(format!(
                "tenant {}: {what}: {}",
                settings.tenant,
                chain(&error)
            ))
        };
        let mut builder = reqwest::Client::builder()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.timeout)
            .user_agent(concat!("clawback/", env!("CARGO_PKG_VERSION")));
        for pem in &settings.authorities {
            let bundle = Certificate::from_pem_bundle(pem);
            let bundle = bundle.map_err(|error| setup("ca_file cannot be read", error))?;
            builder = builder.tls_certs_merge(bundle);
        }
        if settings.graph.is_loopback() && settings.login.is_loopback() {
            builder = builder.no_proxy();
        } else if let Some(proxy) = &settings.proxy {
            let proxy = Proxy::all(proxy.clone());
            let proxy = proxy.map_err(|error| setup("network.proxy cannot be used", error))?;
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_env()));
        }
        let http = builder
            .build()
            .map_err(|error| setup("no HTTP client", error))?;
        Ok(Self {
            http,
            clock: settings.clock,
        })
    }

    /// Sends a request to Graph.
    pub(super) async fn send(
        &self,
        outgoing: &Outgoing<'_>,
        bearer: &HeaderValue,
    ) -> Result<Answer, ClientError> {
        let id = Uuid::new_v4();
        let mut request = match outgoing.post {
            true => self.http.post(&outgoing.url),
            false => self.http.get(&outgoing.url),
        };
        request = request
            .header(AUTHORIZATION, bearer)
            .header(ACCEPT, "application/json")
            .header("client-request-id", id.to_string());
        for (name, value) in &outgoing.headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = outgoing.body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.map_err(|error| lost(&error))?;
        let status = response.status().as_u16();
        debug!(client_request_id = %id, status, "Graph answered");
        let now: Timestamp = (self.clock.wall)();
        let wait = response.headers().get(RETRY_AFTER);
        let wait = wait.and_then(|value| retry_after(value.to_str().ok()?, now));
        let octets = read(response).await?;
        Ok(Answer {
            status,
            retry_after: wait,
            body: serde_json::from_slice(&octets).unwrap_or(Value::Null),
        })
    }

    /// Sends a token request. It says nothing about what was in it, whatever happens.
    pub(super) async fn token(
        &self,
        request: oauth2::HttpRequest,
    ) -> Result<oauth2::HttpResponse, ClientError> {
        let (parts, body) = request.into_parts();
        let mut outgoing = self.http.request(parts.method, parts.uri.to_string());
        for (name, value) in &parts.headers {
            outgoing = outgoing.header(name, value);
        }
        let response = outgoing
            .body(body)
            .send()
            .await
            .map_err(|error| lost(&error))?;
        let status = response.status();
        if status.is_server_error() || status.as_u16() == 429 {
            // Whatever its body says, that passes.
            return Err(ClientError::Lost(format!("it answered {status}")));
        }
        let mut answer = oauth2::HttpResponse::new(Vec::new());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = response.headers().clone();
        *answer.body_mut() = read(response).await?;
        Ok(answer)
    }
}

/// Reads an answer, up to a bound.
async fn read(mut response: Response) -> Result<Vec<u8>, ClientError> {
    let mut octets = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| lost(&error))? {
        if octets.len() + chunk.len() > ANSWER_OCTETS {
            let why = format!("it is longer than {ANSWER_OCTETS} octets");
            return Err(ClientError::Lost(why));
        }
        octets.extend_from_slice(&chunk);
    }
    Ok(octets)
}

/// What an error of the exchange means for the request.
fn lost(error: &reqwest::Error) -> ClientError {
    let why = chain(error);
    if error.is_connect() || error.is_builder() {
        ClientError::NotSent(why)
    } else {
        ClientError::Lost(why)
    }
}

/// An error with its causes, without the URL, which holds Message-IDs.
fn chain(error: &reqwest::Error) -> String {
    let mut text = match (error.is_timeout(), error.is_connect()) {
        (true, _) => "time ran out".to_owned(),
        (_, true) => "no connection".to_owned(),
        _ => "the exchange broke".to_owned(),
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
