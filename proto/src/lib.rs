//! The wire between controller and sidecar: delta-xDS transport, our resources, conversion to and from the routing model.

/// The delta-xDS transport, field numbers as published.
#[allow(missing_docs, clippy::all, clippy::clone_on_ref_ptr, clippy::too_many_lines, unused_qualifications, reason = "generated; documented in the .proto file")]
pub mod xds {
    tonic::include_proto!("envoy.service.discovery.v3");
}

/// The resources a sidecar receives.
#[allow(missing_docs, clippy::all, clippy::clone_on_ref_ptr, clippy::too_many_lines, unused_qualifications, reason = "generated; documented in the .proto file")]
pub mod resources {
    tonic::include_proto!("isthmus.v1");
}
