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
    /// Belongs to something else: refused with these words.
    Not(&'static str),
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
    TextOrTexts,
    TextMap,
    Noun(&'static Noun),
    /// A map from the user's names.
    Named(&'static Noun),
    /// The same; of each, a list of texts does.
    NamedOrTexts(&'static Noun),
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

const fn not(name: &'static str, why: &'static str) -> Key {
    Key { name, shape: Shape::Any, state: State::Not(why), must: false, doc: why }
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
        key("peerings", Shape::Named(&PEERING), "peering connections between VPCs, by name"),
        key("transit_gateways", Shape::Named(&TRANSIT_GATEWAY), "transit gateways by name"),
        key("on_prem", Shape::Named(&SITE), "networks outside AWS, by name"),
        later("endpoint_services"),
        later("hosted_zones"),
        later("resolver"),
        key("internet", Shape::Named(&INTERNET_HOST), "hosts of the emulated Internet, by name"),
        key("roles", Shape::Named(&ROLE), "IAM roles that instances assume"),
        key("services", Shape::Named(&SERVICE), "contents and backends of services, by short name"),
        key("prefix_lists", Shape::NamedOrTexts(&PREFIX_LIST), "prefix lists for every VPC, by name: blocks, or a map"),
        key("checks", Shape::List(&CHECK), "what `vpclab test` asks"),
        key("limits", Shape::Noun(&LIMITS), "times and quotas; left out: AWS's"),
        key("latency", Shape::OneOf(&["off", "aws"]), "`aws`: typical delays of each kind of path; left out: off"),
        key("faults", Shape::List(&FAULT), "what is broken from the start"),
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
        key("internet_gateway", Shape::Bool, "left out: false"),
        key("nat_gateways", Shape::Named(&NAT_GATEWAY), "NAT gateways by name"),
        key("virtual_private_gateway", Shape::Bool, "left out: false"),
        key("subnets", Shape::Named(&SUBNET), "subnets by name"),
        key("route_tables", Shape::Named(&ROUTE_TABLE), "route tables by name"),
        key("network_acls", Shape::Named(&NETWORK_ACL), "network ACLs by name; `default` is the VPC's own"),
        key("security_groups", Shape::Named(&SECURITY_GROUP), "security groups by name; `default` is the VPC's own"),
        key("prefix_lists", Shape::NamedOrTexts(&PREFIX_LIST), "prefix lists by name: blocks, or a map"),
        key("instances", Shape::Named(&INSTANCE), "instances by name"),
        key("endpoint_defaults", Shape::Noun(&ENDPOINT_DEFAULTS), "what endpoints of this VPC leave out"),
        key("endpoints", Shape::Named(&ENDPOINT), "interface and gateway endpoints by name"),
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
        key("public_ip", Shape::Bool, "instances get a public address; left out: false"),
    ],
};

pub static ROUTE_TABLE: Noun = Noun {
    name: "a route table",
    common: true,
    keys: &[
        key("main", Shape::Bool, "subnets without a table use this one"),
        key("routes", Shape::List(&ROUTE), "beside the local routes, which every table has"),
        key("propagate", Shape::Bool, "routes of the virtual private gateway; left out: false"),
        key("edge", Shape::OneOf(&["igw", "vgw"]), "the gateway whose incoming packets it routes"),
    ],
};

pub static ROUTE: Noun = Noun {
    name: "a route",
    common: false,
    keys: &[
        must("to", Shape::Text, "destination: an IPv4 block, or `pl:NAME`"),
        must("via", Shape::Text, "`igw`, `nat:N`, `peering:N`, `tgw:N`, `vgw`, `instance:N`, `eni:N` or `blackhole`"),
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
        key("from", Shape::Text, "an IPv4 block, `sg:NAME`, `pl:NAME` or `self`, for ingress"),
        key("to", Shape::Text, "an IPv4 block, `sg:NAME`, `pl:NAME` or `self`, for egress"),
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
        key("public_ip", Shape::Text, "`true`, `false`, or `eip:NAME`; left out: as the subnet says"),
        key("security_groups", Shape::Texts, "left out: the VPC's `default` group"),
        key("role", Shape::Text, "the role whose credentials its IMDS hands out"),
        key("source_dest_check", Shape::Bool, "left out: true"),
        key("count", Shape::Int(1, 1_000), "so many instances: NAME-1, NAME-2 ..."),
        key("listen", Shape::List(&LISTEN), "small servers in the instance"),
        key("run", Shape::ListOrTexts(&RUN), "commands for `sh -c`, started with the lab"),
        key("names", Shape::Texts, "names on the public side that point to it"),
        key("mtu", Shape::Int(576, 9_001), "bytes; left out: 9001"),
        key("imds", Shape::Noun(&IMDS), "the instance metadata service"),
        key("user_data", Shape::Text, "handed out by IMDS"),
        key("impair", Shape::Noun(&IMPAIR), "delay, loss and rate of its interfaces"),
        key("env", Shape::TextMap, "variables that exec, shell and run set"),
        key("forward", Shape::OneOf(&["true", "masquerade", "stateful", "false"]), "it forwards what is not for it"),
        key("tracking", Shape::Noun(&TRACKING), "idle times of connection tracking at its interfaces"),
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
        key("delay", Shape::Duration, "it answers so long after it was asked"),
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
        key("type", Shape::OneOf(&["interface", "gateway"]), "interface (if left out) or gateway"),
        key("subnets", Shape::SubnetsOrAddresses, "at most one in a zone; a map gives fixed addresses"),
        key("security_groups", Shape::Texts, "left out: the VPC's `default` group"),
        key("route_tables", Shape::Texts, "of a gateway endpoint: each gets a route to the service"),
        key("private_dns", Shape::Text, "left out: true where the service has a private name"),
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
        key("type", Shape::OneOf(&["interface", "gateway"]), "interface (if left out) or gateway"),
        key("subnets", Shape::Texts, "at most one in a zone"),
        key("security_groups", Shape::Texts, "left out: the VPC's `default` group"),
        key("route_tables", Shape::Texts, "of a gateway endpoint: each gets a route to the service"),
        key("private_dns", Shape::Text, "left out: true where the service has a private name"),
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
        key(
            "prefixes",
            Shape::Cidrs,
            "blocks of its managed prefix list in the topology's region, for its public addresses",
        ),
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
        key(
            "via",
            Shape::Text,
            "the way it must take: `endpoint:N`, `nat:N`, `peering:N`, `tgw:N`, `instance:N`, `site:N`, `igw`, `vgw`, `vpn`, `private`, `nat`, `internet` or `gateway-endpoint`",
        ),
        key("not_via", Shape::Text, "the way it must not take, as in `via`"),
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
        key("nat_idle", Shape::Duration, "350s: idle connections through NAT gateways are forgotten"),
        later("nlb_idle"),
        key("sg_tcp_idle", Shape::Duration, "5 days: tracked TCP"),
        key("sg_udp_idle", Shape::Duration, "30s: tracked UDP, one request and answer"),
        key("sg_udp_stream", Shape::Duration, "180s: tracked UDP, more than that"),
        key("dns_ttl", Shape::Duration, "60s: TTL of endpoint names"),
        key("dns_pps", Shape::Int(1, 1_000_000), "1024: packets a second and ENI to resolver and IMDS"),
        key("nat_ports", Shape::Int(1, 64_512), "55000: connections per NAT address and destination"),
        key("egress_fragments", Shape::Int(1, 1_000_000), "1024: fragments a second that an ENI sends"),
        key("conntrack_max", Shape::Int(1, 16_777_216), "262144: connections that an instance tracks at a time"),
        key("syn_retries", Shape::Int(0, 127), "6: of the instances' kernels"),
        later("pending"),
        key("endpoint_health", Shape::Duration, "30s: until DNS leaves out an endpoint's ENI that has failed"),
        later("health_interval"),
    ],
};

pub static NAT_GATEWAY: Noun = Noun {
    name: "a NAT gateway",
    common: true,
    keys: &[
        must("subnet", Shape::Text, "where it stands; its route table leads on"),
        key("public", Shape::Bool, "left out: true; a private one keeps its private address"),
        key("eip", Shape::TextOrTexts, "name of its Elastic IP, or a list of up to 8; left out: one of its own"),
    ],
};

pub static PREFIX_LIST: Noun = Noun {
    name: "a prefix list",
    common: true,
    keys: &[
        must("entries", Shape::Texts, "IPv4 blocks"),
        key("max_entries", Shape::Int(1, 1_000), "as how many rules or routes it counts; left out: its entries"),
    ],
};

pub static PEERING: Noun = Noun {
    name: "a peering",
    common: true,
    keys: &[
        must("requester", Shape::Text, "a VPC"),
        must("accepter", Shape::Text, "another VPC, whose blocks do not overlap"),
        key("dns", Shape::Bool, "public host names of the peer resolve to private addresses; left out: false"),
    ],
};

pub static TRANSIT_GATEWAY: Noun = Noun {
    name: "a transit gateway",
    common: true,
    keys: &[
        key("region", Shape::Text, "left out: the topology's"),
        key("account", Shape::Text, "name or 12 digits"),
        key("pmtud", Shape::Bool, "too large packets are answered with ICMP; left out: true"),
        key("attachments", Shape::Named(&TGW_ATTACHMENT), "attachments by name"),
        key("route_tables", Shape::Named(&TGW_ROUTE_TABLE), "left out: one table, all associated and propagated"),
    ],
};

pub static TGW_ATTACHMENT: Noun = Noun {
    name: "an attachment",
    common: true,
    keys: &[
        key("vpc", Shape::Text, "a VPC"),
        key("subnets", Shape::Texts, "one in each zone from which it is to be reached"),
        key("appliance_mode", Shape::Bool, "both directions of a flow use one zone; left out: false"),
        key("security_group_referencing", Shape::Bool, "left out: false"),
        key("vpn", Shape::Text, "the site whose VPN ends here"),
        key("direct_connect", Shape::Text, "the site whose transit virtual interface ends here"),
    ],
};

pub static TGW_ROUTE_TABLE: Noun = Noun {
    name: "a transit gateway route table",
    common: true,
    keys: &[
        key("associate", Shape::Texts, "attachments whose packets it routes"),
        key("propagate", Shape::Texts, "attachments whose blocks it knows"),
        key("routes", Shape::List(&TGW_ROUTE), "static routes"),
    ],
};

pub static TGW_ROUTE: Noun = Noun {
    name: "a route",
    common: false,
    keys: &[
        must("to", Shape::Cidr, "destination: an IPv4 block"),
        must("via", Shape::Text, "an attachment, or `blackhole`"),
        key("description", Shape::Text, "shown in reports"),
    ],
};

pub static SITE: Noun = Noun {
    name: "a site",
    common: true,
    keys: &[
        must("cidr", Shape::Cidrs, "its blocks, primary first; the router has the first address"),
        key("hosts", Shape::Named(&SITE_HOST), "hosts by name"),
        key("vpn", Shape::Noun(&VPN), "a Site-to-Site VPN"),
        key("direct_connect", Shape::Noun(&DIRECT_CONNECT), "a virtual interface"),
        key("routes", Shape::List(&SITE_ROUTE), "written routes of its router, beside those it learns"),
    ],
};

pub static SITE_ROUTE: Noun = Noun {
    name: "a route",
    common: false,
    keys: &[
        must("to", Shape::Cidr, "destination: an IPv4 block"),
        must("via", Shape::OneOf(&["vpn", "direct_connect", "blackhole"]), "vpn, direct_connect or blackhole"),
        key("description", Shape::Text, "shown in reports"),
    ],
};

pub static VPN: Noun = Noun {
    name: "a VPN",
    common: true,
    keys: &[
        must("to", Shape::Text, "`tgw:NAME` or `vgw:VPC`"),
        key("tunnels", Shape::Any, "how many (2 if left out), or a list of maps"),
        key("routing", Shape::Any, "bgp (if left out), static, or a list of the site's blocks: static routes"),
        key("mtu", Shape::Int(576, 1_500), "largest packet inside a tunnel, bytes; left out: 1446"),
        key("mss", Shape::Text, "TCP's MSS is lowered to this; `false`: untouched; left out: 40 less than the MTU"),
        key(
            "stateful",
            Shape::Bool,
            "the site's firewall keeps its sessions per tunnel: answers by the other are dropped",
        ),
    ],
};

pub static TUNNEL: Noun = Noun {
    name: "a tunnel",
    common: false,
    keys: &[
        key("mtu", Shape::Int(576, 1_500), "left out: the VPN's"),
        key("mss", Shape::Text, "left out: the VPN's"),
        key("preferred_by_site", Shape::Bool, "the site sends by it while it is up"),
        key("preferred_by_aws", Shape::Bool, "AWS sends by it while it is up"),
    ],
};

pub static DIRECT_CONNECT: Noun = Noun {
    name: "a Direct Connect interface",
    common: true,
    keys: &[
        must("to", Shape::Text, "`tgw:NAME` or `vgw:VPC`"),
        key("vif", Shape::OneOf(&["private", "transit"]), "private to a VPC, transit to a transit gateway"),
        key("mtu", Shape::Int(1_500, 9_001), "1500, or 9001 (private), or 8500 (transit); left out: 1500"),
    ],
};

pub static SITE_HOST: Noun = Noun {
    name: "a host",
    common: true,
    keys: &[
        key("ip", Shape::Ip, "left out: the lowest free address from .10 on"),
        key("listen", Shape::List(&LISTEN), "small servers on the host"),
        key("run", Shape::ListOrTexts(&RUN), "commands for `sh -c`, started with the lab"),
        key("mtu", Shape::Int(576, 9_001), "bytes; left out: 1500"),
        key("impair", Shape::Noun(&IMPAIR), "delay, loss and rate of its interface"),
        key("env", Shape::TextMap, "variables that exec, shell and run set"),
        key("forward", Shape::OneOf(&["true", "masquerade", "stateful", "false"]), "it forwards what is not for it"),
        only("dns_server", &["false"], "no DNS server of ours runs on it"),
        not("subnet", "a host on premises is in no subnet: its address is in the site's `cidr`"),
        not("enis", "a host on premises has one interface, with `ip`"),
        not("security_groups", "security groups are of VPCs: nothing is filtered at a host on premises"),
        not("role", "roles are of instances: a host on premises has no metadata service to get credentials from"),
        not("imds", "a host on premises has no metadata service"),
        not("user_data", "a host on premises has no metadata service"),
        not("public_ip", "a host on premises has no public address"),
        not("names", "no public name leads to a host on premises"),
        not("count", "hosts on premises are written one by one"),
    ],
};

pub static INTERNET_HOST: Noun = Noun {
    name: "a host of the Internet",
    common: true,
    keys: &[
        key("ip", Shape::Ip, "of 192.0.2.0/24 or 198.51.100.0/24; left out: a free one"),
        key("names", Shape::Texts, "public names that lead to it"),
        key("listen", Shape::List(&LISTEN), "small servers on the host"),
        key("run", Shape::ListOrTexts(&RUN), "commands for `sh -c`, started with the lab"),
        key("impair", Shape::Noun(&IMPAIR), "delay, loss and rate of its interface"),
        key("env", Shape::TextMap, "variables that exec, shell and run set"),
    ],
};

pub static IMPAIR: Noun = Noun {
    name: "an impairment",
    common: false,
    keys: &[
        key("delay", Shape::Duration, "added to each packet, in each direction"),
        key("jitter", Shape::Duration, "added too, up to this much"),
        key("loss", Shape::Text, "share of packets lost: `1%`"),
        key("rate", Shape::Text, "bits a second: `10mbit`"),
        key("down", Shape::Bool, "nothing passes"),
        key("seed", Shape::Int(0, i64::MAX), "so that a run can be repeated"),
    ],
};

pub static TRACKING: Noun = Noun {
    name: "connection tracking",
    common: false,
    keys: &[
        key("tcp_idle", Shape::Duration, "60s to 5 days"),
        key("udp_idle", Shape::Duration, "30s to 60s"),
        key("udp_stream", Shape::Duration, "60s to 180s"),
        key("nitro", Shape::Int(1, 9), "6: tcp_idle is 350s"),
    ],
};

pub static FAULT: Noun = Noun {
    name: "a fault",
    common: false,
    keys: &[
        key("az", Shape::Text, "a zone letter, name or id; beside `endpoint`: of that endpoint"),
        key("endpoint", Shape::Text, "an interface endpoint, whole or in one zone"),
        key("tunnel", Shape::Text, "`SITE/1` or `SITE/2`"),
        key("target", Shape::Text, "an instance"),
        key("instance", Shape::Text, "an instance"),
        key("link", Shape::Text, "an instance whose interfaces are impaired"),
        key("delay", Shape::Duration, "of `link`"),
        key("jitter", Shape::Duration, "of `link`"),
        key("loss", Shape::Text, "of `link`"),
        key("rate", Shape::Text, "of `link`"),
        key("down", Shape::Bool, "of `link`"),
        key("seed", Shape::Int(0, i64::MAX), "of `link`"),
        key("after", Shape::Duration, "from the start; left out: at once"),
        key("for", Shape::Duration, "left out: until it is cleared"),
    ],
};

impl Key {
    /// Taken by this version, with all or some values.
    pub fn usable(&self) -> bool {
        !matches!(self.state, State::Later | State::Not(_))
    }
}

impl Noun {
    pub fn find(&self, name: &str) -> Option<&'static Key> {
        self.all().find(|k| k.name == name)
    }

    pub fn all(&self) -> impl Iterator<Item = &'static Key> {
        let common: &'static [Key] = if self.common { COMMON } else { &[] };
        self.keys.iter().chain(common)
    }
}
