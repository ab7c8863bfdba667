//! How the programs log: to standard error, what `RUST_LOG` asks for.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Logs what `RUST_LOG` asks for: levels, by module (`info,sidecar::control=debug`). Where it asks for nothing, or for what cannot be understood, `level`.
///
/// Filters by span and by pattern are left out on purpose: they bring a compiler of regular expressions to every start.
pub fn begin(level: LevelFilter) {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    let (filter, error) = filter(&asked, level);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines).with(filter).init();
    if let Some(error) = error {
        tracing::warn!(value = asked, %error, "RUST_LOG cannot be understood");
    }
}

/// What is logged, and why that is not what was asked for.
fn filter(asked: &str, level: LevelFilter) -> (Targets, Option<ParseError>) {
    let usual = Targets::new().with_default(level);
    // A part that says nothing would be taken for `error`.
    let parts: Vec<&str> = asked.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return (usual, None);
    }
    match parts.join(",").parse() {
        Ok(filter) => (filter, None),
        Err(error) => (usual, Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn what_is_asked_for_is_logged_and_what_cannot_be_understood_changes_nothing() {
        for (asked, own, others, is_understood) in [
            ("", Level::INFO, Level::INFO, true),
            ("debug", Level::DEBUG, Level::DEBUG, true),
            (" , ", Level::INFO, Level::INFO, true),
            ("debug,", Level::DEBUG, Level::DEBUG, true),
            ("warn,sidecar::control=trace", Level::TRACE, Level::WARN, true),
            ("sidecar=verbose", Level::INFO, Level::INFO, false),
        ] {
            let (filter, error) = filter(asked, LevelFilter::INFO);
            for (target, most) in [("sidecar::control::client", own), ("hyper::proto", others)] {
                for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
                    assert_eq!(filter.would_enable(target, &level), level <= most, "{asked:?}: {level} of {target}");
                }
            }
            assert_eq!(error.is_none(), is_understood, "{asked:?}: {error:?}");
        }
    }
}
