//! What rules say besides matches, filters and backends: retries and sessions.

use http::StatusCode;
use routing::model::{Carrier, Persistence, Retry};

use super::{ConvertError, Converted, duration_ms, list, millis};
use crate::resources as wire;

pub(super) fn retry(retry: wire::Retry) -> Converted<Retry> {
    let codes = list(retry.codes, "codes", |code| {
        let found = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
        found.ok_or_else(|| ConvertError::new("", format!("{code} is no status")))
    })?;
    if retry.attempts == 0 {
        return Err(ConvertError::new("attempts", "is 0"));
    }
    Ok(Retry { codes, attempts: retry.attempts, backoff: retry.backoff_ms.map(duration_ms) })
}

pub(super) fn retry_to_wire(retry: &Retry) -> wire::Retry {
    wire::Retry {
        codes: retry.codes.iter().map(|code| code.as_u16().into()).collect(),
        attempts: retry.attempts,
        backoff_ms: retry.backoff.map(millis),
    }
}

pub(super) fn persistence(persistence: wire::Persistence) -> Converted<Persistence> {
    let carrier = match wire::Carrier::try_from(persistence.carrier) {
        Ok(wire::Carrier::SessionCookie) => Carrier::SessionCookie,
        Ok(wire::Carrier::PermanentCookie) => Carrier::PermanentCookie,
        Ok(wire::Carrier::Header) => Carrier::Header,
        Ok(wire::Carrier::Unspecified) | Err(_) => {
            return Err(ConvertError::new("carrier", format!("{} is no known carrier", persistence.carrier)));
        }
    };
    Ok(Persistence { session_name: persistence.session_name, carrier, absolute_timeout: persistence.absolute_timeout_ms.map(duration_ms) })
}

pub(super) fn persistence_to_wire(persistence: &Persistence) -> wire::Persistence {
    let carrier = match persistence.carrier {
        Carrier::SessionCookie => wire::Carrier::SessionCookie,
        Carrier::PermanentCookie => wire::Carrier::PermanentCookie,
        Carrier::Header => wire::Carrier::Header,
    };
    wire::Persistence {
        session_name: persistence.session_name.clone(),
        carrier: carrier.into(),
        absolute_timeout_ms: persistence.absolute_timeout.map(millis),
    }
}
