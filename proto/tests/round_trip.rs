//! What the routing model says survives the wire; what the wire says wrongly is named.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use prost::Message;
use proto::resources as wire;
use routing::model::{
    Addresses, AltName, AppProtocol, AuthProtocol, Backend, BackendFault, BackendFaultReason, BackendId, BackendTarget, BackendTls,
    Carrier, Cors, Distribution, Endpoint, ExternalAuth, Filter, Fraction, Frontend, FrontendId, HeaderEdit, HeaderMatch, HostGlob,
    HostPattern, MinRetryRate, Mirror, Origin, PathMatch, PathModifier, Pattern, Persistence, QueryMatch, Redirect, Retry, RetryBudget,
    Rewrite, Roots, Route, RouteKind, RouteMatch, RpcMatch, Rule, Scheme, ServiceKind, ServicePort, ServiceRef, Timeouts, TrafficPolicy,
    ValueMatch, Vip, WeightedBackend, Wildcard,
};

fn port() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_filter_map("not zero", NonZeroU16::new)
}

fn service_port() -> impl Strategy<Value = ServicePort> {
    (any::<bool>(), "[a-z]{1,5}", "[a-z]{1,5}", port()).prop_map(|(import, namespace, name, port)| {
        let kind = if import { ServiceKind::ServiceImport } else { ServiceKind::Service };
        ServicePort { service: ServiceRef { kind, namespace, name }, port }
    })
}

fn pattern() -> impl Strategy<Value = Pattern> {
    "[a-z.]{1,6}".prop_filter_map("compiles", |source| Pattern::new(&source).ok())
}

fn value_match() -> impl Strategy<Value = ValueMatch> {
    prop_oneof!["[ -~]{0,8}".prop_map(ValueMatch::Exact), pattern().prop_map(ValueMatch::Regex)]
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    let rpc = (of(value_match()), of(value_match())).prop_map(|(service, method)| PathMatch::Rpc(RpcMatch { service, method }));
    prop_oneof![
        "/[a-z/]{0,8}".prop_map(PathMatch::Exact),
        "/[a-z/]{0,8}".prop_map(PathMatch::Prefix),
        pattern().prop_map(PathMatch::Regex),
        rpc
    ]
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    "[a-z][a-z-]{0,8}".prop_filter_map("a header name", |name| HeaderName::try_from(name).ok())
}

fn header() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    (header_name(), "[ -~]{0,8}".prop_filter_map("a header value", |value| HeaderValue::try_from(value).ok()))
}

fn header_edit() -> impl Strategy<Value = HeaderEdit> {
    (vec(header(), 0..3), vec(header(), 0..3), vec(header_name(), 0..3)).prop_map(|(set, add, remove)| HeaderEdit { set, add, remove })
}

