//! A worker: one thread, one current-thread runtime, connection pools of its own. Nothing on the path takes a lock.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use routing::model::FrontendId;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::config::Limits;
use crate::connect::Connector;
use crate::connection;
use crate::listener::Accepted;
use crate::passthrough::PassThroughs;
use crate::pool::Pool;
use crate::snapshot::{Live, LiveFrontend, Snapshot};
use crate::telemetry::Telemetry;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What is in force.
    pub(crate) live: Live,
    /// Changes with every published snapshot.
    pub(crate) published: watch::Receiver<()>,
    /// Asks control for a frontend.
    pub(crate) demand: mpsc::Sender<FrontendId>,
    /// Metrics and access log.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Opens connections.
    pub(crate) connector: Connector,
    /// Maxima and time limits.
    pub(crate) limits: Limits,
    /// Connections that pass through.
    pub(crate) pass_throughs: PassThroughs,
    /// Cancelled when the grace period of a drain is over: say GOAWAY and `Connection: close`.
    pub(crate) farewell: CancellationToken,
    /// When the process began.
    pub(crate) began: Instant,
    /// The empty label.
    pub(crate) empty: Arc<str>,
}

/// A worker, seen from its own thread.
#[derive(Debug)]
pub(crate) struct Worker {
    /// What all workers share.
    pub(crate) shared: Arc<Shared>,
    /// Connections to endpoints.
    pub(crate) pool: Pool,
    /// Copies of requests on their way to mirrors.
    pub(crate) copies: Cell<usize>,
    /// What of their bodies waits.
    pub(crate) copied_bytes: Rc<Cell<usize>>,
    cache: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    generator: RefCell<SmallRng>,
}

impl Worker {
    /// A worker for the calling thread.
    pub(crate) fn new(shared: Arc<Shared>) -> Rc<Self> {
        let cache = RefCell::new(Cache::new(Arc::clone(&shared.live)));
        Rc::new(Self {
            shared,
            pool: Pool::default(),
            copies: Cell::new(0),
            copied_bytes: Rc::default(),
            cache,
            generator: RefCell::new(SmallRng::from_os_rng()),
        })
    }

    /// A uniform random number.
    pub(crate) fn random(&self) -> u64 {
        self.generator.borrow_mut().random()
    }

    /// Milliseconds since the process began.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.shared.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The frontend dialled at an address, if routes are in force there.
    pub(crate) fn dialled(&self, destination: SocketAddr) -> Option<FrontendId> {
        self.cache.borrow_mut().load().vips.get(&destination).cloned()
    }

    /// A frontend's routes and backends, if they are here.
    pub(crate) fn frontend(&self, id: &FrontendId) -> Option<Arc<LiveFrontend>> {
        self.cache.borrow_mut().load().frontends.get(id).map(Arc::clone)
    }
}

/// A connection or request to a frontend whose routes are not here waits for them this long.
const FRONTEND_WAIT_MAX: Duration = Duration::from_secs(5);

impl Worker {
    /// Asks control for a frontend and waits until it is here, its VIP is another's, or the wait is over.
    pub(crate) async fn wait_for(&self, frontend: &FrontendId, destination: SocketAddr) {
        self.demand(frontend);
        let mut published = self.shared.published.clone();
        let is_awaited = || self.frontend(frontend).is_none() && self.dialled(destination).as_ref() == Some(frontend);
        let arrived = async { while is_awaited() && published.changed().await.is_ok() {} };
        if tokio::time::timeout(FRONTEND_WAIT_MAX, arrived).await.is_err() {
            debug!(%frontend, "its routes have not arrived in time");
        }
    }

    /// Asks control for a frontend.
    pub(crate) fn demand(&self, frontend: &FrontendId) {
        // A full queue means that others wait already; the next one asks again.
        let _ = self.shared.demand.try_send(frontend.clone());
    }
}

/// A worker, seen from elsewhere.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    connections: mpsc::UnboundedSender<Accepted>,
    load: Arc<AtomicUsize>,
}

impl WorkerHandle {
    /// Connections it has.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Gives it one more. The queue is bounded by the listener's limit.
    pub(crate) fn take(&self, accepted: Accepted) {
        self.load.fetch_add(1, Ordering::Relaxed);
        if self.connections.send(accepted).is_err() {
            debug!("the worker has ended");
        }
    }
}

/// Starts a worker's thread, which runs until cancelled.
pub(crate) fn start(
    index: usize,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> std::io::Result<(WorkerHandle, std::thread::JoinHandle<()>)> {
    let (sender, mut queue) = mpsc::unbounded_channel::<Accepted>();
    let load = Arc::new(AtomicUsize::new(0));
    let handle = WorkerHandle { connections: sender, load: Arc::clone(&load) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let local = LocalSet::new();
        let worker = Worker::new(shared);
        local.block_on(&runtime, async move {
            let sweep = worker.pool.sweep();
            let serve = async {
                while let Some(accepted) = queue.recv().await {
                    let (worker, load) = (Rc::clone(&worker), Load(Arc::clone(&load)));
                    tokio::task::spawn_local(async move {
                        let _load = load;
                        if let Err(error) = connection::serve(accepted, worker).await {
                            error!(%error, "connection");
                        }
                    });
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = serve => {}
                never = sweep => match never {},
            }
        });
    })?;
    Ok((handle, thread))
}

struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
