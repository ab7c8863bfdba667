//! The data plane of a pod: takes redirected connections, obeys routes, forwards to endpoints in whichever cluster they are.
//!
//! Invariant: no code on the data path waits for a config writer, and every request sees one snapshot.

mod admin;
mod balance;
pub mod client_hello;
pub mod config;
mod connect;
mod connection;
mod control;
pub mod detect;
mod drain;
mod endpoint;
mod http;
pub mod http1;
mod http2;
mod interception;
mod listener;
mod passthrough;
mod pipe;
mod pool;
use routing::reason;
pub mod request_head;
mod retry_budget;
pub mod run;
mod snapshot;
pub mod startup;
mod stream;
mod telemetry;
mod tls;
mod worker;

/// For what is looked up for each request: its hash is faster than the default one, and made for keys that no peer chooses.
type FastMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// One sample of every metric of a sidecar in Prometheus' text format, for documentation and for tests.
///
/// # Errors
/// Never: text takes everything in.
pub fn sample_metrics() -> Result<String, std::fmt::Error> {
    telemetry::Telemetry::sample()
}
