//! Walks over tokens.

use sea_orm::DbBackend;

use super::scan::{Kind, Token};

/// The tokens outside all parentheses, with their positions. The outermost parentheses themselves
/// are among them.
pub(super) fn top_level<'t, 's>(
    tokens: &'t [Token<'s>],
) -> impl Iterator<Item = (usize, &'t Token<'s>)> {
    let mut depth = 0usize;
    tokens.iter().enumerate().filter(move |(_, token)| {
        let before = depth;
        match token.kind {
            Kind::Symbol(b'(' | b'[' | b'{') => depth += 1,
            Kind::Symbol(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        before.min(depth) == 0
    })
}

/// The first of `words` outside parentheses.
pub(super) fn find(tokens: &[Token<'_>], words: &[&str]) -> Option<usize> {
    top_level(tokens)
        .find(|(_, token)| token.is_any(words))
        .map(|(at, _)| at)
}

/// Whether one of `words` is a token at any depth.
pub(super) fn mentions(tokens: &[Token<'_>], words: &[&str]) -> bool {
    tokens.iter().any(|token| token.is_any(words))
}

/// What is between the parenthesis that `tokens` begin with and the one that closes it.
pub(super) fn group<'t, 's>(tokens: &'t [Token<'s>]) -> Option<&'t [Token<'s>]> {
    let open = tokens.first()?.kind == Kind::Symbol(b'(');
    let close = |(at, token): &(usize, &Token<'_>)| *at > 0 && token.kind == Kind::Symbol(b')');
    let (end, _) = top_level(tokens).find(close).filter(|_| open)?;
    Some(&tokens[1..end])
}

/// The pieces between the commas that are outside parentheses; none of an empty list.
pub(super) fn list<'t, 's>(tokens: &'t [Token<'s>]) -> impl Iterator<Item = &'t [Token<'s>]> {
    let mut rest = Some(tokens).filter(|tokens| !tokens.is_empty());
    std::iter::from_fn(move || {
        let tokens = rest?;
        let comma = top_level(tokens).find(|(_, token)| token.kind == Kind::Symbol(b','));
        let end = comma.map_or(tokens.len(), |(at, _)| at);
        rest = tokens.get(end + 1..);
        Some(&tokens[..end])
    })
}

/// A name of one or more segments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path<'s> {
    pub(super) last: Token<'s>,
    /// Whether anything stands before the last segment.
    pub(super) qualified: bool,
}

/// The tokens that are still to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'t, 's> {
    pub(super) rest: &'t [Token<'s>],
    pub(super) backend: DbBackend,
}

impl<'t, 's> Cursor<'t, 's> {
    pub(super) fn new(rest: &'t [Token<'s>], backend: DbBackend) -> Self {
        Self { rest, backend }
    }

    pub(super) fn peek(&self) -> Option<&'t Token<'s>> {
        self.rest.first()
    }

    pub(super) fn next(&mut self) -> Option<&'t Token<'s>> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn next_if(&mut self, wanted: impl FnOnce(&Token<'_>) -> bool) -> Option<&'t Token<'s>> {
        self.peek().filter(|token| wanted(token))?;
        self.next()
    }

    pub(super) fn eat(&mut self, word: &str) -> bool {
        self.next_if(|token| token.is(word)).is_some()
    }

    pub(super) fn eat_any(&mut self, words: &[&str]) -> Option<&'t Token<'s>> {
        self.next_if(|token| token.is_any(words))
    }

    pub(super) fn eat_symbol(&mut self, symbol: u8) -> bool {
        self.next_if(|token| token.kind == Kind::Symbol(symbol))
            .is_some()
    }

    pub(super) fn at_symbol(&self, symbol: u8) -> bool {
        self.peek()
            .is_some_and(|token| token.kind == Kind::Symbol(symbol))
    }

    /// `( ... )`: what is in between.
    pub(super) fn group(&mut self) -> Option<&'t [Token<'s>]> {
        let inner = group(self.rest)?;
        self.rest = &self.rest[inner.len() + 2..];
        Some(inner)
    }

    pub(super) fn name(&mut self) -> Option<&'t Token<'s>> {
        let backend = self.backend;
        self.next_if(|token| token.is_name(backend))
    }

    /// `a`, `a.b`, `a.b.c`.
    pub(super) fn path(&mut self) -> Option<Path<'s>> {
        let mut path = Path {
            last: *self.name()?,
            qualified: false,
        };
        while self.eat_symbol(b'.') {
            path.last = *self.name()?;
            path.qualified = true;
        }
        Some(path)
    }

    /// `AS b` or `b`, unless `b` is one of the keywords that may follow a table.
    pub(super) fn alias(&mut self, keywords: &[&str]) -> Option<&'t Token<'s>> {
        match self.eat("AS") {
            true => self.name(),
            false if self.peek()?.is_any(keywords) => None,
            false => self.name(),
        }
    }
}
