//! What an `INSERT` or `REPLACE` changes.

use std::borrow::Cow;

use sea_orm::DbBackend;

use super::cursor::{self, Cursor};
use super::found::LIMIT;
use super::given::{Given, Keyed, keyed};
use super::scan::{Kind, Token};
use super::statement::{Analyzer, Conflict};
use super::{Control, Touched};
use crate::key::KeyPart;
use crate::orm::meta::{EntityMeta, same_name};

/// What an insert says of the rows that it inserts.
enum Rows<'t, 's> {
    /// Nothing certain.
    Unknown,
    /// The expressions for these columns, row by row; all others get their defaults.
    Given {
        columns: Vec<Cow<'s, str>>,
        cells: Vec<&'t [Token<'s>]>,
    },
}

impl<'a> Analyzer<'a> {
    /// `tokens` follow the word `INSERT` or `REPLACE`. `None` if they are not understood.
    pub(super) fn insert(&mut self, tokens: &[Token<'_>], replace: bool) -> Option<()> {
        let mut cursor = Cursor::new(tokens, self.backend);
        let conflict = self.conflict(&mut cursor);
        cursor.eat("INTO");
        let table = cursor.path()?.last.name();
        let rows = rows(&mut cursor);
        let updates =
            replace || conflict == Conflict::Replace || cursor::mentions(cursor.rest, &["UPDATE"]);
        if conflict == Conflict::Rollback {
            self.found.control(Control::End);
        }
        match rows {
            _ if updates => self.found.table(&table),
            Rows::Unknown => self.found.rows_of(&table),
            Rows::Given { columns, cells } => {
                self.insert_rows(&table, &columns, &cells, conflict);
            }
        }
        Some(())
    }

    fn insert_rows(
        &mut self,
        table: &str,
        columns: &[Cow<'_, str>],
        cells: &[&[Token<'_>]],
        conflict: Conflict,
    ) {
        let metas = self.registry.of_table(table);
        if metas.is_empty() {
            self.found.unknown(table);
        }
        for meta in metas {
            let inserted = Inserted {
                meta,
                columns,
                cells,
                analyzer: self,
            };
            let (rows, index) = match conflict {
                Conflict::Coerce => inserted.coerced(),
                _ => (inserted.rows(), inserted.index()),
            };
            self.found.add(meta, rows, index);
        }
    }
}

/// What follows the table: the columns, then where their values come from.
fn rows<'t, 's>(cursor: &mut Cursor<'t, 's>) -> Rows<'t, 's> {
    if cursor.eat("PARTITION") {
        cursor.group();
    }
    if cursor.eat("AS") {
        cursor.name();
    }
    match given(cursor) {
        Some(rows) if ends(cursor) => rows,
        _ => Rows::Unknown,
    }
}

/// Whether only clauses that add no rows can follow.
fn ends(cursor: &Cursor<'_, '_>) -> bool {
    let clause = |token: &Token<'_>| token.is_any(&["ON", "RETURNING", "AS"]);
    cursor.peek().is_none_or(clause)
}

fn given<'t, 's>(cursor: &mut Cursor<'t, 's>) -> Option<Rows<'t, 's>> {
    if cursor.eat("SET") {
        return assignments(cursor);
    }
    let columns = match cursor.group() {
        Some(names) => Some(columns(names, cursor.backend)?),
        None => None,
    };
    if cursor.eat("OVERRIDING") && (!cursor.eat("SYSTEM") || !cursor.eat("VALUE")) {
        return None;
    }
    if cursor.eat("DEFAULT") {
        return cursor.eat("VALUES").then(defaults);
    }
    cursor.eat_any(&["VALUES", "VALUE"])?;
    let width = columns.as_ref().map(Vec::len);
    let cells = cells(cursor, width)?;
    match columns {
        Some(columns) => Some(Rows::Given { columns, cells }),
        // The columns of the table in an order that is not known.
        None => cells.iter().all(|cell| is_default(cell)).then(defaults),
    }
}

fn defaults<'t, 's>() -> Rows<'t, 's> {
    Rows::Given {
        columns: Vec::new(),
        cells: Vec::new(),
    }
}

fn is_default(cell: &[Token<'_>]) -> bool {
    matches!(cell, [token] if token.is("DEFAULT"))
}

/// The names of a column list; `None` of anything else that may stand in parentheses there.
fn columns<'s>(names: &[Token<'s>], backend: DbBackend) -> Option<Vec<Cow<'s, str>>> {
    let name = |item: &[Token<'s>]| match item {
        [name] if name.is_name(backend) => Some(name.name()),
        _ => None,
    };
    cursor::list(names).map(name).collect()
}

/// `(1, 2), (3, 4)`: all cells, where every row has `width` of them.
fn cells<'t, 's>(
    cursor: &mut Cursor<'t, 's>,
    width: Option<usize>,
) -> Option<Vec<&'t [Token<'s>]>> {
    let mut cells = Vec::new();
    loop {
        cursor.eat("ROW");
        let before = cells.len();
        cells.extend(cursor::list(cursor.group()?));
        if width.is_some_and(|width| width != cells.len() - before) {
            return None;
        }
        if !cursor.eat_symbol(b',') {
            return Some(cells);
        }
    }
}

/// MySQL's `SET a = 1, b = 2`.
fn assignments<'t, 's>(cursor: &mut Cursor<'t, 's>) -> Option<Rows<'t, 's>> {
    let end = cursor::find(cursor.rest, &["ON", "RETURNING", "AS"]).unwrap_or(cursor.rest.len());
    let (mut columns, mut cells) = (Vec::new(), Vec::new());
    for assignment in cursor::list(&cursor.rest[..end]) {
        let [name, equals, cell @ ..] = assignment else {
            return None;
        };
        if equals.kind != Kind::Symbol(b'=') {
            return None;
        }
        columns.push(name.name());
        cells.push(cell);
    }
    cursor.rest = &cursor.rest[end..];
    Some(Rows::Given { columns, cells })
}

/// The rows that are inserted, seen as rows of one entity.
struct Inserted<'t, 'a> {
    meta: &'static EntityMeta,
    columns: &'t [Cow<'t, str>],
    cells: &'t [&'t [Token<'t>]],
    analyzer: &'t Analyzer<'a>,
}

impl<'a> Inserted<'_, 'a> {
    /// Where `columns` of the entity are in the list; `None` if one is left to its default.
    fn positions(&self, columns: &[usize]) -> Option<Vec<usize>> {
        let position = |&column: &usize| {
            let name = &self.meta.columns[column].name;
            self.columns.iter().position(|c| same_name(name, c))
        };
        columns.iter().map(position).collect()
    }

