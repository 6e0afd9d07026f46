//! What an `UPDATE` or `DELETE` changes.

use std::borrow::Cow;

use sea_orm::DbBackend;

use super::cursor::{self, Cursor};
use super::given::{Given, Keyed, keyed};
use super::pinned::{Target, pinned};
use super::scan::{Kind, Token};
use super::statement::{Analyzer, Conflict};
use super::{Control, Touched};
use crate::key::KeyPart;
use crate::orm::meta::{EntityMeta, same_name};

/// What may follow the target of a `DELETE`.
const CLAUSES: &[&str] = &["WHERE", "RETURNING", "ORDER", "LIMIT", "USING"];

/// A column that is set, and to what.
struct Assignment<'t, 's> {
    column: Cow<'s, str>,
    expression: &'t [Token<'s>],
}

/// What follows the target of an `UPDATE`.
struct Update<'t, 's> {
    assignments: Vec<Assignment<'t, 's>>,
    /// From the `WHERE` or `FROM` on.
    rest: &'t [Token<'s>],
    conflict: Conflict,
}

impl Analyzer<'_> {
    /// `tokens` follow the word `UPDATE`. `None` if they are not understood.
    pub(super) fn update(&mut self, tokens: &[Token<'_>]) -> Option<()> {
        let mut cursor = Cursor::new(tokens, self.backend);
        let conflict = self.conflict(&mut cursor);
        if conflict == Conflict::Rollback {
            self.found.control(Control::End);
        }
        let head = cursor.rest;
        let Some((table, alias)) = self.target(&mut cursor, &["SET"], "SET") else {
            let set = cursor::find(head, &["SET"])?;
            return self.several(&head[..set], &head[..set]);
        };
        cursor.eat("SET");
        let end = self.assignments_end(cursor.rest);
        let update = Update {
            assignments: assignments(&cursor.rest[..end], self.backend)?,
            rest: &cursor.rest[end..],
            conflict,
        };
        let table = table.name();
        let metas = self.registry.of_table(&table);
        if metas.is_empty() {
            self.found.unknown(&table);
            self.found.cascade(&table);
        }
        for meta in metas {
            let target = Target {
                meta,
                table: &table,
                alias: alias.map(|alias| alias.name()),
            };
            self.update_entity(&target, &update);
        }
        Some(())
    }

    /// Keys that others may refer to are the primary key and the unique indexes.
    fn update_entity(&mut self, target: &Target<'_>, update: &Update<'_, '_>) {
        let meta = target.meta;
        let sets = |columns: &[usize]| sets_any(&update.assignments, meta, columns, self.backend);
        let key = sets(&meta.primary_key);
        let replaces = update.conflict == Conflict::Replace;
        let alone = !update.rest.first().is_some_and(|token| token.is("FROM"));
        let rows = match alone && !key && !replaces {
            true => pinned(target, update.rest, self.values, self.backend),
            false => Touched::All,
        };
        let index = match key {
            true => Touched::All,
            false => self.assigned(meta, update),
        };
        let mut unique = meta.indexes.iter().filter(|index| index.unique);
        let referable = key || replaces || unique.any(|index| sets(&index.columns));
        self.found.add(meta, rows, index);
        if referable {
            self.found.cascade(target.table);
        }
    }

    /// `tokens` follow the word `DELETE`. `None` if they are not understood.
    pub(super) fn delete(&mut self, tokens: &[Token<'_>]) -> Option<()> {
        let mut cursor = Cursor::new(tokens, self.backend);
        self.conflict(&mut cursor);
        let from = cursor.eat("FROM");
        let target = match from {
            true => self.target(&mut cursor, CLAUSES, ""),
            false => None,
        };
        let using = cursor.peek().is_some_and(|token| token.is("USING"));
        let (table, alias) = match target {
            Some(target) if !using || self.backend == DbBackend::Postgres => target,
            _ => {
                let end = cursor::find(tokens, &["WHERE"]).unwrap_or(tokens.len());
                let head = &tokens[..end];
                return self.several(head, joined(head));
            }
        };
        let table = table.name();
        let metas = self.registry.of_table(&table);
        if metas.is_empty() {
            self.found.unknown(&table);
        }
        for meta in metas {
            let target = Target {
                meta,
                table: &table,
                alias: alias.map(|alias| alias.name()),
            };
            let rows = match using {
                true => Touched::All,
                false => pinned(&target, cursor.rest, self.values, self.backend),
            };
            self.found.add(meta, rows, Touched::Only(Vec::new()));
        }
        self.found.cascade(&table);
        Some(())
    }

    /// One table and its alias, up to the word `end` (or one of `keywords`, or the end of the
    /// statement, if that is empty); `None` if more follows.
    fn target<'t, 's>(
        &self,
        cursor: &mut Cursor<'t, 's>,
        keywords: &[&str],
        end: &str,
    ) -> Option<(Token<'s>, Option<&'t Token<'s>>)> {
        if self.backend == DbBackend::Postgres {
            cursor.eat("ONLY");
        }
        let table = cursor.path()?.last;
        cursor.eat_symbol(b'*');
        let alias = cursor.alias(keywords);
        let ends = match cursor.peek() {
            None => end.is_empty(),
            Some(token) if end.is_empty() => token.is_any(keywords),
            Some(token) => token.is(end),
        };
        ends.then_some((table, alias))
    }

    /// Every table named in `head`, and those of no entity among the `joined` in it.
    fn several(&mut self, head: &[Token<'_>], joined: &[Token<'_>]) -> Option<()> {
        let mentioned = self.mentioned(head);
        let unknown = self.unknown_sources(joined);
        (mentioned || unknown).then_some(())
    }

    /// Whether `tokens`, the references of a join, name tables of no entity, which are noted.
    fn unknown_sources(&mut self, tokens: &[Token<'_>]) -> bool {
        const INTRODUCERS: &[&str] = &["FROM", "USING", "JOIN", "STRAIGHT_JOIN"];
        const MODIFIERS: &[&str] = &["LATERAL", "ONLY"];
        let mut cursor = Cursor::new(tokens, self.backend);
        let mut expected = true;
        let mut any = false;
        while let Some(token) = cursor.peek() {
            let comma = token.kind == Kind::Symbol(b',');
            if comma || token.is_any(INTRODUCERS) {
                cursor.next();
                expected = comma || !token.is("USING") || !cursor.at_symbol(b'(');
            } else if !expected || token.is_any(MODIFIERS) || token.kind == Kind::Symbol(b'(') {
                cursor.next();
            } else if let Some(path) = cursor.path() {
                let name = path.last.name();
                if self.registry.of_table(&name).is_empty() && !path.last.is("SELECT") {
                    self.found.table(&name);
                    any = true;
                }
                expected = false;
            } else {
                cursor.next();
            }
        }
        any
    }

    /// Where the assignments end. `RETURNING` may name a column on MySQL, and `FROM` may be part of
    /// `IS DISTINCT FROM`.
    fn assignments_end(&self, tokens: &[Token<'_>]) -> usize {
        let mysql = self.backend == DbBackend::MySql;
        let distinct = |at: usize| at > 0 && tokens[at - 1].is("DISTINCT");
        let ends = |&(at, token): &(usize, &Token<'_>)| {
            token.is_any(&["WHERE", "ORDER", "LIMIT"])
                || (token.is("FROM") && !distinct(at))
                || (token.is("RETURNING") && !mysql)
        };
        let end = cursor::top_level(tokens).find(ends);
        end.map_or(tokens.len(), |(at, _)| at)
    }

    /// The index entries of the values assigned.
    fn assigned(
        &self,
        meta: &'static EntityMeta,
        update: &Update<'_, '_>,
    ) -> Touched<(usize, KeyPart)> {
        let Update {
            assignments,
            conflict,
            ..
        } = update;
        let mut entries = Vec::new();
        for (at, index) in meta.indexes.iter().enumerate() {
            let set = |&&column: &&usize| sets_any(assignments, meta, &[column], self.backend);
            let count = index.columns.iter().filter(set).count();
            if count == 0 {
                continue;
            }
            if count < index.columns.len() || *conflict == Conflict::Coerce {
                return Touched::All;
            }
            let given: Vec<_> = (index.columns.iter())
                .map(|&column| self.assigned_value(&meta.columns[column].name, assignments))
                .collect();
            match keyed(meta, &index.columns, &given, self.backend) {
                Keyed::Key(key) => entries.push((at, key)),
                Keyed::Null => {}
                Keyed::Unknown => return Touched::All,
            }
        }
        Touched::Only(entries)
    }

    /// What `column` is set to, if it is set once.
    fn assigned_value(&self, column: &str, assignments: &[Assignment<'_, '_>]) -> Given<'_> {
        let mut all = assignments.iter().filter(|a| same_name(column, &a.column));
        match (all.next(), all.next()) {
            (Some(only), None) => Given::of(only.expression, self.values),
            _ => Given::Unknown,
        }
    }
}

/// The tables in the head of a `DELETE` of several. The targets of `DELETE a, b FROM c AS a ..` and
/// `DELETE FROM a, b USING ..` are aliases.
fn joined<'t, 's>(head: &'t [Token<'s>]) -> &'t [Token<'s>] {
    let from = match head.first() {
        Some(first) if first.is("FROM") => cursor::find(head, &["USING"]),
        _ => cursor::find(head, &["FROM"]),
    };
    &head[from.unwrap_or(0)..]
}

