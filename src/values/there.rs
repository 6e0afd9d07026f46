//! What stands under a key, known for certain: for those who put something in its place.
//!
//! A look-up takes a store that does not answer for one that has nothing. Who counts on from what is there, or stores
//! only if nothing is, would then lose it.

use std::time::Duration;

use bytes::Bytes;

use super::Namespace;
use super::write::Terms;
use crate::codec::{CodecError, Reader};
use crate::envelope::{Envelope, Noted, place_id};
use crate::error::CacheError;
use crate::fill::{Payload, note, note_ops};
use crate::key::Key;
use crate::store::{Op, Reply, StoreError};

/// What stands under a key, whether it is stale or not.
pub(super) struct There {
    pub(super) seal: u64,
    pub(super) bytes: Bytes,
    /// How long its ttl is still.
    pub(super) life: Option<Duration>,
    /// How long it is kept after that.
    pub(super) grace: Duration,
    /// Whether it answers who asks for it.
    answers: bool,
}

impl There {
    /// Whether there is a value that answers who asks for it.
    pub(super) fn is_present(&self) -> bool {
        self.answers && Envelope::open(&self.bytes).is_ok_and(|envelope| envelope.present)
    }
}

impl Namespace {
    /// What stands under a key, and whether what it depends on still stands, which is asked after it was read.
    ///
    /// # Errors
    /// If the store does not answer, or has yet to be told of something.
    pub(super) async fn there(&self, key: &Key) -> Result<Option<There>, CacheError> {
        match self.stands(key).await? {
            None => Ok(None),
            there => Ok(self.judged(key, there, &[], Vec::new()).await?.0),
        }
    }

    /// The same, and what is noted of these terms: what is put by that is as old as what was read. Whatever made the
    /// one stale has changed the other.
    ///
    /// # Errors
    /// As those of [`there`](Self::there).
    pub(super) async fn there_and_noted(
        &self,
        key: &Key,
        terms: &Terms,
    ) -> Result<(Option<There>, Noted), CacheError> {
        let there = self.stands(key).await?;
        let needs = terms.needs();
        self.judged(key, there, needs, note_ops(needs, &terms.policy))
            .await
    }

    /// Judges it by the generations of `needs`, which `batch` asks for, and of what else it depends on.
    async fn judged(
        &self,
        key: &Key,
        mut there: Option<There>,
        needs: &[Key],
        mut batch: Vec<Op>,
    ) -> Result<(Option<There>, Noted), CacheError> {
        let bytes = there.as_ref().map(|there| there.bytes.clone());
        // What is none of ours does not answer, and is replaced.
        let envelope = bytes
            .as_deref()
            .and_then(|bytes| Envelope::open(bytes).ok());
        let own = envelope.as_ref().and_then(|envelope| envelope.own().ok());
        let own = own.unwrap_or_default();
        if self.cache.bypasses([key].into_iter().chain(&own)) {
            let reason = "the cache has yet to be told what became of it".to_owned();
            let key = key.to_string();
            return Err(CacheError::Value { key, reason });
        }
        let others = own.iter().filter(|key| !needs.contains(key));
        let others: Vec<&Key> = others.collect();
        batch.extend(others.iter().map(|&key| Op::Peek { key: key.clone() }));
        let replies = self.cache.run(Some(&self.name), batch).await?;
        let noted = note(replies.root, &replies.items);
        if let (Some(there), Some(envelope)) = (&mut there, envelope) {
            let asked: Vec<&Key> = needs.iter().chain(others).collect();
            let generation = |key: &Key| {
                let at = asked.iter().position(|asked| *asked == key)?;
                noted.generations[at]
            };
            let stood = Noted {
                root: noted.root,
                generations: own.iter().map(generation).collect(),
            };
            let over = there.life.is_none_or(|life| life.is_zero());
            there.answers = self.generations().all(|key| own.contains(&key))
                && envelope.is_valid(&stood, place_id(0, key), own.len(), &[])
                && !(envelope.aging.is_some() && over);
        }
        let mut noted = noted;
        noted.generations.truncate(needs.len());
        Ok((there, noted))
    }

    /// Decodes it. `None` where it does not answer as a value of this type.
    pub(super) fn read<P: Payload>(&self, there: &There) -> Option<P> {
        let envelope = Envelope::open(&there.bytes).ok();
        let envelope = envelope.filter(|_| there.answers)?;
        let packing = self.cache.settings().packing();
        let payload = envelope.payload(packing).ok()??;
        let mut reader = Reader::new(&payload);
        let value: Result<P, CodecError> = P::decode(envelope.present, &mut reader);
        value.ok().filter(|_| reader.is_empty())
    }

    async fn stands(&self, key: &Key) -> Result<Option<There>, CacheError> {
        let batch = vec![
            Op::Read {
                key: key.clone(),
                field: self.field(),
            },
            Op::Life { key: key.clone() },
        ];
        let replies = self.cache.run(Some(&self.name), batch).await?;
        match &replies.items[..] {
            [Reply::Value(None), Reply::Life(_)] => Ok(None),
            [Reply::Value(Some(bytes)), Reply::Life(life)] => {
                let seal = bytes.first_chunk().copied().map(u64::from_be_bytes);
                let envelope = Envelope::open(bytes).ok();
                let aging = envelope.and_then(|envelope| envelope.aging);
                let grace = aging.map_or(Duration::ZERO, |aging| aging.grace);
                Ok(seal.map(|seal| There {
                    seal,
                    bytes: bytes.clone(),
                    life: life.map(|life| life.saturating_sub(grace)),
                    grace,
                    answers: false,
                }))
            }
            // A foreign type, which a put replaces.
            [Reply::Failed(_), _] => Ok(None),
            other => Err(unexpected(other)),
        }
    }
}

pub(super) fn unexpected(replies: &[Reply]) -> CacheError {
    CacheError::Store(StoreError::Protocol(format!("{replies:?} to a value")))
}
