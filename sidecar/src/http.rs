//! HTTP/1.1 and HTTP/2 from the pod's own client, where HTTP routes are in force.

mod auth;
pub(crate) mod body;
mod filters;
mod forward;
pub(crate) mod head;
mod meter;
mod mirror;
pub(crate) mod outbound;
mod own;
mod prepared;
mod response;
mod send;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use routing::model::FrontendId;
use tokio::net::TcpStream;
use tracing::debug;

use crate::detect::{Rewound, Spoken, detect};
use crate::snapshot::LiveFrontend;
use crate::telemetry::ConnectionKind;
use crate::worker::Worker;
use crate::{http1, http2};
use body::{BodyError, ClientBody};
use meter::{Meter, Metered};

/// A client's connection, pinned to what it dialled: a VIP that is reused by another frontend never re-routes it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// What was dialled.
    pub(crate) frontend: FrontendId,
    /// The same, as a label.
    pub(crate) name: Arc<str>,
    /// The address that was dialled.
    pub(crate) destination: SocketAddr,
    /// Who serves it.
    pub(crate) worker: Rc<Worker>,
    /// What it is doing.
    pub(crate) meter: Arc<Meter>,
    /// The frontend as the last request saw it: all that is left of it when its VIP has become another frontend's.
    pub(crate) last: RefCell<Option<Arc<LiveFrontend>>>,
}

/// The routes for one request.
pub(crate) enum Routes {
    /// These.
    Here(Arc<LiveFrontend>),
    /// None any more: what was dialled gets the request, as without a mesh.
    Gone,
    /// They have not arrived.
    NotLoaded,
}

impl Connection {
    /// Whether its routes have to come first.
    pub(crate) fn is_loading(&self) -> bool {
        self.worker.frontend(&self.frontend).is_none()
            && self.last.borrow().is_none()
            && self.worker.dialled(self.destination).as_ref() == Some(&self.frontend)
    }

    /// One look at the snapshot.
    pub(crate) fn routes(&self) -> Routes {
        if let Some(live) = self.worker.frontend(&self.frontend) {
            let mut last = self.last.borrow_mut();
            if !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &live)) {
                *last = Some(Arc::clone(&live));
            }
            return Routes::Here(live);
        }
        match self.worker.dialled(self.destination) {
            None => Routes::Gone,
            Some(now) => {
                // Let go while this connection was idle: asked for again, and meanwhile the last form serves. Or the VIP is another
                // frontend's now, and this connection was never meant for that one (digest D-10).
                if now == self.frontend {
                    self.worker.demand(&self.frontend);
                }
                self.last.borrow().as_ref().map_or(Routes::NotLoaded, |last| Routes::Here(Arc::clone(last)))
            }
        }
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(stream: TcpStream, frontend: FrontendId, destination: SocketAddr, worker: Rc<Worker>) {
    let limits = worker.shared.limits;
    let meter = Arc::new(Meter::default());
    let metered = Metered::new(stream, Arc::clone(&meter));
    let detected = tokio::select! {
        detected = detect(metered) => detected,
        () = meter.expires(limits) => return,
        () = worker.shared.farewell.cancelled() => return,
    };
    let (spoken, stream) = match detected {
        Ok(detected) => detected,
        Err(error) => return debug!(%destination, %error, "client"),
    };
    let kind = match spoken {
        Spoken::Http1 => ConnectionKind::Http1,
        Spoken::Http2 => ConnectionKind::Http2,
        // The routes have replaced the default, so these bytes go nowhere (digest D-23).
        Spoken::Other => ConnectionKind::Refused,
        Spoken::Nothing => return,
    };
    meter.speaks(kind);
    let _open = worker.shared.telemetry.connection(kind);
    if kind == ConnectionKind::Refused {
        debug!(%destination, "refused: no HTTP, and the routes are HTTP routes");
        return;
    }
    let name = frontend.to_string().into();
    let connection = Rc::new(Connection { frontend, name, destination, worker, meter, last: RefCell::new(None) });
    let served = if kind == ConnectionKind::Http2 {
        Box::pin(serve_http2(stream, &connection)).await.map_err(BodyError::from)
    } else {
        serve_http1(stream, &connection).await.map_err(BodyError::from)
    };
    if let Err(error) = served {
        debug!(%destination, %error, "client");
    }
    // A connection that became something else is still one until its bytes have ended.
    connection.meter.emptied().await;
}

async fn serve_http1(stream: Rewound<Metered>, connection: &Rc<Connection>) -> Result<(), http1::Error> {
    let (begun, stream) = stream.into_parts();
    let is_ending = Cell::new(false);
    let served = http1::server::serve(stream, begun, &is_ending, |received| {
        let received = received.map(|(head, body, switch)| (head, ClientBody::Http1(body), Some(switch)));
        forward::answer(received, Rc::clone(connection))
    });
    drive(pin!(served), connection, || is_ending.set(true)).await
}

async fn serve_http2(stream: Rewound<Metered>, connection: &Rc<Connection>) -> Result<(), http2::Error> {
    let is_ending = Cell::new(false);
    let served = http2::server::serve(stream, &is_ending, |head, body| {
        forward::answer(Ok((head, ClientBody::Http2(body), None)), Rc::clone(connection))
    });
    drive(pin!(served), connection, || is_ending.set(true)).await
}

/// Drives a connection until it ends by itself, its time limits end it, or a drain asks it to end.
async fn drive<F: Future<Output = Result<(), E>>, E>(
    mut served: Pin<&mut F>,
    connection: &Connection,
    end_gracefully: impl Fn(),
) -> Result<(), E> {
    let shared = &connection.worker.shared;
    tokio::select! {
        ended = served.as_mut() => return ended,
        () = connection.meter.expires(shared.limits) => {
            if connection.meter.is_quiet() {
                // The other side may not even answer a farewell.
                end_gracefully();
                return tokio::time::timeout(shared.limits.head, served).await.unwrap_or(Ok(()));
            }
            // A head that does not end, or a client that does not read: it gets no more time.
            return Ok(());
        }
        () = shared.farewell.cancelled() => {}
    }
    end_gracefully();
    served.await
}
