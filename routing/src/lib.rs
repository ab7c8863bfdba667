//! What the Gateway API means: routes in, decisions out. No I/O, no clock, no randomness.

pub mod model;
