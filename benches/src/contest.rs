//! Measures contestants in turns.
//!
//! All of them do the same work in many short rounds, in a new random order each time. A ratio is the median over the
//! rounds of the ratio within a round: what disturbs the machine for a while disturbs both sides of it.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::Outcome;

/// How long to measure.
pub struct Plan {
    smoke: bool,
    rounds: usize,
    round: Duration,
}

impl Plan {
    pub const FULL: Self = Self {
        smoke: false,
        rounds: 19,
        round: Duration::from_millis(100),
    };
    pub const SMOKE: Self = Self {
        smoke: true,
        rounds: 1,
        round: Duration::from_millis(1),
    };

    /// How many rounds there are, that of calibration included.
    pub fn numbers(&self) -> usize {
        self.rounds + 1
    }

    /// A size that a smoke test makes small.
    pub fn size(&self, full: usize, smoke: usize) -> usize {
        if self.smoke { smoke } else { full }
    }
}

/// Does its work once for each number of a range, one after another.
type Work = Box<dyn Fn(Range<usize>) -> Pin<Box<dyn Future<Output = Outcome<()>> + Send>>>;

struct Contestant {
    name: &'static str,
    in_flight: usize,
    work: Work,
}

/// The place of a contestant in its contest.
pub type Entry = usize;

/// Contestants for the same work.
pub struct Contest<'a, W> {
    world: &'a Arc<W>,
    in_flight: usize,
    /// How often each task works in a round; without it, as often as fits in the round's time.
    fixed: Option<usize>,
    contestants: Vec<Contestant>,
}

impl<'a, W: Send + Sync + 'static> Contest<'a, W> {
    pub fn new(world: &'a Arc<W>, in_flight: usize) -> Self {
        Self {
            world,
            in_flight,
            fixed: None,
            contestants: Vec::new(),
        }
    }

    /// Each task works `times` times in a round. No number comes twice, so that each is new to the contestants;
    /// there are [`Plan::numbers`] of them for each in flight and each time.
    pub fn fixed(mut self, times: usize) -> Self {
        self.fixed = Some(times);
        self
    }

    pub fn enter<F>(
        self,
        name: &'static str,
        work: impl Fn(Arc<W>, Range<usize>) -> F + 'static,
    ) -> Self
    where
        F: Future<Output = Outcome<()>> + Send + 'static,
    {
        let in_flight = self.in_flight;
        self.enter_with(in_flight, name, work)
    }

    /// A contestant with a number of tasks of its own.
    pub fn enter_with<F>(
        mut self,
        in_flight: usize,
        name: &'static str,
        work: impl Fn(Arc<W>, Range<usize>) -> F + 'static,
    ) -> Self
    where
        F: Future<Output = Outcome<()>> + Send + 'static,
    {
        let world = self.world.clone();
        self.contestants.push(Contestant {
            name,
            in_flight,
            work: Box::new(move |numbers| Box::pin(work(world.clone(), numbers))),
        });
        self
    }

    pub fn run(self, runtime: &Runtime, plan: &Plan) -> Outcome<Results> {
        let mut sizes = Vec::new();
        for contestant in &self.contestants {
            sizes.push(match self.fixed {
                Some(times) => {
                    contestant.time(runtime, 0, times)?;
                    times
                }
                None => contestant.calibrate(runtime, plan)?,
            });
        }
        let mut results = Results::new(&self.contestants);
        for round in 1..=plan.rounds {
            // What ran just before has its effect on what runs now.
            let mut places: Vec<usize> = (0..sizes.len()).collect();
            fastrand::shuffle(&mut places);
            for place in places {
                let took = self.contestants[place].time(runtime, round, sizes[place])?;
                results.contestants[place].rounds.push(took);
            }
        }
        Ok(results)
    }
}

impl Contestant {
    fn calibrate(&self, runtime: &Runtime, plan: &Plan) -> Outcome<usize> {
        let mut size = 1;
        loop {
            let took = self.time(runtime, 0, size)?;
            let wall = took.wall * (size * self.in_flight) as f64;
            if wall * 2.0 > plan.round.as_secs_f64() {
                return Ok(size);
            }
            size *= 2;
        }
    }

    fn time(&self, runtime: &Runtime, round: usize, size: usize) -> Outcome<Took> {
        runtime.block_on(async {
            let (start, cpu) = (Instant::now(), processor_time());
            let mut tasks = JoinSet::new();
            for task in 0..self.in_flight {
                let first = (round * self.in_flight + task) * size;
                tasks.spawn((self.work)(first..first + size));
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            let times = (size * self.in_flight) as f64;
            Ok(Took {
                wall: start.elapsed().as_secs_f64() / times,
                cpu: (processor_time() - cpu).as_secs_f64() / times,
            })
        })
    }
}

/// What all threads of this process have used.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

/// Seconds for each time.
struct Took {
    wall: f64,
    cpu: f64,
}

/// What a contest found out.
pub struct Results {
    contestants: Vec<Measured>,
}

struct Measured {
    name: &'static str,
    rounds: Vec<Took>,
}

impl Results {
    fn new(contestants: &[Contestant]) -> Self {
        let empty = |contestant: &Contestant| Measured {
            name: contestant.name,
            rounds: Vec::new(),
        };
        Self {
            contestants: contestants.iter().map(empty).collect(),
        }
    }

    pub fn name(&self, entry: Entry) -> &'static str {
        self.contestants[entry].name
    }

    /// Seconds.
    pub fn time(&self, entry: Entry) -> f64 {
        median(self.contestants[entry].rounds.iter().map(|took| took.wall))
    }

    /// Seconds of processor time.
    pub fn cpu(&self, entry: Entry) -> f64 {
        median(self.contestants[entry].rounds.iter().map(|took| took.cpu))
    }

    pub fn time_ratio(&self, a: Entry, b: Entry) -> f64 {
        median(self.pairs(a, b).map(|(a, b)| a.wall / b.wall))
    }

    pub fn cpu_ratio(&self, a: Entry, b: Entry) -> f64 {
        median(self.pairs(a, b).map(|(a, b)| a.cpu / b.cpu))
    }

    fn pairs(&self, a: Entry, b: Entry) -> impl Iterator<Item = (&Took, &Took)> {
        let rounds = |entry: Entry| self.contestants[entry].rounds.iter();
        rounds(a).zip(rounds(b))
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
