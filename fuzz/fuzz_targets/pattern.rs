//! Regular expressions of users: what compiles is within its limit, means the whole text, and is matched in bounded time.
//!
//! Pattern and text are separated by a zero. The bound is libFuzzer's own `-timeout`: a text is as long as the largest head of a request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regex::Regex;
use routing::model::Pattern;

/// As long as the longest path in an HTTPPathMatch.
const SOURCE_BYTES_MAX: usize = 1024;
const TEXT_BYTES_MAX: usize = 64 * 1024;

fuzz_target!(|input: &str| {
    let (source, text) = input.split_once('\0').unwrap_or((input, "aXbé"));
    if source.len() > SOURCE_BYTES_MAX {
        return;
    }
    let Ok(pattern) = Pattern::new(source) else { return };
    assert_eq!(pattern.source(), source);
    // What compiles within the group that anchors it compiles alone; it means a text that it finds as a whole, by whichever alternative.
    let whole = Regex::new(&format!("\\A(?:{source})\\z")).expect("it compiled");
    assert_eq!(pattern.accepts(text), whole.is_match(text), "{source:?} on {text:?}");
    if !text.is_empty() {
        let _ = pattern.accepts(&text.repeat(TEXT_BYTES_MAX / text.len()));
    }
});
