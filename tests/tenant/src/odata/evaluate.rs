//! Applies a `$filter`: first to the properties of a type, then to values.

use jiff::Timestamp;

use super::QueryError;
use super::filter::{Expression, Literal, Matching, Operator};

/// What a property holds, for checking a filter before it is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// Text.
    Text,
    /// `true` or `false`.
    Bool,
    /// A point in time.
    Time,
    /// A list of texts.
    Texts,
    /// A list of records, whose members are texts.
    Records,
    /// It exists, but the service cannot filter by it.
    Unfilterable,
}

/// What a property of one entity is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Text.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
    /// A point in time.
    Time(Timestamp),
    /// Nothing.
    Null,
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of records: their members by name.
    Records(Vec<Vec<(&'static str, String)>>),
}

/// # Errors
///
/// A property that the type does not have or cannot filter by, or a literal of another type.
pub(crate) fn check(
    expression: &Expression,
    type_name: &str,
    property: &dyn Fn(&str) -> Option<Type>,
) -> Result<(), QueryError> {
    let of = |path: &str| match property(path) {
        None => Err(QueryError::bad(format!(
            "Could not find a property named '{path}' on type '{type_name}'."
        ))),
        Some(Type::Unfilterable) => Err(unfilterable()),
        Some(found) => Ok(found),
    };
    match expression {
        Expression::And(one, two) | Expression::Or(one, two) => {
            check(one, type_name, property)?;
            check(two, type_name, property)
        }
        Expression::Not(inner) => check(inner, type_name, property),
        Expression::Compare(path, _, literal) => compatible(of(path)?, literal),
        Expression::In(path, literals) => {
            let found = of(path)?;
            literals
                .iter()
                .try_for_each(|literal| compatible(found, literal))
        }
        Expression::Match(_, path, text) => compatible(of(path)?, &Literal::Text(text.clone())),
        Expression::Any(path, condition) => match of(path)? {
            Type::Texts => check(condition, type_name, &|path: &str| {
                path.is_empty().then_some(Type::Text)
            }),
            Type::Records => check(condition, type_name, &|path: &str| {
                (!path.is_empty()).then_some(Type::Text)
            }),
            _ => Err(QueryError::bad(format!(
                "Any/All may only be used following a collection; '{path}' is none."
            ))),
        },
    }
}

fn unfilterable() -> QueryError {
    QueryError::coded(
        "ErrorInvalidUrlQueryFilter",
        "The query filter contains one or more invalid nodes.",
    )
}

fn compatible(found: Type, literal: &Literal) -> Result<(), QueryError> {
    let (property, value) = match (found, literal) {
        (Type::Text, Literal::Text(_) | Literal::Null)
        | (Type::Bool, Literal::Bool(_))
        | (Type::Time, Literal::Time(_)) => return Ok(()),
        (Type::Texts | Type::Records | Type::Unfilterable, _) => return Err(unfilterable()),
        (Type::Text, _) => ("Edm.String", literal),
        (Type::Bool, _) => ("Edm.Boolean", literal),
        (Type::Time, _) => ("Edm.DateTimeOffset", literal),
    };
    Err(QueryError::bad(format!(
        "A binary operator with incompatible types was detected. Found operand types '{property}' and {value:?}."
    )))
}

/// Whether the entity whose properties `value` gives fulfils the (checked) expression.
/// `exact` is whether texts are compared with regard to case.
pub(crate) fn holds(expression: &Expression, exact: bool, value: &dyn Fn(&str) -> Value) -> bool {
    match expression {
        Expression::And(one, two) => holds(one, exact, value) && holds(two, exact, value),
        Expression::Or(one, two) => holds(one, exact, value) || holds(two, exact, value),
        Expression::Not(inner) => !holds(inner, exact, value),
        Expression::Compare(path, operator, literal) => {
            compare(&value(path), *operator, literal, exact)
        }
        Expression::In(path, literals) => {
            let found = value(path);
            literals
                .iter()
                .any(|literal| compare(&found, Operator::Eq, literal, exact))
        }
        Expression::Match(matching, path, text) => match value(path) {
            Value::Text(found) => matches(*matching, &folded(&found, exact), &folded(text, exact)),
            _ => false,
        },
        Expression::Any(path, condition) => match value(path) {
            Value::Texts(items) => items
                .iter()
                .any(|item| holds(condition, exact, &|_| Value::Text(item.clone()))),
            Value::Records(items) => items.iter().any(|members| {
                holds(condition, exact, &|path| {
                    let member = members.iter().find(|(name, _)| *name == path);
                    member.map_or(Value::Null, |(_, text)| Value::Text(text.clone()))
                })
            }),
            _ => false,
        },
    }
}

fn compare(found: &Value, operator: Operator, literal: &Literal, exact: bool) -> bool {
    let order = match (found, literal) {
        (Value::Text(found), Literal::Text(text)) => folded(found, exact).cmp(&folded(text, exact)),
        (Value::Bool(found), Literal::Bool(flag)) => found.cmp(flag),
        (Value::Time(found), Literal::Time(time)) => found.cmp(time),
        (Value::Null, Literal::Null) => return operator == Operator::Eq,
        _ => return operator == Operator::Ne,
    };
    match operator {
        Operator::Eq => order.is_eq(),
        Operator::Ne => order.is_ne(),
        Operator::Ge => order.is_ge(),
        Operator::Le => order.is_le(),
        Operator::Gt => order.is_gt(),
        Operator::Lt => order.is_lt(),
    }
}

fn matches(matching: Matching, found: &str, text: &str) -> bool {
    match matching {
        Matching::StartsWith => found.starts_with(text),
        Matching::EndsWith => found.ends_with(text),
        Matching::Contains => found.contains(text),
    }
}

fn folded(text: &str, exact: bool) -> String {
    if exact {
        text.to_owned()
    } else {
        text.to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::parse;
    use super::*;

    fn property(path: &str) -> Option<Type> {
        match path {
            "mail" => Some(Type::Text),
            "isRead" => Some(Type::Bool),
            "at" => Some(Type::Time),
            "proxyAddresses" => Some(Type::Texts),
            "records" => Some(Type::Records),
            "body" => Some(Type::Unfilterable),
            _ => None,
        }
    }

    fn value(path: &str) -> Value {
        match path {
            "mail" => Value::Text("Ana@x.example".into()),
            "isRead" => Value::Bool(true),
            "at" => Value::Time("2026-07-06T08:00:00Z".parse().unwrap()),
            "proxyAddresses" => {
                Value::Texts(vec!["SMTP:ana@x.example".into(), "smtp:a@x.example".into()])
            }
            "records" => Value::Records(vec![
                vec![("id", "1".into()), ("value", "v".into())],
                vec![("id", "2".into())],
            ]),
            _ => Value::Null,
        }
    }

    #[test]
    fn conditions() {
        for (text, expected) in [
            ("mail eq 'ana@X.example'", true),
            ("mail ne 'ana@x.example'", false),
            ("startswith(mail,'ana@')", true),
            ("endswith(mail,'y.example')", false),
            ("isRead eq true and at ge 2026-07-06T08:00:00Z", true),
            ("at gt 2026-07-06T08:00:00Z or isRead eq false", false),
            ("not(isRead eq false)", true),
            ("proxyAddresses/any(p:p eq 'smtp:A@x.example')", true),
            ("proxyAddresses/any(p:startswith(p,'smtp:b'))", false),
            ("records/any(r:r/id eq '1' and r/value eq 'v')", true),
            ("records/any(r:r/id eq '2' and r/value eq 'v')", false),
            ("mail in ('b','ana@x.example')", true),
        ] {
            let expression = parse(text).unwrap();
            assert_eq!(check(&expression, "t", &property), Ok(()), "{text}");
            assert_eq!(holds(&expression, false, &value), expected, "{text}");
        }
        assert!(
            !holds(&parse("mail eq 'ana@x.example'").unwrap(), true, &value),
            "exact"
        );
    }

    #[test]
    fn refusals() {
        for (name, text) in [
            ("unknown property", "nail eq 'x'"),
            ("time in quotes", "at ge '2026-07-06T08:00:00Z'"),
            ("text for a boolean", "isRead eq 'true'"),
            ("lambda over text", "mail/any(m:m eq 'x')"),
            ("list without lambda", "proxyAddresses eq 'x'"),
            ("what cannot be filtered", "body eq 'x'"),
            ("inside a lambda", "proxyAddresses/any(p:q eq 'x')"),
        ] {
            assert!(
                check(&parse(text).unwrap(), "t", &property).is_err(),
                "{name}"
            );
        }
    }
}
