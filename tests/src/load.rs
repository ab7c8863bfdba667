//! Steady traffic from a pod while something happens: on kept HTTP/1.1 connections and on one HTTP/2 connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use http::Version;
use lab::client::{Answer, Ask, Connection};
use lab::lab::Lab;
use lab::roles::PodName;
use tokio::sync::watch;

/// Kept HTTP/1.1 connections.
const CONNECTIONS: usize = 4;
/// Each of the five connections asks ten times a second: fifty requests a second in all.
const PAUSE: Duration = Duration::from_millis(100);

/// Traffic that flows until it is asked for its result.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
    results: Arc<parking::Results>,
    done: Arc<AtomicUsize>,
}

mod parking {
    //! Results of all connections, in the order in which they came.

    use std::sync::{Mutex, PoisonError};

    use super::Outcome;

    /// See the module.
    #[derive(Debug, Default)]
    pub(super) struct Results(Mutex<Vec<Outcome>>);

    impl Results {
        pub(super) fn push(&self, outcome: Outcome) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
        }

        pub(super) fn take(&self) -> Vec<Outcome> {
            std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }
}

/// What became of one request.
pub type Outcome = Result<Answer, String>;

impl Load {
    /// Lets traffic flow from a pod.
    ///
    /// # Errors
    /// There is no such pod or name.
    pub fn start(lab: &Lab, pod: &PodName, to: &str, target: &str) -> anyhow::Result<Self> {
        let address = lab.address(pod, to)?;
        let ask = Ask::get(to, target);
        let results = Arc::<parking::Results>::default();
        let done = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = watch::channel(false);
        let (sink, counter) = (Arc::clone(&results), Arc::clone(&done));
        let thread = lab.namespace(pod)?.spawn("load", move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async move {
                let versions = std::iter::repeat_n(Version::HTTP_11, CONNECTIONS).chain([Version::HTTP_2]);
                let mut flows = tokio::task::JoinSet::new();
                for version in versions {
                    let (ask, sink, counter, mut stopped) = (ask.clone(), Arc::clone(&sink), Arc::clone(&counter), stopped.clone());
                    flows.spawn(async move {
                        let mut connection = match Connection::open(address, version).await {
                            Ok(connection) => connection,
                            Err(error) => return sink.push(Err(format!("{error:#}"))),
                        };
                        while !*stopped.borrow() {
                            let outcome = connection.ask(&ask).await.map_err(|error| format!("{version:?}: {error:#}"));
                            let is_over = outcome.is_err();
                            sink.push(outcome);
                            counter.fetch_add(1, Ordering::Relaxed);
                            if is_over {
                                return;
                            }
                            tokio::select! {
                                () = tokio::time::sleep(PAUSE) => {}
                                _ = stopped.changed() => {}
                            }
                        }
                    });
                }
                while flows.join_next().await.is_some() {}
            });
        })?;
        let load = Self { stop, thread, results, done };
        load.wait_for_more(2 * (CONNECTIONS + 1))?;
        Ok(load)
    }

    /// Waits until so many more requests are done.
    ///
    /// # Errors
    /// Traffic has stopped.
    pub fn wait_for_more(&self, count: usize) -> anyhow::Result<()> {
        let goal = self.done.load(Ordering::Relaxed) + count;
        while self.done.load(Ordering::Relaxed) < goal {
            anyhow::ensure!(!self.thread.is_finished(), "traffic has stopped: {:?}", self.results.take().into_iter().find(Result::is_err));
            std::thread::yield_now();
        }
        Ok(())
    }

    /// What came since the last call.
    #[must_use]
    pub fn so_far(&self) -> Vec<Outcome> {
        self.results.take()
    }

    /// Ends the traffic; gives what came since the last look.
    ///
    /// # Errors
    /// The traffic's own thread failed.
    pub fn finish(self) -> anyhow::Result<Vec<Outcome>> {
        self.stop.send_replace(true);
        self.thread.join().ok().context("the thread of the traffic")?;
        Ok(self.results.take())
    }
}
