//! The first request: what the in-process tier does not answer, and what becomes of the answers.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use smallvec::smallvec;

use super::{Fetch, Fetched, Payload, Request, Shape, Spare, Stale, State};
use crate::envelope::Noted;
use crate::key::{Dependencies, Key};
use crate::observe::Event;
use crate::store::{Op, Reply, Token};
use crate::tier::{self, Fresh, Held, Tier};

impl<'a, P: Payload> Fetch<'a, P> {
    /// First request: what the in-process tier does not answer, values and generations.
    pub(super) async fn look_up(&mut self) {
        let open = self.ask().await;
        self.look_elsewhere().await;
        self.count_lookups(self.states.len() - open);
    }

    /// Asks for values that depend on something else than was thought, now that it is known.
    pub(super) async fn look_elsewhere(&mut self) {
        let declared = &self.shape.dependencies.keys[..self.shape.present_needs];
        let others = std::mem::take(&mut self.elsewhere).into_iter();
        let others: Vec<_> = others
            .filter(|(_, own)| declared.iter().all(|key| own.contains(key)))
            .map(|(position, own)| (position, Dependencies::new(own)))
            .collect();
        let asks = others.iter().map(|(position, dependencies)| {
            let (cache, request) = (self.cache, self.requests[*position].clone());
            let shape = Shape {
                dependencies,
                present_needs: dependencies.keys.len(),
                ..*self.shape
            };
            async move {
                let mut fetch = Fetch::<P>::new(cache, &shape, smallvec![request]);
                fetch.again = true;
                fetch.ask().await;
                (*position, fetch.states.pop(), fetch.spares.pop())
            }
        });
        for (position, state, spare) in join_all(asks).await {
            if let Some(spare) = spare {
                self.states[position] = self.keep_spare(Spare { position, ..spare });
            } else if let Some(state @ State::Done(_)) = state {
                self.states[position] = state;
            }
        }
    }

    /// Answers how many the in-process tier did not answer.
    pub(super) async fn ask(&mut self) -> usize {
        let keys = self.requests.iter().map(|request| &request.key);
        let generations = &self.shape.dependencies.keys;
        if self.cache.bypasses(keys.clone().chain(generations)) {
            self.states = self.requests.iter().map(|_| State::Direct).collect();
            return self.states.len();
        }
        let tier = self.tier();
        self.watch = tier.map(|tier| tier.watch(keys, generations));
        self.states = {
            let held = |request| held(tier, self.shape, request);
            self.requests.iter().map(held).collect()
        };
        let open = self.missed().count();
        if open > 0 {
            self.look_up_in_store(open).await;
        }
        open
    }

