//! The wire between controller and sidecar: delta-xDS transport, our resources, conversion to and from the routing model.

pub mod convert;
pub mod listen;
pub mod type_url;

use std::fmt::Write as _;

use prost::Message;
use sha2::{Digest, Sha256};

/// The delta-xDS transport, field numbers as published.
#[allow(
    missing_docs,
    clippy::all,
    clippy::clone_on_ref_ptr,
    clippy::too_many_lines,
    unused_qualifications,
    reason = "generated; documented in the .proto file"
)]
pub mod xds {
    tonic::include_proto!("envoy.service.discovery.v3");
}

/// The same for a server, whose resources are encoded already.
#[allow(
    missing_docs,
    clippy::all,
    clippy::clone_on_ref_ptr,
    clippy::too_many_lines,
    unused_qualifications,
    reason = "generated; documented in the .proto file"
)]
pub mod encoded {
    include!(concat!(env!("OUT_DIR"), "/encoded/envoy.service.discovery.v3.rs"));
}

/// Envoy's external authorization protocol, field numbers as published.
#[allow(missing_docs, clippy::all, unused_qualifications, reason = "generated; documented in the .proto file")]
pub mod ext_authz {
    tonic::include_proto!("envoy.service.auth.v3");
}

/// OpenTelemetry's protocol for spans, field numbers as published.
#[allow(missing_docs, clippy::all, clippy::clone_on_ref_ptr, unused_qualifications, reason = "generated; documented in the .proto file")]
pub mod otlp {
    tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
}

/// The resources a sidecar receives, and what it tells.
#[allow(missing_docs, clippy::all, clippy::clone_on_ref_ptr, unused_qualifications, reason = "generated; documented in the .proto file")]
pub mod resources {
    tonic::include_proto!("isthmus.v1");
}

/// In a node's metadata: `system_version_info` of the newest response that the sidecar has had, so that no replica rolls it back.
pub const REVISION_METADATA: &str = "revision";

/// The content type of what `/metrics` answers: with another one Prometheus reads it as its older format, in which counters have other names.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// In a response's gRPC metadata: the zone of the sidecar's node, where the controller knows it.
pub const ZONE_METADATA: &str = "isthmus-zone";

/// Bytes of the hash that a version keeps: short enough to read in a log, long enough never to collide.
const VERSION_BYTES: usize = 16;

/// The version of a resource: a hash of its encoded form, so that equal content has an equal version in every replica of a controller.
pub fn version(resource: &impl Message) -> String {
    let hash = Sha256::digest(resource.encode_to_vec());
    hash.iter().take(VERSION_BYTES).fold(String::with_capacity(2 * VERSION_BYTES), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_encoded_is_read_as_what_it_was() {
        let resource = xds::Resource { name: "v".to_owned(), version: "1".to_owned(), resource: None };
        let sent = encoded::DeltaDiscoveryResponse {
            resources: vec![resource.encode_to_vec().into()],
            nonce: "7".to_owned(),
            removed_resources: vec!["gone".to_owned()],
            ..Default::default()
        };
        let read = xds::DeltaDiscoveryResponse::decode(sent.encode_to_vec().as_slice()).expect("decodes");
        assert_eq!((read.resources, read.nonce, read.removed_resources), (vec![resource], "7".to_owned(), vec!["gone".to_owned()]));
    }

    #[test]
    fn a_version_depends_on_the_content_alone() {
        let vip = |port| resources::Vip { ip: vec![10, 0, 0, 1], frontend: Some(resources::ServicePort { port, ..Default::default() }) };
        assert_eq!(version(&vip(80)), version(&vip(80)));
        assert_ne!(version(&vip(80)), version(&vip(81)));
        assert_eq!(version(&vip(80)).len(), 2 * VERSION_BYTES);
    }
}
