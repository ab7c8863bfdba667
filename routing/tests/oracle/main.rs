//! The crate against an oracle: the specification's own sentences, applied one after the other to the objects as they are written (`spec`). The oracle
//! has its own reading of the objects and shares no code with the crate; each comparison is shown to find mistakes that are planted on purpose.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod filters;
mod generate;
mod routes;
mod spec;
mod streams;
mod subject;
mod told;
mod values;

use std::fmt::Debug;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

/// Of each comparison.
const CASES: u32 = 2000;

/// Which cases are made does not depend on the day; another seed makes others.
fn seed() -> u64 {
    std::env::var("ORACLE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Asks both about many cases; an error carries the seed and the smallest case about which they differ.
fn compare<C: Debug, A: Debug + PartialEq>(
    cases: &impl Strategy<Value = C>,
    oracle: impl Fn(&C) -> A,
    subject: impl Fn(&C) -> A,
) -> Result<(), String> {
    run(Config::default(), cases, oracle, subject)
}

/// Whether they differ about any case.
fn differs<C: Debug, A: Debug + PartialEq>(cases: &impl Strategy<Value = C>, oracle: impl Fn(&C) -> A, subject: impl Fn(&C) -> A) -> bool {
    // Nobody looks for the smallest case.
    run(Config { max_shrink_iters: 0, ..Config::default() }, cases, oracle, subject).is_err()
}

fn run<C: Debug, A: Debug + PartialEq>(
    config: Config,
    cases: &impl Strategy<Value = C>,
    oracle: impl Fn(&C) -> A,
    subject: impl Fn(&C) -> A,
) -> Result<(), String> {
    let config = Config { cases: CASES, failure_persistence: None, ..config };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed().to_be_bytes().repeat(4));
    let outcome = TestRunner::new_with_rng(config, rng).run(cases, |case| {
        let (expected, got) = (oracle(&case), subject(&case));
        if got == expected { Ok(()) } else { Err(TestCaseError::fail(format!("{got:?} instead of {expected:?}"))) }
    });
    outcome.map_err(|error| format!("ORACLE_SEED={}: {error}", seed()))
}
