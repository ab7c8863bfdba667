//! What the kernel answers over netlink: any bytes are read, and what is found in them is in them.
#![no_main]

use init::nft::Family;
use init::nft::read::Dump;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dump = Dump::received(bytes);
    for rule in dump.rules("isthmus") {
        assert!(rule.chain.len() <= 3 * bytes.len(), "{rule:?}");
    }
    for family in [Family::V4, Family::V6] {
        // An element takes a header of four bytes for itself and for its key.
        assert!(dump.destinations(family).len() * 8 <= bytes.len(), "{family:?}");
        let ranges = dump.ranges(family);
        assert!(ranges.is_sorted(), "{ranges:?}");
        assert!(ranges.iter().all(|(first, last)| first <= last), "{ranges:?}");
    }
});
