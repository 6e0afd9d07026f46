//! A write: fence, statement or COMMIT, settle, acknowledge.

use crate::guard::Guard;
use crate::model::Protocol;
use crate::seen::Sight;
use crate::state::State;

/// One writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Writer {
    /// How far its write has come.
    pub phase: Phase,
    /// The version that it committed; 0 if none yet.
    pub version: u8,
    /// Whether a fence of its was lost before its commit.
    pub lost: bool,
    /// Whether the database may still carry out what was sent, though nobody waits for it.
    pub pending: bool,
}

/// How far a write has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Not begun.
    #[default]
    Idle,
    /// A transaction whose statement has run; nobody sees it.
    Open,
    /// So many of its keys are fenced.
    Fencing(u8),
    /// All fences were planted; the statement or COMMIT is under way.
    Sent,
    /// The database has answered; so many keys are settled.
    Settling(u8),
    /// The same, and the answer was an error.
    SettlingFailed(u8),
    /// The database has not answered; so many keys are fenced once more, to be left so.
    Leaving(u8),
    /// Its call has returned.
    Done,
    /// It died, or has left its fences to expire.
    Dead,
}

/// A step of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A transaction's statement runs.
    Begin,
    /// A transaction is rolled back.
    Rollback,
    /// Fences the next key. After the last, the statement or COMMIT is sent.
    Fence,
    /// The same, but the request fails, carried out or not.
    FenceFails(bool),
    /// The database commits, and says so.
    Commit,
    /// The database refuses.
    Fail,
    /// The database commits and reports a failure.
    CommitUnheard,
    /// The connection to the database breaks while the statement is under way.
    LoseConnection,
    /// Settles the next key. After the last, the call returns.
    Settle,
    /// The same, but the request fails, carried out or not.
    SettleFails(bool),
    /// Dies.
    Crash,
    /// The database carries out what a writer had sent that waits no longer.
    LateCommit,
    /// The database drops it.
    LateAbort,
}

impl Writer {
    /// Grows with every step.
    pub fn progress(&self) -> u32 {
        let phase = match self.phase {
            Phase::Idle => 0,
            Phase::Open => 1,
            Phase::Fencing(keys) => 1 + u32::from(keys),
            Phase::Sent => 5,
            Phase::Settling(keys) | Phase::SettlingFailed(keys) | Phase::Leaving(keys) => {
                6 + u32::from(keys)
            }
            Phase::Done | Phase::Dead => 10,
        };
        phase * 2 + u32::from(!self.pending)
    }

    /// Whether anything may still come of it.
    pub fn is_active(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Done | Phase::Dead) || self.pending
    }
}

impl Protocol {
    /// What a writer can do.
    pub(crate) fn writer_steps(&self, state: &State, writer: usize, add: &mut impl FnMut(Step)) {
        let this = state.writers[writer];
        match this.phase {
            Phase::Idle if self.config.writers[writer].transaction => add(Step::Begin),
            Phase::Idle | Phase::Fencing(_) | Phase::Leaving(_) => add(Step::Fence),
            Phase::Open => {
                add(Step::Fence);
                add(Step::Rollback);
            }
            Phase::Sent => {
                add(Step::Commit);
                if self.config.failures {
                    add(Step::Fail);
                    add(Step::CommitUnheard);
                    add(Step::LoseConnection);
                }
            }
            Phase::Settling(_) | Phase::SettlingFailed(_) => add(Step::Settle),
            Phase::Done | Phase::Dead => {}
        }
        if state.used.outages < self.config.outages {
            for carried_out in [false, true] {
                match this.phase {
                    Phase::Idle => add(Step::FenceFails(carried_out)),
                    Phase::Settling(_) => add(Step::SettleFails(carried_out)),
                    _ => {}
                }
            }
        }
        if this.pending {
            add(Step::LateCommit);
            add(Step::LateAbort);
        }
        if state.used.writer_crashes < self.config.writer_crashes && self.may_die(&this) {
            add(Step::Crash);
        }
    }

    fn may_die(&self, writer: &Writer) -> bool {
        let under_way = !matches!(
            writer.phase,
            Phase::Idle | Phase::Open | Phase::Done | Phase::Dead
        );
        let may_commit = writer.version > 0 || writer.pending || writer.phase == Phase::Sent;
        let loss = writer.lost && may_commit;
        under_way && !(loss && self.rules().has(Guard::LostFenceWriterLives))
    }

    /// Carries out a step of a writer.
    pub(crate) fn writer_step(&self, state: &mut State, writer: usize, step: Step) {
        match step {
            Step::Begin => self.begin(state, writer),
            Step::Rollback => {
                self.saw(Sight::RolledBack);
                state.writers[writer].phase = Phase::Done;
            }
            Step::Fence => self.fence(state, writer),
            Step::FenceFails(carried_out) => self.fence_fails(state, writer, carried_out),
            Step::Commit => {
                self.commit(state, writer);
                self.answered(state, writer);
            }
            Step::Fail => {
                self.saw(Sight::Failed);
                self.answered_with_error(state, writer);
            }
            Step::CommitUnheard => {
                self.commit(state, writer);
                self.saw(Sight::FailedCommitHappened);
                self.answered_with_error(state, writer);
            }
            Step::LoseConnection => {
                state.writers[writer].pending = true;
                if self.rules().has(Guard::NoSettleWithoutAnswer) {
                    state.writers[writer].phase = Phase::Leaving(0);
                } else {
                    self.answered_with_error(state, writer);
                }
            }
            Step::Settle => self.settle(state, writer),
            Step::SettleFails(carried_out) => self.settle_fails(state, writer, carried_out),
            Step::Crash => self.crash(state, writer),
            Step::LateCommit => {
                self.saw(Sight::LateCommit);
                self.commit(state, writer);
                state.writers[writer].pending = false;
            }
            Step::LateAbort => state.writers[writer].pending = false,
        }
    }

