//! Dates and times as integers: days, seconds of the day, nanoseconds.

use sea_orm::sea_query::value::prelude::{chrono, time};

use chrono::{DateTime, FixedOffset, Local, NaiveDate, NaiveDateTime, NaiveTime, Timelike, Utc};
use chrono::{Datelike, TimeZone};
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use super::{CodecError, Reader, put_signed, put_varint};

const NO_DATE: CodecError = CodecError::Corrupt("no such date");
const NO_TIME: CodecError = CodecError::Corrupt("no such time");
const NO_OFFSET: CodecError = CodecError::Corrupt("no such offset");

#[inline]
pub fn put_date(out: &mut Vec<u8>, date: NaiveDate) {
    put_signed(out, date.num_days_from_ce().into());
}

#[inline]
pub fn put_time(out: &mut Vec<u8>, time: NaiveTime) {
    put_varint(out, time.num_seconds_from_midnight().into());
    put_varint(out, time.nanosecond().into());
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
    put_signed(out, date.to_julian_day().into());
}

#[inline]
pub fn put_time_time(out: &mut Vec<u8>, time: Time) {
    let (hour, minute, second, nanosecond) = time.as_hms_nano();
    let minutes = u64::from(hour) * 60 + u64::from(minute);
    put_varint(out, minutes * 60 + u64::from(second));
    put_varint(out, nanosecond.into());
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

#[inline]
pub fn take_date(reader: &mut Reader<'_>) -> Result<NaiveDate, CodecError> {
    NaiveDate::from_num_days_from_ce_opt(reader.int()?).ok_or(NO_DATE)
}

#[inline]
pub fn take_time(reader: &mut Reader<'_>) -> Result<NaiveTime, CodecError> {
    let time = NaiveTime::from_num_seconds_from_midnight_opt(reader.uint()?, 0).ok_or(NO_TIME)?;
    // Not in one step: that allows a leap second only at the end of a minute.
    time.with_nanosecond(reader.uint()?).ok_or(NO_TIME)
}

#[inline]
pub fn take_date_time(reader: &mut Reader<'_>) -> Result<NaiveDateTime, CodecError> {
    Ok(take_date(reader)?.and_time(take_time(reader)?))
}

#[inline]
pub fn take_utc(reader: &mut Reader<'_>) -> Result<DateTime<Utc>, CodecError> {
    Ok(take_date_time(reader)?.and_utc())
}

#[inline]
pub fn take_local(reader: &mut Reader<'_>) -> Result<DateTime<Local>, CodecError> {
    Ok(Local.from_utc_datetime(&take_date_time(reader)?))
}

#[inline]
pub fn take_zoned(reader: &mut Reader<'_>) -> Result<DateTime<FixedOffset>, CodecError> {
    let utc = take_date_time(reader)?;
    let offset = FixedOffset::east_opt(reader.int()?).ok_or(NO_OFFSET)?;
    Ok(offset.from_utc_datetime(&utc))
}

#[inline]
pub fn take_time_date(reader: &mut Reader<'_>) -> Result<Date, CodecError> {
    Date::from_julian_day(reader.int()?).map_err(|_| NO_DATE)
}

#[inline]
pub fn take_time_time(reader: &mut Reader<'_>) -> Result<Time, CodecError> {
    let seconds: u32 = reader.uint()?;
    let hour = u8::try_from(seconds / 3600).map_err(|_| NO_TIME)?;
    let (minute, second) = ((seconds / 60 % 60) as u8, (seconds % 60) as u8);
    Time::from_hms_nano(hour, minute, second, reader.uint()?).map_err(|_| NO_TIME)
}

#[inline]
pub fn take_time_date_time(reader: &mut Reader<'_>) -> Result<PrimitiveDateTime, CodecError> {
    let date = take_time_date(reader)?;
    Ok(PrimitiveDateTime::new(date, take_time_time(reader)?))
}

#[inline]
pub fn take_time_zoned(reader: &mut Reader<'_>) -> Result<OffsetDateTime, CodecError> {
    let local = take_time_date_time(reader)?;
    let offset = UtcOffset::from_whole_seconds(reader.int()?).map_err(|_| NO_OFFSET)?;
    Ok(local.assume_offset(offset))
}
