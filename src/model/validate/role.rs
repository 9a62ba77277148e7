//! IAM roles that instances assume through their instance profile.

use super::{Draft, common, policy};
use crate::model::plan::{Policy, RolePlan};
use crate::model::spec::fields::{Cx, Fields};
use crate::model::spec::keys;
use crate::model::spec::names::Kind;

pub fn read<'a>(cx: &'a Cx<'a>, top: &Fields<'a>, draft: &mut Draft) {
    for (index, e) in top.named("roles").iter().enumerate() {
        let Some(f) = Fields::open(cx, &keys::ROLE, format!("role {}", e.key), e) else { continue };
        if let Some(slot) = draft.roles.get_mut(index) {
            *slot = Some(RolePlan {
                common: common(&f, Kind::Role, index),
                account: f.account("account").unwrap_or_else(|| cx.default_account.clone()),
                policy: policy::read(&f).unwrap_or_else(nothing),
            });
        }
        f.done();
    }
}

/// A role without a policy may do nothing.
fn nothing() -> Policy {
    Policy::Document(serde_json::json!({ "Version": "2012-10-17", "Statement": [] }))
}
