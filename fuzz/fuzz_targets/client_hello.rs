//! Whatever a client of a TLSRoute begins with: it is judged without a panic, and what is clear once stays as it is when more bytes come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidecar::client_hello::{ServerName, server_name};

/// Places at which the bytes are cut, beside the first so many.
const CUTS: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let step = bytes.len() / CUTS + 1;
    let mut clear: Option<(usize, ServerName)> = None;
    for length in (0..=bytes.len()).filter(|length| *length < CUTS || length % step == 0 || *length == bytes.len()) {
        let found = server_name(&bytes[..length]);
        match &clear {
            Some((before, said)) => assert_eq!(&found, said, "said after {before} bytes, and not after {length}"),
            None if found != ServerName::Unclear => clear = Some((length, found)),
            None => {}
        }
    }
    if let Some((_, ServerName::Hello(Some(name)))) = clear {
        assert!(!name.is_empty() && name.is_ascii() && name == name.to_ascii_lowercase(), "{name:?}");
    }
});