fn path_modifier() -> impl Strategy<Value = PathModifier> {
    prop_oneof!["/[a-z]{0,5}".prop_map(PathModifier::Full), "/[a-z]{0,5}".prop_map(PathModifier::Prefix)]
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let scheme = prop_oneof![Just(Scheme::Http), Just(Scheme::Https)];
    let status = prop_oneof![Just(StatusCode::MOVED_PERMANENTLY), Just(StatusCode::PERMANENT_REDIRECT)];
    (of(scheme), of("[a-z.]{1,8}"), of(path_modifier()), of(port()), status).prop_map(|(scheme, hostname, path, port, status)| Redirect {
        scheme,
        hostname,
        path,
        port,
        status,
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        header_edit().prop_map(Filter::RequestHeaders),
        header_edit().prop_map(Filter::ResponseHeaders),
        redirect().prop_map(Filter::Redirect),
        (of("[a-z.]{1,8}"), of(path_modifier())).prop_map(|(hostname, path)| Filter::Rewrite(Rewrite { hostname, path })),
        "[A-Za-z]{1,8}".prop_map(Filter::Unsupported),
        (target(), 0..5u32, 5..9u32).prop_map(|(target, numerator, denominator)| {
            Filter::Mirror(Mirror { target, fraction: Fraction { numerator, denominator } })
        }),
        cors().prop_map(Filter::Cors),
        external_auth().prop_map(Filter::ExternalAuth),
    ]
}

fn scheme() -> impl Strategy<Value = Scheme> {
    prop_oneof![Just(Scheme::Http), Just(Scheme::Https)]
}

fn wildcard<T: std::fmt::Debug + Clone>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Wildcard<T>> {
    of(vec(item, 0..3)).prop_map(|these| these.map_or(Wildcard::Any, Wildcard::These))
}

fn cors() -> impl Strategy<Value = Cors> {
    let host = prop_oneof!["[a-z.]{1,8}".prop_map(HostGlob::Exact), "[a-z.]{0,8}".prop_map(HostGlob::Suffix)];
    let origin = (scheme(), host, 1..u16::MAX).prop_map(|(scheme, host, port)| Origin { scheme, host, port });
    let method = prop_oneof![Just(Method::GET), Just(Method::DELETE)];
    let parts = (wildcard(origin), wildcard(method), wildcard(header_name()), wildcard(header_name()), any::<u32>(), any::<bool>());
    parts.prop_map(|(origins, methods, headers, expose, max_age_s, credentials)| Cors {
        origins,
        methods,
        headers,
        expose,
        max_age_s,
        credentials,
    })
}

fn external_auth() -> impl Strategy<Value = ExternalAuth> {
    let names = || vec(header_name(), 0..3);
    let protocol = prop_oneof![
        ("[a-z/]{0,8}", names(), names()).prop_map(|(path, allowed_headers, allowed_response_headers)| AuthProtocol::Http {
            path,
            allowed_headers,
            allowed_response_headers
        }),
        names().prop_map(|allowed_headers| AuthProtocol::Grpc { allowed_headers }),
    ];
    (target(), protocol, any::<u32>()).prop_map(|(target, protocol, body_bytes_max)| ExternalAuth { target, protocol, body_bytes_max })
}

fn millis() -> impl Strategy<Value = Duration> {
    any::<u32>().prop_map(|millis| Duration::from_millis(millis.into()))
}

fn persistence() -> impl Strategy<Value = Persistence> {
    let carrier = prop_oneof![Just(Carrier::SessionCookie), Just(Carrier::PermanentCookie), Just(Carrier::Header)];
    (of("[a-z]{1,5}"), carrier, of(millis())).prop_map(|(session_name, carrier, absolute_timeout)| Persistence {
        session_name,
        carrier,
        absolute_timeout,
    })
}

fn retry() -> impl Strategy<Value = Retry> {
    let code = (400..600u16).prop_filter_map("a status", |code| StatusCode::from_u16(code).ok());
    (vec(code, 0..3), 1..9u32, of(millis())).prop_map(|(codes, attempts, backoff)| Retry { codes, attempts, backoff })
}

fn target() -> impl Strategy<Value = BackendTarget> {
    let reason = prop_oneof![
        Just(BackendFaultReason::InvalidKind),
        Just(BackendFaultReason::BackendNotFound),
        Just(BackendFaultReason::RefNotPermitted),
        Just(BackendFaultReason::UnsupportedProtocol)
    ];
    prop_oneof![
        service_port().prop_map(|port| BackendTarget::Backend(BackendId(port))),
        (reason, "[ -~]{0,20}").prop_map(|(reason, message)| BackendTarget::Invalid(BackendFault { reason, message })),
    ]
}

fn weighted_backend() -> impl Strategy<Value = WeightedBackend> {
    (0..=1_000_000u32, target(), vec(filter(), 0..2)).prop_map(|(weight, target, filters)| WeightedBackend { weight, target, filters })
}

fn route_match() -> impl Strategy<Value = RouteMatch> {
    let method = prop_oneof![Just(Method::GET), Just(Method::DELETE)];
    let headers = vec((header_name(), value_match()).prop_map(|(name, value)| HeaderMatch { name, value }), 0..3);
    let query = vec(("[a-z]{1,5}", value_match()).prop_map(|(name, value)| QueryMatch { name, value }), 0..3);
    (path_match(), of(method), headers, query).prop_map(|(path, method, headers, query)| RouteMatch { path, method, headers, query })
}

fn rule() -> impl Strategy<Value = Rule> {
    let timeouts = (of(millis()), of(millis())).prop_map(|(request, backend_request)| Timeouts { request, backend_request });
    let lists = (vec(route_match(), 1..3), vec(filter(), 0..3), vec(weighted_backend(), 0..3));
    (any::<u32>(), of("[a-z]{1,5}"), lists, timeouts, of(retry()), of(persistence())).prop_map(
        |(index, name, (matches, filters, backends), timeouts, retry, persistence)| Rule {
            index,
            name,
            matches,
            filters,
            backends,
            timeouts,
            retry,
            persistence,
        },
    )
}

fn frontend() -> impl Strategy<Value = Frontend> {
    let kind = prop_oneof![Just(RouteKind::Grpc), Just(RouteKind::Http), Just(RouteKind::Tls), Just(RouteKind::Tcp)];
    let pattern = prop_oneof!["[a-z.]{1,8}".prop_map(HostPattern::Exact), "[a-z.]{1,8}".prop_map(HostPattern::Under)];
    let route = ("[a-z]{1,5}", "[a-z]{1,5}", any::<i64>(), any::<i64>(), vec(pattern, 0..3), vec(rule(), 0..3)).prop_map(
        |(namespace, name, created_s, generation, hostnames, rules)| Route { namespace, name, created_s, generation, hostnames, rules },
    );
    (service_port(), kind, vec(route, 1..3)).prop_map(|(id, kind, routes)| Frontend { id: FrontendId(id), kind, routes })
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), port()).prop_map(|(ip, port)| SocketAddr::new(ip, port.get()))
}

