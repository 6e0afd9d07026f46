//! Tells statements apart by their first words.

use sea_orm::DbBackend;
use sea_orm::sea_query::Value;

use super::cursor::{self, Cursor};
use super::found::Found;
use super::scan::{Kind, Token, scan};
use super::{Control, Effects};
use crate::orm::meta::Registry;

/// Statements that change rows, wherever they stand.
const CHANGES: &[&str] = &["INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE"];

/// Words that a statement that writes cannot do without.
const WRITES: &[&str] = &[
    "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "TRUNCATE", "LOAD", "COPY", "CALL", "DO",
    "EXECUTE", "CREATE", "ALTER", "DROP", "RENAME", "IMPORT", "REFRESH", "XA",
];

/// What is created, altered or dropped.
const OBJECTS: &[&str] = &[
    "TABLE",
    "TABLES",
    "VIEW",
    "INDEX",
    "SEQUENCE",
    "FUNCTION",
    "PROCEDURE",
    "AGGREGATE",
    "TRIGGER",
    "EVENT",
    "RULE",
    "POLICY",
    "TYPE",
    "DOMAIN",
    "ROLE",
    "USER",
    "SCHEMA",
    "DATABASE",
    "EXTENSION",
];

/// Past this many changes in parentheses a statement is not looked into: each is read to its end.
const MOST_NESTED: usize = 100;

/// What an insert or update does about a row that is in its way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Conflict {
    /// It fails or leaves the row alone.
    Plain,
    /// It deletes the other row.
    Replace,
    /// It ends the transaction.
    Rollback,
    /// It stores other values than those given (`IGNORE` on MySQL).
    Coerce,
}

/// Reads the statements of one text.
pub(super) struct Analyzer<'a> {
    pub(super) values: &'a [Value],
    pub(super) backend: DbBackend,
    pub(super) registry: &'a Registry,
    pub(super) found: Found<'a>,
}

impl<'a> Analyzer<'a> {
    pub(super) fn new(values: &'a [Value], backend: DbBackend, registry: &'a Registry) -> Self {
        Self {
            values,
            backend,
            registry,
            found: Found::new(registry),
        }
    }

    pub(super) fn run(mut self, sql: &str) -> Effects {
        match scan(sql, self.backend) {
            Some(scan) => {
                self.statements(&scan.tokens);
                if scan.conditional && cursor::mentions(&scan.tokens, WRITES) {
                    self.not_understood(&scan.tokens);
                }
            }
            None => self.found.everything(),
        }
        self.found.finish()
    }

