//! What a running lab answers: snapshots of the router thread's state, put into words by `control`.

use std::os::fd::OwnedFd;

use super::change;
use super::gateways;
use super::node::{self, Shared};
use super::router::RouterGone;
use super::state::State;
use crate::base::counters::WAYS;
use crate::base::{Clock, EniIx};
use crate::control::api::{
    Counters, DropRow, ExecInfo, ExplainAsk, Filter, FlowRow, Ps, PsEndpoint, PsEni, PsInstance, Reply, Request,
    RequestRow,
};
use crate::control::dropped;
use crate::control::explain::{self, Facts};
use crate::control::rows;
use crate::control::states;
use crate::control::store::Accepted;
use crate::engine::{FlowSnapshot, Way};
use crate::model::catalogue::PUBLIC_RESOLVER;
use crate::model::plan::{EniOwner, VpcPlan};
use crate::model::{Plan, latency};

/// Answers everything but `Exec`, whose answer carries descriptors.
pub fn answer(shared: &Shared, request: Request) -> Reply {
    let answered = match request {
        Request::Ping => Ok(Reply::Pong { lab: shared.state().plan.name.clone(), pid: std::process::id() }),
        Request::Ps => ps(shared),
        Request::Flows(filter) => flows(shared, &filter).map(Reply::Flows),
        Request::Drops(filter) => drops(shared, &filter).map(Reply::Drops),
        Request::Requests(filter) => Ok(Reply::Requests(requests(shared, &filter))),
        Request::Explain(ask) => explain(shared, &ask),
        Request::Dns { instance, name, rtype } => dns_answer(shared, &instance, &name, &rtype),
        Request::Names { endpoint, zone, kind } => names(shared, endpoint.as_deref(), zone, kind.as_deref()),
        Request::Exec { .. } => Err(input("exec is asked for alone")),
        Request::Capture(_) | Request::Trace(_) => Err(input("streams are asked for alone")),
        Request::Logs { instance } => {
            let state = shared.state();
            find_instance(&state.plan, &instance).map(|at| Reply::Logs(state.logs[at].lines()))
        }
        Request::Source => Ok(Reply::Source(Accepted::clone(&shared.state().accepted))),
        Request::Gauges => Ok(Reply::Gauges(shared.router.gauges())),
        Request::Apply { accepted, patches, dry_run } => change::apply(shared, *accepted, patches, dry_run),
        Request::Fault { words, after_ms, for_ms } => {
            let time = |ms: Option<u64>| ms.map(std::time::Duration::from_millis);
            change::fault(shared, &words, time(after_ms), time(for_ms))
        }
        Request::Faults => Ok(change::faults(shared)),
        Request::ClearFaults { id } => change::clear_faults(shared, id),
        // The server ends the lab when this is sent.
        Request::Down => Ok(Reply::Done),
    };
    answered.unwrap_or_else(|refused| Reply::Failed { message: refused.message, exit: refused.exit })
}

/// Descriptors for a process that becomes a part of the instance.
pub fn exec(shared: &Shared, instance: &str) -> (Reply, Vec<OwnedFd>) {
    let state = shared.state();
    let made = find_instance(&state.plan, instance).and_then(|at| {
        let failed = |e: std::io::Error| Refused { message: e.to_string(), exit: 3 };
        let mut fds = vec![state.instances[at].netns.try_clone().map_err(failed)?];
        if let Some(user) = &shared.keeper_info.user_namespace {
            fds.push(user.try_clone().map_err(failed)?);
        }
        Ok((Reply::Exec(exec_info(shared, &state, at)), fds))
    });
    made.unwrap_or_else(|refused| (Reply::Failed { message: refused.message, exit: refused.exit }, Vec::new()))
}

/// Why there is no answer, and the exit code that a verb should end with.
pub struct Refused {
    pub message: String,
    pub exit: u8,
}

impl From<RouterGone> for Refused {
    fn from(gone: RouterGone) -> Refused {
        Refused { message: gone.to_string(), exit: 3 }
    }
}

/// Bad input.
pub fn input(message: impl Into<String>) -> Refused {
    Refused { message: message.into(), exit: 2 }
}

fn find_instance(plan: &Plan, name: &str) -> Result<usize, Refused> {
    plan.instance_named(name).map_err(input)
}

fn exec_info(shared: &Shared, state: &State, at: usize) -> ExecInfo {
    let plan = &state.plan;
    let instance = &plan.instances[at];
    let vpc = instance.vpc().map(|vpc| &plan.vpcs[vpc]);
    let ip = instance.enis.first().map(|&eni| plan.eni(eni).ip);
    ExecInfo {
        netns_name: state.netns_name(at),
        path: instance.common.path.clone(),
        instance_id: instance.common.id.clone(),
        region: plan.region_of(instance).to_owned(),
        resolver: Some(vpc.map_or(PUBLIC_RESOLVER, VpcPlan::resolver)),
        search: vpc.map(VpcPlan::internal_domain).unwrap_or_default(),
        hostname: ip.map(node::hostname).unwrap_or_default(),
        hosts: node::hosts(plan, instance),
        env: instance.env.clone(),
        files: shared.files_of(&instance.common.path).display().to_string(),
        ca_pem: shared.ca_pem.clone(),
        ca_path: shared.ca_bundle().display().to_string(),
        run_dir: shared.run_dir.display().to_string(),
        user_namespace: shared.keeper_info.user_namespace.is_some(),
    }
}

