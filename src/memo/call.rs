//! The arguments of a call as text.
//!
//! Not MessagePack and not JSON: there `None` and `Some(())`, or NaN and `None`, are the same, and a function would
//! be answered with what was another call's.

use std::any::TypeId;
use std::fmt::{self, Display, Write as _};

use serde::Serialize;
use serde::ser::{self, Serializer};

/// A call: the exact text of its arguments, each after what serde makes of it. No two
/// arguments of one type that serde writes differently have the same text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The type whose function it is, of those that share their code.
    of: Option<TypeId>,
    /// Or why there is none.
    text: Result<String, String>,
}

impl Call {
    /// Of a function that no type has.
    #[expect(clippy::new_without_default, reason = "a call is no value of its own")]
    pub fn new() -> Self {
        let text = Ok(String::new());
        Self { of: None, text }
    }

    /// Of a function of this type.
    pub fn of<T: ?Sized>() -> Self {
        let of = Some(typeid::of::<T>());
        Self { of, ..Self::new() }
    }

    /// With one more argument.
    pub fn argument<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        if let Ok(text) = &mut self.text {
            if !text.is_empty() {
                text.push(',');
            }
            if let Err(Unknown(reason)) = value.serialize(Text(text)) {
                self.text = Err(reason);
            }
        }
        self
    }

    /// With this text instead of arguments.
    pub fn text(mut self, text: String) -> Self {
        self.text = Ok(text);
        self
    }

    /// The text.
    ///
    /// # Errors
    /// Why it cannot be told from other calls.
    pub(super) fn as_str(&self) -> Result<&str, &str> {
        self.text.as_deref().map_err(String::as_str)
    }
}

/// Why an argument has no text.
#[derive(Debug)]
struct Unknown(String);

impl Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unknown {}

impl ser::Error for Unknown {
    fn custom<T: Display>(reason: T) -> Self {
        Self(reason.to_string())
    }
}

/// Appends a value: `7`, `"text"`, `unit`, `none`, `some(7)`, `[1,2,]`, `{"field":1,}`, `."Variant"(1,)`.
struct Text<'t>(&'t mut String);

