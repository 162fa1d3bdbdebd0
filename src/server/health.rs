//! `[admin] metrics`: `GET /metrics` in the Prometheus text format, `/healthz`, `/readyz`.
//!
//! Plain HTTP without a token: no name, address or content of a message is in what it answers.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::telemetry;

/// The content type of the Prometheus text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the answers come from.
#[derive(Clone)]
struct Source {
    /// Publishes the numbers that are looked at, not counted.
    publish: Arc<dyn Fn() + Send + Sync>,
    /// Whether the service takes reports.
    ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Answers until `stop` resolves.
///
/// # Errors
///
/// What the system said of the socket.
pub async fn serve(
    listener: TcpListener,
    publish: impl Fn() + Send + Sync + 'static,
    ready: impl Fn() -> bool + Send + Sync + 'static,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let source = Source {
        publish: Arc::new(publish),
        ready: Arc::new(ready),
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .with_state(source);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await
}

async fn metrics(State(source): State<Source>) -> impl IntoResponse {
    // The numbers are behind locks that a disk may hold.
    let page = tokio::task::spawn_blocking(move || {
        (source.publish)();
        telemetry::metrics().render()
    });
    match page.await {
        Ok(page) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], page).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn readiness(State(source): State<Source>) -> impl IntoResponse {
    if (source.ready)() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}
