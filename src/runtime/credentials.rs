//! Issues the temporary credentials of roles and renews them in time, as EC2 does.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::base::{Clock, UnixTime};
use crate::model::Plan;
use crate::model::credentials::{CredentialBook, RoleCredentials};

/// Seconds that credentials are good for: EC2's six hours.
const LIFETIME: u64 = 6 * 3600;

/// Seconds before the end at which IMDS hands out new ones. EC2 makes new credentials available at least five minutes
/// before the old ones expire; SDKs begin to ask 15 minutes before.
const RENEW_BEFORE: u64 = 3600;

/// How often the book is looked at. Coarse: the laptop may have slept.
pub const LOOK_EVERY: Duration = Duration::from_secs(300);

pub type SharedBook = Arc<RwLock<Arc<CredentialBook>>>;

/// A book of fresh credentials for every instance with a role.
pub fn issue(plan: &Plan, clock: &dyn Clock) -> CredentialBook {
    let mut book = CredentialBook::default();
    renew(plan, &mut book, clock.unix());
    book
}

/// Adds new credentials where the newest are near their end, and forgets what has expired. True if something changed.
pub fn renew(plan: &Plan, book: &mut CredentialBook, now: UnixTime) -> bool {
    let before = book.entries.len();
    book.entries.retain(|(instance, c)| c.expires > now && *instance < plan.instances.len());
    let mut changed = book.entries.len() != before;
    for (at, instance) in plan.instances.iter().enumerate() {
        let Some(role) = instance.role else { continue };
        let fresh =
            book.of_instance(at).is_some_and(|c| c.role == role && c.expires.0.saturating_sub(now.0) > RENEW_BEFORE);
        if !fresh {
            let made = make(plan, role, &instance.common.id, now);
            book.entries.insert(0, (at, Arc::new(made)));
            changed = true;
        }
    }
    changed
}

/// The book of a new plan: what instances and roles that stay have been given stays good.
pub fn follow(book: &CredentialBook, old: &Plan, new: &Plan, now: UnixTime) -> CredentialBook {
    let instance = |at: usize| {
        let id = &old.instances.get(at)?.common.id;
        new.instances.iter().position(|i| i.common.id == *id)
    };
    let role = |at: usize| {
        let was = old.roles.get(at)?;
        new.roles.iter().position(|r| r.common.name == was.common.name && r.account == was.account)
    };
    let entries = book.entries.iter().filter_map(|(at, c)| {
        let role = role(c.role)?;
        Some((instance(*at)?, Arc::new(RoleCredentials { role, ..RoleCredentials::clone(c) })))
    });
    let mut next = CredentialBook { entries: entries.collect() };
    renew(new, &mut next, now);
    next
}

/// The book that is good now.
pub fn current(shared: &SharedBook) -> Arc<CredentialBook> {
    shared.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

pub fn replace(shared: &SharedBook, book: Arc<CredentialBook>) {
    *shared.write().unwrap_or_else(std::sync::PoisonError::into_inner) = book;
}

/// Random bytes of the operating system, for keys and seeds.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // It fails only before the system's generator is seeded; waiting is what the call does then.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        std::process::abort();
    }
    bytes
}

fn make(plan: &Plan, role: usize, session: &str, now: UnixTime) -> RoleCredentials {
    let role_plan = &plan.roles[role];
    RoleCredentials {
        role,
        role_name: role_plan.common.name.clone(),
        account: role_plan.account.clone(),
        session: session.to_owned(),
        access_key: format!("ASIA{}", letters(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", random::<16>())),
        secret_key: letters(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", random::<40>()),
        token: letters(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", random::<256>()),
        issued: now,
        expires: UnixTime(now.0 + LIFETIME),
    }
}

/// Lengths that divide 256, so that no letter is likelier.
fn letters<const A: usize, const N: usize>(alphabet: &[u8; A], bytes: [u8; N]) -> String {
    const { assert!(256 % A == 0) };
    bytes.iter().map(|b| char::from(alphabet[usize::from(*b) % A])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;
    use crate::model::plan::{Common, InstanceHome, InstancePlan, Policy, RolePlan};

    fn plan() -> Plan {
        let mut plan = Plan::default();
        plan.roles.push(RolePlan {
            common: Common { name: "web-role".into(), ..Common::default() },
            account: "123456789012".into(),
            policy: Policy::Full,
        });
        for (name, role) in [("web", Some(0)), ("bare", None)] {
            let common = Common { name: name.into(), id: format!("i-{name}"), ..Common::default() };
            plan.instances.push(InstancePlan { role, ..InstancePlan::new(common, InstanceHome::Vpc(0), Vec::new()) });
        }
        plan
    }

    #[test]
    fn old_and_new_credentials_overlap_and_the_newest_comes_first() {
        let (plan, clock) = (plan(), ManualClock::default());
        let mut book = issue(&plan, &clock);
        let first = book.of_instance(0).expect("a role").clone();
        assert!(book.of_instance(1).is_none());
        assert_eq!((first.access_key.len(), first.secret_key.len()), (20, 40));
        assert!(!renew(&plan, &mut book, clock.unix()), "still fresh");

        clock.advance(Duration::from_secs(LIFETIME - RENEW_BEFORE));
        assert!(renew(&plan, &mut book, clock.unix()));
        let second = book.of_instance(0).expect("a role").clone();
        assert_ne!(first.access_key, second.access_key);
        assert!(book.by_access_key(&first.access_key).is_some(), "good until its end");

        clock.advance(Duration::from_secs(RENEW_BEFORE));
        assert!(renew(&plan, &mut book, clock.unix()));
        assert!(book.by_access_key(&first.access_key).is_none());
        assert_eq!(book.of_instance(0), Some(&second));
    }
}
