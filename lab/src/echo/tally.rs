//! How often something happened, by a key that the one who asks has chosen.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::{Value, json};

/// Further keys are not counted.
const KEYS_MAX: usize = 10_000;

/// Counts by key, each with what came last.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<String, Count>>);

#[derive(Debug, Default)]
struct Count {
    count: u64,
    last: Value,
}

impl Tally {
    /// Counts one more; gives how many that makes, 0 where there are too many keys.
    pub(super) fn add(&self, key: &str, last: Value) -> u64 {
        let mut counts = self.0.lock();
        if counts.len() >= KEYS_MAX && !counts.contains_key(key) {
            return 0;
        }
        let kept = counts.entry(key.to_owned()).or_default();
        *kept = Count { count: kept.count + 1, last };
        kept.count
    }

    /// What is known about a key.
    pub(super) fn read(&self, key: &str) -> Value {
        let counts = self.0.lock();
        counts.get(key).map_or_else(|| json!({"count": 0, "last": null}), |kept| json!({"count": kept.count, "last": kept.last}))
    }
}