    pub(super) fn tier(&self) -> Option<&'a Tier> {
        self.cache.tier().filter(|_| self.shape.bounded)
    }

    /// Asks the store for all that is missed.
    async fn look_up_in_store(&mut self, open: usize) {
        let batch = self.look_up_ops(open);
        let Ok(replies) = self.cache.run(Some(self.shape.entity), batch).await else {
            return self.give_up_missed();
        };
        let (root, mut values) = (replies.root, replies.items);
        let lives = open * usize::from(self.asks_lives());
        let noted = self.note_peeked(root, &values[open + lives..]);
        let (mut nth, mut foreign_root) = (0, false);
        for position in 0..self.states.len() {
            if !matches!(self.states[position], State::Missed(_)) {
                continue;
            }
            let value = std::mem::replace(&mut values[nth], Reply::Done);
            let size = match &value {
                Reply::Value(Some(bytes)) => bytes.len(),
                _ => 0,
            };
            let life = match values.get(open + nth) {
                Some(Reply::Life(life)) => *life,
                _ => None,
            };
            let state = self.judge_reply(position, value, life, &noted, &mut foreign_root);
            self.states[position] = state;
            if let State::Done(Fetched {
                life: Some(life),
                seal,
                ..
            }) = &self.states[position]
            {
                self.hold(position, *seal, *life, size);
            }
            nth += 1;
        }
        if foreign_root {
            self.cache.refresh_root().await;
        }
    }

    /// Values, how long they will live where they may be held, and the generations that are not known.
    fn look_up_ops(&self, open: usize) -> Vec<Op> {
        let mut batch = Vec::with_capacity(2 * open + self.shape.dependencies.keys.len());
        let field = self.shape.field;
        for (position, _) in self.missed() {
            let key = self.requests[position].key.clone();
            batch.push(Op::Read { key, field });
        }
        if self.asks_lives() {
            for (position, _) in self.missed() {
                let key = self.requests[position].key.clone();
                batch.push(Op::Life { key });
            }
        }
        for (nth, key) in self.shape.dependencies.keys.iter().enumerate() {
            if self.known(nth).is_none() {
                batch.push(Op::Peek { key: key.clone() });
            }
        }
        batch
    }

    /// Whether it must be known how long values will live: where they are held, and where they may have aged.
    fn asks_lives(&self) -> bool {
        let Shape { own, policy, .. } = self.shape;
        self.watch.is_some() || self.again || *own || policy.minds_age()
    }

    fn known(&self, generation: usize) -> Option<Token> {
        self.watch.as_ref()?.known(generation)
    }

    /// The generations, those that are known and those that the store has answered.
    fn note_peeked(&self, root: Token, answers: &[Reply]) -> Noted {
        let mut answers = answers.iter();
        let generations = self.shape.dependencies.keys.iter().enumerate();
        let generations = generations.map(|(nth, key)| {
            self.known(nth).or_else(|| match answers.next() {
                Some(Reply::Generation(Some(token))) => {
                    if let Some(watch) = &self.watch {
                        watch.learn(nth, key, *token);
                    }
                    Some(*token)
                }
                _ => None,
            })
        });
        Noted {
            root,
            generations: generations.collect(),
        }
    }

    /// Offers an answer to the in-process tier.
    pub(super) fn hold(&self, position: usize, seal: Option<u64>, life: Duration, encoded: usize) {
        let (Some(watch), State::Done(fetched)) = (&self.watch, &self.states[position]) else {
            return;
        };
        let Request { asked, id, .. } = &self.requests[position];
        let present = fetched.value.is_present();
        let needs = self.shape.needs(present);
        let value = match self.shape.own {
            false => fetched.value.hold(),
            true => Arc::new(Listed {
                keys: self.shape.dependencies.keys[..needs].into(),
                value: fetched.value.hold(),
            }),
        };
        let fresh = Fresh {
            value,
            present,
            seal,
            life,
            size: fetched.value.size(encoded),
        };
        watch.hold(position, needs, id.clone(), asked, fresh);
    }

    fn count_lookups(&self, l1_hits: usize) {
        let mut absent_hits = 0;
        let mut hits = 0;
        for state in &self.states {
            if let State::Done(fetched) = state {
                hits += 1;
                absent_hits += u64::from(!fetched.value.is_present());
            }
        }
        self.cache.emit(&Event::Lookup {
            entity: self.shape.entity,
            hits,
            l1_hits: l1_hits as u64,
            absent_hits,
            misses: self.states.len() as u64 - hits,
        });
    }

    pub(super) fn missed(&self) -> impl Iterator<Item = (usize, Stale)> {
        let states = self.states.iter().enumerate();
        states.filter_map(|(position, state)| match state {
            State::Missed(stale) => Some((position, *stale)),
            _ => None,
        })
    }
}

/// As the tier holds a value that says itself what it depends on.
struct Listed {
    keys: Box<[Key]>,
    value: tier::Value,
}

/// What the tier answers.
fn held<P: Payload>(tier: Option<&Tier>, shape: &Shape<'_>, request: &Request) -> State<P> {
    let held = tier.and_then(|tier| tier.value(&request.id, &request.asked));
    let held = held.and_then(|held| listed(held, shape));
    let fetched = held.and_then(|held| {
        let seal = held.seal.map(NonZeroU64::get);
        let value = P::held(&held)?;
        let life = None;
        Some(Fetched { value, seal, life })
    });
    let outdated =
        |fetched: &Fetched<P>| request.outdated.is_some() && fetched.seal == request.outdated;
    match fetched.filter(|fetched| !outdated(fetched)) {
        Some(fetched) => State::Done(fetched),
        None => State::Missed(Stale::Nothing),
    }
}

/// The same without its list, if that has what it must depend on here.
fn listed(held: Held, shape: &Shape<'_>) -> Option<Held> {
    if !shape.own {
        return Some(held);
    }
    let Listed { keys, value } = held.value.downcast_ref()?;
    let declared = &shape.dependencies.keys[..shape.present_needs];
    let covers = declared.iter().all(|key| keys.contains(key));
    let value = value.clone();
    covers.then_some(Held { value, ..held })
}
