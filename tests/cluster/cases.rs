//! What is shown on real Kubernetes.

pub(crate) mod faults;
pub(crate) mod injection;
pub(crate) mod install;
pub(crate) mod manifests;
pub(crate) mod measures;
pub(crate) mod routing;
pub(crate) mod status;
