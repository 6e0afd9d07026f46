//! Dates as the year and the day of it, times as the seconds or the hour, minute and second of the day and
//! the nanoseconds: what the libraries hold, so that nothing is divided. Both are of fixed width.

use sea_orm::sea_query::value::prelude::{chrono, time};

use chrono::{DateTime, FixedOffset, Local, NaiveDate, NaiveDateTime, NaiveTime, Timelike, Utc};
use chrono::{Datelike, TimeZone};
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use super::{CodecError, Reader, put_signed};

const NO_DATE: CodecError = CodecError::Corrupt("no such date");
const NO_TIME: CodecError = CodecError::Corrupt("no such time");
const NO_OFFSET: CodecError = CodecError::Corrupt("no such offset");

/// The bits of a day of the year.
const ORDINAL: u32 = 9;
/// The bits of a nanosecond, which is of two seconds in a leap second.
const NANO: u32 = 31;

#[inline]
fn put_day(out: &mut Vec<u8>, year: i32, ordinal: u16) {
    out.extend_from_slice(&(year << ORDINAL | i32::from(ordinal)).to_le_bytes());
}

#[inline(always)]
fn take_day(reader: &mut Reader<'_>) -> Result<(i32, u16), CodecError> {
    let day = i32::from_le_bytes(reader.array()?);
    Ok((day >> ORDINAL, (day & ((1 << ORDINAL) - 1)) as u16))
}

/// Appends up to 17 bits and a nanosecond, in six bytes.
#[inline]
fn put_instant(out: &mut Vec<u8>, second: u32, nanosecond: u32) {
    let [a, b, c, d, e, f, ..] = (u64::from(second) << NANO | u64::from(nanosecond)).to_le_bytes();
    out.extend_from_slice(&[a, b, c, d, e, f]);
}

#[inline(always)]
fn take_instant(reader: &mut Reader<'_>) -> Result<(u32, u32), CodecError> {
    let [a, b, c, d, e, f] = reader.array()?;
    let time = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    Ok(((time >> NANO) as u32, (time & ((1 << NANO) - 1)) as u32))
}

#[inline]
pub fn put_date(out: &mut Vec<u8>, date: NaiveDate) {
    put_day(out, date.year(), date.ordinal() as u16);
}

#[inline]
pub fn put_time(out: &mut Vec<u8>, time: NaiveTime) {
    put_instant(out, time.num_seconds_from_midnight(), time.nanosecond());
}

#[inline]
pub fn put_date_time(out: &mut Vec<u8>, date_time: NaiveDateTime) {
    put_date(out, date_time.date());
    put_time(out, date_time.time());
}

#[inline]
pub fn put_zoned(out: &mut Vec<u8>, date_time: DateTime<FixedOffset>) {
    put_date_time(out, date_time.naive_utc());
    put_signed(out, date_time.offset().local_minus_utc().into());
}

#[inline]
pub fn put_time_date(out: &mut Vec<u8>, date: Date) {
    put_day(out, date.year(), date.ordinal());
}

#[inline]
pub fn put_time_time(out: &mut Vec<u8>, time: Time) {
    let (hour, minute, second, nanosecond) = time.as_hms_nano();
    let second = u32::from(hour) << 12 | u32::from(minute) << 6 | u32::from(second);
    put_instant(out, second, nanosecond);
}

#[inline]
pub fn put_time_date_time(out: &mut Vec<u8>, date_time: PrimitiveDateTime) {
    put_time_date(out, date_time.date());
    put_time_time(out, date_time.time());
}

#[inline]
pub fn put_time_zoned(out: &mut Vec<u8>, date_time: OffsetDateTime) {
    put_time_date_time(
        out,
        PrimitiveDateTime::new(date_time.date(), date_time.time()),
    );
    put_signed(out, date_time.offset().whole_seconds().into());
}

#[inline(always)]
pub fn take_date(reader: &mut Reader<'_>) -> Result<NaiveDate, CodecError> {
    let (year, ordinal) = take_day(reader)?;
    NaiveDate::from_yo_opt(year, ordinal.into()).ok_or(NO_DATE)
}

#[inline(always)]
pub fn take_time(reader: &mut Reader<'_>) -> Result<NaiveTime, CodecError> {
    let (second, nanosecond) = take_instant(reader)?;
    let time = NaiveTime::from_num_seconds_from_midnight_opt(second, 0).ok_or(NO_TIME)?;
    // Not in one step: that allows a leap second only at the end of a minute.
    time.with_nanosecond(nanosecond).ok_or(NO_TIME)
}

#[inline(always)]
pub fn take_date_time(reader: &mut Reader<'_>) -> Result<NaiveDateTime, CodecError> {
    Ok(take_date(reader)?.and_time(take_time(reader)?))
}

#[inline(always)]
pub fn take_utc(reader: &mut Reader<'_>) -> Result<DateTime<Utc>, CodecError> {
    Ok(take_date_time(reader)?.and_utc())
}

#[inline(always)]
pub fn take_local(reader: &mut Reader<'_>) -> Result<DateTime<Local>, CodecError> {
    Ok(Local.from_utc_datetime(&take_date_time(reader)?))
}

#[inline(always)]
pub fn take_zoned(reader: &mut Reader<'_>) -> Result<DateTime<FixedOffset>, CodecError> {
    let utc = take_date_time(reader)?;
    let offset = FixedOffset::east_opt(reader.int()?).ok_or(NO_OFFSET)?;
    Ok(offset.from_utc_datetime(&utc))
}

#[inline(always)]
pub fn take_time_date(reader: &mut Reader<'_>) -> Result<Date, CodecError> {
    let (year, ordinal) = take_day(reader)?;
    Date::from_ordinal_date(year, ordinal).map_err(|_| NO_DATE)
}

#[inline(always)]
pub fn take_time_time(reader: &mut Reader<'_>) -> Result<Time, CodecError> {
    let (second, nanosecond) = take_instant(reader)?;
    let (hour, minute) = ((second >> 12) as u8, (second >> 6 & 63) as u8);
    Time::from_hms_nano(hour, minute, (second & 63) as u8, nanosecond).map_err(|_| NO_TIME)
}

#[inline(always)]
pub fn take_time_date_time(reader: &mut Reader<'_>) -> Result<PrimitiveDateTime, CodecError> {
    let date = take_time_date(reader)?;
    Ok(PrimitiveDateTime::new(date, take_time_time(reader)?))
}

#[inline(always)]
pub fn take_time_zoned(reader: &mut Reader<'_>) -> Result<OffsetDateTime, CodecError> {
    let local = take_time_date_time(reader)?;
    let offset = UtcOffset::from_whole_seconds(reader.int()?).map_err(|_| NO_OFFSET)?;
    Ok(local.assume_offset(offset))
}
