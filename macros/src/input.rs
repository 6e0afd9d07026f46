//! What the user wrote: parsed, then validated.
//!
//! A mistake is noted and what remains goes on: the expansion of the rest is what keeps one mistake
//! from becoming twenty errors.

use std::collections::HashSet;
use std::fmt::Display;
use std::time::Duration;

use heck::ToUpperCamelCase;
use quote::{ToTokens, format_ident};
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, GenericArgument, Ident, LitStr, Meta,
    PathArguments, Result, Token, Type,
};

use crate::value::{boolean, duration, factor, name_of, one_of, part, set, string, unknown};

const STRUCT_ATTRIBUTES: &str = "`ttl`, `jitter`, `absent_ttl`, `consistency`, `write_policy`, \
     `stale_while_revalidate`, `stale_if_error`, `early_refresh`, `soft_timeout`, `load_timeout`, `name`, `index`, `unique`, `cascades_from`, `hooks`";
const FIELD_ATTRIBUTES: &str = "`index`, `unique`";

/// A model, as far as it could be understood.
#[derive(Default)]
pub struct Model {
    pub options: Options,
    pub indexes: Vec<Index>,
    /// All fields; `None` where SeaORM does not make the columns of them.
    pub members: Option<Vec<Member>>,
}

/// A field of the model.
pub struct Member {
    pub field: Ident,
    pub ty: Type,
    /// The variant of SeaORM's `Column` enum, unless the field is no column.
    pub variant: Option<Ident>,
}

/// The options on the struct.
#[derive(Default)]
pub struct Options {
    pub ttl: Option<Duration>,
    pub jitter: Option<f64>,
    pub stale_while_revalidate: Option<Duration>,
    pub stale_if_error: Option<Duration>,
    pub early_refresh: Option<f64>,
    pub soft_timeout: Option<Duration>,
    pub load_timeout: Option<Duration>,
    pub absent_ttl: Option<Duration>,
    /// A variant of `Consistency`.
    pub consistency: Option<Ident>,
    /// A variant of `WritePolicy`.
    pub write_policy: Option<Ident>,
    pub name: Option<LitStr>,
    pub hooks: Option<bool>,
    pub cascades_from: Vec<LitStr>,
    composites: Vec<Composite>,
}

/// An index to look rows up by.
pub struct Index {
    /// Its name in keys and, after `cached_find_by_`, in code.
    pub name: String,
    pub unique: bool,
    pub columns: Vec<Column>,
}

/// A column of an index.
#[derive(Clone)]
pub struct Column {
    pub field: Ident,
    /// The field's type, without `Option`.
    pub ty: Type,
    /// The variant of SeaORM's `Column` enum.
    pub variant: Ident,
}

/// `index(a, b)` or `unique(a, b)` on the struct.
struct Composite {
    unique: bool,
    columns: Vec<Ident>,
    meta: Meta,
}

/// The mistakes found so far.
#[derive(Default)]
pub struct Errors(Option<Error>);

impl Errors {
    pub fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            none => *none = Some(error),
        }
    }

    pub fn at(&mut self, tokens: impl ToTokens, message: impl Display) {
        self.push(Error::new_spanned(tokens, message));
    }

    pub fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// All of them, as `compile_error!`s.
    pub fn into_compile_error(self) -> Option<proc_macro2::TokenStream> {
        self.0.map(|error| error.into_compile_error())
    }
}

/// The model, or nothing if `input` is none.
pub fn parse(input: &DeriveInput, errors: &mut Errors) -> Option<Model> {
    let fields = errors.keep(named_fields(input))?;
    let options = Options::parse(&input.attrs, errors);
    let fields: Vec<_> = fields
        .named
        .iter()
        .filter_map(|field| Field::parse(field, errors))
        .collect();
    let names_its_table = names_its_table(&input.attrs);
    if names_its_table && !fields.iter().any(|field| field.primary_key) {
        let message = "`Model` has no primary key, and rows are cached by it: mark a field with \
             `#[sea_orm(primary_key)]`";
        errors.at(&input.ident, message);
        return None;
    }
    let indexes = Indexes::collect(&fields, &options.composites, errors);
    let members = names_its_table.then(|| fields.iter().map(Field::member).collect());
    Some(Model {
        options,
        indexes,
        members,
    })
}

