//! Sentinels: servers that know which server is the primary.

use futures_util::FutureExt;
use futures_util::future::select_ok;

use super::RedisOptions;
use super::address::{Address, Server};
use super::resp::{Answer, Request};
use super::wire;
use crate::store::StoreError;

/// The sentinels that watch one primary.
pub(super) struct Sentinels {
    sentinels: Vec<Server>,
    name: String,
    /// Signs in as to the primary. Its host is the primary's name.
    server: Server,
}

impl Sentinels {
    /// `primary` is the name that the sentinels know, or a URL with it in the host's place, which says
    /// how to sign in to the server.
    pub(super) fn new(
        sentinels: &[String],
        primary: &str,
        options: &RedisOptions,
    ) -> Result<Self, StoreError> {
        let server = |url: &String| Server::new(url, options);
        let sentinels = sentinels
            .iter()
            .map(server)
            .collect::<Result<Vec<_>, _>>()?;
        if sentinels.is_empty() {
            return Err(StoreError::Unreachable("no sentinel is named".to_owned()));
        }
        let server = match primary.contains("://") {
            true => Server::new(primary, options)?,
            false => Server::new(&format!("redis://{primary}"), options)?,
        };
        let name = server.address().ok_or_else(|| {
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
    pub(super) async fn primary(&self) -> Result<Server, StoreError> {
        let answers = self.sentinels.iter().map(|one| self.ask(one).boxed());
        let (address, _) = select_ok(answers).await?;
        Ok(self.server.at(&address))
    }

    async fn ask(&self, sentinel: &Server) -> Result<Address, StoreError> {
        let connection = sentinel.connect(|_| {}).await?;
        let mut request = Request::default();
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &self.name];
        request.command(words.map(str::as_bytes));
        let answer = connection.ask(&request).await?.pop();
        let unknown = || format!("the sentinels know no primary `{}`", self.name);
        let (host, port) = wire::primary(answer.unwrap_or(Answer::Nil))?
            .ok_or_else(|| StoreError::Unreachable(unknown()))?;
        Ok(Address {
            host: host.into(),
            port,
        })
    }
}
