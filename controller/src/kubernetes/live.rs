//! Says in the status of routes whether they are live, while this replica leads: by what the sidecars of all replicas have acknowledged.
//!
//! Invariant: no count is written, nor what passes within [`BEHIND_MIN`]: what comes and goes with pods changes no status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use routing::api::ObjectKey;
use routing::status::{Condition, LIVE};
use tokio::sync::watch;
use tracing::warn;

use super::peers::Peers;
use super::status::Pending;
use crate::index::Index;
use crate::live::{Lagging, Live, Lives, RouteLive, lives, merge, unlist};
use crate::registry::Registry;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A sidecar that is behind for less time than this is not spoken of.
const BEHIND_MIN: Duration = Duration::from_secs(10);
/// What was said of a generation is said for this time at least.
const VERDICT_MIN: Duration = Duration::from_secs(10);
/// A replica that ends or begins fails a few times; then it is said, once.
const FAILURES_SAID: u32 = 10;

/// What is said of each route.
#[derive(Debug, Default)]
pub(super) struct Verdicts(Mutex<BTreeMap<ObjectKey, Verdict>>);

#[derive(Clone, Debug)]
struct Verdict {
    condition: Condition,
    since: Instant,
}

impl Verdicts {
    /// What is said of a route; none: nothing yet.
    pub(super) fn of(&self, key: &ObjectKey) -> Option<Condition> {
        self.0.lock().get(key).map(|verdict| verdict.condition.clone())
    }

    fn clear(&self) {
        self.0.lock().clear();
    }

    /// Takes in how far routes have come, and says of which something else is said from now on.
    fn judge(&self, lives: &Lives, now: Instant) -> Vec<ObjectKey> {
        let mut verdicts = self.0.lock();
        verdicts.retain(|key, _| lives.contains_key(key));
        let mut changed = Vec::new();
        for (key, live) in lives {
            let before = verdicts.get(key);
            let Some(condition) = verdict(live, before, now) else { continue };
            if before.is_none_or(|before| before.condition != condition) {
                verdicts.insert(key.clone(), Verdict { condition, since: now });
                changed.push(key.clone());
            }
        }
        changed
    }
}

/// What is to be said; none: what was said before, if anything.
fn verdict(live: &Live, before: Option<&Verdict>, now: Instant) -> Option<Condition> {
    let same = before.filter(|before| before.condition.observed_generation == live.generation);
    let is_true = live.is_everywhere();
    if same.is_some_and(|before| before.condition.status == is_true || now.duration_since(before.since) < VERDICT_MIN) {
        return None;
    }
    let condition = |status, reason, message| Condition { kind: LIVE, status, reason, message, observed_generation: live.generation };
    if is_true {
        return Some(condition(true, "Acknowledged", "Every sidecar that it concerns has acknowledged it".to_owned()));
    }
    let worst = live.lagging.iter().max_by_key(|lagging| lagging.behind_s)?;
    let Lagging { namespace, pod, behind_s, rejected } = worst;
    let behind = Duration::from_secs(*behind_s);
    if behind < BEHIND_MIN {
        return None;
    }
    let since = Timestamp::now().checked_sub(behind).ok()?.round(jiff::Unit::Second).ok()?;
    Some(match rejected.is_empty() {
        true => condition(false, "Lagging", format!("The sidecar of {namespace}/{pod}, for one, has not acknowledged it since {since}")),
        false => condition(false, "Rejected", format!("The sidecar of {namespace}/{pod}, for one, rejects it since {since}: {rejected}")),
    })
}

/// Looks, and has written what differs.
pub(super) struct Looker {
    pub(super) peers: Peers,
    pub(super) index: Arc<Index>,
    pub(super) registry: Arc<Registry>,
    pub(super) pending: Arc<Pending>,
    pub(super) verdicts: Arc<Verdicts>,
    pub(super) leadership: watch::Receiver<bool>,
}