/// Whether this is a format of SeaORM's in which the model's fields name the primary key: in the
/// expanded format an enum does.
fn names_its_table(attrs: &[Attribute]) -> bool {
    let mut found = false;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("sea_orm")) {
        // SeaORM reports what it does not understand.
        let _ = attr.parse_nested_meta(|meta| {
            found |= meta.path.is_ident("table_name");
            if meta.input.peek(Token![=]) {
                meta.value()?.parse::<syn::Expr>()?;
            }
            Ok(())
        });
    }
    found
}

/// The mistakes of a `ModelEx`, the twin that `#[sea_orm::model]` makes of a model with its relations:
/// only there are the attributes on relation fields seen.
pub fn check_relations(input: &DeriveInput, errors: &mut Errors) {
    let Data::Struct(data) = &input.data else {
        return;
    };
    for field in data.fields.iter().filter(|field| is_relation(&field.ty)) {
        Field::parse(field, errors);
    }
}

fn named_fields(input: &DeriveInput) -> Result<&syn::FieldsNamed> {
    if input.ident != "Model" {
        let message =
            "`CachedEntity` is derived for a SeaORM model: a struct with the name `Model`";
        return Err(Error::new_spanned(&input.ident, message));
    }
    let fields = match &input.data {
        Data::Struct(data) => &data.fields,
        _ => {
            return Err(Error::new_spanned(
                &input.ident,
                "`CachedEntity` is derived for structs only",
            ));
        }
    };
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "a cached model has no generic parameters",
        ));
    }
    match fields {
        Fields::Named(fields) => Ok(fields),
        _ => Err(Error::new_spanned(
            &input.ident,
            "a cached model has named fields",
        )),
    }
}

impl Options {
    fn parse(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut options = Self::default();
        for meta in arguments(attrs, "cached", errors) {
            let result = options.read(&meta);
            errors.keep(result);
        }
        options
    }

    fn read(&mut self, meta: &Meta) -> Result<()> {
        match name_of(meta).as_str() {
            "ttl" => set(&mut self.ttl, meta, duration),
            "absent_ttl" => set(&mut self.absent_ttl, meta, duration),
            "jitter" => set(&mut self.jitter, meta, part),
            "stale_while_revalidate" => set(&mut self.stale_while_revalidate, meta, duration),
            "stale_if_error" => set(&mut self.stale_if_error, meta, duration),
            "early_refresh" => set(&mut self.early_refresh, meta, factor),
            "soft_timeout" => set(&mut self.soft_timeout, meta, duration),
            "load_timeout" => set(&mut self.load_timeout, meta, duration),
            "consistency" => set(&mut self.consistency, meta, |meta| {
                one_of(meta, &["linearizable", "bounded", "database"])
            }),
            "write_policy" => set(&mut self.write_policy, meta, |meta| {
                one_of(meta, &["available", "strict"])
            }),
            "name" => set(&mut self.name, meta, string),
            "hooks" => set(&mut self.hooks, meta, boolean),
            "cascades_from" => self.read_cascades(meta),
            "index" | "unique" => self.read_composite(meta),
            _ => Err(unknown(meta, STRUCT_ATTRIBUTES)),
        }
    }

    fn read_cascades(&mut self, meta: &Meta) -> Result<()> {
        let tables = match meta {
            Meta::List(list) => list
                .parse_args_with(Punctuated::<LitStr, Token![,]>::parse_terminated)?
                .into_iter()
                .collect(),
            _ => vec![string(meta)?],
        };
        for table in tables {
            if self.cascades_from.contains(&table) {
                return Err(Error::new_spanned(table, "this table is named twice"));
            }
            self.cascades_from.push(table);
        }
        Ok(())
    }

