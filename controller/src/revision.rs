//! How far a replica's caches have come, so that a replica that lags never rolls a sidecar back.
//!
//! Resource versions of a kind grow with every change (Kubernetes API concepts, "Resource versions"), but caches of kinds advance
//! independently: hence a number for each. A sidecar says with its first request what the state it holds was made of; a replica serves it
//! once it has seen as much itself.

use std::collections::BTreeMap;
use std::fmt;

/// The newest resource version by kind. A source without such numbers has none, and then nothing is ever behind.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Revision(BTreeMap<String, u64>);

impl Revision {
    /// Takes note of a resource version; an older one changes nothing.
    pub fn raise(&mut self, kind: &str, version: u64) {
        match self.0.get_mut(kind) {
            Some(newest) => *newest = version.max(*newest),
            None => drop(self.0.insert(kind.to_owned(), version)),
        }
    }

    /// Whether everything that the other one has seen was seen here too. Kinds that are not followed here cannot be waited for.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(kind, version)| self.0.get(kind).is_none_or(|newest| newest >= version))
    }

    /// Reads what [`fmt::Display`] writes; what cannot be read is left out: it is a hint of a peer, and the worst that follows is no wait.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        Self(pairs.filter_map(|(kind, version)| Some((kind.to_owned(), version.parse().ok()?))).collect())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (kind, version)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{kind}={version}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_lags_in_one_kind_does_not_cover() {
        let newer = Revision::parse("httproutes=12,services=30");
        assert!(!Revision::parse("httproutes=11,services=99").covers(&newer));
        assert!(Revision::parse("httproutes=12,services=99").covers(&newer));
    }

    #[test]
    fn a_kind_that_is_not_followed_is_not_waited_for() {
        assert!(Revision::parse("services=1").covers(&Revision::parse("tcproutes=5")));
        assert!(Revision::default().covers(&Revision::parse("tcproutes=5")));
    }

    #[test]
    fn text_and_back() {
        let mut revision = Revision::default();
        revision.raise("services", 7);
        revision.raise("httproutes", 9);
        revision.raise("services", 3);
        assert_eq!(revision.to_string(), "httproutes=9,services=7");
        assert_eq!(Revision::parse(&revision.to_string()), revision);
        assert_eq!(Revision::parse("nonsense,=,a=b,services=4").to_string(), "services=4");
    }
}
