//! Cuts SQL text into tokens, in three dialects.
//!
//! The servers' default lexical modes are assumed: `standard_conforming_strings` on Postgres, no
//! `NO_BACKSLASH_ESCAPES` on MySQL. `"..."` on MySQL is read as a string is, and taken for an
//! identifier wherever one may stand (`ANSI_QUOTES`).

use std::borrow::Cow;

use sea_orm::DbBackend;

/// A piece of SQL text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token<'s> {
    pub(super) kind: Kind,
    /// The text without its quotes.
    pub(super) text: &'s str,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// A keyword or an identifier.
    Word,
    /// An identifier in these quotes.
    Quoted(u8),
    /// A string; `plain` if its text is its value.
    Text { plain: bool },
    /// A number.
    Number,
    /// A bound value, by its position if that is known.
    Param(Option<usize>),
    /// Any other character.
    Symbol(u8),
}

impl Token<'_> {
    /// Whether this is the keyword `word`.
    pub(super) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Whether this is one of the keywords `words`.
    pub(super) fn is_any(&self, words: &[&str]) -> bool {
        self.kind == Kind::Word
            && words
                .iter()
                .any(|word| self.text.eq_ignore_ascii_case(word))
    }

    /// Whether this may name a table where the grammar wants a name. SQLite takes strings too.
    pub(super) fn is_name(&self, backend: DbBackend) -> bool {
        match self.kind {
            Kind::Word | Kind::Quoted(_) => true,
            Kind::Text { .. } => backend == DbBackend::Sqlite,
            _ => false,
        }
    }
}

impl<'s> Token<'s> {
    /// The identifier in lower case.
    pub(super) fn name(&self) -> Cow<'s, str> {
        let mut name = Cow::Borrowed(self.text);
        if let Kind::Quoted(quote @ (b'"' | b'`')) = self.kind
            && self.text.as_bytes().contains(&quote)
        {
            let quote = char::from(quote);
            name = Cow::Owned(
                self.text
                    .replace(&format!("{quote}{quote}"), &quote.to_string()),
            );
        }
        lower_case(name)
    }
}

fn lower_case(name: Cow<'_, str>) -> Cow<'_, str> {
    let lower = |b: u8| b.is_ascii() && !b.is_ascii_uppercase();
    if name.bytes().all(lower) {
        name
    } else {
        Cow::Owned(name.to_lowercase())
    }
}

/// All tokens of a text.
#[derive(Debug)]
pub(super) struct Scan<'s> {
    pub(super) tokens: Vec<Token<'s>>,
    /// Whether some of them were in a comment that only some servers execute (`/*!50700 ... */`).
    pub(super) conditional: bool,
}

/// The tokens of `sql`; `None` if it is not certain where they begin and end.
pub(super) fn scan(sql: &str, backend: DbBackend) -> Option<Scan<'_>> {
    let scanner = Scanner {
        sql,
        bytes: sql.as_bytes(),
        at: 0,
        backend,
        tokens: Vec::with_capacity(sql.len() / 4 + 8),
        executable: false,
        conditional: false,
        params: Params::default(),
    };
    scanner.run()
}

struct Scanner<'s> {
    sql: &'s str,
    bytes: &'s [u8],
    at: usize,
    backend: DbBackend,
    tokens: Vec<Token<'s>>,
    /// Within `/*! ... */`.
    executable: bool,
    conditional: bool,
    params: Params,
}

