//! Statements of three dialects that nobody chose.

use sea_orm::sea_query::Value;

use super::tables::{Column, TABLES, Table};
use super::terms::{BLANK, Scope, Writer};
use crate::world::Sql;

/// A statement, and how it is sent.
#[derive(Clone, Debug)]
pub struct Case {
    pub sql: String,
    pub values: Vec<Value>,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Execute,
    Query,
    Unprepared,
    /// As a text that has a transaction of its own.
    Alone,
}

pub fn case(seed: u64, sql: Sql, schema: &str) -> Case {
    let mut rng = fastrand::Rng::with_seed(seed);
    let how = match rng.usize(..32) {
        0..=19 => How::Execute,
        20..=25 => How::Query,
        26..=30 => How::Unprepared,
        _ => How::Alone,
    };
    let plain = rng.usize(..3) > 0;
    let mut writer = Writer {
        plain,
        rng,
        sql,
        binds: matches!(how, How::Execute | How::Query),
        values: Vec::new(),
        schema: schema.to_owned(),
    };
    let text = writer.text_of(how);
    let text = writer.decorated(&text);
    let (sql, values) = writer.numbered(&text);
    let mut case = Case { sql, values, how };
    if writer.one_in(5) {
        // sqlx waits for ever where MariaDB wants more values than there are.
        if !writer.is(Sql::MariaDb) || !writer.binds {
            case.sql = match writer.rng.bool() {
                true => writer.damaged(&case.sql),
                false => writer.shuffled(&case.sql),
            };
        }
    }
    case
}

impl Writer {
    fn text_of(&mut self, how: How) -> String {
        let one = self.statement();
        match how {
            How::Execute | How::Query => one,
            How::Unprepared => match self.rng.usize(..4) {
                0 => format!("{one};"),
                1 => format!("{one}; {}", self.statement()),
                2 => format!("SELECT 1; {one} ; ;"),
                _ => one,
            },
            How::Alone => {
                let other = self.statement();
                let ways = [
                    format!("BEGIN; {one}; COMMIT"),
                    format!("BEGIN; {one}; ROLLBACK; {other}"),
                    format!("BEGIN; {one}; SAVEPOINT s; {other}; ROLLBACK TO s; COMMIT"),
                    format!("BEGIN; SAVEPOINT s; {one}; RELEASE s; {other}; COMMIT"),
                    format!("{one}; BEGIN; {other}; COMMIT"),
                    format!("BEGIN; {one}; COMMIT; BEGIN; {other}"),
                ];
                self.pick(&ways)
            }
        }
    }

