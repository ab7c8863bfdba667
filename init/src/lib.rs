//! Interception of a pod's connections to VIPs: one nf_tables transaction over netlink, and routes that make its segments large.
//!
//! Nothing here needs a program besides itself, any uid but for CAP_NET_ADMIN, or a file that can be written. Whatever is changed is
//! changed whole or not at all, and connections that are open stay open.

pub mod cidr;
pub mod config;
mod diag;
mod netlink;
pub mod netns;
pub mod nft;
pub mod plan;
pub mod segments;
pub mod services;
mod socket;
pub mod verify;
pub mod watch;