    fn begin(&self, state: &mut State, writer: usize) {
        if self.rules().has(Guard::FenceAtCommit) {
            state.writers[writer].phase = Phase::Open;
            return;
        }
        for key in self.config.writers[writer].keys {
            let entry = state.store.entry(*key);
            entry.fence(writer, self.rules());
            entry.settle(writer, self.rules());
        }
        state.writers[writer].phase = Phase::Sent;
    }

    fn fence(&self, state: &mut State, writer: usize) {
        let keys = self.config.writers[writer].keys;
        let this = &mut state.writers[writer];
        let at = match this.phase {
            Phase::Fencing(at) | Phase::Leaving(at) => at,
            _ => 0,
        };
        let all = usize::from(at) + 1 == keys.len() || !self.rules().has(Guard::Fence);
        let leaves = matches!(this.phase, Phase::Leaving(_));
        this.phase = match (all, leaves) {
            (false, false) => Phase::Fencing(at + 1),
            (true, false) => Phase::Sent,
            (false, true) => Phase::Leaving(at + 1),
            (true, true) => Phase::Dead,
        };
        if self.rules().has(Guard::Fence) {
            let entry = state.store.entry(keys[usize::from(at)]);
            entry.fence(writer, self.rules());
        }
        if all && leaves {
            self.returns(state, writer, Phase::Dead);
        }
    }

    fn answered(&self, state: &mut State, writer: usize) {
        state.writers[writer].phase = Phase::Settling(0);
        if !self.rules().has(Guard::FenceAtCommit) {
            self.acknowledge(state, writer);
        }
    }

    fn answered_with_error(&self, state: &mut State, writer: usize) {
        if self.rules().has(Guard::SettleOnFailure) {
            state.writers[writer].phase = Phase::SettlingFailed(0);
        } else {
            self.acknowledge(state, writer);
        }
    }

    fn settle(&self, state: &mut State, writer: usize) {
        let keys = self.config.writers[writer].keys;
        let this = &mut state.writers[writer];
        let (Phase::Settling(at) | Phase::SettlingFailed(at)) = &mut this.phase else {
            return;
        };
        let key = keys[usize::from(*at)];
        *at += 1;
        let all = usize::from(*at) == keys.len();
        state.store.entry(key).settle(writer, self.rules());
        if all {
            self.acknowledge(state, writer);
        }
    }

    fn acknowledge(&self, state: &mut State, writer: usize) {
        self.returns(state, writer, Phase::Done);
    }

    /// The write goes on (`available`), and its process keeps what it could not deliver.
    fn fence_fails(&self, state: &mut State, writer: usize, carried_out: bool) {
        self.saw(Sight::FenceUndelivered);
        if carried_out {
            self.fence(state, writer);
        } else {
            state.writers[writer].phase = Phase::Sent;
            state.writers[writer].lost = true;
        }
        self.journal(state, writer);
    }

    fn settle_fails(&self, state: &mut State, writer: usize, carried_out: bool) {
        self.saw(Sight::SettleUndelivered);
        self.journal(state, writer);
        let Writer { version, lost, .. } = state.writers[writer];
        if carried_out {
            self.settle(state, writer);
        } else if lost {
            let process = self.config.writers[writer].process;
            state.history.owed[process] |= 1 << version;
            state.writers[writer].version = 0;
            self.acknowledge(state, writer);
        } else {
            self.acknowledge(state, writer);
        }
    }

    fn journal(&self, state: &mut State, writer: usize) {
        state.used.outages += 1;
        let process = self.config.writers[writer].process;
        state.journals[process] |= self.rules().has(Guard::Journal);
    }

    /// The call returns. Also a failed one whose commit has happened: nobody may go back behind it.
    fn returns(&self, state: &mut State, writer: usize, phase: Phase) {
        let Writer {
            version, pending, ..
        } = state.writers[writer];
        if version > 0 {
            state.history.acknowledge(version);
        }
        state.writers[writer] = Writer {
            phase,
            pending,
            ..Writer::default()
        };
    }

    fn crash(&self, state: &mut State, writer: usize) {
        state.used.writer_crashes += 1;
        let this = &mut state.writers[writer];
        self.saw(if this.version > 0 {
            Sight::DiedBeforeSettle
        } else {
            Sight::DiedBeforeCommit
        });
        let pending = this.pending || this.phase == Phase::Sent;
        *this = Writer {
            phase: Phase::Dead,
            lost: this.lost && pending,
            pending,
            ..Writer::default()
        };
    }

    /// Whether a writer's fence on a key may expire.
    pub(crate) fn may_expire(&self, state: &State, writer: usize) -> bool {
        let this = state.writers[writer];
        match this.phase {
            Phase::Dead | Phase::Done => {
                !this.pending || !self.rules().has(Guard::DatabaseEndsBeforeFence)
            }
            _ => !self.rules().has(Guard::FenceIsRenewed),
        }
    }

    /// The database carries out a write.
    fn commit(&self, state: &mut State, writer: usize) {
        state.database += 1;
        let this = &mut state.writers[writer];
        if this.lost {
            self.saw(Sight::CommitWithoutFence);
            state.history.unfenced |= 1 << state.database;
        }
        // Nobody acknowledges what is carried out after its writer's end.
        if !matches!(this.phase, Phase::Dead | Phase::Done) {
            this.version = state.database;
        }
    }
}
