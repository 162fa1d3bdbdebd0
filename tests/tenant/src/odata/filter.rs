//! `$filter` text to an expression (OData 4.01, the part that Graph knows).
//!
//! `or` binds weaker than `and`, `and` weaker than `not`. A string stands in single quotes, a quote in
//! it is doubled; times and numbers stand bare.

use jiff::Timestamp;

use super::QueryError;

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expression {
    /// Both hold.
    And(Box<Self>, Box<Self>),
    /// One of them holds.
    Or(Box<Self>, Box<Self>),
    /// It does not hold.
    Not(Box<Self>),
    /// A property against a value.
    Compare(Path, Operator, Literal),
    /// A property among values.
    In(Path, Vec<Literal>),
    /// `startswith`, `endswith` or `contains` of a property and a text.
    Match(Matching, Path, String),
    /// `collection/any(variable:condition)`; in the condition the variable's name is taken off.
    Any(Path, Box<Self>),
}

/// A property: `from/emailAddress/address` as its parts joined with "/"; empty is the lambda's variable itself.
pub(crate) type Path = String;

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Eq,
    Ne,
    Ge,
    Le,
    Gt,
    Lt,
}

/// A function that gives true or false.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Matching {
    StartsWith,
    EndsWith,
    Contains,
}

/// A value in the text of a filter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    /// In single quotes.
    Text(String),
    /// Bare digits.
    Number(i64),
    /// `true` or `false`.
    Bool(bool),
    /// RFC 3339, bare.
    Time(Timestamp),
    /// `null`.
    Null,
}

/// Deepest nesting of parentheses, `not` and lambdas.
const DEPTH: usize = 40;

/// The condition that `text` writes.
///
/// # Errors
///
/// A syntax error with its position, as Graph words it.
pub(crate) fn parse(text: &str) -> Result<Expression, QueryError> {
    let tokens = tokens(text)?;
    let mut parser = Parser {
        text,
        tokens,
        next: 0,
        variables: Vec::new(),
        depth: 0,
    };
    let expression = parser.or()?;
    match parser.peek() {
        None => Ok(expression),
        Some(_) => Err(parser.syntax_error()),
    }
}

impl Expression {
    /// How many conditions the longest chain of `or` joins.
    pub(crate) fn alternatives(&self) -> usize {
        match self {
            Self::Or(one, two) => one.alternatives() + two.alternatives(),
            _ => 1,
        }
    }

    /// The properties that it names, in order of appearance.
    pub(crate) fn paths(&self) -> Vec<&str> {
        match self {
            Self::And(one, two) | Self::Or(one, two) => {
                let mut paths = one.paths();
                paths.extend(two.paths());
                paths
            }
            Self::Not(inner) => inner.paths(),
            Self::Compare(path, ..)
            | Self::In(path, _)
            | Self::Match(_, path, _)
            | Self::Any(path, _) => vec![path],
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Literal(Literal),
    Open,
    Close,
    Comma,
    Colon,
}

/// The tokens of `text` with their positions.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, QueryError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(' ');
        let position = text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            return Ok(tokens);
        };
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            ':' => (Token::Colon, 1),
            '\'' => quoted(rest, position, text)?,
            c if c.is_ascii_alphanumeric() || "_-@".contains(c) => bare(rest, position, text)?,
            _ => return Err(syntax(position, text)),
        };
        tokens.push((position, token));
        rest = &rest[length..];
    }
}

/// A string with its quotes.
fn quoted(rest: &str, position: usize, text: &str) -> Result<(Token, usize), QueryError> {
    let mut value = String::new();
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((index, character)) = characters.next() {
        if character != '\'' {
            value.push(character);
        } else if characters.next_if(|(_, next)| *next == '\'').is_some() {
            value.push('\'');
        } else {
            return Ok((Token::Literal(Literal::Text(value)), index + 1));
        }
    }
    let message = format!(
        "There is an unterminated string literal at position {} in '{text}'.",
        position + rest.len()
    );
    Err(QueryError::bad(message))
}

