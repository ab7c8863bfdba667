//! What is learnt about an endpoint: latency, load, health; shared by all workers and by later forms of its backend.
//!
//! Passive health: an endpoint that cannot be connected to, or that answers with nothing but failures, is passed over for a time that grows
//! each time; never more than half of a backend at once, so that a fault of the requests cannot empty it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use routing::model::BackendId;

/// Failures in a row after which an endpoint is ejected: one or two can be a request's own fault, five hardly.
const FAILURES_MAX: u32 = 5;
/// The first ejection: longer than an attempt to connect takes, so that requests do not queue up for one that does not answer.
const EJECTION_MS_MIN: u64 = 10_000;
/// It doubles each time, up to this: a dead endpoint costs next to nothing then, and one that is back is found within minutes.
const EJECTION_MS_MAX: u64 = 300_000;
/// Up to so much of an ejection is added by chance, so that sidecars do not all come back at once.
const JITTER_PERCENT: u64 = 25;

/// What has been learnt.
#[derive(Debug, Default)]
pub(crate) struct EndpointState {
    in_flight: AtomicU32,
    latency_us: AtomicU64,
    /// Failures since the last success.
    failures: AtomicU32,
    /// Ejections since it was last well for as long as it had been ejected.
    ejections: AtomicU32,
    ejected_from_ms: AtomicU64,
    ejected_until_ms: AtomicU64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// It was answered, and not with a failure of the server.
    Success,
    /// It was answered with a 5xx or with gRPC's UNAVAILABLE, or the answer broke off.
    Failure,
    /// There is no connection at all.
    Unreachable,
}

impl EndpointState {
    /// What a further request would cost here: expected latency times those that wait. An unknown latency counts as next to nothing, so that a
    /// new endpoint is tried, and those that wait there count all the same.
    pub(crate) fn cost(&self) -> u64 {
        let waiting = u64::from(self.in_flight.load(Relaxed)) + 1;
        self.latency_us.load(Relaxed).max(1).saturating_mul(waiting)
    }

    /// Counts a request that began.
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// Counts a request that ended.
    pub(crate) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Learns the time to a response's head: a peak counts at once, and is forgotten by an eighth with each better one.
    pub(crate) fn observe(&self, latency: Duration) {
        let sample = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
        let old = self.latency_us.load(Relaxed);
        let new = if sample >= old { sample } else { old - (old - sample).div_ceil(8) };
        self.latency_us.store(new, Relaxed);
    }

    /// Whether it is passed over at `now_ms`.
    pub(crate) fn is_ejected(&self, now_ms: u64) -> bool {
        now_ms < self.ejected_until_ms.load(Relaxed)
    }

    /// Notes what became of a request; gives whether it should be ejected, which is for its backend to decide.
    pub(crate) fn note(&self, outcome: Outcome, now_ms: u64) -> bool {
        match outcome {
            Outcome::Success => {
                // Looked at before it is written: a line that all workers share stays theirs.
                if self.failures.load(Relaxed) != 0 {
                    self.failures.store(0, Relaxed);
                }
                if self.ejections.load(Relaxed) != 0 {
                    let (from_ms, until_ms) = (self.ejected_from_ms.load(Relaxed), self.ejected_until_ms.load(Relaxed));
                    if now_ms >= until_ms.saturating_add(until_ms.saturating_sub(from_ms)) {
                        self.ejections.store(0, Relaxed);
                    }
                }
                false
            }
            Outcome::Failure => self.failures.fetch_add(1, Relaxed) + 1 >= FAILURES_MAX,
            Outcome::Unreachable => true,
        }
    }

    /// Passes it over from `now_ms` on; `random` is uniform over all of `u64`.
    pub(crate) fn eject(&self, now_ms: u64, random: u64) {
        let times = self.ejections.fetch_add(1, Relaxed).min(16);
        let time_ms = EJECTION_MS_MIN.saturating_mul(1 << times).min(EJECTION_MS_MAX);
        let jitter_ms = random % (time_ms * JITTER_PERCENT / 100 + 1);
        self.failures.store(0, Relaxed);
        self.ejected_from_ms.store(now_ms, Relaxed);
        self.ejected_until_ms.store(now_ms + time_ms + jitter_ms, Relaxed);
    }
}

/// What endpoints have learnt, for as long as some snapshot holds them.
#[derive(Debug, Default)]
pub(crate) struct EndpointTable {
    states: HashMap<(BackendId, SocketAddr), Weak<EndpointState>>,
}

impl EndpointTable {
    /// What is known of an endpoint, or a beginning.
    pub(crate) fn state(&mut self, backend: &BackendId, address: SocketAddr) -> Arc<EndpointState> {
        let entry = self.states.entry((backend.clone(), address)).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let state = Arc::new(EndpointState::default());
            *entry = Arc::downgrade(&state);
            state
        })
    }

    /// Forgets endpoints that no snapshot holds.
    pub(crate) fn sweep(&mut self) {
        self.states.retain(|_, state| state.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_eject_and_a_success_forgives() {
        let state = EndpointState::default();
        for _ in 1..FAILURES_MAX {
            assert!(!state.note(Outcome::Failure, 0));
        }
        state.note(Outcome::Success, 0);
        for _ in 1..FAILURES_MAX {
            assert!(!state.note(Outcome::Failure, 0));
        }
        assert!(state.note(Outcome::Failure, 0));
        assert!(EndpointState::default().note(Outcome::Unreachable, 0), "no second look at what cannot be reached");
    }

    #[test]
    fn each_ejection_is_longer_than_the_one_before_until_it_has_been_well() {
        let state = EndpointState::default();
        let mut now_ms = 1000;
        let mut last_ms = 0;
        for _ in 0..8 {
            state.eject(now_ms, 0);
            let time_ms = state.ejected_until_ms.load(Relaxed) - now_ms;
            assert!(time_ms > last_ms || time_ms == EJECTION_MS_MAX, "{time_ms} after {last_ms}");
            assert!(state.is_ejected(now_ms) && !state.is_ejected(now_ms + time_ms));
            (now_ms, last_ms) = (now_ms + time_ms, time_ms);
        }
        state.note(Outcome::Success, now_ms);
        state.eject(now_ms, u64::MAX);
        assert!(state.ejected_until_ms.load(Relaxed) - now_ms >= EJECTION_MS_MAX, "one success is not yet health");
        now_ms += 10 * EJECTION_MS_MAX;
        state.note(Outcome::Success, now_ms);
        state.eject(now_ms, 0);
        assert_eq!(state.ejected_until_ms.load(Relaxed) - now_ms, EJECTION_MS_MIN);
    }
}
