//! The expression language: conditions, filters, projections, updates and key conditions, from text to trees.
//! Grammar and limits: Amazon DynamoDB Developer Guide, "Using expressions in DynamoDB".

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value as Json;

use super::parser::{Parser, Token, word_byte};
use super::value::Value;
use super::{Object, invalid};
use crate::services::errors::ApiError;

/// One step of a document path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Name(String),
    Index(usize),
}

/// `a.b[0]`: begins with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path(pub(super) Vec<Step>);

impl Path {
    /// The attribute of the item that the path is in.
    pub(super) fn top(&self) -> &str {
        match self.0.first() {
            Some(Step::Name(name)) => name,
            _ => "",
        }
    }
}

/// As AWS writes paths in errors: `[a, b, [0]]`.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self
            .0
            .iter()
            .map(|step| match step {
                Step::Name(name) => name.clone(),
                Step::Index(at) => format!("[{at}]"),
            })
            .collect();
        write!(f, "[{}]", steps.join(", "))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Path(Path),
    Value(Value),
    /// `size(path)`.
    Size(Path),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    Compare(Comparison, Operand, Operand),
    Between(Operand, Operand, Operand),
    In(Operand, Vec<Operand>),
    Exists(Path),
    NotExists(Path),
    IsType(Path, String),
    BeginsWith(Operand, Operand),
    Contains(Operand, Operand),
}

/// The parts of an update, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Update {
    pub(super) set: Vec<(Path, Sum)>,
    pub(super) remove: Vec<Path>,
    pub(super) add: Vec<(Path, Value)>,
    pub(super) delete: Vec<(Path, Value)>,
}

impl Update {
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let set = self.set.iter().map(|(path, _)| path);
        let others = self.add.iter().chain(&self.delete).map(|(path, _)| path);
        set.chain(&self.remove).chain(others)
    }
}

/// The right side of a SET.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sum {
    One(Term),
    Plus(Term, Term),
    Minus(Term, Term),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    Path(Path),
    Value(Value),
    IfNotExists(Path, Box<Term>),
    ListAppend(Box<Term>, Box<Term>),
}

/// `ExpressionAttributeNames` and `ExpressionAttributeValues` of a request, and which of them were used.
#[derive(Debug)]
pub(super) struct Placeholders {
    pub(super) names: BTreeMap<String, String>,
    pub(super) values: BTreeMap<String, Value>,
    given: (bool, bool),
    pub(super) used: RefCell<BTreeSet<String>>,
    pub(super) expressions: RefCell<usize>,
}

impl Placeholders {
    /// # Errors
    /// `ValidationException` in AWS's words.
    pub(super) fn read(input: &Object) -> Result<Placeholders, ApiError> {
        let map = |key: &str| match input.get(key).filter(|v| !v.is_null()) {
            None => Ok(None),
            Some(Json::Object(map)) if map.is_empty() => Err(invalid(&format!("{key} must not be empty"))),
            Some(Json::Object(map)) => Ok(Some(map)),
            Some(_) => Err(invalid(&format!("{key} must be a map"))),
        };
        let well_formed = |of: &str, key: &str, sign: char| match key.strip_prefix(sign) {
            Some(rest) if !rest.is_empty() && rest.bytes().all(word_byte) => Ok(()),
            _ => Err(invalid(&format!("{of} contains invalid key: Syntax error; key: \"{key}\""))),
        };
        let mut all = Placeholders {
            names: BTreeMap::new(),
            values: BTreeMap::new(),
            given: (false, false),
            used: RefCell::default(),
            expressions: RefCell::default(),
        };
        if let Some(names) = map("ExpressionAttributeNames")? {
            all.given.0 = true;
            for (key, name) in names {
                well_formed("ExpressionAttributeNames", key, '#')?;
                let name = name.as_str().filter(|n| !n.is_empty() && n.len() <= 65_535);
                let name = name.ok_or_else(|| {
                    invalid(&format!("ExpressionAttributeNames contains invalid value: for key {key}"))
                })?;
                all.names.insert(key.clone(), name.to_owned());
            }
        }
        if let Some(values) = map("ExpressionAttributeValues")? {
            all.given.1 = true;
            for (key, value) in values {
                well_formed("ExpressionAttributeValues", key, ':')?;
                let value = Value::read(value).map_err(|mut e| {
                    e.message =
                        format!("ExpressionAttributeValues contains invalid value: {} for key {key}", e.message);
                    e
                })?;
                all.values.insert(key.clone(), value);
            }
        }
        Ok(all)
    }

