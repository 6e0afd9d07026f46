//! The tables that are written, and what the cache keeps of them.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};

use crate::world::Sql;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Int,
    Text,
    /// In hex digits.
    Bytes,
    Uuid,
}

#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    /// What it may hold, as text: for a number its digits.
    pub pool: &'static [&'static str],
}

#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub columns: &'static [Column],
    pub key: &'static [usize],
    /// By name in keys.
    pub indexes: &'static [(&'static str, &'static [usize])],
    /// Whether the database makes the key.
    pub counts: bool,
}

const fn int(name: &'static str, pool: &'static [&'static str]) -> Column {
    let kind = Kind::Int;
    Column { name, kind, pool }
}

const fn text(name: &'static str, pool: &'static [&'static str]) -> Column {
    let kind = Kind::Text;
    Column { name, kind, pool }
}

const fn bytes(name: &'static str, pool: &'static [&'static str]) -> Column {
    let kind = Kind::Bytes;
    Column { name, kind, pool }
}

const fn uuid(name: &'static str, pool: &'static [&'static str]) -> Column {
    let kind = Kind::Uuid;
    Column { name, kind, pool }
}

const BLOBS: &[&str] = &["61", "4141", "6100", "", "ff00aa", "5c"];
const UUIDS: &[&str] = &[
    "00000000000000000000000000000001",
    "123456789abcdef0123456789abcde00",
    "61626364616263646162636461626364",
    "ffffffffffffffffffffffffffffffff",
];
const IDS: &[&str] = &["1", "2", "3", "4", "-1", "9"];
const PARENTS: &[&str] = &["1", "2", "3", "2", "3", "8"];
const SLUGS: &[&str] = &["a", "A", "b", "é", "e", "it's", "2", "new", "z \\", "a b"];
const NAMES: &[&str] = &[
    "x", "y", "", "x;y", "-- no", "/*", "日本", "?", "$1", "city",
];
const WORDS: &[&str] = &[
    "abc", "ABC", "abc ", "é", "E", "id", "1", "x:y", "", "a\\b", "it's",
];
const KINDS: &[&str] = &["k", "K", "k ", "noun", "ß", ""];

pub const TABLES: &[Table] = &[
    Table {
        name: "city",
        columns: &[
            int("id", IDS),
            int("country_id", PARENTS),
            text("slug", SLUGS),
            text("name", NAMES),
            int("rank", IDS),
        ],
        key: &[0],
        indexes: &[("country_id", &[1]), ("slug", &[2]), ("rank", &[4])],
        counts: true,
    },
    Table {
        name: "country",
        columns: &[int("id", IDS), text("iso2", SLUGS), text("name", NAMES)],
        key: &[0],
        indexes: &[("iso2", &[1])],
        counts: false,
    },
    Table {
        name: "tag",
        columns: &[int("id", IDS), text("label", NAMES)],
        key: &[0],
        indexes: &[],
        counts: true,
    },
    Table {
        name: "city_tag",
        columns: &[int("city_id", IDS), int("tag_id", PARENTS)],
        key: &[0, 1],
        indexes: &[],
        counts: false,
    },
    Table {
        name: "word",
        columns: &[
            text("id", WORDS),
            text("kind", KINDS),
            text("meaning", NAMES),
        ],
        key: &[0],
        indexes: &[("kind", &[1])],
        counts: false,
    },
    Table {
        name: "line",
        columns: &[
            int("order_id", PARENTS),
            text("position", WORDS),
            text("product", KINDS),
            int("amount", IDS),
        ],
        key: &[0, 1],
        indexes: &[("product_and_amount", &[2, 3])],
        counts: false,
    },
    Table {
        name: "blob_store",
        columns: &[bytes("id", BLOBS), int("size", IDS)],
        key: &[0],
        indexes: &[],
        counts: false,
    },
    Table {
        name: "document",
        columns: &[uuid("id", UUIDS), text("title", NAMES)],
        key: &[0],
        indexes: &[],
        counts: false,
    },
];

/// The rows that every statement finds.
const SEED: &[&str] = &[
    "DELETE FROM city_tag",
    "DELETE FROM city",
    "DELETE FROM tag",
    "DELETE FROM country",
    "DELETE FROM word",
    "DELETE FROM line",
    "DELETE FROM blob_store",
    "DELETE FROM document",
    "INSERT INTO country (id, iso2, name) VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z'), (-1, 'd', '')",
    "INSERT INTO city (id, country_id, slug, name, rank) VALUES (1, 1, 'a', 'x', 1), (2, 2, 'b', 'y', 2), (3, NULL, 'c', 'x', 2), (4, 2, 'it''s', 'z', 3), (-1, 3, '2', '', -1)",
    "INSERT INTO tag (id, label) VALUES (1, 'x'), (2, 'y'), (3, 'x')",
    "INSERT INTO city_tag (city_id, tag_id) VALUES (1, 1), (1, 2), (2, 3), (3, 3), (-1, 1)",
    "INSERT INTO word (id, kind, meaning) VALUES ('abc', 'k', 'x'), ('e', 'noun', 'y'), ('1', 'K', 'x'), ('id', 'k', ''), ('it''s', 'noun', 'z')",
    "INSERT INTO line (order_id, position, product, amount) VALUES (1, 'abc', 'k', 1), (1, 'id', 'k', 2), (2, 'abc', 'noun', 1), (3, '1', 'K', 2)",
];

pub async fn reseed(db: &DatabaseConnection) {
    db.execute_unprepared("BEGIN").await.expect("a transaction");
    for sql in SEED {
        db.execute_unprepared(sql).await.expect(sql);
    }
    for (at, uuid) in UUIDS[..3].iter().enumerate() {
        let blob = BLOBS[at];
        let (blob, uuid) = match db.get_database_backend() {
            DbBackend::Postgres => (format!("'\\x{blob}'"), format!("'{uuid}'")),
            _ => (format!("x'{blob}'"), format!("x'{uuid}'")),
        };
        for sql in [
            format!("INSERT INTO blob_store (id, size) VALUES ({blob}, {at})"),
            format!("INSERT INTO document (id, title) VALUES ({uuid}, 'x')"),
        ] {
            db.execute_unprepared(&sql).await.expect(&sql);
        }
    }
    db.execute_unprepared("COMMIT").await.expect("a commit");
}

/// One row: where it is, and its cells as the database writes them; `None` is NULL.
type Row = Vec<Option<String>>;

/// All rows, by table and key.
pub type Rows = BTreeMap<(usize, Row), Row>;

fn cell(name: &str, kind: Kind, sql: Sql) -> String {
    match sql {
        Sql::Postgres if kind == Kind::Bytes => format!("encode({name}, 'hex')"),
        Sql::MariaDb if matches!(kind, Kind::Bytes | Kind::Uuid) => format!("HEX({name})"),
        Sql::Postgres => format!("{name}::text"),
        Sql::MariaDb => format!("CAST({name} AS CHAR)"),
        // Tells types apart.
        Sql::Sqlite => format!("NULLIF(quote({name}), 'NULL')"),
    }
}

fn select(sql: Sql) -> String {
    let selects = TABLES.iter().enumerate().map(|(at, table)| {
        let cells = (0..5).map(|column| match table.columns.get(column) {
            Some(column) => cell(column.name, column.kind, sql),
            None => cell("NULL", Kind::Text, sql),
        });
        let cells: Vec<_> = cells.collect();
        format!("SELECT {at}, {} FROM {}", cells.join(", "), table.name)
    });
    selects.collect::<Vec<_>>().join(" UNION ALL ")
}

/// All rows, after `what`.
pub async fn rows(db: &DatabaseConnection, sql: Sql, what: &str) -> Rows {
    let backend: DbBackend = db.get_database_backend();
    let statement = Statement::from_string(backend, select(sql));
    let all = db
        .query_all_raw(statement)
        .await
        .unwrap_or_else(|error| panic!("after {what}: {error}"));
    let rows = all.iter().map(|row| {
        let table = match row.try_get_by_index::<i32>(0) {
            Ok(at) => i64::from(at),
            Err(_) => row.try_get_by_index(0).expect("a number"),
        };
        let table = usize::try_from(table).expect("a position");
        let cells: Row = (1..=TABLES[table].columns.len())
            .map(|at| row.try_get_by_index(at).expect("a text"))
            .collect();
        let key = TABLES[table].key.iter().map(|&at| cells[at].clone());
        ((table, key.collect()), cells)
    });
    rows.collect()
}

/// Percent-escapes, as keys do.
fn escape(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'-' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    escaped.collect()
}

/// How a stored value is named in keys; `None` if it never is.
fn named(kind: Kind, cell: Option<&String>, sql: Sql) -> Option<String> {
    let cell = cell?.as_str();
    match (kind, sql) {
        (Kind::Int, _) => cell.parse::<i64>().ok().map(|n| n.to_string()),
        (Kind::Bytes | Kind::Uuid, Sql::Sqlite) => {
            let hex = cell.strip_prefix("X'")?.strip_suffix('\'')?;
            Some(hex_key(kind, hex))
        }
        (Kind::Bytes | Kind::Uuid, _) => Some(hex_key(kind, cell)),
        (Kind::Text, Sql::Postgres) => (!cell.ends_with(' ')).then(|| escape(cell)),
        (Kind::Text, Sql::MariaDb) => folded(cell),
        (Kind::Text, Sql::Sqlite) => {
            let text = cell.strip_prefix('\'')?.strip_suffix('\'')?;
            folded(&text.replace("''", "'"))
        }
    }
}

fn hex_key(kind: Kind, hex: &str) -> String {
    let hex = hex.replace('-', "").to_lowercase();
    let bytes: Vec<&str> = (0..hex.len())
        .step_by(2)
        .map(|at| &hex[at..at + 2])
        .collect();
    let end = match kind {
        Kind::Bytes => bytes
            .iter()
            .rposition(|byte| *byte != "00")
            .map_or(0, |last| last + 1),
        _ => bytes.len(),
    };
    bytes[..end].concat()
}

fn folded(text: &str) -> Option<String> {
    let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    printable.then(|| escape(&text.trim_end_matches(' ').to_ascii_lowercase()))
}

fn part(table: &Table, columns: &[usize], row: &Row, sql: Sql) -> Option<String> {
    let parts = columns
        .iter()
        .map(|&at| named(table.columns[at].kind, row[at].as_ref(), sql));
    parts
        .collect::<Option<Vec<_>>>()
        .map(|parts| parts.join(","))
}

/// What must be fenced because of a change: one of each list.
pub fn needed(before: &Rows, after: &Rows, sql: Sql) -> BTreeSet<Vec<String>> {
    let mut needed = BTreeSet::new();
    let places: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for place in places {
        let (old, new) = (before.get(place), after.get(place));
        if old == new {
            continue;
        }
        let table = &TABLES[place.0];
        let key = |rest: &str| format!("soc:main:{}:{rest}", table.name);
        needed.insert(vec![key("gen:list")]);
        let part = |columns: &[usize], row: &Row| part(table, columns, row, sql);
        if let Some(pk) = old.and_then(|old| part(table.key, old)) {
            needed.insert(vec![key(&format!("pk:{pk}")), key("gen:rows")]);
        }
        for (name, columns) in table.indexes {
            let Some(new) = new else { continue };
            let moved = old.is_none_or(|old| columns.iter().any(|&at| old[at] != new[at]));
            if let Some(value) = part(columns, new).filter(|_| moved) {
                let entry = key(&format!("ix:{name}:{value}"));
                needed.insert(vec![entry, key("gen:index"), key("gen:rows")]);
            }
        }
    }
    needed
}
