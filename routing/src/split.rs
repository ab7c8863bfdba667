//! The weighted choice among a rule's backends (HTTPBackendRef.weight: weight / sum of weights).

use crate::model::WeightedBackend;

/// The index of the backend that `random`, uniform over all of `u64`, falls on; none if there is no weight at all.
///
/// An invalid backend keeps its weight: its share of requests is answered with an error and never goes elsewhere (HTTPRouteRule.backendRefs).
/// The bias of the remainder is below one in 10^12, since a rule has 16 backends of weight 1,000,000 at most.
#[must_use]
pub fn pick(backends: &[WeightedBackend], random: u64) -> Option<usize> {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let mut left = random.checked_rem(total)?;
    backends.iter().position(|backend| {
        let weight = u64::from(backend.weight);
        let hit = left < weight;
        left = left.saturating_sub(weight);
        hit
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{BackendFault, BackendFaultReason, BackendTarget};

    fn weighted(weights: &[u32]) -> Vec<WeightedBackend> {
        let fault = BackendFault { reason: BackendFaultReason::BackendNotFound, message: String::new() };
        weights
            .iter()
            .map(|weight| WeightedBackend { weight: *weight, target: BackendTarget::Invalid(fault.clone()), filters: Vec::new() })
            .collect()
    }

    #[test]
    fn without_weight_nothing_is_picked() {
        assert_eq!(pick(&[], 7), None);
        assert_eq!(pick(&weighted(&[0, 0]), 7), None);
    }

    proptest! {
        /// Over one period of the random number each backend is picked exactly as often as its weight says (H-20, H-21).
        #[test]
        fn shares_are_weights(weights in proptest::collection::vec(0..9u32, 1..6), start in 0..u64::from(u32::MAX)) {
            let backends = weighted(&weights);
            let total: u32 = weights.iter().sum();
            let mut counts = vec![0; weights.len()];
            for step in 0..u64::from(total) {
                if let Some(count) = pick(&backends, start + step).and_then(|index| counts.get_mut(index)) {
                    *count += 1;
                }
            }
            prop_assert_eq!(counts, weights);
        }
    }
}
