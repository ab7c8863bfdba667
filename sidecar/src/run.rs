//! Puts the parts together: listeners, workers, control, interception, admin; and takes them apart at the end.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use proto::listen::listen;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::admin::{Admin, health, router};
use crate::config::Config;
use crate::connect::Connector;
use crate::control::{self, Control, DEMANDS_MAX};
use crate::listener::{self, Listener};
use crate::passthrough::PassThroughs;
use crate::telemetry::{AccessLog, Telemetry, trace};
use crate::worker::{self, Shared, Start, WorkerHandle};
use crate::{drain, interception};

/// When everything else has ended, what is left of tasks has so long.
const TASKS_MAX: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT and the drain that follows.
///
/// # Errors
/// A setting is wrong, an address is taken, or a part fails.
pub fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Addresses first: one that is taken is said before anything else happens.
    let listeners = listener::bind(&config.outbound, config.worker_count())?;
    let admin = listen(config.admin).with_context(|| format!("--admin {}", config.admin))?;
    let reached = bind_health(&config)?;
    let (tracer, exporter) = trace::open(&config)?.unzip();
    let (log, writer) = config.access_log.as_deref().map(AccessLog::open).transpose()?.unzip();
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (demand, demands) = mpsc::channel(DEMANDS_MAX);
    let (published, published_seen) = watch::channel(());
    let (ready, ready_seen) = watch::channel(false);
    let shared = Arc::new(Shared {
        live: control::empty(),
        published: published_seen,
        demand,
        telemetry: Arc::new(Telemetry::new(log, tracer)),
        connector: Connector::new(config.mark),
        limits: config.limits(),
        pass_throughs: PassThroughs::default(),
        farewell: CancellationToken::new(),
        began: Instant::now(),
        empty: "".into(),
    });
    let (workers, threads) = start_workers(listeners, &shared, &stop)?;
    let (wanted, wanted_seen) = watch::channel(None);
    let (intercepted, intercepted_seen) = watch::channel(None);
    let watched = config.vip_socket.clone();
    let control = Control {
        live: Arc::clone(&shared.live),
        ready,
        published,
        demands,
        intercept: watched.is_some().then_some(wanted),
        intercepted: intercepted_seen,
        began: shared.began,
        telemetry: Arc::clone(&shared.telemetry),
    };
    if let Some(path) = watched {
        let stop = stop.clone();
        tasks.spawn(async move { interception::run(&path, wanted_seen, intercepted, stop).await });
    }
    let startup_until = shared.began + Duration::from_secs(config.startup_wait_s);
    let answers = Admin { shared: Arc::clone(&shared), ready: ready_seen, startup_until };
    tasks.spawn(axum::serve(admin, router(answers.clone())).with_graceful_shutdown(stop.clone().cancelled_owned()).into_future());
    if let Some(reached) = reached {
        tasks.spawn(axum::serve(reached, health(answers.clone())).with_graceful_shutdown(stop.clone().cancelled_owned()).into_future());
    }
    if let Some(exporter) = exporter {
        tasks.spawn(exporter.run(stop.clone()));
    }
    info!(workers = workers.len(), controller = config.controller, "serves");
    let grace = Duration::from_secs(config.drain_grace_s);
    let controlled = control.run(config, stop.clone());
    let result = tokio::select! {
        result = controlled => result,
        () = async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            drain::drain(Arc::clone(&workers), grace, shared.farewell.clone()).await;
        } => Ok(()),
    };
    stop.cancel();
    // Those who listen would keep the admin port from ending.
    shared.telemetry.taps.close();
    end(&tasks).await;
    // The access log's writer ends when nobody can tell it anything any more.
    drop((shared, workers, answers));
    join(threads.into_iter().chain(writer));
    result
}

fn bind_health(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.health else { return Ok(None) };
    listen(address).map(Some).with_context(|| format!("--health {address}"))
}

type Workers = (Arc<[WorkerHandle]>, Vec<JoinHandle<()>>);

fn start_workers(listeners: Vec<Vec<Listener>>, shared: &Arc<Shared>, stop: &CancellationToken) -> anyhow::Result<Workers> {
    let (workers, queues) = worker::handles(listeners.len());
    let room = listener::room();
    let starts = listeners.into_iter().zip(queues).enumerate().map(|(index, (listeners, queue))| {
        let (workers, room) = (Arc::clone(&workers), Arc::clone(&room));
        worker::start(Start { index, workers, queue, listeners, room, shared: Arc::clone(shared), stop: stop.clone() })
    });
    let threads = starts.collect::<std::io::Result<_>>().context("worker")?;
    Ok((workers, threads))
}

/// Who reads nothing at the admin port does not keep the process.
async fn end(tasks: &TaskTracker) {
    tasks.close();
    if tokio::time::timeout(TASKS_MAX, tasks.wait()).await.is_err() {
        tracing::warn!("somebody at the admin port does not read its answer");
    }
}

/// The threads have been told to end; one that panicked has said so itself.
fn join(threads: impl Iterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread panicked");
        }
    }
}
