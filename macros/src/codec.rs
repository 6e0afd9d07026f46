//! How the rows of a model become bytes and back, field by field.

use proc_macro2::TokenStream;
use quote::quote;

use crate::input::Member;

/// The implementation of `RowCodec`. Without `members` it is the one that asks SeaORM.
pub fn row_codec(members: Option<&[Member]>) -> TokenStream {
    let order = members.map(order);
    let methods = members.map(methods);
    quote! {
        #order

        #[automatically_derived]
        #[allow(deprecated)]
        impl ::sea_orm_cache::__private::RowCodec for Entity {
            #methods
        }
    }
}

/// The bytes of a row are in the order of its columns, which is that of the fields wherever SeaORM
/// makes the columns of the fields.
fn order(members: &[Member]) -> TokenStream {
    let columns: Vec<_> = members
        .iter()
        .filter_map(|member| member.variant.as_ref())
        .collect();
    let pairs: Vec<_> = columns
        .windows(2)
        .map(|pair| {
            let (one, next) = (pair[0], pair[1]);
            quote!((Column::#one as usize) < (Column::#next as usize))
        })
        .collect();
    if pairs.is_empty() {
        return TokenStream::new();
    }
    quote! {
        const _: () = ::core::assert!(
            #(#pairs)&&*,
            "`Column` must list the columns in the order of the fields of `Model`",
        );
    }
}

fn methods(members: &[Member]) -> TokenStream {
    let columns = members.iter().filter(|member| member.variant.is_some());
    let (fields, codecs): (Vec<_>, Vec<_>) =
        columns.map(|member| (&member.field, codec(member))).unzip();
    let taken = members.iter().map(taken);
    let (error, by_value) = (
        quote!(::sea_orm_cache::__private::CodecError),
        quote!(
            use ::sea_orm_cache::__private::ByValue as _;
        ),
    );
    quote! {
        fn put_row(
            out: &mut ::std::vec::Vec<u8>,
            model: &Model,
        ) -> ::core::result::Result<(), #error> {
            #[allow(unused_imports)]
            #by_value
            out.reserve(0 #(+ #codecs::most(&model.#fields))*);
            #(#codecs::put(out, &model.#fields)?;)*
            ::core::result::Result::Ok(())
        }

        fn take_row(
            reader: &mut ::sea_orm_cache::__private::Reader<'_>,
        ) -> ::core::result::Result<Model, #error> {
            #[allow(unused_imports)]
            #by_value
            ::core::result::Result::Ok(Model { #(#taken),* })
        }

        fn heap_size(model: &Model) -> usize {
            #[allow(unused_imports)]
            #by_value
            0 #(+ #codecs::heap_size(&model.#fields))*
        }
    }
}

fn codec(member: &Member) -> TokenStream {
    let ty = &member.ty;
    quote!(::sea_orm_cache::__private::Field::<#ty>)
}

/// A field's initialiser. What is no column has its default, as it has from the database.
fn taken(member: &Member) -> TokenStream {
    let (field, codec) = (&member.field, codec(member));
    match &member.variant {
        Some(_) => quote!(#field: #codec::take(reader)?),
        None => quote!(#field: ::core::default::Default::default()),
    }
}
