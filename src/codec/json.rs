//! JSON as a binary tree: its text changes some floats on the way there and back.

use sea_orm::sea_query::value::prelude::{Json, serde_json};
use serde_json::{Map, Number};

use super::{CodecError, RESERVED, Reader, put_bytes, put_signed, put_varint};

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const UNSIGNED: u8 = 3;
const SIGNED: u8 = 4;
const FLOAT: u8 = 5;
/// A number that only its text holds, as under serde_json's `arbitrary_precision`.
const DIGITS: u8 = 6;
const STRING: u8 = 7;
const ARRAY: u8 = 8;
const OBJECT: u8 = 9;

/// Appends a tree that is at most `depth` deep.
pub fn put(out: &mut Vec<u8>, json: &Json, depth: usize) -> Result<(), CodecError> {
    match json {
        Json::Null => out.push(NULL),
        Json::Bool(false) => out.push(FALSE),
        Json::Bool(true) => out.push(TRUE),
        Json::Number(number) => put_number(out, number),
        Json::String(text) => {
            out.push(STRING);
            put_bytes(out, text.as_bytes());
        }
        Json::Array(items) => {
            let depth = deeper(depth, CodecError::Unsupported)?;
            out.push(ARRAY);
            put_varint(out, items.len() as u64);
            items.iter().try_for_each(|item| put(out, item, depth))?;
        }
        Json::Object(members) => {
            let depth = deeper(depth, CodecError::Unsupported)?;
            out.push(OBJECT);
            put_varint(out, members.len() as u64);
            for (name, member) in members {
                put_bytes(out, name.as_bytes());
                put(out, member, depth)?;
            }
        }
    }
    Ok(())
}

fn put_number(out: &mut Vec<u8>, number: &Number) {
    // Each is compared: with `arbitrary_precision` a number may say more than what it converts to.
    let unsigned = number.as_u64().filter(|n| Number::from(*n) == *number);
    let signed = number.as_i64().filter(|n| Number::from(*n) == *number);
    let same = |x: &f64| Number::from_f64(*x).as_ref() == Some(number);
    if let Some(n) = unsigned {
        out.push(UNSIGNED);
        put_varint(out, n);
    } else if let Some(n) = signed {
        out.push(SIGNED);
        put_signed(out, n);
    } else if let Some(x) = number.as_f64().filter(same) {
        out.push(FLOAT);
        out.extend_from_slice(&x.to_le_bytes());
    } else {
        out.push(DIGITS);
        put_bytes(out, number.to_string().as_bytes());
    }
}

/// Takes a tree that is at most `depth` deep.
pub fn take(reader: &mut Reader<'_>, depth: usize) -> Result<Json, CodecError> {
    Ok(match reader.byte()? {
        NULL => Json::Null,
        FALSE => Json::Bool(false),
        TRUE => Json::Bool(true),
        UNSIGNED => Json::Number(reader.varint()?.into()),
        SIGNED => Json::Number(reader.signed()?.into()),
        FLOAT => Json::Number(take_float(reader)?),
        DIGITS => Json::Number(take_digits(reader)?),
        STRING => Json::String(reader.text()?.to_owned()),
        ARRAY => take_items(reader, deeper(depth, CodecError::Corrupt)?)?,
        OBJECT => take_members(reader, deeper(depth, CodecError::Corrupt)?)?,
        _ => return Err(CodecError::Corrupt("an unknown kind of JSON")),
    })
}

fn take_float(reader: &mut Reader<'_>) -> Result<Number, CodecError> {
    let x = f64::from_le_bytes(reader.array()?);
    Number::from_f64(x).ok_or(CodecError::Corrupt("a number in JSON is not finite"))
}

fn take_digits(reader: &mut Reader<'_>) -> Result<Number, CodecError> {
    let number = reader.text()?.parse();
    number.map_err(|_| CodecError::Corrupt("a number in JSON is none"))
}

fn take_items(reader: &mut Reader<'_>, depth: usize) -> Result<Json, CodecError> {
    let count = reader.count()?;
    let mut items = Vec::with_capacity(count.min(RESERVED));
    for _ in 0..count {
        items.push(take(reader, depth)?);
    }
    Ok(Json::Array(items))
}

fn take_members(reader: &mut Reader<'_>, depth: usize) -> Result<Json, CodecError> {
    let mut members = Map::new();
    for _ in 0..reader.count()? {
        let name = reader.text()?.to_owned();
        members.insert(name, take(reader, depth)?);
    }
    Ok(Json::Object(members))
}

fn deeper(depth: usize, error: fn(&'static str) -> CodecError) -> Result<usize, CodecError> {
    depth.checked_sub(1).ok_or(error("JSON nested too deep"))
}

/// What a member of an object takes beside what its name and its value own: the two, and their part
/// of a node that is two thirds full.
const MEMBER: usize = (size_of::<String>() + size_of::<Json>()) * 3 / 2;

/// About how many bytes a tree owns on the heap.
pub fn heap_size(json: &Json) -> usize {
    match json {
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
        Json::String(text) => text.capacity(),
        Json::Array(items) => {
            let inner: usize = items.iter().map(heap_size).sum();
            items.capacity() * size_of::<Json>() + inner
        }
        Json::Object(members) => members
            .iter()
            .map(|(name, member)| MEMBER + name.capacity() + heap_size(member))
            .sum(),
    }
}
