//! Reading a policy document: AWS's grammar, and what this version judges of it.
//!
//! Source: IAM User Guide, "Grammar of the IAM JSON policy language"; sizes from "IAM and AWS STS quotas" and from the
//! PrivateLink Guide, "Endpoint policies".

use std::fmt;

use serde_json::{Map, Value};

use crate::model::plan::Policy;

/// Longest endpoint policy, characters with white space (PrivateLink Guide).
pub const ENDPOINT_POLICY_CHARS: usize = 20_480;
/// Longest inline policy of a role, characters without white space (IAM quotas).
pub const ROLE_POLICY_CHARS: usize = 10_240;

/// What a policy is attached to: the grammar differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Identity-based: has no Principal.
    Role,
    /// Of an endpoint: must have a Principal.
    Endpoint,
}

impl Kind {
    /// The error code of the API that refuses the document: EC2's for endpoints, IAM's for roles.
    pub const fn error_code(self) -> &'static str {
        match self {
            Kind::Role => "MalformedPolicyDocument",
            Kind::Endpoint => "InvalidPolicyDocument",
        }
    }
}

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProblem {
    /// Where: `Statement[0].Condition`; empty for the document itself.
    pub path: String,
    pub message: String,
    /// AWS's error code.
    pub code: &'static str,
}

impl PolicyProblem {
    /// The same problem seen from the object that holds the document.
    pub fn under(mut self, place: &str) -> PolicyProblem {
        self.path = if self.path.is_empty() { place.into() } else { format!("{place}.{}", self.path) };
        self
    }
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Allow,
    Deny,
}

impl Effect {
    pub const fn as_str(self) -> &'static str {
        match self {
            Effect::Allow => "Allow",
            Effect::Deny => "Deny",
        }
    }
}

/// A document whose every word is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub statements: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub sid: Option<String>,
    pub effect: Effect,
    /// Patterns as written; any may match.
    pub actions: Vec<String>,
    /// Patterns as written; any may match.
    pub resources: Vec<String>,
}

impl Document {
    /// Full access, the default document of endpoints (PrivateLink Guide).
    pub fn full() -> Document {
        Document {
            statements: vec![Statement {
                sid: None,
                effect: Effect::Allow,
                actions: vec!["*".into()],
                resources: vec!["*".into()],
            }],
        }
    }

    /// The document of a planned policy.
    pub fn of(kind: Kind, policy: &Policy) -> Result<Document, Vec<PolicyProblem>> {
        match policy {
            Policy::Full => Ok(Document::full()),
            Policy::Document(json) => Document::parse(kind, json),
        }
    }

    /// Reads a document given as text: of the kinds of size limit, white space counts for endpoints only.
    pub fn parse_text(kind: Kind, text: &str) -> Result<Document, Vec<PolicyProblem>> {
        let json = serde_json::from_str(text).map_err(|e| {
            let message = format!("is not JSON: {e}");
            vec![PolicyProblem { path: String::new(), message, code: kind.error_code() }]
        })?;
        let mut reader = Reader { kind, problems: Vec::new() };
        reader.size(text);
        reader.finish(&json)
    }

    /// Reads a document. Every problem is reported, not only the first. The size is that of the compact text.
    pub fn parse(kind: Kind, json: &Value) -> Result<Document, Vec<PolicyProblem>> {
        let mut reader = Reader { kind, problems: Vec::new() };
        reader.size(&json.to_string());
        reader.finish(json)
    }
}

impl Statement {
    /// How reports name a statement: `statement 1`, `statement 2 (Sid DenyDelete)`; counted from 1.
    pub fn label(&self, index: usize) -> String {
        match &self.sid {
            Some(sid) => format!("statement {} (Sid {sid})", index + 1),
            None => format!("statement {}", index + 1),
        }
    }
}

const NOT_JUDGED: &str = "not judged in this version";

struct Reader {
    kind: Kind,
    problems: Vec<PolicyProblem>,
}

impl Reader {
    fn finish(mut self, json: &Value) -> Result<Document, Vec<PolicyProblem>> {
        let document = self.document(json);
        match document {
            Some(document) if self.problems.is_empty() => Ok(document),
            _ => Err(self.problems),
        }
    }

    fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(PolicyProblem { path: path.into(), message: message.into(), code: self.kind.error_code() });
    }

    fn size(&mut self, text: &str) {
        let (chars, most, what) = match self.kind {
            Kind::Endpoint => (text.chars().count(), ENDPOINT_POLICY_CHARS, "with white space"),
            Kind::Role => {
                (text.chars().filter(|c| !c.is_whitespace()).count(), ROLE_POLICY_CHARS, "without white space")
            }
        };
        if chars > most {
            self.problem("", format!("has {chars} characters {what}; AWS allows {most}"));
        }
    }

    fn document(&mut self, json: &Value) -> Option<Document> {
        let Some(map) = json.as_object() else {
            self.problem("", format!("must be a JSON object, not {}", kind_of(json)));
            return None;
        };
        let mut variables = false;
        for (key, value) in map {
            match key.as_str() {
                "Version" => match value.as_str() {
                    Some("2012-10-17") => variables = true,
                    Some("2008-10-17") => {}
                    _ => self.problem("Version", "must be \"2012-10-17\" or \"2008-10-17\""),
                },
                "Id" if value.is_string() => {}
                "Id" => self.problem("Id", format!("must be a string, not {}", kind_of(value))),
                "Statement" => {}
                other => self.unknown("", other, &["Version", "Id", "Statement"]),
            }
        }
        let statements = match map.get("Statement") {
            None => {
                self.problem("", "has no Statement");
                return None;
            }
            Some(Value::Array(list)) if list.is_empty() => {
                self.problem("Statement", "is empty");
                return None;
            }
            Some(Value::Array(list)) => {
                list.iter().enumerate().map(|(i, s)| (format!("Statement[{i}]"), s)).collect::<Vec<_>>()
            }
            Some(one) => vec![("Statement".into(), one)],
        };
        let mut read: Vec<Statement> = Vec::new();
        for (path, value) in statements {
            if let Some(statement) = self.statement(&path, value, variables) {
                if let Some(sid) = &statement.sid
                    && read.iter().any(|s| s.sid.as_ref() == Some(sid))
                {
                    self.problem(&format!("{path}.Sid"), format!("{sid:?} is the Sid of an earlier statement"));
                }
                read.push(statement);
            }
        }
        Some(Document { statements: read })
    }

    fn statement(&mut self, path: &str, json: &Value, variables: bool) -> Option<Statement> {
        let Some(map) = json.as_object() else {
            self.problem(path, format!("must be an object, not {}", kind_of(json)));
            return None;
        };
        for key in map.keys() {
            let at = format!("{path}.{key}");
            match key.as_str() {
                "Sid" | "Effect" | "Action" | "Resource" | "Principal" => {}
                "Condition" => self.problem(&at, format!("conditions are {NOT_JUDGED}")),
                "NotAction" | "NotResource" | "NotPrincipal" => self.problem(&at, format!("{key} is {NOT_JUDGED}")),
                other => self.unknown(path, other, &["Sid", "Effect", "Action", "Resource", "Principal", "Condition"]),
            }
        }
        let sid = self.sid(path, map);
        let effect = match map.get("Effect").map(|e| (e, e.as_str())) {
            Some((_, Some("Allow"))) => Some(Effect::Allow),
            Some((_, Some("Deny"))) => Some(Effect::Deny),
            Some(_) => {
                self.problem(&format!("{path}.Effect"), "must be \"Allow\" or \"Deny\"");
                None
            }
            None => {
                self.problem(path, "has no Effect");
                None
            }
        };
        self.principal(path, map.get("Principal"), map.contains_key("NotPrincipal"));
        let actions = self.strings(path, "Action", map);
        let resources = self.strings(path, "Resource", map);
        for action in &actions {
            self.action(&format!("{path}.Action"), action);
        }
        for resource in &resources {
            self.resource(&format!("{path}.Resource"), resource, variables);
        }
        Some(Statement { sid, effect: effect?, actions, resources })
    }

    fn sid(&mut self, path: &str, map: &Map<String, Value>) -> Option<String> {
        let value = map.get("Sid")?;
        let at = format!("{path}.Sid");
        let Some(sid) = value.as_str() else {
            self.problem(&at, format!("must be a string, not {}", kind_of(value)));
            return None;
        };
        // IAM takes letters and digits only; other services take spaces as well (IAM User Guide, element Sid).
        if self.kind == Kind::Role && !sid.bytes().all(|b| b.is_ascii_alphanumeric()) {
            self.problem(&at, format!("{sid:?} may hold letters and digits only"));
        }
        (!sid.is_empty()).then(|| sid.to_owned())
    }

    fn principal(&mut self, path: &str, value: Option<&Value>, not_principal: bool) {
        let at = format!("{path}.Principal");
        match (self.kind, value) {
            (Kind::Role, Some(_)) => self.problem(&at, "a role's policy may not have a Principal"),
            (Kind::Endpoint, None) if !not_principal => {
                self.problem(path, "an endpoint's policy must have a Principal");
            }
            (Kind::Endpoint, Some(value)) if !is_everybody(value) => {
                self.problem(&at, format!("principals other than \"*\" are {NOT_JUDGED}"));
            }
            _ => {}
        }
    }

    /// A string or a list of them, not empty.
    fn strings(&mut self, path: &str, key: &str, map: &Map<String, Value>) -> Vec<String> {
        let at = format!("{path}.{key}");
        let values = match map.get(key) {
            None if map.contains_key(&format!("Not{key}")) => return Vec::new(),
            None => {
                self.problem(path, format!("has no {key}"));
                return Vec::new();
            }
            Some(Value::Array(list)) if list.is_empty() => {
                self.problem(&at, "is empty");
                return Vec::new();
            }
            Some(Value::Array(list)) => list.iter().collect(),
            Some(one) => vec![one],
        };
        let mut strings = Vec::new();
        for value in values {
            match value.as_str() {
                Some("") => self.problem(&at, "holds an empty string"),
                Some(s) => strings.push(s.to_owned()),
                None => self.problem(&at, format!("must be a string or a list of strings, not {}", kind_of(value))),
            }
        }
        strings
    }

    fn action(&mut self, at: &str, action: &str) {
        if action == "*" {
            return;
        }
        let well_formed = action.split_once(':').is_some_and(|(service, name)| {
            !service.is_empty()
                && service.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'*' | b'?' | b'-' | b'_'))
        });
        if !well_formed {
            self.problem(at, format!("{action:?} must be \"*\" or of the form service:Action, as s3:GetObject"));
        }
    }

    fn resource(&mut self, at: &str, resource: &str, variables: bool) {
        if variables && resource.contains("${") {
            self.problem(at, format!("{resource:?}: policy variables are {NOT_JUDGED}"));
        }
        let arn = resource.starts_with("arn:") && resource.split(':').count() >= 3;
        // `*` alone, or any pattern that begins with one: IAM takes `*/x` too, ARNs begin with `arn:`.
        if !arn && !resource.starts_with('*') {
            self.problem(at, format!("{resource:?} must be \"*\" or an ARN, as arn:aws:s3:::reports/*"));
        }
    }

    fn unknown(&mut self, path: &str, key: &str, known: &[&str]) {
        let at = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match known.iter().find(|k| k.eq_ignore_ascii_case(key)) {
            Some(meant) => self.problem(&at, format!("unknown element {key}; did you mean {meant}?")),
            None => self.problem(&at, format!("unknown element {key}")),
        }
    }
}

