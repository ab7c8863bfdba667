//! What a rule says besides matches, filters and backends: time limits, retries, sessions.

use http::header::{COOKIE, HOST};
use http::{HeaderName, StatusCode};

use super::duration::{duration, limit};
use super::{Fault, Parsed};
use crate::api::{HttpRouteRetry, HttpRouteTimeouts, SessionPersistence};
use crate::model::{Carrier, Persistence, Retry, Timeouts};

/// Above this a retry is no longer a second chance but a storm.
const ATTEMPTS_MAX: u32 = 100;
/// Of a stanza that does not say (H-27: implementation-specific).
const ATTEMPTS_DEFAULT: u32 = 1;
const SESSION_NAME_BYTES_MAX: usize = 128;

pub(super) fn timeouts(written: &HttpRouteTimeouts) -> Parsed<Timeouts> {
    let timeouts = Timeouts {
        request: limit(written.request.as_ref(), "request")?,
        backend_request: limit(written.backend_request.as_ref(), "backendRequest")?,
    };
    match timeouts {
        Timeouts { request: Some(request), backend_request: Some(backend) } if backend > request => {
            Err(Fault::unsupported("backendRequest", "is longer than request"))
        }
        timeouts => Ok(timeouts),
    }
}

pub(super) fn retry(written: &HttpRouteRetry) -> Parsed<Retry> {
    let attempts = match written.attempts {
        None => ATTEMPTS_DEFAULT,
        Some(number) => u32::try_from(number)
            .ok()
            .filter(|number| (1..=ATTEMPTS_MAX).contains(number))
            .ok_or_else(|| Fault::unsupported("attempts", format!("{number} is not between 1 and {ATTEMPTS_MAX}")))?,
    };
    let mut codes = Vec::with_capacity(written.codes.len());
    for (index, number) in written.codes.iter().enumerate() {
        let code = u16::try_from(*number).ok().filter(|code| (400..=599).contains(code)).and_then(|code| StatusCode::from_u16(code).ok());
        codes.push(code.ok_or_else(|| Fault::unsupported(&format!("codes[{index}]"), format!("{number} is not between 400 and 599")))?);
    }
    codes.sort();
    codes.dedup();
    let backoff = written.backoff.as_ref().map(|text| duration(text, "backoff")).transpose()?;
    Ok(Retry { codes, attempts, backoff })
}

pub(super) fn persistence(written: &SessionPersistence) -> Parsed<Persistence> {
    let lifetime = written.cookie_config.as_ref().map(|config| config.lifetime_type.as_deref().unwrap_or("Session"));
    let carrier = match (written.kind.as_deref().unwrap_or("Cookie"), lifetime) {
        ("Cookie", None | Some("Session")) => Carrier::SessionCookie,
        ("Cookie", Some("Permanent")) => Carrier::PermanentCookie,
        ("Cookie", Some(other)) => {
            return Err(Fault::unsupported("cookieConfig.lifetimeType", format!("{other:?} is neither Session nor Permanent")));
        }
        ("Header", None) => Carrier::Header,
        ("Header", Some(_)) => return Err(Fault::unsupported("cookieConfig", "can only be set with type Cookie")),
        (other, _) => return Err(Fault::unsupported("type", format!("{other:?} is neither Cookie nor Header"))),
    };
    let absolute_timeout = limit(written.absolute_timeout.as_ref(), "absoluteTimeout")?;
    if carrier == Carrier::PermanentCookie && absolute_timeout.is_none() {
        return Err(Fault::unsupported("absoluteTimeout", "is missing; a Permanent cookie needs it"));
    }
    let session_name = written.session_name.as_ref().filter(|name| !name.is_empty()).map(|name| session_name(name, carrier)).transpose()?;
    Ok(Persistence { session_name, carrier, absolute_timeout })
}

/// A token, which names of header fields (RFC 9110 section 5.1) and of cookies (RFC 6265 section 4.1.1) both are.
fn session_name(name: &str, carrier: Carrier) -> Parsed<String> {
    let invalid = || Fault::unsupported("sessionName", format!("{name:?} is no name of a cookie or header"));
    if name.len() > SESSION_NAME_BYTES_MAX {
        return Err(invalid());
    }
    let token: HeaderName = name.parse().map_err(|_| invalid())?;
    let is_owned = [HOST, COOKIE].contains(&token) || super::filter::is_owned_by_the_proxy(&token);
    if carrier == Carrier::Header && is_owned { Err(invalid()) } else { Ok(name.to_owned()) }
}