impl<'s> Scanner<'s> {
    fn run(mut self) -> Option<Scan<'s>> {
        // SQLite ends a statement at a NUL, wherever it is.
        if self.bytes.contains(&0) {
            return None;
        }
        while let Some(&byte) = self.bytes.get(self.at) {
            self.token(byte)?;
        }
        (!self.executable).then_some(Scan {
            tokens: self.tokens,
            conditional: self.conditional,
        })
    }

    fn token(&mut self, byte: u8) -> Option<()> {
        match byte {
            b' ' | b'\t'..=b'\r' => self.at += 1,
            b'0'..=b'9' => self.number(),
            _ if self.is(DbBackend::Sqlite) && self.at_byte_order_mark() => self.at += 3,
            _ if starts_word(byte) => self.word(),
            b'\'' => self.text()?,
            b'"' => self.quoted(b'"')?,
            b'`' if !self.is(DbBackend::Postgres) => self.quoted(b'`')?,
            b'[' if self.is(DbBackend::Sqlite) => self.quoted(b']')?,
            b'-' if self.dashes() => self.line_comment(),
            b'#' if self.is(DbBackend::MySql) => self.line_comment(),
            b'/' if self.peek(1) == b'*' => self.comment()?,
            b'*' if self.executable && self.peek(1) == b'/' => {
                self.executable = false;
                self.at += 2;
            }
            b'$' => self.dollar()?,
            b'?' if !self.is(DbBackend::Postgres) => self.question_mark(),
            b':' | b'@' if self.is(DbBackend::Sqlite) && is_word(self.peek(1)) => self.named(),
            _ => self.push(Kind::Symbol(byte), self.at, self.at + 1),
        }
        Some(())
    }

    fn is(&self, backend: DbBackend) -> bool {
        self.backend == backend
    }

    /// Which SQLite takes for a blank, unless it is within a word.
    fn at_byte_order_mark(&self) -> bool {
        self.bytes[self.at..].starts_with("\u{feff}".as_bytes())
    }

    /// The byte `ahead` of this one; zero past the end.
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Adds `start..end` and goes on behind it. Only ASCII bytes are ever cut at.
    fn push(&mut self, kind: Kind, start: usize, end: usize) {
        self.tokens.push(Token {
            kind,
            text: &self.sql[start..end],
        });
        self.at = end;
    }

    /// The first position at or after `from` whose byte is no part of a word.
    fn word_end(&self, from: usize) -> usize {
        let rest = &self.bytes[from..];
        from + rest.iter().position(|&b| !is_word(b)).unwrap_or(rest.len())
    }

    fn digits_end(&self, from: usize) -> usize {
        let rest = &self.bytes[from..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit());
        from + digits.count()
    }

    fn word(&mut self) {
        self.push(Kind::Word, self.at, self.word_end(self.at));
    }

    /// On MySQL an identifier may begin with a digit; elsewhere a number ends where a letter
    /// begins, and old servers take `1OR 2` for `1 OR 2`.
    fn number(&mut self) {
        let start = self.at;
        self.at = self.digits_end(start);
        let fraction = self.peek(0) == b'.';
        if fraction {
            self.at = self.digits_end(self.at + 1);
        }
        let exponent = self.exponent();
        let word = self.word_end(self.at);
        if self.is(DbBackend::MySql) && !fraction && !exponent && word > self.at {
            self.push(Kind::Word, start, word);
        } else {
            self.push(Kind::Number, start, self.at);
        }
    }

    fn exponent(&mut self) -> bool {
        let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
        let exponent = matches!(self.peek(0), b'e' | b'E') && self.peek(1 + sign).is_ascii_digit();
        if exponent {
            self.at = self.digits_end(self.at + 1 + sign);
        }
        exponent
    }

    fn text(&mut self) -> Option<()> {
        let escapes = self.is(DbBackend::MySql) || self.after_e();
        let (end, plain) = self.closing(b'\'', escapes)?;
        let plain = plain && !self.bytes[self.at..end].contains(&b'\\');
        // Postgres joins strings on consecutive lines, and the first says how to read the second.
        let joined = matches!(self.tokens.last(), Some(t) if matches!(t.kind, Kind::Text { .. }));
        if joined && !plain && self.is(DbBackend::Postgres) {
            return None;
        }
        self.push(Kind::Text { plain }, self.at + 1, end);
        self.at += 1;
        Some(())
    }

    /// Whether this is the quote of Postgres' `E'...'`.
    fn after_e(&self) -> bool {
        self.is(DbBackend::Postgres)
            && self.at > 0
            && matches!(self.bytes[self.at - 1], b'e' | b'E')
            && self.tokens.last().is_some_and(|token| token.is("e"))
    }

    fn quoted(&mut self, quote: u8) -> Option<()> {
        // The letters of Postgres' `U&"..."` are not what they seem.
        let before = &self.bytes[..self.at];
        if self.is(DbBackend::Postgres) && (before.ends_with(b"u&") || before.ends_with(b"U&")) {
            return None;
        }
        let escapes = quote == b'"' && self.is(DbBackend::MySql);
        let (end, _) = self.closing(quote, escapes)?;
        self.push(Kind::Quoted(quote), self.at + 1, end);
        self.at += 1;
        Some(())
    }

    /// Where the quotes opened here close, and whether nothing in between is escaped.
    fn closing(&self, quote: u8, escapes: bool) -> Option<(usize, bool)> {
        let mut at = self.at + 1;
        let mut plain = true;
        loop {
            let byte = *self.bytes.get(at)?;
            if byte == quote && (quote == b']' || self.bytes.get(at + 1) != Some(&quote)) {
                break;
            }
            let escaped = byte == quote || (escapes && byte == b'\\');
            plain &= !escaped;
            at += 1 + usize::from(escaped);
        }
        // A server that skips the comment sees its end here, and the quote not at all.
        let inside = self.bytes.get(self.at..at)?;
        let torn = self.executable && inside.windows(2).any(|pair| pair == b"*/");
        (!torn).then_some((at, plain))
    }

    /// Whether `--` begins a comment: on MySQL only before a blank.
    fn dashes(&self) -> bool {
        let blank = self.peek(2) <= b' ';
        self.peek(1) == b'-' && (blank || !self.is(DbBackend::MySql))
    }

    fn line_comment(&mut self) {
        let ends = |b: &u8| *b == b'\n' || (*b == b'\r' && self.is(DbBackend::Postgres));
        let rest = &self.bytes[self.at..];
        self.at += rest.iter().position(ends).unwrap_or(rest.len());
    }

    fn comment(&mut self) -> Option<()> {
        if self.is(DbBackend::MySql) && !self.executable {
            let mark = 2 + usize::from(self.peek(2) == b'M');
            if self.peek(mark) == b'!' {
                self.at = self.digits_end(self.at + mark + 1);
                self.executable = true;
                self.conditional = true;
                return Some(());
            }
        }
        self.skip_comment()
    }

    fn skip_comment(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match (*self.bytes.get(self.at)?, self.peek(1)) {
                (b'/', b'*') if depth == 0 || self.is(DbBackend::Postgres) => depth += 1,
                (b'*', b'/') => depth -= 1,
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            self.at += 2;
            if depth == 0 {
                return Some(());
            }
        }
    }

    fn dollar(&mut self) -> Option<()> {
        match self.backend {
            DbBackend::Postgres if self.peek(1).is_ascii_digit() => {
                let end = self.digits_end(self.at + 1);
                let number = self.sql[self.at + 1..end].parse().ok();
                self.push(Kind::Param(before(number)), self.at, end);
            }
            DbBackend::Postgres => self.dollar_quoted()?,
            DbBackend::Sqlite => self.named(),
            _ => self.word(),
        }
        Some(())
    }

    fn dollar_quoted(&mut self) -> Option<()> {
        let name = |b: &&u8| is_word(**b) && **b != b'$';
        let tag = self.at + 1 + self.bytes[self.at + 1..].iter().take_while(name).count();
        if self.bytes.get(tag) != Some(&b'$') {
            self.push(Kind::Symbol(b'$'), self.at, self.at + 1);
            return Some(());
        }
        let delimiter = &self.sql[self.at..=tag];
        let length = self.sql[tag + 1..].find(delimiter)?;
        let end = tag + 1 + length;
        self.push(Kind::Text { plain: false }, tag + 1, end);
        self.at = end + delimiter.len();
        Some(())
    }

    fn question_mark(&mut self) {
        let end = match self.backend {
            DbBackend::Sqlite => self.digits_end(self.at + 1),
            _ => self.at + 1,
        };
        let position = match self.sql[self.at + 1..end].parse() {
            Ok(number) => self.params.numbered(Style::Numbered, number),
            Err(_) => self.params.next(),
        };
        self.push(Kind::Param(position), self.at, end);
    }

    /// SQLite's `:name`, `@name` and `$name`. SeaORM's drivers bind `$NNN` only, and not alike.
    fn named(&mut self) {
        let end = self.word_end(self.at + 1);
        let number = self.sql[self.at + 1..end].parse().ok();
        let position = match number.filter(|_| self.bytes[self.at] == b'$') {
            Some(number) => self.params.in_order(number),
            None => self.params.unknown(),
        };
        self.push(Kind::Param(position), self.at, end);
    }
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// The position of the parameter that counts as `number`.
fn before(number: Option<usize>) -> Option<usize> {
    number?.checked_sub(1)
}

/// Which bound value a placeholder stands for. Styles that are mixed are not followed.
#[derive(Default)]
struct Params {
    style: Style,
    count: usize,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Style {
    #[default]
    Unset,
    Anonymous,
    Numbered,
    Dollar,
    Mixed,
}

impl Params {
    fn switch(&mut self, style: Style) -> Option<()> {
        let same = self.style == style || self.style == Style::Unset;
        self.style = if same { style } else { Style::Mixed };
        same.then_some(())
    }

    fn next(&mut self) -> Option<usize> {
        self.switch(Style::Anonymous)?;
        self.count += 1;
        Some(self.count - 1)
    }

    fn numbered(&mut self, style: Style, number: usize) -> Option<usize> {
        self.switch(style)?;
        before(Some(number))
    }

    /// Numbered in the order of their first mention, which is how one driver counts them.
    fn in_order(&mut self, number: usize) -> Option<usize> {
        let position = self.numbered(Style::Dollar, number)?;
        if number > self.count + 1 {
            return self.unknown();
        }
        self.count = self.count.max(number);
        Some(position)
    }

    fn unknown(&mut self) -> Option<usize> {
        self.style = Style::Mixed;
        None
    }
}
