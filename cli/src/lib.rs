//! The isthmus program: demo and more, thin over the other crates.
