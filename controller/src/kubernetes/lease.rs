//! Which of the replicas leads: the one that holds the Lease.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::MANAGER;

/// A leader that is gone without a word is replaced after this time.
const LEASE_S: u64 = 15;
/// And renews this long before.
const LEASE_GRACE_S: u64 = 5;
/// At the end the lease is given back within this time, or runs out by itself.
const LEASE_RELEASE_MAX: Duration = Duration::from_secs(2);
/// After an error of the lease the next attempt waits this long.
const LEASE_PAUSE: Duration = Duration::from_secs(2);

/// Says whether this replica leads, until cancelled; then the lease is given back.
pub(super) async fn lead(client: Client, namespace: &str, identity: &str, leads: watch::Sender<bool>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let builder = LeaseManagerBuilder::new(client.clone(), MANAGER).with_namespace(namespace).with_identity(identity);
        let built = builder.with_field_manager(identity).with_duration(LEASE_S).with_grace(LEASE_GRACE_S).build();
        let manager = tokio::select! {
            () = stop.cancelled() => return,
            built = built => built,
        };
        match manager {
            Ok(manager) => {
                let (mut state, task) = manager.watch().await;
                while tell(&mut state, &leads, &stop).await {}
                leads.send_replace(false);
                drop(state);
                match tokio::time::timeout(LEASE_RELEASE_MAX, task).await {
                    Ok(Ok(Ok(_))) => {}
                    Ok(Ok(Err(error))) => warn!(%error, "the lease is lost"),
                    Ok(Err(error)) => error!(%error, "the lease's task"),
                    Err(_) => warn!("the lease cannot be given back in time"),
                }
            }
            Err(error) => warn!(%error, "the lease cannot be had"),
        }
        tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(LEASE_PAUSE) => {} }
    }
}

/// Passes on one change; whether more may come.
async fn tell(state: &mut watch::Receiver<bool>, leads: &watch::Sender<bool>, stop: &CancellationToken) -> bool {
    let now = *state.borrow_and_update();
    if leads.send_if_modified(|leads| std::mem::replace(leads, now) != now) {
        info!(leads = now, "leadership");
    }
    tokio::select! {
        () = stop.cancelled() => false,
        changed = state.changed() => changed.is_ok(),
    }
}