    /// To be asked after the last expression was parsed.
    ///
    /// # Errors
    /// Some were not used, or there was no expression at all.
    pub(super) fn all_used(&self, expression: &str) -> Result<(), ApiError> {
        if *self.expressions.borrow() == 0 {
            return match self.given {
                (true, _) => Err(invalid("ExpressionAttributeNames can only be specified when using expressions")),
                (_, true) => Err(invalid(&format!(
                    "ExpressionAttributeValues can only be specified when using expressions: {expression} is null"
                ))),
                _ => Ok(()),
            };
        }
        let used = self.used.borrow();
        let unused =
            |keys: Vec<&String>| -> Vec<String> { keys.into_iter().filter(|k| !used.contains(*k)).cloned().collect() };
        for (of, keys) in [
            ("ExpressionAttributeNames", unused(self.names.keys().collect())),
            ("ExpressionAttributeValues", unused(self.values.keys().collect())),
        ] {
            if !keys.is_empty() {
                let keys = keys.join(", ");
                return Err(invalid(&format!("Value provided in {of} unused in expressions: keys: {{{keys}}}")));
            }
        }
        Ok(())
    }
}

/// Parses a condition, a filter or a key condition; `what` is the parameter's name.
///
/// # Errors
/// `ValidationException` in AWS's words.
pub(super) fn condition(what: &'static str, text: &str, places: &Placeholders) -> Result<Condition, ApiError> {
    let mut parser = Parser::new(what, text, places)?;
    let found = parser.or()?;
    parser.end()?;
    Ok(found)
}

/// Parses a `ProjectionExpression`.
///
/// # Errors
/// As [`condition`]; overlapping paths.
pub(super) fn projection(text: &str, places: &Placeholders) -> Result<Vec<Path>, ApiError> {
    let mut parser = Parser::new("ProjectionExpression", text, places)?;
    let mut paths = vec![parser.path()?];
    while parser.take_sign(",") {
        paths.push(parser.path()?);
    }
    parser.end()?;
    apart("ProjectionExpression", &paths.iter().collect::<Vec<_>>())?;
    Ok(paths)
}

/// Parses an `UpdateExpression`.
///
/// # Errors
/// As [`condition`]; overlapping paths, values of the wrong type.
pub(super) fn update(text: &str, places: &Placeholders) -> Result<Update, ApiError> {
    let mut parser = Parser::new("UpdateExpression", text, places)?;
    let mut update = Update::default();
    let mut seen = BTreeSet::new();
    loop {
        let section = match parser.peek() {
            Token::Word(word) => word.to_ascii_uppercase(),
            _ => return Err(parser.wrong_token()),
        };
        if !matches!(section.as_str(), "SET" | "REMOVE" | "ADD" | "DELETE") {
            return Err(parser.wrong_token());
        }
        if !seen.insert(section.clone()) {
            return Err(
                parser.error(&format!("The \"{section}\" section can only be used once in an update expression;"))
            );
        }
        parser.at += 1;
        loop {
            let path = parser.path()?;
            match section.as_str() {
                "SET" => {
                    parser.sign("=")?;
                    let sum = parser.sum()?;
                    update.set.push((path, sum));
                }
                "REMOVE" => update.remove.push(path),
                section => {
                    let value = parser.value()?;
                    let fits = match section {
                        "ADD" => {
                            matches!(value, Value::Number(_) | Value::Texts(_) | Value::Numbers(_) | Value::Binaries(_))
                        }
                        _ => matches!(value, Value::Texts(_) | Value::Numbers(_) | Value::Binaries(_)),
                    };
                    if !fits {
                        let kind = type_name(&value);
                        return Err(parser.error(&format!(
                            "Incorrect operand type for operator or function; operator: {section}, operand type: {kind}"
                        )));
                    }
                    if section == "ADD" { &mut update.add } else { &mut update.delete }.push((path, value));
                }
            }
            if !parser.take_sign(",") {
                break;
            }
        }
        if parser.peek() == Token::End {
            break;
        }
    }
    apart("UpdateExpression", &update.paths().collect::<Vec<_>>())?;
    Ok(update)
}

