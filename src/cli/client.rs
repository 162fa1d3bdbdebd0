//! A client of the running service: HTTP/1.1 over its Unix socket.
//!
//! A command makes a few requests, one after the other, so one connection and a runtime on this
//! thread suffice; a look-up costs no more than the socket does.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use super::output::{Output, Table};
use super::{Exit, Failure};

/// What stays as it is in a path segment or a query (RFC 3986 §2.3, `unreserved`).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A connection to the service, made with the first request.
pub(super) struct Client {
    runtime: Runtime,
    socket: PathBuf,
    /// `--tenant`: goes with every request, so that the service refuses a name it does not know.
    tenant: Option<String>,
    sender: Option<http1::SendRequest<Body>>,
}

type Frames = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;
type Body = Either<Full<Bytes>, StreamBody<Frames>>;

/// An answer with a body that is still to be read.
pub(super) struct Answer<'a> {
    runtime: &'a Runtime,
    body: Incoming,
}

impl Client {
    pub(super) fn new(socket: PathBuf, tenant: Option<String>) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|error| Failure::usage(format!("no event loop: {error}")))?;
        Ok(Self {
            runtime,
            socket,
            tenant,
            sender: None,
        })
    }

    /// `GET path?query`.
    pub(super) fn get(
        &mut self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Answer<'_>, Failure> {
        let target = self.target(path, query);
        self.request(Method::GET, &target, "", Either::Left(Full::default()))
    }

    /// `POST path` with a JSON document.
    pub(super) fn post(&mut self, path: &str, document: &Value) -> Result<Answer<'_>, Failure> {
        let body = Either::Left(Full::from(document.to_string()));
        let target = self.target(path, &[]);
        self.request(Method::POST, &target, "application/json", body)
    }

    /// `POST path` with octets that are made while they are sent.
    pub(super) fn stream<I>(&mut self, path: &str, chunks: I) -> Result<Answer<'_>, Failure>
    where
        I: Iterator<Item = Bytes> + Send + 'static,
    {
        let frames: Frames = Box::pin(stream::iter(chunks.map(|chunk| Ok(Frame::data(chunk)))));
        let body = Either::Right(StreamBody::new(frames));
        let target = self.target(path, &[]);
        self.request(Method::POST, &target, "application/octet-stream", body)
    }

    /// Path and query of a request.
    fn target(&self, path: &str, query: &[(&str, &str)]) -> String {
        let tenant = self.tenant.as_deref().map(|name| ("tenant", name));
        let mut target = path.to_owned();
        for (number, (name, value)) in query.iter().copied().chain(tenant).enumerate() {
            target.push(if number == 0 { '?' } else { '&' });
            target.push_str(name);
            target.push('=');
            target.push_str(&segment(value));
        }
        target
    }

    fn request(
        &mut self,
        method: Method,
        target: &str,
        media: &str,
        body: Body,
    ) -> Result<Answer<'_>, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, "clawback")
            .header(
                CONTENT_TYPE,
                if media.is_empty() {
                    "application/json"
                } else {
                    media
                },
            )
            .body(body)
            .map_err(|error| Failure::usage(format!("the request cannot be made: {error}")))?;
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => self.connect()?,
        };
        let sent = self.runtime.block_on(async {
            sender.ready().await?;
            sender.send_request(request).await
        });
        let answer = sent.map_err(|error| self.lost(&error))?;
        self.sender = Some(sender);
        let status = answer.status();
        let answer = Answer {
            runtime: &self.runtime,
            body: answer.into_body(),
        };
        if status.is_success() {
            Ok(answer)
        } else {
            Err(refusal(status, &answer.document().unwrap_or_default()))
        }
    }

    fn connect(&self) -> Result<http1::SendRequest<Body>, Failure> {
        let connected = self.runtime.block_on(async {
            let stream = UnixStream::connect(&self.socket).await?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(io::Error::other)?;
            tokio::spawn(connection);
            Ok(sender)
        });
        connected.map_err(|error: io::Error| {
            let socket = self.socket.display();
            let mend = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    "is the service running? start it with: systemctl start clawback (or clawback serve)"
                }
                io::ErrorKind::PermissionDenied => {
                    "this user may not use the socket: join a group that admin.viewers or admin.operators names"
                }
                _ => "see admin.socket in the configuration",
            };
            Failure::new(Exit::Unreachable, format!("{socket}: {error}; {mend}"))
        })
    }

    fn lost(&self, error: &hyper::Error) -> Failure {
        let socket = self.socket.display();
        Failure::new(
            Exit::Unreachable,
            format!(
                "{socket}: the service went away ({error}); see its log with: journalctl -u clawback"
            ),
        )
    }
}

impl Answer<'_> {
    /// The next octets of the body; `None` at its end.
    pub(super) fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let Some(frame) = self.runtime.block_on(self.body.frame()) else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| {
                let text = format!("the answer broke off ({error}); see the service's log");
                Failure::new(Exit::Unreachable, text)
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// The whole body, as one document.
    pub(super) fn document(mut self) -> Result<Value, Failure> {
        let mut octets = Vec::new();
        while let Some(chunk) = self.chunk()? {
            octets.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&octets).map_err(|error| {
            let text =
                format!("the service's answer is no JSON ({error}); are both of one version?");
            Failure::new(Exit::Unreachable, text)
        })
    }

    /// Copies the body, which the service escaped, to standard output; tells whether there was any.
    pub(super) fn copy_to(mut self, out: &mut Output) -> Result<bool, Failure> {
        let mut any = false;
        while let Some(chunk) = self.chunk()? {
            any |= !chunk.is_empty();
            out.octets(&chunk)?;
        }
        Ok(any)
    }

    /// Prints the documents of the body, or a table with a row for each; tells whether there was any.
    pub(super) fn list(
        self,
        out: &mut Output,
        header: &[&str],
        row: impl Fn(&Value) -> Vec<String>,
    ) -> Result<bool, Failure> {
        if out.is_json() {
            return self.copy_to(out);
        }
        let mut table = Table::new(header);
        self.each(|document| Ok(table.row(out, row(&document))?))?;
        Ok(table.end(out)?)
    }

    /// Calls for each line of the body, which is a document each.
    pub(super) fn each(
        mut self,
        mut call: impl FnMut(Value) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = self.chunk()? {
            rest.extend_from_slice(&chunk);
            let Some(end) = memchr::memrchr(b'\n', &rest) else {
                continue;
            };
            let after = rest.split_off(end + 1);
            for line in rest
                .split(|octet| *octet == b'\n')
                .filter(|line| !line.is_empty())
            {
                let value = serde_json::from_slice(line).map_err(|error| {
                    Failure::new(
                        Exit::Unreachable,
                        format!("the service's answer is no JSON ({error})"),
                    )
                })?;
                call(value)?;
            }
            rest = after;
        }
        Ok(())
    }
}

/// A refusal as the service words it (RFC 9457), with the exit code that it gives.
fn refusal(status: StatusCode, problem: &Value) -> Failure {
    let detail = problem["detail"]
        .as_str()
        .or_else(|| problem["title"].as_str());
    let exit = match problem["exit"].as_u64() {
        Some(number) => Exit::from_number(number),
        None => Exit::Unreachable,
    };
    let message = detail.map_or_else(|| format!("the service answered {status}"), str::to_owned);
    Failure::new(exit, message)
}

/// Encodes a text as one path segment.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}
