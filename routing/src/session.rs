//! Session persistence (GEP-1619): the token that names an endpoint, and where it is carried. Nothing is remembered: the token says it all.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

use crate::model::{BackendId, Carrier, Persistence, Route, RouteKind, Rule};

/// Bytes of the hash that a token keeps.
const HASH_BYTES: usize = 16;
/// Digits of the time in a token.
const TIME_DIGITS: usize = 16;

/// A rule's own name: sessions of two rules are never the same (GEP-1619).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope(String);

impl Scope {
    /// Of a rule; its name stays when rules are reordered, its position does not.
    #[must_use]
    pub fn of(kind: RouteKind, route: &Route, rule: &Rule) -> Self {
        // No name has a `#`.
        let rule_name = rule.name.clone().unwrap_or_else(|| format!("#{}", rule.index));
        Self(format!("{}/{}/{}/{rule_name}", kind.as_str(), route.namespace, route.name))
    }

    /// Of a backend whose policy asks for sessions.
    #[must_use]
    pub fn of_backend(backend: &BackendId) -> Self {
        Self(backend.to_string())
    }

    /// The part of a token that names an endpoint of a backend.
    #[must_use]
    pub fn endpoint(&self, backend: &BackendId, address: SocketAddr) -> String {
        hash(&[&self.0, &backend.to_string(), &address.to_string()])
    }

    /// The name of the cookie or header where the route says none.
    fn default_name(&self) -> String {
        format!("isthmus-{}", &hash(&[&self.0])[..8])
    }
}

fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().iter().take(HASH_BYTES).fold(String::with_capacity(2 * HASH_BYTES), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Persistence {
    /// The name of its cookie or header.
    #[must_use]
    pub fn name(&self, scope: &Scope) -> String {
        self.session_name.clone().unwrap_or_else(|| scope.default_name())
    }

    /// Which endpoint a request's session keeps, if it has one that is not over.
    #[must_use]
    pub fn kept(&self, scope: &Scope, request: &HeaderMap, now: Duration) -> Option<Kept> {
        let name = self.name(scope);
        let token = match self.carrier {
            Carrier::Header => request.get(&name)?.to_str().ok()?,
            Carrier::SessionCookie | Carrier::PermanentCookie => cookie(request, &name)?,
        };
        let kept = Kept::parse(token)?;
        let is_over = self.absolute_timeout.is_some_and(|timeout| now.saturating_sub(kept.since) >= timeout);
        (!is_over).then_some(kept)
    }

    /// What a response says so that the next request of the session is recognised.
    #[must_use]
    pub fn establish(&self, scope: &Scope, kept: &Kept) -> Option<(http::HeaderName, HeaderValue)> {
        let name = self.name(scope);
        let token = kept.token();
        let cookie = |more: String| {
            let value = HeaderValue::try_from(format!("{name}={token}; Path=/; HttpOnly{more}")).ok()?;
            Some((http::header::SET_COOKIE, value))
        };
        match self.carrier {
            Carrier::Header => Some((name.parse().ok()?, HeaderValue::try_from(token).ok()?)),
            Carrier::SessionCookie => cookie(String::new()),
            Carrier::PermanentCookie => cookie(format!("; Max-Age={}", self.absolute_timeout.unwrap_or_default().as_secs())),
        }
    }
}

/// A session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kept {
    /// When it began, since the epoch.
    pub since: Duration,
    /// See [`Scope::endpoint`].
    pub endpoint: String,
}

impl Kept {
    fn token(&self) -> String {
        format!("{:0width$x}{}", self.since.as_millis(), self.endpoint, width = TIME_DIGITS)
    }

    /// Anything that is no token of ours is no session.
    fn parse(token: &str) -> Option<Self> {
        let is_hex = token.len() == TIME_DIGITS + 2 * HASH_BYTES && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (time, endpoint) = is_hex.then(|| token.split_at(TIME_DIGITS))?;
        let since = Duration::from_millis(u64::from_str_radix(time, 16).ok()?);
        Some(Self { since, endpoint: endpoint.to_owned() })
    }
}

