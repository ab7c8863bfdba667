//! The `isthmus-controller` program.

fn main() {}
