//! Answers of any length: made by a thread that may block, sent as they are made.

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;

use super::problem::Problem;
use crate::escape;

/// Octets that are gathered before they are sent.
const CHUNK: usize = 1 << 16;
/// Chunks that may wait for a reader.
const WAITING: usize = 4;

/// The reader went away; whoever makes the answer should stop.
#[derive(Debug)]
pub(super) struct Gone;

/// Where the maker of an answer writes.
pub(super) struct Sink {
    chunk: Vec<u8>,
    chunks: mpsc::Sender<Result<Bytes, std::io::Error>>,
}

impl Sink {
    /// One document, on a line of its own.
    pub(super) fn document(&mut self, value: &impl Serialize) -> Result<(), Gone> {
        if escape::write_json(&mut self.chunk, value).is_err() {
            return Err(Gone);
        }
        self.chunk.push(b'\n');
        self.send_if(CHUNK)
    }

    /// Text that is escaped already.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Gone> {
        self.chunk.extend_from_slice(text.as_bytes());
        self.send_if(CHUNK)
    }

    /// Octets as they are.
    pub(super) fn octets(&mut self, octets: &[u8]) -> Result<(), Gone> {
        self.chunk.extend_from_slice(octets);
        self.send_if(CHUNK)
    }

    /// Sends what was gathered, however little.
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        self.send_if(1)
    }

    /// Breaks the answer off: the reader sees that it is not whole.
    pub(super) fn fail(&mut self, error: impl std::fmt::Display) {
        let error = std::io::Error::other(error.to_string());
        // A reader that went away needs no reason.
        let _ = self.chunks.blocking_send(Err(error));
        self.chunk.clear();
    }

    fn send_if(&mut self, least: usize) -> Result<(), Gone> {
        if self.chunk.len() < least {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK + 4096));
        self.chunks
            .blocking_send(Ok(chunk.into()))
            .map_err(|_| Gone)
    }
}

/// An answer that `make` writes on a thread of its own. It returns what stands at the front already
/// when the first octets, or the end, are there.
pub(super) fn answer<F>(media: &'static str, make: F) -> Response
where
    F: FnOnce(&mut Sink) -> Result<(), Gone> + Send + 'static,
{
    let (chunks, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let mut sink = Sink {
            chunk: Vec::with_capacity(CHUNK + 4096),
            chunks,
        };
        // Whether the reader stayed to the end changes nothing any more.
        let _ = make(&mut sink).and_then(|()| sink.flush());
    });
    let body = Body::from_stream(stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    }));
    ([(header::CONTENT_TYPE, media)], body).into_response()
}

/// Media type of one JSON document a line.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// One document.
pub(super) fn document(value: &impl Serialize) -> Result<Response, Problem> {
    let mut line = escape::json(value).map_err(|error| Problem::trouble(error.to_string()))?;
    line.push('\n');
    Ok(([(header::CONTENT_TYPE, "application/json")], line).into_response())
}
