//! Shares of backends (H-20, H-21; `BackendRef.weight`).

use serde_json::Value;

/// "Weight specifies the proportion of requests forwarded to the referenced backend. This is computed as weight/(sum of all weights in this
/// BackendRefs list). ... If unspecified, weight defaults to 1." Invalid backends keep theirs.
pub(crate) fn shares(backend_refs: &Value) -> Vec<u64> {
    super::items(backend_refs).map(|backend| backend["weight"].as_u64().unwrap_or(1)).collect()
}
