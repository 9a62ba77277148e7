//! A small lab for the tests of this room, and a signer of its own: written from the recipe, apart from `sigv4`.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::DuplexStream;

use super::{Ca, ConnContext, Dialer, Gate, Opened, Services, ServicesConfig, Stream};
use crate::base::clock::ManualClock;
use crate::base::{Cidr, Clock, EniIx, UnixTime};
use crate::model::catalogue::public_addr;
use crate::model::credentials::{CredentialBook, RoleCredentials};
use crate::model::plan::*;

pub(super) const REGION: &str = "eu-west-1";
pub(super) const ACCOUNT: &str = "123456789012";
/// Of [`ManualClock`]'s beginning.
pub(super) const DATE: &str = "20260101";
pub(super) const STAMP: &str = "20260101T000000Z";

/// A running set of services, seen from one instance.
pub(super) struct Lab {
    pub(super) services: Services,
    pub(super) clock: Arc<ManualClock>,
    pub(super) ca: Arc<Ca>,
    pub(super) credentials: Arc<RwLock<Arc<CredentialBook>>>,
    pub(super) dialer: Arc<Pipes>,
}

/// Services of the plan, one endpoint each, in this order.
pub(super) fn plan(services: &[(&str, Backend)]) -> Plan {
    let common = |name: &str| Common {
        name: name.into(),
        path: format!("app.{name}"),
        id: crate::base::ids::aws_id("x", "lab", name),
        ..Common::default()
    };
    let mut plan =
        Plan { name: "lab".into(), region: REGION.into(), default_account: ACCOUNT.into(), ..Plan::default() };
    plan.vpcs.push(VpcPlan {
        common: common("app"),
        cidrs: vec![Cidr::containing([10, 0, 0, 0].into(), 16)],
        region: REGION.into(),
        account: ACCOUNT.into(),
        dns_support: true,
        dns_hostnames: true,
        main_route_table: 0,
        default_nacl: 0,
        default_security_group: 0,
    });
    for (at, (name, backend)) in services.iter().enumerate() {
        let base = format!("{name}.{REGION}");
        let v = format!("vpce-0{at}-abcdefgh");
        plan.services.push(ServicePlan {
            name: (*name).into(),
            full_name: format!("com.amazonaws.{REGION}.{name}"),
            region: REGION.into(),
            account: ACCOUNT.into(),
            backend: backend.clone(),
            ports: vec![443],
            data: None,
            contents: Contents::default(),
        });
        plan.endpoints.push(EndpointPlan {
            common: common(name),
            vpc: 0,
            service: at,
            kind: crate::model::plan::EndpointKind::Interface,
            enis: Vec::new(),
            security_groups: Vec::new(),
            private_dns: true,
            policy: Policy::Full,
            names: EndpointNames {
                regional: format!("{v}.{base}.vpce.amazonaws.com"),
                zonal: vec![(format!("{REGION}a"), format!("{v}-{REGION}a.{base}.vpce.amazonaws.com"), EniIx(0))],
                private: vec![PrivateZone {
                    apex: format!("{base}.amazonaws.com"),
                    at_apex: true,
                    wildcard: *name == "s3",
                }],
            },
        });
    }
    for (name, policy) in [
        ("web", Policy::Full),
        (
            "guest",
            Policy::Document(serde_json::json!({"Statement": {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}})),
        ),
    ] {
        let common = Common { name: name.into(), path: name.into(), ..Common::default() };
        plan.roles.push(RolePlan { common, account: ACCOUNT.into(), policy });
    }
    plan
}

