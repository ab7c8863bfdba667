//! Bodies from one connection to another: through a pipe or through memory, the bytes are the same.

use std::future::poll_fn;
use std::task::Poll;

use ::http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::Error;
use super::read::{Framing, Reader};
use super::write::Writer;
use crate::http::outbound::OutboundHead;
use crate::pipe::{Part, Pipe, pipes_of_a_test};

/// Two ends of a connection.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("connected"), server.expect("accepted").0)
}

/// Bytes in which none that is lost, doubled or moved goes unnoticed.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from((index * 7 + index / 251) % 256).expect("a byte")).collect()
}

/// How a body went.
#[derive(Debug, Default)]
struct Went {
    piped: usize,
    in_memory: usize,
}

/// Hands on a body of this length, its head before it; the reader is left where it ends.
async fn hand_on(reader: &mut Reader, from: &mut TcpStream, to: &mut TcpStream, length: usize) -> Result<Went, Error> {
    let head = Request::post("/").header("content-length", length).body(()).expect("a request");
    let mut writer = Writer::default();
    writer.request(&OutboundHead::of(&head))?;
    reader.begin_body(Framing::Exact(length as u64));
    let mut went = Went::default();
    poll_fn(|context| {
        loop {
            let mut is_waiting = false;
            while writer.wants_more() && !is_waiting {
                let mut way = writer.lend(to);
                let polled = reader.poll_part(from, &mut way, context);
                writer.take_back(way);
                match polled {
                    Poll::Ready(Some(Ok(Part::Piped(length)))) => {
                        went.piped += length;
                        writer.count(length)?;
                    }
                    Poll::Ready(Some(Ok(Part::Frame(frame)))) => {
                        let data = frame.into_data().expect("a body without trailers");
                        went.in_memory += data.len();
                        writer.data(data)?;
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) => writer.end(None)?,
                    Poll::Pending => is_waiting = true,
                }
            }
            match writer.poll_flush(to, context)? {
                Poll::Ready(()) if writer.has_ended() => return Poll::Ready(Ok(())),
                Poll::Ready(()) if !is_waiting => {}
                Poll::Ready(()) | Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await?;
    Ok(went)
}

const FOLLOWS: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// Sends a body of this length and a head right behind it, and looks at what arrives.
async fn arrives(length: usize) -> Went {
    let (mut sender, mut from) = connected().await;
    let (mut to, mut receiver) = connected().await;
    let sent = [&bytes(length), FOLLOWS].concat();
    let send = async {
        // The first bytes alone, so that the head has left before most of the body comes.
        let (first, rest) = sent.split_at(sent.len().min(1000));
        sender.write_all(first).await.expect("sent");
        sender.write_all(rest).await.expect("sent");
    };
    let receive = async {
        let mut received = Vec::new();
        receiver.read_to_end(&mut received).await.expect("received");
        received
    };
    let relay = async {
        let mut reader = Reader::default();
        let went = hand_on(&mut reader, &mut from, &mut to, length).await.expect("handed on");
        let next = poll_fn(|context| reader.poll_head(&mut from, 1024, context)).await.expect("the head behind the body");
        assert_eq!(next, FOLLOWS, "what follows a body of {length} bytes is none of it");
        to.shutdown().await.expect("ended");
        went
    };
    let ((), received, went) = tokio::join!(send, receive, relay);
    let head = received.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
    assert!(received[head..] == bytes(length), "{length} bytes arrive as they were sent");
    assert_eq!(went.piped + went.in_memory, length);
    went
}

#[tokio::test]
async fn a_large_body_goes_through_a_pipe_and_arrives_as_it_was() {
    let _pipes = pipes_of_a_test().await;
    for length in [0, 1, 1000, 65_535, 65_536, 70_000] {
        arrives(length).await;
    }
    for length in [1024 * 1024, 5_000_001] {
        let went = arrives(length).await;
        assert!(went.piped > went.in_memory, "{length}: {went:?}");
    }
    let pipes: Vec<Pipe> = std::iter::from_fn(Pipe::open).collect();
    assert!(!pipes.is_empty(), "pipes can be opened here");
    let went = arrives(1024 * 1024).await;
    assert_eq!(went.piped, 0, "where there is no pipe, all goes through memory");
}

#[tokio::test]
async fn a_body_that_breaks_off_in_a_pipe_is_incomplete() {
    let _pipes = pipes_of_a_test().await;
    let (mut sender, mut from) = connected().await;
    let (mut to, mut receiver) = connected().await;
    let send = async move {
        sender.write_all(&bytes(500_000)).await.expect("sent");
    };
    let relay = async move {
        let error = hand_on(&mut Reader::default(), &mut from, &mut to, 1_000_000).await.expect_err("half of it never comes");
        assert!(matches!(error, Error::Incomplete), "{error}");
    };
    let receive = async {
        let mut received = Vec::new();
        receiver.read_to_end(&mut received).await.expect("received");
        received.len()
    };
    let ((), (), received) = tokio::join!(send, relay, receive);
    assert!(received < 1_000_000);
}
