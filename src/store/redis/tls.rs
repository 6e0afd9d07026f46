//! TLS by rustls.

use std::fmt;

use redis::{Client, ClientTlsConfig, ConnectionInfo, RedisError, TlsCertificates};
use rustls::crypto::{CryptoProvider, ring};

/// Whom to trust, and how to show who we are, for `rediss://` URLs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The certificates of authorities to trust, in PEM, in place of the public ones that Mozilla
    /// trusts. Defaults to none: for a server with a public certificate.
    pub authorities: Option<Vec<u8>>,
    /// The certificate to show to a server that asks for one. Defaults to none.
    pub client: Option<TlsClient>,
}

/// A certificate of one's own.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsClient {
    /// The certificate, and those between it and the authority's, in PEM.
    pub certificate: Vec<u8>,
    /// Its private key, in PEM.
    pub key: Vec<u8>,
}

impl fmt::Debug for TlsOptions {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("own_authorities", &self.authorities.is_some())
            .field("client", &self.client)
            .finish()
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").finish_non_exhaustive()
    }
}

/// A client that trusts and shows what the options say.
pub(super) fn client(info: ConnectionInfo, options: &TlsOptions) -> Result<Client, RedisError> {
    if CryptoProvider::get_default().is_none() {
        // Without one, or with two of them linked, rustls panics when it is used. An error means that
        // somebody else installed one at this moment.
        let _ = ring::default_provider().install_default();
    }
    let certificates = TlsCertificates {
        client_tls: options.client.as_ref().map(|client| ClientTlsConfig {
            client_cert: client.certificate.clone(),
            client_key: client.key.clone(),
        }),
        root_cert: options.authorities.clone(),
    };
    Client::build_with_tls(info, certificates)
}