    fn statements(&mut self, tokens: &[Token<'_>]) {
        let mut routine = false;
        for tokens in tokens.split(|token| token.kind == Kind::Symbol(b';')) {
            if routine && matches!(tokens, [word] if word.is("END")) {
                routine = false;
                continue;
            }
            self.statement(tokens);
            self.nested(tokens);
            if !routine {
                self.found.control(self.control(tokens));
                routine = begins_routine(tokens, self.backend);
            }
        }
    }

    fn statement(&mut self, tokens: &[Token<'_>]) {
        let understood = match tokens.split_first() {
            None => Some(()),
            Some((first, _)) if first.kind == Kind::Symbol(b'(') => self.query(tokens),
            Some((first, rest)) if first.kind == Kind::Word => {
                let word = first.text.to_ascii_uppercase();
                self.by_first_word(&word, tokens, rest)
            }
            Some(_) => None,
        };
        if understood.is_none() {
            self.not_understood(tokens);
        }
    }

    /// `rest` is `tokens` without the first, which is `word`. `None` if they are not understood.
    fn by_first_word(
        &mut self,
        word: &str,
        tokens: &[Token<'_>],
        rest: &[Token<'_>],
    ) -> Option<()> {
        match word {
            "INSERT" => self.insert(rest, false),
            "REPLACE" => self.insert(rest, true),
            "UPDATE" => self.update(rest),
            "DELETE" => self.delete(rest),
            "SELECT" => self.query(tokens),
            "WITH" => self.with(tokens),
            "MERGE" => self.merge(rest),
            "TRUNCATE" => self.truncate(rest),
            "EXPLAIN" | "ANALYZE" | "ANALYSE" | "DESCRIBE" | "DESC" => self.explain(tokens),
            "SET" => self.set(rest),
            "COPY" => self.copy(rest),
            "LOAD" => self.load(rest),
            "REFRESH" => self.refresh(rest),
            "CREATE" | "ALTER" | "DROP" | "RENAME" | "REINDEX" | "REPAIR" => {
                self.schema(word, tokens)
            }
            "BEGIN" => self.begin(rest),
            "PREPARE" | "ROLLBACK" | "END" | "ABORT" => Some(()),
            "COMMIT" if !rest.first().is_some_and(|token| token.is("PREPARED")) => Some(()),
            "VALUES" | "TABLE" | "SHOW" | "PRAGMA" | "SAVEPOINT" | "RELEASE" | "USE" | "START"
            | "LISTEN" | "UNLISTEN" | "NOTIFY" | "ATTACH" | "DETACH" | "VACUUM" | "LOCK"
            | "UNLOCK" | "GRANT" | "REVOKE" | "RESET" | "DECLARE" | "FETCH" | "MOVE" | "CLOSE"
            | "DEALLOCATE" | "DISCARD" | "CHECKPOINT" | "COMMENT" | "CLUSTER" | "HANDLER"
            | "HELP" | "KILL" | "CHECK" | "CHECKSUM" | "CACHE" | "FLUSH" | "OPTIMIZE" => Some(()),
            // Also `COMMIT PREPARED` and `XA COMMIT`: what they commit was prepared elsewhere.
            "CALL" | "DO" | "EXEC" | "EXECUTE" | "COMMIT" | "XA" | "BINLOG" => {
                self.found.everything();
                Some(())
            }
            _ => None,
        }
    }

    /// Every entity whose table is named in `tokens`, or all there are: where none is named, or what
    /// runs is not in the text (`IF .. THEN CALL f()`).
    fn not_understood(&mut self, tokens: &[Token<'_>]) {
        let opaque = cursor::mentions(tokens, &["CALL", "EXEC", "EXECUTE"]);
        if !self.mentioned(tokens) || opaque {
            self.found.everything();
        }
    }

    /// Takes every entity whose table is named in `tokens` as changed; whether there is one.
    pub(super) fn mentioned(&mut self, tokens: &[Token<'_>]) -> bool {
        let mut any = false;
        for token in tokens.iter().filter(|token| token.is_name(self.backend)) {
            let name = token.name();
            if !self.registry.of_table(&name).is_empty() {
                self.found.table(&name);
                any = true;
            }
        }
        any
    }

    /// Takes the one table named next as changed.
    fn next_table(&mut self, cursor: &mut Cursor<'_, '_>) -> Option<()> {
        let table = cursor.path()?.last.name();
        self.found.table(&table);
        Some(())
    }

    /// Eats what may stand between the verb and the table.
    pub(super) fn conflict(&self, cursor: &mut Cursor<'_, '_>) -> Conflict {
        let mut conflict = Conflict::Plain;
        if self.backend == DbBackend::MySql {
            const MODIFIERS: &[&str] = &[
                "LOW_PRIORITY",
                "HIGH_PRIORITY",
                "DELAYED",
                "QUICK",
                "IGNORE",
            ];
            while let Some(modifier) = cursor.eat_any(MODIFIERS) {
                if modifier.is("IGNORE") {
                    conflict = Conflict::Coerce;
                }
            }
        } else if self.backend == DbBackend::Sqlite && cursor.eat("OR") {
            conflict = match cursor.next() {
                Some(word) if word.is("REPLACE") => Conflict::Replace,
                Some(word) if word.is("ROLLBACK") => Conflict::Rollback,
                _ => Conflict::Plain,
            };
        }
        conflict
    }

    /// `SELECT`: writes only by `INTO table`. On MySQL that is a file or a variable.
    fn query(&mut self, tokens: &[Token<'_>]) -> Option<()> {
        let into = tokens.iter().position(|token| token.is("INTO"));
        let Some(into) = into.filter(|_| self.backend != DbBackend::MySql) else {
            return Some(());
        };
        let mut cursor = Cursor::new(&tokens[into + 1..], self.backend);
        let kinds = &["TEMPORARY", "TEMP", "UNLOGGED", "LOCAL", "GLOBAL", "TABLE"];
        while cursor.eat_any(kinds).is_some() {}
        self.next_table(&mut cursor)
    }

    /// Changes in parentheses: CTEs, and what `COPY (...)` runs.
    fn nested(&mut self, tokens: &[Token<'_>]) {
        let mut count = 0;
        for (at, pair) in tokens.windows(3).enumerate() {
            let [open, word, next] = pair else { continue };
            let changes = word.is_any(CHANGES) && next.is_name(self.backend);
            if open.kind != Kind::Symbol(b'(') || !(changes || word.is("WITH")) {
                continue;
            }
            count += 1;
            if count > MOST_NESTED {
                return self.found.everything();
            }
            let inner = cursor::group(&tokens[at..]).unwrap_or(&tokens[at + 1..]);
            if changes {
                self.statement(inner);
            } else if self.with(inner).is_none() {
                self.not_understood(tokens);
            }
        }
    }

    /// `WITH a AS (...), b AS (...) ...`: the statement that the CTEs are for.
    fn with(&mut self, tokens: &[Token<'_>]) -> Option<()> {
        let closing = |token: &Token<'_>| token.kind == Kind::Symbol(b')');
        for (at, _) in cursor::top_level(tokens).filter(|(_, token)| closing(token)) {
            let rest = &tokens[at + 1..];
            match rest.first() {
                Some(next) if next.is("AS") || next.kind == Kind::Symbol(b',') => {}
                Some(next) if next.is_any(CHANGES) => {
                    self.statement(rest);
                    return Some(());
                }
                Some(next)
                    if next.is_any(&["SELECT", "VALUES", "TABLE"])
                        || next.kind == Kind::Symbol(b'(') =>
                {
                    return self.query(rest);
                }
                _ => break,
            }
        }
        (!cursor::mentions(tokens, WRITES)).then_some(())
    }

    fn merge(&mut self, rest: &[Token<'_>]) -> Option<()> {
        let mut cursor = Cursor::new(rest, self.backend);
        cursor.eat("INTO");
        cursor.eat("ONLY");
        self.next_table(&mut cursor)
    }

    /// `TRUNCATE a, b`. What a `CASCADE` reaches is not known.
    fn truncate(&mut self, rest: &[Token<'_>]) -> Option<()> {
        let mut cursor = Cursor::new(rest, self.backend);
        cursor.eat("TABLE");
        loop {
            if self.backend == DbBackend::Postgres {
                cursor.eat("ONLY");
            }
            self.next_table(&mut cursor)?;
            cursor.eat_symbol(b'*');
            if !cursor.eat_symbol(b',') {
                break;
            }
        }
        if cursor::mentions(cursor.rest, &["CASCADE"]) {
            self.found.everything();
        }
        Some(())
    }

    /// `EXPLAIN ANALYZE`, and MariaDB's `ANALYZE`, run the statement.
    fn explain(&mut self, tokens: &[Token<'_>]) -> Option<()> {
        const STATEMENTS: &[&str] = &[
            "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "WITH", "VALUES",
            "EXECUTE", "CREATE", "REFRESH", "CALL", "DECLARE",
        ];
        let start = cursor::find(tokens, STATEMENTS).unwrap_or(tokens.len());
        let (options, statement) = tokens.split_at(start);
        let runs = cursor::mentions(options, &["ANALYZE", "ANALYSE"]);
        let analyzes_tables = !options[0].is("EXPLAIN") && self.backend != DbBackend::MySql;
        if runs && !analyzes_tables {
            self.statement(statement);
        }
        Some(())
    }

    /// MariaDB's `SET STATEMENT x = 1 FOR ...` runs a statement.
    fn set(&mut self, rest: &[Token<'_>]) -> Option<()> {
        let statement = rest.first().is_some_and(|token| token.is("STATEMENT"));
        if self.backend != DbBackend::MySql || !statement {
            return Some(());
        }
        let rest = &rest[cursor::find(rest, &["FOR"])? + 1..];
        let nested = rest.first().is_none_or(|token| token.is("SET"));
        (!nested).then(|| self.statement(rest))
    }

    /// `COPY t FROM ..`.
    fn copy(&mut self, rest: &[Token<'_>]) -> Option<()> {
        match cursor::find(rest, &["FROM", "TO"]) {
            Some(at) if rest[at].is("TO") => Some(()),
            _ => self.next_table(&mut Cursor::new(rest, self.backend)),
        }
    }

    /// `LOAD DATA .. INTO TABLE t ..`.
    fn load(&mut self, rest: &[Token<'_>]) -> Option<()> {
        if rest.first()?.is("INDEX") {
            return Some(());
        }
        let into = cursor::find(rest, &["INTO"])?;
        let mut cursor = Cursor::new(&rest[into + 1..], self.backend);
        cursor.eat("TABLE");
        self.next_table(&mut cursor)
    }

    /// `REFRESH MATERIALIZED VIEW v`.
    fn refresh(&mut self, rest: &[Token<'_>]) -> Option<()> {
        let mut cursor = Cursor::new(rest, self.backend);
        while cursor
            .eat_any(&["MATERIALIZED", "VIEW", "CONCURRENTLY"])
            .is_some()
        {}
        self.next_table(&mut cursor)
    }

    /// `BEGIN`, unless it begins a block of statements (MariaDB's `BEGIN NOT ATOMIC`).
    fn begin(&mut self, rest: &[Token<'_>]) -> Option<()> {
        let block = cursor::mentions(rest, &["ATOMIC"]);
        if block {
            self.found.everything();
        }
        Some(())
    }

    /// Definitions: every entity whose table is named. The names of other tables and views are
    /// noted where what they hold may change.
    fn schema(&mut self, verb: &str, tokens: &[Token<'_>]) -> Option<()> {
        let mentioned = self.mentioned(tokens);
        let mut cursor = Cursor::new(&tokens[1..], self.backend);
        // `CREATE TABLE t AS EXECUTE p`: what was prepared may write in its CTEs.
        if (tokens.windows(2)).any(|pair| pair[0].is("AS") && pair[1].is("EXECUTE")) {
            self.found.everything();
        }
        if matches!(verb, "ALTER" | "DROP") && self.reaches_far(cursor, mentioned) {
            self.found.everything();
        }
        let replaces = verb != "CREATE" || cursor::mentions(tokens, &["REPLACE"]);
        let object = cursor::find(cursor.rest, OBJECTS).filter(|_| replaces && verb != "REINDEX");
        let holds_rows = |at: &usize| cursor.rest[*at].is_any(&["TABLE", "TABLES", "VIEW"]);
        let Some(holder) = object.filter(holds_rows) else {
            return Some(());
        };
        cursor.rest = &cursor.rest[holder + 1..];
        while cursor.eat_any(&["IF", "NOT", "EXISTS", "ONLY"]).is_some() {}
        loop {
            self.next_table(&mut cursor)?;
            if !cursor.eat_symbol(b',') {
                return Some(());
            }
        }
    }

    /// Whether an `ALTER` or `DROP` of this kind of object changes tables that it does not name.
    fn reaches_far(&self, mut cursor: Cursor<'_, '_>, mentioned: bool) -> bool {
        let drops_columns = !mentioned && cursor::mentions(cursor.rest, &["CASCADE"]);
        let far = ["SCHEMA", "DATABASE", "OWNED", "TYPE", "DOMAIN", "EXTENSION"];
        let harmless = [
            "TABLE", "VIEW", "INDEX", "SEQUENCE", "TRIGGER", "FUNCTION", "ROLE", "USER",
        ];
        cursor.eat_any(&far).is_some() || (drops_columns && cursor.eat_any(&harmless).is_none())
    }

    fn control(&self, tokens: &[Token<'_>]) -> Control {
        let Some((first, rest)) = tokens.split_first().filter(|(t, _)| t.kind == Kind::Word) else {
            return Control::None;
        };
        let second = |word: &str| rest.first().is_some_and(|token| token.is(word));
        let ends = match first.text.to_ascii_uppercase().as_str() {
            "BEGIN" => return Control::Begin,
            "START" if second("TRANSACTION") => return Control::Begin,
            "XA" if second("START") || second("BEGIN") => return Control::Begin,
            "SET" if self.backend == DbBackend::MySql && turns_autocommit_off(rest) => {
                return Control::Begin;
            }
            "COMMIT" => !second("PREPARED"),
            "ROLLBACK" => !second("PREPARED") && !cursor::mentions(rest, &["TO"]),
            "PREPARE" => second("TRANSACTION") && self.backend == DbBackend::Postgres,
            "END" => rest.is_empty() || second("TRANSACTION") || second("WORK") || second("AND"),
            "ABORT" | "XA" => true,
            word => self.backend == DbBackend::MySql && commits(word, rest),
        };
        match ends {
            true => Control::End,
            false => Control::None,
        }
    }
}

/// From then on every statement is in a transaction that only a COMMIT ends.
fn turns_autocommit_off(rest: &[Token<'_>]) -> bool {
    let off = |token: &Token<'_>| token.is_any(&["OFF", "FALSE"]) || token.text == "0";
    cursor::mentions(rest, &["AUTOCOMMIT"]) && rest.iter().any(off)
}

/// Whether MySQL commits before or after this statement.
fn commits(word: &str, rest: &[Token<'_>]) -> bool {
    let second = |words: &[&str]| rest.first().is_some_and(|token| token.is_any(words));
    match word {
        "CREATE" | "DROP" => !second(&["TEMPORARY"]),
        "SET" => second(&["PASSWORD"]) || cursor::mentions(rest, &["AUTOCOMMIT"]),
        "LOAD" => second(&["INDEX"]),
        "ALTER" | "RENAME" | "TRUNCATE" | "GRANT" | "REVOKE" | "LOCK" | "UNLOCK" | "ANALYZE"
        | "OPTIMIZE" | "REPAIR" | "CHECK" | "CACHE" | "FLUSH" | "RESET" | "START" | "STOP"
        | "CHANGE" | "INSTALL" | "UNINSTALL" | "IMPORT" => true,
        _ => false,
    }
}

/// Whether the statements that follow, up to `END`, are the body of a trigger or function.
fn begins_routine(tokens: &[Token<'_>], backend: DbBackend) -> bool {
    const ROUTINES: &[&str] = &["TRIGGER", "PROCEDURE", "FUNCTION", "EVENT"];
    let head = &tokens[..tokens.len().min(16)];
    let body = match backend {
        DbBackend::Postgres => "ATOMIC",
        _ => "BEGIN",
    };
    head.first().is_some_and(|token| token.is("CREATE"))
        && cursor::mentions(head, ROUTINES)
        && cursor::mentions(tokens, &[body])
}
