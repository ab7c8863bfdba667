//! The gRPC of the one method that sidecars call.
//!
//! Invariant: a resource is encoded once for all whom it is sent to, and a response goes out in small parts: a stream never holds a buffer of the size
//! of its largest response, as a codec would for as long as the stream lasts.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prost::bytes::{BufMut, Bytes, BytesMut};
use prost::{Message as _, encoding};
use proto::encoded::DeltaDiscoveryRequest;
use tokio_stream::Stream as _;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Streaming};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::server::NamedService;
use tonic::{Request, Status};
use tonic_prost::ProstDecoder;

use super::session::Answer;
use super::{Discovery, Responses};
use crate::registry::Resources;

const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Encoded at once.
const PART_BYTES: usize = 16 * 1024;
/// A sidecar's message: the names and versions that it holds are the most it ever says.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// `DeltaDiscoveryResponse.resources`.
const RESOURCES_TAG: u32 = 2;

impl NamedService for Discovery {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl Service<http::Request<Body>> for Discovery {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let discovery = self.clone();
        Box::pin(async move { Ok(discovery.answer(request).await.unwrap_or_else(Status::into_http)) })
    }
}

impl Discovery {
    async fn answer(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        if request.uri().path() != METHOD {
            return Err(Status::unimplemented(format!("{:?} is not served", request.uri().path())));
        }
        let decoder = ProstDecoder::<DeltaDiscoveryRequest>::new(BufferSettings::default());
        let request = request.map(|body| Streaming::new_request(decoder, body, None, Some(REQUEST_BYTES_MAX)));
        let (metadata, responses, _) = self.delta_aggregated_resources(Request::from_http(request)).await?.into_parts();
        let mut response = http::Response::new(Body::new(Encoded { responses, begun: None, has_ended: false }));
        *response.headers_mut() = metadata.into_headers();
        response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
        Ok(response)
    }
}

/// Responses as they are sent, and the status at their end.
struct Encoded {
    responses: Responses,
    begun: Option<Begun>,
    has_ended: bool,
}

/// What is left of a response.
struct Begun {
    head: BytesMut,
    resources: Resources,
    /// So many of them are encoded.
    encoded: usize,
}

impl Begun {
    fn new(Answer { head: message, resources }: Answer) -> Result<Self, Status> {
        let lengths = resources.iter().map(|resource| encoding::bytes::encoded_len(RESOURCES_TAG, &resource.encoded));
        let length = message.encoded_len() + lengths.sum::<usize>();
        let length = u32::try_from(length).map_err(|_| Status::resource_exhausted("a response of more than 4 GiB"))?;
        let mut head = BytesMut::new();
        // A message that is not compressed.
        head.put_u8(0);
        head.put_u32(length);
        // The order of fields means nothing.
        message.encode(&mut head).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Self { head, resources, encoded: 0 })
    }

    /// The next part; empty after the last one.
    fn part(&mut self) -> Bytes {
        let mut part = std::mem::take(&mut self.head);
        while part.len() < PART_BYTES {
            let Some(resource) = self.resources.get(self.encoded) else { break };
            encoding::encode_key(RESOURCES_TAG, encoding::WireType::LengthDelimited, &mut part);
            encoding::encode_varint(resource.encoded.len() as u64, &mut part);
            part.put_slice(&resource.encoded);
            self.encoded += 1;
        }
        part.freeze()
    }
}

impl http_body::Body for Encoded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        loop {
            let part = self.begun.as_mut().map(Begun::part).unwrap_or_default();
            if !part.is_empty() {
                return Poll::Ready(Some(Ok(http_body::Frame::data(part))));
            }
            self.begun = None;
            if self.has_ended {
                return Poll::Ready(None);
            }
            let status = match ready!(Pin::new(&mut self.responses).poll_next(context)) {
                Some(Ok(response)) => match Begun::new(response) {
                    Ok(begun) => {
                        self.begun = Some(begun);
                        continue;
                    }
                    Err(status) => status,
                },
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            self.has_ended = true;
            let mut trailers = http::HeaderMap::new();
            status.add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(http_body::Frame::trailers(trailers))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::encoded::DeltaDiscoveryResponse;

    use super::*;
    use crate::index::Resource;

    #[test]
    fn what_goes_out_in_parts_is_the_message() {
        let resources = |count: u8, length: usize| {
            let resource = |byte: u8| Resource { name: String::new(), version: String::new(), encoded: vec![byte; length].into() };
            (0..count).map(|byte| Arc::new(resource(byte))).collect::<Vec<_>>()
        };
        for resources in [Vec::new(), resources(3, 10), resources(200, 1000), resources(3, 3 * PART_BYTES), resources(2, 0)] {
            let head = DeltaDiscoveryResponse {
                system_version_info: "HTTPRoute=7".to_owned(),
                resources: Vec::new(),
                type_url: "type.googleapis.com/isthmus.v1.Vip".to_owned(),
                nonce: "5".to_owned(),
                removed_resources: vec!["gone".to_owned()],
            };
            let encoded: Vec<Bytes> = resources.iter().map(|resource| resource.encoded.clone()).collect();
            let mut begun = Begun::new(Answer { head: head.clone(), resources: resources.into() }).expect("begun");
            let parts: Vec<Bytes> = std::iter::from_fn(|| Some(begun.part()).filter(|part| !part.is_empty())).collect();
            let largest = encoded.iter().map(Bytes::len).max().unwrap_or_default();
            assert!(parts.iter().all(|part| part.len() < PART_BYTES + largest + 100), "a part ends soon after its size");
            let sent = parts.concat();
            let (prefix, message) = sent.split_at(5);
            assert_eq!(prefix, [&[0][..], &u32::try_from(message.len()).expect("a length").to_be_bytes()].concat());
            let response = DeltaDiscoveryResponse { resources: encoded, ..head };
            assert_eq!(DeltaDiscoveryResponse::decode(message).expect("decodes"), response);
        }
    }
}
