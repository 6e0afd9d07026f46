//! Attributes and their values, one at a time.

use std::str::FromStr;
use std::time::Duration;

use heck::ToUpperCamelCase;
use quote::{ToTokens, format_ident};
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Ident, Lit, LitStr, Meta, Result};

/// The attribute's name; empty if it is a path.
pub fn name_of(meta: &Meta) -> String {
    meta.path()
        .get_ident()
        .map(Ident::to_string)
        .unwrap_or_default()
}

/// The error for an attribute that is none of the `known`.
pub fn unknown(meta: &Meta, known: &str) -> Error {
    let name = meta.path().to_token_stream().to_string().replace(' ', "");
    Error::new_spanned(
        meta.path(),
        format!("unknown attribute `{name}`, expected one of: {known}"),
    )
}

/// Reads an attribute that may stand once.
pub fn set<T>(
    slot: &mut Option<T>,
    meta: &Meta,
    read: impl FnOnce(&Meta) -> Result<T>,
) -> Result<()> {
    if slot.is_some() {
        return Err(Error::new_spanned(
            meta,
            format!("duplicate attribute `{}`", name_of(meta)),
        ));
    }
    *slot = Some(read(meta)?);
    Ok(())
}

fn literal(meta: &Meta) -> Result<&Lit> {
    match &meta.require_name_value()?.value {
        Expr::Lit(ExprLit { lit, .. }) => Ok(lit),
        other => Err(Error::new(
            other.span(),
            format!("`{}` takes a literal", name_of(meta)),
        )),
    }
}

pub fn string(meta: &Meta) -> Result<LitStr> {
    match literal(meta)? {
        Lit::Str(text) if text.value().is_empty() => Err(Error::new_spanned(
            text,
            format!("`{}` is empty", name_of(meta)),
        )),
        Lit::Str(text) => Ok(text.clone()),
        other => Err(Error::new_spanned(
            other,
            format!("`{}` takes a text, in quotes", name_of(meta)),
        )),
    }
}

pub fn boolean(meta: &Meta) -> Result<bool> {
    match literal(meta)? {
        Lit::Bool(value) => Ok(value.value),
        other => Err(Error::new_spanned(
            other,
            format!("`{}` is `true` or `false`", name_of(meta)),
        )),
    }
}

/// From 1 on.
pub fn count(meta: &Meta) -> Result<usize> {
    let value = literal(meta)?;
    let count = match value {
        Lit::Int(number) => number.base10_parse().ok(),
        _ => None,
    };
    count.filter(|count| *count > 0).ok_or_else(|| {
        let name = name_of(meta);
        Error::new_spanned(value, format!("`{name}` is a whole number from 1 on"))
    })
}

/// From 0 to 1.
pub fn part(meta: &Meta) -> Result<f64> {
    let allowed = |number: f64| (0.0..=1.0).contains(&number);
    number(meta, "from 0.0 to 1.0", allowed)
}

/// From 0 on.
pub fn factor(meta: &Meta) -> Result<f64> {
    let allowed = |number: f64| number >= 0.0 && number.is_finite();
    number(meta, "from 0.0 on", allowed)
}

fn number(meta: &Meta, range: &str, allowed: impl Fn(f64) -> bool) -> Result<f64> {
    let value = &meta.require_name_value()?.value;
    let number = match value {
        Expr::Lit(ExprLit {
            lit: Lit::Float(number),
            ..
        }) => number.base10_parse().ok(),
        Expr::Lit(ExprLit {
            lit: Lit::Int(number),
            ..
        }) => number.base10_parse().ok(),
        _ => None,
    };
    number.filter(|number| allowed(*number)).ok_or_else(|| {
        let name = name_of(meta);
        Error::new_spanned(value, format!("`{name}` is a number {range}"))
    })
}

/// The variant, in UpperCamelCase, of one of these words.
pub fn one_of(meta: &Meta, words: &[&str]) -> Result<Ident> {
    let text = string(meta)?;
    if words.contains(&text.value().as_str()) {
        return Ok(format_ident!("{}", text.value().to_upper_camel_case()));
    }
    let expected: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let message = format!("`{}` is one of: {}", name_of(meta), expected.join(", "));
    Err(Error::new_spanned(text, message))
}

pub fn duration(meta: &Meta) -> Result<Duration> {
    let text = string(meta)?;
    match parse_duration(&text.value()) {
        Some(Duration::ZERO) => {
            let message = format!("`{}` must be longer than zero", name_of(meta));
            Err(Error::new_spanned(text, message))
        }
        Some(duration) => Ok(duration),
        None => {
            let message =
                r#"not a duration, expected one like "250ms", "90s", "10m", "1h30m" or "2d""#;
            Err(Error::new_spanned(text, message))
        }
    }
}

/// Whole numbers, each with its unit, added up.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut millis = 0u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = split_while(rest, |c| c.is_ascii_digit());
        let (unit, after) = split_while(after, |c| c.is_ascii_alphabetic());
        let part = u64::from_str(number).ok()?.checked_mul(millis_of(unit)?)?;
        millis = millis.checked_add(part)?;
        rest = after;
    }
    Some(Duration::from_millis(millis))
}

fn split_while(text: &str, accept: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !accept(c)).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    (head, tail.trim_start())
}

fn millis_of(unit: &str) -> Option<u64> {
    Some(match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units_added_up() {
        let millis = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(millis("250ms"), Some(250));
        assert_eq!(millis("90s"), Some(90_000));
        assert_eq!(millis("10m"), Some(600_000));
        assert_eq!(millis("1h30m"), Some(5_400_000));
        assert_eq!(millis(" 1 h  30 m "), Some(5_400_000));
        assert_eq!(millis("2d"), Some(172_800_000));
        assert_eq!(millis("0s"), Some(0));
    }

    #[test]
    fn what_has_no_unit_or_no_number_or_does_not_fit_is_no_duration() {
        for text in [
            "",
            " ",
            "10",
            "m",
            "10 minutes",
            "1.5h",
            "-1s",
            "10m!",
            "1h30",
            "99999999999999999d",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }
}
