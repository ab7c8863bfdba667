//! Copies of requests (RequestMirror): sent beside the original, which they never delay or fail; nobody looks at their answers.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use tracing::debug;

use super::body::Replayable;
use super::filters::Copy;
use super::prepared::{Prepared, RequestBody, Target};
use super::send::send;
use crate::telemetry::Told;
use crate::worker::Worker;

/// Copies on their way at once, of one worker; more are not made.
const COPIES_MAX: usize = 256;
/// A copy and its answer have this long.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Sends copies, each on a task of its own.
pub(crate) fn send_copies(worker: &Rc<Worker>, copies: Vec<Copy>, body: &Replayable, destination: SocketAddr, is_grpc: bool) {
    for copy in copies {
        let Some(place) = Place::take(worker) else {
            worker.shared.telemetry.mirror("dropped");
            continue;
        };
        let prepared = Prepared {
            target: Target::Backend(copy.backend),
            parts: copy.parts,
            authority: copy.authority,
            body: if body.has_bytes() {
                RequestBody::Copy(RefCell::new(Some(body.copy(&worker.copied_bytes))))
            } else {
                RequestBody::Own(Bytes::new())
            },
            upgrade: None,
            destination,
            obeyed: None,
            kept: None,
            is_grpc,
        };
        // Ends within its time; the worker's LocalSet owns it.
        tokio::task::spawn_local(async move {
            let worker = &place.0;
            let empty = &worker.shared.empty;
            let mut told = Told::new(Arc::clone(empty), empty);
            let sent = async {
                let sent = send(worker, &prepared, &mut told).await.map_err(|reason| reason.label())?;
                // Read to its end, so that the connection can be used again.
                let mut body = sent.response.into_body();
                while let Some(frame) = body.frame().await {
                    frame.map_err(|_| "endpoint_reset")?;
                }
                worker.pool.give_back(sent.used.lease);
                Ok::<_, &'static str>(())
            };
            match tokio::time::timeout(TIME_MAX, sent).await {
                Ok(Ok(())) => worker.shared.telemetry.mirror("answered"),
                Ok(Err(reason)) => {
                    debug!(reason, "mirror");
                    worker.shared.telemetry.mirror("failed");
                }
                Err(_) => worker.shared.telemetry.mirror("timed_out"),
            }
        });
    }
}

/// A copy's place within [`COPIES_MAX`].
struct Place(Rc<Worker>);

impl Place {
    fn take(worker: &Rc<Worker>) -> Option<Self> {
        let taken = worker.copies.get();
        (taken < COPIES_MAX).then(|| {
            worker.copies.set(taken + 1);
            Self(Rc::clone(worker))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.copies.set(self.0.copies.get().saturating_sub(1));
    }
}
