//! What a source of objects has come to, for those who look from outside.

use std::collections::{BTreeMap, BTreeSet};

/// State of the source.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Everything there is has been read once.
    pub complete: bool,
    /// Digest of the files of a directory, as it was read last.
    pub digest: Option<String>,
    /// This replica writes statuses.
    pub leads: bool,
    /// Objects in force.
    pub objects: usize,
    /// Files and objects that cannot be read.
    pub problems: usize,
    /// Kinds that the API server does not serve.
    pub missing: BTreeSet<&'static str>,
    /// Kinds that cannot be followed at the moment, and why: what was known of them stays in force.
    pub failing: BTreeMap<&'static str, String>,
}
