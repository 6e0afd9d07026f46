//! What stands in `#[memoize(..)]` and on its function: parsed, then validated.

use std::time::Duration;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{
    Error, Expr, FnArg, GenericArgument, GenericParam, Ident, ItemFn, LitStr, Meta, PathArguments,
    PathSegment, Result, ReturnType, Signature, Token, Type,
};

use crate::input::Errors;
use crate::value::{count, duration, factor, name_of, one_of, part, set, string, unknown};

const ATTRIBUTES: &str = "`capacity`, `ttl`, `absent_ttl`, `key`, `associated`, `cache`, `tags`, `depends_on`, \
     `depends_on_row`, `database`, `consistency`, `jitter`, `stale_while_revalidate`, `stale_if_error`, \
     `early_refresh`, `soft_timeout`";

/// A function that is memoized, as far as it could be understood.
pub struct Memoized {
    /// Without the attributes that are ours.
    pub function: ItemFn,
    pub options: Options,
    pub output: Type,
    /// Whether each argument is a part of the key, in their order.
    pub keyed: Vec<bool>,
    /// Whether the function is in an `impl` block.
    pub associated: bool,
}

/// What stands in the attribute.
#[derive(Default)]
pub struct Options {
    pub capacity: Option<usize>,
    pub ttl: Option<Duration>,
    pub absent_ttl: Option<Duration>,
    pub key: Option<Expr>,
    pub cache: Option<Expr>,
    pub tags: Vec<Expr>,
    pub depends_on: Vec<Type>,
    pub depends_on_row: Vec<Row>,
    pub database: Option<LitStr>,
    /// A variant of `Consistency`.
    pub consistency: Option<Ident>,
    pub jitter: Option<f64>,
    pub stale_while_revalidate: Option<Duration>,
    pub stale_if_error: Option<Duration>,
    pub early_refresh: Option<f64>,
    pub soft_timeout: Option<Duration>,
    associated: bool,
}

/// `Entity = key`.
pub struct Row {
    pub entity: Type,
    pub key: Expr,
}

impl Parse for Row {
    fn parse(input: ParseStream) -> Result<Self> {
        let entity = input.parse()?;
        input.parse::<Token![=]>()?;
        let key = input.parse()?;
        Ok(Self { entity, key })
    }
}

/// The memoized function; nothing if what is marked is none that can be.
pub fn parse(args: TokenStream, mut function: ItemFn, errors: &mut Errors) -> Option<Memoized> {
    let metas = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(args);
    let metas = errors.keep(metas).unwrap_or_default();
    let mut options = Options::default();
    for meta in &metas {
        let result = options.read(meta);
        errors.keep(result);
    }
    let keyed = keyed(&mut function.sig, errors);
    let output = errors.keep(fit(&function.sig, &keyed))?;
    for meta in &metas {
        let result = options.check(meta, &function.sig, &output);
        errors.keep(result);
    }
    if function.sig.asyncness.is_none() {
        // That it is there is a mistake, and has been told.
        options.cache = None;
    }
    errors.keep(owned(&output, options.cache.is_some()))?;
    let associated = options.associated || is_associated(&function.sig);
    Some(Memoized {
        function,
        options,
        output,
        keyed,
        associated,
    })
}

impl Options {
    fn read(&mut self, meta: &Meta) -> Result<()> {
        match name_of(meta).as_str() {
            "capacity" => set(&mut self.capacity, meta, count),
            "ttl" => set(&mut self.ttl, meta, duration),
            "absent_ttl" => set(&mut self.absent_ttl, meta, duration),
            "key" => set(&mut self.key, meta, expression),
            "cache" => set(&mut self.cache, meta, expression),
            "database" => set(&mut self.database, meta, string),
            "consistency" => set(&mut self.consistency, meta, |meta| {
                one_of(meta, &["linearizable", "bounded", "database"])
            }),
            "jitter" => set(&mut self.jitter, meta, part),
            "stale_while_revalidate" => set(&mut self.stale_while_revalidate, meta, duration),
            "stale_if_error" => set(&mut self.stale_if_error, meta, duration),
            "early_refresh" => set(&mut self.early_refresh, meta, factor),
            "soft_timeout" => set(&mut self.soft_timeout, meta, duration),
            "tags" => list(meta).map(|tags| self.tags.extend(tags)),
            "depends_on" => list(meta).map(|entities| self.depends_on.extend(entities)),
            "depends_on_row" => list(meta).map(|rows| self.depends_on_row.extend(rows)),
            "associated" => {
                meta.require_path_only()?;
                self.associated = true;
                Ok(())
            }
            _ => Err(unknown(meta, ATTRIBUTES)),
        }
    }

