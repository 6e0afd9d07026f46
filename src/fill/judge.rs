//! Whether a cached value answers a request.

use bytes::Bytes;

use super::{Fetch, Fetched, Payload, Stale, State};
use crate::codec::Reader;
use crate::envelope::{Envelope, Noted, place_id};
use crate::observe::Event;
use crate::store::Reply;

impl<P: Payload> Fetch<'_, P> {
    pub(super) fn judge_reply(
        &self,
        position: usize,
        item: Reply,
        noted: &Noted,
        foreign_root: &mut bool,
    ) -> State<P> {
        match item {
            Reply::Value(None) => State::Missed(Stale::Nothing),
            Reply::Value(Some(bytes)) => self.judge(position, &bytes, noted, foreign_root),
            Reply::Failed(reason) => self.corrupt(position, &reason),
            other => self.corrupt(position, &format!("{other:?}")),
        }
    }

    /// Whether a cached value answers the request.
    pub(super) fn judge(
        &self,
        position: usize,
        bytes: &Bytes,
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
        let needs = self.needs(envelope.present);
        let id = place_id(self.shape.dependencies.id, &request.key);
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
            Ok(value) if reader.is_empty() => State::Done(Fetched {
                value,
                seal: Some(envelope.seal),
            }),
            Ok(_) => self.corrupt(position, "more bytes than the value has"),
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

    /// How many of the dependencies a value needs.
    pub(super) fn needs(&self, present: bool) -> usize {
        if present {
            self.shape.present_needs
        } else {
            self.shape.dependencies.keys.len()
        }
    }
}