fn backend() -> impl Strategy<Value = Backend> {
    let endpoint = ("[a-z]{1,3}", address(), of("[a-z]{1,3}"), of("[a-z]{1,3}"), vec("[a-z]{1,3}", 0..3))
        .prop_map(|(cluster, address, zone, node, for_zones)| Endpoint { cluster, address, zone, node, for_zones });
    let addresses = prop_oneof![
        vec(endpoint, 0..5).prop_map(|mut endpoints| {
            endpoints.sort();
            endpoints.dedup();
            Addresses::Endpoints(endpoints)
        }),
        vec(address(), 1..3).prop_map(Addresses::Vips),
    ];
    let protocol = prop_oneof![Just(AppProtocol::Infer), Just(AppProtocol::Http1), Just(AppProtocol::Http2)];
    let distribution = prop_oneof![Just(Distribution::SameZone), Just(Distribution::SameNode)];
    let policy = (any::<bool>(), of(distribution)).prop_map(|(is_local, distribution)| TrafficPolicy { is_local, distribution });
    let alt_name = prop_oneof!["[a-z.]{1,8}".prop_map(AltName::Hostname), "[a-z:/]{1,8}".prop_map(AltName::Uri)];
    let roots = of("[ -~]{1,20}").prop_map(|pem| pem.map_or(Roots::System, Roots::Pem));
    let tls = prop_oneof![
        ("[a-z.]{1,8}", vec(alt_name, 0..3), roots).prop_map(|(hostname, alt_names, roots)| BackendTls::Verified {
            hostname,
            alt_names,
            roots
        }),
        "[ -~]{0,20}".prop_map(BackendTls::Broken),
    ];
    let budget = (0..101u32, millis(), any::<u32>(), millis()).prop_map(|(percent, interval, count, min_interval)| RetryBudget {
        percent,
        interval,
        min: MinRetryRate { count, interval: min_interval },
    });
    let more = (policy, of(tls), of(budget), of(persistence()));
    (service_port(), protocol, of(1..86_400u64), addresses, more).prop_map(
        |(id, protocol, affinity, addresses, (policy, tls, retry_budget, persistence))| Backend {
            id: BackendId(id),
            protocol,
            affinity: affinity.map(Duration::from_secs),
            policy,
            tls,
            retry_budget,
            persistence,
            addresses,
        },
    )
}

