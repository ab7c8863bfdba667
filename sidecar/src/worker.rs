//! A worker: one thread, one current-thread runtime, connection pools of its own. Nothing on the path takes a lock.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use futures::future::try_join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use routing::model::FrontendId;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::config::Limits;
use crate::connect::Connector;
use crate::connection;
use crate::endpoint::Outcome;
use crate::listener::{self, Accepted, Listener};
use crate::passthrough::PassThroughs;
use crate::pool::Pool;
use crate::snapshot::{Live, LiveBackend, LiveEndpoint, LiveFrontend, Snapshot};
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

    /// Notes what became of a request or connection to an endpoint.
    pub(crate) fn note(&self, backend: &LiveBackend, endpoint: &LiveEndpoint, outcome: Outcome) {
        if backend.note(endpoint, outcome, self.now_ms(), || self.random()) {
            self.shared.telemetry.ejection(&backend.name);
        }
    }

    /// Milliseconds since the process began.
    pub(crate) fn now_ms(&self) -> u64 {
        self.ms_of(Instant::now())
    }

    /// The same at a point of time.
    pub(crate) fn ms_of(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.shared.began).as_millis()).unwrap_or(u64::MAX)
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
    connections: mpsc::UnboundedSender<Handed>,
    load: Arc<AtomicUsize>,
}

impl WorkerHandle {
    /// Connections it has.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// One more of them, until it is dropped.
    fn begin(&self) -> Load {
        self.load.fetch_add(1, Ordering::Relaxed);
        Load(Arc::clone(&self.load))
    }
}

/// A connection that one worker hands to another, in whose load it is.
type Handed = (Accepted<std::net::TcpStream>, Load);
/// What the others hand to a worker. It is bounded by the listeners' limit.
pub(crate) type Queue = mpsc::UnboundedReceiver<Handed>;

/// Handles of so many workers, and the queue of each.
pub(crate) fn handles(count: usize) -> (Arc<[WorkerHandle]>, Vec<Queue>) {
    let one = |_| {
        let (connections, queue) = mpsc::unbounded_channel();
        (WorkerHandle { connections, load: Arc::default() }, queue)
    };
    let (handles, queues): (Vec<_>, Vec<_>) = (0..count).map(one).unzip();
    (handles.into(), queues)
}

/// What a worker begins with.
#[derive(Debug)]
pub(crate) struct Start {
    /// Its place among the handles.
    pub(crate) index: usize,
    /// All workers.
    pub(crate) workers: Arc<[WorkerHandle]>,
    /// What the others hand to it.
    pub(crate) queue: Queue,
    /// What it accepts itself.
    pub(crate) listeners: Vec<Listener>,
    /// Room for connections, shared by all.
    pub(crate) room: Arc<Semaphore>,
    /// What all workers share.
    pub(crate) shared: Arc<Shared>,
    /// Ends it.
    pub(crate) stop: CancellationToken,
}

/// Starts a worker's thread, which runs until cancelled.
pub(crate) fn start(start: Start) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("worker-{}", start.index)).spawn(move || {
        let local = LocalSet::new();
        // What a LocalSet waits for is polled whenever any of its tasks is: that had better be a handle.
        let running = local.spawn_local(run(start));
        if let Err(error) = local.block_on(&runtime, running)
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    })
}

async fn run(start: Start) {
    let Start { index, workers, mut queue, listeners, room, shared, stop } = start;
    let worker = Worker::new(shared);
    let serve = |accepted: Accepted, load: Load| {
        let worker = Rc::clone(&worker);
        tokio::task::spawn_local(async move {
            let _load = load;
            connection::serve(accepted, worker).await;
        });
    };
    let take = |accepted: Accepted| {
        let chosen = choose(index, &workers);
        let Some(taker) = workers.get(chosen) else { return Ok(()) };
        let load = taker.begin();
        if chosen == index {
            serve(accepted, load);
        } else if taker.connections.send((accepted.try_map(TcpStream::into_std)?, load)).is_err() {
            debug!("the worker has ended");
        }
        Ok(())
    };
    let accepting = listeners.into_iter().map(|listener| listener::accept(listener, Arc::clone(&room), stop.clone(), &take));
    let handed = async {
        while let Some((accepted, load)) = queue.recv().await {
            match accepted.try_map(TcpStream::from_std) {
                Ok(accepted) => serve(accepted, load),
                Err(error) => error!(%error, "connection"),
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        ended = try_join_all(accepting) => {
            if let Err(error) = ended {
                error!(%error, "listener");
            }
        }
        () = handed => {}
        never = worker.pool.sweep() => match never {},
    }
}

/// Who serves what a worker accepts: itself, unless another one has clearly fewer connections. Few are spread evenly; of many, not each one is
/// worth a change of threads.
fn choose(index: usize, workers: &[WorkerHandle]) -> usize {
    let load = |index: usize| workers.get(index).map_or(usize::MAX, WorkerHandle::load);
    let lightest = (0..workers.len()).min_by_key(|index| load(*index)).unwrap_or(index);
    if load(index) > load(lightest) + load(lightest) / 8 { lightest } else { index }
}

/// A connection in the load of a worker.
#[derive(Debug)]
pub(crate) struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connections_are_spread_evenly_and_many_nearly_so() {
        let (workers, _queues) = handles(3);
        let given = |loads: [usize; 3]| {
            for (worker, load) in workers.iter().zip(loads) {
                worker.load.store(load, Ordering::Relaxed);
            }
            choose(0, &workers)
        };
        for (loads, expected) in
            [([0, 0, 0], 0), ([1, 1, 0], 2), ([1, 2, 3], 0), ([8, 7, 9], 1), ([18, 16, 17], 0), ([19, 16, 17], 1), ([113, 100, 200], 1)]
        {
            assert_eq!(given(loads), expected, "{loads:?}");
        }
    }
}
