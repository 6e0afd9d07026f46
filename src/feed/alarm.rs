//! When to look at the outbox again.

use std::time::Duration;

use sea_orm::DatabaseConnection;

/// Rings when Postgres says that there is something, or after a pause.
#[derive(Debug)]
pub(super) struct Alarm {
    #[cfg(feature = "feed-postgres")]
    listening: Option<listen::Listening>,
}

impl Alarm {
    /// Must be made in a runtime.
    #[cfg(feature = "feed-postgres")]
    pub(super) fn of(db: &DatabaseConnection) -> Self {
        Self {
            listening: listen::Listening::to(db),
        }
    }

    #[cfg(not(feature = "feed-postgres"))]
    pub(super) fn of(_db: &DatabaseConnection) -> Self {
        Self {}
    }

    /// Waits for it: at most for `idle`, or ten times that while Postgres is heard.
    pub(super) async fn rings(&mut self, idle: Duration) {
        #[cfg(feature = "feed-postgres")]
        if let Some(listening) = &self.listening {
            return listening.rings(idle).await;
        }
        tokio::time::sleep(idle).await;
    }
}

#[cfg(feature = "feed-postgres")]
mod listen {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use sea_orm::sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
    use sea_orm::sqlx::{self, ConnectOptions};
    use sea_orm::{DatabaseConnection, DatabaseConnectionType};
    use tokio::sync::Notify;
    use tokio::task::AbortHandle;

    /// As in the triggers.
    const CHANNEL: &str = "sea_orm_cache_outbox";

    /// Between two attempts to connect.
    const PAUSE: Duration = Duration::from_secs(1);

    /// A task that listens on a connection of its own, until this is dropped.
    #[derive(Debug)]
    pub(super) struct Listening {
        heard: Arc<Heard>,
        task: AbortHandle,
    }

    #[derive(Debug, Default)]
    struct Heard {
        something: Notify,
        connected: AtomicBool,
    }

    impl Listening {
        pub(super) fn to(db: &DatabaseConnection) -> Option<Self> {
            let DatabaseConnectionType::SqlxPostgresPoolConnection(_) = &db.inner else {
                return None;
            };
            let pool = db.get_postgres_connection_pool();
            let options = (*pool.connect_options()).clone();
            let heard = Arc::new(Heard::default());
            let task = tokio::spawn(listen(options, Arc::clone(&heard)));
            let task = task.abort_handle();
            Some(Self { heard, task })
        }

        pub(super) async fn rings(&self, idle: Duration) {
            let connected = self.heard.connected.load(Ordering::Relaxed);
            let pause = if connected { idle * 10 } else { idle };
            // What was heard since the last time counts: the permit is kept.
            let _ = tokio::time::timeout(pause, self.heard.something.notified()).await;
        }
    }

    impl Drop for Listening {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    /// Connects again for as long as it runs.
    async fn listen(options: PgConnectOptions, heard: Arc<Heard>) {
        loop {
            if let Err(error) = hear(&options, &heard).await {
                tracing::debug!(%error, "the change feed does not hear Postgres, and polls");
            }
            heard.connected.store(false, Ordering::Relaxed);
            heard.something.notify_one();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Until the connection is lost.
    async fn hear(options: &PgConnectOptions, heard: &Heard) -> Result<(), sqlx::Error> {
        let one = PgPoolOptions::new().max_connections(1);
        let one = one.idle_timeout(None).max_lifetime(None);
        let pool = one.connect_lazy_with(options.clone().disable_statement_logging());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        heard.connected.store(true, Ordering::Relaxed);
        loop {
            // What came before this connection listened is to be looked for as well.
            heard.something.notify_one();
            if listener.try_recv().await?.is_none() {
                return Ok(());
            }
        }
    }
}
