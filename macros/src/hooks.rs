//! `ActiveModelBehavior`: written out for the derive, woven into the user's for `#[cache_hooks]`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::{
    Attribute, Block, Error, FnArg, Ident, ImplItem, ImplItemFn, ItemImpl, Pat, Result, ReturnType,
    parse_quote,
};

const HOOKS: [&str; 4] = ["before_save", "after_save", "before_delete", "after_delete"];

/// The behaviour of a model that has none of its own.
pub fn behavior() -> TokenStream {
    let methods = HOOKS.map(method);
    quote! {
        #[automatically_derived]
        #[::sea_orm_cache::__private::async_trait::async_trait]
        impl ::sea_orm_cache::__private::sea_orm::ActiveModelBehavior for ActiveModel {
            #(#methods)*
        }
    }
}

/// The user's behaviour with the cache's calls in it; on a mistake, the error and the user's as it was.
pub fn weave(args: TokenStream, item: TokenStream) -> TokenStream {
    try_weave(args, item.clone()).unwrap_or_else(|error| {
        let error = error.into_compile_error();
        quote!(#error #item)
    })
}

fn try_weave(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !args.is_empty() {
        return Err(Error::new_spanned(
            args,
            "`#[cache_hooks]` takes no arguments",
        ));
    }
    let mut block = behavior_block(item)?;
    for item in &block.items {
        if let ImplItem::Fn(method) = item
            && is_hook(&method.sig.ident)
        {
            check(method)?;
        }
    }
    for name in HOOKS {
        match hook_mut(&mut block, name) {
            Some(hook) => wrap(hook),
            None => block.items.push(method(name)),
        }
    }
    if !block.attrs.iter().any(is_async_trait) {
        block
            .attrs
            .push(parse_quote!(#[::sea_orm_cache::__private::async_trait::async_trait]));
    }
    Ok(quote!(#block))
}

fn behavior_block(item: TokenStream) -> Result<ItemImpl> {
    let message = "`#[cache_hooks]` goes on an `impl ActiveModelBehavior for ActiveModel` block";
    let block: ItemImpl = syn::parse2(item).map_err(|_| Error::new(Span::call_site(), message))?;
    let last = block
        .trait_
        .as_ref()
        .and_then(|(_, path, _)| path.segments.last());
    match last {
        Some(last) if last.ident == "ActiveModelBehavior" => Ok(block),
        Some(last) => Err(Error::new_spanned(last, message)),
        None => Err(Error::new_spanned(&block.self_ty, message)),
    }
}

fn is_hook(name: &Ident) -> bool {
    HOOKS.iter().any(|hook| name == hook)
}

fn is_async_trait(attr: &Attribute) -> bool {
    attr.path()
        .segments
        .last()
        .is_some_and(|last| last.ident == "async_trait")
}

fn check(method: &ImplItemFn) -> Result<()> {
    let name = &method.sig.ident;
    if method.sig.asyncness.is_none() {
        let message =
            format!("`{name}` is no `async fn`: is `#[cache_hooks]` above `#[async_trait]`?");
        return Err(Error::new_spanned(name, message));
    }
    // Where the condition does not hold, the cache's call would go with the method.
    match method.attrs.iter().find(|attr| attr.path().is_ident("cfg")) {
        Some(cfg) => {
            let message =
                format!("under `#[cache_hooks]`, put the condition into the body of `{name}`");
            Err(Error::new_spanned(cfg, message))
        }
        None => Ok(()),
    }
}

fn hook_mut<'a>(block: &'a mut ItemImpl, name: &str) -> Option<&'a mut ImplItemFn> {
    block.items.iter_mut().find_map(|item| match item {
        ImplItem::Fn(method) if method.sig.ident == name => Some(method),
        _ => None,
    })
}

/// Puts the cache's call into a hook.
fn wrap(hook: &mut ImplItemFn) {
    let name = hook.sig.ident.to_string();
    let arity = if name.ends_with("save") { 3 } else { 2 };
    if hook.sig.inputs.len() != arity {
        // Left for rustc to explain.
        return;
    }
    let mut rebind = TokenStream::new();
    let inputs = hook.sig.inputs.iter_mut().enumerate();
    let arguments: Vec<Ident> = inputs
        .map(|(position, input)| name_argument(position, input, &mut rebind))
        .collect();
    hook.block = if name.starts_with("before") {
        before(hook, &arguments[1..], &rebind)
    } else {
        after(hook, &arguments, &rebind)
    };
}

/// The user's body, and the cache's call on what it answers.
fn before(hook: &ImplItemFn, others: &[Ident], rebind: &TokenStream) -> Block {
    let (name, body) = (&hook.sig.ident, &hook.block);
    let output = match &hook.sig.output {
        ReturnType::Type(_, output) => output.to_token_stream(),
        ReturnType::Default => quote!(()),
    };
    let this = Ident::new("this", Span::mixed_site());
    parse_quote!({
        let #this = async move {
            // Tells the compiler the type, which `?` in the body leaves open.
            if let ::core::option::Option::Some(output) = ::core::option::Option::None::<#output> {
                return output;
            }
            #rebind
            #body
        }
        .await?;
        ::sea_orm_cache::hooks::#name(&#this, #(#others),*).await?;
        ::core::result::Result::Ok(#this)
    })
}

/// The cache's call, and the user's body.
fn after(hook: &ImplItemFn, arguments: &[Ident], rebind: &TokenStream) -> Block {
    let (name, statements) = (&hook.sig.ident, &hook.block.stmts);
    parse_quote!({
        ::sea_orm_cache::hooks::#name(& #(#arguments),*).await?;
        #rebind
        #(#statements)*
    })
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

/// A hook that does nothing but tell the cache.
fn method(name: &str) -> ImplItem {
    let hook = format_ident!("{name}");
    let orm = quote!(::sea_orm_cache::__private::sea_orm);
    let connection = quote!(#orm::ConnectionTrait);
    let result = |of: TokenStream| quote!(::core::result::Result<#of, #orm::DbErr>);
    let model = quote!(<Entity as #orm::EntityTrait>::Model);
    let (this, model_result) = (result(quote!(Self)), result(model.clone()));
    match name {
        "before_save" => parse_quote! {
            async fn before_save<C>(self, db: &C, insert: bool) -> #this
            where
                C: #connection,
            {
                ::sea_orm_cache::hooks::before_save(&self, db, insert).await?;
                ::core::result::Result::Ok(self)
            }
        },
        "after_save" => parse_quote! {
            async fn after_save<C>(model: #model, db: &C, insert: bool) -> #model_result
            where
                C: #connection,
            {
                ::sea_orm_cache::hooks::after_save(&model, db, insert).await?;
                ::core::result::Result::Ok(model)
            }
        },
        _ => parse_quote! {
            async fn #hook<C>(self, db: &C) -> #this
            where
                C: #connection,
            {
                ::sea_orm_cache::hooks::#hook(&self, db).await?;
                ::core::result::Result::Ok(self)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn woven(body: TokenStream) -> String {
        weave(
            TokenStream::new(),
            quote!(impl ActiveModelBehavior for ActiveModel { #body }),
        )
        .to_string()
    }

    fn in_order(text: &str, parts: &[&str]) {
        let mut rest = text;
        for part in parts {
            let found = rest.find(part);
            let start = found.unwrap_or_else(|| panic!("`{part}` is not in its place in {text}"));
            rest = &rest[start + part.len()..];
        }
    }

    #[test]
    fn the_cache_sees_what_before_save_answers() {
        let code = woven(quote!(
            async fn before_save<C>(mut self, _: &C, new: bool) -> Result<Self, DbErr> {
                return mine(self);
            }
        ));
        in_order(
            &code,
            &[
                "mut self , argument1 : & C , new : bool",
                "None :: < Result < Self , DbErr > >",
            ],
        );
        in_order(
            &code,
            &[
                "async move",
                "let _ = argument1",
                "mine (self)",
                "hooks :: before_save (& this , argument1 , new)",
            ],
        );
    }

    #[test]
    fn the_cache_is_told_before_after_save_runs() {
        let code = woven(quote!(
            async fn after_save<C>(
                Model { id }: Model,
                db: &C,
                _insert: bool,
            ) -> Result<Model, DbErr> {
                mine(id)
            }
        ));
        in_order(
            &code,
            &[
                "hooks :: after_save (& argument0 , db , _insert)",
                "let Model { id } = argument0",
                "mine (id)",
            ],
        );
    }

    #[test]
    fn hooks_that_are_missing_are_added() {
        let code = woven(quote!(
            async fn after_delete<C>(self, db: &C) -> Result<Self, DbErr> {
                mine(self)
            }
        ));
        in_order(&code, &["async_trait", "impl ActiveModelBehavior"]);
        for hook in HOOKS {
            assert_eq!(
                code.matches(&format!("async fn {hook} ")).count(),
                1,
                "{hook} in {code}"
            );
            assert_eq!(
                code.matches(&format!("hooks :: {hook} ")).count(),
                1,
                "{hook} in {code}"
            );
        }
    }
}
