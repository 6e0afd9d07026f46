//! How the rows of a model become bytes and back, field by field.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

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
    let columns: Vec<_> = members.iter().filter(|m| m.variant.is_some()).collect();
    let codecs: Vec<_> = columns.iter().map(|member| codec(member)).collect();
    let fields = columns.iter().map(|member| &member.field);
    let fields: Vec<_> = fields.map(|field| quote!(model.#field)).collect();
    // Not the fields' names, which may be those of the parameters.
    let names: Vec<_> = (0..columns.len()).map(|n| format_ident!("c{n}")).collect();
    let taken = members.iter().map(taken);
    let private = quote!(::sea_orm_cache::__private);
    let error = quote!(#private::CodecError);
    let traits = quote! {
        #[allow(unused_imports)]
        use #private::{ByValue as _, Column};
    };
    quote! {
        fn put_row(
            out: &mut ::std::vec::Vec<u8>,
            model: &Model,
        ) -> ::core::result::Result<(), #error> {
            #traits
            #(let #names = #codecs::of(&#fields);)*
            let texts = 0 #(+ Column::text(&#names).len())*;
            #private::start_row(out, texts, 0 #(+ Column::most(&#names))*);
            #(out.extend_from_slice(Column::text(&#names).as_bytes());)*
            #(Column::put(&#names, out)?;)*
            ::core::result::Result::Ok(())
        }

        fn take_row(
            reader: &mut #private::Reader<'_>,
        ) -> ::core::result::Result<Model, #error> {
            #traits
            reader.row(|reader| ::core::result::Result::Ok(Model { #(#taken),* }))
        }

        fn heap_size(model: &Model) -> usize {
            #traits
            0 #(+ #codecs::heap_size(&#fields))*
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
