//! Clusters on one machine: pods are network namespaces, a cluster is a namespace that routes between its pods, and a router joins the
//! clusters. What `isthmus demo` and the end-to-end tests run on.
//!
//! The lab plays the part of the kubelet (an echo server a pod), of the endpoint controller, of the MCS controller and of kube-proxy, each as
//! a pure function of the manifests in [`roles`], and starts the real `isthmus-init`, `isthmus-sidecar` and `isthmus-controller`.
//!
//! Invariant: nothing is changed outside of namespaces that the lab made, and nothing is left behind.

pub mod client;
mod cluster;
mod echo;
pub mod lab;
pub mod manifests;
mod namespace;
mod net;
pub mod plan;
mod pod;
pub mod privilege;
mod process;
pub mod roles;

pub use lab::{Fail, Intercept, Lab, Options};
pub use namespace::Namespace;
pub use net::{Addresses, loopback_only};