    fn read_composite(&mut self, meta: &Meta) -> Result<()> {
        let name = name_of(meta);
        let columns: Vec<Ident> = match meta {
            Meta::List(list) => list
                .parse_args_with(Punctuated::<Ident, Token![,]>::parse_terminated)?
                .into_iter()
                .collect(),
            _ => Vec::new(),
        };
        if columns.is_empty() {
            let message =
                format!("`{name}` on the struct names its fields: `{name}(field_a, field_b)`");
            return Err(Error::new_spanned(meta, message));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = columns.iter().find(|column| !seen.insert(column.unraw())) {
            return Err(Error::new_spanned(twice, "this field is named twice"));
        }
        self.composites.push(Composite {
            unique: name == "unique",
            columns,
            meta: meta.clone(),
        });
        Ok(())
    }
}

/// What is known of a field of the model.
struct Field {
    column: Column,
    ty: Type,
    primary_key: bool,
    unique: bool,
    unique_keys: Vec<LitStr>,
    /// `#[cached(index)]` or `#[cached(unique)]`, and whether it is the latter.
    cached: Option<(bool, Meta)>,
    /// Why it is no column, if it is none.
    unfit: Option<&'static str>,
}

impl Field {
    fn parse(field: &syn::Field, errors: &mut Errors) -> Option<Self> {
        let ident = field.ident.as_ref()?;
        let orm = OrmAttributes::parse(&field.attrs);
        let unfit = if is_relation(&field.ty) {
            Some("is a relation and no column: index the field that holds the foreign key")
        } else if orm.ignore {
            Some("is no column: SeaORM is told to ignore it")
        } else {
            None
        };
        let cached = Self::cached_index(&field.attrs, errors);
        if let (Some((_, meta)), Some(why)) = (&cached, unfit) {
            errors.at(meta, format!("`{}` {why}", ident.unraw()));
        }
        Some(Self {
            column: Column {
                field: ident.clone(),
                ty: without_option(&field.ty).clone(),
                variant: orm.variant.unwrap_or_else(|| variant_of(ident)),
            },
            ty: field.ty.clone(),
            primary_key: orm.primary_key,
            unique: orm.unique,
            unique_keys: orm.unique_keys,
            cached: cached.filter(|_| unfit.is_none()),
            unfit,
        })
    }

    fn cached_index(attrs: &[Attribute], errors: &mut Errors) -> Option<(bool, Meta)> {
        let mut found: Option<(bool, Meta)> = None;
        for meta in arguments(attrs, "cached", errors) {
            let unique = match name_of(&meta).as_str() {
                "index" => false,
                "unique" => true,
                _ => {
                    errors.push(unknown(&meta, FIELD_ATTRIBUTES));
                    continue;
                }
            };
            if let Err(error) = meta.require_path_only() {
                errors.push(error);
            } else if found.is_some() {
                errors.at(&meta, "this field has an index already");
            } else {
                found = Some((unique, meta));
            }
        }
        found
    }

    fn name(&self) -> Ident {
        self.column.field.unraw()
    }

    fn member(&self) -> Member {
        Member {
            field: self.column.field.clone(),
            ty: self.ty.clone(),
            variant: self.unfit.is_none().then(|| self.column.variant.clone()),
        }
    }
}

/// What SeaORM's own attributes say of a field. Mistakes in them are SeaORM's to report.
#[derive(Default)]
struct OrmAttributes {
    primary_key: bool,
    ignore: bool,
    unique: bool,
    unique_keys: Vec<LitStr>,
    variant: Option<Ident>,
}

impl OrmAttributes {
    fn parse(attrs: &[Attribute]) -> Self {
        let mut found = Self::default();
        for meta in arguments(attrs, "sea_orm", &mut Errors::default()) {
            match name_of(&meta).as_str() {
                "primary_key" => found.primary_key = true,
                "ignore" => found.ignore = true,
                "unique" => found.unique = true,
                "unique_key" => found.unique_keys.extend(string(&meta)),
                "enum_name" => found.variant = string(&meta).and_then(|name| name.parse()).ok(),
                _ => {}
            }
        }
        found
    }
}

/// The indexes of a model, while they are being collected.
struct Indexes<'a> {
    fields: &'a [Field],
    found: Vec<Index>,
}

impl<'a> Indexes<'a> {
    /// Those that SeaORM's attributes imply come first, so that an error about two of the same is
    /// shown at the one that was asked for in vain.
    fn collect(fields: &'a [Field], composites: &[Composite], errors: &mut Errors) -> Vec<Index> {
        let mut indexes = Self {
            fields,
            found: Vec::new(),
        };
        indexes.add_implied(errors);
        for field in fields {
            if let Some((unique, meta)) = &field.cached {
                indexes.add(index(None, *unique, &[field]), meta, errors);
            }
        }
        for composite in composites {
            if let Some(fields) = errors.keep(indexes.resolve(composite)) {
                indexes.add(
                    index(None, composite.unique, &fields),
                    &composite.meta,
                    errors,
                );
            }
        }
        indexes.found
    }

    fn add_implied(&mut self, errors: &mut Errors) {
        let columns = || self.fields.iter().filter(|field| field.unfit.is_none());
        let mut implied = Vec::new();
        for field in columns() {
            if field.unique {
                implied.push((
                    index(None, true, &[field]),
                    field.column.field.to_token_stream(),
                ));
            }
        }
        let mut keys: Vec<&LitStr> = Vec::new();
        for key in columns().flat_map(|field| &field.unique_keys) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        for key in keys {
            let of_key: Vec<_> = columns()
                .filter(|field| field.unique_keys.contains(key))
                .collect();
            implied.push((index(Some(key), true, &of_key), key.to_token_stream()));
        }
        for (index, tokens) in implied {
            if !self.is_primary_key(&index) && !self.found.iter().any(|other| other.covers(&index))
            {
                self.add(index, tokens, errors);
            }
        }
    }

