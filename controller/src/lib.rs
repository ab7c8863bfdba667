//! Turns Kubernetes objects into what sidecars need and writes route status.
//!
//! Sources feed an [`index::Index`]; sidecars read views of it over delta xDS; the same objects always give the same bytes.

pub mod admin;
pub mod config;
pub mod directory;
pub mod index;
pub mod inject;
pub mod kubernetes;
pub mod live;
pub mod load;
pub mod registry;
pub mod revision;
pub mod run;
pub mod source;
pub mod status;
pub mod tls;
pub mod webhook;
pub mod xds;
