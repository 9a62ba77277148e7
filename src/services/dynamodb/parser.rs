//! From the text of an expression to its tree: tokens, and a descent by precedence.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::Value as Json;

use super::expression::{Comparison, Condition, Operand, Path, Placeholders, Step, Sum, Term};
use super::invalid;
use super::value::Value;
use crate::services::errors::ApiError;

/// Longest text of an expression, bytes, and how many operators it may have (Developer Guide, "Quotas").
pub(super) const MAX_TEXT: usize = 4_096;
const MAX_OPERATORS: usize = 300;
/// Parentheses and NOTs within each other; AWS refuses redundant ones altogether.
const MAX_DEPTH: usize = 64;

/// What may not stand as a name without `#` (Developer Guide, "Reserved words in DynamoDB").
static RESERVED: LazyLock<BTreeSet<&'static str>> = LazyLock::new(|| include_str!("reserved.txt").lines().collect());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    /// `#name` and `:value`, with their signs.
    Placeholder(&'a str),
    Digits(&'a str),
    Sign(&'a str),
    End,
}

pub(super) struct Parser<'a> {
    what: &'static str,
    text: &'a str,
    /// With where they begin and end in the text.
    tokens: Vec<(Token<'a>, usize, usize)>,
    pub(super) at: usize,
    places: &'a Placeholders,
    operators: usize,
    depth: usize,
}

pub(super) fn word_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

impl<'a> Parser<'a> {
    pub(super) fn new(what: &'static str, text: &'a str, places: &'a Placeholders) -> Result<Parser<'a>, ApiError> {
        *places.expressions.borrow_mut() += 1;
        let mut parser = Parser { what, text, tokens: Vec::new(), at: 0, places, operators: 0, depth: 0 };
        if text.is_empty() {
            return Err(parser.error("The expression can not be empty;"));
        }
        if text.len() > MAX_TEXT {
            return Err(parser.error(&format!(
                "Expression size has exceeded the maximum allowed size; expression size: {}",
                text.len()
            )));
        }
        let bytes = text.as_bytes();
        let mut at = 0;
        while let Some(&first) = bytes.get(at) {
            let run = |from: usize| from + bytes[from..].iter().take_while(|b| word_byte(**b)).count();
            let (token, to) = match first {
                b' ' | b'\t' | b'\n' | b'\r' => {
                    at += 1;
                    continue;
                }
                b'#' | b':' if run(at + 1) > at + 1 => (Token::Placeholder(&text[at..run(at + 1)]), run(at + 1)),
                b'0'..=b'9' => (Token::Digits(&text[at..run(at)]), run(at)),
                b if word_byte(b) => (Token::Word(&text[at..run(at)]), run(at)),
                _ => {
                    let sign = ["<>", "<=", ">=", "=", "<", ">", "(", ")", ",", ".", "[", "]", "+", "-"]
                        .into_iter()
                        .find(|sign| text[at..].starts_with(sign));
                    match sign {
                        Some(sign) => (Token::Sign(sign), at + sign.len()),
                        None => {
                            let to = at + text[at..].chars().next().map_or(1, char::len_utf8);
                            parser.tokens.push((Token::Sign(&text[at..to]), at, to));
                            parser.at = parser.tokens.len() - 1;
                            return Err(parser.wrong_token());
                        }
                    }
                }
            };
            parser.tokens.push((token, at, to));
            at = to;
        }
        Ok(parser)
    }

    pub(super) fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).map_or(Token::End, |(token, ..)| *token)
    }

    pub(super) fn take_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(s) if s == sign);
        self.at += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(w) if w.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    pub(super) fn sign(&mut self, sign: &str) -> Result<(), ApiError> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.wrong_token()) }
    }

    pub(super) fn end(&self) -> Result<(), ApiError> {
        if self.peek() == Token::End { Ok(()) } else { Err(self.wrong_token()) }
    }

    pub(super) fn error(&self, message: &str) -> ApiError {
        invalid(&format!("Invalid {}: {message}", self.what))
    }

    pub(super) fn wrong_token(&self) -> ApiError {
        let token = self.tokens.get(self.at).map_or("<EOF>", |(_, from, to)| &self.text[*from..*to]);
        let from = self.tokens.get(self.at.saturating_sub(1)).map_or(0, |(_, from, _)| *from);
        let to = self.tokens.get(self.at + 1).or(self.tokens.last()).map_or(self.text.len(), |(.., to)| *to);
        self.error(&format!("Syntax error; token: \"{token}\", near: \"{}\"", &self.text[from..to]))
    }

    fn operator(&mut self) -> Result<(), ApiError> {
        self.operators += 1;
        if self.operators > MAX_OPERATORS {
            return Err(
                self.error(&format!("The expression contains too many operators; operator count: {}", self.operators))
            );
        }
        Ok(())
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, ApiError>) -> Result<T, ApiError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("The expression has redundant parentheses;"));
        }
        let found = parse(self);
        self.depth -= 1;
        found
    }

    pub(super) fn or(&mut self) -> Result<Condition, ApiError> {
        let mut left = self.and()?;
        while self.take_word("OR") {
            self.operator()?;
            left = Condition::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Condition, ApiError> {
        let mut left = self.not()?;
        while self.take_word("AND") {
            self.operator()?;
            left = Condition::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Condition, ApiError> {
        if self.take_word("NOT") {
            self.operator()?;
            return Ok(Condition::Not(Box::new(self.deeper(Self::not)?)));
        }
        if self.take_sign("(") {
            let inside = self.deeper(Self::or)?;
            self.sign(")")?;
            return Ok(inside);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Condition, ApiError> {
        self.operator()?;
        if let Some(name) = self.function().filter(|name| *name != "size") {
            return self.function_condition(name);
        }
        let left = self.operand()?;
        if self.take_word("BETWEEN") {
            let low = self.operand()?;
            if !self.take_word("AND") {
                return Err(self.wrong_token());
            }
            let high = self.operand()?;
            if let (Operand::Value(low), Operand::Value(high)) = (&low, &high) {
                self.between_bounds(low, high)?;
            }
            return Ok(Condition::Between(left, low, high));
        }
        if self.take_word("IN") {
            self.sign("(")?;
            let mut list = vec![self.operand()?];
            while self.take_sign(",") {
                list.push(self.operand()?);
            }
            self.sign(")")?;
            if list.len() > 100 {
                return Err(self.error(&format!(
                    "Incorrect number of operands for operator or function; operator or function: IN, number of \
                     operands: {}",
                    list.len() + 1
                )));
            }
            return Ok(Condition::In(left, list));
        }
        let comparison = match self.peek() {
            Token::Sign("=") => Comparison::Equal,
            Token::Sign("<>") => Comparison::NotEqual,
            Token::Sign("<") => Comparison::Less,
            Token::Sign("<=") => Comparison::LessOrEqual,
            Token::Sign(">") => Comparison::Greater,
            Token::Sign(">=") => Comparison::GreaterOrEqual,
            _ => return Err(self.wrong_token()),
        };
        self.at += 1;
        let right = self.operand()?;
        if !matches!(comparison, Comparison::Equal | Comparison::NotEqual) {
            for operand in [&left, &right] {
                if let Operand::Value(value) = operand
                    && value.compare(value).is_none()
                {
                    let sign = match comparison {
                        Comparison::Less => "<",
                        Comparison::LessOrEqual => "<=",
                        Comparison::Greater => ">",
                        _ => ">=",
                    };
                    return Err(self.wrong_operand(sign, value));
                }
            }
        }
        if left == right && matches!(left, Operand::Path(_)) {
            return Err(self.error(
                "The first operand must be distinct from the remaining operands for this operator or function;",
            ));
        }
        Ok(Condition::Compare(comparison, left, right))
    }

    fn between_bounds(&self, low: &Value, high: &Value) -> Result<(), ApiError> {
        for value in [low, high] {
            if value.compare(value).is_none() {
                return Err(self.wrong_operand("BETWEEN", value));
            }
        }
        let shown = |v: &Value| {
            let text = match v.json() {
                Json::Object(map) => map.values().next().and_then(Json::as_str).unwrap_or("").to_owned(),
                _ => String::new(),
            };
            format!("AttributeValue: {{{}:{text}}}", v.kind())
        };
        let problem = match low.compare(high) {
            None => "same data type",
            Some(std::cmp::Ordering::Greater) => "greater",
            Some(_) => return Ok(()),
        };
        let rule = match problem {
            "greater" => "The BETWEEN operator requires upper bound to be greater than or equal to lower bound",
            _ => "The BETWEEN operator requires same data type for lower and upper bounds",
        };
        Err(self.error(&format!("{rule}; lower bound operand: {}, upper bound operand: {}", shown(low), shown(high))))
    }

    fn wrong_operand(&self, operator: &str, value: &Value) -> ApiError {
        self.error(&format!(
            "Incorrect operand type for operator or function; operator or function: {operator}, operand type: {}",
            value.kind()
        ))
    }

    /// A word with a parenthesis behind it.
    fn function(&self) -> Option<&'a str> {
        match (self.peek(), self.tokens.get(self.at + 1)) {
            (Token::Word(name), Some((Token::Sign("("), ..))) => Some(name),
            _ => None,
        }
    }

    fn function_condition(&mut self, name: &'a str) -> Result<Condition, ApiError> {
        let wanted = match name {
            "attribute_exists" | "attribute_not_exists" => 1,
            "attribute_type" | "begins_with" | "contains" => 2,
            "if_not_exists" | "list_append" => {
                return Err(
                    self.error(&format!("The function is not allowed in a condition expression; function: {name}"))
                );
            }
            _ => return Err(self.error(&format!("Invalid function name; function: {name}"))),
        };
        self.at += 2;
        let mut operands = vec![self.operand()?];
        while self.take_sign(",") {
            operands.push(self.operand()?);
        }
        self.sign(")")?;
        if operands.len() != wanted {
            return Err(self.error(&format!(
                "Incorrect number of operands for operator or function; operator or function: {name}, number of \
                 operands: {}",
                operands.len()
            )));
        }
        let mut operands = operands.into_iter();
        let (Some(first), second) = (operands.next(), operands.next()) else { return Err(self.wrong_token()) };
        let no_path =
            || self.error(&format!("Operator or function requires a document path; operator or function: {name}"));
        match (name, second) {
            ("attribute_exists" | "attribute_not_exists" | "attribute_type", second) => {
                let Operand::Path(path) = first else { return Err(no_path()) };
                match (name, second) {
                    ("attribute_exists", _) => Ok(Condition::Exists(path)),
                    ("attribute_type", Some(Operand::Value(Value::Text(kind)))) => {
                        if !["S", "N", "B", "BOOL", "NULL", "L", "M", "SS", "NS", "BS"].contains(&kind.as_str()) {
                            return Err(self.error(&format!(
                                "Invalid attribute type name found; type: {kind}, valid types: \
                                 {{B,NULL,SS,BOOL,L,BS,N,NS,S,M}}"
                            )));
                        }
                        Ok(Condition::IsType(path, kind))
                    }
                    ("attribute_type", Some(Operand::Value(value))) => Err(self.wrong_operand(name, &value)),
                    ("attribute_type", _) => Err(self.wrong_token()),
                    _ => Ok(Condition::NotExists(path)),
                }
            }
            (_, Some(second)) => {
                for operand in [&first, &second] {
                    if let Operand::Value(value) = operand
                        && name == "begins_with"
                        && !matches!(value, Value::Text(_) | Value::Binary(_))
                    {
                        return Err(self.wrong_operand(name, value));
                    }
                }
                Ok(match name {
                    "begins_with" => Condition::BeginsWith(first, second),
                    _ => Condition::Contains(first, second),
                })
            }
            (_, None) => Err(self.wrong_token()),
        }
    }

    fn operand(&mut self) -> Result<Operand, ApiError> {
        match self.function() {
            Some("size") => {
                self.at += 2;
                let path = self.path()?;
                self.sign(")")?;
                Ok(Operand::Size(path))
            }
            Some(name) => Err(self
                .error(&format!("The function is not allowed to be used this way in an expression; function: {name}"))),
            None => match self.peek() {
                Token::Placeholder(p) if p.starts_with(':') => Ok(Operand::Value(self.value()?)),
                _ => Ok(Operand::Path(self.path()?)),
            },
        }
    }

    pub(super) fn value(&mut self) -> Result<Value, ApiError> {
        let Token::Placeholder(place) = self.peek() else { return Err(self.wrong_token()) };
        if !place.starts_with(':') {
            return Err(self.wrong_token());
        }
        let Some(value) = self.places.values.get(place) else {
            return Err(self.error(&format!(
                "An expression attribute value used in expression is not defined; attribute value: {place}"
            )));
        };
        self.places.used.borrow_mut().insert(place.to_owned());
        self.at += 1;
        Ok(value.clone())
    }

    pub(super) fn path(&mut self) -> Result<Path, ApiError> {
        let mut steps = vec![self.name()?];
        loop {
            if self.take_sign(".") {
                steps.push(self.name()?);
            } else if self.take_sign("[") {
                let Token::Digits(digits) = self.peek() else { return Err(self.wrong_token()) };
                let Ok(index) = digits.parse::<u32>() else { return Err(self.wrong_token()) };
                self.at += 1;
                self.sign("]")?;
                steps.push(Step::Index(index as usize));
            } else {
                break;
            }
        }
        if steps.len() > 32 {
            return Err(self.error("The document path has too many nesting elements;"));
        }
        Ok(Path(steps))
    }

    fn name(&mut self) -> Result<Step, ApiError> {
        let name = match self.peek() {
            Token::Placeholder(place) if place.starts_with('#') => {
                let Some(name) = self.places.names.get(place) else {
                    return Err(self.error(&format!(
                        "An expression attribute name used in the document path is not defined; attribute name: {place}"
                    )));
                };
                self.places.used.borrow_mut().insert(place.to_owned());
                name.clone()
            }
            Token::Word(word) => {
                let upper = word.to_ascii_uppercase();
                if matches!(upper.as_str(), "AND" | "OR" | "NOT" | "BETWEEN" | "IN") {
                    return Err(self.wrong_token());
                }
                if RESERVED.contains(upper.as_str()) {
                    return Err(self.error(&format!("Attribute name is a reserved keyword; reserved keyword: {word}")));
                }
                word.to_owned()
            }
            _ => return Err(self.wrong_token()),
        };
        self.at += 1;
        Ok(Step::Name(name))
    }

    pub(super) fn sum(&mut self) -> Result<Sum, ApiError> {
        let left = self.term()?;
        self.operator()?;
        if self.take_sign("+") {
            return Ok(Sum::Plus(left, self.term()?));
        }
        if self.take_sign("-") {
            return Ok(Sum::Minus(left, self.term()?));
        }
        Ok(Sum::One(left))
    }

    fn term(&mut self) -> Result<Term, ApiError> {
        let Some(name) = self.function() else {
            if self.take_sign("(") {
                let inside = self.deeper(Self::term)?;
                self.sign(")")?;
                return Ok(inside);
            }
            return match self.peek() {
                Token::Placeholder(p) if p.starts_with(':') => Ok(Term::Value(self.value()?)),
                _ => Ok(Term::Path(self.path()?)),
            };
        };
        if !matches!(name, "if_not_exists" | "list_append") {
            return Err(self.error(&format!("Invalid function name; function: {name}")));
        }
        self.operator()?;
        self.at += 2;
        let first = self.deeper(Self::term)?;
        self.sign(",")?;
        let second = self.deeper(Self::term)?;
        self.sign(")")?;
        match (name, first) {
            ("list_append", first) => Ok(Term::ListAppend(Box::new(first), Box::new(second))),
            (_, Term::Path(path)) => Ok(Term::IfNotExists(path, Box::new(second))),
            _ => {
                Err(self.error(&format!("Operator or function requires a document path; operator or function: {name}")))
            }
        }
    }
}
