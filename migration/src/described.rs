//! Tables as their database describes them.

use sea_orm_cache::ColumnKind;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};

use crate::watch::Watch;

/// Of each column its name, its type, and its place in the primary key if it has one. `$1` is the schema, or NULL
/// for the session's, and `$2` the table.
const POSTGRES: &str = "SELECT a.attname::text AS name, \
    CASE WHEN t.typtype = 'e' THEN 'enum' ELSE t.typname::text END AS kind, \
    array_position(k.indkey::int2[], a.attnum)::bigint AS place \
    FROM pg_attribute AS a \
    JOIN pg_type AS d ON d.oid = a.atttypid \
    JOIN pg_type AS t ON t.oid = CASE WHEN d.typtype = 'd' THEN d.typbasetype ELSE d.oid END \
    LEFT JOIN pg_index AS k ON k.indrelid = a.attrelid AND k.indisprimary \
    WHERE a.attrelid = to_regclass(concat(quote_ident($1::text) || '.', quote_ident($2::text))) \
    AND a.attnum > 0 AND NOT a.attisdropped ORDER BY place, a.attnum";

const MYSQL: &str = "SELECT c.column_name AS name, c.column_type AS kind, CAST(k.ordinal_position AS SIGNED) AS place \
    FROM information_schema.columns AS c LEFT JOIN information_schema.key_column_usage AS k \
    ON k.constraint_name = 'PRIMARY' AND k.table_schema = c.table_schema \
    AND k.table_name = c.table_name AND k.column_name = c.column_name \
    WHERE c.table_schema = COALESCE(?, DATABASE()) AND c.table_name = ? \
    ORDER BY k.ordinal_position IS NULL, k.ordinal_position, c.ordinal_position";

const SQLITE: &str = "SELECT name, type AS kind, nullif(pk, 0) AS place \
    FROM pragma_table_info(?2, COALESCE(?1, 'main')) ORDER BY pk = 0, pk, cid";

struct Column {
    name: String,
    kind: ColumnKind,
    is_key: bool,
}

impl Watch {
    /// A table as its database describes it, where the entity is not known: its primary key, and these other columns,
    /// by which cached indexes find rows. Without the columns of an index, a change drops all that is cached in
    /// it.
    ///
    /// # Errors
    /// The database's, and one that names the table or the column which is not there.
    pub async fn described<C: ConnectionTrait>(
        schema: Option<&str>,
        table: &str,
        columns: &[&str],
        db: &C,
    ) -> Result<Self, DbErr> {
        let known = describe(schema, table, db).await?;
        if known.is_empty() {
            return Err(DbErr::Custom(format!("there is no table {table}")));
        }
        let keys = known.iter().filter(|column| column.is_key);
        let mut watched: Vec<_> = keys.map(|key| (key.name.clone(), key.kind)).collect();
        let keys = watched.len();
        for name in columns {
            let Some(column) = known.iter().find(|column| column.name == *name) else {
                let names: Vec<_> = known.iter().map(|column| column.name.as_str()).collect();
                let names = names.join(", ");
                let reason = format!("{table} has no column {name}; it has {names}");
                return Err(DbErr::Custom(reason));
            };
            if !watched.iter().any(|(watched, _)| watched == name) {
                watched.push((column.name.clone(), column.kind));
            }
        }
        // Without a key its rows cannot be named.
        if keys == 0 {
            watched.clear();
        }
        let schema = schema.map(str::to_owned);
        Ok(Self::new(schema, table.to_owned(), watched, keys))
    }
}

async fn describe<C: ConnectionTrait>(
    schema: Option<&str>,
    table: &str,
    db: &C,
) -> Result<Vec<Column>, DbErr> {
    let backend = db.get_database_backend();
    let sql = match backend {
        DbBackend::Postgres => POSTGRES,
        DbBackend::MySql => MYSQL,
        _ => SQLITE,
    };
    let values = [schema.map(str::to_owned), Some(table.to_owned())].map(Into::into);
    let asked = Statement::from_sql_and_values(backend, sql, values);
    let rows = db.query_all_raw(asked).await?;
    rows.iter().map(column).collect()
}

fn column(row: &QueryResult) -> Result<Column, DbErr> {
    let kind: String = row.try_get("", "kind")?;
    let place: Option<i64> = row.try_get("", "place")?;
    Ok(Column {
        name: row.try_get("", "name")?,
        kind: kind_of(&kind),
        is_key: place.is_some(),
    })
}

/// The kind of a column that was declared so. One that the entity sees otherwise is written in a way that the feed does
/// not take for a value: it drops more.
fn kind_of(declared: &str) -> ColumnKind {
    let declared = declared.to_ascii_lowercase();
    let word = declared.split(['(', ' ']).next().unwrap_or_default();
    match word {
        // As SeaORM keeps a `Uuid` in MySQL.
        "binary" if declared == "binary(16)" => ColumnKind::Uuid,
        "bool" | "boolean" => ColumnKind::Integer,
        "char" | "bpchar" | "character" => ColumnKind::Char,
        "citext" => ColumnKind::CiText,
        "date" | "date_text" => ColumnKind::Date,
        "decimal" | "numeric" => ColumnKind::Decimal,
        "enum" => ColumnKind::Text,
        "uuid" | "uuid_text" => ColumnKind::Uuid,
        "bytea" => ColumnKind::Bytes,
        "point" | "interval" => ColumnKind::Other,
        _ if word.ends_with("int") || word.starts_with("int") => ColumnKind::Integer,
        _ if word.ends_with("text") || word.contains("varchar") => ColumnKind::Text,
        _ if word.contains("blob") || word.contains("binary") => ColumnKind::Bytes,
        _ => ColumnKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_all_databases_have_the_kind_that_an_entity_has_for_them() {
        let kinds = [
            ("int4", ColumnKind::Integer),
            ("bigint(20) unsigned", ColumnKind::Integer),
            ("INTEGER", ColumnKind::Integer),
            ("tinyint(1)", ColumnKind::Integer),
            ("bool", ColumnKind::Integer),
            ("varchar(3)", ColumnKind::Text),
            ("VARCHAR", ColumnKind::Text),
            ("enum('a','b')", ColumnKind::Text),
            ("text", ColumnKind::Text),
            ("bpchar", ColumnKind::Char),
            ("char(2)", ColumnKind::Char),
            ("citext", ColumnKind::CiText),
            ("uuid", ColumnKind::Uuid),
            ("uuid_text", ColumnKind::Uuid),
            ("binary(16)", ColumnKind::Uuid),
            ("varbinary(16)", ColumnKind::Bytes),
            ("BLOB", ColumnKind::Bytes),
            ("bytea", ColumnKind::Bytes),
            ("numeric", ColumnKind::Decimal),
            ("decimal(10,2)", ColumnKind::Decimal),
            ("date", ColumnKind::Date),
            ("date_text", ColumnKind::Date),
            ("timestamptz", ColumnKind::Other),
            ("datetime(6)", ColumnKind::Other),
            ("interval", ColumnKind::Other),
            ("point", ColumnKind::Other),
            ("jsonb", ColumnKind::Other),
            ("float8", ColumnKind::Other),
            ("", ColumnKind::Other),
        ];
        for (declared, kind) in kinds {
            assert_eq!(kind_of(declared), kind, "{declared}");
        }
    }
}