    /// The cells of each row.
    fn each_row(&self) -> impl Iterator<Item = &[&[Token<'_>]]> {
        self.cells.chunks(self.columns.len().max(1))
    }

    /// Fills `given` with what a row gives at `positions`.
    fn fill(&self, given: &mut Vec<Given<'a>>, row: &[&[Token<'_>]], positions: &[usize]) {
        let values = self.analyzer.values;
        given.clear();
        given.extend(positions.iter().map(|&at| Given::of(row[at], values)));
    }

    /// A row that gets its key from the database was not there before: only its absence, which
    /// the list covers, can be cached.
    fn rows(&self) -> Touched<KeyPart> {
        let columns = &self.meta.primary_key;
        let Some(positions) = self.positions(columns).filter(|p| !p.is_empty()) else {
            return Touched::Only(Vec::new());
        };
        let (mut keys, mut given) = (Vec::new(), Vec::new());
        for row in self.each_row() {
            self.fill(&mut given, row, &positions);
            let default = given.iter().any(|given| matches!(given, Given::Default));
            match keyed(self.meta, columns, &given, self.analyzer.backend) {
                Keyed::Key(key) if keys.len() <= LIMIT => keys.push(key),
                Keyed::Null => {}
                _ if default => {}
                _ => return Touched::All,
            }
        }
        Touched::Only(keys)
    }

    fn index(&self) -> Touched<(usize, KeyPart)> {
        let (mut entries, mut given) = (Vec::new(), Vec::new());
        for (at, index) in self.meta.indexes.iter().enumerate() {
            let Some(positions) = self.positions(&index.columns) else {
                return Touched::All;
            };
            for row in self.each_row() {
                self.fill(&mut given, row, &positions);
                self.hide_generated(&index.columns, &mut given);
                match keyed(self.meta, &index.columns, &given, self.analyzer.backend) {
                    Keyed::Key(key) if entries.len() <= LIMIT => entries.push((at, key)),
                    Keyed::Null => {}
                    _ => return Touched::All,
                }
            }
        }
        Touched::Only(entries)
    }

    /// Forgets what is given to columns of the primary key that the database may fill instead.
    fn hide_generated(&self, columns: &[usize], given: &mut [Given<'_>]) {
        for (column, given) in columns.iter().zip(given) {
            let key = self.meta.primary_key.contains(column);
            if key && given.is_generated(self.analyzer.backend) {
                *given = Given::Unknown;
            }
        }
    }

    /// MySQL's `INSERT IGNORE` stores other values than those given where these do not fit.
    fn coerced(&self) -> (Touched<KeyPart>, Touched<(usize, KeyPart)>) {
        let keyless = self.positions(&self.meta.primary_key).is_none();
        let rows = match keyless {
            true => Touched::Only(Vec::new()),
            false => Touched::All,
        };
        let index = match self.meta.indexes.is_empty() {
            true => Touched::Only(Vec::new()),
            false => Touched::All,
        };
        (rows, index)
    }
}
