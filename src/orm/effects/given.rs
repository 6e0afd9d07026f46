//! Values that a statement gives to columns, and the keys made of them.

use std::borrow::Cow;

use sea_orm::DbBackend;
use sea_orm::sea_query::Value;

use super::scan::{Kind, Token};
use crate::key::{ColumnKind, KeyPart};
use crate::orm::meta::EntityMeta;

/// What a statement gives to a column.
#[derive(Clone, Debug)]
pub(super) enum Given<'v> {
    /// A bound value or a literal.
    Value(Cow<'v, Value>),
    /// `DEFAULT`.
    Default,
    /// An expression.
    Unknown,
}

impl<'v> Given<'v> {
    /// What the tokens of one expression give.
    pub(super) fn of(tokens: &[Token<'_>], values: &'v [Value]) -> Self {
        let sign = |token: &Token<'_>| token.kind == Kind::Symbol(b'-');
        match tokens {
            [token] => Self::of_token(token, values),
            [first, number] if sign(first) && number.kind == Kind::Number => {
                Self::integer(number.text, -1)
            }
            _ => Self::Unknown,
        }
    }

    fn of_token(token: &Token<'_>, values: &'v [Value]) -> Self {
        match token.kind {
            Kind::Param(Some(at)) => values
                .get(at)
                .map_or(Self::Unknown, |value| Self::Value(Cow::Borrowed(value))),
            Kind::Number => Self::integer(token.text, 1),
            Kind::Text { plain: true } => Self::literal(token.text),
            Kind::Word if token.is("NULL") => Self::literal(None::<i64>),
            Kind::Word if token.is("TRUE") => Self::literal(true),
            Kind::Word if token.is("FALSE") => Self::literal(false),
            Kind::Word if token.is("DEFAULT") => Self::Default,
            _ => Self::Unknown,
        }
    }

    fn literal(value: impl Into<Value>) -> Self {
        Self::Value(Cow::Owned(value.into()))
    }

    fn integer(digits: &str, sign: i128) -> Self {
        let Some(number) = digits.parse::<i128>().ok().map(|n| n * sign) else {
            return Self::Unknown;
        };
        match (i64::try_from(number), u64::try_from(number)) {
            (Ok(number), _) => Self::literal(number),
            (_, Ok(number)) => Self::literal(number),
            _ => Self::Unknown,
        }
    }

    pub(super) fn value(&self) -> Option<&Value> {
        match self {
            Self::Value(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        self.value().is_some_and(|value| *value == value.as_null())
    }

    /// Whether the database puts a value of its own here when a row is inserted, if the column
    /// counts up by itself: MySQL takes zero for "the next one" as well.
    pub(super) fn is_generated(&self, backend: DbBackend) -> bool {
        let key = |value| KeyPart::of([ColumnKind::Integer], [value], backend);
        let zero = || key(self.value()?).filter(|key| key.as_str() == "0");
        self.is_null() || (backend == DbBackend::MySql && zero().is_some())
    }
}

/// The key of the values of some columns.
#[derive(Debug)]
pub(super) enum Keyed {
    Key(KeyPart),
    /// One of them is NULL, which nothing is equal to.
    Null,
    /// One of them is not known or cannot be keyed.
    Unknown,
}

/// The key of `columns` (positions in the entity's columns), which get `given`.
pub(super) fn keyed(
    meta: &EntityMeta,
    columns: &[usize],
    given: &[Given<'_>],
    backend: DbBackend,
) -> Keyed {
    let kinds = columns.iter().map(|&column| meta.columns[column].kind);
    // Fewer values than kinds, where one is not known, make no key.
    let values = given.iter().map_while(Given::value);
    match KeyPart::of(kinds, values, backend) {
        Some(key) => Keyed::Key(key),
        None if given.iter().any(Given::is_null) => Keyed::Null,
        None => Keyed::Unknown,
    }
}
