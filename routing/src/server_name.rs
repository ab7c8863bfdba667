//! Which TLSRoute gets a connection, by the server name that its client asks for (digest D-20).

use crate::model::{Frontend, HostPattern, Route};

/// How well a pattern fits: exact before wildcards, longer wildcards first.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
enum Fit {
    Under(usize),
    Exact,
}

impl HostPattern {
    /// Whether a server name in lower case is meant.
    pub(crate) fn accepts(&self, name: &str) -> bool {
        self.fit(&name.to_ascii_lowercase()).is_some()
    }

    fn fit(&self, name: &str) -> Option<Fit> {
        match self {
            Self::Exact(exact) => (exact == name).then_some(Fit::Exact),
            Self::Under(suffix) => {
                let rest = name.strip_suffix(suffix.as_str())?;
                (rest.len() > 1 && rest.ends_with('.')).then_some(Fit::Under(suffix.len()))
            }
        }
    }
}

/// The most specific route for a server name, the oldest of several; none: the connection is refused.
///
/// Names are compared without regard to case (RFC 6066 section 3).
#[must_use]
pub fn select<'f>(frontend: &'f Frontend, name: &str) -> Option<(usize, &'f Route)> {
    let name = name.to_ascii_lowercase();
    let fits = frontend.routes.iter().enumerate().filter_map(|(index, route)| {
        let best = route.hostnames.iter().filter_map(|pattern| pattern.fit(&name)).max()?;
        Some((best, index, route))
    });
    // Routes stand oldest first, and of equals the first is kept.
    fits.reduce(|kept, next| if next.0 > kept.0 { next } else { kept }).map(|(_, index, route)| (index, route))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FrontendId, RouteKind};

    fn route(name: &str, hostnames: &[HostPattern]) -> Route {
        Route {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            created_s: 0,
            generation: 1,
            hostnames: hostnames.to_vec(),
            rules: Vec::new(),
        }
    }

    #[test]
    fn the_most_specific_name_wins_and_then_the_oldest_route() {
        let (exact, under) = (|name: &str| HostPattern::Exact(name.to_owned()), |name: &str| HostPattern::Under(name.to_owned()));
        let frontend = Frontend {
            id: FrontendId("ServiceImport/shop/store/443".parse().expect("a name")),
            kind: RouteKind::Tls,
            routes: vec![
                route("wide", &[under("example.com")]),
                route("narrow", &[under("shop.example.com"), exact("b.example.com")]),
                route("exact", &[exact("a.shop.example.com"), exact("b.example.com")]),
            ],
        };
        for (name, expected) in [
            ("a.shop.example.com", Some("exact")),
            ("A.Shop.Example.Com", Some("exact")),
            ("b.shop.example.com", Some("narrow")),
            ("x.y.shop.example.com", Some("narrow")),
            ("b.example.com", Some("narrow")),
            ("c.example.com", Some("wide")),
            ("example.com", None),
            ("badexample.com", None),
            (".example.com", None),
            ("other.org", None),
            ("", None),
        ] {
            assert_eq!(select(&frontend, name).map(|(_, route)| route.name.as_str()), expected, "{name}");
        }
    }
}