pub(super) fn lab(plan: Plan) -> Lab {
    let clock = Arc::new(ManualClock::default());
    let ca = Arc::new(Ca::for_plan(&plan, clock.unix()).unwrap());
    let credential = |role: usize, key: &str| {
        let credentials = RoleCredentials {
            role,
            role_name: plan.roles[role].common.name.clone(),
            account: ACCOUNT.into(),
            session: "i-0123".into(),
            access_key: key.into(),
            secret_key: format!("secret/of+{key}"),
            token: format!("token/of+{key}=="),
            issued: clock.unix(),
            expires: UnixTime(clock.unix().0 + 3_600),
        };
        (role, Arc::new(credentials))
    };
    let book = CredentialBook { entries: vec![credential(0, "ASIAWEB"), credential(1, "ASIAGUEST")] };
    let credentials = Arc::new(RwLock::new(Arc::new(book)));
    let dialer = Arc::new(Pipes::default());
    let config = ServicesConfig {
        plan: Arc::new(plan),
        ca: Arc::clone(&ca),
        credentials: Arc::clone(&credentials),
        clock: clock.clone(),
        dialer: dialer.clone(),
        seed: [1; 32],
        dial_timeout: Duration::from_millis(200),
    };
    Lab { services: Services::new(config).unwrap(), clock, ca, credentials, dialer }
}

impl Lab {
    pub(super) fn clock_unix(&self) -> u64 {
        self.clock.unix().0
    }

    pub(super) fn context(&self, service: &str, port: u16) -> ConnContext {
        let plan = &self.services.world().current().plan;
        let endpoint = plan.endpoints.iter().position(|e| plan.services[e.service].name == service).unwrap();
        ConnContext {
            gate: Gate::Endpoint(plan.endpoints[endpoint].common.id.as_str().into()),
            client: SocketAddrV4::new([10, 0, 1, 10].into(), 40_000),
            server: SocketAddrV4::new([10, 0, 1, 25].into(), port),
        }
    }

    /// A connection to a public host name, from a public address.
    pub(super) fn public_context(&self, host: &str, port: u16) -> ConnContext {
        let addr = public_addr(host).unwrap_or_else(|| panic!("{host} has no address"));
        ConnContext {
            gate: Gate::Public,
            client: SocketAddrV4::new([203, 0, 113, 7].into(), 40_000),
            server: SocketAddrV4::new(addr, port),
        }
    }

    /// A raw stream to an endpoint.
    pub(super) async fn stream(&self, service: &str, port: u16) -> DuplexStream {
        self.stream_to(self.context(service, port)).await
    }

    pub(super) async fn stream_to(&self, conn: ConnContext) -> DuplexStream {
        let Opened::Ready(session) = self.services.open(conn.clone()).await else {
            panic!("{conn:?} is not reached");
        };
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(session.serve(far, || ()));
        near
    }

    pub(super) fn trust(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem().as_bytes()).unwrap()).unwrap();
        roots
    }

    /// HTTPS to an endpoint under a name that its certificate must have.
    pub(super) async fn https(&self, service: &str, name: &str) -> Result<Client, io::Error> {
        self.https_to(self.context(service, 443), name).await
    }

    /// HTTPS to a host of the public side.
    pub(super) async fn public(&self, host: &str) -> Result<Client, io::Error> {
        self.https_to(self.public_context(host, 443), host).await
    }

    pub(super) async fn https_to(&self, conn: ConnContext, name: &str) -> Result<Client, io::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.trust())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.time_provider = Arc::new(FixedTime(self.clock.unix()));
        let server = ServerName::try_from(name.to_owned()).unwrap();
        let stream = self.stream_to(conn).await;
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(server, stream).await?;
        let (_, session) = tls.get_ref();
        let (alpn, version) = (session.alpn_protocol().map(<[u8]>::to_vec), session.protocol_version());
        let (send, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        Ok(Client { send, host: name.into(), region: REGION.into(), alpn, version })
    }

    /// HTTPS to the service's regional name.
    pub(super) async fn client(&self, service: &str) -> Client {
        self.https(service, &format!("{service}.{REGION}.amazonaws.com")).await.unwrap()
    }
}

#[derive(Debug)]
struct FixedTime(UnixTime);

impl rustls::time_provider::TimeProvider for FixedTime {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(self.0.0)))
    }
}

/// One kept-alive HTTPS connection.
pub(super) struct Client {
    send: SendRequest<Full<Bytes>>,
    pub(super) host: String,
    /// That calls are signed for.
    pub(super) region: String,
    pub(super) alpn: Option<Vec<u8>>,
    pub(super) version: Option<rustls::ProtocolVersion>,
}

/// An answer read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: http::HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The text of the first element with this name.
    pub(super) fn xml(&self, element: &str) -> &str {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let from = self.body.find(&open).unwrap_or_else(|| panic!("no {element} in {}", self.body)) + open.len();
        let to = from + self.body[from..].find(&close).unwrap();
        &self.body[from..to]
    }
}

