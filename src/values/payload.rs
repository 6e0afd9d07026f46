//! Values of serde as payloads.

use std::any::type_name;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::policy::Codec;
use crate::codec::{CodecError, Reader, stable_hash128};
use crate::fill::Payload;
use crate::tier::{self, Held};

/// What can be a value: anything that serde writes and reads.
pub trait Cacheable: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Cacheable for T {}

/// A value that was loaded, and whether and how long it is to be stored: for loads that find out.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use sea_orm_cache::{Cache, Loaded, Policy};
///
/// # struct Answer { token: String, expires_in: u64 }
/// # async fn log_in() -> Result<Answer, std::io::Error> { Ok(Answer { token: "t".into(), expires_in: 60 }) }
/// let tokens = Cache::in_memory().namespace("tokens");
/// let load = async {
///     let answer = log_in().await?;
///     let life = Duration::from_secs(answer.expires_in);
///     Ok::<_, std::io::Error>(Loaded::new(answer.token).ttl(life))
/// };
/// let token: String = tokens.get_or_load("billing", &Policy::new(), load).await?;
/// # assert_eq!(token, "t");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Loaded<T> {
    pub(super) value: T,
    pub(super) keep: Keep,
    pub(super) ages: bool,
}

impl<T> Loaded<T> {
    /// Stored as the policy says.
    pub fn new(value: T) -> Self {
        Self {
            value,
            keep: Keep::AsPolicy,
            ages: true,
        }
    }

    /// Is not answered past its time, whatever the policy says.
    #[cfg(feature = "http")]
    pub(crate) fn unaged(mut self) -> Self {
        self.ages = false;
        self
    }

    /// Lives for this long instead of the policy's time, and exactly as long. Zero: is not stored.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.keep = Keep::For(ttl);
        self
    }
}

/// How long a value is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keep {
    AsPolicy,
    For(Duration),
}

/// A value, or that there is none.
pub(super) struct Valued<T> {
    value: Option<Arc<T>>,
    codec: Codec,
    keep: Keep,
    ages: bool,
}

impl<T> Clone for Valued<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            codec: self.codec,
            keep: self.keep,
            ages: self.ages,
        }
    }
}

impl<T: Cacheable> Valued<T> {
    pub(super) fn of(value: Option<T>, codec: Codec) -> Self {
        let value = value.map(Arc::new);
        Self {
            value,
            codec,
            keep: Keep::AsPolicy,
            ages: true,
        }
    }

    pub(super) fn loaded(loaded: Loaded<T>, codec: Codec) -> Self {
        let Loaded { keep, ages, .. } = loaded;
        Self {
            keep,
            ages,
            ..Self::of(Some(loaded.value), codec)
        }
    }

    pub(super) fn into_value(self) -> Option<T> {
        self.value.map(Arc::unwrap_or_clone)
    }
}

/// MessagePack does not say of which type a value is, and may read one as another: the type's name stands
/// before it, hashed.
fn type_id<T>() -> [u8; 8] {
    (stable_hash128(type_name::<T>().as_bytes()) as u64).to_be_bytes()
}

const MESSAGE_PACK: u8 = 0;
const JSON: u8 = 1;

impl<T: Cacheable> Payload for Valued<T> {
    fn is_present(&self) -> bool {
        self.value.is_some()
    }

    fn is_storable(&self) -> bool {
        !matches!(self.keep, Keep::For(Duration::ZERO))
    }

    fn ttl(&self) -> Option<Duration> {
        match self.keep {
            Keep::AsPolicy => None,
            Keep::For(ttl) => Some(ttl),
        }
    }

    fn ages(&self) -> bool {
        self.ages
    }

    /// Nobody knows; what is decoded often takes about twice the room.
    fn size(&self, encoded: usize) -> usize {
        size_of::<T>() + 2 * encoded
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let Some(value) = &self.value else {
            return Ok(());
        };
        match self.codec {
            Codec::MessagePack => {
                out.push(MESSAGE_PACK);
                out.extend_from_slice(&type_id::<T>());
                let written = rmp_serde::encode::write_named(out, &**value);
                written.map_err(|error| CodecError::Serde(error.to_string()))
            }
            Codec::Json => {
                out.push(JSON);
                let written = serde_json::to_writer(out, &**value);
                written.map_err(|error| CodecError::Serde(error.to_string()))
            }
        }
    }

    fn decode(present: bool, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        if !present {
            return Ok(Self::of(None, Codec::default()));
        }
        let (value, codec) = match *reader.take(1)? {
            [MESSAGE_PACK] => {
                if reader.take(8)? != type_id::<T>() {
                    return Err(CodecError::Foreign);
                }
                (
                    rmp_serde::from_slice(reader.take_rest()).ok(),
                    Codec::MessagePack,
                )
            }
            [JSON] => (serde_json::from_slice(reader.take_rest()).ok(), Codec::Json),
            _ => return Err(CodecError::Corrupt("a value's codec")),
        };
        // A type that was changed since, most often.
        Ok(Self::of(Some(value.ok_or(CodecError::Foreign)?), codec))
    }
}

/// A value that is there. That there is none is a value of another kind.
#[derive(Clone)]
pub(super) struct Sure<T>(pub(super) T);

impl<T: Cacheable> Payload for Sure<Valued<T>> {
    fn is_present(&self) -> bool {
        true
    }

    fn is_storable(&self) -> bool {
        self.0.is_storable()
    }

    fn ttl(&self) -> Option<Duration> {
        self.0.ttl()
    }

    fn ages(&self) -> bool {
        self.0.ages()
    }

    fn size(&self, encoded: usize) -> usize {
        self.0.size(encoded)
    }

    /// As who may find nothing holds it, and so for both.
    fn hold(&self) -> tier::Value {
        self.0.hold()
    }

    fn held(held: &Held) -> Option<Self> {
        let value = Valued::held(held)?;
        value.is_present().then_some(Self(value))
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.0.encode(out)
    }

    fn decode(present: bool, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        match present {
            true => Valued::decode(present, reader).map(Self),
            false => Err(CodecError::Foreign),
        }
    }
}
