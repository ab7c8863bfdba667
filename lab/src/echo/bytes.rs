//! What is not HTTP: datagrams, and connections whose server speaks first.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tracing::debug;

use crate::roles::PodName;

const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

/// UDP: each datagram comes back with the pod's name in front.
pub(super) async fn datagrams(socket: UdpSocket, pod: &PodName) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let answer = [pod.to_string().as_bytes(), b" ", &buffer[..length]].concat();
        if let Err(error) = socket.send_to(&answer, from).await {
            debug!(%error, "datagram");
        }
    }
}

/// TCP without HTTP: speaks first, sends everything back, and after the client's end says how much that was.
pub(super) async fn streams(listener: TcpListener, pod: &PodName) {
    while let Ok((stream, _)) = listener.accept().await {
        let pod = pod.clone();
        // Ends with its client, or with the server's runtime.
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &pod).await {
                debug!(%error, "bytes");
            }
        });
    }
}

async fn converse(mut stream: TcpStream, pod: &PodName) -> io::Result<()> {
    stream.write_all(format!("hello from {pod}\n").as_bytes()).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut total = 0;
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        total += length;
        stream.write_all(&buffer[..length]).await?;
    }
    stream.write_all(format!("bye {total}\n").as_bytes()).await?;
    stream.shutdown().await
}
