//! Durations as the Gateway API writes them (GEP-2257): `^([0-9]{1,5}(h|m|s|ms)){1,4}$`.

use std::time::Duration;

use super::{Fault, Parsed};

const PARTS_MAX: usize = 4;
const DIGITS_MAX: usize = 5;

/// The sum of the parts; a unit may be repeated, and nothing is normalised.
pub(super) fn duration(text: &str, field: &str) -> Parsed<Duration> {
    parse(text).ok_or_else(|| Fault::unsupported(field, format!("{text:?} is no duration such as 1h30m or 500ms (GEP-2257)")))
}

/// Zero means that there is no limit (HTTPRouteTimeouts).
pub(super) fn limit(text: Option<&String>, field: &str) -> Parsed<Option<Duration>> {
    let parsed = text.map(|text| duration(text, field)).transpose()?;
    Ok(parsed.filter(|duration| !duration.is_zero()))
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..PARTS_MAX {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > DIGITS_MAX {
            return None;
        }
        let (number, unit) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let (part, left) = if let Some(left) = unit.strip_prefix("ms") {
            (Duration::from_millis(number), left)
        } else if let Some(left) = unit.strip_prefix('s') {
            (Duration::from_secs(number), left)
        } else if let Some(left) = unit.strip_prefix('m') {
            (Duration::from_secs(60 * number), left)
        } else {
            (Duration::from_secs(3600 * number), unit.strip_prefix('h')?)
        };
        total += part;
        if left.is_empty() {
            return Some(total);
        }
        rest = left;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of GEP-2257 (H-26).
    #[test]
    fn the_vectors_of_the_gep() {
        for (text, seconds, millis) in [
            ("0h0m0s", 0, 0),
            ("1h", 3600, 0),
            ("150m", 9000, 0),
            ("10s30m1h", 5410, 0),
            ("100ms200ms300ms", 0, 600),
            ("1h30m10s", 5410, 0),
            ("99999h", 359_996_400, 0),
            ("0s", 0, 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds) + Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0", "1", "1m1", "1d", "1h30m10s20ms50h", "999999h", "1.5h", "-15m", "1 s", "1S", "1sm", "１s", "ms"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
