//! What is shown on real Kubernetes.

pub(crate) mod check;
pub(crate) mod explain;
pub(crate) mod faults;
pub(crate) mod injection;
pub(crate) mod install;
pub(crate) mod lifecycle;
pub(crate) mod live;
pub(crate) mod location;
pub(crate) mod manifests;
pub(crate) mod measures;
pub(crate) mod pages;
pub(crate) mod routing;
pub(crate) mod source;
pub(crate) mod status;
