//! Whether a cached value answers a request.

use std::time::Duration;

use bytes::Bytes;

use super::{Fetch, Fetched, Payload, Stale, State};
use crate::codec::{CodecError, Reader};
use crate::envelope::{Envelope, Noted};
use crate::observe::Event;
use crate::store::Reply;

impl<P: Payload> Fetch<'_, P> {
    pub(super) fn judge_reply(
        &mut self,
        position: usize,
        item: Reply,
        life: Option<Duration>,
        noted: &Noted,
        foreign_root: &mut bool,
    ) -> State<P> {
        match item {
            Reply::Value(None) => State::Missed(Stale::Nothing),
            Reply::Value(Some(bytes)) => self.judge(position, &bytes, life, noted, foreign_root),
            Reply::Failed(reason) => self.corrupt(position, &reason),
            other => self.corrupt(position, &format!("{other:?}")),
        }
    }

    /// Whether a cached value answers the request; `life` is how long it will be there, if that was asked.
    pub(super) fn judge(
        &mut self,
        position: usize,
        bytes: &Bytes,
        life: Option<Duration>,
        noted: &Noted,
        foreign_root: &mut bool,
    ) -> State<P> {
        let request = &self.requests[position];
        let envelope = match Envelope::open(bytes) {
            Ok(envelope) => envelope,
            Err(error) => return self.corrupt(position, &error.to_string()),
        };
        let stale = State::Missed(Stale::Sealed(envelope.seal));
        if request.outdated == Some(envelope.seal) {
            return stale;
        }
        let needs = self.shape.needs(envelope.present);
        let dependencies = self.shape.dependencies;
        let id = self.shape.place_id(&request.key);
        if self.shape.own && !envelope.depends_on(&dependencies.keys[..needs]) {
            match envelope.own() {
                Ok(own) => self.elsewhere.push((position, own)),
                Err(error) => return self.corrupt(position, &error.to_string()),
            }
            return stale;
        }
        if !envelope.is_valid(noted, id, needs, &request.asked) {
            *foreign_root |= !envelope.has_root(noted.root);
            return stale;
        }
        let payload = match envelope.payload(self.cache.settings().packing()) {
            Ok(Some(payload)) => payload,
            // As good as outdated: another process may read it, so it is no corruption to tell of.
            Ok(None) => return stale,
            Err(error) => return self.corrupt(position, &error.to_string()),
        };
        let mut reader = Reader::new(&payload);
        match P::decode(envelope.present, &mut reader) {
            Ok(value) if reader.is_empty() => {
                let seal = Some(envelope.seal);
                let fetched = Fetched { value, seal, life };
                self.of_age(position, fetched, envelope.aging)
            }
            Ok(_) => self.corrupt(position, "more bytes than the value has"),
            Err(CodecError::Foreign) => stale,
            Err(error) => self.corrupt(position, &error.to_string()),
        }
    }

    fn corrupt(&self, position: usize, reason: &str) -> State<P> {
        let key = &self.requests[position].key;
        self.cache.emit(&Event::Corrupt {
            entity: self.shape.entity,
            key,
            reason,
        });
        State::Missed(Stale::Corrupt)
    }
}
