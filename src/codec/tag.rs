//! One number per variant of SeaORM's `Value`, whatever features are on; a head has room for 32. They are in
//! stores: changing one means another [`super::VERSION`].

pub const BOOL: u8 = 0;
pub const TINY_INT: u8 = 1;
pub const SMALL_INT: u8 = 2;
pub const INT: u8 = 3;
pub const BIG_INT: u8 = 4;
pub const TINY_UNSIGNED: u8 = 5;
pub const SMALL_UNSIGNED: u8 = 6;
pub const UNSIGNED: u8 = 7;
pub const BIG_UNSIGNED: u8 = 8;
pub const FLOAT: u8 = 9;
pub const DOUBLE: u8 = 10;
pub const STRING: u8 = 11;
pub const ENUM: u8 = 12;
pub const CHAR: u8 = 13;
pub const BYTES: u8 = 14;
pub const JSON: u8 = 15;
pub const CHRONO_DATE: u8 = 16;
pub const CHRONO_TIME: u8 = 17;
pub const CHRONO_DATE_TIME: u8 = 18;
pub const CHRONO_DATE_TIME_UTC: u8 = 19;
pub const CHRONO_DATE_TIME_LOCAL: u8 = 20;
pub const CHRONO_DATE_TIME_WITH_TIME_ZONE: u8 = 21;
pub const TIME_DATE: u8 = 22;
pub const TIME_TIME: u8 = 23;
pub const TIME_DATE_TIME: u8 = 24;
pub const TIME_DATE_TIME_WITH_TIME_ZONE: u8 = 25;
pub const UUID: u8 = 26;
pub const DECIMAL: u8 = 27;
#[cfg(feature = "with-bigdecimal")]
pub const BIG_DECIMAL: u8 = 28;
pub const ARRAY: u8 = 29;
#[cfg(feature = "with-ipnetwork")]
pub const IP_NETWORK: u8 = 30;
#[cfg(feature = "with-mac_address")]
pub const MAC_ADDRESS: u8 = 31;
