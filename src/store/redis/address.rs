//! Where servers are, and how to sign in to them.

use std::fmt;
use std::sync::Arc;

use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use super::RedisOptions;
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

    /// Of a server that has one.
    pub(super) fn of(client: &Client) -> Option<Self> {
        match client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                let (host, port) = (host.as_str().into(), *port);
                Some(Self { host, port })
            }
            _ => None,
        }
    }

    /// The server here, signed in to as to another one.
    pub(super) fn like(&self, other: &Client) -> Result<Client, StoreError> {
        let info = other.get_connection_info().clone();
        let (host, port) = (self.host.to_string(), self.port);
        let address = match info.addr() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        Client::open(info.set_addr(address)).map_err(|error| wrong(&error))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The server that a URL names, signed in to as it says.
pub(super) fn client(url: &str, options: &RedisOptions) -> Result<Client, StoreError> {
    let scheme = url.split(':').next().unwrap_or_default();
    if cfg!(not(feature = "tls")) && matches!(scheme, "rediss" | "valkeys") {
        let text = "`rediss://` needs the feature `tls` of sea-orm-cache, which is not enabled";
        return Err(StoreError::Unreachable(text.to_owned()));
    }
    let info = url.into_connection_info().map_err(|error| wrong(&error))?;
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
    open(info, options).map_err(|error| wrong(&error))
}

#[cfg(feature = "tls")]
fn open(info: ConnectionInfo, options: &RedisOptions) -> Result<Client, redis::RedisError> {
    match info.addr() {
        ConnectionAddr::TcpTls { .. } => super::tls::client(info, &options.tls),
        _ => Client::open(info),
    }
}

#[cfg(not(feature = "tls"))]
fn open(info: ConnectionInfo, _: &RedisOptions) -> Result<Client, redis::RedisError> {
    Client::open(info)
}

fn wrong(error: &redis::RedisError) -> StoreError {
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
            let error = client(url, &RedisOptions::default()).unwrap_err();
            assert!(error.to_string().contains("feature `tls`"), "{error}");
        }
    }

    #[test]
    fn another_server_is_signed_in_to_in_the_same_way() {
        let options = RedisOptions::default();
        let seed = client("redis://user:secret@seed:7000/", &options).unwrap();
        let node = Address {
            host: "node".into(),
            port: 7001,
        };
        let node = node.like(&seed).unwrap();
        assert_eq!(node.get_connection_info().addr().to_string(), "node:7001");
        let settings = node.get_connection_info().redis_settings();
        assert_eq!(settings.username(), Some("user"));
        assert_eq!(settings.password(), Some("secret"));
        assert_eq!(settings.protocol(), ProtocolVersion::RESP3);
    }
}
