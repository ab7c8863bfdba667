//! The `isthmus` program: what it does, thin over the other crates.

mod check;
pub mod config;
mod demo;
mod expected;
mod explain;
mod inject;
mod kubernetes;
mod lint;
mod objects;
mod proxies;
mod request;
mod shell;
mod table;

use config::{Command, Config};

/// Does what the command line says.
///
/// # Errors
/// What could not be done and why.
pub fn run(config: Config) -> anyhow::Result<()> {
    match config.command {
        Command::Check(check) => check::run(&check),
        Command::Inject(inject) => inject::run(&inject),
        Command::Explain(asked) => explain::run(&asked),
        Command::Lint(lint) => lint::run(&lint),
        Command::Proxies(proxies) => proxies::run(&proxies),
        Command::Demo(demo) => demo::run(&demo),
        Command::Hold => {
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
            Ok(())
        }
        Command::Request(request) => request::run(&request),
    }
}
