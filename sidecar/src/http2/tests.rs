use std::cell::Cell;
use std::future::poll_fn;

use ::http::request::Parts;
use ::http::{Request, Response, StatusCode};
use futures::future::join_all;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::io::DuplexStream;

use super::client::{Connection, SendError, Windows};
use super::*;
use crate::http::body::Outgoing;
use crate::http::outbound::{Outbound, OutboundHead};

const PIPE_BYTES: usize = 4096;
const WINDOWS: Windows = Windows { stream_bytes: 64 * 1024, connection_bytes: 1024 * 1024 };

/// Posts a body.
async fn post(connection: &mut Connection, path: &str, body: Vec<u8>) -> Result<Response<Body>, SendError> {
    let request = Request::post(format!("http://store{path}")).body(()).expect("a request");
    connection.send(Outbound { head: OutboundHead::of(&request), body: Outgoing::Own(Full::new(body.into())) }).await
}

/// The body again, with the path in front.
async fn echo(head: Box<Parts>, body: Body) -> Response<Full<Bytes>> {
    let path = head.uri.path().as_bytes().to_vec();
    match body.collect().await {
        Ok(body) => Response::new(Full::new([path, body.to_bytes().to_vec()].concat().into())),
        Err(_) => Response::builder().status(StatusCode::BAD_REQUEST).body(Full::default()).expect("a response"),
    }
}

/// Serves one end of a pipe while `ask` uses the other, until it says that this is all.
async fn served<B, F, A>(answer: impl Fn(Box<Parts>, Body) -> F, ask: impl FnOnce(DuplexStream) -> A)
where
    B: PipedBody<Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin,
    F: Future<Output = Response<B>>,
    A: Future<Output = ()>,
{
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let is_ending = Cell::new(false);
    let asked = async {
        ask(ours).await;
        is_ending.set(true);
    };
    // The connection may break off when the one who asks goes.
    let both = async { tokio::join!(server::serve(theirs, &is_ending, answer), asked) };
    let (_, ()) = tokio::task::LocalSet::new().run_until(both).await;
}

async fn connect(stream: DuplexStream) -> Connection {
    Connection::open(stream, (), WINDOWS).await.expect("a connection")
}

#[tokio::test]
async fn many_streams_at_once_get_each_their_own_answer() {
    let ask = |ours| async {
        let connection = connect(ours).await;
        // More than the states that are kept, twice, so that some are used again.
        for round in 0..2 {
            let asked = (0..90_usize).map(|number| {
                let mut connection = connection.clone();
                async move {
                    let (path, body) = (format!("/{round}/{number}"), vec![b'x'; number * number * 20]);
                    let response = post(&mut connection, &path, body.clone()).await.expect("an answer");
                    let answer = response.into_body().collect().await.expect("a body").to_bytes();
                    assert!(answer == [path.as_bytes(), &body].concat(), "{path}: {} bytes", answer.len());
                }
            });
            join_all(asked).await;
        }
    };
    served(echo, ask).await;
}

#[tokio::test]
async fn a_body_that_was_reset_has_no_end_whatever_the_reason_says() {
    let seen = Cell::new(None);
    let answer = |_, body: Body| {
        let seen = &seen;
        async move {
            seen.set(Some(body.collect().await.is_ok()));
            Response::new(Full::<Bytes>::default())
        }
    };
    let ask = |ours| async {
        let (sender, connection) = h2::client::handshake(ours).await.expect("a connection");
        tokio::task::spawn_local(connection);
        let mut sender = sender.ready().await.expect("ready");
        let asked = Request::post("http://store/").body(()).expect("a request");
        let (answered, mut body) = sender.send_request(asked, false).expect("sent");
        body.send_data(Bytes::from_static(b"half"), false).expect("sent");
        body.send_reset(Reason::NO_ERROR);
        assert!(answered.await.is_err());
        drop(sender);
    };
    served(answer, ask).await;
    assert_ne!(seen.get(), Some(true), "half a body is no body");
}

#[tokio::test]
async fn what_filters_set_and_http2_does_not_know_stays_behind() {
    let mut headers = HeaderMap::new();
    headers.insert(::http::header::CONNECTION, "close".parse().expect("a value"));
    complete(&mut headers, Some(3));
    assert!(!headers.contains_key(::http::header::CONNECTION));
    assert_eq!(headers[CONTENT_LENGTH], "3");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_reset() {
    let answer = |_, _| async {
        let frames = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"half"))), Err(std::io::Error::other("gone"))]);
        Response::new(StreamBody::new(frames).boxed())
    };
    let ask = |ours| async {
        let mut connection = connect(ours).await;
        // The head may be overtaken.
        let error = match post(&mut connection, "/", Vec::new()).await {
            Ok(response) => response.into_body().collect().await.expect_err("no end"),
            Err(refused) => refused.error,
        };
        assert!(matches!(error, Error::Stream(error) if error.reason() == Some(Reason::INTERNAL_ERROR)));
    };
    served(answer, ask).await;
}

#[tokio::test]
async fn a_connection_that_ended_sends_nothing() {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let mut connection = connect(ours).await;
            drop(theirs);
            poll_fn(|context| {
                context.waker().wake_by_ref();
                if connection.allowed().is_over.get() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            let refused = post(&mut connection, "/", Vec::new()).await.expect_err("no answer");
            assert!(refused.is_unsent, "{}", refused.error);
        })
        .await;
}

#[tokio::test]
async fn an_upload_ends_when_nobody_wants_its_answer() {
    let (given, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let answer = |_, body: Body| {
        // An endpoint that answers at once, goes on answering, and reads nothing for now.
        let _ = given.send(body);
        async { Response::new(StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, std::io::Error>>()).boxed()) }
    };
    let ask = async move |ours| {
        let mut connection = connect(ours).await;
        let response = post(&mut connection, "/", vec![b'x'; 1024 * 1024]).await.expect("a head");
        drop(response);
        let body = taken.recv().await.expect("a body");
        let error = body.collect().await.expect_err("the rest is not sent any more");
        assert!(matches!(error, Error::Stream(error) if error.reason() == Some(Reason::CANCEL)));
    };
    served(answer, ask).await;
}

#[tokio::test]
async fn trailers_leave_what_http2_does_not_know() {
    let answer = |_, _| async {
        let trailers = [("connection", "close"), ("x-sum", "1")]
            .map(|(name, value)| (::http::HeaderName::from_static(name), ::http::HeaderValue::from_static(value)));
        let frames = [Frame::data(Bytes::from_static(b"whole")), Frame::trailers(trailers.into_iter().collect())];
        Response::new(StreamBody::new(futures::stream::iter(frames.map(Ok::<_, std::io::Error>))).boxed())
    };
    let ask = |ours| async {
        let mut connection = connect(ours).await;
        let response = post(&mut connection, "/", Vec::new()).await.expect("a head");
        let answer = response.into_body().collect().await.expect("a whole answer");
        let trailers = answer.trailers().expect("trailers");
        assert_eq!((trailers.len(), trailers.get("x-sum").map(::http::HeaderValue::as_bytes)), (1, Some(&b"1"[..])));
    };
    served(answer, ask).await;
}
