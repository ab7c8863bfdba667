//! gRPC as far as a proxy sees it: HTTP/2 with messages in frames and a status in trailers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::say;

/// Of every message: its length and 64 bytes.
const MESSAGE_BYTES: usize = 5 + 64;
const STREAMS_MAX: u32 = 1000;

/// Answers until it is ended.
pub(crate) fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // Ends with its connection.
            tokio::spawn(async move {
                if let Err(error) = connection(stream).await {
                    eprintln!("{error:#}");
                }
            });
        }
    })
}

async fn connection(stream: TcpStream) -> anyhow::Result<()> {
    let mut connection = h2::server::Builder::new().max_concurrent_streams(STREAMS_MAX).handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        tokio::spawn(async move {
            let mut body = request.into_body();
            let head = Response::builder().header("content-type", "application/grpc").body(())?;
            let mut answer = respond.send_response(head, false)?;
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                answer.send_data(data, false)?;
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            answer.send_trailers(trailers)?;
            anyhow::Ok(())
        });
    }
    Ok(())
}

/// Messages to and fro for a time.
pub(crate) fn streams(address: SocketAddr, host: &str, path: &str, (connections, streams): (u32, u32), seconds: u64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (count, end) = (Arc::new(AtomicU64::new(0)), Instant::now() + Duration::from_secs(seconds));
        let (mut running, mut errors) = (JoinSet::new(), 0);
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = h2::client::handshake(stream).await?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    eprintln!("{error}");
                }
            });
            let mut sender = sender.ready().await?;
            for _ in 0..streams {
                let request =
                    Request::post(format!("http://{host}{path}")).header("content-type", "application/grpc").header("te", "trailers");
                let (response, requests) = sender.send_request(request.body(())?, false)?;
                running.spawn(exchange(response, requests, Arc::clone(&count), end));
                sender = sender.ready().await?;
            }
        }
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended? {
                eprintln!("{error:#}");
                errors += 1;
            }
        }
        say(count.load(Ordering::Relaxed), errors, None);
        Ok(())
    })
}

async fn exchange(
    response: h2::client::ResponseFuture,
    mut requests: h2::SendStream<Bytes>,
    count: Arc<AtomicU64>,
    end: Instant,
) -> anyhow::Result<()> {
    let message = Bytes::from([&[0, 0, 0, 0, 64][..], &[b'x'; 64]].concat());
    requests.send_data(message.clone(), false)?;
    let mut answers = response.await?.into_body();
    let mut received = 0;
    while Instant::now() < end {
        let data = answers.data().await.context("the stream ended")??;
        answers.flow_control().release_capacity(data.len())?;
        received += data.len();
        if received >= MESSAGE_BYTES {
            received -= MESSAGE_BYTES;
            count.fetch_add(1, Ordering::Relaxed);
            requests.send_data(message.clone(), false)?;
        }
    }
    requests.send_data(Bytes::new(), true)?;
    while let Some(data) = answers.data().await {
        answers.flow_control().release_capacity(data?.len())?;
    }
    answers.trailers().await?.context("trailers")?;
    Ok(())
}
