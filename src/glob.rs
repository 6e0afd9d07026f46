//! Patterns that keys match: those of Redis's `KEYS`.

/// A pattern: `*` is any text, `?` any character, `[abc]`, `[a-z]` and `[^a-z]` one of a set, and `\` has the next
/// character stand for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text,
    Any,
    One(char),
    /// Ranges, and whether it is one of what is *not* in them.
    Set(Vec<(char, char)>, bool),
}

impl Part {
    /// Whether it is this one character.
    fn is(&self, found: char) -> bool {
        match self {
            Self::Text => false,
            Self::Any => true,
            Self::One(wanted) => *wanted == found,
            Self::Set(ranges, not) => {
                let within = |(first, last): &(char, char)| (*first..=*last).contains(&found);
                ranges.iter().any(within) != *not
            }
        }
    }
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, and what is allowed.
    pub(crate) fn parse(pattern: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = pattern.chars();
        while let Some(next) = rest.next() {
            let part = match next {
                // Many are one: so matching never looks at a key more often than is needed.
                '*' if parts.last() == Some(&Part::Text) => continue,
                '*' => Part::Text,
                '?' => Part::Any,
                '[' => set(&mut rest)?,
                '\\' => Part::One(escaped(&mut rest)?),
                other => Part::One(other),
            };
            parts.push(part);
        }
        Ok(Self(parts))
    }

    /// What every key that matches begins with.
    pub(crate) fn literal(&self) -> String {
        let literal = |part: &Part| match part {
            Part::One(one) => Some(*one),
            _ => None,
        };
        self.0.iter().map_while(literal).collect()
    }

    /// Whether all of the key matches. In time that is at most the product of both lengths.
    pub(crate) fn matches(&self, key: &str) -> bool {
        let key: Vec<char> = key.chars().collect();
        let (mut part, mut at) = (0, 0);
        // Where to go on if it fails: after the last `*`, which then takes one character more.
        let mut again = None;
        while at < key.len() {
            match self.0.get(part) {
                Some(Part::Text) => {
                    part += 1;
                    again = Some((part, at));
                }
                Some(one) if one.is(key[at]) => (part, at) = (part + 1, at + 1),
                _ => match again {
                    None => return false,
                    Some((after, taken)) => {
                        (part, at) = (after, taken + 1);
                        again = Some((after, taken + 1));
                    }
                },
            }
        }
        self.0[part..].iter().all(|part| *part == Part::Text)
    }
}

fn escaped(rest: &mut impl Iterator<Item = char>) -> Result<char, String> {
    let end = "it ends with a `\\` that stands before nothing: write `\\\\` for a backslash";
    rest.next().ok_or_else(|| end.to_owned())
}

/// What stands between `[` and `]`.
fn set(rest: &mut std::str::Chars<'_>) -> Result<Part, String> {
    const OPEN: &str = "a `[` without its `]`: write `\\[` for a bracket";
    let mut next = || rest.next().ok_or_else(|| OPEN.to_owned());
    let (mut ranges, mut not) = (Vec::new(), false);
    let mut first = next()?;
    if first == '^' {
        (not, first) = (true, next()?);
    }
    while first != ']' {
        if first == '\\' {
            first = next()?;
        }
        let mut after = next()?;
        let mut last = first;
        if after == '-' {
            last = next()?;
            if last == '\\' {
                last = next()?;
            } else if last == ']' {
                return Err("a range without its end: write `\\-` for a hyphen".to_owned());
            }
            after = next()?;
        }
        ranges.push((first.min(last), first.max(last)));
        first = after;
    }
    match ranges.is_empty() {
        true => Err("a `[]` that nothing matches: write `\\[` for a bracket".to_owned()),
        false => Ok(Part::Set(ranges, not)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, key: &str) -> bool {
        Glob::parse(pattern).unwrap().matches(key)
    }

    #[test]
    fn patterns_are_those_of_redis() {
        for (pattern, yes, no) in [
            (
                "search:*",
                &["search:", "search:a:b"][..],
                &["search", "xsearch:"][..],
            ),
            ("*", &["", "a", "é"], &[]),
            ("h?llo", &["hello", "hüllo"], &["hllo", "heello"]),
            (
                "h*llo",
                &["hllo", "heeeello", "hllollo"],
                &["hello!", "ello"],
            ),
            ("h[ae]llo", &["hello", "hallo"], &["hillo"]),
            ("h[^e]llo", &["hallo"], &["hello", "hllo"]),
            ("h[a-c]llo", &["hbllo"], &["hdllo"]),
            ("h[c-a]llo", &["hbllo"], &["hdllo"]),
            (r"100\*", &["100*"], &["1000"]),
            (r"[\]\-]", &["]", "-"], &["\\", "a"]),
            ("*a*b", &["ab", "xaxb", "aab", "abb"], &["ba", "abx"]),
            ("", &[""], &["a"]),
        ] {
            assert!(yes.iter().all(|key| matches(pattern, key)), "{pattern}");
            assert!(!no.iter().any(|key| matches(pattern, key)), "{pattern}");
        }
    }

    #[test]
    fn many_stars_take_no_longer_than_one() {
        let key = "a".repeat(10_000);
        assert!(!matches(
            &"*a".repeat(50).replace("**", "*"),
            &(key.clone() + "b")
        ));
        assert!(matches(&"*".repeat(10_000), &key));
    }

    #[test]
    fn what_is_literal_is_known() {
        let literal = |pattern| Glob::parse(pattern).unwrap().literal();
        assert_eq!(literal(r"a\*b*c"), "a*b");
        assert_eq!(literal("*a"), "");
        assert_eq!(literal("a[bc]"), "a");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (pattern, said) in [
            ("a[b", "without its `]`"),
            ("a[", "without its `]`"),
            ("a[^", "without its `]`"),
            ("a[]", "nothing matches"),
            ("a[b-]", "`\\-`"),
            ("a\\", "before nothing"),
        ] {
            let error = Glob::parse(pattern).unwrap_err();
            assert!(error.contains(said), "{pattern}: {error}");
        }
    }
}
