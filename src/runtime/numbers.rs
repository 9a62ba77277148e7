//! The router's own numbers of interfaces. Indices of a plan move when it changes; what outlives a plan (connections of
//! the stack, the poller's tokens) is named by a number that is never given twice.

use std::collections::HashMap;

use crate::base::EniIx;
use crate::model::Plan;

/// From a plan's indices to numbers and back. A number has the type of an index, because that is what [`crate::stack`]
/// names its ports by; [`Numbers::of`] and [`Numbers::eni`] are the only ways between the two.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// By index in the plan.
    of: Vec<EniIx>,
    /// By number.
    enis: Vec<Option<EniIx>>,
}

impl Numbers {
    /// Of a lab's first plan.
    pub fn new(plan: &Plan) -> Numbers {
        let of: Vec<EniIx> = (0..plan.enis.len()).map(|at| EniIx(at as u32)).collect();
        Numbers { enis: of.iter().copied().map(Some).collect(), of }
    }

    /// Of the plan that follows. Interfaces are recognised by their AWS id; `fresh` says of which (by its index in `new`)
    /// nothing may be carried over all the same, because another kernel is behind it.
    pub fn next(&self, old: &Plan, new: &Plan, fresh: impl Fn(EniIx) -> bool) -> Numbers {
        let known: HashMap<&str, EniIx> =
            old.enis.iter().zip(&self.of).map(|(e, n)| (e.common.id.as_str(), *n)).collect();
        let mut enis = vec![None; self.enis.len()];
        let mut of = Vec::with_capacity(new.enis.len());
        for (at, eni) in new.enis.iter().enumerate() {
            let ix = EniIx(at as u32);
            let kept = known.get(eni.common.id.as_str()).copied().filter(|_| !fresh(ix));
            let number = kept.unwrap_or_else(|| {
                enis.push(None);
                EniIx(enis.len() as u32 - 1)
            });
            enis[number.at()] = Some(ix);
            of.push(number);
        }
        Numbers { of, enis }
    }

    /// The number of an interface of the plan.
    #[inline]
    pub fn of(&self, eni: EniIx) -> EniIx {
        self.of.get(eni.at()).copied().unwrap_or(EniIx(u32::MAX))
    }

    /// The interface that has this number; `None` once it is gone.
    #[inline]
    pub fn eni(&self, number: EniIx) -> Option<EniIx> {
        self.enis.get(number.at()).copied().flatten()
    }

    /// Numbers that stand for something here and for nothing in `next`.
    pub fn gone<'a>(&'a self, next: &'a Numbers) -> impl Iterator<Item = EniIx> + 'a {
        self.of.iter().copied().filter(|number| next.eni(*number).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::{Common, EniOwner, EniPlan, Home};

    fn plan(ids: &[&str]) -> Plan {
        let eni = |id: &&str| EniPlan {
            common: Common { id: (*id).to_owned(), ..Common::default() },
            home: Home::Internet,
            ip: [192, 0, 2, 1].into(),
            mac: [2, 0, 0, 0, 0, 1],
            security_groups: vec![],
            source_dest_check: true,
            owner: EniOwner::PublicSide,
        };
        Plan { enis: ids.iter().map(eni).collect(), ..Plan::default() }
    }

    #[test]
    fn numbers_stay_while_indices_move_and_are_never_given_twice() {
        let (first, second, third) = (plan(&["a", "b", "c"]), plan(&["c", "x", "a"]), plan(&["b", "a", "c"]));
        let one = Numbers::new(&first);
        let two = one.next(&first, &second, |_| false);
        assert_eq!(two.of(EniIx(0)), EniIx(2), "c");
        assert_eq!(two.of(EniIx(1)), EniIx(3), "x is new");
        assert_eq!(two.of(EniIx(2)), EniIx(0), "a");
        assert_eq!(two.eni(EniIx(1)), None, "b is gone");
        assert_eq!(one.gone(&two).collect::<Vec<_>>(), [EniIx(1)]);

        let three = two.next(&second, &third, |ix| ix == EniIx(1));
        assert_eq!(three.of(EniIx(0)), EniIx(4), "b is back, as another");
        assert_eq!(three.of(EniIx(1)), EniIx(5), "a has a new kernel");
        assert_eq!(three.of(EniIx(2)), EniIx(2), "c all the time");
        assert_eq!(two.gone(&three).collect::<Vec<_>>(), [EniIx(3), EniIx(0)]);
        assert_eq!(three.eni(EniIx(9)), None);
    }
}
