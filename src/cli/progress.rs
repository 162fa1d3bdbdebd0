//! Progress on standard error: a line that moves, on a terminal alone.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::Context;

/// How often the line moves while nothing is counted.
const TICK: Duration = Duration::from_millis(200);

/// A line that moves until it is dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Nothing moves with `--quiet` or where standard error is no terminal.
    pub(super) fn new(context: &Context) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if context.global.quiet || bar.is_hidden() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else {
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }

    /// Whether nobody sees it.
    pub(super) fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    /// Says how far it is. What strangers wrote does not belong here.
    pub(super) fn say(&self, text: String) {
        self.0.set_message(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
