//! Values that are to be replaced because of their age: past their ttl, or near it.
//!
//! Nothing of this is for what was invalidated: that is no value any more.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::timeout;
use tracing::Instrument;

use super::{Cache, Fetch, Fetched, Few, Payload, Request, Shape, Stale, State};
use crate::config::EntityPolicy;
use crate::envelope::Aging;
use crate::observe::Event;

/// A value that is to be loaded anew, and may be answered until it is.
#[derive(Debug)]
pub(crate) struct Spare<P> {
    pub(super) position: usize,
    pub(super) fetched: Fetched<P>,
    /// How long ago its ttl ended; zero if it has not.
    pub(super) over: Duration,
}

/// What there is for a request that nothing is loaded for.
#[derive(Debug)]
pub(crate) enum Found<P> {
    Fresh(Fetched<P>),
    Aged(Spare<P>),
    Nothing,
}

impl<P> Found<P> {
    /// The value, if it is not to be replaced.
    pub(crate) fn fresh(self) -> Option<Fetched<P>> {
        match self {
            Self::Fresh(fetched) => Some(fetched),
            Self::Aged(_) | Self::Nothing => None,
        }
    }
}

impl<P> Spare<P> {
    /// The value, if it may be answered while another is loaded.
    pub(crate) fn while_revalidating(self, policy: &EntityPolicy) -> Option<P> {
        (self.over <= policy.stale_while_revalidate).then_some(self.fetched.value)
    }

    pub(crate) fn seal(&self) -> Option<u64> {
        self.fetched.seal
    }
}

impl Cache {
    /// What the cache has for requests for distinct keys, in their order.
    pub(crate) async fn find<P: Payload>(
        &self,
        shape: &Shape<'_>,
        requests: Few<Request>,
    ) -> Few<Found<P>> {
        let mut fetch = Fetch::new(self, shape, requests);
        fetch.look_up().await;
        fetch.found()
    }

    /// Loads what [`find`](Self::find) has not found, or found to be aged: `seal` is then that of what it found.
    pub(crate) async fn load_missed<P, E, L, F>(
        &self,
        shape: &Shape<'_>,
        request: Request,
        seal: Option<u64>,
        load: L,
    ) -> Result<Few<Fetched<P>>, E>
    where
        P: Payload,
        L: Fn(Vec<usize>) -> F + Sync,
        F: Future<Output = Result<Vec<P>, E>> + Send,
    {
        let mut keys = std::iter::once(&request.key).chain(&shape.dependencies.keys);
        let state = match seal {
            _ if self.bypasses(&mut keys) => State::Direct,
            Some(seal) => State::Missed(Stale::Aged(seal)),
            None => State::Missed(Stale::Nothing),
        };
        let mut fetch = Fetch::new(self, shape, SmallVec::from_iter([request]));
        fetch.states.push(state);
        Box::pin(fetch.fill_up(load).instrument(shape.span())).await?;
        Ok(fetch.finish())
    }

    /// Reads were answered with what is to be replaced.
    pub(crate) fn served_stale(&self, entity: &str, reads: u64) {
        self.emit(&Event::Stale { entity, reads });
    }
}

