//! Whatever an endpoint sends as a body: it is read without a panic, nothing is lost, and the same comes of it however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidecar::http1::Framing;
use sidecar::http1::trial::body;

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (framing, cut, bytes) = input;
    let framing = match framing % 4 {
        0 => Framing::Exact(u64::from(cut)),
        1 => Framing::UntilEnd,
        _ => Framing::Chunked,
    };
    let whole = body(framing, &[bytes]);
    let pieces: Vec<&[u8]> = bytes.chunks(usize::from(cut % 97) + 1).collect();
    let cut = body(framing, &pieces);
    assert_eq!((&cut.body, &cut.trailers, &cut.broken), (&whole.body, &whole.trailers, &whole.broken));
    if whole.broken.is_none() {
        assert_eq!(cut.rest, whole.rest, "what follows a message is the next one");
        assert!(whole.body.len() + whole.rest.len() <= bytes.len());
        if framing != Framing::Chunked {
            assert_eq!([whole.body, whole.rest].concat(), bytes);
        }
    }
});
