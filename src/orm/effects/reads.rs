//! What a select reads.

use sea_orm::DbBackend;

use super::Reads;
use super::cursor::Cursor;
use super::scan::{Kind, Token, scan};
use crate::orm::meta::Registry;

pub(super) fn of(sql: &str, backend: DbBackend, registry: &Registry) -> Reads {
    let mut reads = Reads {
        uncacheable: true,
        ..Reads::default()
    };
    let Some(scan) = scan(sql, backend) else {
        return reads;
    };
    let mut tokens = scan.tokens.as_slice();
    while let [rest @ .., last] = tokens
        && last.kind == Kind::Symbol(b';')
    {
        tokens = rest;
    }
    let mut reader = Reader {
        cursor: Cursor::new(tokens, backend),
        registry,
        frames: vec![Frame::default()],
        ctes: Vec::new(),
        reads: &mut reads,
    };
    let understood = reader.run();
    reads.uncacheable = !understood || scan.conditional || !is_select(tokens) || locks(tokens);
    reads
}

/// Whether this is one select, and nothing in it can write.
fn is_select(tokens: &[Token<'_>]) -> bool {
    const WRITES: &[&str] = &["INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "TRUNCATE"];
    let first = tokens.iter().find(|token| token.kind != Kind::Symbol(b'('));
    let selects = first.is_some_and(|token| token.is_any(&["SELECT", "WITH", "VALUES", "TABLE"]));
    let function =
        |at: usize| matches!(tokens.get(at + 1), Some(t) if t.kind == Kind::Symbol(b'('));
    let writes = |(at, token): (usize, &Token<'_>)| match token.kind {
        Kind::Symbol(symbol) => symbol == b';',
        _ => token.is("INTO") || (token.is_any(WRITES) && !function(at)),
    };
    selects && !tokens.iter().enumerate().any(writes)
}

/// `FOR UPDATE` is found as a write.
fn locks(tokens: &[Token<'_>]) -> bool {
    tokens.windows(2).any(|pair| {
        let [first, second] = pair else { return false };
        (first.is("FOR") && second.is_any(&["SHARE", "NO", "KEY", "UPDATE"]))
            || (first.is("SHARE") && second.is("MODE"))
    })
}

/// What the text between two parentheses (or the whole) is at.
#[derive(Clone, Copy, Default, PartialEq)]
enum Clause {
    /// No select yet: an expression's parentheses, or the beginning.
    #[default]
    Outside,
    /// The names and bodies of CTEs.
    With,
    /// What is selected, `WHERE` and whatever else names no tables.
    Select,
    /// The tables.
    From,
}

#[derive(Default)]
struct Frame<'s> {
    clause: Clause,
    begun: bool,
    recursive: bool,
    /// The CTE whose body is read.
    defining: Option<Token<'s>>,
    /// How many CTEs can be seen from outside.
    outer_ctes: usize,
}

struct Reader<'t, 's, 'r> {
    cursor: Cursor<'t, 's>,
    registry: &'r Registry,
    frames: Vec<Frame<'s>>,
    /// The CTEs in scope.
    ctes: Vec<Token<'s>>,
    reads: &'r mut Reads,
}

impl<'s> Reader<'_, 's, '_> {
    /// Whether all was understood.
    fn run(&mut self) -> bool {
        let mut before: [Option<Token<'s>>; 2] = [None, None];
        while let Some(token) = self.cursor.next().copied() {
            // `ORDER BY` does not mention the table `order`.
            let keyword = self.cursor.peek().is_some_and(|next| next.is("BY"));
            if !keyword && !matches!(token.kind, Kind::Text { .. }) {
                self.mention(&token);
            }
            if !self.token(token, before) {
                return false;
            }
            before = [Some(token), before[0]];
        }
        self.frames.len() == 1
    }

    fn frame(&mut self) -> Option<&mut Frame<'s>> {
        self.frames.last_mut()
    }

    fn token(&mut self, token: Token<'s>, before: [Option<Token<'s>>; 2]) -> bool {
        let Some(frame) = self.frames.last_mut() else {
            return false;
        };
        let clause = frame.clause;
        let begins = !std::mem::replace(&mut frame.begun, true);
        let after = |words: &[&str]| before[0].is_some_and(|t| t.is_any(words));
        match token.kind {
            Kind::Symbol(b'(') => self.open(Clause::Outside),
            Kind::Symbol(b')') => return self.close(),
            Kind::Symbol(b',') if clause == Clause::From => return self.source(),
            Kind::Word | Kind::Quoted(_) if clause == Clause::With => {
                return self.with(token, before[0]);
            }
            Kind::Word if token.is("WITH") && begins => frame.clause = Clause::With,
            Kind::Word if token.is("SELECT") => frame.clause = Clause::Select,
            Kind::Word if token.is("FROM") => {
                let distinct = after(&["DISTINCT"])
                    && before[1].is_some_and(|token| token.is_any(&["IS", "NOT"]));
                if clause == Clause::Select && !distinct {
                    frame.clause = Clause::From;
                    return self.source();
                }
            }
            Kind::Word if token.is("JOIN") => return self.source(),
            Kind::Word if token.is("STRAIGHT_JOIN") && clause == Clause::From => {
                return self.source();
            }
            Kind::Word
                if token.is("TABLE")
                    && (begins || after(&["ALL", "UNION", "EXCEPT", "INTERSECT", "DISTINCT"])) =>
            {
                return self.source();
            }
            Kind::Word if token.is("IN") && self.cursor.backend == DbBackend::Sqlite => {
                return self.cursor.at_symbol(b'(') || self.value_or_source();
            }
            Kind::Word
                if token.is_any(&["WHERE", "GROUP", "HAVING", "ORDER", "LIMIT"])
                    && clause == Clause::From =>
            {
                frame.clause = Clause::Select;
            }
            _ => {}
        }
        true
    }

    /// SQLite's `x IN t`, where `t` is a table.
    fn value_or_source(&mut self) -> bool {
        let param = |token: &Token<'_>| matches!(token.kind, Kind::Param(_));
        self.cursor.peek().is_some_and(param) || self.source()
    }

    fn open(&mut self, clause: Clause) {
        let outer_ctes = self.ctes.len();
        self.frames.push(Frame {
            clause,
            outer_ctes,
            ..Frame::default()
        });
    }

    /// A CTE can be seen once its body is over; by itself only if it is recursive.
    fn close(&mut self) -> bool {
        let closed = self.frames.pop();
        self.ctes
            .truncate(closed.map_or(0, |frame| frame.outer_ctes));
        let defined = self.frame().map(|frame| match frame.clause {
            Clause::With => frame.defining.take(),
            _ => None,
        });
        // `a (x, y) AS (..)`: that was the list of columns.
        let columns = self.cursor.peek().is_some_and(|token| token.is("AS"));
        match (defined, self.frame()) {
            (Some(name), Some(frame)) if columns => frame.defining = name,
            (Some(name), _) => self.ctes.extend(name),
            (None, _) => {}
        }
        !self.frames.is_empty()
    }

    fn with(&mut self, token: Token<'s>, before: Option<Token<'s>>) -> bool {
        let Some(frame) = self.frames.last_mut() else {
            return false;
        };
        let named = before
            .is_some_and(|t| t.is_any(&["WITH", "RECURSIVE"]) || t.kind == Kind::Symbol(b','));
        if token.is("RECURSIVE") && before.is_some_and(|t| t.is("WITH")) {
            frame.recursive = true;
        } else if named {
            frame.defining = Some(token).filter(|_| !frame.recursive);
            if frame.recursive {
                self.ctes.push(token);
            }
        } else if token.is("SELECT") {
            frame.clause = Clause::Select;
        } else if token.is("TABLE") {
            return self.source();
        }
        true
    }

    /// A table, function or parenthesis where a table is expected; `false` if it is none of these.
    fn source(&mut self) -> bool {
        const QUERY: &[&str] = &["SELECT", "WITH", "VALUES", "TABLE"];
        loop {
            while self.cursor.eat_any(&["LATERAL", "ONLY"]).is_some() {}
            if !self.cursor.eat_symbol(b'(') {
                break;
            }
            if self.cursor.peek().is_some_and(|token| token.is_any(QUERY)) {
                self.open(Clause::Outside);
                return true;
            }
            self.open(Clause::From);
        }
        let start = self.cursor.rest;
        let Some(path) = self.cursor.path() else {
            return false;
        };
        for token in &start[..start.len() - self.cursor.rest.len()] {
            self.mention(token);
        }
        let name = path.last.name();
        let function = self.cursor.at_symbol(b'(');
        let cte = !path.qualified && self.ctes.iter().any(|cte| cte.name() == name);
        let dual = self.cursor.backend == DbBackend::MySql && name == "dual";
        let known = cte || dual || !self.registry.of_table(&name).is_empty();
        if (function || !known) && !self.reads.unknown.iter().any(|u| *u == name) {
            self.reads.unknown.push(name.into_owned());
        }
        true
    }

    /// Notes the entities of the table that `token` may name.
    fn mention(&mut self, token: &Token<'_>) {
        if !token.is_name(self.cursor.backend) {
            return;
        }
        for meta in self.registry.of_table(&token.name()) {
            if !self.reads.entities.iter().any(|e| std::ptr::eq(*e, *meta)) {
                self.reads.entities.push(meta);
            }
        }
    }
}
