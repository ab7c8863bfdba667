//! A request's head while the filters of its rule, and of its backend, are applied in their order.

use std::rc::Rc;
use std::sync::Arc;

use ::http::header::LOCATION;
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue};
use routing::filter::step::{Passing, ResponseChange, Step};
use routing::model::{Filter, RouteMatch};
use tracing::debug;

use super::auth;
use super::body::Replayable;
use super::own::Own;
use crate::reason::Reason;
use crate::snapshot::{LiveBackend, LiveRule};
use crate::worker::Worker;

/// A copy of a request on its way to a mirror: as it was when the mirror's filter had its turn.
#[derive(Debug)]
pub(crate) struct Copy {
    /// Where it goes.
    pub(crate) backend: Arc<LiveBackend>,
    /// Its head.
    pub(crate) parts: Box<Parts>,
    /// Host or `:authority`.
    pub(crate) authority: Option<HeaderValue>,
}

/// A request's head while filters are applied in their order.
pub(crate) struct Filtered<'r> {
    /// Who applies them.
    pub(crate) worker: &'r Rc<Worker>,
    /// The head.
    pub(crate) passing: Passing,
    /// The body, for who has to see it first.
    pub(crate) body: &'r Replayable,
    /// What happens to the response.
    pub(crate) changes: Vec<ResponseChange>,
    /// Copies to be sent.
    pub(crate) copies: Vec<Copy>,
    /// The port that was dialled.
    pub(crate) port: std::num::NonZeroU16,
    /// The address that was dialled.
    pub(crate) destination: std::net::SocketAddr,
}

impl Filtered<'_> {
    /// Applies filters in their order; an answer of one of them ends it.
    pub(crate) async fn apply(&mut self, filters: &[Filter], matched: &RouteMatch, rule: &LiveRule) -> Result<(), Own> {
        for filter in filters {
            match filter.step(&mut self.passing, matched, self.port) {
                Step::Passes => {}
                Step::Changes(change) => self.changes.push(change),
                // Rare, and large: nobody else's request is to have room for it.
                Step::Asks(asked) => Box::pin(auth::authorize(self, asked, rule)).await?,
                Step::Copies(mirror) => {
                    if mirror.fraction.takes(self.worker.random())
                        && let Some(backend) = rule.other(&mirror.target)
                    {
                        let Passing { parts, authority } = self.passing.clone();
                        self.copies.push(Copy { backend, parts, authority });
                    }
                }
                Step::Redirects { status, location, leads_to_itself } => {
                    if leads_to_itself {
                        self.worker.shared.telemetry.redirect_loop(&rule.route);
                    }
                    let mut headers = HeaderMap::with_capacity(4);
                    headers.insert(LOCATION, location);
                    return Err(Own::with_headers(Reason::Redirect(status), headers));
                }
                Step::Preflight(headers) => return Err(Own::with_headers(Reason::Preflight, headers)),
                Step::InvalidTarget(why) => {
                    debug!(why, "redirect or rewrite");
                    return Err(Reason::InvalidTarget.into());
                }
                Step::Unsupported(what) => {
                    debug!(what, "unsupported filter");
                    return Err(Reason::UnsupportedFilter.into());
                }
            }
        }
        Ok(())
    }
}
