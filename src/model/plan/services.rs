//! Endpoints, the services behind them, and who may do what.

use std::path::PathBuf;

use super::Common;
use crate::base::EniIx;

#[derive(Clone, Debug)]
pub struct EndpointPlan {
    pub common: Common,
    pub vpc: usize,
    pub service: usize,
    pub kind: EndpointKind,
    /// One per subnet, in the order of the file; none of a gateway endpoint.
    pub enis: Vec<EniIx>,
    pub security_groups: Vec<usize>,
    pub private_dns: bool,
    pub policy: Policy,
    pub names: EndpointNames,
}

impl EndpointPlan {
    pub fn is_gateway(&self) -> bool {
        matches!(self.kind, EndpointKind::Gateway { .. })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    Interface,
    Gateway {
        /// Indices in `Plan::route_tables`: each has a route to `prefix_list`.
        route_tables: Vec<usize>,
        /// Index in `Plan::prefix_lists`: AWS's own of the service.
        prefix_list: usize,
        /// Where TCP to the service ends.
        door: EniIx,
    },
}

/// Every DNS name of an endpoint, lower case, without a final dot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointNames {
    /// `vpce-0123-abcd1234.s3.eu-west-1.vpce.amazonaws.com`.
    pub regional: String,
    /// Zone name (`eu-west-1a`), name, ENI.
    pub zonal: Vec<(String, String, EniIx)>,
    /// Zones that private DNS attaches, whether or not it is on.
    pub private: Vec<PrivateZone>,
}

/// A hidden private zone: apex and the owners in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateZone {
    /// `s3.eu-west-1.amazonaws.com`.
    pub apex: String,
    /// The apex itself has an address (not so for `dkr.ecr.REGION`).
    pub at_apex: bool,
    /// `*.APEX` has one too (S3, ECR, execute-api).
    pub wildcard: bool,
}

#[derive(Clone, Debug)]
pub struct RolePlan {
    pub common: Common,
    pub account: String,
    pub policy: Policy,
}

/// A policy document. Conditions, principals other than `*` and NotAction-like elements are refused by `validate`
/// until the full engine judges them.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// Full access: the default of endpoints.
    Full,
    /// The document as JSON, checked by `policy::documents`.
    Document(serde_json::Value),
}

#[derive(Clone, Debug)]
pub struct ServicePlan {
    /// Short name in the catalogue: `s3`, `ecr.api`.
    pub name: String,
    /// `com.amazonaws.eu-west-1.s3`.
    pub full_name: String,
    pub region: String,
    pub account: String,
    pub backend: Backend,
    /// Ports that an endpoint ENI serves.
    pub ports: Vec<u16>,
    /// Where contents are kept; in memory if absent.
    pub data: Option<PathBuf>,
    pub contents: Contents,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    Builtin,
    /// The front door stays in front and speaks HTTP(S) to it.
    Http {
        tls: bool,
        authority: String,
        addr: UpstreamAddr,
    },
    /// Raw bytes.
    Tcp(UpstreamAddr),
}

impl Backend {
    /// `http://127.0.0.1:5000`, `tcp://127.0.0.1:5432`, `unix:/path`; `None` for the built-in one.
    pub fn url(&self) -> Option<String> {
        let (scheme, addr) = match self {
            Backend::Builtin => return None,
            Backend::Http { tls: true, addr, .. } => ("https", addr),
            Backend::Http { tls: false, addr, .. } => ("http", addr),
            Backend::Tcp(addr) => ("tcp", addr),
        };
        Some(match addr {
            UpstreamAddr::Loopback(addr) => format!("{scheme}://{addr}"),
            UpstreamAddr::Unix(path) => format!("unix:{}", path.display()),
        })
    }
}

/// Loopback or a unix socket of this machine; anything else was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamAddr {
    Loopback(std::net::SocketAddr),
    Unix(PathBuf),
}

/// What a built-in service holds when the lab comes up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    pub buckets: Vec<BucketPlan>,
    pub queues: Vec<String>,
    pub topics: Vec<String>,
    /// Name and value.
    pub secrets: Vec<(String, String)>,
    pub tables: Vec<TablePlan>,
}

/// A DynamoDB table.
#[derive(Clone, Debug, PartialEq)]
pub struct TablePlan {
    pub name: String,
    /// Attribute and type: `S`, `N` or `B`.
    pub partition: (String, char),
    pub sort: Option<(String, char)>,
    /// In DynamoDB's own form: `{"pk": {"S": "a"}}`.
    pub items: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BucketPlan {
    pub name: String,
    pub files: BucketFiles,
}

#[derive(Clone, Debug, PartialEq)]
pub enum BucketFiles {
    None,
    Directory(PathBuf),
    /// Key and text.
    Inline(Vec<(String, String)>),
}
