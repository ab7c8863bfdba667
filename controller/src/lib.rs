//! Turns Kubernetes objects into what sidecars need and writes route status.