    fn any_table(&mut self) -> &'static Table {
        &TABLES[self.pick(&[0, 0, 0, 0, 1, 2, 3, 4, 4, 5, 5, 6, 7])]
    }

    fn statement(&mut self) -> String {
        let table = self.any_table();
        match (self.rng.usize(..40), self.sql) {
            (0..=11, _) => self.update(table),
            (12..=19, _) => self.delete(table),
            (20..=28, _) => self.insert(table),
            (29..=30, Sql::Postgres) => self.merge(table),
            (29..=32, Sql::MariaDb) => self.several(table),
            (29..=32, Sql::Sqlite) => self.insert(table),
            (31..=32, Sql::Postgres) => self.other_rows(table),
            (33..=34, _) => self.with(table),
            (35, _) => self.odd(table),
            (36, _) => self.select(table),
            _ => self.update(table),
        }
    }

    fn select(&mut self, table: &'static Table) -> String {
        let (from, alias) = self.target(table, false);
        let scope = Scope {
            table,
            alias: &alias,
        };
        format!(
            "SELECT COUNT(*) FROM {from} WHERE {}",
            self.condition(scope)
        )
    }

    /// The table with its alias, and what its columns go by.
    fn target(&mut self, table: &'static Table, must: bool) -> (String, String) {
        let name = self.table(table);
        let alias = self.pick(&["t", "word", "\u{e9}t", "id"]);
        match self.rng.usize(..4) {
            0 => (format!("{name} AS {alias}"), alias.to_owned()),
            1 if !self.is(Sql::Sqlite) => (format!("{name} {alias}"), alias.to_owned()),
            _ if must => (format!("{name} AS t"), "t".to_owned()),
            _ => (name, table.name.to_owned()),
        }
    }

    fn conflict(&mut self) -> &'static str {
        match self.sql {
            Sql::Postgres => "",
            Sql::MariaDb => self.pick(&[
                "",
                "",
                "",
                "LOW_PRIORITY ",
                "IGNORE ",
                "LOW_PRIORITY IGNORE ",
            ]),
            Sql::Sqlite => self.pick(&["", "", "", "", "OR REPLACE ", "OR IGNORE ", "OR FAIL "]),
        }
    }

    fn update(&mut self, table: &'static Table) -> String {
        let conflict = self.conflict();
        let only = if self.is(Sql::Postgres) && self.one_in(8) {
            "ONLY "
        } else {
            ""
        };
        let (target, alias) = self.target(table, false);
        let scope = Scope {
            table,
            alias: &alias,
        };
        let set = self.assignments(scope);
        let from = match self.sql {
            Sql::MariaDb => "",
            _ => self.pick(&[
                "",
                "",
                "",
                "",
                "",
                "",
                "",
                " FROM tag AS f",
                " FROM (SELECT 1 AS one) AS f",
            ]),
        };
        let condition = self.condition(scope);
        let end = self.end(table);
        format!("UPDATE {conflict}{only}{target} SET {set}{from} WHERE {condition}{end}")
    }

    fn end(&mut self, table: &Table) -> String {
        match (self.sql, self.rng.usize(..12)) {
            (Sql::MariaDb, 0) => format!(" ORDER BY {} LIMIT 2", table.columns[0].name),
            (Sql::MariaDb, 1) => " LIMIT 1".to_owned(),
            (Sql::Postgres | Sql::Sqlite, 0) => " RETURNING *".to_owned(),
            (Sql::Postgres | Sql::Sqlite, 1) => {
                let column = self.name(table.columns[0].name);
                format!(" RETURNING {column}, 'UPDATE city'")
            }
            _ => String::new(),
        }
    }

    fn assignments(&mut self, scope: Scope<'_>) -> String {
        // Keys more rarely than the rest.
        let columns = 0..scope.table.columns.len();
        let mut plain: Vec<usize> = columns
            .clone()
            .filter(|at| !scope.table.key.contains(at))
            .collect();
        if plain.is_empty() || self.one_in(8) {
            plain = columns.collect();
        }
        self.rng.shuffle(&mut plain);
        let count = 1 + self.rng.usize(..2);
        let all: Vec<_> = plain
            .iter()
            .take(count)
            .map(|&at| self.assignment(scope, at))
            .collect();
        all.join(", ")
    }

    fn assignment(&mut self, scope: Scope<'_>, at: usize) -> String {
        let columns = scope.table.columns;
        let it: &Column = &columns[at];
        let mut column = self.name(it.name);
        if self.is(Sql::MariaDb) && self.one_in(4) {
            column = format!("{}.{column}", scope.alias);
        }
        let (value, other) = (self.value(it), self.value(it));
        match self.rng.usize(..16) {
            0 => format!("{column} = {}", it.name),
            1 => format!("{column} = DEFAULT"),
            2 => format!("{column} = (SELECT {value})"),
            3 => format!("{column} = CASE WHEN 1 = 1 THEN {value} ELSE {other} END"),
            4 if !self.is(Sql::MariaDb) => {
                let second = &columns[(at + 1) % columns.len()];
                let name = self.name(second.name);
                let more = self.value(second);
                match self.rng.usize(..2) {
                    0 => format!("({column}, {name}) = ({value}, {more})"),
                    _ => format!("({column}, {name}) = (SELECT {value}, {more})"),
                }
            }
            5 if !self.is(Sql::Postgres) => format!("{column} = {value}, {column} = {other}"),
            _ => format!("{column} = {value}"),
        }
    }

    fn delete(&mut self, table: &'static Table) -> String {
        let only = if self.is(Sql::Postgres) && self.one_in(8) {
            "ONLY "
        } else {
            ""
        };
        let quick = if self.is(Sql::MariaDb) {
            self.pick(&["", "", "QUICK ", "IGNORE "])
        } else {
            ""
        };
        // MariaDB takes no alias here.
        let (target, alias) = match self.sql {
            Sql::MariaDb => (self.table(table), table.name.to_owned()),
            _ => self.target(table, false),
        };
        let scope = Scope {
            table,
            alias: &alias,
        };
        let using = if self.is(Sql::Postgres) && self.one_in(8) {
            " USING tag AS f"
        } else {
            ""
        };
        let condition = self.condition(scope);
        let end = self.end(table);
        format!("DELETE {quick}FROM {only}{target}{using} WHERE {condition}{end}")
    }

    fn insert(&mut self, table: &'static Table) -> String {
        let verb = match self.sql {
            Sql::Postgres => "INSERT INTO",
            Sql::MariaDb => self.pick(&[
                "INSERT INTO",
                "INSERT INTO",
                "INSERT",
                "INSERT IGNORE INTO",
                "REPLACE INTO",
                "REPLACE",
            ]),
            Sql::Sqlite => self.pick(&[
                "INSERT INTO",
                "INSERT INTO",
                "INSERT OR REPLACE INTO",
                "REPLACE INTO",
                "INSERT OR IGNORE INTO",
            ]),
        };
        let target = self.table(table);
        let columns = self.columns(table);
        let names: Vec<_> = columns
            .iter()
            .map(|&at| self.name(table.columns[at].name))
            .collect();
        let names = names.join(", ");
        let source = self.source(table, &columns);
        let text = match self.rng.usize(..16) {
            0 if self.is(Sql::MariaDb) => {
                let set = columns.iter().map(|&at| {
                    let column = &table.columns[at];
                    format!("{} = {}", self.name(column.name), self.value(column))
                });
                format!("{verb} {target} SET {}", set.collect::<Vec<_>>().join(", "))
            }
            1 if table.counts && self.is(Sql::Postgres) => {
                let how = self.pick(&["OVERRIDING SYSTEM VALUE", "OVERRIDING USER VALUE"]);
                format!("{verb} {target} ({names}) {how} {source}")
            }
            2 if !self.is(Sql::MariaDb) => format!("{verb} {target} AS n ({names}) {source}"),
            3 => {
                let all: Vec<_> = (0..table.columns.len()).collect();
                format!("{verb} {target} {}", self.source(table, &all))
            }
            _ => format!("{verb} {target} ({names}) {source}"),
        };
        let conflict = self.on_conflict(table);
        let end = if self.one_in(12) { " RETURNING *" } else { "" };
        format!("{text}{conflict}{end}")
    }

    /// Some columns in some order: mostly those that a row needs.
    fn columns(&mut self, table: &Table) -> Vec<usize> {
        let mut columns: Vec<usize> = (0..table.columns.len()).collect();
        if table.counts && self.one_in(3) {
            columns.remove(0);
        }
        if table.name == "city" && self.one_in(3) {
            columns.retain(|&at| at != 4);
        }
        if table.name == "city" && self.one_in(4) {
            columns.retain(|&at| at != 1);
        }
        if self.is(Sql::Sqlite) && self.one_in(20) {
            columns.push(self.rng.usize(..table.columns.len()));
        }
        if self.one_in(3) {
            self.rng.shuffle(&mut columns);
        }
        columns
    }

    /// A new row's key is rarely one that is there.
    fn cell(&mut self, table: &Table, at: usize) -> String {
        let fresh = table.key == [at] && self.one_in(2);
        match (fresh, self.rng.usize(..24)) {
            (true, _) if table.name == "word" => "'fresh'".to_owned(),
            (true, _) => "77".to_owned(),
            (_, 0) if !self.is(Sql::Sqlite) => "DEFAULT".to_owned(),
            (_, 1) if table.counts && at == 0 && !self.is(Sql::Postgres) => "0".to_owned(),
            (_, 2) if table.counts && at == 0 => "NULL".to_owned(),
            _ => self.value(&table.columns[at]),
        }
    }

    fn row(&mut self, table: &Table, columns: &[usize]) -> String {
        let cells: Vec<_> = columns.iter().map(|&at| self.cell(table, at)).collect();
        cells.join(", ")
    }

    fn source(&mut self, table: &Table, columns: &[usize]) -> String {
        let row = self.row(table, columns);
        let values = match self.sql {
            Sql::MariaDb => self.pick(&["VALUES", "VALUES", "VALUE"]),
            _ => "VALUES",
        };
        match self.rng.usize(..12) {
            0 => format!("SELECT {}", row.replace("DEFAULT", "1")),
            1 => {
                let names: Vec<_> = columns.iter().map(|&at| table.columns[at].name).collect();
                format!(
                    "SELECT {} FROM {} WHERE 1 = 1",
                    names.join(", "),
                    table.name
                )
            }
            2 if !self.is(Sql::MariaDb) => "DEFAULT VALUES".to_owned(),
            3..=5 => format!("{values} ({row}), ({})", self.row(table, columns)),
            _ => format!("{values} ({row})"),
        }
    }

    fn on_conflict(&mut self, table: &'static Table) -> String {
        let scope = Scope { table, alias: "" };
        let set = self.assignments(scope);
        let key: Vec<_> = table.key.iter().map(|&at| table.columns[at].name).collect();
        let key = key.join(", ");
        match (self.sql, self.rng.usize(..12)) {
            (Sql::MariaDb, 0..=2) => format!(" ON DUPLICATE KEY UPDATE {set}"),
            (Sql::MariaDb, 3) => {
                let column = table.columns[table.columns.len() - 1].name;
                format!(" ON DUPLICATE KEY UPDATE {column} = VALUES({column})")
            }
            (Sql::Postgres | Sql::Sqlite, 0..=1) => " ON CONFLICT DO NOTHING".to_owned(),
            (Sql::Postgres | Sql::Sqlite, 2..=3) => {
                format!(" ON CONFLICT ({key}) DO UPDATE SET {set}")
            }
            (Sql::Postgres | Sql::Sqlite, 4) if table.name == "city" => {
                " ON CONFLICT (slug) DO UPDATE SET name = excluded.name".to_owned()
            }
            _ => String::new(),
        }
    }

    /// Postgres' MERGE.
    fn merge(&mut self, table: &'static Table) -> String {
        let (target, alias) = self.target(table, true);
        let scope = Scope {
            table,
            alias: &alias,
        };
        let set = self.assignments(Scope { table, alias: "" });
        let condition = self.condition(scope);
        let columns = self.columns(table);
        let names: Vec<_> = columns.iter().map(|&at| table.columns[at].name).collect();
        let row = self.row(table, &columns);
        let matched = self.pick(&["DELETE", "DO NOTHING", ""]);
        let matched = if matched.is_empty() {
            format!("UPDATE SET {set}")
        } else {
            matched.to_owned()
        };
        format!(
            "MERGE INTO {target} USING (SELECT 1 AS one) AS s ON {condition} WHEN MATCHED THEN {matched} \
             WHEN NOT MATCHED THEN INSERT ({}) VALUES ({row})",
            names.join(", ")
        )
    }

    /// Postgres: whole tables, and statements in statements.
    fn other_rows(&mut self, table: &'static Table) -> String {
        let name = self.table(table);
        let inner = self.plain_write();
        let whole = self.pick(&["", " CASCADE", " RESTART IDENTITY", " RESTRICT"]);
        match self.rng.usize(..6) {
            0 => format!("TRUNCATE {name}{whole}"),
            1 => format!("TRUNCATE TABLE ONLY city_tag, {name}{whole}"),
            2 => format!("EXPLAIN ANALYZE {inner}"),
            3 => format!("EXPLAIN (ANALYZE, COSTS off) {inner}"),
            4 => format!("EXPLAIN {inner}"),
            _ => format!("DO $do$ BEGIN {inner}; END $do$"),
        }
    }

    /// MySQL: several tables at once.
    fn several(&mut self, table: &'static Table) -> String {
        let name = self.table(table);
        let scope = Scope { table, alias: "t" };
        let set = self.assignments(scope);
        let condition = self.condition(scope);
        let (tag, word) = (self.name("tag"), self.name("word"));
        match self.rng.usize(..16) % 14 {
            0 => format!(
                "UPDATE {name} AS t JOIN {tag} AS f ON f.id = 1 SET {set} WHERE {condition}"
            ),
            1 => format!("UPDATE {name} t, {tag} f SET {set}, f.label = 'both' WHERE {condition}"),
            2 => format!(
                "UPDATE {tag} f LEFT JOIN {name} t ON {condition} SET f.label = 'left', {set}"
            ),
            3 => format!("DELETE t FROM {name} AS t JOIN {tag} AS f ON f.id = 1 WHERE {condition}"),
            4 => format!("DELETE FROM t USING {name} AS t, {tag} AS f WHERE {condition}"),
            5 => format!(
                "DELETE t, w FROM {name} AS t LEFT JOIN {word} w ON w.id = 'abc' WHERE {condition}"
            ),
            6 if self.one_in(4) => format!("TRUNCATE TABLE {word}"),
            6 => format!("TRUNCATE {}", self.name("line")),
            _ => format!("UPDATE ({name} AS t, {tag} AS f) SET {set} WHERE {condition}"),
        }
    }

    fn plain_write(&mut self) -> String {
        let table = self.any_table();
        match self.rng.usize(..3) {
            0 => self.delete(table),
            1 => self.insert(table),
            _ => self.update(table),
        }
    }

    fn with(&mut self, table: &'static Table) -> String {
        let inner = self.plain_write();
        let outer = self.plain_write();
        let select = self.select(table);
        let more = if self.one_in(3) {
            ", o AS (SELECT 2 AS two)"
        } else {
            ""
        };
        match self.sql {
            Sql::MariaDb => format!("WITH w AS ({select}) {select}"),
            Sql::Sqlite => format!("WITH w AS ({select}){more} {outer}"),
            Sql::Postgres => {
                let hint = self.pick(&["", "", "MATERIALIZED ", "NOT MATERIALIZED "]);
                match self.rng.usize(..5) {
                    0 => format!("WITH w AS ({select}){more} {outer}"),
                    1 => format!("WITH w AS {hint}({inner}){more} SELECT 1"),
                    2 => format!("WITH w (a) AS ({select}), o AS ({inner}) {outer}"),
                    3 => format!("WITH o AS (WITH w AS (SELECT 1) {inner}) SELECT 1"),
                    _ => format!("WITH RECURSIVE o AS ({inner}), w AS (SELECT 1 AS n) {outer}"),
                }
            }
        }
    }

    /// Writes that do not begin like one.
    fn odd(&mut self, table: &'static Table) -> String {
        let name = table.name;
        let inner = self.plain_write();
        let quoted = inner
            .replace('\\', "\\\\")
            .replace('\'', "''")
            .replace(' ', &BLANK.to_string());
        match (self.sql, self.rng.usize(..5)) {
            (Sql::MariaDb, 0) => format!("ANALYZE {inner}"),
            (Sql::MariaDb, 1) => format!("SET STATEMENT max_statement_time = 10 FOR {inner}"),
            (Sql::MariaDb, 2) => format!("EXECUTE IMMEDIATE '{quoted}'"),
            (Sql::MariaDb, 3) => format!("/*!50000 {inner} */"),
            (Sql::MariaDb, _) => format!("BEGIN NOT ATOMIC {inner}; END"),
            (Sql::Postgres, 0) => format!("COPY (SELECT 1 FROM {name}) TO '/dev/null'"),
            (Sql::Postgres, 1) => format!("PREPARE p AS {inner}; EXECUTE p; DEALLOCATE p"),
            (Sql::Postgres, 2) => format!("ALTER TABLE {name} ADD COLUMN extra int; {inner}"),
            (Sql::Sqlite, 0) => format!("EXPLAIN {inner}"),
            (Sql::Sqlite, 1) => format!("EXPLAIN QUERY PLAN {inner}"),
            (Sql::Postgres | Sql::Sqlite, _) => format!("({inner})"),
        }
    }
}
