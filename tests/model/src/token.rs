//! Random tokens, numbered so that states which differ only in their names are one state.

/// A token; [`Token::NONE`] is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u8);

impl Token {
    /// No token.
    pub const NONE: Self = Self(0);

    /// Whether it is one.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// What holds tokens. Visits each of them, always in the same order.
pub trait Tokens {
    /// Calls `visit` with each token.
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token));
}

impl<T: Tokens> Tokens for Option<T> {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        if let Some(inner) = self {
            inner.tokens(visit);
        }
    }
}

impl<T: Tokens, const N: usize> Tokens for [T; N] {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        for item in self {
            item.tokens(visit);
        }
    }
}

impl Tokens for Token {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        if self.is_some() {
            visit(self);
        }
    }
}

const MOST: usize = 64;

/// New numbers for tokens, in the order in which they are met.
#[derive(Debug)]
pub struct Numbering {
    new: [u8; MOST],
    next: u8,
}

impl Default for Numbering {
    fn default() -> Self {
        Self {
            new: [0; MOST],
            next: 1,
        }
    }
}

impl Numbering {
    /// Numbers everything in `holder` that has no number yet, and writes the numbers into it.
    pub fn number(&mut self, holder: &mut impl Tokens) {
        holder.tokens(&mut |token| {
            let new = &mut self.new[usize::from(token.0)];
            if *new == 0 {
                *new = self.next;
                self.next += 1;
            }
            token.0 = *new;
        });
    }

    /// The number of a token; all that have none yet look the same.
    pub fn peek(&self, token: Token) -> u8 {
        match self.new[usize::from(token.0)] {
            0 if token.is_some() => u8::MAX,
            number => number,
        }
    }
}

/// A token that `holder` does not hold.
pub fn fresh(holder: &mut impl Tokens) -> Token {
    let mut last = 0;
    holder.tokens(&mut |token| last = last.max(token.0));
    Token(last + 1)
}
