//! Callers and servers made of plain quinn and rustls, that keep no rule unless told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atoll_sync::key::PublicKey;
use atoll_sync::quic::CloseCode;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, SignatureScheme};

use super::{LOOPBACK, SOON};

type Failure = Box<dyn std::error::Error>;

/// A certificate, and a key that need not be its own.
struct Shown {
    certificate: CertificateDer<'static>,
    pkcs8: Vec<u8>,
    public: PublicKey,
}

impl Shown {
    fn new(algorithm: &'static rcgen::SignatureAlgorithm) -> Result<Self, Failure> {
        let pair = rcgen::KeyPair::generate_for(algorithm)?;
        let certificate = rcgen::CertificateParams::new([])?.self_signed(&pair)?.der().clone();
        let public = PublicKey(pair.public_key_raw().try_into().unwrap_or_default());
        Ok(Self { certificate, pkcs8: pair.serialize_der(), public })
    }

    fn resolver(&self) -> Result<Arc<SingleCertAndKey>, Failure> {
        let key = PrivatePkcs8KeyDer::from(self.pkcs8.clone()).into();
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(key)?;
        Ok(Arc::new(CertifiedKey::new(vec![self.certificate.clone()], key).into()))
    }
}

pub struct Caller {
    pub public: PublicKey,
    shown: Option<Shown>,
    socket: quinn::Endpoint,
}

impl Caller {
    pub fn new() -> Result<Self, Failure> {
        Self::showing(Some(Shown::new(&rcgen::PKCS_ED25519)?))
    }

    pub fn without_certificate() -> Result<Self, Failure> {
        Self::showing(None)
    }

    pub fn with_p256_certificate() -> Result<Self, Failure> {
        Self::showing(Some(Shown::new(&rcgen::PKCS_ECDSA_P256_SHA256)?))
    }

    pub fn with_stolen_certificate_of(victim: &Self) -> Result<Self, Failure> {
        let mut shown = Shown::new(&rcgen::PKCS_ED25519)?;
        if let Some(stolen) = &victim.shown {
            shown.certificate = stolen.certificate.clone();
        }
        Self::showing(Some(shown))
    }

    fn showing(shown: Option<Shown>) -> Result<Self, Failure> {
        let public = shown.as_ref().map_or(PublicKey([0; 32]), |shown| shown.public);
        Ok(Self { public, shown, socket: quinn::Endpoint::client(LOOPBACK)? })
    }

    /// An empty `alpn` offers none.
    pub async fn connect(&self, addr: SocketAddr, alpn: &[u8]) -> Result<Connection, Failure> {
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Careless));
        let mut config = match &self.shown {
            Some(shown) => builder.with_client_cert_resolver(shown.resolver()?),
            None => builder.with_no_client_auth(),
        };
        if !alpn.is_empty() {
            config.alpn_protocols = vec![alpn.to_vec()];
        }
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?));
        Ok(self.socket.connect_with(config, addr, "anything")?.await?)
    }

    /// Up to where a link would begin: the hello is sent.
    pub async fn greet(
        &self,
        addr: SocketAddr,
    ) -> Result<(Connection, SendStream, RecvStream), Failure> {
        let connection = self.connect(addr, b"atoll/1").await?;
        let (mut send, recv) = connection.open_bi().await?;
        send.write_all(&[1, 0, 0, 0, 0]).await?;
        Ok((connection, send, recv))
    }
}

/// Accepts everybody, and keeps the connections open.
pub struct Server {
    pub public: PublicKey,
    socket: quinn::Endpoint,
    serving: tokio::task::JoinHandle<()>,
}

impl Server {
    pub fn new(alpn: &[u8]) -> Result<Self, Failure> {
        Self::showing(&Shown::new(&rcgen::PKCS_ED25519)?, alpn)
    }

    pub fn with_stolen_certificate(alpn: &[u8]) -> Result<Self, Failure> {
        let victim = Shown::new(&rcgen::PKCS_ED25519)?;
        let thief = Shown::new(&rcgen::PKCS_ED25519)?;
        Self::showing(&Shown { pkcs8: thief.pkcs8, ..victim }, alpn)
    }

    fn showing(shown: &Shown, alpn: &[u8]) -> Result<Self, Failure> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(shown.resolver()?);
        config.alpn_protocols = vec![alpn.to_vec()];
        let config = QuicServerConfig::try_from(config)?;
        let config = quinn::ServerConfig::with_crypto(Arc::new(config));
        let socket = quinn::Endpoint::server(config, LOOPBACK)?;
        let serving = tokio::spawn(serve(socket.clone()));
        Ok(Self { public: shown.public, socket, serving })
    }

    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(socket: quinn::Endpoint) {
    let mut open = Vec::new();
    while let Some(incoming) = socket.accept().await {
        open.push(incoming.await);
    }
}

pub async fn assert_closed_with(connection: &Connection, code: CloseCode) {
    match tokio::time::timeout(SOON + Duration::from_secs(1), connection.closed()).await {
        Ok(ConnectionError::ApplicationClosed(close)) => {
            assert_eq!(close.error_code, quinn::VarInt::from_u32(code.0), "{close:?}");
        }
        other => panic!("expected a close with code {code}, got {other:?}"),
    }
}

pub async fn assert_refused_by_tls(connection: &Connection) {
    match tokio::time::timeout(SOON, connection.closed()).await {
        Ok(ConnectionError::ConnectionClosed(close)) => {
            assert!((0x100..0x200).contains(&u64::from(close.error_code)), "{close:?}");
        }
        other => panic!("expected a TLS alert, got {other:?}"),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Believes every server, as no real caller may.
#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
