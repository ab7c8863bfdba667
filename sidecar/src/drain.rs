//! The end of a sidecar: it goes on accepting while the application winds down, ends when connections are gone or the grace period is
//! over, and only then says GOAWAY and `Connection: close`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::listener;

/// How often it is looked whether connections are gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After the farewell, requests in flight have this long.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// Waits for the end of all connections, for `grace` and a farewell at most.
pub(crate) async fn drain(room: Arc<Semaphore>, grace: Duration, farewell: CancellationToken) {
    info!(grace_s = grace.as_secs(), "drains");
    if !emptied(&room, grace).await {
        farewell.cancel();
        emptied(&room, FAREWELL_MAX).await;
    }
    info!("ends");
}

async fn emptied(room: &Semaphore, within: Duration) -> bool {
    let end = Instant::now() + within;
    while !listener::is_empty(room) {
        if Instant::now() >= end {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}
