//! Role policy and endpoint policy together, and the sentence a denied caller reads.

use super::document::Document;
use super::evaluate::{Decision, evaluate};

/// Which policy refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The policy of the caller's role.
    Identity,
    /// The policy of the endpoint that the request came through.
    Endpoint,
}

impl Layer {
    /// `identity-based policy`, `VPC endpoint policy`: AWS's words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Layer::Identity => "identity-based policy",
            Layer::Endpoint => "VPC endpoint policy",
        }
    }
}

/// Why a request may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub layer: Layer,
    /// Never `Allow`.
    pub decision: Decision,
}

impl Refusal {
    /// `denied by statement 2 of the VPC endpoint policy`: for logs and `explain`.
    pub fn text(&self, document: &Document) -> String {
        format!("{} in the {}", self.decision.text(document), self.layer.as_str())
    }

    /// The sentence of [`denial_message`].
    pub fn message(&self, principal: &str, action: &str, resource: Option<&str>) -> String {
        denial_message(self.layer, matches!(self.decision, Decision::ExplicitDeny(_)), principal, action, resource)
    }
}

/// A request passes when every policy on its way allows it. `identity` is absent for callers without a role (unsigned
/// requests); `endpoint` is absent where no endpoint is on the way.
///
/// Explicit denies are named before missing permissions, and of two equal ones the endpoint's, which the request meets
/// first: AWS names one policy type and does not say which (IAM User Guide, "Troubleshoot access denied").
pub fn authorize(
    identity: Option<&Document>,
    endpoint: Option<&Document>,
    action: &str,
    resource: &str,
) -> Result<(), Refusal> {
    let decisions = [(Layer::Endpoint, endpoint), (Layer::Identity, identity)]
        .map(|(layer, document)| document.map(|d| Refusal { layer, decision: evaluate(d, action, resource) }));
    let mut denied = decisions.into_iter().flatten().filter(|r| !r.decision.allows());
    let first = denied.next();
    match first {
        None => Ok(()),
        Some(r) if matches!(r.decision, Decision::ExplicitDeny(_)) => Err(r),
        Some(r) => Err(denied.find(|r| matches!(r.decision, Decision::ExplicitDeny(_))).unwrap_or(r)),
    }
}

/// AWS's sentence (IAM User Guide, "Troubleshoot access denied error messages"). `action` and `resource` are printed as
/// given: SNS writes `SNS:Publish`, S3 puts the resource in double quotes, some actions have no resource.
pub fn denial_message(layer: Layer, explicit: bool, principal: &str, action: &str, resource: Option<&str>) -> String {
    let on = resource.map_or_else(String::new, |r| format!(" on resource: {r}"));
    let why = match (layer, explicit) {
        (Layer::Identity, false) => format!("because no identity-based policy allows the {action} action"),
        (Layer::Endpoint, false) => format!("because no VPC endpoint policy allows the {action} action"),
        (Layer::Identity, true) => "with an explicit deny in an identity-based policy".into(),
        (Layer::Endpoint, true) => "with an explicit deny in a VPC endpoint policy".into(),
    };
    format!("User: {principal} is not authorized to perform: {action}{on} {why}")
}

#[cfg(test)]
mod tests {
    use super::super::document::Kind;
    use super::*;

    fn document(effect: &str, action: &str) -> Document {
        let json = serde_json::json!({"Statement": {"Effect": effect, "Action": action, "Resource": "*"}});
        Document::parse(Kind::Role, &json).unwrap()
    }

    #[test]
    fn both_policies_must_allow() {
        let (full, reads) = (Document::full(), document("Allow", "s3:Get*"));
        let judge = |role: &Document, endpoint: &Document| {
            authorize(Some(role), Some(endpoint), "s3:PutObject", "arn:aws:s3:::b/k").map_err(|r| r.layer)
        };
        assert_eq!(judge(&full, &full), Ok(()));
        assert_eq!(judge(&reads, &full), Err(Layer::Identity));
        assert_eq!(judge(&full, &reads), Err(Layer::Endpoint));
        assert_eq!(judge(&reads, &reads), Err(Layer::Endpoint));
        assert_eq!(judge(&document("Deny", "s3:*"), &reads), Err(Layer::Identity), "an explicit deny is named first");
        assert_eq!(authorize(None, Some(&full), "s3:PutObject", "*"), Ok(()));
    }

    #[test]
    fn sentences_of_aws() {
        let arn = "arn:aws:sts::123456789012:assumed-role/web-role/i-0";
        assert_eq!(
            denial_message(Layer::Endpoint, false, arn, "s3:GetObject", Some("\"arn:aws:s3:::b/k\"")),
            format!(
                "User: {arn} is not authorized to perform: s3:GetObject on resource: \"arn:aws:s3:::b/k\" \
                 because no VPC endpoint policy allows the s3:GetObject action"
            )
        );
        assert_eq!(
            denial_message(Layer::Endpoint, true, arn, "SNS:Publish", Some("arn:aws:sns:eu-west-1:1:t")),
            format!(
                "User: {arn} is not authorized to perform: SNS:Publish on resource: arn:aws:sns:eu-west-1:1:t \
                 with an explicit deny in a VPC endpoint policy"
            )
        );
        assert_eq!(
            denial_message(Layer::Identity, false, arn, "s3:ListAllMyBuckets", None),
            format!(
                "User: {arn} is not authorized to perform: s3:ListAllMyBuckets \
                 because no identity-based policy allows the s3:ListAllMyBuckets action"
            )
        );
    }
}
