//! End-to-end tests: the real programs in real network namespaces. They need root, or run as `make test` says.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod attachment;
mod backends;
mod bytes;
mod change;
mod demo;
mod faults;
mod gamma;
mod http;
mod interception;
mod platform;
