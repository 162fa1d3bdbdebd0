//! Refusals of the admin API: problem+json (RFC 9457), with the exit code that a command ends with.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::cli::Exit;

/// A refusal.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    exit: Exit,
    detail: String,
}

impl Problem {
    /// The request is wrong: exit 2.
    pub(super) fn usage(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Exit::Usage, detail)
    }

    /// What was named does not exist: exit 1.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, Exit::Finding, detail)
    }

    /// The caller or the request is refused by policy: exit 4.
    pub(super) fn policy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, Exit::Policy, detail)
    }

    /// Microsoft Graph refuses: exit 5.
    pub(super) fn graph(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, Exit::Graph, detail)
    }

    /// The service itself is in trouble: exit 3.
    pub(super) fn trouble(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Exit::Unreachable, detail)
    }

    fn new(status: StatusCode, exit: Exit, detail: impl Into<String>) -> Self {
        Self {
            status,
            exit,
            detail: detail.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "exit": self.exit as u8,
        });
        let media = HeaderValue::from_static("application/problem+json");
        (self.status, [(header::CONTENT_TYPE, media)], Json(body)).into_response()
    }
}
