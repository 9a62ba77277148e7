//! Everything that is compiled from one plan, under one generation: never new names with old rules.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::{EniIx, FiveTuple, UnixTime};
use crate::dns::{self, Transport, Zones};
use crate::engine::{self, Program};
use crate::imds;
use crate::model::Plan;
use crate::model::credentials::CredentialBook;
use crate::model::plan::EniOwner;
use crate::stack::Port;

pub struct Tables {
    pub generation: u64,
    pub plan: Arc<Plan>,
    pub program: Arc<Program>,
    pub zones: Arc<Zones>,
    /// Replaced between generations too, when credentials are renewed.
    pub credentials: Arc<CredentialBook>,
    /// When the instances started.
    pub launched: UnixTime,
}

/// The metadata tokens of every instance, by its id: they outlive a change of the plan.
pub struct TokenBook {
    seed: u64,
    tokens: HashMap<String, imds::Tokens>,
}

impl TokenBook {
    pub fn new(seed: u64) -> TokenBook {
        TokenBook { seed, tokens: HashMap::new() }
    }

    fn of(&mut self, instance: &str) -> &mut imds::Tokens {
        self.tokens.entry(instance.to_owned()).or_insert_with(|| imds::Tokens::new(self.seed, instance))
    }
}

impl Tables {
    pub fn compile(plan: Arc<Plan>, generation: u64, credentials: Arc<CredentialBook>, launched: UnixTime) -> Tables {
        let program = Arc::new(engine::compile(&plan, generation));
        let zones = Arc::new(dns::compile(&plan));
        Tables { generation, plan, program, zones, credentials, launched }
    }

    /// Answers a DNS query of the instance behind `eni` into `out`; the answer's length, 0 for none.
    pub fn dns_udp(&self, eni: EniIx, query: &[u8], seed: u64, out: &mut [u8]) -> usize {
        self.zones.answer(self.plan.dns_view(self.plan.eni(eni).vpc()), query, seed, out, Transport::Udp)
    }

    /// Feeds a DNS-over-TCP session; how many bytes it took.
    pub fn dns_tcp(&self, eni: EniIx, session: &mut dns::Session, bytes: &[u8], seed: u64) -> usize {
        session.input(&self.zones, self.plan.dns_view(self.plan.eni(eni).vpc()), bytes, seed)
    }

    /// Feeds a session of the metadata service; how many bytes it took.
    pub fn imds(
        &self,
        eni: EniIx,
        unix: UnixTime,
        session: &mut imds::Session,
        tokens: &mut TokenBook,
        bytes: &[u8],
    ) -> usize {
        let EniOwner::Instance(instance, _) = self.plan.eni(eni).owner else { return bytes.len() };
        let view = imds::View { plan: &self.plan, instance, credentials: &self.credentials, launched: self.launched };
        session.input(bytes, unix, &view, tokens.of(&self.plan.instances[instance].common.id))
    }

    /// TTL of what the metadata service sends to the instance behind `eni`.
    pub fn hop_limit(&self, eni: EniIx) -> u8 {
        match self.plan.eni(eni).owner {
            EniOwner::Instance(instance, _) => self.plan.instances[instance].imds_hop_limit,
            _ => 1,
        }
    }

    /// The instance's ENI that a connection of `port` comes from: by its address in the port's VPC.
    pub fn eni_of(&self, port: Port, tuple: FiveTuple) -> Option<EniIx> {
        match port {
            Port::Imds(eni) | Port::Resolver(eni) => Some(eni),
            Port::Endpoint(eni) => {
                let home = self.plan.eni(eni).vpc();
                let at = self.plan.enis.iter().position(|e| e.vpc() == home && e.ip == tuple.src)?;
                u32::try_from(at).ok().map(EniIx)
            }
        }
    }
}