/// No path may be another's beginning.
fn apart(what: &str, paths: &[&Path]) -> Result<(), ApiError> {
    for (at, one) in paths.iter().enumerate() {
        for two in &paths[at + 1..] {
            let differ = one.0.iter().zip(&two.0).find(|(a, b)| a != b);
            let problem = match differ {
                None => "overlap with each other",
                Some((Step::Name(_), Step::Index(_)) | (Step::Index(_), Step::Name(_))) => "conflict with each other",
                Some(_) => continue,
            };
            return Err(invalid(&format!(
                "Invalid {what}: Two document paths {problem}; must remove or rewrite one of these paths; path one: \
                 {one}, path two: {two}"
            )));
        }
    }
    Ok(())
}

/// A type as errors of expressions call it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Text(_) => "STRING",
        Value::Number(_) => "NUMBER",
        Value::Binary(_) => "BINARY",
        Value::Bool(_) => "BOOLEAN",
        Value::Null => "NULL",
        Value::List(_) => "LIST",
        Value::Map(_) => "MAP",
        Value::Texts(_) => "STRING_SET",
        Value::Numbers(_) => "NUMBER_SET",
        Value::Binaries(_) => "BINARY_SET",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::parser::MAX_TEXT;
    use super::*;

    fn places() -> Placeholders {
        let input = json!({
            "ExpressionAttributeNames": {"#n": "na.me"},
            "ExpressionAttributeValues": {":a": {"S": "a"}, ":b": {"S": "b"}, ":n": {"N": "1"}, ":l": {"L": []}},
        });
        Placeholders::read(input.as_object().unwrap()).unwrap()
    }

    fn refused(text: &str) -> String {
        let error = condition("ConditionExpression", text, &places()).unwrap_err();
        assert_eq!(error.code, "ValidationException");
        error.message.strip_prefix("Invalid ConditionExpression: ").unwrap_or_else(|| panic!("{error:?}")).to_owned()
    }

    #[test]
    fn and_binds_closer_than_or_and_not_closest() {
        let places = places();
        let c = |text: &str| condition("ConditionExpression", text, &places).unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(c("x = :a or y = :a and not z = :a"), c("(x = :a) OR ((y = :a) AND (NOT (z = :a)))"));
        assert!(matches!(c("#n BETWEEN :a AND :b AND x<>:a"), Condition::And(..)));
        let path = |c: Condition| match c {
            Condition::Exists(path) => path.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(path(c("attribute_exists(#n.b[3][0].c)")), "[na.me, b, [3], [0], c]");
        assert!(matches!(c("size(x) > :n"), Condition::Compare(Comparison::Greater, Operand::Size(_), _)));
        assert!(matches!(c("x IN (:a, :b, y)"), Condition::In(_, list) if list.len() == 3));
    }

    #[test]
    fn mistakes_are_named_in_awss_words() {
        for (text, words) in [
            ("", "The expression can not be empty;"),
            ("x == :a", r#"Syntax error; token: "=", near: "== :a""#),
            ("x = :a)", r#"Syntax error; token: ")", near: ":a)""#),
            ("x =", r#"Syntax error; token: "<EOF>", near: "=""#),
            ("x é :a", r#"Syntax error; token: "é", near: "x é""#),
            ("x = :c", "An expression attribute value used in expression is not defined; attribute value: :c"),
            ("#m = :a", "An expression attribute name used in the document path is not defined; attribute name: #m"),
            ("name = :a", "Attribute name is a reserved keyword; reserved keyword: name"),
            ("fly(x)", "Invalid function name; function: fly"),
            (
                "begins_with(x, :n)",
                "Incorrect operand type for operator or function; operator or function: \
                                    begins_with, operand type: N",
            ),
            (
                "begins_with(x)",
                "Incorrect number of operands for operator or function; operator or function: \
                                begins_with, number of operands: 1",
            ),
            ("x < :l", "Incorrect operand type for operator or function; operator or function: <, operand type: L"),
            (
                "x BETWEEN :b AND :a",
                "The BETWEEN operator requires upper bound to be greater than or equal to lower \
                                     bound; lower bound operand: AttributeValue: {S:b}, upper bound operand: \
                                     AttributeValue: {S:a}",
            ),
            (
                "attribute_exists(:a)",
                "Operator or function requires a document path; operator or function: \
                                      attribute_exists",
            ),
        ] {
            assert_eq!(refused(text), words, "{text}");
        }
        assert!(refused(&format!("x = :a{}", " ".repeat(MAX_TEXT))).starts_with("Expression size has exceeded"));
        assert!(refused(&"(".repeat(4_000)).contains("redundant parentheses"));
        assert!(refused(&"NOT ".repeat(1_000)).contains("redundant parentheses"));
        assert!(refused(&vec!["x=:a"; 400].join(" OR ")).contains("too many operators"));
    }

    #[test]
    fn what_is_given_and_not_used_is_refused() {
        let places = places();
        condition("ConditionExpression", "#n = :a AND x = :b AND y = :n", &places).unwrap();
        let error = places.all_used("ConditionExpression").unwrap_err();
        assert_eq!(error.message, "Value provided in ExpressionAttributeValues unused in expressions: keys: {:l}");
        let error = super::tests::places().all_used("ConditionExpression").unwrap_err();
        assert_eq!(error.message, "ExpressionAttributeNames can only be specified when using expressions");
    }

    #[test]
    fn updates_have_four_sections_once_each_and_paths_apart() {
        let places = places();
        let found =
            update("SET a = b + :n, c = list_append(:l, if_not_exists(d, :l)) REMOVE e[0], f ADD g :n", &places);
        let found = found.unwrap();
        assert_eq!((found.set.len(), found.remove.len(), found.add.len()), (2, 2, 1));
        for (text, words) in [
            ("SET a = :a SET b = :a", "The \"SET\" section can only be used once in an update expression;"),
            (
                "SET a = :a, a.b = :b",
                "Two document paths overlap with each other; must remove or rewrite one of these \
                                      paths; path one: [a], path two: [a, b]",
            ),
            (
                "SET a.b = :a REMOVE a[0]",
                "Two document paths conflict with each other; must remove or rewrite one of \
                                          these paths; path one: [a, b], path two: [a, [0]]",
            ),
            ("ADD a :a", "Incorrect operand type for operator or function; operator: ADD, operand type: STRING"),
            ("a = :a", r#"Syntax error; token: "a", near: "a =""#),
        ] {
            let error = update(text, &places).unwrap_err().message;
            assert_eq!(error, format!("Invalid UpdateExpression: {words}"), "{text}");
        }
        assert!(projection("a, b.c, b.d, #n[1]", &places).is_ok());
        assert!(projection("a, a", &places).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([a-z#:.\\[\\]()<>=,+é ]|AND |OR |NOT |IN |BETWEEN |SET |size\\(|:a|#n|[0-9]){0,40}") {
            let places = places();
            let _ = condition("ConditionExpression", &text, &places);
            let _ = update(&text, &places);
            let _ = projection(&text, &places);
        }
    }
}
