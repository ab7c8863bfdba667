//! A response on its way to the client: its end ends the record, frees the connection, and says how the endpoint fares.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::time::{Instant, Sleep};

use super::body::{BodyError, EndpointBody, Idle};
use super::head;
use super::meter::InFlight;
use crate::endpoint::{EndpointState, Outcome};
use crate::pipe::{Part, PipedBody, Way};
use crate::pool::Lease;
use crate::reason::Reason;
use crate::snapshot::{LiveBackend, LiveEndpoint};
use crate::telemetry::Record;
use crate::worker::Worker;

/// A response's body on its way to the client.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// An answer of the sidecar's own.
    Own(Full<Bytes>, #[expect(dead_code, reason = "kept for its end")] Box<Guards>),
    /// An endpoint's answer.
    Streamed(Box<Streamed>),
    /// None: the connection goes on as something else.
    Switched,
}

/// What ends with the response.
#[derive(Debug)]
pub(crate) struct Guards {
    /// Told when dropped.
    pub(crate) record: Box<Record>,
    /// The client's connection is busy until then.
    pub(crate) in_flight: InFlight,
}

/// An endpoint's answer.
#[derive(Debug)]
pub(crate) struct Streamed {
    incoming: EndpointBody,
    idle: Idle,
    /// The first limit that it may exceed, and whose that is.
    deadline: Option<Deadline>,
    request_end: Option<Instant>,
    guards: Guards,
    used: Option<Used>,
}

type Deadline = (Pin<Box<Sleep>>, Reason);

fn deadline(end: Instant, reason: Reason) -> Deadline {
    (Box::pin(tokio::time::sleep_until(end)), reason)
}

/// The connection that an answer came on.
#[derive(Debug)]
pub(crate) struct Used {
    /// Given back when the answer has been read to its end.
    pub(crate) lease: Lease,
    /// To whom.
    pub(crate) worker: Rc<Worker>,
    /// The endpoint's count of requests.
    #[expect(dead_code, reason = "kept for its end")]
    pub(crate) counted: Counted,
    /// Who hears what became of the request, if that is not clear from the head.
    pub(crate) judged: Option<Judged>,
}

/// An endpoint whose answer is good or bad only by its end: gRPC says so in trailers.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Whose it is.
    pub(crate) backend: Arc<LiveBackend>,
    /// Which.
    pub(crate) endpoint: LiveEndpoint,
}

impl Used {
    fn judge(&mut self, outcome: Outcome) {
        if let Some(judged) = self.judged.take() {
            self.worker.note(&judged.backend, &judged.endpoint, outcome);
        }
    }
}

/// A request in an endpoint's count.
#[derive(Debug)]
pub(crate) struct Counted(Arc<EndpointState>);

impl Counted {
    pub(crate) fn begin(state: &Arc<EndpointState>) -> Self {
        state.begin();
        Self(Arc::clone(state))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Streamed {
    /// A body that has to have ended when the request's time is over, and to have come when that of its attempt is; none: whenever it likes.
    pub(crate) fn new(
        incoming: EndpointBody,
        idle: Duration,
        (request_end, attempt_end): (Option<Instant>, Option<Instant>),
        guards: Guards,
        used: Used,
    ) -> Self {
        let ends = [request_end.map(|end| (end, Reason::RequestTimeout)), attempt_end.map(|end| (end, Reason::BackendTimeout))];
        let deadline = ends.into_iter().flatten().min_by_key(|(end, _)| *end).map(|(end, reason)| deadline(end, reason));
        let mut streamed = Self { incoming, idle: Idle::new(idle), deadline, request_end, guards, used: Some(used) };
        if streamed.incoming.is_end_stream() {
            streamed.end();
        }
        streamed
    }

    fn break_off(&mut self, reason: Reason) {
        self.guards.record.broke(reason);
        if let Some(used) = &mut self.used {
            used.judge(Outcome::Failure);
        }
    }

    /// Ready, with whose it was, when the deadline has passed.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<Reason> {
        let Some((sleep, reason)) = &mut self.deadline else { return Poll::Pending };
        ready!(sleep.as_mut().poll(context));
        self.guards.record.broke(*reason);
        Poll::Ready(*reason)
    }

    fn end(&mut self) {
        if let Some(mut used) = self.used.take() {
            used.judge(Outcome::Success);
            used.worker.pool.give_back(used.lease);
        }
        if self.deadline.as_ref().is_some_and(|(_, reason)| *reason == Reason::BackendTimeout) {
            // The endpoint has done what it had to in time; the client has the time of the request.
            self.deadline = self.request_end.map(|end| deadline(end, Reason::RequestTimeout));
        }
    }
}

impl PipedBody for ResponseBody {
    fn poll_part(self: Pin<&mut Self>, way: &mut Way, context: &mut Context<'_>) -> Poll<Option<Result<Part, BodyError>>> {
        let streamed = match self.get_mut() {
            Self::Own(full, _) => return Pin::new(full).poll_part(way, context).map_err(|never| match never {}),
            Self::Streamed(streamed) => streamed,
            Self::Switched => return Poll::Ready(None),
        };
        let polled = Pin::new(&mut streamed.incoming).poll_part(way, context);
        if let Poll::Ready(Some(Ok(Part::Piped(length)))) = &polled {
            // On its way, whatever becomes of the rest.
            streamed.guards.record.told().bytes_sent += *length as u64;
        }
        if !matches!(polled, Poll::Ready(None))
            && let Poll::Ready(reason) = streamed.poll_deadline(context)
        {
            if reason == Reason::BackendTimeout
                && let Some(used) = &mut streamed.used
            {
                used.judge(Outcome::Failure);
            }
            return Poll::Ready(Some(Err(BodyError::Deadline)));
        }
        match polled {
            Poll::Ready(Some(Ok(part))) => {
                streamed.idle.happened();
                if let Part::Frame(frame) = &part {
                    if let (Some(trailers), Some(used)) = (frame.trailers_ref(), &mut streamed.used) {
                        used.judge(head::outcome_of_trailers(trailers));
                    }
                    streamed.guards.record.told().bytes_sent += frame.data_ref().map_or(0, Bytes::len) as u64;
                }
                if streamed.incoming.is_end_stream() {
                    streamed.end();
                }
                Poll::Ready(Some(Ok(part)))
            }
            Poll::Ready(Some(Err(error))) => {
                streamed.break_off(Reason::EndpointReset);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                streamed.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let expired = streamed.idle.poll(context);
                if expired.is_ready() {
                    streamed.break_off(Reason::StreamIdle);
                }
                expired.map(|()| Some(Err(BodyError::Idle)))
            }
        }
    }

    /// A request's time ends with its response, also when it is the client that does not take it in (GEP-1742); the endpoint is not blamed for it.
    fn poll_overdue(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<BodyError> {
        let Self::Streamed(streamed) = self.get_mut() else { return Poll::Pending };
        streamed.poll_deadline(context).map(|_| BodyError::Deadline)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_part(&mut Way::default(), context).map_ok(Part::into_frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(full, _) => full.is_end_stream(),
            Self::Streamed(streamed) => streamed.incoming.is_end_stream(),
            Self::Switched => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(full, _) => full.size_hint(),
            Self::Streamed(streamed) => streamed.incoming.size_hint(),
            Self::Switched => SizeHint::with_exact(0),
        }
    }
}
