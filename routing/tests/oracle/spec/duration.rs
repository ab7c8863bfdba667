//! Durations (H-26; GEP-2257).

use std::time::Duration;

/// "^([0-9]{1,5}(h|m|s|ms)){1,4}$"; the value is the sum of the parts, none: it is no duration.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    (1..=4).find_map(|parts| total(text, parts))
}

/// The text read as so many parts, in every way there is.
fn total(text: &str, parts: usize) -> Option<Duration> {
    if parts == 0 {
        return text.is_empty().then_some(Duration::ZERO);
    }
    for digits in 1..=5 {
        let Some(number) = text.get(..digits).filter(|number| number.bytes().all(|digit| digit.is_ascii_digit())) else { continue };
        for (unit, millis) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            let Some(rest) = text.get(digits..).and_then(|rest| rest.strip_prefix(unit)) else { continue };
            if let Some(rest) = total(rest, parts - 1) {
                return Some(Duration::from_millis(number.parse::<u64>().ok()? * millis) + rest);
            }
        }
    }
    None
}
