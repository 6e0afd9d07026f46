//! Rows to bytes and back.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use sea_orm_cache::__private::{Reader, put_row, take_row};

use crate::contest::{Contest, Entry, Results};
use crate::model::{city, plain, without_cache};
use crate::report::{Goal, Row};
use crate::{Bench, Outcome};

/// Cities, and each in every encoding.
struct Encoded {
    rows: Vec<city::Model>,
    plain: Vec<plain::city::Model>,
    ours: Vec<Vec<u8>>,
    rmp: Vec<Vec<u8>>,
    json: Vec<Vec<u8>>,
}

impl Encoded {
    fn new(rows: &[city::Model]) -> Outcome<Self> {
        let rows: Vec<_> = rows.iter().take(1_000).cloned().collect();
        let plain: Vec<_> = rows.iter().map(without_cache).collect();
        Ok(Self {
            ours: rows.iter().map(encode).collect::<Result<_, _>>()?,
            rmp: plain
                .iter()
                .map(rmp_serde::to_vec)
                .collect::<Result<_, _>>()?,
            json: plain
                .iter()
                .map(serde_json::to_vec)
                .collect::<Result<_, _>>()?,
            rows,
            plain,
        })
    }
}

/// A row as our codec writes it.
pub fn encode(row: &city::Model) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    put_row(&mut bytes, row)?;
    Ok(bytes)
}

pub fn rows(bench: &Bench) -> Outcome<Vec<Row>> {
    let encoded = Arc::new(Encoded::new(&bench.spare.world.cities)?);
    let (runtime, plan) = (&bench.spare.runtime, &bench.plan);
    let encode = Contest::new(&encoded, 1)
        .enter("ours", put_ours)
        .enter("rmp-serde", put_rmp)
        .enter("serde_json", put_json)
        .run(runtime, plan)?;
    let decode = Contest::new(&encoded, 1)
        .enter("ours", take_ours)
        .enter("rmp-serde", take_rmp)
        .enter("serde_json", take_json)
        .run(runtime, plan)?;
    let row = |work, results: &Results, peer: Entry, goal| {
        let work = format!("{work} a 10-column row");
        Row::speed(&work, results, [0, peer], Goal::AtLeast(goal))
    };
    Ok(vec![
        row("encode", &encode, 1, 5.0),
        row("encode", &encode, 2, 8.0),
        row("decode", &decode, 1, 2.5),
        row("decode", &decode, 2, 5.0),
    ])
}

impl Encoded {
    fn place(&self, n: usize) -> usize {
        n % self.rows.len()
    }
}

/// Without the counter of allocations, which would slow all alike.
fn each(
    encoded: &Encoded,
    mut numbers: Range<usize>,
    mut work: impl FnMut(usize) -> Outcome<()>,
) -> Outcome<()> {
    let mut outcome = Ok(());
    allocation_counter::opt_out(|| outcome = numbers.try_for_each(|n| work(encoded.place(n))));
    outcome
}

// Each into new bytes; both peers start with room for 128, we with none.

async fn put_ours(encoded: Arc<Encoded>, numbers: Range<usize>) -> Outcome<()> {
    each(&encoded, numbers, |place| {
        let mut out = Vec::new();
        put_row(&mut out, &encoded.rows[place])?;
        black_box(out);
        Ok(())
    })
}

async fn put_rmp(encoded: Arc<Encoded>, numbers: Range<usize>) -> Outcome<()> {
    each(&encoded, numbers, |place| {
        black_box(rmp_serde::to_vec(&encoded.plain[place])?);
        Ok(())
    })
}

async fn put_json(encoded: Arc<Encoded>, numbers: Range<usize>) -> Outcome<()> {
    each(&encoded, numbers, |place| {
        black_box(serde_json::to_vec(&encoded.plain[place])?);
        Ok(())
    })
}

async fn take_ours(encoded: Arc<Encoded>, numbers: Range<usize>) -> Outcome<()> {
    each(&encoded, numbers, |place| {
        let mut reader = Reader::new(&encoded.ours[place]);
        black_box(take_row::<city::Entity>(&mut reader)?);
        Ok(())
    })
}

async fn take_rmp(encoded: Arc<Encoded>, numbers: Range<usize>) -> Outcome<()> {
    each(&encoded, numbers, |place| {
        let bytes = &encoded.rmp[place];
        black_box(rmp_serde::from_slice::<plain::city::Model>(bytes)?);
        Ok(())
    })
}

async fn take_json(encoded: Arc<Encoded>, numbers: Range<usize>) -> Outcome<()> {
    each(&encoded, numbers, |place| {
        let bytes = &encoded.json[place];
        black_box(serde_json::from_slice::<plain::city::Model>(bytes)?);
        Ok(())
    })
}
