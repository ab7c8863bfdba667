//! The `isthmus-init` program.

fn main() {}
