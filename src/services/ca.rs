//! The lab's certificate authority and the leaves that endpoints and listeners show.
//!
//! One leaf per service and region, and one per endpoint for S3, with the names that AWS's certificates have. None is
//! made for the name a client asks for: a client that uses a name the real certificate lacks must fail here too.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use crate::base::UnixTime;
use crate::model::catalogue::{self, Service};
use crate::model::plan::{EndpointPlan, Plan};

/// Domains below which the CA may vouch: the AWS ones. The names of instances' TLS listeners are added one by one, so
/// a CA that leaks can impersonate nothing of the real Internet but AWS's own names. Critical name constraints (RFC
/// 5280, 4.2.1.10) are obeyed by OpenSSL (curl, Python, botocore), Go, GnuTLS, NSS, Java and rustls.
pub const PERMITTED_DOMAINS: [&str; 5] = ["amazonaws.com", "api.aws", "aws", "compute.internal", "ec2.internal"];

/// "TLS 1.3 is not supported" on S3 interface endpoints (Amazon S3 User Guide, "AWS PrivateLink for Amazon S3",
/// restrictions). Set to `false` once AWS lifts it.
pub const S3_ENDPOINTS_TLS12_ONLY: bool = true;

/// A CA that lives as long as the lab; its key is never written down.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    permitted: Vec<String>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    leaves: Mutex<HashMap<Vec<String>, Arc<CertifiedKey>>>,
}

impl Ca {
    /// Makes the CA of lab `lab`, which may vouch for [`PERMITTED_DOMAINS`] and for `names` (and what is below them).
    /// Valid from a day before `now` for ten years.
    ///
    /// # Errors
    /// A name that is no DNS name.
    pub fn generate(lab: &str, names: &[String], now: UnixTime) -> Result<Ca, CaError> {
        let mut permitted: Vec<String> = PERMITTED_DOMAINS.iter().map(|d| (*d).to_owned()).collect();
        for name in names {
            let name = name.trim_start_matches("*.").to_ascii_lowercase();
            if !permitted.iter().any(|p| below(&name, p)) {
                permitted.push(name);
            }
        }
        let start = i64::try_from(now.0).map_err(|_| CaError::Time)?;
        let not_before = OffsetDateTime::from_unix_timestamp(start).map_err(|_| CaError::Time)? - DAY;
        let not_after = not_before + 3_653 * DAY;

        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = subject(&format!("vpclab CA of lab {}", clip(lab, 40)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: permitted.iter().map(|d| GeneralSubtree::DnsName(d.clone())).collect(),
            excluded_subtrees: Vec::new(),
        });
        params.not_before = not_before;
        params.not_after = not_after;
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;
        Ok(Ca { issuer, permitted, not_before, not_after, leaves: Mutex::default() })
    }

    /// The CA for a plan: the names of its TLS listeners are permitted besides AWS's.
    ///
    /// # Errors
    /// As [`Ca::generate`].
    pub fn for_plan(plan: &Plan, now: UnixTime) -> Result<Ca, CaError> {
        let listeners = plan.instances.iter().flat_map(|i| &i.listen);
        let names: Vec<String> = listeners.filter_map(|l| l.tls.clone()).collect();
        Ca::generate(&plan.name, &names, now)
    }

    /// The certificate that clients must trust, in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Whether the name constraints let this CA vouch for `name`.
    pub fn permits(&self, name: &str) -> bool {
        let name = name.trim_start_matches("*.").to_ascii_lowercase();
        self.permitted.iter().any(|p| below(&name, p))
    }

