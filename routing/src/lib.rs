//! What the Gateway API means: routes in, decisions out. No I/O, no clock, no randomness.

pub mod api;
pub mod filter;
pub mod manifest;
pub mod matcher;
pub mod model;
pub mod parse;
mod precedence;
pub mod split;
pub mod table;
