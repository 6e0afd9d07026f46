//! Where servers are, and how to sign in to them.

use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::select_ok;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use tokio::net::{TcpStream, lookup_host};

use super::RedisOptions;
use super::connection::{Connection, News};
use super::resp::{Answer, Request};
#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::store::StoreError;

/// A node of a cluster, as it calls itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

impl Address {
    /// The node that is named as `host:port`; without a host, it is on the host of `teller`.
    pub(super) fn parse(text: &str, teller: &Address) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Self::new(host, port.parse().ok()?, teller)
    }

    /// The node that `teller` names so: `?` and nothing are its own host.
    pub(super) fn new(host: &str, port: u16, teller: &Address) -> Option<Self> {
        let host = match host.trim_start_matches('[').trim_end_matches(']') {
            "" | "?" => Arc::clone(&teller.host),
            host => host.into(),
        };
        (port != 0).then_some(Self { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A server, and how to sign in to it.
#[derive(Clone)]
pub(super) struct Server {
    info: ConnectionInfo,
    /// How to trust it, where it is to be reached by TLS.
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl Server {
    /// The server that a URL names.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables))]
    pub(super) fn new(url: &str, options: &RedisOptions) -> Result<Self, StoreError> {
        // What goes through TLS is otherwise the same.
        let (plain, is_tls) = match url.split_once("s://") {
            Some((scheme @ ("redis" | "valkey"), rest)) => (format!("{scheme}://{rest}"), true),
            _ => (url.to_owned(), false),
        };
        if cfg!(not(feature = "tls")) && is_tls {
            let text = "`rediss://` needs the feature `tls` of sea-orm-cache, which is not enabled";
            return Err(StoreError::Unreachable(text.to_owned()));
        }
        let info = plain.into_connection_info();
        Ok(Self {
            info: info.map_err(|error| StoreError::Unreachable(error.to_string()))?,
            #[cfg(feature = "tls")]
            tls: match is_tls {
                true => Some(Tls::new(&options.tls, url.ends_with("#insecure"))?),
                false => None,
            },
        })
    }

    /// The server here, signed in to as to this one.
    pub(super) fn at(&self, address: &Address) -> Self {
        let (host, port) = (address.host.to_string(), address.port);
        Self {
            info: self.info.clone().set_addr(ConnectionAddr::Tcp(host, port)),
            #[cfg(feature = "tls")]
            tls: self.tls.clone(),
        }
    }

    /// Its host and port, if it has any.
    pub(super) fn address(&self) -> Option<Address> {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let (host, port) = (host.as_str().into(), *port);
                Some(Address { host, port })
            }
            _ => None,
        }
    }

    /// Where it is, for people.
    pub(super) fn place(&self) -> String {
        self.info.addr().to_string()
    }

    /// Connects and signs in.
    pub(super) async fn connect(
        &self,
        tell: impl Fn(News) + Send + 'static,
    ) -> Result<Connection, StoreError> {
        let connection = match (self.address(), self.info.addr()) {
            (Some(address), _) => self.over_tcp(&address, tell).await?,
            #[cfg(unix)]
            (None, ConnectionAddr::Unix(path)) => {
                let stream = tokio::net::UnixStream::connect(path).await;
                let (reader, writer) = stream.map_err(unreachable)?.into_split();
                Connection::over(reader, writer, tell)
            }
            _ => {
                let text = format!("{} is no kind of place that is known", self.place());
                return Err(StoreError::Unreachable(text));
            }
        };
        self.sign_in(&connection).await?;
        Ok(connection)
    }

    async fn over_tcp(
        &self,
        Address { host, port }: &Address,
        tell: impl Fn(News) + Send + 'static,
    ) -> Result<Connection, StoreError> {
        let addresses = lookup_host((&**host, *port)).await.map_err(unreachable)?;
        let connecting: Vec<_> = addresses
            .map(|one| TcpStream::connect(one).boxed())
            .collect();
        if connecting.is_empty() {
            return Err(StoreError::Unreachable(format!("{host} has no address")));
        }
        // All at once: an address that leads nowhere must not use up the time.
        let (stream, _) = select_ok(connecting).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let (reader, writer) = tokio::io::split(tls.over(stream, host).await?);
            return Ok(Connection::over(reader, writer, tell));
        }
        let (reader, writer) = stream.into_split();
        Ok(Connection::over(reader, writer, tell))
    }

    async fn sign_in(&self, connection: &Connection) -> Result<(), StoreError> {
        let settings = self.info.redis_settings();
        let mut request = Request::with_capacity(4);
        match settings.password() {
            Some(password) => {
                let user = settings.username().unwrap_or("default");
                let words = ["HELLO", "3", "AUTH", user, password];
                request.command(words.map(str::as_bytes));
            }
            None => request.command([b"HELLO", b"3"]),
        }
        if settings.db() != 0 {
            let number = settings.db().to_string();
            request.command([b"SELECT", number.as_bytes()]);
        }
        let needed = request.len();
        for (what, text) in [
            ("LIB-NAME", env!("CARGO_PKG_NAME")),
            ("LIB-VER", env!("CARGO_PKG_VERSION")),
        ] {
            request.command(["CLIENT", "SETINFO", what, text].map(str::as_bytes));
        }
        let answers = connection.ask(&request).await?;
        // That somebody cannot be told who we are does not matter.
        for answer in &answers[..needed] {
            if let Answer::Error(refusal) = answer {
                return Err(StoreError::Unreachable(refusal.text().to_owned()));
            }
        }
        Ok(())
    }
}

fn unreachable(error: std::io::Error) -> StoreError {
    StoreError::Unreachable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_a_host_is_on_the_host_of_who_names_it() {
        let teller = Address {
            host: "here".into(),
            port: 7000,
        };
        let parse = |text| Address::parse(text, &teller).map(|address| address.to_string());
        assert_eq!(parse("10.0.0.1:7001").as_deref(), Some("10.0.0.1:7001"));
        assert_eq!(parse(":7001").as_deref(), Some("here:7001"));
        assert_eq!(parse("?:7001").as_deref(), Some("here:7001"));
        assert_eq!(parse("::1:7001").as_deref(), Some("::1:7001"));
        for garbage in ["", "host", "host:", "host:port", "host:0", "host:70000"] {
            assert_eq!(parse(garbage), None, "{garbage}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn without_the_feature_a_tls_url_is_refused_by_its_name() {
        for url in ["rediss://host/", "valkeys://host/"] {
            let error = Server::new(url, &RedisOptions::default()).err().unwrap();
            assert!(error.to_string().contains("feature `tls`"), "{error}");
        }
    }

    #[test]
    fn another_server_is_signed_in_to_in_the_same_way() {
        let options = RedisOptions::default();
        let seed = Server::new("redis://user:secret@seed:7000/", &options).unwrap();
        let node = seed.at(&Address {
            host: "node".into(),
            port: 7001,
        });
        assert_eq!(node.place(), "node:7001");
        assert_eq!(node.info.redis_settings().username(), Some("user"));
        assert_eq!(node.info.redis_settings().password(), Some("secret"));
    }
}
