//! The table: one row for each goal.

use crate::Outcome;
use crate::contest::{Entry, Results};
use crate::machine;

/// What a figure must be.
#[derive(Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    Within(f64, f64),
    Exactly(f64),
}

use Goal::{AtLeast, AtMost, Exactly, Within};

impl Goal {
    fn is_met(self, figure: f64) -> bool {
        match self {
            AtLeast(least) => figure >= least,
            AtMost(most) => figure <= most,
            Within(least, most) => (least..=most).contains(&figure),
            Exactly(this) => figure == this,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            AtLeast(least) => format!("at least {}{unit}", short(least)),
            AtMost(most) => format!("at most {}{unit}", short(most)),
            Within(least, most) => format!("{} to {}{unit}", short(least), short(most)),
            Exactly(this) => format!("exactly {}{unit}", short(this)),
        }
    }
}

/// One line of the table.
pub struct Row {
    cells: [String; 5],
    ok: bool,
}

impl Row {
    /// How many times faster `ours` is than `peer`.
    pub fn speed(work: &str, results: &Results, [ours, peer]: [Entry; 2], goal: Goal) -> Self {
        let figure = match goal {
            // "At most 1.15x" is about the time, "at least 4x" about the speed.
            AtMost(_) => results.time_ratio(ours, peer),
            _ => results.time_ratio(peer, ours),
        };
        let cell = |entry| format!("{}: {}", results.name(entry), time(results.time(entry)));
        Self::new(work, [cell(ours), cell(peer)], figure, "x", goal)
    }

    /// How much processor time `ours` takes for each time of `peer`.
    pub fn cpu(work: &str, results: &Results, [ours, peer]: [Entry; 2], goal: Goal) -> Self {
        let figure = results.cpu_ratio(ours, peer);
        let cell = |entry| format!("{}: {}", results.name(entry), time(results.cpu(entry)));
        Self::new(work, [cell(ours), cell(peer)], figure, "x", goal)
    }

    /// A figure that needs no peer. A unit begins with a blank.
    pub fn figure(work: &str, figure: f64, unit: &str, goal: Goal) -> Self {
        let ours = format!("{}{unit}", short(figure));
        let mut row = Self::new(work, [ours, "-".to_owned()], figure, unit, goal);
        row.cells[3] = "-".to_owned();
        row
    }

    /// A quotient of two figures that are no times.
    pub fn quotient(work: &str, ours: String, peer: String, figure: f64, goal: Goal) -> Self {
        Self::new(work, [ours, peer], figure, "x", goal)
    }

    fn new(work: &str, [ours, peer]: [String; 2], figure: f64, unit: &str, goal: Goal) -> Self {
        let ratio = format!("{}{unit}", short(figure));
        Self {
            cells: [work.to_owned(), ours, peer, ratio, goal.text(unit)],
            ok: goal.is_met(figure),
        }
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        let verdict = if self.ok { "ok" } else { "short" };
        self.cells.iter().map(String::as_str).chain([verdict])
    }
}

const HEADS: [&str; 6] = ["work", "ours", "peer", "ratio", "goal", ""];

/// The rows in the order in which they were measured.
#[derive(Default)]
pub struct Table(pub Vec<Row>);

impl Table {
    pub fn short(&self) -> usize {
        self.0.iter().filter(|row| !row.ok).count()
    }

    pub fn print(&self) {
        let lines = || std::iter::once(HEADS.to_vec()).chain(self.lines());
        let widths: Vec<usize> = (0..HEADS.len())
            .map(|i| lines().map(|line| line[i].chars().count()).max())
            .map(Option::unwrap_or_default)
            .collect();
        for line in lines() {
            let cells = line.iter().zip(&widths);
            let text: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            println!("{}", text.join("  ").trim_end());
        }
        println!("\n{} rows, {} short", self.0.len(), self.short());
    }

    /// For `docs/PERFORMANCE.md`.
    pub fn print_markdown(&self) -> Outcome<()> {
        println!("{}\n", machine::describe()?);
        println!("| {} |", HEADS.join(" | "));
        println!("|{}", "---|".repeat(HEADS.len()));
        for line in self.lines() {
            println!("| {} |", line.join(" | "));
        }
        println!("\n{} rows, {} short.", self.0.len(), self.short());
        Ok(())
    }

    fn lines(&self) -> impl Iterator<Item = Vec<&str>> {
        self.0.iter().map(|row| row.all().collect())
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => format!("{:.0} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s => format!("{:.2} ms", s * 1e3),
    }
}

/// As many digits as say something.
fn short(figure: f64) -> String {
    if figure == figure.trunc() || figure >= 100.0 {
        return format!("{figure:.0}");
    }
    format!("{figure:.2}")
}
