//! Sessions: whatever a client sends is a session or none, and one that was established is found again among everything else that it sends.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use http::HeaderMap;
use http::header::{COOKIE, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use routing::model::{BackendId, Carrier, Persistence};
use routing::session::Scope;

#[derive(Arbitrary, Debug)]
enum Kind {
    SessionCookie,
    PermanentCookie,
    Header,
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    kind: Kind,
    name: Option<&'a str>,
    absolute_timeout_ms: Option<u32>,
    now_ms: u64,
    /// Lines of the carrying header.
    lines: Vec<&'a [u8]>,
    before: &'a [u8],
    after: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let carrier = match input.kind {
        Kind::SessionCookie => Carrier::SessionCookie,
        Kind::PermanentCookie => Carrier::PermanentCookie,
        Kind::Header => Carrier::Header,
    };
    // The parser of routes takes tokens and nothing else.
    let session_name = input.name.filter(|name| HeaderName::from_bytes(name.as_bytes()).is_ok()).map(str::to_owned);
    let absolute_timeout = input.absolute_timeout_ms.map(|ms| Duration::from_millis(ms.into()));
    let persistence = Persistence { session_name, carrier, absolute_timeout };
    let backend = BackendId("ServiceImport/shop/cart/80".parse().expect("a name"));
    let scope = Scope::of_backend(&backend);
    let now = Duration::from_millis(input.now_ms);

    let field = if carrier == Carrier::Header { persistence.name(&scope).parse().expect("a token") } else { COOKIE };
    let request: HeaderMap = input.lines.iter().filter_map(|line| Some((field.clone(), HeaderValue::from_bytes(line).ok()?))).collect();
    let Some(kept) = persistence.kept(&scope, &request, now) else { return established(&persistence, &scope, now, &input, &backend) };
    assert_eq!(kept.endpoint.len(), 32);
    assert!(persistence.establish(&scope, &kept).is_some(), "{kept:?}");
});

fn established(persistence: &Persistence, scope: &Scope, now: Duration, input: &Input<'_>, backend: &BackendId) {
    let endpoint = scope.endpoint(backend, "10.0.0.1:80".parse().expect("an address"));
    let kept = routing::session::Kept { since: now, endpoint };
    let (name, value) = persistence.establish(scope, &kept).expect("a header");
    let mut request = HeaderMap::new();
    if persistence.carrier == Carrier::Header {
        request.insert(name, value);
    } else {
        let pair = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        let around = [input.before, b"; ", pair, b"; ", input.after].concat();
        let session = format!("{}=", persistence.name(scope));
        let is_named_before = input.before.windows(session.len()).any(|window| window == session.as_bytes());
        let Ok(line) = HeaderValue::from_bytes(&around) else { return };
        if is_named_before {
            return;
        }
        request.insert(COOKIE, line);
    }
    let is_over_at_once = persistence.absolute_timeout.is_some_and(|timeout| timeout.is_zero());
    assert_eq!(persistence.kept(scope, &request, now), (!is_over_at_once).then_some(kept));
}
