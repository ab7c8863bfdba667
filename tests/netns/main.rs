//! End-to-end tests: the real programs in real network namespaces. They need root: they act as several users.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod attachment;
mod auth;
mod backend_tls;
mod backends;
mod balancing;
mod bodies;
mod broken;
mod bytes;
mod change;
mod cors;
mod demo;
mod echo;
mod endpoints;
mod explain;
mod faults;
mod filters;
mod gamma;
mod http;
mod interception;
mod messages;
mod mirrors;
mod platform;
mod replay;
mod retries;
mod retry_budget;
mod segments;
mod sessions;
mod store;
mod streams;
mod telemetry;
mod timeouts;
mod traces;
