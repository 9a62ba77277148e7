//! Everything that is compiled from one plan, under one generation: never new names with old rules.

use std::collections::HashMap;
use std::sync::Arc;

use super::numbers::Numbers;
use super::state::State;
use crate::base::{EniIx, FiveTuple, UnixTime};
use crate::dns::{self, Transport, Zones};
use crate::engine::{self, Program};
use crate::imds;
use crate::model::Plan;
use crate::model::credentials::CredentialBook;
use crate::model::plan::EniOwner;
use crate::stack::Port;

pub struct Tables {
    pub plan: Arc<Plan>,
    pub program: Arc<Program>,
    /// Replaced between generations too, when DNS notices what has failed.
    pub zones: Arc<Zones>,
    /// Replaced between generations too, when credentials are renewed.
    pub credentials: Arc<CredentialBook>,
    pub numbers: Arc<Numbers>,
    /// Not for packets: who asks the router gets the state that its answer is of.
    pub state: Arc<State>,
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
    /// Of the plan in force. `for_names` is the plan as DNS knows it: the same, but for what has failed of late.
    pub fn compile(state: Arc<State>, for_names: &Plan, credentials: Arc<CredentialBook>) -> Tables {
        let plan = state.plan.clone();
        let program = Arc::new(engine::compile(&plan, state.generation));
        let zones = Arc::new(dns::compile(for_names));
        Tables { plan, program, zones, credentials, numbers: state.numbers.clone(), state }
    }

    /// Answers a DNS query of the instance behind `eni` into `out`; the answer's length, 0 for none.
    pub fn dns_udp(&self, eni: EniIx, query: &[u8], seed: u64, out: &mut [u8]) -> usize {
        self.zones.answer(self.plan.dns_view(self.plan.eni(eni).vpc()), query, seed, out, Transport::Udp)
    }

    /// Feeds a DNS-over-TCP session of the instance behind the ENI with this number; how many bytes it took.
    pub fn dns_tcp(&self, number: EniIx, session: &mut dns::Session, bytes: &[u8], seed: u64) -> usize {
        let Some(eni) = self.numbers.eni(number) else { return bytes.len() };
        session.input(&self.zones, self.plan.dns_view(self.plan.eni(eni).vpc()), bytes, seed)
    }

    /// Feeds a session of the metadata service, of the instance behind the ENI with this number; how many bytes it took.
    pub fn imds(
        &self,
        number: EniIx,
        unix: UnixTime,
        session: &mut imds::Session,
        tokens: &mut TokenBook,
        bytes: &[u8],
    ) -> usize {
        let Some(EniOwner::Instance(instance, _)) = self.owner(number) else { return bytes.len() };
        let launched = self.state.instances[instance].launched;
        let view = imds::View { plan: &self.plan, instance, credentials: &self.credentials, launched };
        session.input(bytes, unix, &view, tokens.of(&self.plan.instances[instance].common.id))
    }

    /// TTL of what the metadata service sends to the instance behind the ENI with this number.
    pub fn hop_limit(&self, number: EniIx) -> u8 {
        match self.owner(number) {
            Some(EniOwner::Instance(instance, _)) => self.plan.instances[instance].imds_hop_limit,
            _ => 1,
        }
    }

    /// The instance's ENI that a connection of `port` comes from: by its address in the port's VPC.
    pub fn eni_of(&self, port: Port, tuple: FiveTuple) -> Option<EniIx> {
        match port {
            Port::Imds(number) | Port::Resolver(number) => self.numbers.eni(number),
            Port::Endpoint(number) => {
                let home = self.plan.eni(self.numbers.eni(number)?).vpc();
                let at = self.plan.enis.iter().position(|e| e.vpc() == home && e.ip == tuple.src)?;
                u32::try_from(at).ok().map(EniIx)
            }
        }
    }

    fn owner(&self, number: EniIx) -> Option<EniOwner> {
        self.numbers.eni(number).map(|eni| self.plan.eni(eni).owner)
    }
}