/// A word, a number, a time, `true`, `false` or `null`.
fn bare(rest: &str, position: usize, text: &str) -> Result<(Token, usize), QueryError> {
    let starts_with_digit = rest.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let allowed = |c: char| {
        c.is_ascii_alphanumeric() || "_/.@-".contains(c) || (starts_with_digit && "+:".contains(c))
    };
    let length = rest.find(|c| !allowed(c)).unwrap_or(rest.len());
    let word = &rest[..length];
    let literal = match word {
        "true" => Literal::Bool(true),
        "false" => Literal::Bool(false),
        "null" => Literal::Null,
        _ if !starts_with_digit => return Ok((Token::Word(word.to_owned()), length)),
        _ => match (word.parse(), word.parse::<Timestamp>()) {
            (Ok(number), _) => Literal::Number(number),
            (_, Ok(time)) => Literal::Time(time),
            _ => return Err(syntax(position, text)),
        },
    };
    Ok((Token::Literal(literal), length))
}

fn syntax(position: usize, text: &str) -> QueryError {
    QueryError::bad(format!(
        "Invalid filter clause: Syntax error at position {position} in '{text}'."
    ))
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    next: usize,
    variables: Vec<String>,
    depth: usize,
}

impl Parser<'_> {
    fn or(&mut self) -> Result<Expression, QueryError> {
        let mut left = self.and()?;
        while self.take_word("or") {
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expression, QueryError> {
        let mut left = self.unary()?;
        while self.take_word("and") {
            left = Expression::And(Box::new(left), Box::new(self.unary()?));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expression, QueryError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(QueryError::bad("The recursion limit has been exceeded."));
        }
        let expression = if self.take_word("not") {
            Expression::Not(Box::new(self.unary()?))
        } else if self.take(&Token::Open) {
            let inner = self.or()?;
            self.expect(&Token::Close)?;
            inner
        } else {
            self.condition()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    /// A comparison, a function, `in` or a lambda.
    fn condition(&mut self) -> Result<Expression, QueryError> {
        let word = self.word()?;
        if let Some(collection) = word.strip_suffix("/any") {
            return self.lambda(collection);
        }
        if self.peek() == Some(&Token::Open) {
            return self.function(&word);
        }
        let path = self.path(&word);
        let operator = match self.word()?.as_str() {
            "eq" => Operator::Eq,
            "ne" => Operator::Ne,
            "ge" => Operator::Ge,
            "le" => Operator::Le,
            "gt" => Operator::Gt,
            "lt" => Operator::Lt,
            "in" => return self.list(path),
            _ => {
                self.next -= 1;
                return Err(self.syntax_error());
            }
        };
        Ok(Expression::Compare(path, operator, self.literal()?))
    }

    fn lambda(&mut self, collection: &str) -> Result<Expression, QueryError> {
        let collection = self.path(collection);
        self.expect(&Token::Open)?;
        let variable = self.word()?;
        self.expect(&Token::Colon)?;
        self.variables.push(variable);
        let condition = self.or()?;
        self.variables.pop();
        self.expect(&Token::Close)?;
        Ok(Expression::Any(collection, Box::new(condition)))
    }

    fn function(&mut self, name: &str) -> Result<Expression, QueryError> {
        let matching = match name.to_ascii_lowercase().as_str() {
            "startswith" => Matching::StartsWith,
            "endswith" => Matching::EndsWith,
            "contains" => Matching::Contains,
            _ => {
                return Err(QueryError::bad(format!(
                    "An unknown function with name '{name}' was found."
                )));
            }
        };
        self.expect(&Token::Open)?;
        let word = self.word()?;
        let path = self.path(&word);
        self.expect(&Token::Comma)?;
        let Literal::Text(text) = self.literal()? else {
            return Err(self.syntax_error());
        };
        self.expect(&Token::Close)?;
        Ok(Expression::Match(matching, path, text))
    }

    fn list(&mut self, path: Path) -> Result<Expression, QueryError> {
        self.expect(&Token::Open)?;
        let mut values = vec![self.literal()?];
        while self.take(&Token::Comma) {
            values.push(self.literal()?);
        }
        self.expect(&Token::Close)?;
        Ok(Expression::In(path, values))
    }

    /// A property's path; the innermost lambda's variable is taken off its front.
    fn path(&self, word: &str) -> Path {
        let Some(variable) = self.variables.last() else {
            return word.to_owned();
        };
        match word.strip_prefix(variable.as_str()) {
            Some("") => String::new(),
            Some(rest) => rest.strip_prefix('/').unwrap_or(word).to_owned(),
            None => word.to_owned(),
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(next)) if next == word);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, token: &Token) -> Result<(), QueryError> {
        if self.take(token) {
            Ok(())
        } else {
            Err(self.syntax_error())
        }
    }

    fn word(&mut self) -> Result<String, QueryError> {
        let Some(Token::Word(word)) = self.peek() else {
            return Err(self.syntax_error());
        };
        let word = word.clone();
        self.next += 1;
        Ok(word)
    }

    fn literal(&mut self) -> Result<Literal, QueryError> {
        let Some(Token::Literal(literal)) = self.peek() else {
            return Err(self.syntax_error());
        };
        let literal = literal.clone();
        self.next += 1;
        Ok(literal)
    }

    fn syntax_error(&self) -> QueryError {
        let position = self
            .tokens
            .get(self.next)
            .map_or(self.text.len(), |(position, _)| *position);
        syntax(position, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(path: &str, value: &str) -> Expression {
        Expression::Compare(path.into(), Operator::Eq, Literal::Text(value.into()))
    }

    #[test]
    fn filters() {
        let and = |one, two| Expression::And(Box::new(one), Box::new(two));
        let or = |one, two| Expression::Or(Box::new(one), Box::new(two));
        let time = |text: &str| Literal::Time(text.parse().unwrap());
        for (name, text, expected) in [
            (
                "equality",
                "internetMessageId eq '<a@b>'",
                equal("internetMessageId", "<a@b>"),
            ),
            ("doubled quote", "a eq 'O''Brien'''", equal("a", "O'Brien'")),
            ("empty string", "a eq ''", equal("a", "")),
            (
                "lambda",
                "proxyAddresses/any(p:p eq 'smtp:x')",
                Expression::Any("proxyAddresses".into(), Box::new(equal("", "smtp:x"))),
            ),
            (
                "lambda over records",
                "x/any(ep: ep/id eq 'String 0x1035' and ep/value eq 'v')",
                Expression::Any(
                    "x".into(),
                    Box::new(and(equal("id", "String 0x1035"), equal("value", "v"))),
                ),
            ),
            (
                "and before or",
                "a eq '1' or b eq '2' and c eq '3'",
                or(equal("a", "1"), and(equal("b", "2"), equal("c", "3"))),
            ),
            (
                "parentheses",
                "(a eq '1' or b eq '2') and c eq '3'",
                and(or(equal("a", "1"), equal("b", "2")), equal("c", "3")),
            ),
            (
                "not before and",
                "not a eq '1' and b eq '2'",
                and(Expression::Not(Box::new(equal("a", "1"))), equal("b", "2")),
            ),
            (
                "time",
                "t ge 2026-01-31T00:00:00Z",
                Expression::Compare("t".into(), Operator::Ge, time("2026-01-31T00:00:00Z")),
            ),
            (
                "time with offset",
                "t lt 2026-01-31T00:00:00.5+02:00",
                Expression::Compare("t".into(), Operator::Lt, time("2026-01-30T22:00:00.5Z")),
            ),
            (
                "boolean",
                "isRead eq false",
                Expression::Compare("isRead".into(), Operator::Eq, Literal::Bool(false)),
            ),
            (
                "null",
                "mail ne null",
                Expression::Compare("mail".into(), Operator::Ne, Literal::Null),
            ),
            (
                "nested path",
                "from/emailAddress/address eq 'a'",
                equal("from/emailAddress/address", "a"),
            ),
            (
                "function in any case",
                "startsWith(mail,'a')",
                Expression::Match(Matching::StartsWith, "mail".into(), "a".into()),
            ),
            (
                "list",
                "mail in ('a', 'b')",
                Expression::In(
                    "mail".into(),
                    vec![Literal::Text("a".into()), Literal::Text("b".into())],
                ),
            ),
        ] {
            assert_eq!(parse(text), Ok(expected), "{name}");
        }
    }

    #[test]
    fn mistakes() {
        for (name, text) in [
            ("empty", ""),
            ("no operator", "a 'x'"),
            ("no value", "a eq"),
            ("bare text as value", "a eq <x@y>"),
            ("quote not doubled", "a eq 'O'Brien'"),
            ("open string", "a eq 'x"),
            ("open parenthesis", "(a eq 'x'"),
            ("something after it", "a eq 'x' b"),
            ("unknown operator", "a like 'x'"),
            ("unknown function", "upper(a,'x')"),
            ("lambda without variable", "p/any(eq 'x')"),
            ("broken time", "t ge 2026-13-31T00:00:00Z"),
        ] {
            assert!(parse(text).is_err(), "{name}: {:?}", parse(text));
        }
        assert!(parse(&"(".repeat(100_000)).is_err(), "deep nesting");
    }
}
