//! `#[memoize]`, written out.

mod input;

use std::time::Duration;

use input::{Memoized, Options};
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Attribute, Expr, ExprLit, ExprReference, FnArg, Ident, ItemFn, Lit, Pat, Token, Type,
    Visibility, parse_quote,
};

use crate::input::Errors;

/// How many answers are remembered in this process, if the user does not say.
const CAPACITY: usize = 1_000;

/// The function that remembers, what there is beside it, and the mistakes, if any, before them.
pub fn memoize(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let expanded = match input::function(item.clone()) {
        Ok(function) => {
            let bare = without_ours(function.clone());
            match input::parse(args, function, &mut errors) {
                Some(memoized) => expand(memoized),
                None => bare,
            }
        }
        Err(error) => {
            errors.push(error);
            item
        }
    };
    let errors = errors.into_compile_error();
    quote!(#errors #expanded)
}

/// The function as it is without us.
fn without_ours(mut function: ItemFn) -> TokenStream {
    for input in &mut function.sig.inputs {
        let attrs = match input {
            FnArg::Receiver(receiver) => &mut receiver.attrs,
            FnArg::Typed(argument) => &mut argument.attrs,
        };
        attrs.retain(|attr| !attr.path().is_ident("memo"));
    }
    function.into_token_stream()
}

fn expand(mut memoized: Memoized) -> TokenStream {
    let beside = match memoized.associated {
        false => module(&memoized),
        true => functions(&memoized),
    };
    wrap(&mut memoized);
    let function = &memoized.function;
    quote!(#function #beside)
}

fn runtime() -> TokenStream {
    quote!(::sea_orm_cache::__private::memo)
}

fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// Puts the function's body behind what is remembered.
fn wrap(memoized: &mut Memoized) {
    let mut rebind = TokenStream::new();
    let inputs = memoized.function.sig.inputs.iter_mut().enumerate();
    let arguments: Vec<Ident> = inputs
        .map(|(position, input)| name_argument(position, input, &mut rebind))
        .collect();
    let (runtime, call) = (runtime(), call(memoized, &arguments));
    let (body, output) = (&memoized.function.block.stmts, &memoized.output);
    let answer = answer(&memoized.output);
    let work = match memoized.function.sig.asyncness {
        None => quote!(move || -> #output { #rebind #(#body)* }),
        Some(_) => quote!(async move {
            // Tells the compiler the type, which `?` in the body leaves open.
            if let ::core::option::Option::Some(output) = ::core::option::Option::None::<#output> {
                return output;
            }
            #rebind
            #(#body)*
        }),
    };
    let (key, place, policy) = (local("call"), local("place"), local("policy"));
    let store = store(memoized);
    // Where what it answers cannot be remembered, the compiler shows it.
    let at = Span::mixed_site().located_at(output.span());
    let [load, remember, remember_async] =
        ["load", "remember", "remember_async"].map(|name| Ident::new(name, at));
    memoized.function.block = match (&memoized.options.cache, memoized.function.sig.asyncness) {
        (Some(cache), _) => {
            let (home, name) = (reference(cache), name(memoized));
            let settings = self::policy(&memoized.options);
            parse_quote!({
                let #place = #runtime::place(#home, #name);
                let #key = #call;
                let #policy = #settings;
                #runtime::#load(#answer, #place, #key, #policy, #work).await
            })
        }
        (None, Some(_)) => parse_quote!({
            let #key = #call;
            #store.#remember_async(#answer, #key, #work).await
        }),
        (None, None) => parse_quote!({
            let #key = #call;
            #store.#remember(#answer, #key, #work)
        }),
    };
}

/// The argument's name; one that has a pattern instead gets a name, and `rebind` the pattern.
fn name_argument(position: usize, input: &mut FnArg, rebind: &mut TokenStream) -> Ident {
    let argument = match input {
        FnArg::Receiver(receiver) => return Ident::new("self", receiver.self_token.span),
        FnArg::Typed(argument) => argument,
    };
    match &*argument.pat {
        Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => pat.ident.clone(),
        pattern => {
            let name = format_ident!("argument{position}", span = Span::mixed_site());
            rebind.extend(quote!(let #pattern = #name;));
            *argument.pat = parse_quote!(#name);
            name
        }
    }
}

/// What tells this call from others.
fn call(memoized: &Memoized, arguments: &[Ident]) -> TokenStream {
    let runtime = runtime();
    // In a cache, the type is in the function's name.
    let start = match memoized.associated && memoized.options.cache.is_none() {
        true => quote!(#runtime::Call::of::<Self>()),
        false => quote!(#runtime::Call::new()),
    };
    match &memoized.options.key {
        Some(Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        })) => quote!(#start.text(::std::format!(#text))),
        Some(Expr::Tuple(tuple)) => {
            let parts = tuple.elems.iter().map(reference);
            quote!(#start #(.argument(#parts))*)
        }
        Some(key) => {
            let key = reference(key);
            quote!(#start.argument(#key))
        }
        None => {
            let keyed = memoized.keyed.iter().zip(arguments);
            let keyed = keyed.filter_map(|(keyed, argument)| keyed.then_some(argument));
            // What has no text is shown by the compiler.
            let parts =
                keyed.map(|argument| quote_spanned!(argument.span()=> .argument(&#argument)));
            quote!(#start #(#parts)*)
        }
    }
}

fn reference(expr: &Expr) -> Expr {
    Expr::Reference(ExprReference {
        attrs: Vec::new(),
        and_token: Token![&](Span::mixed_site()),
        mutability: None,
        expr: Box::new(expr.clone()),
    })
}

/// What the function answers, by its type.
fn answer(output: &Type) -> TokenStream {
    let runtime = runtime();
    quote!({
        #[allow(unused_imports)]
        use #runtime::kind::{
            OfFallible as _, OfFallibleOptional as _, OfOptional as _, OfPlain as _,
        };
        (&&&#runtime::Probe::<#output>::new()).kind()
    })
}

fn policy(options: &Options) -> TokenStream {
    let time = |name: &str, time: Option<Duration>| {
        let (name, time) = (format_ident!("{name}"), duration(time?));
        Some(quote!(.#name(#time)))
    };
    let number = |name: &str, number: Option<f64>| {
        let name = format_ident!("{name}");
        number.map(|number| quote!(.#name(#number)))
    };
    let settings = [
        time("ttl", options.ttl),
        time("absent_ttl", options.absent_ttl),
        time("stale_while_revalidate", options.stale_while_revalidate),
        time("stale_if_error", options.stale_if_error),
        time("soft_timeout", options.soft_timeout),
        number("jitter", options.jitter),
        number("early_refresh", options.early_refresh),
    ];
    let settings = settings.into_iter().flatten();
    let consistency = options
        .consistency
        .as_ref()
        .map(|level| quote!(.consistency(::sea_orm_cache::Consistency::#level)));
    let database = options
        .database
        .as_ref()
        .map(|label| quote!(.database(#label)));
    let runtime = runtime();
    let tags = options.tags.iter();
    let entities = options.depends_on.iter();
    let rows = options.depends_on_row.iter().map(|row| {
        let (entity, key) = (&row.entity, &row.key);
        quote!(.depends_on_row::<#entity>(#runtime::owned(&(#key))))
    });
    quote! {
        ::sea_orm_cache::Policy::new()
            #(#settings)*
            #consistency
            #database
            #(.tags([::std::string::ToString::to_string(&(#tags))]))*
            #(.depends_on::<#entities>())*
            #(#rows)*
    }
}

fn duration(duration: Duration) -> TokenStream {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    quote!(::core::time::Duration::from_millis(#millis))
}

/// What remembers in this process.
fn store(memoized: &Memoized) -> TokenStream {
    let function = &memoized.function.sig.ident;
    if memoized.associated {
        let store = hidden(function);
        quote!(Self::#store())
    } else {
        quote!(#function::MEMO)
    }
}

fn hidden(function: &Ident) -> Ident {
    format_ident!("__{}_memo", plain(function), span = Span::mixed_site())
}

/// The function's name in a cache.
fn name(memoized: &Memoized) -> TokenStream {
    let function = &memoized.function.sig.ident;
    if memoized.associated {
        let (runtime, text) = (runtime(), plain(function));
        quote!(&#runtime::name::<Self>(#text))
    } else {
        quote!(&#function::NAME)
    }
}

fn plain(function: &Ident) -> String {
    syn::ext::IdentExt::unraw(function).to_string()
}

/// The expression of an empty store.
fn new_store(options: &Options) -> TokenStream {
    let runtime = runtime();
    let capacity = options.capacity.unwrap_or(CAPACITY);
    let time = |time: Option<Duration>| match time.map(duration) {
        Some(time) => quote!(::core::option::Option::Some(#time)),
        None => quote!(::core::option::Option::None),
    };
    let (ttl, absent_ttl) = (time(options.ttl), time(options.absent_ttl));
    quote!(#runtime::Memo::new(#capacity, #ttl, #absent_ttl))
}

/// The module beside a function, of its name.
fn module(memoized: &Memoized) -> TokenStream {
    let ItemFn { vis, sig, .. } = &memoized.function;
    let (name, conditions) = (&sig.ident, conditions(&memoized.function));
    let doc = format!("What the function `{}` remembers.", plain(name));
    let (runtime, public) = (runtime(), parse_quote!(pub));
    let (clear, stats) = (format_ident!("clear"), format_ident!("stats"));
    let items = match memoized.options.cache {
        None => {
            let functions = of_process(&public, &clear, &stats, &quote!(MEMO));
            let store = new_store(&memoized.options);
            quote! {
                pub(super) static MEMO: #runtime::Memo = #store;
                #functions
            }
        }
        Some(_) => {
            let functions = of_cache(&public, &clear, &stats, &quote!(&NAME));
            quote! {
                // Of a type, whose path has also the function that this one may stand in.
                struct Here;
                pub(super) static NAME: ::std::sync::LazyLock<::std::string::String> =
                    ::std::sync::LazyLock::new(#runtime::path::<Here>);
                #functions
            }
        }
    };
    quote! {
        #(#conditions)*
        #[doc = #doc]
        #[allow(dead_code, unreachable_pub)]
        #vis mod #name {
            #items
        }
    }
}

/// The functions beside one that is in an `impl` block, where no module can be.
fn functions(memoized: &Memoized) -> TokenStream {
    let ItemFn { vis, sig, .. } = &memoized.function;
    let clear = format_ident!("{}_clear", plain(&sig.ident));
    let stats = format_ident!("{}_stats", plain(&sig.ident));
    if memoized.options.cache.is_some() {
        return of_cache(vis, &clear, &stats, &name(memoized));
    }
    let (runtime, new, store) = (runtime(), new_store(&memoized.options), hidden(&sig.ident));
    let functions = of_process(vis, &clear, &stats, &quote!(Self::#store()));
    quote! {
        #[doc(hidden)]
        fn #store() -> &'static #runtime::Memo {
            static MEMO: #runtime::Memo = #new;
            &MEMO
        }
        #functions
    }
}

fn of_process(vis: &Visibility, clear: &Ident, stats: &Ident, store: &TokenStream) -> TokenStream {
    quote! {
        /// Forgets what the function has answered. What is being worked out is not remembered.
        #[allow(dead_code)]
        #vis fn #clear() {
            #store.clear();
        }

        /// The counters of the function.
        #[allow(dead_code)]
        #vis fn #stats() -> ::sea_orm_cache::MemoStats {
            #store.stats()
        }
    }
}

fn of_cache(vis: &Visibility, clear: &Ident, stats: &Ident, name: &TokenStream) -> TokenStream {
    let runtime = runtime();
    let home = quote!(&(impl ::sea_orm_cache::MemoHome + ?::core::marker::Sized));
    let done = quote!(::core::result::Result<(), ::sea_orm_cache::CacheError>);
    quote! {
        /// Makes all answers of the function stale that are in `cache`.
        ///
        /// # Errors
        /// If the store could not be told; it will be, and this process reads none of them until it is.
        #[allow(dead_code)]
        #vis fn #clear(
            cache: #home,
        ) -> impl ::core::future::Future<Output = #done> + ::core::marker::Send {
            #runtime::clear(#runtime::place(cache, #name))
        }

        /// The counters of the function's namespace in `cache`.
        #[allow(dead_code)]
        #vis fn #stats(cache: #home) -> ::sea_orm_cache::EntityStats {
            #runtime::stats(&#runtime::place(cache, #name))
        }
    }
}

/// Under which the function is there at all.
fn conditions(function: &ItemFn) -> Vec<&Attribute> {
    let attrs = function.attrs.iter();
    attrs.filter(|attr| attr.path().is_ident("cfg")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(args: TokenStream, item: TokenStream) -> String {
        memoize(args, item).to_string()
    }

    #[track_caller]
    fn contains(code: &str, parts: &[&str]) {
        for part in parts {
            assert!(code.contains(part), "no `{part}` in {code}");
        }
    }

    #[test]
    fn arguments_are_the_key_unless_they_are_skipped_or_another_is_given() {
        let item = quote!(
            fn f(a: u8, (b, c): (u8, u8), #[memo(skip)] d: &Db) -> u8 {
                a
            }
        );
        let code = expanded(quote!(), item.clone());
        let key = "Call :: new () . argument (& a) . argument (& argument1) ;";
        contains(&code, &[key, "let (b , c) = argument1 ;", "d : & Db)"]);
        let code = expanded(quote!(key = "{a}"), item.clone());
        contains(
            &code,
            &["Call :: new () . text (:: std :: format ! (\"{a}\"))"],
        );
        let code = expanded(quote!(key = (a + 1, d.id)), item);
        contains(
            &code,
            &["new () . argument (& (a + 1)) . argument (& d . id)"],
        );
    }

    #[test]
    fn where_a_self_is_there_is_no_module() {
        let code = expanded(
            quote!(),
            quote!(
                pub fn r#f(&self) -> u8 {
                    1
                }
            ),
        );
        let functions = [
            "pub fn f_clear ()",
            "pub fn f_stats ()",
            "Self :: __f_memo ()",
        ];
        contains(&code, &functions);
        contains(&code, &["Call :: of :: < Self > () . argument (& self)"]);
        assert!(!code.contains("mod "), "{code}");
        let code = expanded(
            quote!(associated),
            quote!(
                fn f() -> u8 {
                    1
                }
            ),
        );
        contains(&code, &["fn f_clear ()"]);
        let code = expanded(
            quote!(),
            quote!(
                pub(super) fn f() -> u8 {
                    1
                }
            ),
        );
        contains(
            &code,
            &["pub (super) mod f", "pub fn clear ()", "f :: MEMO"],
        );
    }

    #[test]
    fn the_policy_is_what_the_attributes_say() {
        let code = expanded(
            quote!(
                cache = db.cache(),
                ttl = "1s",
                tags("a", format!("b")),
                depends_on(city::Entity),
                depends_on_row(country::Entity = id),
                database = "archive"
            ),
            quote!(
                async fn f(id: i64) -> Result<Option<u8>, E> {
                    Ok(None)
                }
            ),
        );
        let policy = "Policy :: new () . ttl (:: core :: time :: Duration :: from_millis (1000u64)) \
             . database (\"archive\") . tags ([:: std :: string :: ToString :: to_string (& (\"a\"))]) \
             . tags ([:: std :: string :: ToString :: to_string (& (format ! (\"b\")))]) . depends_on :: < city :: Entity > () . depends_on_row :: < country :: Entity > \
             (:: sea_orm_cache :: __private :: memo :: owned (& (id)))";
        contains(&code, &[policy, "place (& db . cache () , & f :: NAME)"]);
        contains(
            &code,
            &["Probe :: < Result < Option < u8 > , E > > :: new ()"],
        );
    }

    #[test]
    fn a_function_that_cannot_be_memoized_stays_as_it_is() {
        let code = expanded(
            quote!(),
            quote!(
                const fn f(#[memo(skip)] a: u8) -> u8 {
                    a
                }
            ),
        );
        contains(&code, &["compile_error", "const fn f (a : u8) -> u8 { a }"]);
    }
}
