//! End-to-end tests: real binaries in network namespaces.