impl<P: Payload> Fetch<'_, P> {
    fn found(self) -> Few<Found<P>> {
        let mut spares = self.spares;
        let found = self
            .states
            .into_iter()
            .enumerate()
            .map(|(position, state)| {
                let spare = spares.iter().position(|spare| spare.position == position);
                match (state, spare) {
                    (State::Done(fetched), _) => Found::Fresh(fetched),
                    (_, Some(at)) => Found::Aged(spares.swap_remove(at)),
                    (_, None) => Found::Nothing,
                }
            });
        found.collect()
    }

    /// Whether a value answers that is valid, by its age; else it is kept as a spare.
    pub(super) fn of_age(
        &mut self,
        position: usize,
        mut fetched: Fetched<P>,
        aging: Option<Aging>,
    ) -> State<P> {
        let (Some(Aging { grace, took }), Some(seal)) = (aging, fetched.seal) else {
            return State::Done(fetched);
        };
        let Some(life) = fetched.life else {
            // Only a look-up tells how old it is.
            let needs = self.shape.needs(fetched.value.is_present());
            let keys = self.shape.dependencies.keys[..needs].to_vec();
            self.elsewhere.push((position, keys));
            return State::Missed(Stale::Sealed(seal));
        };
        let (left, over) = (life.saturating_sub(grace), grace.saturating_sub(life));
        let early = self.shape.policy.earliness(took);
        if left > early {
            fetched.life = Some(left - early);
            return State::Done(fetched);
        }
        self.keep_spare(Spare {
            position,
            fetched,
            over,
        })
    }

    pub(super) fn keep_spare(&mut self, spare: Spare<P>) -> State<P> {
        let stale = spare.seal().map_or(Stale::Nothing, Stale::Aged);
        self.drop_spare(spare.position);
        self.spares.push(spare);
        State::Missed(stale)
    }

    pub(super) fn drop_spare(&mut self, position: usize) {
        self.spares.retain(|spare| spare.position != position);
    }

    /// What is known of the value that stands there.
    pub(super) fn stale(&self, position: usize) -> Stale {
        let spare = self.spares.iter().find(|spare| spare.position == position);
        let seal = spare.and_then(Spare::seal);
        seal.map_or(Stale::Nothing, Stale::Aged)
    }

    /// Answers with the spare while somebody else loads, if it is not too old for that.
    pub(super) fn revalidating(&mut self, position: usize) -> bool {
        let most = self.shape.policy.stale_while_revalidate;
        let fits = |spare: &Spare<P>| spare.position == position && spare.over <= most;
        let Some(at) = self.spares.iter().position(fits) else {
            return false;
        };
        let spare = self.spares.swap_remove(at);
        self.states[position] = State::Done(spare.fetched);
        self.cache.served_stale(self.shape.entity, 1);
        true
    }

    /// Runs the query. `None` if spares were answered in its place, because it failed or takes too long.
    pub(super) async fn load_or_spare<L, F, E>(
        &mut self,
        positions: &[usize],
        load: &L,
    ) -> Result<Option<Vec<P>>, E>
    where
        L: Fn(Vec<usize>) -> F + Sync,
        F: Future<Output = Result<Vec<P>, E>> + Send,
    {
        let policy = self.shape.policy;
        let loading = load(positions.to_vec());
        if self.spares.is_empty() {
            return loading.await.map(Some);
        }
        tokio::pin!(loading);
        let answer = match policy.soft_timeout {
            None => loading.await,
            Some(patience) => match timeout(patience, &mut loading).await {
                Ok(answer) => answer,
                Err(_) if self.rescue(positions, policy.grace()).await => return Ok(None),
                Err(_) => loading.await,
            },
        };
        match answer {
            Ok(loaded) => Ok(Some(loaded)),
            Err(_) if self.rescue(positions, policy.stale_if_error).await => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Answers all of these with spares that ended no longer ago, if each has one that is still valid: it
    /// may have been invalidated since it was looked up.
    pub(super) async fn rescue(&mut self, positions: &[usize], most: Duration) -> bool {
        let fits = |position: &usize| {
            let mut spares = self.spares.iter();
            spares.any(|spare| spare.position == *position && spare.over <= most)
        };
        if self.spares.is_empty() || !positions.iter().all(fits) {
            return false;
        }
        let requests = positions.iter().map(|at| self.requests[*at].clone());
        let found = self.cache.again(self.shape, requests.collect()).await;
        let mut answers = Vec::with_capacity(positions.len());
        for found in found {
            match found {
                Found::Fresh(fetched) => answers.push(fetched),
                Found::Aged(spare) => answers.push(spare.fetched),
                Found::Nothing => return false,
            }
        }
        for (position, fetched) in positions.iter().zip(answers) {
            // Given back where it is ours.
            self.leases.remove(position);
            self.states[*position] = State::Done(fetched);
        }
        let reads = positions.len() as u64;
        self.cache.served_stale(self.shape.entity, reads);
        true
    }
}

impl Cache {
    /// What there is now, asked on behalf of a read that is counted already.
    async fn again<P: Payload>(&self, shape: &Shape<'_>, requests: Few<Request>) -> Few<Found<P>> {
        let mut fetch = Fetch::<P>::new(self, shape, requests);
        fetch.ask().await;
        // In a box: this is asked from within a fetch.
        Box::pin(fetch.look_elsewhere()).await;
        fetch.found()
    }
}
