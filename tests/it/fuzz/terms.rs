//! Values and conditions, in all the ways to write them.

use fastrand::Rng;
use sea_orm::prelude::{Decimal, Uuid};
use sea_orm::sea_query::Value;

use super::tables::{Column, Kind, Table};
use crate::world::Sql;

/// Stands for a blank that belongs to a text.
pub const BLANK: char = '\u{2}';
/// Around the position of a bound value.
pub const BOUND: char = '\u{1}';

/// Writes the pieces of one statement.
pub struct Writer {
    pub rng: Rng,
    pub sql: Sql,
    /// Whether values are bound.
    pub binds: bool,
    /// Whether values and conditions are written as programs write them.
    pub plain: bool,
    pub values: Vec<Value>,
    /// The database's name.
    pub schema: String,
}

/// What goes by a name in a statement: a table and what its columns are called by.
#[derive(Clone, Copy)]
pub struct Scope<'t> {
    pub table: &'static Table,
    /// Before a column, if anything has to be.
    pub alias: &'t str,
}

impl Writer {
    pub fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.rng.usize(..all.len())].clone()
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.rng.usize(..n) == 0
    }

    pub fn is(&self, sql: Sql) -> bool {
        self.sql as u8 == sql as u8
    }

    /// An identifier, mostly as it is.
    pub fn name(&mut self, name: &str) -> String {
        let mut ways = vec![name.to_owned(); 6];
        match self.sql {
            Sql::Postgres => {
                ways.push(format!("\"{name}\""));
                ways.push(name.to_uppercase());
                ways.push(format!("U&\"{name}\""));
            }
            Sql::MariaDb => ways.push(format!("`{name}`")),
            Sql::Sqlite => {
                ways.push(format!("\"{name}\""));
                ways.push(format!("[{name}]"));
                ways.push(format!("`{name}`"));
                ways.push(name.to_uppercase());
            }
        }
        self.pick(&ways)
    }

    pub fn table(&mut self, table: &Table) -> String {
        let name = self.name(table.name);
        let schema = match self.sql {
            Sql::Postgres => "public".to_owned(),
            Sql::MariaDb => self.schema.clone(),
            Sql::Sqlite => "main".to_owned(),
        };
        match self.rng.usize(..12) {
            0 => format!("{schema}.{name}"),
            1 => format!("{schema} . {name}"),
            2 if self.is(Sql::Sqlite) => format!("'{}'", table.name),
            _ => name,
        }
    }

    pub fn column(&mut self, scope: Scope<'_>, column: &Column) -> String {
        let name = self.name(column.name);
        if scope.alias.is_empty() {
            return name;
        }
        match self.rng.usize(..3) {
            0 => format!("{}.{name}", scope.alias),
            _ => name,
        }
    }

    fn bind(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("{BOUND}{}{BOUND}", self.values.len() - 1)
    }

    /// A value of the column's type.
    pub fn value(&mut self, column: &Column) -> String {
        let text = self.pick(column.pool);
        // Of another type, now and then.
        let kind = match !self.plain && self.one_in(20) {
            true => self.pick(&[Kind::Int, Kind::Text]),
            false => column.kind,
        };
        match kind {
            Kind::Int => self.int(text),
            Kind::Text => self.text(text),
            Kind::Bytes => self.bytes(text),
            Kind::Uuid => self.uuid(text),
        }
    }

    fn bytes(&mut self, hex: &str) -> String {
        if self.binds && self.one_in(2) {
            return self.bind(unhex(hex).into());
        }
        let mut ways = match self.sql {
            Sql::Postgres => vec![
                format!("'\\x{hex}'::bytea"),
                format!("'\\x{hex}'"),
                "'a'".to_owned(),
            ],
            _ => vec![
                format!("x'{hex}'"),
                format!("X'{hex}'"),
                "'a'".to_owned(),
                "'AA'".to_owned(),
            ],
        };
        if self.is(Sql::MariaDb) && !hex.is_empty() {
            ways.extend([
                format!("0x{hex}"),
                format!("UNHEX('{hex}')"),
                format!("_binary x'{hex}'"),
            ]);
        }
        self.pick(&ways)
    }

    fn uuid(&mut self, hex: &str) -> String {
        let uuid = Uuid::parse_str(hex).expect("a uuid");
        let bytes = unhex(hex);
        if self.binds && self.one_in(2) {
            let ways = [
                uuid.into(),
                uuid.into(),
                bytes.into(),
                Value::from(uuid.to_string()),
            ];
            let way = self.pick(&ways);
            return self.bind(way);
        }
        let text = String::from_utf8(bytes).unwrap_or_default();
        match self.sql {
            Sql::Postgres => {
                let upper = uuid.to_string().to_uppercase();
                let ways = [
                    format!("'{uuid}'"),
                    format!("'{hex}'"),
                    format!("'{{{upper}}}'"),
                    format!("'{uuid}'::uuid"),
                    format!("uuid '{upper}'"),
                ];
                self.pick(&ways)
            }
            _ => {
                let ways = [
                    format!("x'{hex}'"),
                    format!("x'{hex}'"),
                    format!("'{}'", text.escape_default()),
                ];
                self.pick(&ways)
            }
        }
    }

    fn int(&mut self, digits: &str) -> String {
        let n: i64 = digits.parse().unwrap_or(1);
        let digits = &n.to_string();
        if self.binds && self.one_in(2) {
            return self.bound_int(n);
        }
        if self.plain || self.one_in(2) {
            return digits.to_owned();
        }
        let mut ways = vec![
            format!("({n})"),
            format!("{n}.0"),
            format!("{n}e0"),
            format!("'{n}'"),
            format!("{n} + 0"),
            format!("{n} * 1"),
            format!("- {}", -n),
            format!("(SELECT {n})"),
            format!("COALESCE(NULL, {n})"),
            format!("CASE WHEN 1 = 1 THEN {n} ELSE 0 END"),
            "NULL".to_owned(),
        ];
        if n >= 0 {
            ways.extend([
                format!("+{n}"),
                format!("+ {n}"),
                format!("0{n}"),
                format!("0x{n:02x}"),
            ]);
        }
        match self.sql {
            Sql::Postgres => ways.extend([
                format!("'{n}'::bigint"),
                format!("({n})::bigint"),
                format!("int8 '{n}'"),
                format!("CAST('{n}' AS bigint)"),
                format!("$${n}$$::int"),
                format!("E'{n}'"),
                format!("' {n} '"),
            ]),
            Sql::MariaDb => ways.extend([
                format!("\"{n}\""),
                format!("CAST('{n}' AS SIGNED)"),
                format!("{n} DIV 1"),
                format!("{n}|0"),
                format!("x'{:02x}'+0", n.max(0)),
                format!("b'{:b}'", n.max(0)),
                "TRUE".to_owned(),
                format!("'{n}.0'"),
                format!("_utf8mb4'{n}'"),
            ]),
            Sql::Sqlite => ways.extend([
                format!("CAST('{n}' AS INTEGER)"),
                "TRUE".to_owned(),
                format!("'{n} '"),
                format!("'0{n}'"),
                format!("~~{n}"),
            ]),
        }
        self.pick(&ways)
    }

    fn bound_int(&mut self, n: i64) -> String {
        let small = i32::try_from(n).expect("a small number");
        if self.plain {
            return self.bind(n.into());
        }
        let mut ways: Vec<Value> = vec![n.into(), n.into(), small.into()];
        match self.sql {
            Sql::Postgres => ways.extend([(small as i16).into(), Decimal::from(n).into()]),
            _ => ways.extend([
                n.to_string().into(),
                (n as f64).into(),
                (small as i8).into(),
                (n == 1).into(),
                Value::BigInt(None),
                (n as f64 + 0.5).into(),
                format!(" {n}").into(),
            ]),
        }
        if !self.is(Sql::Postgres) && n >= 0 {
            ways.push((n as u64).into());
        }
        if self.is(Sql::MariaDb) {
            ways.push(Decimal::new(n * 100, 2).into());
        }
        let way = self.pick(&ways);
        self.bind(way)
    }

    fn text(&mut self, text: &str) -> String {
        if self.binds && self.one_in(2) {
            return self.bound_text(text);
        }
        let plain = self.literal(text);
        if self.plain || self.one_in(2) {
            return plain;
        }
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut ways = vec![
            format!("({plain})"),
            format!("(SELECT {plain})"),
            format!("TRIM({plain})"),
            format!("COALESCE(NULL, {plain})"),
            "NULL".to_owned(),
        ];
        match self.sql {
            Sql::Postgres => ways.extend([
                format!("E{}", plain.replace('\\', "\\\\")),
                format!("e{}", plain.replace('\\', "\\\\").replace("''", "\\'")),
                format!("$${}$$", inner(text)),
                format!("$q${}$q$", inner(text)),
                format!("{plain}::varchar"),
                format!("CAST({plain} AS text)"),
                format!("text {plain}"),
                format!("{plain} || ''"),
                format!("''\n{plain}"),
                format!("U&{}", plain.replace('\\', "\\\\")),
                format!("N{plain}"),
                format!("convert_from('\\x{hex}', 'UTF8')"),
            ]),
            Sql::MariaDb => ways.extend([
                plain.replace("''", "\\'"),
                format!(
                    "\"{}\"",
                    inner(text).replace('\\', "\\\\").replace('"', "\"\"")
                ),
                format!("_utf8mb4{plain}"),
                format!("N{plain}"),
                format!("x'{hex}'"),
                format!("CONCAT('', {plain})"),
                format!("'' {plain}"),
                format!("BINARY {plain}"),
                format!("{plain} COLLATE utf8mb4_bin"),
                format!("CAST({plain} AS CHAR)"),
                format!("_utf8mb4 x'{hex}'"),
            ]),
            Sql::Sqlite => ways.extend([
                format!("{plain} || ''"),
                format!("CAST(x'{hex}' AS TEXT)"),
                format!("{plain} COLLATE NOCASE"),
                format!("x'{hex}'"),
            ]),
        }
        self.pick(&ways)
    }

    fn bound_text(&mut self, text: &str) -> String {
        let ways = match self.sql {
            _ if self.plain => vec![Value::from(text)],
            Sql::Postgres => vec![text.into()],
            _ => vec![
                Value::from(text),
                text.into(),
                text.to_uppercase().into(),
                format!("{text} ").into(),
                text.as_bytes().to_vec().into(),
                Value::String(None),
                1.into(),
            ],
        };
        let way = self.pick(&ways);
        self.bind(way)
    }

    /// In quotes, as the dialect has it.
    fn literal(&mut self, text: &str) -> String {
        let text = inner(text).replace('\'', "''");
        match self.sql {
            Sql::MariaDb => format!("'{}'", text.replace('\\', "\\\\")),
            _ => format!("'{text}'"),
        }
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn inner(text: &str) -> String {
    text.replace(' ', &BLANK.to_string())
}

/// Conditions.
impl Writer {
    pub fn condition(&mut self, scope: Scope<'_>) -> String {
        let way = if self.plain {
            self.rng.usize(..14)
        } else {
            self.rng.usize(..20)
        };
        match way {
            0..=9 => self.pins(scope),
            10..=11 => format!("{} AND {}", self.pins(scope), self.atom(scope)),
            12 => format!("{} AND {}", self.atom(scope), self.pins(scope)),
            13 => format!("({})", self.condition(scope)),
            14 => format!("NOT {}", self.condition(scope)),
            15..=16 => format!("{} OR {}", self.condition(scope), self.condition(scope)),
            17 => self.mixed(scope),
            _ => self.atom(scope),
        }
    }

    /// Something that says which rows.
    fn pins(&mut self, scope: Scope<'_>) -> String {
        let parts: Vec<_> = scope
            .table
            .key
            .iter()
            .map(|&at| self.pin(scope, at))
            .collect();
        match self.rng.usize(..8) {
            0 if parts.len() > 1 => self.row_value(scope),
            1 => format!("({})", parts.join(") AND (")),
            _ => parts.join(" AND "),
        }
    }

    fn pin(&mut self, scope: Scope<'_>, at: usize) -> String {
        let key = &scope.table.columns[at];
        let column = self.column(scope, key);
        let (a, b, c) = (self.value(key), self.value(key), self.value(key));
        match self.rng.usize(..16) {
            0..=5 => format!("{column} = {a}"),
            6..=7 => format!("{a} = {column}"),
            8..=10 => format!("{column} IN ({a}, {b}, {c})"),
            11 => format!("{column} IN ({a})"),
            12 => format!("({column}) = ({a})"),
            13 => match self.sql {
                Sql::Postgres => format!("{column} = ANY(ARRAY[{a}, {b}])"),
                Sql::MariaDb => format!("{column} <=> {a}"),
                Sql::Sqlite => format!("{column} == {a}"),
            },
            14 => match self.sql {
                Sql::MariaDb => format!("{column} = {a} IS TRUE"),
                _ => format!("{column} IS NOT DISTINCT FROM {a}"),
            },
            _ => format!("{column} = {a} AND {column} = {b}"),
        }
    }

    fn row_value(&mut self, scope: Scope<'_>) -> String {
        let columns: Vec<_> = (scope.table.key.iter())
            .map(|&at| self.column(scope, &scope.table.columns[at]))
            .collect();
        let mut values = || -> String {
            let all = scope
                .table
                .key
                .iter()
                .map(|&at| self.value(&scope.table.columns[at]));
            all.collect::<Vec<_>>().join(", ")
        };
        let (a, b) = (values(), values());
        let columns = columns.join(", ");
        let one = self.one_in(2);
        match self.sql {
            Sql::Sqlite => format!("({columns}) IN (VALUES ({a}), ({b}))"),
            _ if one => format!("({columns}) = ({a})"),
            _ => format!("({columns}) IN (({a}), ({b}))"),
        }
    }

    /// Something about any column.
    fn atom(&mut self, scope: Scope<'_>) -> String {
        let at = self.rng.usize(..scope.table.columns.len());
        let it = &scope.table.columns[at];
        let column = self.column(scope, it);
        let (a, b) = (self.value(it), self.value(it));
        let table = scope.table.name;
        match self.rng.usize(..14) {
            0..=2 => format!("{column} = {a}"),
            3 => format!("{column} <> {a}"),
            4 => format!("{column} BETWEEN {a} AND {b}"),
            5 => format!("{column} IS NOT NULL"),
            6 => format!("{column} >= {a}"),
            7 => format!("{column} NOT IN ({a}, {b})"),
            8 => format!("{column} = {column}"),
            9 => format!(
                "EXISTS (SELECT 1 FROM {table} AS q WHERE q.{} = {a})",
                it.name
            ),
            10 => format!(
                "{column} IN (SELECT {} FROM {table} AS q WHERE q.{} = {a})",
                it.name, it.name
            ),
            11 => format!("{column} = {a} OR {column} = {b}"),
            12 => format!("({column} = {a} OR {column} = {b})"),
            _ => "1 = 1".to_owned(),
        }
    }

    /// What the dialects do not agree on.
    fn mixed(&mut self, scope: Scope<'_>) -> String {
        let (a, b) = (self.pins(scope), self.atom(scope));
        let ways: &[&str] = match self.sql {
            Sql::Postgres => &["IS NOT TRUE AND", "AND NOT", "= TRUE OR", "IS FALSE OR"],
            Sql::MariaDb => &[
                "&&",
                "||",
                "XOR",
                "= 1 OR",
                "| 0 OR",
                "AND NOT",
                "IS FALSE OR",
                "AND !",
            ],
            Sql::Sqlite => &[
                "= 1 OR", "| 0 OR", "= 0 AND", "IS 1 AND", "AND NOT", "= 0 OR",
            ],
        };
        let way = self.pick(ways);
        match self.rng.usize(..3) {
            0 => format!("CASE WHEN {a} THEN 1 = 1 ELSE {b} END"),
            _ => format!("{a} {way} {b}"),
        }
    }
}
