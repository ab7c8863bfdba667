//! What the bench runs in its namespaces, each as a process of its own so that its CPU time is its own.

mod bodies;
mod copy;
mod grpc;
mod pump;
mod rate;

use std::net::SocketAddr;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Tool {
    /// Copy bytes between each connection to a port and one to an address: what a proxy costs that looks at nothing
    Copy {
        threads: usize,
        /// PORT=ADDRESS[,ADDRESS], taken in turn
        #[arg(required = true, value_parser = copy::pair)]
        ports: Vec<(u16, Vec<SocketAddr>)>,
    },
    /// Ask at fixed times, on connections that are kept, and say how long each answer took from the time it was due
    Rate { address: SocketAddr, host: String, path: String, rate: u32, connections: u32, seconds: u64 },
    /// Take bytes in and throw them away
    Sink { listen: SocketAddr },
    /// Take bodies of requests in, and answer when they have ended
    BodySink { listen: SocketAddr },
    /// Send bytes as fast as they go
    Pump { address: SocketAddr, connections: u32, seconds: u64 },
    /// Answer every message of every call with itself
    GrpcServer { listen: SocketAddr },
    /// Exchange messages on streams, one after another on each
    GrpcStreams { address: SocketAddr, host: String, path: String, connections: u32, streams: u32, seconds: u64 },
}

impl Tool {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Copy { threads, ports } => copy::run(threads, &ports),
            Self::Rate { address, host, path, rate, connections, seconds } => rate::run(address, &host, &path, rate, connections, seconds),
            Self::Sink { listen } => pump::sink(listen),
            Self::BodySink { listen } => bodies::sink(listen),
            Self::Pump { address, connections, seconds } => pump::run(address, connections, seconds),
            Self::GrpcServer { listen } => grpc::serve(listen),
            Self::GrpcStreams { address, host, path, connections, streams, seconds } => {
                grpc::streams(address, &host, &path, (connections, streams), seconds)
            }
        }
    }
}

/// Prints what the bench reads.
fn say(count: u64, errors: u64, latency_us: Option<[f64; 4]>) {
    println!("{}", serde_json::json!({"count": count, "errors": errors, "latency_us": latency_us}));
}
