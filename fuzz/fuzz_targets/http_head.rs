//! What a client sends where HTTP routes are in force, up to the head that an endpoint would get.
//!
//! The bytes go through the sidecar's own detection and server, in two pieces that the first byte cuts. Of every request that
//! is forwarded, and read again as it was written: its target is the same, one Host and at most one framing are left, the framing is that of the body that was read, and what belonged to the
//! client's connection is gone.
#![no_main]

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use sidecar::detect::{Spoken, detect};
use sidecar::http1::trial::requests;
use sidecar::request_head::{Content, forwarded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the pipe takes in either direction; more than libFuzzer's inputs and what is answered to them.
const PIPE_BYTES: usize = 1024 * 1024;
const ROUNDS: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(tried(bytes, usize::from(*cut).min(bytes.len())));
});

async fn tried(bytes: &[u8], cut: usize) {
    let (first, second) = bytes.split_at(cut);
    let pieces = || AsyncReadExt::chain(first, second);
    let (spoken, mut rewound) = detect(pieces()).await.expect("reading a slice cannot fail");
    assert_eq!(spoken, detect(bytes).await.expect("reading a slice cannot fail").0, "whatever the pieces");
    let mut read = Vec::new();
    rewound.read_to_end(&mut read).await.expect("reading a slice cannot fail");
    assert_eq!(read, bytes, "nothing of the stream is lost");
    if spoken != Spoken::Http1 {
        return;
    }
    let (mut client, server) = tokio::io::duplex(PIPE_BYTES);
    client.write_all(bytes).await.expect("the pipe is large enough");
    let failed = RefCell::new(None);
    let served = requests(server, |parts, length| {
        if let Err(error) = judge(parts, length) {
            failed.borrow_mut().get_or_insert(error);
        }
    });
    let mut served = pin!(served);
    // Everything is there already, so whatever is not done after some rounds waits for what never comes.
    for _ in 0..ROUNDS {
        if poll_fn(|context| Poll::Ready(served.as_mut().poll(context).is_ready())).await {
            break;
        }
        tokio::task::yield_now().await;
    }
    if let Some(error) = failed.take() {
        panic!("{error}");
    }
}

/// Why the head that an endpoint would get is not what it has to be.
fn judge(parts: Parts, body: Option<u64>) -> Result<(), String> {
    let received = parts.headers.clone();
    let content = if body == Some(0) { Content::Absent } else { Content::Present };
    let upgrades = parts.headers.contains_key(UPGRADE);
    let destination = HeaderValue::from_static("10.0.0.1:80");
    let target = parts.uri.clone();
    let Ok(sent) = forwarded(parts, &destination, content) else { return Ok(()) };
    let sent = sent.map_err(|error| format!("{target} {received:?} cannot be read again: {error}"))?;
    if (sent.uri.path(), sent.uri.query()) != (target.path(), target.query()) {
        return Err(format!("{target} became {}", sent.uri));
    }
    let headers = &sent.headers;
    let complain = |what: &str| Err(format!("{what}: {received:?} became {headers:?}"));

    if headers.get_all(HOST).iter().count() != 1 {
        return complain("not one Host");
    }
    let lengths: Vec<&HeaderValue> = headers.get_all(CONTENT_LENGTH).iter().collect();
    let codings: Vec<&HeaderValue> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    let length = lengths.first().map(|length| length.to_str().ok().and_then(|text| text.parse::<u64>().ok()));
    match (lengths.len(), codings.as_slice()) {
        (0, []) if content == Content::Absent => {}
        (0, [coding]) if content == Content::Present && *coding == "chunked" => {}
        (1, []) if length == Some(body) && body.is_some() => {}
        _ => return complain("not the framing of the body"),
    }
    for name in listed(&received) {
        // Taking these away would change what the message means; TE is about the whole path.
        let stays = [HOST, CONTENT_LENGTH, TRAILER, TE].contains(&name);
        let is_ours = [CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(&name);
        if !stays && !is_ours && headers.contains_key(&name) {
            return complain(name.as_str());
        }
    }
    if headers.contains_key("keep-alive") || headers.contains_key("proxy-connection") {
        return complain("a field of the connection");
    }
    let te: Vec<&HeaderValue> = headers.get_all(TE).iter().collect();
    if !(te.is_empty() || te == ["trailers"]) {
        return complain("TE");
    }
    let connection: Vec<&HeaderValue> = headers.get_all(CONNECTION).iter().collect();
    let is_upgrade = connection == ["upgrade"] && upgrades && headers.contains_key(UPGRADE);
    if !(is_upgrade || connection.is_empty() && !headers.contains_key(UPGRADE)) {
        return complain("Connection or Upgrade");
    }
    Ok(())
}

/// What Connection lists, read byte by byte.
fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(CONNECTION).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    lines.filter_map(|member| HeaderName::from_bytes(member.trim_ascii()).ok()).collect()
}
