//! Effects are written as text: per entity `name ROWS | ENTRIES`, where `*` is all and `-` none,
//! `?name` for an unknown table, then `everything`, `begin` or `end`.

mod built;
mod properties;
mod selects;
#[cfg(feature = "feed")]
mod told;
mod truth;
// One case a line.
#[rustfmt::skip]
mod writes;

use std::sync::OnceLock;

use sea_orm::DatabaseBackend::{MySql, Postgres, Sqlite};
use sea_orm::DbBackend;
use sea_orm::sea_query::Value;

use super::{Control, Effects, EntityEffect, Touched, effects};
use crate::config::EntityPolicy;
use crate::key::ColumnKind::{self, Integer, Text};
use crate::orm::meta::{ColumnMeta, EntityMeta, IndexMeta, Registry};
use crate::store::Fingerprint;

const ALL: &[DbBackend] = &[Postgres, MySql, Sqlite];
const PG: &[DbBackend] = &[Postgres];
const MY: &[DbBackend] = &[MySql];
const LITE: &[DbBackend] = &[Sqlite];

fn entity(
    table: &str,
    columns: &[(&str, ColumnKind)],
    primary_key: &[usize],
    indexes: &[(&str, &[usize], bool)],
    cascades_from: &[&str],
) -> &'static EntityMeta {
    let columns = columns.iter().map(|&(name, kind)| ColumnMeta {
        name: name.to_owned(),
        kind,
    });
    let indexes = indexes.iter().map(|&(name, columns, unique)| IndexMeta {
        name: name.to_owned(),
        columns: columns.to_vec(),
        unique,
    });
    Box::leak(Box::new(EntityMeta {
        id: crate::orm::meta::next_id(),
        name: table.to_lowercase(),
        schema: None,
        table: table.to_owned(),
        columns: columns.collect(),
        primary_key: primary_key.to_vec(),
        indexes: indexes.collect(),
        cascades_from: cascades_from
            .iter()
            .map(|&table| table.to_owned())
            .collect(),
        fingerprint: Fingerprint(1),
        policy: EntityPolicy::default(),
    }))
}

/// `city` and `seat` (composite key, index over part of it) stand alone; `cake` takes `Slice` with
/// it, which takes `crumb`; `gone`, which is no entity, takes `crumb` as well; `tree` takes itself.
fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let id = ("id", Integer);
        let city = [id, ("country_id", Integer), ("slug", Text), ("name", Text)];
        let seat = [("hall", Integer), ("no", Integer), ("owner", Text)];
        let by_owner: (&str, &[usize], bool) = ("by_owner", &[2, 0], false);
        Registry::new([
            entity(
                "city",
                &city,
                &[0],
                &[("country_id", &[1], false), ("slug", &[2], true)],
                &[],
            ),
            entity("seat", &seat, &[0, 1], &[by_owner], &[]),
            entity(
                "cake",
                &[id, ("name", Text)],
                &[0],
                &[("name", &[1], true)],
                &[],
            ),
            entity(
                "Slice",
                &[id, ("cake_id", Integer)],
                &[0],
                &[],
                &["public.Cake"],
            ),
            entity("crumb", &[id], &[0], &[], &["slice", "gone"]),
            entity("tree", &[id, ("parent_id", Integer)], &[0], &[], &["tree"]),
            entity("doc", &[("Code", Text), ("body", Text)], &[0], &[], &[]),
        ])
    })
}

fn show(effects: &Effects) -> String {
    let mut parts: Vec<String> = effects.entities.iter().map(show_entity).collect();
    parts.extend(
        effects
            .unknown_tables
            .iter()
            .map(|table| format!("?{table}")),
    );
    parts.extend(effects.everything.then(|| "everything".to_owned()));
    match effects.control {
        Control::None => {}
        Control::Begin => parts.push("begin".to_owned()),
        Control::End => parts.push("end".to_owned()),
    }
    parts.join("; ")
}

fn show_entity(effect: &EntityEffect) -> String {
    let rows = show_touched(&effect.rows, |key| key.as_str().to_owned());
    let index = show_touched(&effect.index, |(at, key)| {
        format!("{}={}", effect.meta.indexes[*at].name, key.as_str())
    });
    format!("{} {rows} | {index}", effect.meta.name)
}

fn show_touched<T>(touched: &Touched<T>, show: impl Fn(&T) -> String) -> String {
    match touched {
        Touched::All => "*".to_owned(),
        Touched::Only(keys) if keys.is_empty() => "-".to_owned(),
        Touched::Only(keys) => keys.iter().map(show).collect::<Vec<_>>().join(" "),
    }
}

fn changed(sql: &str, values: &[Value], backend: DbBackend) -> String {
    show(&effects(sql, values, backend, registry()))
}

/// A statement, its dialects, the values bound to it, and what it changes.
type Case<'c> = (&'c [DbBackend], &'c str, Vec<Value>, &'c str);

#[track_caller]
fn check(cases: &[Case<'_>]) {
    let mut wrong = Vec::new();
    for (backends, sql, values, expected) in cases {
        for &backend in *backends {
            let found = changed(sql, values, backend);
            if found != *expected {
                wrong.push(format!(
                    "{backend:?}: {sql}\n  expected {expected}\n  found    {found}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The values bound to a statement.
macro_rules! bound {
    ($($value:expr),* $(,)?) => { vec![$(sea_orm::sea_query::Value::from($value)),*] };
}
use bound;
