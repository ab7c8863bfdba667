//! The end of a sidecar: it goes on accepting while the application winds down, ends when connections are gone or the grace period is
//! over, and only then says GOAWAY and `Connection: close`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::worker::WorkerHandle;

/// How often it is looked whether connections are gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After the farewell, requests in flight have this long.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// Waits for the end of all connections, for `grace` and a farewell at most.
pub(crate) async fn drain(workers: Arc<[WorkerHandle]>, grace: Duration, farewell: CancellationToken) {
    info!(grace_s = grace.as_secs(), "drains");
    if !emptied(&workers, grace).await {
        farewell.cancel();
        emptied(&workers, FAREWELL_MAX).await;
    }
    info!("ends");
}

async fn emptied(workers: &[WorkerHandle], within: Duration) -> bool {
    let end = Instant::now() + within;
    while workers.iter().any(|worker| worker.load() > 0) {
        if Instant::now() >= end {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}