impl Client {
    pub(super) async fn send(&mut self, request: http::Request<Full<Bytes>>) -> Answer {
        self.send.ready().await.unwrap();
        let response = self.send.send_request(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status.as_u16(), headers: head.headers, body: String::from_utf8(body.into()).unwrap() }
    }

    /// A signed call of a query service.
    pub(super) async fn query(&mut self, key: &str, service: &str, form: &str) -> Answer {
        let (region, host) = (self.region.clone(), self.host.clone());
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.send(signed_in(&region, key, service, &host, &headers, form)).await
    }

    /// A signed call of a JSON service.
    pub(super) async fn json(&mut self, key: &str, service: &str, target: &str, body: &serde_json::Value) -> Answer {
        let version = if matches!(service, "sqs" | "dynamodb") {
            "application/x-amz-json-1.0"
        } else {
            "application/x-amz-json-1.1"
        };
        let (region, host) = (self.region.clone(), self.host.clone());
        let headers = [("content-type", version), ("x-amz-target", target)];
        self.send(signed_in(&region, key, service, &host, &headers, &body.to_string())).await
    }
}

/// `POST /` signed at the clock's beginning with the credentials of [`lab`].
pub(super) fn signed(
    key: &str,
    service: &str,
    host: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> http::Request<Full<Bytes>> {
    signed_in(REGION, key, service, host, headers, body)
}

fn signed_in(
    region: &str,
    key: &str,
    service: &str,
    host: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> http::Request<Full<Bytes>> {
    let mut all: Vec<(String, String)> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    all.extend([
        ("host".to_owned(), host.to_owned()),
        ("x-amz-date".to_owned(), STAMP.to_owned()),
        ("x-amz-security-token".to_owned(), format!("token/of+{key}==")),
    ]);
    all.sort();
    let names: Vec<&str> = all.iter().map(|(n, _)| n.as_str()).collect();
    let names = names.join(";");
    let mut canonical = String::from("POST\n/\n\n");
    for (name, value) in &all {
        canonical += &format!("{name}:{value}\n");
    }
    let hash = |bytes: &[u8]| to_hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    canonical += &format!("\n{names}\n{}", hash(body.as_bytes()));
    let scope = format!("{DATE}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{STAMP}\n{scope}\n{}", hash(canonical.as_bytes()));
    let mac = |key: &[u8], text: &str| sign(&Key::new(HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec();
    let mut secret = format!("AWS4secret/of+{key}").into_bytes();
    for part in [DATE, region, service, "aws4_request"] {
        secret = mac(&secret, part);
    }
    let signature = to_hex(&mac(&secret, &text));
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}");
    let mut request = http::Request::builder().method("POST").uri("/").header("authorization", authorization);
    for (name, value) in all {
        request = request.header(name, value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A dialer whose backends are the far ends of pipes, or errors, by address.
#[derive(Default)]
pub(super) struct Pipes {
    answers: Mutex<HashMap<String, Vec<Result<DuplexStream, io::ErrorKind>>>>,
}

impl Pipes {
    /// The next dial of `addr` reaches the returned stream.
    pub(super) fn expect(&self, addr: &UpstreamAddr) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.answers.lock().unwrap().entry(format!("{addr:?}")).or_default().push(Ok(near));
        far
    }

    pub(super) fn fail(&self, addr: &UpstreamAddr, kind: io::ErrorKind) {
        self.answers.lock().unwrap().entry(format!("{addr:?}")).or_default().push(Err(kind));
    }
}

impl Dialer for Pipes {
    fn dial(&self, addr: &UpstreamAddr) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let next = self
            .answers
            .lock()
            .unwrap()
            .get_mut(&format!("{addr:?}"))
            .and_then(|list| if list.is_empty() { None } else { Some(list.remove(0)) });
        Box::pin(async move {
            match next {
                Some(Ok(stream)) => Ok(Box::new(stream) as Box<dyn Stream>),
                Some(Err(kind)) => Err(kind.into()),
                None => futures::future::pending().await,
            }
        })
    }
}
