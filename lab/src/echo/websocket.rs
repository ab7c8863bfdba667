//! Connections that a request takes over: frames come back as they were sent, and bytes where no WebSocket key was given.

use futures::{StreamExt, TryStreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tracing::debug;

/// The answer to a request that wants to go on as a WebSocket; none if it does not.
pub(super) fn switch(request: &mut Request<Incoming>) -> Option<Response<()>> {
    let wanted = request.headers().get(UPGRADE)?;
    if !wanted.as_bytes().eq_ignore_ascii_case(b"websocket") {
        return None;
    }
    let accept = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let accept = accept.and_then(|accept| HeaderValue::try_from(accept).ok());
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    let has_frames = accept.is_some();
    if let Some(accept) = accept {
        response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let switched = hyper::upgrade::on(request);
    // Ends with its client, or with the server's runtime.
    tokio::spawn(async move {
        let result = match switched.await {
            Ok(upgraded) if has_frames => frames(upgraded).await,
            Ok(upgraded) => bytes(upgraded).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = result {
            debug!(%error, "websocket");
        }
    });
    Some(response)
}

async fn frames(upgraded: Upgraded) -> anyhow::Result<()> {
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let (sink, stream) = socket.split();
    // Pings and the close are answered by the library.
    let messages = stream.try_filter(|message| std::future::ready(message.is_text() || message.is_binary()));
    Ok(messages.forward(sink).await?)
}

async fn bytes(upgraded: Upgraded) -> anyhow::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
    tokio::io::copy(&mut reader, &mut writer).await?;
    Ok(tokio::io::AsyncWriteExt::shutdown(&mut writer).await?)
}