fn ps(shared: &Shared) -> Result<Reply, Refused> {
    let (state, counters, ways, nats, flows) = shared.router.call(|inside| {
        let count = inside.tables.plan.enis.len();
        let counters: Vec<Counters> = (0..count)
            .map(|at| {
                let c = &inside.engine.counters().enis[at];
                Counters {
                    packets_in: c.packets_in.get(),
                    bytes_in: c.bytes_in.get(),
                    packets_out: c.packets_out.get(),
                    bytes_out: c.bytes_out.get(),
                    drops: c.dropped.get(),
                }
            })
            .collect();
        let ways: Vec<[u64; WAYS]> =
            (0..count).map(|at| inside.engine.counters().enis[at].ways.each_ref().map(|way| way.get())).collect();
        let flows = inside.engine.flows().collect::<Vec<_>>();
        (inside.tables.state.clone(), counters, ways, gateways::nat_metrics(inside.engine), flows)
    })?;
    let plan = &state.plan;
    let instances = plan.instances.iter().zip(&state.instances).enumerate().map(|(at, (i, made))| {
        let mut sum = Counters::default();
        for eni in &i.enis {
            let c = counters[eni.at()];
            sum.packets_in += c.packets_in;
            sum.bytes_in += c.bytes_in;
            sum.packets_out += c.packets_out;
            sum.bytes_out += c.bytes_out;
            sum.drops += c.drops;
        }
        let subnet = i.enis.first().and_then(|&eni| plan.subnet_of(eni));
        PsInstance {
            name: i.common.name.clone(),
            path: i.common.path.clone(),
            id: i.common.id.clone(),
            subnet: subnet.map(|s| s.common.name.clone()).unwrap_or_default(),
            az: subnet.map(|s| s.az.to_string()).unwrap_or_default(),
            ips: i.enis.iter().map(|&eni| plan.eni(eni).ip).collect(),
            public_ips: {
                let own = plan.public_addresses.iter().filter(|public| i.enis.contains(&public.eni));
                own.map(|public| public.addr).collect()
            },
            state: states::of_instance(plan, at),
            netns: Some(made.netns_path.display().to_string()),
            pid: Some(shared.keeper_info.pid),
            netns_fd: None,
            counters: sum,
            role: i.role.map(|r| plan.roles[r].common.name.clone()),
            ways: Way::ALL
                .into_iter()
                .map(|way| (way.as_str().to_owned(), i.enis.iter().map(|eni| ways[eni.at()][way as usize]).sum()))
                .filter(|(way, bytes)| *bytes > 0 || way == Way::Private.as_str())
                .collect(),
        }
    });
    let doors = plan.endpoints.iter().enumerate().filter(|(_, e)| !e.is_gateway());
    let endpoints = doors.map(|(at, e)| {
        let service = &plan.services[e.service];
        let is_here = |eni: EniIx| plan.eni(eni).owner == EniOwner::Endpoint(at);
        PsEndpoint {
            name: e.common.name.clone(),
            path: e.common.path.clone(),
            id: e.common.id.clone(),
            service: service.full_name.clone(),
            private_dns: e.private_dns,
            backend: service.backend.url().unwrap_or_else(|| "builtin".into()),
            enis: e
                .enis
                .iter()
                .map(|&ix| {
                    let eni = plan.eni(ix);
                    let subnet = plan.subnet_of(ix);
                    PsEni {
                        id: eni.common.id.clone(),
                        ip: eni.ip,
                        subnet: subnet.map(|s| s.common.name.clone()).unwrap_or_default(),
                        az: subnet.map(|s| s.az.to_string()).unwrap_or_default(),
                        state: states::of_eni(plan, ix).to_owned(),
                        counters: counters[ix.at()],
                    }
                })
                .collect(),
            conns: flows.iter().filter(|f| is_here(f.target)).count() as u64,
        }
    });
    Ok(Reply::Ps(Ps {
        lab: plan.name.clone(),
        region: plan.region.clone(),
        instances: instances.collect(),
        endpoints: endpoints.collect(),
        gateways: gateways::rows(plan, &nats, &counters),
        router_pid: std::process::id(),
        up_ms: shared.clock.now().since(shared.since).as_millis() as u64,
        limits: plan.limits.beside_aws().into_iter().map(|(name, here, aws)| (name.to_owned(), here, aws)).collect(),
        latency: latency::note(plan).map(str::to_owned),
    }))
}

