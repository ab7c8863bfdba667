//! Pods as network namespaces, clusters as bridges: what the demo and the end-to-end tests run on.