/// The value of a cookie (RFC 6265 section 5.4); the first of its name. Bytes are split, since other cookies may be no ASCII: browsers send
/// what scripts have set.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let pairs = headers.get_all(COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    std::str::from_utf8(values.next()?).ok().map(|value| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Timeouts;

    fn persistence(carrier: Carrier) -> Persistence {
        Persistence { session_name: Some("mine".to_owned()), carrier, absolute_timeout: Some(Duration::from_secs(60)) }
    }

    fn scope(name: &str) -> Scope {
        Scope(name.to_owned())
    }

    fn backend() -> BackendId {
        BackendId("ServiceImport/shop/cart/80".parse().expect("a name"))
    }

    #[test]
    fn a_session_comes_back_as_it_was_established_until_it_is_over() {
        let address = "10.0.0.1:80".parse().expect("an address");
        for carrier in [Carrier::Header, Carrier::SessionCookie, Carrier::PermanentCookie] {
            let persistence = persistence(carrier);
            let kept = Kept { since: Duration::from_secs(1000), endpoint: scope("a").endpoint(&backend(), address) };
            let (name, value) = persistence.establish(&scope("a"), &kept).expect("a header");
            let text = value.to_str().expect("text").to_owned();
            let mut request = HeaderMap::new();
            if carrier == Carrier::Header {
                request.insert(name, value);
            } else {
                let pair = text.split(';').next().expect("a pair");
                request.insert(COOKIE, format!("other=1; {pair}; more=2").parse().expect("a value"));
            }
            assert_eq!(persistence.kept(&scope("a"), &request, Duration::from_secs(1059)), Some(kept), "{carrier:?}");
            assert_eq!(persistence.kept(&scope("a"), &request, Duration::from_secs(1060)), None, "{carrier:?}");
            assert_eq!(text.contains("Max-Age=60"), carrier == Carrier::PermanentCookie, "{text}");
        }
    }

    #[test]
    fn a_session_is_found_among_cookies_that_are_no_ascii() {
        let kept = Kept { since: Duration::from_secs(1000), endpoint: "0123456789abcdef".repeat(2) };
        let mut request = HeaderMap::new();
        for line in [&b"a=\xc3\xb6; mine="[..], b"mine="] {
            let line = [line, kept.token().as_bytes(), b"; b=\xff"].concat();
            request.insert(COOKIE, HeaderValue::from_bytes(&line).expect("a value"));
            let found = persistence(Carrier::SessionCookie).kept(&scope("a"), &request, Duration::from_secs(1000));
            assert_eq!(found.as_ref(), Some(&kept), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn two_rules_never_share_a_session() {
        let address = "10.0.0.1:80".parse().expect("an address");
        assert_ne!(scope("a").endpoint(&backend(), address), scope("b").endpoint(&backend(), address));
        let unnamed = Persistence { session_name: None, ..persistence(Carrier::Header) };
        assert_ne!(unnamed.name(&scope("a")), unnamed.name(&scope("b")));
    }

    fn rule(index: u32, name: Option<&str>) -> Rule {
        Rule {
            index,
            name: name.map(str::to_owned),
            matches: Vec::new(),
            filters: Vec::new(),
            backends: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            persistence: None,
        }
    }

    #[test]
    fn the_scope_of_a_rule_is_its_own() {
        let route = |namespace: &str, name: &str| Route {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            created_s: 0,
            generation: 1,
            hostnames: Vec::new(),
            rules: Vec::new(),
        };
        let scopes = [
            Scope::of(RouteKind::Http, &route("shop", "a"), &rule(0, Some("1"))),
            Scope::of(RouteKind::Http, &route("shop", "a"), &rule(1, None)),
            Scope::of(RouteKind::Http, &route("shop", "a"), &rule(2, None)),
            Scope::of(RouteKind::Http, &route("shop", "b"), &rule(1, None)),
            Scope::of(RouteKind::Http, &route("bank", "a"), &rule(1, None)),
        ];
        for (index, scope) in scopes.iter().enumerate() {
            assert!(!scopes[..index].contains(scope), "{scope:?}");
        }
        let renumbered = [0, 5].map(|index| Scope::of(RouteKind::Http, &route("shop", "a"), &rule(index, Some("named"))));
        assert_eq!(renumbered[0], renumbered[1], "a name stays when rules are reordered");
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_is_a_session_or_none(text in "[ -~]{0,80}") {
            let mut request = HeaderMap::new();
            if let Ok(value) = HeaderValue::try_from(text) {
                request.insert(COOKIE, value.clone());
                request.insert("mine", value);
                for carrier in [Carrier::Header, Carrier::SessionCookie] {
                    // A text that happens to be a session is as good as none: that it is judged without a panic is the check.
                    let _ = persistence(carrier).kept(&scope("a"), &request, Duration::ZERO);
                }
            }
        }
    }
}
