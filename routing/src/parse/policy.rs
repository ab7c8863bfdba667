//! Policies on backends: BackendTLSPolicy (GEP-1897) and XBackendTrafficPolicy (GEP-3388).

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::duration::duration;
use super::filter::{host_pattern, hostname};
use super::{Fault, Parsed, decoded, list, rule};
use crate::api::{BackendTlsPolicyRest, BackendTrafficPolicyRest, LocalObjectReference, Policy, SubjectAltName};
use crate::model::{AltName, MinRetryRate, Persistence, RetryBudget};

const ALT_NAMES_MAX: usize = 5;
const CA_REFS_MAX: usize = 8;
const PERCENT_DEFAULT: i64 = 20;
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
const MIN_COUNT_DEFAULT: i64 = 10;
const MIN_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// A BackendTLSPolicy whose certificate authorities still are references.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TlsPolicy {
    pub(crate) hostname: String,
    pub(crate) alt_names: Vec<AltName>,
    pub(crate) roots: TlsRoots,
}

/// Where certificate authorities come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TlsRoots {
    System,
    References(Vec<LocalObjectReference>),
}

/// What an XBackendTrafficPolicy asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TrafficPolicy {
    pub(crate) retry_budget: Option<RetryBudget>,
    pub(crate) persistence: Option<Persistence>,
}

pub(crate) fn tls_policy(policy: &Policy) -> Parsed<TlsPolicy> {
    let written: BackendTlsPolicyRest = decoded(&policy.spec.rest, "spec")?;
    let validation = &written.validation;
    let within = |fault: Fault| fault.within("spec.validation");
    let roots = match (validation.well_known_ca_certificates.as_deref(), validation.ca_certificate_refs.as_slice()) {
        (Some("System"), []) => TlsRoots::System,
        (None | Some(""), []) => return Err(within(Fault::unsupported("", "names neither caCertificateRefs nor wellKnownCACertificates"))),
        (None | Some(""), references) if references.len() <= CA_REFS_MAX => TlsRoots::References(references.to_vec()),
        (None | Some(""), _) => {
            return Err(within(Fault::unsupported("caCertificateRefs", format!("has more than {CA_REFS_MAX} entries"))));
        }
        (Some(other), []) => {
            return Err(within(Fault::unsupported("wellKnownCACertificates", format!("{other:?} is not known; System is"))));
        }
        (Some(_), _) => return Err(within(Fault::unsupported("", "names both caCertificateRefs and wellKnownCACertificates"))),
    };
    Ok(TlsPolicy {
        hostname: hostname(&validation.hostname).map_err(within)?,
        alt_names: list(&validation.subject_alt_names, "subjectAltNames", ALT_NAMES_MAX, alt_name).map_err(within)?,
        roots,
    })
}

fn alt_name(written: &SubjectAltName) -> Parsed<AltName> {
    match (written.kind.as_str(), &written.hostname, &written.uri) {
        ("Hostname", Some(name), None) => host_pattern(name).map(|_| AltName::Hostname(name.clone())),
        ("URI", None, Some(uri)) if uri.contains("://") => Ok(AltName::Uri(uri.clone())),
        ("URI", None, Some(uri)) => Err(Fault::unsupported("uri", format!("{uri:?} has no scheme"))),
        ("Hostname" | "URI", _, _) => Err(Fault::unsupported("", format!("of type {} needs that and nothing else", written.kind))),
        (other, _, _) => Err(Fault::unsupported("type", format!("{other:?} is neither Hostname nor URI"))),
    }
}

pub(crate) fn traffic_policy(policy: &Policy) -> Parsed<TrafficPolicy> {
    let written: BackendTrafficPolicyRest = decoded(&policy.spec.rest, "spec")?;
    let within = |field: &'static str| move |fault: Fault| fault.within(field);
    let constraint = written.retry_constraint;
    let retry_budget = constraint.map(|constraint| {
        let budget = constraint.budget.unwrap_or_default();
        let rate = constraint.min_retry_rate.unwrap_or_default();
        Ok(RetryBudget {
            percent: number(budget.percent.unwrap_or(PERCENT_DEFAULT), 0, 100, "budget.percent")?,
            interval: interval(budget.interval.as_ref(), INTERVAL_DEFAULT, Duration::from_secs(1), "budget.interval")?,
            min: MinRetryRate {
                count: number(rate.count.unwrap_or(MIN_COUNT_DEFAULT), 1, 1_000_000, "minRetryRate.count")?,
                interval: interval(rate.interval.as_ref(), MIN_INTERVAL_DEFAULT, Duration::from_millis(1), "minRetryRate.interval")?,
            },
        })
    });
    let persistence = written.session_persistence.as_ref().map(rule::persistence);
    Ok(TrafficPolicy {
        retry_budget: retry_budget.transpose().map_err(within("spec.retryConstraint"))?,
        persistence: persistence.transpose().map_err(within("spec.sessionPersistence"))?,
    })
}

fn number(value: i64, min: u32, max: u32, field: &str) -> Parsed<u32> {
    let found = u32::try_from(value).ok().filter(|number| (min..=max).contains(number));
    found.ok_or_else(|| Fault::unsupported(field, format!("{value} is not between {min} and {max}")))
}

fn interval(text: Option<&String>, default: Duration, min: Duration, field: &str) -> Parsed<Duration> {
    let Some(text) = text else { return Ok(default) };
    let found = duration(text, field)?;
    if (min..=INTERVAL_MAX).contains(&found) {
        return Ok(found);
    }
    Err(Fault::unsupported(field, format!("{text:?} is not between {min:?} and {INTERVAL_MAX:?}")))
}

/// Whether a document is PEM with at least one certificate in it that can be trusted: what a sidecar takes.
pub(crate) fn is_certificate_bundle(text: &str) -> bool {
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let Ok(certificate) = certificate else { return false };
        found |= webpki::anchor_from_trusted_cert(&certificate).is_ok();
    }
    found
}
