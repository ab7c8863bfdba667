//! Bodies of requests. A server that answers before it has read them would measure something else: whether a proxy carries them on at all.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use futures::TryStreamExt as _;
use tokio::net::TcpListener;

/// Takes them in until it is ended.
pub(crate) fn sink(listen: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let app = Router::new().fallback(taken_in);
        axum::serve(TcpListener::bind(listen).await?, app).await?;
        Ok(())
    })
}

async fn taken_in(body: Body) -> Result<&'static str, StatusCode> {
    let read = body.into_data_stream().try_for_each(|_| std::future::ready(Ok(())));
    read.await.map(|()| "taken in\n").map_err(|_| StatusCode::BAD_REQUEST)
}
