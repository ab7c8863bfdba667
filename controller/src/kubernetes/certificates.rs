//! The CA in a Secret, short-lived certificates signed by it, and its place in the webhook's configuration. All of it renews itself.
//!
//! Invariant: whoever comes first makes the CA and everyone uses that one; a Secret that vanished is put back as it was, and who has
//! another CA than the Secret ends, so that no two replicas serve by two of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use serde_json::json;
use time::OffsetDateTime;
use tracing::{info, warn};

use super::{CALL_TIMEOUT, in_time};
use crate::tls::Certificates;

/// The Secret with the CA, in the controller's namespace.
pub const SECRET: &str = "isthmus-ca";
const CERTIFICATE_KEY: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";
/// Sidecars are given the CA when their pod is made and never again: it outlives them.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of two nodes may differ by this.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// The Secret and the webhook's configuration are looked at this often at least.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The CA.
pub struct Authority {
    /// Its certificate.
    pub pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Isthmus CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + CA_LIFETIME;
        let pem = params.self_signed(&key)?.pem();
        Self::read(pem, key.serialize_pem())
    }

    fn read(pem: String, key_pem: String) -> anyhow::Result<Self> {
        let key = KeyPair::from_pem(&key_pem).context(PRIVATE_KEY)?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).context(CERTIFICATE_KEY)?;
        Ok(Self { pem, key_pem, issuer })
    }

    fn of(secret: &Secret) -> anyhow::Result<Self> {
        let text = |name: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(name)).with_context(|| format!("{name} is missing"))?;
            String::from_utf8(bytes.0.clone()).with_context(|| name.to_owned())
        };
        Self::read(text(CERTIFICATE_KEY)?, text(PRIVATE_KEY)?)
    }

    fn secret(&self) -> Secret {
        let data = [(CERTIFICATE_KEY, &self.pem), (PRIVATE_KEY, &self.key_pem)];
        Secret {
            metadata: ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data.map(|(name, text)| (name.to_owned(), ByteString(text.clone().into_bytes()))).into()),
            ..Secret::default()
        }
    }

    /// The CA of the Secret, which is made if it is not there.
    ///
    /// # Errors
    /// It can be neither read nor made, or holds no CA.
    pub async fn load(client: &Client, namespace: &str) -> anyhow::Result<Self> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let place = || format!("Secret {namespace}/{SECRET}");
        if let Some(secret) = secrets.get_opt(SECRET).await.with_context(place)? {
            return Self::of(&secret).with_context(place);
        }
        let new = Self::new()?;
        match secrets.create(&PostParams::default(), &new.secret()).await {
            Ok(_) => {
                info!(secret = place(), "CA made");
                Ok(new)
            }
            // Another replica was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Self::of(&secrets.get(SECRET).await.with_context(place)?).with_context(place)
            }
            Err(error) => Err(error).with_context(place),
        }
    }

    /// A server's certificate for these names.
    ///
    /// # Errors
    /// A name is no DNS name.
    pub fn issue(&self, names: &[String], lifetime: Duration) -> anyhow::Result<CertifiedKey> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "isthmus-controller");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let now = OffsetDateTime::now_utc();
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + lifetime;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(CertifiedKey::new(vec![certificate.der().clone()], any_ecdsa_type(&private)?))
    }
}

/// What the Secret holds.
enum Kept {
    /// The CA that is served.
    Ours,
    /// Another one.
    Another,
}

/// Keeps everything that rests on the CA in order.
pub struct Keeper {
    /// The API server.
    pub client: Client,
    /// Where the Secret is.
    pub namespace: String,
    /// The CA.
    pub authority: Arc<Authority>,
    /// What is shown to peers.
    pub certificates: Arc<Certificates>,
    /// DNS names of the certificates.
    pub names: Vec<String>,
    /// How long a certificate is good for.
    pub lifetime: Duration,
    /// The webhook's configuration, which is told the CA; none: there is no webhook.
    pub webhook: Option<String>,
}

impl Keeper {
    /// Renews and repairs, until the Secret holds another CA: what that is, is then said.
    pub async fn run(self) -> anyhow::Error {
        // A third of the time is left for whatever may go wrong.
        let mut renew = tokio::time::interval(self.lifetime * 2 / 3);
        renew.tick().await;
        let mut look = tokio::time::interval(LOOK_EVERY.min(self.lifetime / 3));
        loop {
            tokio::select! {
                _ = renew.tick() => match self.authority.issue(&self.names, self.lifetime) {
                    Ok(key) => {
                        self.certificates.replace(key);
                        info!("certificate renewed");
                    }
                    Err(error) => warn!(error = format!("{error:#}"), "the certificate cannot be renewed"),
                },
                _ = look.tick() => if let Some(other) = self.repair().await { return other },
            }
        }
    }

    async fn repair(&self) -> Option<anyhow::Error> {
        match self.repair_secret().await {
            Ok(Kept::Ours) => {}
            Ok(Kept::Another) => {
                let place = format!("Secret {}/{SECRET}", self.namespace);
                return Some(anyhow::anyhow!("{place} holds another CA than at the start, which is served after a restart"));
            }
            Err(error) => warn!(error = format!("{error:#}"), "Secret {}/{SECRET}", self.namespace),
        }
        if let Some(name) = &self.webhook
            && let Err(error) = self.repair_webhook(name).await
        {
            warn!(error = format!("{error:#}"), webhook = name, "the webhook's configuration");
        }
        None
    }

    async fn repair_secret(&self) -> anyhow::Result<Kept> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        if let Some(secret) = in_time(CALL_TIMEOUT, secrets.get_opt(SECRET)).await? {
            let there = Authority::of(&secret)?;
            return Ok(if there.pem == self.authority.pem { Kept::Ours } else { Kept::Another });
        }
        in_time(CALL_TIMEOUT, secrets.create(&PostParams::default(), &self.authority.secret())).await?;
        info!("the Secret with the CA was gone and is put back");
        Ok(Kept::Ours)
    }

    async fn repair_webhook(&self, name: &str) -> anyhow::Result<()> {
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let Some(configuration) = in_time(CALL_TIMEOUT, configurations.get_opt(name)).await? else {
            anyhow::bail!("does not exist: no pod is injected")
        };
        let webhooks = configuration.webhooks.unwrap_or_default();
        let wanted = ByteString(self.authority.pem.clone().into_bytes());
        let wrong: Vec<_> =
            webhooks.iter().enumerate().filter(|(_, webhook)| webhook.client_config.ca_bundle.as_ref() != Some(&wanted)).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        // The test makes a change of somebody else in the meantime a conflict; the next look tries again.
        let mut patch = vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": configuration.metadata.resource_version})];
        patch.extend(
            wrong
                .iter()
                .map(|(index, _)| json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": wanted})),
        );
        let patch: json_patch::Patch = serde_json::from_value(json!(patch))?;
        in_time(CALL_TIMEOUT, configurations.patch(name, &PatchParams::default(), &Patch::<()>::Json(patch))).await?;
        info!(webhook = name, "told the CA");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_survives_its_secret() {
        let made = Authority::new().expect("a CA");
        let read = Authority::of(&made.secret()).expect("read");
        assert_eq!(read.pem, made.pem);
        read.issue(&["isthmus-controller.isthmus-system.svc".to_owned()], Duration::from_secs(60)).expect("a certificate");
    }
}