    /// A leaf with exactly these names, made once. Used for endpoints and for instances' listeners.
    ///
    /// # Errors
    /// No name, a name outside the CA's constraints, or one that is no DNS name.
    pub fn leaf(&self, names: &[String]) -> Result<Arc<CertifiedKey>, CaError> {
        let Some(first) = names.first() else { return Err(CaError::NoName) };
        if let Some(outside) = names.iter().find(|n| !self.permits(n)) {
            return Err(CaError::NotPermitted(outside.clone()));
        }
        if let Some(made) = self.leaves.lock().unwrap_or_else(PoisonError::into_inner).get(names) {
            return Ok(Arc::clone(made));
        }
        let mut params = CertificateParams::new(names.to_vec())?;
        // A common name holds 64 characters (RFC 5280, appendix A.1); clients look at the SANs.
        params.distinguished_name = subject(clip(first, 64));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = self.not_before;
        params.not_after = self.not_after;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der)?;
        let leaf = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer));
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(leaves.entry(names.to_vec()).or_insert(leaf)))
    }

    /// TLS as a server with one leaf, ALPN `http/1.1`. The client's SNI is not looked at.
    ///
    /// # Errors
    /// As [`Ca::leaf`].
    pub fn server_config(&self, names: &[String], tls12_only: bool) -> Result<Arc<ServerConfig>, CaError> {
        let versions: &[&rustls::SupportedProtocolVersion] =
            if tls12_only { &[&rustls::version::TLS12] } else { rustls::ALL_VERSIONS };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(OneLeaf(self.leaf(names)?)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// TLS of an endpoint: of an interface endpoint's own ENIs, or of what stands behind a gateway endpoint, which is
    /// the public service.
    ///
    /// # Errors
    /// As [`Ca::leaf`].
    pub fn server_config_for(&self, plan: &Plan, endpoint: usize) -> Result<Arc<ServerConfig>, CaError> {
        let of = &plan.endpoints[endpoint];
        let tls12_only = S3_ENDPOINTS_TLS12_ONLY && plan.services[of.service].name == "s3" && !of.is_gateway();
        self.server_config(&leaf_names(plan, endpoint), tls12_only)
    }

    /// TLS of a service's public address in a region.
    ///
    /// # Errors
    /// As [`Ca::leaf`].
    pub fn public_server_config(&self, service: &Service, region: &str) -> Result<Arc<ServerConfig>, CaError> {
        self.server_config(&catalogue::public_names(service, region), false)
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("permitted", &self.permitted).finish_non_exhaustive()
    }
}

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("a certificate needs a name")]
    NoName,
    #[error("`{0}` is outside the domains that the lab's CA may vouch for")]
    NotPermitted(String),
    #[error("the time is out of range")]
    Time,
    #[error("certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// The names on the certificate that an endpoint shows. A gateway endpoint shows the service's public one: it changes
/// no name.
///
/// Most services have one certificate for the region: the names of private DNS and `*.SERVICE.REGION.vpce...`. S3 has
/// one per endpoint, on which the bare `vpce-...` name is missing: clients must put `bucket.`, `accesspoint.` or
/// `control.` before it (Amazon S3 User Guide, "AWS PrivateLink for Amazon S3"; SANs as captured in 2022).
pub fn leaf_names(plan: &Plan, endpoint: usize) -> Vec<String> {
    let endpoint = &plan.endpoints[endpoint];
    let service = &plan.services[endpoint.service];
    if endpoint.is_gateway()
        && let Some(public) = catalogue::service(&service.name)
    {
        return catalogue::public_names(public, &service.region);
    }
    if service.name == "s3" { s3_names(endpoint, &service.region) } else { regional_names(endpoint) }
}

fn s3_names(endpoint: &EndpointPlan, region: &str) -> Vec<String> {
    let mut names = vec![format!("s3.{region}.amazonaws.com")];
    names.extend(["s3", "s3-control", "s3-accesspoint"].map(|host| format!("*.{host}.{region}.amazonaws.com")));
    let zonal = endpoint.names.zonal.iter().map(|(_, name, _)| name);
    for v in std::iter::once(&endpoint.names.regional).chain(zonal) {
        names.extend([
            format!("bucket.{v}"),
            format!("*.bucket.{v}"),
            format!("*.accesspoint.{v}"),
            format!("*.control.{v}"),
        ]);
    }
    names
}

fn regional_names(endpoint: &EndpointPlan) -> Vec<String> {
    let mut names = Vec::new();
    for zone in &endpoint.names.private {
        if zone.at_apex {
            names.push(zone.apex.clone());
        }
        if zone.wildcard {
            names.push(format!("*.{}", zone.apex));
        }
    }
    // `vpce-0123-abcd.sqs.eu-west-1.vpce.amazonaws.com` -> `*.sqs.eu-west-1.vpce.amazonaws.com`
    if let Some((_, base)) = endpoint.names.regional.split_once('.') {
        names.push(format!("*.{base}"));
    }
    names
}

const DAY: Duration = Duration::from_secs(86_400);

fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "vpclab");
    name.push(DnType::CommonName, common_name);
    name
}

fn clip(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(at, _)| &text[..at])
}

fn below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[derive(Debug)]
struct OneLeaf(Arc<CertifiedKey>);

impl ResolvesServerCert for OneLeaf {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
