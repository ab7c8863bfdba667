//! Requests as they end, for whoever listens at the moment.
//!
//! Invariant: while nobody listens a request costs one look at a counter; a listener who is slower than the requests loses lines and is told
//! how many, and nobody waits for him.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::Told;
use super::access_log::Line;

/// Listeners at once.
const LISTENERS_MAX: usize = 8;
/// Lines that wait for a listener.
const LINES_MAX: usize = 256;
/// Lines a second that a listener gets if he does not say how many.
const RATE_DEFAULT: u32 = 100;

/// Which requests are wanted; what is not given says nothing against one.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// `NAMESPACE/NAME` of the route.
    route: Option<String>,
    /// Name of the backend, or a beginning of it.
    backend: Option<String>,
    /// Cluster of the endpoint.
    cluster: Option<String>,
    /// Method.
    method: Option<String>,
    /// Beginning of the path.
    path: Option<String>,
    /// Status, or its class: `503`, `5xx`.
    status: Option<String>,
    /// Why the sidecar answered itself.
    reason: Option<String>,
    /// Lines a second at most.
    rate: Option<u32>,
}

impl Wanted {
    fn includes(&self, told: &Told) -> bool {
        let is = |wanted: &Option<String>, it: &str| wanted.as_ref().is_none_or(|wanted| wanted == it);
        let begins = |wanted: &Option<String>, it: &str| wanted.as_ref().is_none_or(|wanted| it.starts_with(wanted.as_str()));
        is(&self.route, &told.route)
            && begins(&self.backend, &told.backend)
            && is(&self.cluster, &told.source_cluster)
            && is(&self.method, told.method.as_ref().map_or("", ::http::Method::as_str))
            && begins(&self.path, &told.path)
            && is(&self.reason, told.reason)
            && self.status.as_ref().is_none_or(|wanted| is_status(wanted, told.status))
    }
}

fn is_status(wanted: &str, status: u16) -> bool {
    match wanted.strip_suffix("xx") {
        Some(class) => class.parse() == Ok(status / 100),
        None => wanted.parse() == Ok(status),
    }
}

/// All listeners.
#[derive(Debug)]
pub(crate) struct Taps {
    count: AtomicUsize,
    next: AtomicU64,
    /// None: nobody can listen any more.
    listeners: Mutex<Option<Vec<Listener>>>,
}

#[derive(Debug)]
struct Listener {
    id: u64,
    wanted: Wanted,
    lines: mpsc::Sender<String>,
    /// When the second that is under way began, and the lines that it has had.
    second: (Instant, u32),
    missed: u64,
}

/// Too many listen.
#[derive(Debug, thiserror::Error)]
#[error("{LISTENERS_MAX} listen already")]
pub(crate) struct TooMany;

impl Default for Taps {
    fn default() -> Self {
        Self { count: AtomicUsize::new(0), next: AtomicU64::new(0), listeners: Mutex::new(Some(Vec::new())) }
    }
}

impl Taps {
    /// Whether anybody listens.
    pub(crate) fn is_any(&self) -> bool {
        self.count.load(Relaxed) > 0
    }

    /// Listens until the receiver is dropped.
    pub(crate) fn listen(&self, wanted: Wanted) -> Result<mpsc::Receiver<String>, TooMany> {
        let mut listeners = self.listeners.lock();
        let listeners = listeners.as_mut().ok_or(TooMany)?;
        listeners.retain(|listener| !listener.lines.is_closed());
        if listeners.len() >= LISTENERS_MAX {
            return Err(TooMany);
        }
        let (lines, queue) = mpsc::channel(LINES_MAX);
        listeners.push(Listener { id: self.next.fetch_add(1, Relaxed), wanted, lines, second: (Instant::now(), 0), missed: 0 });
        self.count.store(listeners.len(), Relaxed);
        Ok(queue)
    }

    /// Nobody listens any more, and nobody can.
    pub(crate) fn close(&self) {
        *self.listeners.lock() = None;
        self.count.store(0, Relaxed);
    }

