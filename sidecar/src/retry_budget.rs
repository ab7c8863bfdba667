//! How much of what is sent to a backend may be sent again (XBackendTrafficPolicy; GEP-3388): a share of what was sent lately, and a rate that is
//! allowed anyway.

use parking_lot::Mutex;
use routing::model::RetryBudget;

/// A window is looked at in so many parts: the oldest one is forgotten as a whole.
const PARTS: usize = 10;

/// What was sent to a backend lately; shared by all workers.
#[derive(Debug)]
pub(crate) struct Budget {
    model: RetryBudget,
    windows: Mutex<Windows>,
}

#[derive(Debug)]
struct Windows {
    sent: Window,
    retried: Window,
    retried_lately: Window,
}

impl Budget {
    /// A budget of which nothing is used.
    pub(crate) fn new(model: RetryBudget) -> Self {
        let (interval_ms, min_interval_ms) = (millis(model.interval), millis(model.min.interval));
        let windows =
            Windows { sent: Window::new(interval_ms), retried: Window::new(interval_ms), retried_lately: Window::new(min_interval_ms) };
        Self { model, windows: Mutex::new(windows) }
    }

    /// Whether it is one of this kind: then what it has counted still counts.
    pub(crate) fn is(&self, model: RetryBudget) -> bool {
        self.model == model
    }

    /// Counts a request that is sent for the first time.
    pub(crate) fn sent(&self, now_ms: u64) {
        self.windows.lock().sent.add(now_ms);
    }

    /// Takes a retry out of the budget, if there is one left in it.
    pub(crate) fn take(&self, now_ms: u64) -> bool {
        let windows = &mut *self.windows.lock();
        let retried = windows.retried.sum(now_ms) + 1;
        let all = windows.sent.sum(now_ms) + retried;
        let within_share = retried * 100 <= all * u64::from(self.model.percent);
        let within_rate = windows.retried_lately.sum(now_ms) < u64::from(self.model.min.count);
        if within_share || within_rate {
            windows.retried.add(now_ms);
            windows.retried_lately.add(now_ms);
        }
        within_share || within_rate
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Events of the last while.
#[derive(Debug)]
struct Window {
    part_ms: u64,
    newest: u64,
    counts: [u64; PARTS],
}

impl Window {
    fn new(span_ms: u64) -> Self {
        Self { part_ms: (span_ms / PARTS as u64).max(1), newest: 0, counts: [0; PARTS] }
    }

    fn turn(&mut self, now_ms: u64) -> usize {
        let part = now_ms / self.part_ms;
        let passed = part.saturating_sub(self.newest).min(PARTS as u64);
        for step in 1..=passed {
            self.counts[index(self.newest + step)] = 0;
        }
        if passed == PARTS as u64 {
            self.counts = [0; PARTS];
        }
        self.newest = self.newest.max(part);
        index(self.newest)
    }

    fn add(&mut self, now_ms: u64) {
        let index = self.turn(now_ms);
        self.counts[index] += 1;
    }

    fn sum(&mut self, now_ms: u64) -> u64 {
        self.turn(now_ms);
        self.counts.iter().sum()
    }
}

fn index(part: u64) -> usize {
    usize::try_from(part % PARTS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use routing::model::MinRetryRate;

    use super::*;

    fn budget(percent: u32, count: u32) -> Budget {
        let min = MinRetryRate { count, interval: Duration::from_secs(1) };
        Budget::new(RetryBudget { percent, interval: Duration::from_secs(10), min })
    }

    #[test]
    fn retries_are_a_share_of_all_that_is_sent() {
        let budget = budget(20, 1);
        (0..800).for_each(|_| budget.sent(5000));
        let taken = (0..800).filter(|_| budget.take(5500)).count();
        assert_eq!(taken, 200, "of 1000 requests 200 may be retries (GEP-3388)");
        assert!(!budget.take(5600));
        assert!(budget.take(60_000), "the rate that is allowed anyway, once all is forgotten");
        assert!(!budget.take(60_000));
    }

    #[test]
    fn a_rate_is_allowed_anyway() {
        let budget = budget(0, 3);
        assert_eq!((0..10).filter(|_| budget.take(1000)).count(), 3);
        assert_eq!((0..10).filter(|_| budget.take(2500)).count(), 3, "a second later");
    }
}
