//! The text of the triggers.

use sea_orm_cache::ColumnKind;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend, DbErr};

use crate::outbox::TABLE;

/// A database, and the schema in which it keeps the outbox.
#[derive(Debug)]
pub(crate) struct Sql {
    pub(crate) backend: DbBackend,
    pub(crate) home: Option<String>,
}

/// What is watched.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) schema: Option<&'a str>,
    pub(crate) table: &'a str,
    /// Those of the primary key first.
    pub(crate) columns: &'a [(String, ColumnKind)],
    /// How many of them are the primary key's.
    pub(crate) keys: usize,
    pub(crate) bulk: u32,
    pub(crate) notifies: bool,
}

/// What makes a trigger fire for a row, and which rows there are then.
const ROW_EVENTS: [(&str, bool, bool); 3] = [
    ("insert", false, true),
    ("update", true, true),
    ("delete", true, false),
];

/// The same for a statement, and what its rows are called.
const STATEMENT_EVENTS: [(&str, &str); 4] = [
    ("insert", " REFERENCING NEW TABLE AS new_rows"),
    (
        "update",
        " REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    ),
    ("delete", " REFERENCING OLD TABLE AS old_rows"),
    ("truncate", ""),
];

/// The columns of one object: functions of Postgres take 100 arguments.
const MOST_COLUMNS: usize = 50;

/// Has SQLite look at its schema.
const LOOK: &str = "SELECT 1 FROM sqlite_master LIMIT 1";

impl Sql {
    /// Runs them; on MySQL, which ends a transaction at each of them, one by one.
    pub(crate) async fn run<C: ConnectionTrait>(
        &self,
        statements: Vec<String>,
        db: &C,
    ) -> Result<(), DbErr> {
        let statements = match self.backend {
            DbBackend::MySql => statements,
            // This connection may not have looked since another one has created a trigger: then SQLite finds that
            // there is none to drop.
            DbBackend::Sqlite => vec![format!("{LOOK}; {}", statements.join(";\n"))],
            _ => vec![statements.join(";\n")],
        };
        for sql in statements {
            db.execute_unprepared(&sql).await?;
        }
        Ok(())
    }

    /// Creates the triggers, in place of those that are there. What was written before they were is a change.
    pub(crate) fn create(&self, target: &Target<'_>) -> Vec<String> {
        let mut statements = match self.backend {
            DbBackend::Postgres => self.create_postgres(target),
            _ => {
                let created = ROW_EVENTS.map(|event| self.row_trigger(target, event));
                self.remove(target).into_iter().chain(created).collect()
            }
        };
        statements.push(self.whole(target));
        statements
    }

    /// Asks how many of the triggers there are, and tells how many there should be.
    pub(crate) fn count(&self, target: &Target<'_>) -> (String, i64) {
        let all = ROW_EVENTS.map(|event| self.row_trigger(target, event));
        let texts = |all: &[String]| {
            let all = all.iter().map(|sql| self.text(sql));
            all.collect::<Vec<_>>().join(", ")
        };
        let count = match self.backend {
            DbBackend::Postgres => format!(
                "pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid \
                 WHERE t.tgrelid = to_regclass({}) AND t.tgenabled <> 'D' AND p.prosrc = {}",
                self.text(&self.qualified(target.schema, target.table)),
                self.text(&self.postgres_body(target))
            ),
            DbBackend::MySql => format!(
                "information_schema.triggers WHERE event_object_schema = {} \
                 AND event_object_table = {} AND action_statement IN ({})",
                target
                    .schema
                    .map_or("DATABASE()".to_owned(), |schema| self.text(schema)),
                self.text(target.table),
                texts(&ROW_EVENTS.map(|event| self.row_action(target, event)))
            ),
            _ => format!(
                "sqlite_master WHERE type = 'trigger' AND sql IN ({})",
                texts(&all)
            ),
        };
        let all = match self.backend {
            DbBackend::Postgres => STATEMENT_EVENTS.len(),
            _ => ROW_EVENTS.len(),
        };
        (format!("SELECT count(*) AS n FROM {count}"), all as i64)
    }

    /// Any rows of the table have changed.
    fn whole(&self, target: &Target<'_>) -> String {
        let (outbox, table) = (self.outbox(), self.text(target.table));
        format!("INSERT INTO {outbox} (table_name) VALUES ({table})")
    }

    /// Drops the triggers that are there.
    pub(crate) fn remove(&self, target: &Target<'_>) -> Vec<String> {
        match self.backend {
            DbBackend::Postgres => {
                let function = self.function(target);
                vec![format!("DROP FUNCTION IF EXISTS {function}() CASCADE")]
            }
            _ => {
                let triggers = ROW_EVENTS.map(|(event, ..)| self.trigger(target, event));
                triggers
                    .map(|name| format!("DROP TRIGGER IF EXISTS {name}"))
                    .into()
            }
        }
    }

    fn create_postgres(&self, target: &Target<'_>) -> Vec<String> {
        let (function, table) = (
            self.function(target),
            self.qualified(target.schema, target.table),
        );
        let triggers = STATEMENT_EVENTS.iter().flat_map(|(event, rows)| {
            let name = format!("sea_orm_cache_{event}");
            [
                format!("DROP TRIGGER IF EXISTS {name} ON {table}"),
                format!(
                    "CREATE TRIGGER {name} AFTER {event} ON {table}{rows} \
                     FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
                ),
            ]
        });
        [self.postgres_function(target)]
            .into_iter()
            .chain(triggers)
            .collect()
    }

    /// It runs with the rights of who made it: those who write to the table need none for the outbox. What their
    /// sessions may have set changes nothing.
    fn postgres_function(&self, target: &Target<'_>) -> String {
        let body = self.postgres_body(target);
        let quote = dollar_quote(&body);
        format!(
            "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
             SET search_path = pg_catalog, pg_temp SET bytea_output = 'hex' AS {quote}{body}{quote}",
            self.function(target)
        )
    }

    fn postgres_body(&self, target: &Target<'_>) -> String {
        let (outbox, table) = (self.outbox(), self.text(target.table));
        let (old, new) = (self.object(target, "o"), self.object(target, "n"));
        let whole = format!("{};", self.whole(target));
        let insert =
            format!("INSERT INTO {outbox} (table_name, old_json, new_json) SELECT {table},");
        let case = |rows: &str, source: &str, old: &str, new: &str| {
            let write = match target.columns.is_empty() {
                true => whole.clone(),
                false => format!("{insert} {old}, {new} FROM {source};"),
            };
            format!(
                "SELECT count(*) INTO touched FROM (SELECT 1 FROM {rows} LIMIT {bulk} + 1) AS r; \
                 IF touched = 0 THEN RETURN NULL; \
                 ELSIF touched > {bulk} THEN {whole} \
                 ELSE {write} END IF;",
                bulk = target.bulk
            )
        };
        let joined = format!(
            "old_rows AS o FULL JOIN new_rows AS n ON {}",
            self.same_key(target)
        );
        let present = |row: &str, object: &str| match target.columns.first() {
            Some((key, _)) => {
                format!(
                    "CASE WHEN {row}.{} IS NOT NULL THEN {object} END",
                    self.name(key)
                )
            }
            None => "NULL".to_owned(),
        };
        let inserted = case("new_rows", "new_rows AS n", "NULL", &new);
        let updated = case(
            "new_rows",
            &joined,
            &present("o", &old),
            &present("n", &new),
        );
        let deleted = case("old_rows", "old_rows AS o", &old, "NULL");
        let notify = match target.notifies {
            true => format!("PERFORM pg_notify('{TABLE}', '');"),
            false => String::new(),
        };
        format!(
            "\nDECLARE touched bigint;\nBEGIN\n\
             IF TG_OP = 'INSERT' THEN {inserted}\n\
             ELSIF TG_OP = 'UPDATE' THEN {updated}\n\
             ELSIF TG_OP = 'DELETE' THEN {deleted}\n\
             ELSE {whole}\nEND IF;\n{notify}\nRETURN NULL;\nEND\n"
        )
    }

    /// An update that changes the key is a row that went and one that came. As text what `=` may not be known for.
    fn same_key(&self, target: &Target<'_>) -> String {
        let same = target
            .columns
            .iter()
            .take(target.keys)
            .map(|(column, kind)| {
                let name = self.name(column);
                match kind {
                    ColumnKind::CiText | ColumnKind::Other => {
                        format!("o.{name}::text = n.{name}::text")
                    }
                    _ => format!("o.{name} = n.{name}"),
                }
            });
        same.collect::<Vec<_>>().join(" AND ")
    }

    fn row_trigger(&self, target: &Target<'_>, event: (&str, bool, bool)) -> String {
        let action = self.row_action(target, event);
        let (trigger, table) = (self.trigger(target, event.0), self.watched(target));
        let head = format!(
            "CREATE TRIGGER {trigger} AFTER {} ON {table} FOR EACH ROW",
            event.0
        );
        match self.backend {
            DbBackend::MySql => format!("{head} {action}"),
            _ => format!("{head} BEGIN {action}; END"),
        }
    }

    fn row_action(&self, target: &Target<'_>, (_, old, new): (&str, bool, bool)) -> String {
        let image = |there: bool, row: &str| match there && !target.columns.is_empty() {
            true => self.object(target, row),
            false => "NULL".to_owned(),
        };
        format!(
            "INSERT INTO {} (table_name, old_json, new_json) VALUES ({}, {}, {})",
            self.outbox(),
            self.text(target.table),
            image(old, "OLD"),
            image(new, "NEW")
        )
    }

    /// A JSON object of the row that is called so: of the columns whose values are certain in JSON.
    fn object(&self, target: &Target<'_>, row: &str) -> String {
        let certain = target
            .columns
            .iter()
            .filter(|(_, kind)| !matches!(kind, ColumnKind::Decimal | ColumnKind::Other));
        let fields = certain.take(MOST_COLUMNS).map(|(column, kind)| {
            let value = self.value(&format!("{row}.{}", self.name(column)), *kind);
            format!("{}, {value}", self.text(column))
        });
        let fields = fields.collect::<Vec<_>>().join(", ");
        match self.backend {
            DbBackend::Postgres => format!("json_build_object({fields})::text"),
            DbBackend::MySql => format!("JSON_OBJECT({fields})"),
            _ => format!("json_object({fields})"),
        }
    }

    /// What the feed understands, or something that it knows it does not.
    fn value(&self, value: &str, kind: ColumnKind) -> String {
        match (self.backend, kind) {
            (DbBackend::Postgres, _) => value.to_owned(),
            (DbBackend::MySql, ColumnKind::Integer) => value.to_owned(),
            (DbBackend::MySql, ColumnKind::Uuid) => format!("HEX({value})"),
            (DbBackend::MySql, ColumnKind::Bytes) => {
                format!("CONCAT(CHAR(92 USING utf8mb4), 'x', HEX({value}))")
            }
            (DbBackend::MySql, ColumnKind::Date) => format!("DATE_FORMAT({value}, '%Y-%m-%d')"),
            (DbBackend::MySql, _) => format!("CONVERT({value} USING utf8mb4)"),
            (_, ColumnKind::Integer) => typed(value, "integer", value, "'?'"),
            (_, ColumnKind::Uuid) => typed(value, "blob", &format!("hex({value})"), "0"),
            (_, ColumnKind::Bytes) => typed(value, "blob", &format!("'\\x' || hex({value})"), "0"),
            (_, _) => typed(value, "text", value, "0"),
        }
    }

    fn outbox(&self) -> String {
        self.qualified(self.home.as_deref(), TABLE)
    }

    /// The function of a table's triggers on Postgres.
    fn function(&self, target: &Target<'_>) -> String {
        let name = fitting("sea_orm_cache_watch_", target, 63);
        self.qualified(self.home.as_deref(), &name)
    }

    /// A trigger on the other databases, where it stands beside the table.
    fn trigger(&self, target: &Target<'_>, event: &str) -> String {
        let name = fitting(&format!("sea_orm_cache_{event}_"), target, 64);
        self.qualified(target.schema, &name)
    }

    /// The table of a trigger. SQLite takes the schema from the trigger's own name.
    fn watched(&self, target: &Target<'_>) -> String {
        match self.backend {
            DbBackend::MySql => self.qualified(target.schema, target.table),
            _ => self.name(target.table),
        }
    }

    fn qualified(&self, schema: Option<&str>, name: &str) -> String {
        let schema = schema.map(|schema| format!("{}.", self.name(schema)));
        format!("{}{}", schema.unwrap_or_default(), self.name(name))
    }

    /// A quoted name.
    fn name(&self, name: &str) -> String {
        match self.backend {
            DbBackend::MySql => format!("`{}`", name.replace('`', "``")),
            _ => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    /// A quoted text, whatever a session has set about backslashes.
    fn text(&self, text: &str) -> String {
        let quoted = text.replace('\'', "''");
        match self.backend {
            DbBackend::Postgres => format!("E'{}'", quoted.replace('\\', "\\\\")),
            DbBackend::MySql if text.contains('\\') => {
                let hex: String = text.bytes().map(|byte| format!("{byte:02X}")).collect();
                format!("CONVERT(X'{hex}' USING utf8mb4)")
            }
            _ => format!("'{quoted}'"),
        }
    }
}

/// In SQLite a value has a type of its own, whatever its column says.
fn typed(value: &str, is: &str, then: &str, otherwise: &str) -> String {
    format!(
        "CASE typeof({value}) WHEN '{is}' THEN {then} WHEN 'null' THEN NULL ELSE {otherwise} END"
    )
}

/// A name of at most so many bytes, and another one for each table.
fn fitting(prefix: &str, target: &Target<'_>, most: usize) -> String {
    let schema = target.schema.map(|schema| format!("{schema}."));
    let table = format!("{}{}", schema.unwrap_or_default(), target.table);
    let name = format!("{prefix}{table}");
    if name.len() <= most {
        return name;
    }
    let digits = format!("_{:016x}", hash(&table));
    let mut end = most - digits.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{digits}", &name[..end])
}

/// FNV-1a: the same in every build.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What does not occur in the body.
fn dollar_quote(body: &str) -> String {
    let mut quote = "$feed$".to_owned();
    while body.contains(&quote) {
        quote.insert(quote.len() - 1, '_');
    }
    quote
}
