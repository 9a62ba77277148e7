//! A plan made by hand: VPC `app` in eu-west-1 with two zones, endpoints for S3, SQS and ECR, and a second VPC `other`
//! without DNS hostnames. The file that includes this one has `base` and `model` in scope.

use super::base::EniIx;
use super::base::ids::aws_id;
use super::model::Plan;
use super::model::plan::*;

pub const WEB: usize = 0;
pub const GUEST: usize = 1;
pub const APP: usize = 0;
pub const OTHER: usize = 1;
pub const S3: usize = 0;
pub const SQS: usize = 1;
pub const ECR: usize = 2;

pub fn plan() -> Plan {
    let mut plan = Plan {
        name: "lab".into(),
        region: "eu-west-1".into(),
        default_account: "123456789012".into(),
        ..Plan::default()
    };
    for (name, cidr, hostnames) in [("app", "10.0.0.0/16", true), ("other", "100.64.0.0/16", false)] {
        plan.vpcs.push(VpcPlan {
            common: common("vpc", name, name),
            cidrs: vec![cidr.parse().expect("block")],
            region: "eu-west-1".into(),
            account: "123456789012".into(),
            dns_support: true,
            dns_hostnames: hostnames,
            main_route_table: 0,
            default_nacl: 0,
            default_security_group: 0,
        });
    }
    plan.security_groups.push(SecurityGroupPlan {
        common: common("sg", "app", "app.app"),
        vpc: APP,
        ingress: Vec::new(),
        egress: Vec::new(),
    });
    for (vpc, cidr, az) in [(APP, "10.0.1.0/24", 'a'), (APP, "10.0.2.0/24", 'b'), (OTHER, "100.64.1.0/24", 'a')] {
        let name = format!("private-{az}");
        plan.subnets.push(SubnetPlan {
            common: common("subnet", &name, &format!("{}.{name}", plan.vpcs[vpc].common.name)),
            vpc,
            cidr: cidr.parse().expect("block"),
            az,
            az_name: format!("eu-west-1{az}"),
            az_id: format!("euw1-az{}", az as u8 - b'a' + 1),
            route_table: 0,
            nacl: 0,
        });
    }
    plan.roles.push(RolePlan {
        common: common("role", "web-role", "web-role"),
        account: "123456789012".into(),
        policy: Policy::Full,
    });
    for (at, (name, subnet, ip, role)) in
        [("web", 0, "10.0.1.10", Some(0)), ("guest", 1, "10.0.2.10", None), ("far", 2, "100.64.1.10", None)]
            .into_iter()
            .enumerate()
    {
        let vpc = plan.subnets[subnet].vpc;
        let eni = add_eni(&mut plan, name, subnet, ip, EniOwner::Instance(at, 0));
        let path = format!("{}.{name}", plan.vpcs[vpc].common.name);
        plan.instances.push(InstancePlan {
            role,
            imds_v2_required: name == "web",
            user_data: (name == "web").then(|| "#!/bin/sh\necho hello\n".to_owned()),
            ..InstancePlan::new(common("i", name, &path), InstanceHome::Vpc(vpc), vec![eni])
        });
    }
    let zone = |apex: &str, at_apex, wildcard| PrivateZone { apex: apex.to_owned(), at_apex, wildcard };
    let s3 = ["s3", "s3-control", "s3-accesspoint"];
    let s3 = s3.map(|label| zone(&format!("{label}.eu-west-1.amazonaws.com"), true, true)).to_vec();
    add_endpoint(&mut plan, "s3", "s3", [("10.0.1.20", 0), ("10.0.2.20", 1)], s3);
    let sqs = vec![zone("sqs.eu-west-1.amazonaws.com", true, false)];
    add_endpoint(&mut plan, "sqs", "sqs", [("10.0.1.21", 0), ("10.0.2.21", 1)], sqs);
    let ecr = vec![zone("dkr.ecr.eu-west-1.amazonaws.com", false, true)];
    add_endpoint(&mut plan, "ecr.dkr", "dkr.ecr", [("10.0.1.22", 0), ("10.0.2.22", 1)], ecr);
    plan
}

fn add_endpoint(plan: &mut Plan, service: &str, label: &str, enis: [(&str, usize); 2], private: Vec<PrivateZone>) {
    let at = plan.endpoints.len();
    let path = format!("app.{service}");
    let id = aws_id("vpce", "lab", &path);
    let enis: Vec<EniIx> =
        enis.iter().map(|(ip, subnet)| add_eni(plan, service, *subnet, ip, EniOwner::Endpoint(at))).collect();
    let tail = format!("{label}.eu-west-1.vpce.amazonaws.com");
    let zonal = [("eu-west-1a", enis[0]), ("eu-west-1b", enis[1])];
    plan.services.push(ServicePlan {
        name: service.into(),
        full_name: format!("com.amazonaws.eu-west-1.{service}"),
        region: "eu-west-1".into(),
        account: "123456789012".into(),
        backend: Backend::Builtin,
        ports: vec![443],
        data: None,
        contents: Contents::default(),
    });
    plan.endpoints.push(EndpointPlan {
        common: common("vpce", service, &path),
        vpc: APP,
        service: plan.services.len() - 1,
        kind: EndpointKind::Interface,
        security_groups: Vec::new(),
        private_dns: true,
        policy: Policy::Full,
        names: EndpointNames {
            regional: format!("{id}-abcd1234.{tail}"),
            zonal: zonal.map(|(az, eni)| (az.to_owned(), format!("{id}-abcd1234-{az}.{tail}"), eni)).to_vec(),
            private,
        },
        enis,
    });
}

fn add_eni(plan: &mut Plan, name: &str, subnet: usize, ip: &str, owner: EniOwner) -> EniIx {
    let at = plan.enis.len();
    plan.enis.push(EniPlan {
        common: common("eni", name, &format!("{name}@{subnet}")),
        home: Home::Subnet { vpc: plan.subnets[subnet].vpc, subnet },
        ip: ip.parse().expect("address"),
        mac: [2, 0, 0, 0, 0, at as u8],
        security_groups: vec![0],
        source_dest_check: true,
        owner,
    });
    EniIx(at as u32)
}

fn common(kind: &str, name: &str, path: &str) -> Common {
    Common { name: name.into(), path: path.into(), id: aws_id(kind, "lab", path), ..Common::default() }
}
