//! The questions a packet is asked, one file each: functions of the program and the packet, without state.

pub(super) mod admit;
pub(super) mod deliver;
pub(super) mod nacl;
pub(super) mod route;
pub(super) mod sg;

use super::verdict::{Decider, Direction, DropCode, Reaction};

/// A packet ends here, and this is why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: DropCode,
    pub(super) decider: Decider,
    pub(super) direction: Direction,
    /// What the sender is told, where AWS tells it something.
    pub(super) reaction: Option<Reaction>,
}

impl Refusal {
    pub(super) const fn egress(code: DropCode, decider: Decider) -> Refusal {
        Refusal { code, decider, direction: Direction::Egress, reaction: None }
    }

    pub(super) const fn answered(self, reaction: Reaction) -> Refusal {
        Refusal { reaction: Some(reaction), ..self }
    }

    pub(super) const fn ingress(code: DropCode, decider: Decider) -> Refusal {
        Refusal { code, decider, direction: Direction::Ingress, reaction: None }
    }
}