    /// Tells those who want to hear it.
    pub(super) fn tell(&self, told: &Told) {
        if self.is_any() {
            self.tell_at(told, Instant::now());
        }
    }

    fn tell_at(&self, told: &Told, now: Instant) {
        let mut listeners = self.listeners.lock();
        let Some(listeners) = listeners.as_mut() else { return };
        listeners.retain_mut(|listener| {
            if listener.wanted.includes(told) {
                listener.tell(told, now);
            }
            !listener.lines.is_closed()
        });
        self.count.store(listeners.len(), Relaxed);
    }
}

impl Listener {
    fn tell(&mut self, told: &Told, now: Instant) {
        if now.duration_since(self.second.0) >= Duration::from_secs(1) {
            self.second = (now, 0);
        }
        self.second.1 = self.second.1.saturating_add(1);
        let is_within = self.second.1 <= self.wanted.rate.unwrap_or(RATE_DEFAULT);
        let is_taken = is_within && {
            let mut line = Line::of(told);
            line.missed = Some(self.missed);
            serde_json::to_string(&line).is_ok_and(|line| self.lines.try_send(line + "\n").is_ok())
        };
        self.missed = if is_taken { 0 } else { self.missed + 1 };
        tracing::trace!(listener = self.id, is_taken, "tap");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(route: &str, path: &str, status: u16) -> Told {
        let empty = "".into();
        Told { route: route.into(), path: path.to_owned(), status, method: Some(::http::Method::GET), ..Told::new("f".into(), &empty) }
    }

    fn wanted(query: serde_json::Value) -> Wanted {
        serde_json::from_value(query).expect("a filter")
    }

    #[test]
    fn a_listener_hears_what_it_wants() {
        for (query, expected) in [
            (serde_json::json!({}), true),
            (serde_json::json!({"route": "shop/store", "method": "GET", "path": "/ca", "status": "404"}), true),
            (serde_json::json!({"status": "4xx"}), true),
            (serde_json::json!({"status": "5xx"}), false),
            (serde_json::json!({"status": "xx"}), false),
            (serde_json::json!({"route": "shop/stor"}), false),
            (serde_json::json!({"path": "/carts"}), false),
            (serde_json::json!({"reason": "no_route"}), false),
        ] {
            assert_eq!(wanted(query.clone()).includes(&told("shop/store", "/cart", 404)), expected, "{query}");
        }
        assert!(serde_json::from_value::<Wanted>(serde_json::json!({"rout": "x"})).is_err(), "a filter that is misspelt shows nothing");
    }

    #[test]
    fn a_listener_hears_so_much_a_second_and_how_much_it_missed() {
        let taps = Taps::default();
        assert!(!taps.is_any());
        let mut queue = taps.listen(wanted(serde_json::json!({"rate": 2}))).expect("room");
        let began = Instant::now();
        for second in [1, 1, 1, 1, 2] {
            taps.tell_at(&told("r", "/", 200), began + Duration::from_secs(second));
        }
        let lines: Vec<serde_json::Value> =
            std::iter::from_fn(|| queue.try_recv().ok()).map(|line| serde_json::from_str(&line).expect("JSON")).collect();
        assert_eq!(lines.iter().map(|line| line["missed"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(0), Some(2)]);
        drop(queue);
        taps.tell(&told("r", "/", 200));
        assert!(!taps.is_any(), "nobody listens any more");
    }

    #[test]
    fn few_listen_at_once() {
        let taps = Taps::default();
        let queues: Vec<_> = (0..LISTENERS_MAX).map(|_| taps.listen(Wanted::default()).expect("room")).collect();
        assert!(taps.listen(Wanted::default()).is_err());
        drop(queues);
        assert!(taps.listen(Wanted::default()).is_ok(), "those who went have made room");
        taps.close();
        assert!(taps.listen(Wanted::default()).is_err(), "a sidecar that ends waits for nobody");
    }
}
