//! What one document says to one request.

use super::document::{Document, Effect, Statement};
use super::wildcard;

/// The word of one document. The index is that of the deciding statement, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(usize),
    ExplicitDeny(usize),
    /// No statement matches.
    ImplicitDeny,
}

impl Decision {
    pub const fn allows(self) -> bool {
        matches!(self, Decision::Allow(_))
    }

    /// `allowed by statement 1 (Sid Read)`, `denied by statement 2`, `no statement allows it`.
    pub fn text(self, document: &Document) -> String {
        let label = |i: usize| document.statements.get(i).map_or_else(String::new, |s| s.label(i));
        match self {
            Decision::Allow(i) => format!("allowed by {}", label(i)),
            Decision::ExplicitDeny(i) => format!("denied by {}", label(i)),
            Decision::ImplicitDeny => "no statement allows it".into(),
        }
    }
}

/// Judges one request by one document: a deny wins, no match denies. `action` is spelled `s3:GetObject`, `resource` is
/// an ARN, or `*` for actions that have no resource (`s3:ListAllMyBuckets`, `sts:GetCallerIdentity`).
pub fn evaluate(document: &Document, action: &str, resource: &str) -> Decision {
    let mut allowed = None;
    for (i, statement) in document.statements.iter().enumerate() {
        if miss(statement, action, resource).is_some() {
            continue;
        }
        match statement.effect {
            Effect::Deny => return Decision::ExplicitDeny(i),
            Effect::Allow => allowed = allowed.or(Some(i)),
        }
    }
    allowed.map_or(Decision::ImplicitDeny, Decision::Allow)
}

/// What became of one statement: for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementReport {
    /// Counted from 0.
    pub index: usize,
    pub matched: bool,
    /// `statement 1 (Sid Read), Allow: matches` or `...: action s3:PutObject is none of s3:Get*`.
    pub text: String,
}

/// Every statement in its order, with the reason where it does not match.
pub fn explain(document: &Document, action: &str, resource: &str) -> Vec<StatementReport> {
    let report = |(index, statement): (usize, &Statement)| {
        let miss = miss(statement, action, resource);
        let head = format!("{}, {}", statement.label(index), statement.effect.as_str());
        let text = match miss {
            None => format!("{head}: matches"),
            Some(Miss::Action) => format!("{head}: action {action} is none of {}", statement.actions.join(", ")),
            Some(Miss::Resource) => {
                format!("{head}: resource {resource} is none of {}", statement.resources.join(", "))
            }
        };
        StatementReport { index, matched: miss.is_none(), text }
    };
    document.statements.iter().enumerate().map(report).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Miss {
    Action,
    Resource,
}

fn miss(statement: &Statement, action: &str, resource: &str) -> Option<Miss> {
    if !statement.actions.iter().any(|p| wildcard::action(p, action)) {
        Some(Miss::Action)
    } else if !statement.resources.iter().any(|p| wildcard::resource(p, resource)) {
        Some(Miss::Resource)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::Kind;
    use super::*;

    fn document(json: serde_json::Value) -> Document {
        Document::parse(Kind::Role, &json).unwrap()
    }

    fn sample() -> Document {
        document(serde_json::json!({"Statement": [
            {"Sid": "Read", "Effect": "Allow", "Action": ["s3:Get*", "s3:ListBucket"],
             "Resource": ["arn:aws:s3:::reports", "arn:aws:s3:::reports/*"]},
            {"Sid": "Write", "Effect": "Allow", "Action": "s3:Put*", "Resource": "arn:aws:s3:::reports/in/*"},
            {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::reports/secret/*"}]}))
    }

    #[test]
    fn a_deny_wins_wherever_it_stands() {
        let d = sample();
        assert_eq!(evaluate(&d, "s3:GetObject", "arn:aws:s3:::reports/a"), Decision::Allow(0));
        assert_eq!(evaluate(&d, "s3:PutObject", "arn:aws:s3:::reports/in/a"), Decision::Allow(1));
        assert_eq!(evaluate(&d, "s3:GetObject", "arn:aws:s3:::reports/secret/a"), Decision::ExplicitDeny(2));
        assert_eq!(evaluate(&d, "s3:PutObject", "arn:aws:s3:::reports/a"), Decision::ImplicitDeny);
        assert_eq!(evaluate(&d, "s3:ListAllMyBuckets", "*"), Decision::ImplicitDeny);
        assert_eq!(evaluate(&Document::full(), "s3:ListAllMyBuckets", "*"), Decision::Allow(0));
    }

    #[test]
    fn explain_says_why_each_statement_missed() {
        let d = sample();
        let texts: Vec<String> =
            explain(&d, "s3:PutObject", "arn:aws:s3:::reports/a").into_iter().map(|r| r.text).collect();
        assert_eq!(
            texts,
            [
                "statement 1 (Sid Read), Allow: action s3:PutObject is none of s3:Get*, s3:ListBucket",
                "statement 2 (Sid Write), Allow: resource arn:aws:s3:::reports/a is none of arn:aws:s3:::reports/in/*",
                "statement 3, Deny: resource arn:aws:s3:::reports/a is none of arn:aws:s3:::reports/secret/*",
            ]
        );
        assert_eq!(
            evaluate(&d, "s3:PutObject", "arn:aws:s3:::reports/in/a").text(&d),
            "allowed by statement 2 (Sid Write)"
        );
    }
}
