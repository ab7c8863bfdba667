//! The `isthmus-sidecar` program.

fn main() {}
