//! What the Gateway API means: routes in, decisions out. No I/O, no clock, no randomness.

pub mod api;
mod attach;
#[cfg(test)]
mod certificates;
mod endpoints;
pub mod explain;
pub mod filter;
pub mod graph;
pub mod lint;
pub mod locality;
pub mod manifest;
pub mod matcher;
pub mod model;
pub mod parse;
mod precedence;
pub mod reason;
mod resolve;
pub mod server_name;
mod service;
pub mod session;
pub mod split;
pub mod status;
pub mod table;
pub mod world;