fn quoted(out: &mut String, text: &str, quote: char) {
    out.push(quote);
    for c in text.chars() {
        if c == quote || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push(quote);
}

macro_rules! as_displayed {
    ($($method:ident: $type:ty),*) => { $(
        fn $method(self, value: $type) -> Result<(), Unknown> {
            // Writing to a String does not fail.
            let _ = write!(self.0, "{value}");
            Ok(())
        }
    )* };
}

impl<'t> Serializer for Text<'t> {
    type Ok = ();
    type Error = Unknown;
    type SerializeSeq = Parts<'t>;
    type SerializeTuple = Parts<'t>;
    type SerializeTupleStruct = Parts<'t>;
    type SerializeTupleVariant = Parts<'t>;
    type SerializeMap = Entries<'t>;
    type SerializeStruct = Parts<'t>;
    type SerializeStructVariant = Parts<'t>;

    as_displayed!(
        serialize_bool: bool,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128
    );

    fn serialize_f32(self, value: f32) -> Result<(), Unknown> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Unknown> {
        // Always with a point or an exponent, and exact.
        let _ = write!(self.0, "{value:?}");
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Unknown> {
        quoted(self.0, value.encode_utf8(&mut [0; 4]), '\'');
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<(), Unknown> {
        quoted(self.0, value, '"');
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Unknown> {
        self.0.push('x');
        for byte in value {
            let _ = write!(self.0, "{byte:02x}");
        }
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Unknown> {
        self.0.push_str("none");
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unknown> {
        self.0.push_str("some(");
        value.serialize(Text(self.0))?;
        self.0.push(')');
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Unknown> {
        self.0.push_str("unit");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unknown> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Unknown> {
        self.0.push('.');
        quoted(self.0, variant, '"');
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unknown> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unknown> {
        let mut parts = Parts::of_variant(self.0, variant, '(', ')');
        parts.add(None, value)?;
        parts.close()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'t>, Unknown> {
        Ok(Parts::new(self.0, '[', ']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'t>, Unknown> {
        Ok(Parts::new(self.0, '(', ')'))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'t>, Unknown> {
        Ok(Parts::new(self.0, '(', ')'))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'t>, Unknown> {
        Ok(Parts::of_variant(self.0, variant, '(', ')'))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries<'t>, Unknown> {
        let out = self.0;
        let entries = Vec::new();
        Ok(Entries { out, entries })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'t>, Unknown> {
        Ok(Parts::new(self.0, '{', '}'))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'t>, Unknown> {
        Ok(Parts::of_variant(self.0, variant, '{', '}'))
    }
}

/// The elements or fields of something, in their order.
struct Parts<'t> {
    out: &'t mut String,
    close: char,
}

impl<'t> Parts<'t> {
    fn new(out: &'t mut String, open: char, close: char) -> Self {
        out.push(open);
        Self { out, close }
    }

    fn of_variant(out: &'t mut String, variant: &str, open: char, close: char) -> Self {
        out.push('.');
        quoted(out, variant, '"');
        Self::new(out, open, close)
    }

    fn add<T: Serialize + ?Sized>(&mut self, name: Option<&str>, value: &T) -> Result<(), Unknown> {
        if let Some(name) = name {
            quoted(self.out, name, '"');
            self.out.push(':');
        }
        value.serialize(Text(self.out))?;
        self.out.push(',');
        Ok(())
    }

    fn close(self) -> Result<(), Unknown> {
        self.out.push(self.close);
        Ok(())
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident),*) => { $(
        impl ser::$trait for Parts<'_> {
            type Ok = ();
            type Error = Unknown;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unknown> {
                self.add(None, value)
            }

            fn end(self) -> Result<(), Unknown> {
                self.close()
            }
        }
    )* };
}

macro_rules! fields {
    ($($trait:ident),*) => { $(
        impl ser::$trait for Parts<'_> {
            type Ok = ();
            type Error = Unknown;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Unknown> {
                self.add(Some(name), value)
            }

            fn end(self) -> Result<(), Unknown> {
                self.close()
            }
        }
    )* };
}

elements!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);
fields!(SerializeStruct, SerializeStructVariant);

/// The entries of a map, in an order of ours: that of a `HashMap` is another each time.
struct Entries<'t> {
    out: &'t mut String,
    entries: Vec<String>,
}

impl ser::SerializeMap for Entries<'_> {
    type Ok = ();
    type Error = Unknown;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unknown> {
        let mut entry = String::new();
        key.serialize(Text(&mut entry))?;
        entry.push(':');
        self.entries.push(entry);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unknown> {
        let Some(entry) = self.entries.last_mut() else {
            return Err(ser::Error::custom("a value without a key"));
        };
        value.serialize(Text(entry))?;
        entry.push(',');
        Ok(())
    }

    fn end(mut self) -> Result<(), Unknown> {
        self.entries.sort();
        self.out.push('{');
        self.entries
            .iter()
            .for_each(|entry| self.out.push_str(entry));
        self.out.push('}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use serde::Serialize;

    use super::Call;

    fn text<T: Serialize + ?Sized>(value: &T) -> String {
        let call = Call::new().argument(value);
        call.as_str().unwrap().to_owned()
    }

    #[derive(Serialize)]
    enum Shape {
        Point,
        Circle(f32),
        Line(u8, u8),
        Box { height: Option<u8>, label: char },
    }

    #[derive(Serialize)]
    struct Meters(f64);

    #[derive(Serialize)]
    #[serde(untagged)]
    enum Any {
        Number(u8),
        Text(&'static str),
        Nothing,
    }

    #[test]
    fn values_are_written_readably() {
        assert_eq!(text(&-7_i128), "-7");
        assert_eq!(text("a \"b\" \\"), r#""a \"b\" \\""#);
        assert_eq!(text(&(1, 'x', true, ())), "(1,'x',true,unit,)");
        assert_eq!(text(&Meters(0.1)), "0.1");
        assert_eq!(text(&Shape::Point), r#"."Point""#);
        assert_eq!(text(&Shape::Circle(2.0)), r#"."Circle"(2.0,)"#);
        assert_eq!(text(&Shape::Line(1, 2)), r#"."Line"(1,2,)"#);
        let (height, label) = (Some(1), '\'');
        let shape = text(&Shape::Box { height, label });
        assert_eq!(shape, r#"."Box"{"height":some(1),"label":'\'',}"#);
        let call = Call::new().argument("a").argument(&1);
        assert_eq!(call.as_str(), Ok(r#""a",1"#));
    }

    #[test]
    fn what_serde_tells_apart_is_told_apart() {
        let different = [
            text(&None::<Option<()>>),
            text(&Some(None::<()>)),
            text(&Some(Some(()))),
            text(&()),
            text(&f64::NAN),
            text(&0.0),
            text(&-0.0),
            text(&0),
            text(&Any::Number(1)),
            text(&Any::Text("1")),
            text(&Any::Text("none")),
            text(&["a", ""]),
            text(&["", "a"]),
            text(&["a,"]),
            text(&["a\",\""]),
            text(&[""; 0]),
            text(&[""]),
            text(&serde_json::json!({"a": null})),
            text(&serde_json::json!({"a": "null"})),
            text(&serde_json::json!({"a": {}})),
            text(&serde_json::json!({"a": []})),
        ];
        for (place, one) in different.iter().enumerate() {
            assert!(!different[..place].contains(one), "{one}");
        }
        assert_eq!(text(&Any::Nothing), text(&()));
    }

    #[test]
    fn a_map_has_one_text_whatever_its_order() {
        let sorted: BTreeMap<u8, u8> = (0..50).map(|n| (n, n)).collect();
        for _ in 0..5 {
            let hashed: HashMap<u8, u8> = (0..50).rev().map(|n| (n, n)).collect();
            assert_eq!(text(&hashed), text(&sorted));
        }
    }

    #[test]
    fn what_serde_cannot_write_is_told() {
        struct Broken;
        impl Serialize for Broken {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("broken"))
            }
        }
        let call = Call::new().argument(&1).argument(&Broken).argument(&2);
        assert_eq!(call.as_str(), Err("broken"));
    }
}
