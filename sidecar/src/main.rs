//! The `isthmus-sidecar` program.

use std::io::IsTerminal as _;

use clap::Parser;
use sidecar::config::Config;

fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
    let config = Config::parse();
    if config.await_startup { sidecar::startup::wait(&config) } else { sidecar::run::run(config) }
}
