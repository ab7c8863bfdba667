//! What the Gateway API means: routes in, decisions out. No I/O, no clock, no randomness.

pub mod filter;
pub mod matcher;
pub mod model;
mod precedence;
pub mod split;
pub mod table;