/// Through the bytes, as a peer would see it.
fn sent<T: Message + Default>(resource: &T) -> T {
    T::decode(resource.encode_to_vec().as_slice()).unwrap_or_default()
}

proptest! {
    #[test]
    fn a_frontend_survives_the_wire(frontend in frontend()) {
        let received = Frontend::try_from(sent(&wire::Frontend::from(&frontend)));
        prop_assert_eq!(received, Ok(frontend));
    }

    #[test]
    fn a_backend_survives_the_wire(backend in backend()) {
        let received = Backend::try_from(sent(&wire::Backend::from(&backend)));
        prop_assert_eq!(received, Ok(backend));
    }

    #[test]
    fn a_vip_survives_the_wire(ip in any::<IpAddr>(), id in service_port()) {
        let vip = Vip { ip, frontend: FrontendId(id) };
        let received = Vip::try_from(sent(&wire::Vip::from(&vip)));
        prop_assert_eq!(received, Ok(vip));
    }

    #[test]
    fn equal_models_have_equal_bytes(frontend in frontend(), backend in backend()) {
        prop_assert_eq!(proto::version(&wire::Frontend::from(&frontend)), proto::version(&wire::Frontend::from(&frontend.clone())));
        prop_assert_eq!(proto::version(&wire::Backend::from(&backend)), proto::version(&wire::Backend::from(&backend.clone())));
    }

    #[test]
    fn any_bytes_convert_or_are_refused(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(frontend) = wire::Frontend::decode(bytes.as_slice()) {
            let _ = Frontend::try_from(frontend);
        }
        if let Ok(backend) = wire::Backend::decode(bytes.as_slice()) {
            let _ = Backend::try_from(backend);
        }
    }
}

#[test]
fn a_refusal_names_the_field_and_the_value() {
    let id = wire::ServicePort { kind: 2, namespace: "shop".to_owned(), name: "store".to_owned(), port: 80 };
    let path = wire::PathMatch { kind: Some(wire::path_match::Kind::Regex("(".to_owned())) };
    let matched = wire::RouteMatch { path: Some(path), ..Default::default() };
    let rule = wire::Rule { matches: vec![matched], ..Default::default() };
    let route = wire::Route { rules: vec![wire::Rule { matches: vec![everything()], ..Default::default() }, rule], ..Default::default() };
    let frontend = wire::Frontend { id: Some(id), kind: 2, routes: vec![route] };
    let error = Frontend::try_from(frontend).map_err(|error| error.to_string()).err().unwrap_or_default();
    assert!(error.starts_with("routes[0].rules[1].matches[0].path.regex: \"(\""), "{error}");
}

fn everything() -> wire::RouteMatch {
    let path = wire::PathMatch { kind: Some(wire::path_match::Kind::Prefix("/".to_owned())) };
    wire::RouteMatch { path: Some(path), ..Default::default() }
}

#[test]
fn a_port_outside_its_range_is_refused() {
    let id = wire::ServicePort { kind: 1, namespace: "shop".to_owned(), name: "store".to_owned(), port: 65_536 };
    let vip = wire::Vip { ip: vec![10, 0, 0, 1], frontend: Some(id) };
    let error = Vip::try_from(vip).map_err(|error| error.to_string()).err();
    assert_eq!(error.as_deref(), Some("frontend.port: 65536 is no port number"));
}