/// `"*"` or `{"AWS": "*"}`, also as a list of one.
fn is_everybody(value: &Value) -> bool {
    let star = |v: &Value| match v {
        Value::String(s) => s == "*",
        Value::Array(list) => matches!(&list[..], [Value::String(s)] if s == "*"),
        _ => false,
    };
    match value {
        Value::Object(map) => map.len() == 1 && map.get("AWS").is_some_and(star),
        other => other.as_str() == Some("*"),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(kind: Kind, json: Value) -> Vec<String> {
        Document::parse(kind, &json).expect_err("must be refused").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn both_forms_of_strings_and_statements() {
        let one = json!({"Version": "2012-10-17", "Id": "x", "Statement":
            {"Sid": "A", "Effect": "Allow", "Action": "s3:*", "Resource": "*"}});
        let list = json!({"Statement": [
            {"Sid": "A", "Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}]});
        let one = Document::parse(Kind::Role, &one).unwrap();
        assert_eq!(one, Document::parse(Kind::Role, &list).unwrap());
        assert_eq!(one.statements[0].label(0), "statement 1 (Sid A)");
    }

    #[test]
    fn principals_belong_to_endpoints() {
        let with =
            |p: Value| json!({"Statement": [{"Effect": "Allow", "Principal": p, "Action": "*", "Resource": "*"}]});
        for everybody in [json!("*"), json!({"AWS": "*"}), json!({"AWS": ["*"]})] {
            assert!(Document::parse(Kind::Endpoint, &with(everybody)).is_ok());
        }
        assert_eq!(
            refused(Kind::Endpoint, with(json!({"AWS": "arn:aws:iam::123456789012:role/x"}))),
            ["Statement[0].Principal: principals other than \"*\" are not judged in this version"]
        );
        assert_eq!(
            refused(Kind::Role, with(json!("*"))),
            ["Statement[0].Principal: a role's policy may not have a Principal"]
        );
        assert_eq!(
            refused(Kind::Endpoint, json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}})),
            ["Statement: an endpoint's policy must have a Principal"]
        );
    }

    #[test]
    fn what_is_not_judged_is_refused_by_name() {
        let problems = refused(
            Kind::Endpoint,
            json!({"Statement": [{"Effect": "Deny", "NotPrincipal": "*", "NotAction": "s3:*", "NotResource": "*",
                "Condition": {"StringEquals": {"aws:SourceVpc": "vpc-1"}}}]}),
        );
        assert_eq!(
            problems,
            [
                "Statement[0].NotPrincipal: NotPrincipal is not judged in this version",
                "Statement[0].NotAction: NotAction is not judged in this version",
                "Statement[0].NotResource: NotResource is not judged in this version",
                "Statement[0].Condition: conditions are not judged in this version",
            ]
        );
        let variable = json!({"Version": "2012-10-17", "Statement":
            {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/${aws:userid}"}});
        assert!(refused(Kind::Role, variable)[0].contains("policy variables are not judged"));
    }

    #[test]
    fn malformed_documents() {
        assert_eq!(refused(Kind::Role, json!([])), ["must be a JSON object, not a list"]);
        assert_eq!(refused(Kind::Role, json!({})), ["has no Statement"]);
        assert_eq!(refused(Kind::Role, json!({"Statement": []})), ["Statement: is empty"]);
        assert_eq!(
            refused(Kind::Role, json!({"version": "2012-10-17", "Statement": {"Effect": "allow"}})),
            [
                "version: unknown element version; did you mean Version?",
                "Statement.Effect: must be \"Allow\" or \"Deny\"",
                "Statement: has no Action",
                "Statement: has no Resource",
            ]
        );
        assert_eq!(
            refused(
                Kind::Role,
                json!({"Version": "2026-01-01", "Statement": [
                    {"Sid": "a b", "Effect": "Allow", "Action": ["GetObject", 1], "Resource": "bucket"},
                    {"Sid": "x", "Effect": "Deny", "Action": "s3:*", "Resource": []},
                    {"Sid": "x", "Effect": "Deny", "Action": "s3:*", "Resource": "*"}]})
            )
            .len(),
            7
        );
    }

    #[test]
    fn sizes_count_white_space_for_endpoints_only() {
        let text = |spaces: usize, principal: &str| {
            format!(
                "{{\"Statement\":{{\"Effect\":\"Allow\",{principal}\"Action\":\"*\",{}\"Resource\":\"*\"}}}}",
                " ".repeat(spaces)
            )
        };
        let endpoint = "\"Principal\":\"*\",";
        assert!(Document::parse_text(Kind::Endpoint, &text(20_000, endpoint)).is_ok());
        let problems = Document::parse_text(Kind::Endpoint, &text(20_480, endpoint)).unwrap_err();
        assert_eq!(problems[0].code, "InvalidPolicyDocument");
        assert!(problems[0].message.contains("AWS allows 20480"), "{problems:?}");
        assert!(Document::parse_text(Kind::Role, &text(30_000, "")).is_ok());
        assert_eq!(Document::parse_text(Kind::Role, "{").unwrap_err()[0].code, "MalformedPolicyDocument");
    }
}
