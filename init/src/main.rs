//! The `isthmus-init` program.

use std::io::IsTerminal as _;

use clap::Parser;
use init::config::Config;

fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
    init::config::run(Config::parse())
}
