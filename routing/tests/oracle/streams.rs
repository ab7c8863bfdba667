//! Which TLSRoute gets a connection.

use routing::model::{Frontend, HostPattern};

use crate::generate::{self, Merged, at_store};
use crate::spec::{self, Answer};
use crate::{compare, differs, subject};

fn oracle(case: &Merged) -> Answer {
    spec::answer(&case.objects, &at_store(443), &case.request)
}

#[test]
fn the_most_specific_server_name_gets_the_connection() {
    let subject = |case: &Merged| subject::answer(&subject::world(&case.objects), &at_store(443), &case.request);
    compare(&generate::tls_routes(), oracle, subject).unwrap_or_else(|error| panic!("{error}"));
}

/// The oldest route with a name that fits, however well.
fn by_age_alone(frontend: &Frontend, name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    let fits = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(exact) => *exact == name,
        HostPattern::Under(suffix) => name.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
    };
    frontend.routes.iter().position(|route| route.hostnames.iter().any(fits))
}

#[test]
fn the_comparison_finds_a_mistake_in_the_choice_by_server_name() {
    let subject = |case: &Merged| match subject::frontend(&subject::world(&case.objects), &at_store(443)) {
        None => Answer::Untouched,
        Some(frontend) => by_age_alone(&frontend, &case.request.server_name)
            .map_or(Answer::NoMatch, |index| Answer::Rule(subject::winner(frontend.kind, &frontend.routes[index], 0))),
    };
    assert!(differs(&generate::tls_routes(), oracle, subject));
}
