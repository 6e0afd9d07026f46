//! Which rows a `WHERE` clause can match at most, if it compares the primary key with values.

use std::borrow::Cow;

use sea_orm::DbBackend;
use sea_orm::sea_query::Value;

use super::Touched;
use super::cursor;
use super::found::LIMIT;
use super::given::{Given, Keyed, keyed};
use super::scan::{Kind, Token};
use crate::key::KeyPart;
use crate::orm::meta::{EntityMeta, same_name};

/// Parentheses nested deeper than this are not looked into.
const DEEPEST: usize = 16;

/// The table that is written, as one entity.
pub(super) struct Target<'t> {
    pub(super) meta: &'static EntityMeta,
    pub(super) table: &'t str,
    pub(super) alias: Option<Cow<'t, str>>,
}

/// A column of the primary key that must equal one of some expressions.
struct Pin<'t, 's> {
    column: usize,
    expressions: Vec<&'t [Token<'s>]>,
}

/// The rows of `target` that a statement ending in `rest` can match.
pub(super) fn pinned(
    target: &Target<'_>,
    rest: &[Token<'_>],
    values: &[Value],
    backend: DbBackend,
) -> Touched<KeyPart> {
    let pins = pins(target, rest, backend);
    match target.meta.primary_key[..] {
        [] => None,
        [_] => pins
            .iter()
            .find_map(|pin| one_of(pin, target, values, backend)),
        _ => every_column(&pins, target, values, backend),
    }
    .map_or(Touched::All, Touched::Only)
}

/// The keys of a primary key of one column.
fn one_of(
    pin: &Pin<'_, '_>,
    target: &Target<'_>,
    values: &[Value],
    backend: DbBackend,
) -> Option<Vec<KeyPart>> {
    let mut keys = Vec::with_capacity(pin.expressions.len());
    if pin.expressions.len() > LIMIT {
        return None;
    }
    for expression in &pin.expressions {
        let given = [Given::of(expression, values)];
        match keyed(target.meta, &[pin.column], &given, backend) {
            Keyed::Key(key) => keys.push(key),
            Keyed::Null => {}
            Keyed::Unknown => return None,
        }
    }
    Some(keys)
}

/// The key of a primary key of several columns, each of which is pinned to one value.
fn every_column(
    pins: &[Pin<'_, '_>],
    target: &Target<'_>,
    values: &[Value],
    backend: DbBackend,
) -> Option<Vec<KeyPart>> {
    let columns = &target.meta.primary_key;
    let value = |column: &usize| {
        pins.iter()
            .filter(|pin| pin.column == *column)
            .find_map(|pin| match pin.expressions[..] {
                [expression] => Some(Given::of(expression, values)),
                _ => None,
            })
    };
    let given: Option<Vec<_>> = columns.iter().map(value).collect();
    match keyed(target.meta, columns, &given?, backend) {
        Keyed::Key(key) => Some(vec![key]),
        Keyed::Null => Some(Vec::new()),
        Keyed::Unknown => None,
    }
}

fn pins<'t, 's>(
    target: &Target<'_>,
    rest: &'t [Token<'s>],
    backend: DbBackend,
) -> Vec<Pin<'t, 's>> {
    let mut pins = Vec::new();
    let condition = match rest {
        [first, condition @ ..] if first.is("WHERE") => condition,
        _ => return pins,
    };
    // Past the end of the clause as well: its end may be a column that is called `returning`.
    if !has_alternatives(condition) {
        let end = cursor::find(condition, &["RETURNING", "ORDER", "LIMIT"]);
        let condition = &condition[..end.unwrap_or(condition.len())];
        each_conjunct(condition, 0, &mut |part| {
            pins.extend(pin(target, part, backend))
        });
    }
    pins
}

/// Whether a part of this condition can be false and the whole true. On MySQL `||` may be `OR`.
fn has_alternatives(condition: &[Token<'_>]) -> bool {
    cursor::top_level(condition)
        .any(|(_, token)| token.is_any(&["OR", "XOR", "CASE"]) || token.kind == Kind::Symbol(b'|'))
}

fn each_conjunct<'t, 's>(
    condition: &'t [Token<'s>],
    depth: usize,
    visit: &mut impl FnMut(&'t [Token<'s>]),
) {
    if depth > DEEPEST || has_alternatives(condition) {
        return;
    }
    let mut start = 0;
    let mut between = 0usize;
    for (at, token) in cursor::top_level(condition) {
        if token.is("BETWEEN") {
            between += 1;
        } else if token.is("AND") && between > 0 {
            between -= 1;
        } else if token.is("AND") {
            conjunct(&condition[start..at], depth, visit);
            start = at + 1;
        }
    }
    conjunct(&condition[start..], depth, visit);
}

fn conjunct<'t, 's>(part: &'t [Token<'s>], depth: usize, visit: &mut impl FnMut(&'t [Token<'s>])) {
    match cursor::group(part).filter(|inner| inner.len() + 2 == part.len()) {
        Some(inner) => each_conjunct(inner, depth + 1, visit),
        None => visit(part),
    }
}

/// `pk = x`, `x = pk` or `pk IN (x, ..)`.
fn pin<'t, 's>(
    target: &Target<'_>,
    part: &'t [Token<'s>],
    backend: DbBackend,
) -> Option<Pin<'t, 's>> {
    let equals = |token: &Token<'_>| token.kind == Kind::Symbol(b'=');
    let at = part
        .iter()
        .position(|token| equals(token) || token.is("IN"))?;
    let (left, right) = (&part[..at], &part[at + 1..]);
    if !equals(&part[at]) {
        let inner = cursor::group(right).filter(|inner| inner.len() + 2 == right.len())?;
        return Some(Pin {
            column: column(target, left, backend)?,
            expressions: cursor::list(inner).collect(),
        });
    }
    let (column, expression) = match column(target, left, backend) {
        Some(column) => (column, right),
        None => (column(target, right, backend)?, left),
    };
    Some(Pin {
        column,
        expressions: vec![expression],
    })
}

/// The column of the primary key that `tokens` name.
fn column(target: &Target<'_>, tokens: &[Token<'_>], backend: DbBackend) -> Option<usize> {
    let dot = |token: &Token<'_>| token.kind == Kind::Symbol(b'.');
    let (name, qualifier) = match tokens {
        [name] => (name, None),
        [table, first, name] if dot(first) => (name, Some(table)),
        [_, first, table, second, name] if dot(first) && dot(second) => (name, Some(table)),
        _ => return None,
    };
    if qualifier.is_some_and(|table| !target.goes_by(&table.name())) || !is_column(name, backend) {
        return None;
    }
    let name = name.name();
    let mut columns = target.meta.primary_key.iter().copied();
    columns.find(|&column| same_name(&target.meta.columns[column].name, &name))
}

/// Whether this is an identifier and nothing else: MySQL may take `"id"` for a string.
fn is_column(token: &Token<'_>, backend: DbBackend) -> bool {
    match token.kind {
        Kind::Word => true,
        Kind::Quoted(quote) => quote != b'"' || backend != DbBackend::MySql,
        _ => false,
    }
}

impl Target<'_> {
    fn goes_by(&self, name: &str) -> bool {
        name == self.table || self.alias.as_deref() == Some(name)
    }
}