impl Looker {
    /// Without end, unless leadership cannot be known any more.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failures = 0_u32;
        loop {
            if !*self.leadership.borrow() {
                self.verdicts.clear();
                if self.leadership.wait_for(|leads| *leads).await.is_err() {
                    return;
                }
                // Where a leader is new, sidecars may be on their way back.
                tokio::time::sleep(BEHIND_MIN).await;
            }
            tick.tick().await;
            match self.look().await {
                Ok(lives) => {
                    failures = 0;
                    self.pending.add(self.verdicts.judge(&lives, Instant::now()));
                }
                // Without all of them nothing new can be said.
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures == FAILURES_SAID {
                        warn!(
                            error = format!("{error:#}"),
                            "another replica cannot be asked: {LIVE} is not kept up to date. Does a NetworkPolicy forbid it?"
                        );
                    }
                }
            }
        }
    }

    /// How far routes have come among the sidecars of all replicas.
    async fn look(&self) -> anyhow::Result<Lives> {
        let mut all = lives(&self.index, &self.registry.sidecars());
        for list in self.peers.ask::<Vec<RouteLive>>("/live").await? {
            merge(&mut all, unlist(list?));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use routing::api::ObjectKind;
    use routing::model::RouteKind;

    use super::*;

    fn key() -> ObjectKey {
        ObjectKey { kind: ObjectKind::Route(RouteKind::Http), namespace: "shop".to_owned(), name: "store".to_owned() }
    }

    fn lives(generation: i64, live: usize, behind_s: &[u64]) -> Lives {
        let lagging = behind_s.iter().map(|behind_s| Lagging { pod: format!("pod-{behind_s}"), behind_s: *behind_s, ..Lagging::default() });
        let sidecars = live + behind_s.len();
        Lives::from([(key(), Live { generation, sidecars, live, lagging: lagging.collect() })])
    }

    #[test]
    fn a_generation_is_live_when_nobody_is_behind() {
        let verdicts = Verdicts::default();
        let now = Instant::now();
        assert!(verdicts.judge(&lives(1, 0, &[1]), now).is_empty(), "a moment is not spoken of");
        assert_eq!(verdicts.of(&key()), None);
        assert_eq!(verdicts.judge(&lives(1, 1, &[]), now), [key()]);
        let said = verdicts.of(&key()).expect("something");
        assert_eq!((said.status, said.reason, said.observed_generation), (true, "Acknowledged", 1));
        assert!(verdicts.judge(&lives(2, 1, &[3]), now).is_empty(), "not yet");
        assert_eq!(verdicts.judge(&lives(2, 2, &[]), now), [key()], "another generation is another matter, at once");
    }

    #[test]
    fn pods_that_come_and_go_write_nothing() {
        let verdicts = Verdicts::default();
        let now = Instant::now();
        verdicts.judge(&lives(1, 1, &[]), now);
        for (live, behind_s) in [(100, &[][..]), (100, &[0, 1, 9]), (0, &[]), (3, &[2])] {
            assert!(verdicts.judge(&lives(1, live, behind_s), now + VERDICT_MIN).is_empty(), "{live} {behind_s:?}");
        }
    }

    #[test]
    fn one_who_stays_behind_is_named_and_named_once() {
        let verdicts = Verdicts::default();
        let now = Instant::now();
        verdicts.judge(&lives(1, 1, &[]), now);
        assert!(verdicts.judge(&lives(1, 1, &[30]), now).is_empty(), "it was live a moment ago");
        assert_eq!(verdicts.judge(&lives(1, 1, &[9, 30]), now + VERDICT_MIN), [key()]);
        let said = verdicts.of(&key()).expect("something");
        assert_eq!((said.status, said.reason), (false, "Lagging"));
        assert!(said.message.contains("pod-30"), "{}", said.message);
        assert!(verdicts.judge(&lives(1, 1, &[40, 50]), now + 2 * VERDICT_MIN).is_empty(), "not again");
        assert_eq!(verdicts.judge(&lives(1, 3, &[]), now + 2 * VERDICT_MIN), [key()]);
    }

    #[test]
    fn nothing_is_said_of_what_is_not_attached() {
        let verdicts = Verdicts::default();
        verdicts.judge(&lives(1, 1, &[]), Instant::now());
        verdicts.judge(&Lives::new(), Instant::now());
        assert_eq!(verdicts.of(&key()), None);
    }
}
