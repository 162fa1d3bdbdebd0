//! `demo`.

use clap::Args;

use super::{Context, Outcome, later};

/// Placeholder
#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: &mut Context, _: &Arguments) -> Outcome {
    later::refuse("demo")
}
