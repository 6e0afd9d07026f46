//! `#[derive(CachedEntity)]`, written out.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};
use syn::{DeriveInput, Ident};

use crate::codec::row_codec;
use crate::hooks;
use crate::input::{self, Column, Errors, Index, Model, Options};

/// The implementation, and the mistakes, if any, before it.
pub fn derive(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let expanded = if input.ident == "ModelEx" {
        input::check_relations(input, &mut errors);
        TokenStream::new()
    } else {
        input::parse(input, &mut errors)
            .map(|model| expand(&model))
            .unwrap_or_default()
    };
    let errors = errors.into_compile_error();
    quote!(#errors #expanded)
}

fn expand(model: &Model) -> TokenStream {
    let meta = meta(model);
    let row_codec = row_codec(model.members.as_deref());
    let reads = reads();
    let finders = model.indexes.iter().enumerate().map(finder);
    let invalidations = invalidations();
    let relations = relations();
    let behavior = model.options.hooks.unwrap_or(true).then(hooks::behavior);
    quote! {
        #meta

        #row_codec

        #[automatically_derived]
        #[allow(dead_code)]
        impl Entity {
            #reads
            #(#finders)*
            #invalidations
        }

        #[automatically_derived]
        #[allow(dead_code)]
        impl Model {
            #relations
        }

        #behavior
    }
}

fn meta(
    Model {
        options, indexes, ..
    }: &Model,
) -> TokenStream {
    let name = option(options.name.as_ref());
    let policy = policy(options);
    let indexes = indexes.iter().map(|index| {
        let Index {
            name,
            unique,
            columns,
        } = index;
        let variants = columns.iter().map(|column| &column.variant);
        quote!((#name, #unique, &[#(Column::#variants),*]))
    });
    let cascades_from = &options.cascades_from;
    quote! {
        #[automatically_derived]
        impl ::sea_orm_cache::CachedEntity for Entity {
            fn cached_meta() -> &'static ::sea_orm_cache::EntityMeta {
                static META: ::std::sync::OnceLock<::sea_orm_cache::EntityMeta> = ::std::sync::OnceLock::new();
                META.get_or_init(|| {
                    ::sea_orm_cache::__private::entity_meta::<Entity>(
                        #name,
                        #policy,
                        &[#(#indexes),*],
                        &[#(#cascades_from),*],
                    )
                })
            }
        }

        ::sea_orm_cache::__private::submit! {
            ::sea_orm_cache::__private::Registration(<Entity as ::sea_orm_cache::CachedEntity>::cached_meta)
        }
    }
}

fn policy(options: &Options) -> TokenStream {
    let ttl = options.ttl.map(duration).map(|ttl| quote!(ttl: #ttl,));
    let absent_ttl = options
        .absent_ttl
        .map(duration)
        .map(|ttl| quote!(absent_ttl: #ttl,));
    let span = |name: &str, value: Option<Duration>| {
        let name = format_ident!("{name}");
        value.map(duration).map(|value| quote!(#name: #value,))
    };
    let ages = [
        span("stale_while_revalidate", options.stale_while_revalidate),
        span("stale_if_error", options.stale_if_error),
    ];
    let limit = |name: &str, value: Option<Duration>| {
        let name = format_ident!("{name}");
        let some = value.map(|value| option(Some(duration(value))));
        some.map(|some| quote!(#name: #some,))
    };
    let limits = [
        limit("soft_timeout", options.soft_timeout),
        limit("load_timeout", options.load_timeout),
    ];
    let early = options
        .early_refresh
        .map(|factor| quote!(early_refresh: #factor,));
    let jitter = options.jitter.map(|jitter| quote!(jitter: #jitter,));
    let consistency = options
        .consistency
        .as_ref()
        .map(|variant| quote!(consistency: ::sea_orm_cache::Consistency::#variant,));
    let write_policy = options.write_policy.as_ref().map(|variant| {
        let some = option(Some(quote!(::sea_orm_cache::WritePolicy::#variant)));
        quote!(write_policy: #some,)
    });
    quote! {
        {
            // Where everything is said.
            #[allow(clippy::needless_update)]
            let policy = ::sea_orm_cache::EntityPolicy {
            #ttl
            #jitter
            #(#ages)*
            #(#limits)*
            #early
            #absent_ttl
            #consistency
            #write_policy
            ..::core::default::Default::default()
            };
            policy
        }
    }
}

fn duration(duration: Duration) -> TokenStream {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    quote!(::core::time::Duration::from_millis(#millis))
}

fn option(value: Option<impl ToTokens>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

/// The functions of every entity that read.
///
/// All functions are no `async fn`s but convert their arguments first, so that the future is `Send`
/// whatever they were converted from.
fn reads() -> TokenStream {
    let get = future(quote!(::core::option::Option<::std::sync::Arc<Model>>));
    let get_many = future(quote!(
        ::std::vec::Vec<::core::option::Option<::std::sync::Arc<Model>>>
    ));
    let all = future(quote!(::sea_orm_cache::Rows<Model>));
    let (key, connection) = (key(), connection());
    quote! {
        /// The row with this primary key, from the cache or else from the database.
        pub fn cached_get<'c, C: #connection>(pk: impl ::core::convert::Into<#key>, db: &'c C) -> #get {
            ::sea_orm_cache::__private::get::<Entity, C>(::core::convert::Into::into(pk), db)
        }

        /// The rows with these primary keys, in the order asked, in one round trip to the cache.
        pub fn cached_get_many<'c, C: #connection>(
            pks: impl ::core::iter::IntoIterator<Item = impl ::core::convert::Into<#key>>,
            db: &'c C,
        ) -> #get_many {
            let pks = ::core::iter::IntoIterator::into_iter(pks).map(::core::convert::Into::into);
            ::sea_orm_cache::__private::get_many::<Entity, C>(::core::iter::Iterator::collect(pks), db)
        }

        /// All rows of the table.
        pub fn cached_all<'c, C: #connection>(db: &'c C) -> #all {
            ::sea_orm_cache::__private::all::<Entity, C>(db)
        }
    }
}

fn finder((position, index): (usize, &Index)) -> TokenStream {
    let function = format_ident!("cached_find_by_{}", index.name);
    let arguments = arguments(&index.columns);
    let types = index.columns.iter().map(|column| &column.ty);
    let values = index
        .columns
        .iter()
        .zip(&arguments)
        .map(|(column, argument)| {
            let ty = &column.ty;
            quote!(::core::convert::Into::into(::core::convert::Into::<#ty>::into(#argument)))
        });
    let (runtime, found, what) = if index.unique {
        (
            quote!(find_unique),
            quote!(::core::option::Option<::std::sync::Arc<Model>>),
            "The row",
        )
    } else {
        (
            quote!(find_index),
            quote!(::std::vec::Vec<::std::sync::Arc<Model>>),
            "The rows",
        )
    };
    let names: Vec<_> = arguments_in_words(&index.columns);
    let doc = format!(
        "{what} with this {}, from the cache or else from the database.",
        names.join(" and ")
    );
    let (found, connection) = (future(found), connection());
    let db = Ident::new("db", proc_macro2::Span::mixed_site());
    quote! {
        #[doc = #doc]
        pub fn #function<'c, C: #connection>(
            #(#arguments: impl ::core::convert::Into<#types>,)*
            #db: &'c C,
        ) -> #found {
            ::sea_orm_cache::__private::#runtime::<Entity, C>(#position, ::std::vec![#(#values),*], #db)
        }
    }
}

/// One argument is a `value`, several are called as their fields.
fn arguments(columns: &[Column]) -> Vec<Ident> {
    match columns {
        [_] => vec![format_ident!("value")],
        _ => columns.iter().map(|column| column.field.clone()).collect(),
    }
}

fn arguments_in_words(columns: &[Column]) -> Vec<String> {
    columns
        .iter()
        .map(|column| format!("`{}`", column.field))
        .collect()
}

fn invalidations() -> TokenStream {
    let done = future_or(quote!(()), quote!(::sea_orm_cache::CacheError));
    let (key, connection) = (key(), connection());
    quote! {
        /// Makes the row with this primary key stale: for writes that the library does not see.
        pub fn invalidate<'c, C: #connection>(pk: impl ::core::convert::Into<#key>, db: &'c C) -> #done {
            ::sea_orm_cache::__private::invalidate::<Entity, C>(::core::convert::Into::into(pk), db)
        }

        /// Makes the rows with these primary keys stale: for writes that the library does not see.
        pub fn invalidate_many<'c, C: #connection>(
            pks: impl ::core::iter::IntoIterator<Item = impl ::core::convert::Into<#key>>,
            db: &'c C,
        ) -> #done {
            let pks = ::core::iter::IntoIterator::into_iter(pks).map(::core::convert::Into::into);
            ::sea_orm_cache::__private::invalidate_many::<Entity, C>(::core::iter::Iterator::collect(pks), db)
        }

        /// Makes everything stale that is cached of this entity.
        pub fn invalidate_all<'c, C: #connection>(db: &'c C) -> #done {
            ::sea_orm_cache::__private::invalidate_all::<Entity, C>(db)
        }
    }
}

fn relations() -> TokenStream {
    let model = quote!(<R as ::sea_orm_cache::__private::sea_orm::EntityTrait>::Model);
    let many = future(quote!(::sea_orm_cache::Rows<#model>));
    let one = future(quote!(::core::option::Option<::std::sync::Arc<#model>>));
    let connection = connection();
    quote! {
        /// The rows of `related` that belong to this one, from the cache or else from the database.
        pub fn cached_related<'c, R, C>(&'c self, related: R, db: &'c C) -> #many
        where
            R: ::sea_orm_cache::CachedEntity,
            C: #connection,
            Entity: ::sea_orm_cache::__private::sea_orm::Related<R>,
        {
            let _: R = related;
            ::sea_orm_cache::__private::related::<Entity, R, C>(self, db)
        }

        /// The row of `related` that belongs to this one, from the cache or else from the database.
        pub fn cached_related_one<'c, R, C>(&'c self, related: R, db: &'c C) -> #one
        where
            R: ::sea_orm_cache::CachedEntity,
            C: #connection,
            Entity: ::sea_orm_cache::__private::sea_orm::Related<R>,
        {
            let _: R = related;
            ::sea_orm_cache::__private::related_one::<Entity, R, C>(self, db)
        }
    }
}

fn key() -> TokenStream {
    quote!(<PrimaryKey as ::sea_orm_cache::__private::sea_orm::PrimaryKeyTrait>::ValueType)
}

fn connection() -> TokenStream {
    quote!(::sea_orm_cache::__private::sea_orm::ConnectionTrait)
}

fn future(output: TokenStream) -> TokenStream {
    future_or(output, quote!(::sea_orm_cache::__private::sea_orm::DbErr))
}

fn future_or(output: TokenStream, error: TokenStream) -> TokenStream {
    quote! {
        impl ::core::future::Future<Output = ::core::result::Result<#output, #error>> + ::core::marker::Send + 'c
    }
}