fn now_ms(shared: &Shared) -> u64 {
    shared.clock.unix_ms(shared.clock.now())
}

fn drops(shared: &Shared, filter: &Filter) -> Result<Vec<DropRow>, Refused> {
    let history = shared.drops();
    let (plan, records) = shared
        .router
        .call(|inside| (inside.tables.plan.clone(), inside.engine.drops().cloned().collect::<Vec<_>>()))?;
    let is_new = |word: &Option<String>| word.clone().filter(|word| !history.knows(word));
    check(&plan, &Filter { from: is_new(&filter.from), to: is_new(&filter.to), ..filter.clone() })?;
    let told = dropped::tell(&plan, &records, &|at| shared.clock.unix_ms(at));
    Ok(history.rows(told, filter, now_ms(shared)))
}

fn check(plan: &Plan, filter: &Filter) -> Result<(), Refused> {
    if filter.again { Ok(()) } else { rows::check_filter(plan, filter).map_err(input) }
}

fn flows(shared: &Shared, filter: &Filter) -> Result<Vec<FlowRow>, Refused> {
    let (plan, open, closed) = shared.router.call(|inside| {
        let closed: Vec<FlowSnapshot> = inside.closed.iter().map(|c| c.flow.clone()).collect();
        (inside.tables.plan.clone(), inside.engine.flows().collect::<Vec<_>>(), closed)
    })?;
    let (plan, now) = (&*plan, now_ms(shared));
    check(plan, filter)?;
    let rows = closed
        .iter()
        .map(|f| (f, true))
        .chain(open.iter().map(|f| (f, false)))
        .map(|(flow, ended)| rows::flow_row(plan, flow, ended, &|at| shared.clock.unix_ms(at)));
    Ok(rows.filter(|row| rows::flow_passes(plan, filter, row, now)).collect())
}

fn requests(shared: &Shared, filter: &Filter) -> Vec<RequestRow> {
    let (state, now) = (shared.state(), now_ms(shared));
    let plan = &*state.plan;
    let events = shared.services.events().recent();
    let rows = events.iter().map(|e| RequestRow {
        time_ms: e.time.0.saturating_mul(1_000),
        endpoint: e.endpoint.clone(),
        gate: e.gate.as_str().to_owned(),
        client: e.client.to_string(),
        principal: e.principal.clone().unwrap_or_else(|| "anonymous".into()),
        action: e.action.clone(),
        resource: e.resource.clone(),
        status: e.status,
        decision: format!("{:?}", e.decision),
    });
    rows.filter(|row| {
        let vpc = plan.endpoints.iter().find(|e| e.common.path == row.endpoint).map(|e| e.vpc);
        let host = row.client.rsplit_once(':').map_or(row.client.as_str(), |(host, _)| host);
        let label = host.parse().map_or_else(|_| host.to_owned(), |addr| rows::label_of_addr(plan, vpc, addr));
        filter.from.as_deref().is_none_or(|w| rows::names_end(plan, w, &label, &row.client))
            && filter.to.as_deref().is_none_or(|w| {
                let word = w.strip_prefix("endpoint:").unwrap_or(w);
                row.endpoint == word || row.endpoint.rsplit_once('.').is_some_and(|(_, name)| name == word)
            })
            && filter.since_ms.is_none_or(|ms| row.time_ms.saturating_add(ms) >= now)
    })
    .collect()
}

fn explain(shared: &Shared, ask: &ExplainAsk) -> Result<Reply, Refused> {
    let (plan, zones, engine) = shared
        .router
        .call(|inside| (inside.tables.plan.clone(), inside.tables.zones.clone(), inside.engine.probe(0)))?;
    let facts = Facts { plan: &plan, zones: &zones, leaf_names: &crate::services::ca::leaf_names };
    let told = explain::answer(&facts, engine, ask).map_err(input)?;
    Ok(Reply::Explained { text: told.text(), json: told.json(), reachable: told.reachable })
}

fn dns_answer(shared: &Shared, instance: &str, name: &str, rtype: &str) -> Result<Reply, Refused> {
    let (plan, zones) = shared.router.call(|inside| (inside.tables.plan.clone(), inside.tables.zones.clone()))?;
    let view = plan.dns_view(plan.instances[find_instance(&plan, instance)?].vpc());
    rows::dns_answer(&zones, view, name, rtype).map(Reply::Dns).map_err(input)
}

fn names(shared: &Shared, endpoint: Option<&str>, zone: Option<char>, kind: Option<&str>) -> Result<Reply, Refused> {
    let state = shared.state();
    let plan = &*state.plan;
    let chosen: Vec<usize> = match endpoint {
        None => (0..plan.endpoints.len()).collect(),
        Some(name) => vec![plan.endpoint_named(name).map_err(input)?],
    };
    Ok(Reply::Names(rows::name_rows(plan, &chosen, zone, kind)))
}
