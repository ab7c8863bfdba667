//! What sidecars tell about the requests that they sent on, for the picture.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use proto::resources::load_reporting_server::LoadReporting;
use proto::resources::{LoadReport, LoadReportEnd};
use routing::graph::{EjectedEndpoint, Load, Loads, Rate};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::kubernetes::identity::Reviewer;

/// What one sidecar tells at most: it has no more series either.
const LOADS_MAX: usize = 4000;
/// And in so many bytes.
pub(crate) const REPORT_BYTES_MAX: usize = 1024 * 1024;

/// The last report of each sidecar that is connected and not at rest.
#[derive(Debug, Default)]
pub struct Reports {
    /// With the number of the stream that it came on.
    last: Mutex<BTreeMap<String, (u64, LoadReport)>>,
    next: AtomicU64,
}

impl Reports {
    /// All of them together.
    #[must_use]
    pub fn loads(&self) -> Loads {
        let last = self.last.lock();
        Loads::together(last.values().map(|(_, report)| report).filter(|report| report.interval_ms > 0).map(told))
    }

    /// The place of a sidecar; of one that is not known each stream has its own.
    fn begin(self: &Arc<Self>, sidecar: Option<String>) -> Place {
        let id = self.next.fetch_add(1, Relaxed);
        Place { id, sidecar: sidecar.unwrap_or_else(|| id.to_string()), reports: Arc::clone(self) }
    }
}

/// What a sidecar tells, as rates.
fn told(report: &LoadReport) -> Loads {
    let per_second = |count: u64| to_f64(count) * 1e3 / to_f64(report.interval_ms);
    let load = |load: &proto::resources::Load| Load {
        frontend: load.frontend.clone(),
        route: load.route.clone(),
        backend: load.backend.clone(),
        source_cluster: load.source_cluster.clone(),
        reason: load.reason.clone(),
        rate: Rate { per_second: per_second(load.requests), failed_per_second: per_second(load.failed.min(load.requests)) },
    };
    let ejected = |endpoint: &proto::resources::EjectedEndpoint| EjectedEndpoint {
        backend: endpoint.backend.clone(),
        source_cluster: endpoint.source_cluster.clone(),
        address: endpoint.address.clone(),
    };
    Loads { loads: report.loads.iter().map(load).collect(), ejected: report.ejected.iter().map(ejected).collect() }
}

fn to_f64(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

/// A sidecar's place among the reports; what it told is forgotten with it.
struct Place {
    id: u64,
    sidecar: String,
    reports: Arc<Reports>,
}

impl Place {
    fn tell(&self, report: LoadReport) {
        self.reports.last.lock().insert(self.sidecar.clone(), (self.id, report));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut last = self.reports.last.lock();
        // A later stream of the same sidecar may have taken its place.
        if last.get(&self.sidecar).is_some_and(|(id, _)| *id == self.id) {
            last.remove(&self.sidecar);
        }
    }
}

/// The service.
#[derive(Clone)]
pub struct LoadReceiver {
    /// Where reports go.
    pub reports: Arc<Reports>,
    /// Who vouches for sidecars; none: they are believed.
    pub reviewer: Option<Reviewer>,
    /// Ends the streams.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl LoadReporting for LoadReceiver {
    async fn report(&self, request: Request<Streaming<LoadReport>>) -> Result<Response<LoadReportEnd>, Status> {
        let sidecar = match &self.reviewer {
            Some(reviewer) => {
                let identity = reviewer.identify(request.metadata()).await?;
                Some(format!("{}/{}", identity.namespace, identity.pod))
            }
            None => None,
        };
        let mut reports = request.into_inner();
        let place = self.reports.begin(sidecar);
        loop {
            let report = tokio::select! {
                () = self.stop.cancelled() => return Ok(Response::new(LoadReportEnd {})),
                report = reports.message() => report?,
            };
            match report {
                None => return Ok(Response::new(LoadReportEnd {})),
                Some(report) if report.loads.len().max(report.ejected.len()) > LOADS_MAX => {
                    return Err(Status::invalid_argument(format!("a report of more than {LOADS_MAX} loads")));
                }
                Some(report) => place.tell(report),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(interval_ms: u64, requests: u64, failed: u64, address: &str) -> LoadReport {
        let name = |name: &str| name.to_owned();
        let load = proto::resources::Load {
            frontend: name("f"),
            route: name("r"),
            backend: name("b"),
            source_cluster: name("west"),
            requests,
            failed,
            reason: String::new(),
        };
        let ejected = proto::resources::EjectedEndpoint { backend: name("b"), source_cluster: name("west"), address: name(address) };
        LoadReport { interval_ms, loads: vec![load], ejected: vec![ejected] }
    }

    #[test]
    fn rates_add_up_and_an_endpoint_is_ejected_once() {
        let reports = Arc::<Reports>::default();
        let (one, other) = (reports.begin(Some("shop/a".to_owned())), reports.begin(None));
        one.tell(report(5000, 999, 999, "10.0.0.9:80"));
        one.tell(report(5000, 50, 0, "10.0.0.1:80"));
        other.tell(report(10_000, 20, 30, "10.0.0.1:80"));
        let loads = reports.loads();
        let [load] = &loads.loads[..] else { panic!("{loads:?}") };
        assert!((load.rate.per_second - 12.0).abs() < 1e-9 && (load.rate.failed_per_second - 2.0).abs() < 1e-9, "{load:?}");
        assert_eq!(loads.ejected.len(), 1);
        let again = reports.begin(Some("shop/a".to_owned()));
        again.tell(report(1000, 10, 0, "10.0.0.1:80"));
        drop(one);
        assert!((reports.loads().loads[0].rate.per_second - 12.0).abs() < 1e-9, "one sidecar counts once, on its last stream");
        drop(again);
        assert!((reports.loads().loads[0].rate.per_second - 2.0).abs() < 1e-9, "who is gone tells nothing any more");
        drop(other);
        assert_eq!(reports.loads(), Loads::default());
        reports.begin(None).tell(report(0, 1, 0, ""));
    }
}
