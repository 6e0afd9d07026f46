//! Collects what the statements of a text change.

use super::{Control, Effects, EntityEffect, Touched};
use crate::key::KeyPart;
use crate::orm::meta::{EntityMeta, Registry};

/// Past this many exact keys of one entity its generation is fenced instead.
pub(super) const LIMIT: usize = 1_000;

/// The effects found so far.
#[derive(Debug)]
pub(super) struct Found<'r> {
    registry: &'r Registry,
    effects: Effects,
}

impl<'r> Found<'r> {
    pub(super) fn new(registry: &'r Registry) -> Self {
        Self {
            registry,
            effects: Effects::default(),
        }
    }

    pub(super) fn add(
        &mut self,
        meta: &'static EntityMeta,
        rows: Touched<KeyPart>,
        index: Touched<(usize, KeyPart)>,
    ) {
        let entities = &mut self.effects.entities;
        match entities.iter_mut().find(|e| std::ptr::eq(e.meta, meta)) {
            Some(effect) => {
                merge(&mut effect.rows, rows);
                merge(&mut effect.index, index);
            }
            None => entities.push(EntityEffect { meta, rows, index }),
        }
    }

    /// All of every entity of `table` and of those that its rows take with them; `table` is in
    /// lower case.
    pub(super) fn table(&mut self, table: &str) {
        self.rows_of(table);
        self.cascade(table);
    }

    /// The same without those that the rows take with them: nothing is deleted, no key changes.
    pub(super) fn rows_of(&mut self, table: &str) {
        let metas = self.registry.of_table(table);
        if metas.is_empty() {
            self.unknown(table);
        }
        for meta in metas {
            self.add(meta, Touched::All, Touched::All);
        }
    }

    /// All of the entities whose rows go or change with rows of `table`.
    pub(super) fn cascade(&mut self, table: &str) {
        for meta in self.registry.cascaded_from(table) {
            self.add(meta, Touched::All, Touched::All);
        }
    }

    /// A written table that no linked entity maps.
    pub(super) fn unknown(&mut self, table: &str) {
        if !self.effects.unknown_tables.iter().any(|t| t == table) {
            self.effects.unknown_tables.push(table.to_owned());
        }
    }

    pub(super) fn everything(&mut self) {
        self.effects.everything = true;
    }

    /// Of several statements the last tells whether a transaction is open after all of them.
    pub(super) fn control(&mut self, control: Control) {
        if control != Control::None {
            self.effects.control = control;
        }
    }

    pub(super) fn finish(mut self) -> Effects {
        if self.effects.everything {
            self.effects.entities.clear();
        }
        for effect in &mut self.effects.entities {
            settle(&mut effect.rows);
            settle(&mut effect.index);
        }
        self.effects
    }
}

fn merge<T>(into: &mut Touched<T>, from: Touched<T>) {
    match (&mut *into, from) {
        (Touched::Only(keys), Touched::Only(more)) => keys.extend(more),
        _ => *into = Touched::All,
    }
}

/// Leaves each key once, and no more than [`LIMIT`] of them.
fn settle<T: Ord>(touched: &mut Touched<T>) {
    if let Touched::Only(keys) = touched {
        keys.sort_unstable();
        keys.dedup();
        if keys.len() > LIMIT {
            *touched = Touched::All;
        }
    }
}
