//! Retraction jobs.

use axum::extract::State;
use axum::response::Response;

use super::Service;
use super::problem::Problem;

pub(super) async fn list(State(_): State<Service>) -> Result<Response, Problem> {
    Err(Problem::usage("not yet"))
}
pub(super) async fn start(State(_): State<Service>) -> Result<Response, Problem> {
    Err(Problem::usage("not yet"))
}
pub(super) async fn show(State(_): State<Service>) -> Result<Response, Problem> {
    Err(Problem::usage("not yet"))
}