    /// Whether what was read fits the rest and the function.
    fn check(&self, meta: &Meta, function: &Signature, output: &Type) -> Result<()> {
        let name = name_of(meta);
        let here = self.cache.is_none();
        let message = match name.as_str() {
            "tags" | "depends_on" | "depends_on_row" if here => format!(
                "`{name}` goes with `cache = ..`: what is remembered in this process is told of no change"
            ),
            "database"
            | "consistency"
            | "jitter"
            | "stale_while_revalidate"
            | "stale_if_error"
            | "early_refresh"
            | "soft_timeout"
                if here =>
            {
                format!("`{name}` goes with `cache = ..`")
            }
            "capacity" if !here => {
                "`capacity` bounds what is remembered in this process: a cache has its own bounds"
                    .to_owned()
            }
            "cache" if function.asyncness.is_none() => {
                "a cache is asked by an `async fn` only".to_owned()
            }
            "absent_ttl" if is_never_absent(output) => {
                "`absent_ttl` is for functions that answer an `Option`".to_owned()
            }
            _ => return Ok(()),
        };
        Err(Error::new_spanned(meta, message))
    }
}

fn expression(meta: &Meta) -> Result<Expr> {
    Ok(meta.require_name_value()?.value.clone())
}

fn list<T: Parse>(meta: &Meta) -> Result<Vec<T>> {
    let list = meta.require_list()?;
    let items = list.parse_args_with(Punctuated::<T, Token![,]>::parse_terminated)?;
    if items.is_empty() {
        let message = format!("`{}` names nothing", name_of(meta));
        return Err(Error::new_spanned(meta, message));
    }
    Ok(items.into_iter().collect())
}

/// Which arguments are part of the key; takes the attributes that say so away.
fn keyed(function: &mut Signature, errors: &mut Errors) -> Vec<bool> {
    let mut keyed = Vec::new();
    for input in &mut function.inputs {
        let attrs = match input {
            FnArg::Receiver(receiver) => &mut receiver.attrs,
            FnArg::Typed(argument) => &mut argument.attrs,
        };
        let mut skip = false;
        attrs.retain(|attr| {
            let ours = attr.path().is_ident("memo");
            if ours {
                match attr.parse_args::<Ident>() {
                    Ok(word) if word == "skip" => skip = true,
                    _ => errors.at(attr, "expected `#[memo(skip)]`"),
                }
            }
            !ours
        });
        keyed.push(!skip);
    }
    keyed
}

/// What the function answers, if it is of a kind that can be memoized.
fn fit(function: &Signature, keyed: &[bool]) -> Result<Type> {
    if let Some(token) = &function.constness {
        let message = "a `const fn` cannot remember anything";
        return Err(Error::new_spanned(token, message));
    }
    if let Some(token) = &function.unsafety {
        let message = "an `unsafe fn` is not memoized: memoize a safe one around it";
        return Err(Error::new_spanned(token, message));
    }
    if let Some(abi) = &function.abi {
        let message = "an `extern fn` is not memoized: memoize one around it";
        return Err(Error::new_spanned(abi, message));
    }
    not_generic(function, keyed)?;
    match &function.output {
        ReturnType::Type(_, output) if !is_unit(output) => Ok((**output).clone()),
        _ => {
            let message = format!(
                "`{}` answers nothing that could be remembered",
                function.ident
            );
            Err(Error::new_spanned(&function.ident, message))
        }
    }
}

/// Whether the answer is the same for all types, as far as they matter: those of what is skipped do not.
fn not_generic(function: &Signature, keyed: &[bool]) -> Result<()> {
    let message = "an answer for one type is none for another: a memoized function has no generic parameters, \
                   except in arguments that are skipped";
    let keyed = function.inputs.iter().zip(keyed);
    let keyed = keyed.filter_map(|(input, keyed)| keyed.then_some(input.to_token_stream()));
    let output = function.output.to_token_stream();
    let told: Vec<TokenStream> = keyed.chain([output]).collect();
    let uses = |name: &str| {
        let is_it = |token: &TokenTree, _: &TokenStream| is_word(token, name);
        told.iter()
            .any(|tokens| find(tokens.clone(), &is_it).is_some())
    };
    for parameter in &function.generics.params {
        let name = match parameter {
            GenericParam::Lifetime(_) => continue,
            GenericParam::Type(parameter) => &parameter.ident,
            GenericParam::Const(parameter) => &parameter.ident,
        };
        if uses(&name.to_string()) {
            return Err(Error::new_spanned(parameter, message));
        }
    }
    // In an answer it is another mistake.
    let arguments = &told[..told.len() - 1];
    let is_impl = |token: &TokenTree, _: &TokenStream| is_word(token, "impl");
    match arguments
        .iter()
        .find_map(|tokens| find(tokens.clone(), &is_impl))
    {
        Some(token) => Err(Error::new_spanned(token, message)),
        None => Ok(()),
    }
}

