//! `isthmus request`: one request, its answer printed; for a pod that has no curl.

use std::fmt::Write as _;
use std::net::ToSocketAddrs;

use anyhow::{Context, bail, ensure};
use http::Version;
use lab::client::{self, Ask};

use crate::config::Request;
use crate::say::pass;
use crate::url;

/// Asks and prints.
pub(crate) fn run(request: &Request) -> anyhow::Result<()> {
    let (method, url) = match request.what.as_slice() {
        [url] => ("GET", url),
        [method, url] => (method.as_str(), url),
        _ => bail!("a method and a URL are needed"),
    };
    let (url, authority, port) = url::parse(url)?;
    ensure!(url.scheme_str() == Some("http"), "{url}: only http is spoken");
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address = (host, port.get()).to_socket_addrs().with_context(|| format!("{host}: cannot be resolved"))?.next();
    let address = address.with_context(|| format!("{host}: no address"))?;
    let mut ask = Ask {
        method: method.parse().with_context(|| format!("{method:?} is no method"))?,
        ..Ask::get(authority.as_str(), url.path_and_query().map_or("/", |path| path.as_str()))
    };
    ask.body = request.body.clone().into();
    for header in &request.header {
        let (name, value) = header.split_once(':').with_context(|| format!("{header:?} is not NAME: VALUE"))?;
        ask.headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let version = if request.http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let answer = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(client::ask(address, version, &ask))?;
    let mut said = format!("{} from {address} in {:.1} ms\n", answer.status, answer.took.as_secs_f64() * 1e3);
    for (name, value) in &answer.headers {
        writeln!(said, "{name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
    }
    pass(&[said.as_bytes(), b"\n", &answer.body].concat())
}
