//! A collector of OpenTelemetry that hands on what it gets.

use std::sync::mpsc::{Receiver, Sender, channel};

use lab::roles::PodName;
use proto::otlp::trace_service_server::{TraceService, TraceServiceServer};
use proto::otlp::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::Bed;

/// Where pods find it: each has its own.
pub const ENDPOINT: &str = "http://127.0.0.1:4317";

struct Sink(Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).map_err(|_| Status::unavailable("nobody reads any more"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Starts one in a pod; it ends with the program.
///
/// # Errors
/// No thread can be started in the pod's namespace.
pub fn start(bed: &Bed, pod: &PodName) -> anyhow::Result<Receiver<ExportTraceServiceRequest>> {
    let (sender, batches) = channel();
    let address = ENDPOINT.trim_start_matches("http://").parse()?;
    bed.namespace(pod)?.spawn("collector", move || {
        let served =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from).and_then(|runtime| {
                Ok(runtime.block_on(Server::builder().add_service(TraceServiceServer::new(Sink(sender))).serve(address))?)
            });
        if let Err(error) = served {
            eprintln!("collector: {error:#}");
        }
    })?;
    Ok(batches)
}