/// Whether the answer can outlive the call.
fn owned(output: &Type, in_cache: bool) -> Result<()> {
    let tokens = output.to_token_stream();
    if let Some(token) = find(tokens.clone(), &|token, _| is_word(token, "impl")) {
        let message = "what is remembered is of a type with a name";
        return Err(Error::new_spanned(token, message));
    }
    let is_static = |ahead: &TokenStream| {
        let mut ahead = ahead.clone().into_iter();
        matches!(ahead.next(), Some(TokenTree::Punct(tick)) if tick.as_char() == '\'')
            && ahead.next().is_some_and(|word| is_word(&word, "static"))
    };
    let borrowed = |token: &TokenTree, ahead: &TokenStream| match token {
        TokenTree::Punct(punct) if punct.as_char() == '&' => in_cache || !is_static(ahead),
        TokenTree::Punct(punct) if punct.as_char() == '\'' => {
            let ahead = ahead.clone().into_iter().next();
            !ahead.is_some_and(|word| is_word(&word, "static"))
        }
        _ => false,
    };
    match find(tokens, &borrowed) {
        Some(token) => {
            let message = "what is remembered is owned: answer a `String`, a `Vec` or an `Arc`";
            Err(Error::new_spanned(token, message))
        }
        None => Ok(()),
    }
}

/// The first token, at any depth, that is such a one with what is ahead of it.
fn find(
    tokens: TokenStream,
    wanted: &impl Fn(&TokenTree, &TokenStream) -> bool,
) -> Option<TokenTree> {
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        if wanted(&token, &tokens.clone().collect()) {
            return Some(token);
        }
        if let TokenTree::Group(group) = &token
            && let Some(found) = find(group.stream(), wanted)
        {
            return Some(found);
        }
    }
    None
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

/// Where there is a `self` or a `Self`, an `impl` block is around.
fn is_associated(function: &Signature) -> bool {
    let tokens = function.to_token_stream();
    find(tokens, &|token, _| {
        is_word(token, "self") || is_word(token, "Self")
    })
    .is_some()
}

fn is_unit(ty: &Type) -> bool {
    match ty {
        Type::Tuple(tuple) => tuple.elems.is_empty(),
        Type::Never(_) => true,
        _ => false,
    }
}

/// Whether the function certainly answers no `Option`. An alias may be one.
fn is_never_absent(output: &Type) -> bool {
    let Some(last) = last_segment(output) else {
        return true;
    };
    let within = first_argument(last).and_then(last_segment);
    let within = within.map(|within| within.ident.to_string());
    match last.ident.to_string().as_str() {
        "Option" => false,
        "Result" => within.as_deref().is_none_or(is_known),
        name => is_known(name),
    }
}

/// Whether it is the name of a type of the language itself, which nobody calls an `Option`.
fn is_known(name: &str) -> bool {
    const KNOWN: [&str; 17] = [
        "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "u8", "u16", "u32", "u64",
        "u128", "usize", "String", "Vec",
    ];
    KNOWN.contains(&name)
}

fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match ty {
        Type::Path(path) => path.path.segments.last(),
        Type::Paren(paren) => last_segment(&paren.elem),
        Type::Group(group) => last_segment(&group.elem),
        _ => None,
    }
}

fn first_argument(segment: &PathSegment) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// The function that is marked.
pub fn function(item: TokenStream) -> Result<ItemFn> {
    let message = "`#[memoize]` goes on a function with a body";
    syn::parse2(item).map_err(|error| Error::new(error.span(), message))
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    #[test]
    fn only_what_is_surely_no_option_is_taken_for_none() {
        let never = |output: TokenStream| is_never_absent(&syn::parse2(output).unwrap());
        for output in [quote!(u8), quote!([Option<u8>; 2]), quote!(Vec<Option<u8>>)] {
            assert!(never(output));
        }
        assert!(never(quote!(Result<Vec<Option<u8>>, E>)));
        for output in [
            quote!((std::option::Option<u8>)),
            quote!(io::Result<Option<u8>>),
            quote!(Found),
            quote!(Result<Found, E>),
        ] {
            assert!(!never(output));
        }
    }

    #[test]
    fn only_what_can_outlive_the_call_is_owned() {
        let is_owned = |output: TokenStream| owned(&syn::parse2(output).unwrap(), false).is_ok();
        assert!(is_owned(quote!(Vec<&'static str>)));
        assert!(is_owned(quote!(Arc<[u8]>)));
        assert!(!is_owned(quote!(&str)));
        assert!(!is_owned(quote!(Result<Cow<'_, str>, E>)));
        assert!(!is_owned(quote!((u8, &'a str))));
        assert!(!is_owned(quote!(Box<impl Fn()>)));
    }
}
