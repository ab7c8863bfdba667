//! What is being waited for, on a terminal: a line on standard error that names the request under way and goes when the program says something.

use std::sync::LazyLock;
use std::time::Duration;

use http::Request;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What takes less is not worth a line.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// The line shows that the program lives.
const TICK: Duration = Duration::from_millis(100);

static LINE: LazyLock<ProgressBar> = LazyLock::new(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()));

/// Shows the line as soon as the program has taken long; standard error that is no terminal gets none.
pub(crate) async fn show() {
    tokio::time::sleep(SHOWN_AFTER).await;
    if !LINE.is_finished() {
        // The template is a constant; the default would show a bar without an end.
        LINE.set_style(ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        LINE.set_draw_target(ProgressDrawTarget::stderr());
        LINE.enable_steady_tick(TICK);
    }
}

/// A request is sent.
pub(crate) fn asks<B>(request: Request<B>) -> Request<B> {
    LINE.set_message(format!("{} {}", request.method(), request.uri().path()));
    request
}

/// The program has something to say, or ends.
pub(crate) fn clear() {
    LINE.finish_and_clear();
}
