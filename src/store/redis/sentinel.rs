//! Sentinels: servers that know which server is the primary.

use futures_util::FutureExt;
use futures_util::future::select_ok;
use redis::{AsyncConnectionConfig, Client};

use super::RedisOptions;
use super::address::{self, Address};
use super::wire;
use crate::store::StoreError;

/// The sentinels that watch one primary.
pub(super) struct Sentinels {
    sentinels: Vec<Client>,
    name: String,
    /// Signs in as to the primary. Its host is the primary's name.
    server: Client,
}

impl Sentinels {
    /// `primary` is the name that the sentinels know, or a URL with it in the host's place, which says
    /// how to sign in to the server.
    pub(super) fn new(
        sentinels: &[String],
        primary: &str,
        options: &RedisOptions,
    ) -> Result<Self, StoreError> {
        let client = |url: &String| address::client(url, options);
        let sentinels = sentinels
            .iter()
            .map(client)
            .collect::<Result<Vec<_>, _>>()?;
        if sentinels.is_empty() {
            return Err(StoreError::Unreachable("no sentinel is named".to_owned()));
        }
        let server = match primary.contains("://") {
            true => address::client(primary, options)?,
            false => address::client(&format!("redis://{primary}"), options)?,
        };
        let name = Address::of(&server).ok_or_else(|| {
            let text = format!("`{primary}` does not name a primary");
            StoreError::Unreachable(text)
        })?;
        Ok(Self {
            sentinels,
            name: name.host.to_string(),
            server,
        })
    }

    /// The name of the primary.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The server that is the primary now, as the first sentinel says that answers.
    pub(super) async fn primary(&self) -> Result<Client, StoreError> {
        let answers = self.sentinels.iter().map(|one| self.ask(one).boxed());
        let (address, _) = select_ok(answers).await?;
        address.like(&self.server)
    }

    async fn ask(&self, sentinel: &Client) -> Result<Address, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let unreachable = |error: redis::RedisError| StoreError::Unreachable(error.to_string());
        let mut connection = sentinel
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(unreachable)?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        let answer = connection.send_packed_command(&command).await;
        let unknown = || format!("the sentinels know no primary `{}`", self.name);
        let (host, port) = wire::primary(answer.map_err(unreachable)?)?
            .ok_or_else(|| StoreError::Unreachable(unknown()))?;
        Ok(Address {
            host: host.into(),
            port,
        })
    }
}
