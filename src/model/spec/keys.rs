//! Every key of a topology file, in one table per noun. The readers, the refusal of unknown keys and the JSON Schema
//! all work from these tables, so a key cannot be known to one of them only.

/// A map with known keys.
#[derive(Debug)]
pub struct Noun {
    /// With its article, for messages: `a subnet`.
    pub name: &'static str,
    /// Takes `id`, `tags` and `description` too.
    pub common: bool,
    pub keys: &'static [Key],
}

#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub shape: Shape,
    pub state: State,
    pub must: bool,
    /// One line for the JSON Schema.
    pub doc: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Has its effect in this version.
    Now,
    /// Known, and refused by name.
    Later,
    /// Only these values, which mean what is the case anyway; any other is refused by name.
    Only(&'static [&'static str]),
}

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Text,
    Bool,
    Int(i64, i64),
    /// `350s`, `5m`, `1h30m`, `500ms`; a bare number is seconds.
    Duration,
    Cidr,
    /// One block or a list.
    Cidrs,
    Ip,
    OneOf(&'static [&'static str]),
    Texts,
    TextMap,
    Noun(&'static Noun),
    /// A map from the user's names.
    Named(&'static Noun),
    List(&'static Noun),
    /// A list of maps or of strings.
    ListOrTexts(&'static Noun),
    /// A map, a string, or one word.
    NounOrText(&'static Noun),
    SgRules,
    NaclRules,
    Policy,
    /// A list of subnets, or a map from subnet to address.
    SubnetsOrAddresses,
    Any,
}

const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, state: State::Now, must: false, doc }
}

const fn must(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, state: State::Now, must: true, doc }
}

const fn later(name: &'static str) -> Key {
    Key { name, shape: Shape::Any, state: State::Later, must: false, doc: "not in this version" }
}

const fn only(name: &'static str, values: &'static [&'static str], doc: &'static str) -> Key {
    Key { name, shape: Shape::OneOf(values), state: State::Only(values), must: false, doc }
}

pub static COMMON: &[Key] = &[
    key("id", Shape::Text, "an id of AWS's form, instead of the derived one"),
    key("tags", Shape::TextMap, "AWS tags"),
    key("description", Shape::Text, "shown in reports"),
];

pub static TOP: Noun = Noun {
    name: "a topology",
    common: false,
    keys: &[
        must("version", Shape::OneOf(&["1"]), "version of this format: 1"),
        key("name", Shape::Text, "name of the lab; left out: the file's name"),
        must("region", Shape::Text, "default region of every VPC"),
        key("defaults", Shape::OneOf(&["aws", "vpclab"]), "`aws`: what is left out means what it means in AWS's API"),
        key("accounts", Shape::TextMap, "account names, each with its 12 digits"),
        key("default_account", Shape::Text, "name or 12 digits; left out: 123456789012"),
        must("vpcs", Shape::Named(&VPC), "VPCs by name"),
        later("peerings"),
        later("transit_gateways"),
        later("on_prem"),
        later("endpoint_services"),
        later("hosted_zones"),
        later("resolver"),
        later("internet"),
        key("roles", Shape::Named(&ROLE), "IAM roles that instances assume"),
        key("services", Shape::Named(&SERVICE), "contents and backends of services, by short name"),
        later("prefix_lists"),
        key("checks", Shape::List(&CHECK), "what `vpclab test` asks"),
        key("limits", Shape::Noun(&LIMITS), "times and quotas; left out: AWS's"),
        only("latency", &["off"], "`off`: no delay is added"),
        later("faults"),
        later("alarms"),
    ],
};

pub static VPC: Noun = Noun {
    name: "a VPC",
    common: true,
    keys: &[
        must("cidr", Shape::Cidrs, "one IPv4 block of /16 to /28, or a list, primary first"),
        key("region", Shape::Text, "left out: the topology's"),
        key("account", Shape::Text, "name or 12 digits"),
        key("availability_zones", Shape::TextMap, "zone letter to zone id: `a: euw1-az2`"),
        key("dns_support", Shape::Bool, "the resolver answers; left out: true"),
        key("dns_hostnames", Shape::Bool, "instances have names; left out: true (`defaults: aws`: false)"),
        later("dhcp_options"),
        only("internet_gateway", &["false"], "no internet gateway"),
        later("nat_gateways"),
        only("virtual_private_gateway", &["false"], "no virtual private gateway"),
        key("subnets", Shape::Named(&SUBNET), "subnets by name"),
        key("route_tables", Shape::Named(&ROUTE_TABLE), "route tables by name"),
        key("network_acls", Shape::Named(&NETWORK_ACL), "network ACLs by name; `default` is the VPC's own"),
        key("security_groups", Shape::Named(&SECURITY_GROUP), "security groups by name; `default` is the VPC's own"),
        later("prefix_lists"),
        key("instances", Shape::Named(&INSTANCE), "instances by name"),
        key("endpoint_defaults", Shape::Noun(&ENDPOINT_DEFAULTS), "what endpoints of this VPC leave out"),
        key("endpoints", Shape::Named(&ENDPOINT), "interface endpoints by name"),
        later("load_balancers"),
        later("target_groups"),
        later("instance_connect_endpoints"),
        later("flow_logs"),
    ],
};

pub static SUBNET: Noun = Noun {
    name: "a subnet",
    common: true,
    keys: &[
        must("cidr", Shape::Cidr, "an IPv4 block of the VPC, /16 to /28"),
        must("az", Shape::Text, "zone letter, or the zone's name"),
        key("route_table", Shape::Text, "left out: the VPC's main table"),
        key("nacl", Shape::Text, "left out: the VPC's default network ACL"),
        only("public_ip", &["false"], "no public addresses"),
    ],
};

pub static ROUTE_TABLE: Noun = Noun {
    name: "a route table",
    common: true,
    keys: &[
        key("main", Shape::Bool, "subnets without a table use this one"),
        key("routes", Shape::List(&ROUTE), "beside the local routes, which every table has"),
        later("propagate"),
        later("edge"),
    ],
};

pub static ROUTE: Noun = Noun {
    name: "a route",
    common: false,
    keys: &[
        must("to", Shape::Text, "destination: an IPv4 block"),
        must("via", Shape::Text, "`instance:NAME`, `eni:NAME` or `blackhole`"),
        key("description", Shape::Text, "shown in reports"),
    ],
};

pub static NETWORK_ACL: Noun = Noun {
    name: "a network ACL",
    common: true,
    keys: &[
        key("ingress", Shape::NaclRules, "rule number to rule: `100: allow tcp 443 from 10.0.0.0/16`"),
        key("egress", Shape::NaclRules, "rule number to rule: `100: allow all to 0.0.0.0/0`"),
    ],
};

pub static NACL_RULE: Noun = Noun {
    name: "a rule",
    common: false,
    keys: &[
        must("action", Shape::OneOf(&["allow", "deny"]), "allow or deny"),
        key("protocol", Shape::Text, "tcp (if left out), udp, icmp, all, or a number"),
        key("ports", Shape::Text, "a port or a range; left out: all"),
        key("icmp", Shape::Text, "type, or type/code"),
        key("from", Shape::Text, "an IPv4 block, for ingress"),
        key("to", Shape::Text, "an IPv4 block, for egress"),
        key("description", Shape::Text, "shown in reports"),
    ],
};

pub static SECURITY_GROUP: Noun = Noun {
    name: "a security group",
    common: true,
    keys: &[
        key("ingress", Shape::SgRules, "left out: nothing is allowed in"),
        key("egress", Shape::SgRules, "left out: all is allowed out; `[]`: nothing"),
    ],
};

pub static SG_RULE: Noun = Noun {
    name: "a rule",
    common: false,
    keys: &[
        key("protocol", Shape::Text, "tcp (if left out), udp, icmp, all, or a number"),
        key("ports", Shape::Text, "a port or a range; left out: all"),
        key("icmp", Shape::Text, "type, or type/code"),
        key("from", Shape::Text, "an IPv4 block, `sg:NAME` or `self`, for ingress"),
        key("to", Shape::Text, "an IPv4 block, `sg:NAME` or `self`, for egress"),
        key("description", Shape::Text, "shown in reports"),
    ],
};

pub static INSTANCE: Noun = Noun {
    name: "an instance",
    common: true,
    keys: &[
        key("subnet", Shape::Text, "of its one network interface"),
        key("ip", Shape::Ip, "left out: the subnet's lowest free address from .4 on"),
        key("enis", Shape::List(&ENI), "instead of `subnet`: several network interfaces, eth0 first"),
        only("public_ip", &["false"], "no public address"),
        key("security_groups", Shape::Texts, "left out: the VPC's `default` group"),
        key("role", Shape::Text, "the role whose credentials its IMDS hands out"),
        key("source_dest_check", Shape::Bool, "left out: true"),
        key("count", Shape::Int(1, 1_000), "so many instances: NAME-1, NAME-2 ..."),
        key("listen", Shape::List(&LISTEN), "small servers in the instance"),
        key("run", Shape::ListOrTexts(&RUN), "commands for `sh -c`, started with the lab"),
        later("names"),
        key("mtu", Shape::Int(576, 9_001), "bytes; left out: 9001"),
        key("imds", Shape::Noun(&IMDS), "the instance metadata service"),
        key("user_data", Shape::Text, "handed out by IMDS"),
        later("impair"),
        key("env", Shape::TextMap, "variables that exec, shell and run set"),
        later("forward"),
        later("tracking"),
        later("netns"),
    ],
};

pub static ENI: Noun = Noun {
    name: "a network interface",
    common: true,
    keys: &[
        must("subnet", Shape::Text, "all of an instance's interfaces are in one zone"),
        key("ip", Shape::Ip, "left out: the subnet's lowest free address from .4 on"),
        key("security_groups", Shape::Texts, "left out: the VPC's `default` group"),
        key("source_dest_check", Shape::Bool, "left out: true"),
    ],
};

pub static LISTEN: Noun = Noun {
    name: "a listener",
    common: false,
    keys: &[
        key("tcp", Shape::Int(1, 65_535), "port"),
        key("udp", Shape::Int(1, 65_535), "port"),
        must("reply", Shape::Text, "hello, echo, sink, http, source, proxy, or a directory to serve"),
        key("tls", Shape::Text, "name on a leaf of the lab's CA"),
    ],
};

pub static RUN: Noun = Noun {
    name: "a command",
    common: false,
    keys: &[
        must("cmd", Shape::Text, "for `sh -c`"),
        key("user", Shape::Text, "`root` may configure the instance's network"),
    ],
};

pub static IMDS: Noun = Noun {
    name: "the metadata service",
    common: false,
    keys: &[
        key("v2_required", Shape::Bool, "left out: false"),
        key("hop_limit", Shape::Int(1, 64), "TTL of token answers; left out: 1"),
    ],
};

pub static ENDPOINT: Noun = Noun {
    name: "an endpoint",
    common: true,
    keys: &[
        key("service", Shape::Text, "short or full name; left out: the endpoint's own name"),
        key("type", Shape::OneOf(&["interface"]), "interface"),
        key("subnets", Shape::SubnetsOrAddresses, "at most one in a zone; a map gives fixed addresses"),
        key("security_groups", Shape::Texts, "left out: the VPC's `default` group"),
        later("route_tables"),
        key("private_dns", Shape::Bool, "left out: true where the service has a private name"),
        key("policy", Shape::Policy, "`full` (if left out), `{ file: p.json }`, or the document"),
        only("ip_address_type", &["ipv4"], "ipv4"),
        later("service_region"),
        only("udp", &["false"], "TCP only"),
    ],
};

pub static ENDPOINT_DEFAULTS: Noun = Noun {
    name: "endpoint defaults",
    common: false,
    keys: &[
        key("type", Shape::OneOf(&["interface"]), "interface"),
        key("subnets", Shape::Texts, "at most one in a zone"),
        key("security_groups", Shape::Texts, "left out: the VPC's `default` group"),
        later("route_tables"),
        key("private_dns", Shape::Bool, "left out: true where the service has a private name"),
        key("policy", Shape::Policy, "`full` (if left out), `{ file: p.json }`, or the document"),
        only("ip_address_type", &["ipv4"], "ipv4"),
        later("service_region"),
        only("udp", &["false"], "TCP only"),
    ],
};

pub static ROLE: Noun = Noun {
    name: "a role",
    common: true,
    keys: &[
        key("account", Shape::Text, "name or 12 digits"),
        key("policy", Shape::Policy, "`full`, `{ file: p.json }`, or the document; left out: nothing is allowed"),
    ],
};

pub static SERVICE: Noun = Noun {
    name: "a service",
    common: false,
    keys: &[
        key("backend", Shape::Text, "builtin, or an http(s)://, tcp:// or unix: address of this machine"),
        key("ports", Shape::Any, "ports that its endpoints serve: a number or a list"),
        key("account", Shape::Text, "whose data it holds: name or 12 digits"),
        key("data", Shape::Text, "folder to keep contents in; left out: memory"),
        key("buckets", Shape::Named(&BUCKET), "S3 buckets"),
        key("queues", Shape::Named(&CONTENT), "SQS queues"),
        key("topics", Shape::Named(&CONTENT), "SNS topics"),
        key("secrets", Shape::Named(&SECRET), "secrets"),
        key("tables", Shape::Named(&TABLE), "DynamoDB tables"),
        later("log_groups"),
        later("parameters"),
        later("databases"),
        later("prefixes"),
    ],
};

pub static BUCKET: Noun = Noun {
    name: "a bucket",
    common: false,
    keys: &[
        key("files", Shape::Any, "a directory, or a map from key to text"),
        key("region", Shape::Text, "left out: the topology's"),
        later("policy"),
        later("account"),
    ],
};

pub static CONTENT: Noun = Noun {
    name: "a queue or topic",
    common: false,
    keys: &[key("region", Shape::Text, "left out: the topology's"), later("policy"), later("account")],
};

pub static SECRET: Noun = Noun {
    name: "a secret",
    common: false,
    keys: &[
        must("value", Shape::Text, "the secret's text"),
        key("region", Shape::Text, "left out: the topology's"),
        later("policy"),
        later("account"),
    ],
};

pub static TABLE: Noun = Noun {
    name: "a table",
    common: false,
    keys: &[
        must(
            "key",
            Shape::Text,
            "`pk`, or `pk, sk`: partition and sort key; a type other than S behind the name: `pk, n N`",
        ),
        key("items", Shape::Any, "a list of maps from attribute to value"),
        key("region", Shape::Text, "left out: the topology's"),
        later("policy"),
        later("account"),
    ],
};

pub static CHECK: Noun = Noun {
    name: "a check",
    common: false,
    keys: &[
        must("from", Shape::Text, "an instance, or `any`"),
        key("to", Shape::Text, "a destination as `explain` takes it"),
        key("run", Shape::Text, "a command for `sh -c` in the instance"),
        key("dns", Shape::Text, "a name, and a type if other than A"),
        later("request"),
        later("at"),
        later("saw"),
        key("never", Shape::OneOf(&["internet", "nat", "gateway-endpoint"]), "a way that must not exist"),
        key("expect", Shape::NounOrText(&EXPECT), "reachable, unreachable, a drop code, or a map"),
        key("via", Shape::Text, "`endpoint:NAME`: the way it must take"),
        key("not_via", Shape::Text, "`endpoint:NAME`: the way it must not take"),
        key("within", Shape::Duration, "left out: 30s"),
    ],
};

pub static EXPECT: Noun = Noun {
    name: "an expectation",
    common: false,
    keys: &[
        key("exit", Shape::Int(0, 255), "exit code of the command"),
        key("stdout", Shape::Text, "text that the output holds"),
        key("stderr", Shape::Text, "text that the error output holds"),
        key("in_cidr", Shape::Cidr, "the block that every answered address is in"),
    ],
};

pub static LIMITS: Noun = Noun {
    name: "limits",
    common: false,
    keys: &[
        key("time_scale", Shape::Int(1, 100_000), "all times that are left out run so much faster"),
        key("endpoint_idle", Shape::Duration, "350s: idle flows of endpoints are forgotten"),
        later("nat_idle"),
        later("nlb_idle"),
        key("sg_tcp_idle", Shape::Duration, "5 days: tracked TCP"),
        key("sg_udp_idle", Shape::Duration, "30s: tracked UDP, one request and answer"),
        key("sg_udp_stream", Shape::Duration, "180s: tracked UDP, more than that"),
        key("dns_ttl", Shape::Duration, "60s: TTL of endpoint names"),
        key("dns_pps", Shape::Int(1, 1_000_000), "1024: packets a second and ENI to resolver and IMDS"),
        later("nat_ports"),
        key("conntrack_max", Shape::Int(1, 16_777_216), "262144: entries of the flow table"),
        key("syn_retries", Shape::Int(0, 127), "6: of the instances' kernels"),
        later("pending"),
        later("endpoint_health"),
        later("health_interval"),
    ],
};

impl Noun {
    pub fn find(&self, name: &str) -> Option<&'static Key> {
        self.all().find(|k| k.name == name)
    }

    pub fn all(&self) -> impl Iterator<Item = &'static Key> {
        let common: &'static [Key] = if self.common { COMMON } else { &[] };
        self.keys.iter().chain(common)
    }
}