/// Whether one of `columns` is set; on SQLite the key also goes by the name of `rowid`.
fn sets_any(
    assignments: &[Assignment<'_, '_>],
    meta: &EntityMeta,
    columns: &[usize],
    backend: DbBackend,
) -> bool {
    let sets = |name: &str| assignments.iter().any(|a| same_name(name, &a.column));
    let rowid = backend == DbBackend::Sqlite && ["rowid", "oid", "_rowid_"].iter().any(|n| sets(n));
    columns.iter().any(|&column| {
        sets(&meta.columns[column].name) || (rowid && meta.primary_key.contains(&column))
    })
}

/// `a = 1, (b, c) = (2, 3)`. What is not one plain column set to one expression is set to an
/// unknown value.
fn assignments<'t, 's>(
    tokens: &'t [Token<'s>],
    backend: DbBackend,
) -> Option<Vec<Assignment<'t, 's>>> {
    let mut all = Vec::new();
    for assignment in cursor::list(tokens) {
        let mut cursor = Cursor::new(assignment, backend);
        match cursor.group() {
            Some(columns) => all.extend(cursor::list(columns).flatten().map(unknown)),
            None => {
                let path = cursor.path()?;
                let before = assignment.len() - cursor.rest.len();
                let plain = cursor.eat_symbol(b'=');
                // Elsewhere than on MySQL `a.b` is a field of the column `a`.
                if plain && (!path.qualified || backend == DbBackend::MySql) {
                    all.push(Assignment {
                        column: path.last.name(),
                        expression: cursor.rest,
                    });
                } else {
                    all.extend(assignment[..before].iter().map(unknown));
                }
            }
        }
    }
    (!all.is_empty()).then_some(all)
}

fn unknown<'t, 's>(column: &Token<'s>) -> Assignment<'t, 's> {
    Assignment {
        column: column.name(),
        expression: &[],
    }
}
