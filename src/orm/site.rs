//! One database attached to a cache.

use std::sync::Arc;

use sea_orm::DbBackend;
use sea_orm::sea_query::Value;

use super::effects::Control;
use crate::cache::Cache;
use crate::invalidation::Invalidation;
use crate::key::KeySpace;

/// One database (or one tenant of it) attached to a cache. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) cache: Cache,
    pub(crate) space: KeySpace,
    pub(crate) backend: DbBackend,
}

/// What a statement makes stale.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) invalidation: Invalidation,
    pub(crate) control: Control,
}

impl Site {
    /// What `sql` makes stale in this database.
    pub(crate) fn plan(&self, sql: &str, values: &[Value]) -> Planned {
        let _ = (sql, values, Arc::new(()));
        todo!()
    }

    /// The same site with the keys of one tenant.
    pub(crate) fn scoped(&self, tenant: &str) -> Self {
        Self {
            space: self.space.scoped(tenant),
            ..self.clone()
        }
    }
}