    fn add(&mut self, index: Index, tokens: impl ToTokens, errors: &mut Errors) {
        if self.is_primary_key(&index) {
            errors.at(tokens, "the primary key is looked up with `cached_get`");
        } else if self.found.iter().any(|other| other.covers(&index)) {
            errors.at(tokens, "there is an index over this already");
        } else if self.found.iter().any(|other| other.name == index.name) {
            errors.at(
                tokens,
                format!("two indexes would be `cached_find_by_{}`", index.name),
            );
        } else {
            self.found.push(index);
        }
    }

    fn resolve(&self, composite: &Composite) -> Result<Vec<&'a Field>> {
        let find = |column: &Ident| {
            let field = self
                .fields
                .iter()
                .find(|field| field.name() == column.unraw())
                .ok_or_else(|| {
                    Error::new_spanned(column, format!("`Model` has no column `{column}`"))
                })?;
            match field.unfit {
                Some(why) => Err(Error::new_spanned(column, format!("`{column}` {why}"))),
                None => Ok(field),
            }
        };
        composite.columns.iter().map(find).collect()
    }

    fn is_primary_key(&self, index: &Index) -> bool {
        let key: HashSet<_> = self
            .fields
            .iter()
            .filter(|field| field.primary_key)
            .map(Field::name)
            .collect();
        key == index
            .columns
            .iter()
            .map(|column| column.field.unraw())
            .collect()
    }
}

impl Index {
    fn covers(&self, other: &Index) -> bool {
        let fields = |index: &Index| -> Vec<_> {
            index
                .columns
                .iter()
                .map(|column| column.field.unraw())
                .collect()
        };
        fields(self) == fields(other)
    }
}

fn index(name: Option<&LitStr>, unique: bool, fields: &[&Field]) -> Index {
    let name = match name {
        Some(name) => identifier(&name.value()),
        None => {
            let names: Vec<_> = fields
                .iter()
                .map(|field| field.name().to_string())
                .collect();
            names.join("_and_")
        }
    };
    Index {
        name,
        unique,
        columns: fields.iter().map(|field| field.column.clone()).collect(),
    }
}

/// `name` as the end of an identifier: SeaORM accepts any text as the name of a key.
fn identifier(name: &str) -> String {
    let or_underscore = |c: char| if c.is_alphanumeric() { c } else { '_' };
    name.chars().map(or_underscore).collect()
}

/// The variant that SeaORM's `Column` has for a field.
fn variant_of(field: &Ident) -> Ident {
    match field.unraw().to_string().to_upper_camel_case().as_str() {
        "Self" => format_ident!("Self_"),
        // Where this is no identifier (`_1`), SeaORM has no variant either, and panics.
        name => syn::parse_str(name).unwrap_or_else(|_| field.clone()),
    }
}

fn is_relation(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|last| {
        ["HasOne", "HasMany", "BelongsTo"]
            .iter()
            .any(|name| last.ident == name)
    })
}

fn without_option(ty: &Type) -> &Type {
    if let Type::Path(path) = ty
        && let Some(last) = path.path.segments.last()
        && last.ident == "Option"
        && let PathArguments::AngleBracketed(arguments) = &last.arguments
        && let Some(GenericArgument::Type(inner)) = arguments.args.first()
    {
        return inner;
    }
    ty
}

/// What stands in the parentheses of all attributes of this name.
fn arguments(attrs: &[Attribute], name: &str, errors: &mut Errors) -> Vec<Meta> {
    let mut all = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident(name)) {
        let list = attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
        all.extend(errors.keep(list).into_iter().flatten());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_named_as_sea_orm_names_them() {
        let variant = |name| variant_of(&syn::parse_str(name).unwrap()).to_string();
        assert_eq!(variant("country_id"), "CountryId");
        assert_eq!(variant("r#type"), "Type");
        assert_eq!(variant("iso2"), "Iso2");
        assert_eq!(variant("address_line_1"), "AddressLine1");
        assert_eq!(variant("_hidden"), "Hidden");
        assert_eq!(variant("self_"), "Self_");
    }
}
