//! TLS by rustls.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::store::StoreError;

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

/// Trusts and shows what the options say.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    /// `insecure` is what a URL that ends with `#insecure` asks for.
    pub(super) fn new(options: &TlsOptions, insecure: bool) -> Result<Self, StoreError> {
        if insecure {
            let text = "`#insecure` is not supported: name the server's authority instead";
            return Err(StoreError::Unreachable(text.to_owned()));
        }
        let mut authorities = RootCertStore::empty();
        match &options.authorities {
            Some(own) => {
                for authority in certificates(own, "authorities")? {
                    authorities.add(authority).map_err(unfit("authorities"))?;
                }
            }
            None => authorities.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        // By name: with two of them linked, rustls would not know which one to use.
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unfit("the versions of TLS"))?
            .with_root_certificates(authorities);
        let config = match &options.client {
            Some(client) => {
                let chain = certificates(&client.certificate, "the client's certificate")?;
                let key = PrivateKeyDer::from_pem_slice(&client.key);
                let key = key.map_err(|_| unfit("the client's key")("not a private key PEM"))?;
                let config = config.with_client_auth_cert(chain, key);
                config.map_err(unfit("the client's certificate"))?
            }
            None => config.with_no_client_auth(),
        };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Greets the server at the other end, which must be `host`.
    pub(super) async fn over(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> Result<TlsStream<TcpStream>, StoreError> {
        let name = ServerName::try_from(host.to_owned()).map_err(unfit("the server's name"))?;
        let stream = self.0.connect(name, stream).await;
        stream.map_err(|error| StoreError::Unreachable(error.to_string()))
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(unfit(what)("not a certificate PEM")),
    }
}

fn unfit<E: fmt::Display>(what: &str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Unreachable(format!("TLS, {what}: {error}"))
}
