//! Durations as GEP-2257 defines them: what its regular expression takes is taken, as the sum of its parts, and nothing else is.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use regex::Regex;
use routing::api::{Metadata, Route};
use routing::model::RouteKind;
use serde_json::json;

static WHOLE: LazyLock<Regex> = LazyLock::new(|| Regex::new("^([0-9]{1,5}(h|m|s|ms)){1,4}$").expect("GEP-2257's own"));
static PART: LazyLock<Regex> = LazyLock::new(|| Regex::new("([0-9]+)([a-z]+)").expect("a pattern"));

fuzz_target!(|text: &str| assert_eq!(parsed(text), expected(text), "{text:?}"));

/// Through a field that keeps a duration as it is.
fn parsed(text: &str) -> Option<Duration> {
    let rules = vec![json!({"retry": {"backoff": text}})];
    let route = Route { kind: RouteKind::Http, metadata: Metadata::default(), parents: Vec::new(), hostnames: Vec::new(), rules };
    let rule = routing::parse::rules(&route).pop().expect("one rule in, one out");
    rule.ok().and_then(|rule| rule.retry?.backoff)
}

fn expected(text: &str) -> Option<Duration> {
    let milliseconds = |part: regex::Captures<'_>| {
        let number: u64 = part[1].parse().expect("five digits at most");
        number
            * match &part[2] {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1000,
                _ => 1,
            }
    };
    WHOLE.is_match(text).then(|| Duration::from_millis(PART.captures_iter(text).map(milliseconds).sum()))
}
