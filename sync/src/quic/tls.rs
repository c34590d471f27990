//! Mutual TLS 1.3 between keys. The certificate is only an envelope around a public key: signed by itself, valid for
//! ever, its names and dates never looked at. What counts is that the other side signs the handshake with that key;
//! nothing here may let a handshake pass without it. No session is resumed, so that every contact proves it anew.

use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, PeerIncompatible, PeerMisbehaved,
    SignatureScheme,
};

use super::error::Error;
use super::link::ProcessId;
use super::{ALPN, SERVER_NAME};
use crate::key::{NodeKey, PUBLIC_KEY_BYTES, PublicKey};

/// How every Ed25519 public key begins in a certificate (RFC 8410); the 32 bytes of the key follow.
const ED25519_PREFIX: [u8; 12] =
    [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0];

/// What this node shows to others, and by what it checks them.
pub(super) struct Identity {
    pub(super) public: PublicKey,
    provider: Arc<CryptoProvider>,
    shown: Arc<SingleCertAndKey>,
}

impl Identity {
    pub(super) fn new(key: &NodeKey) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let private = PrivatePkcs8KeyDer::from(key.pkcs8()?).into();
        let certified = CertifiedKey::from_der(vec![certificate(key)?], private, &provider)
            .map_err(Error::setup)?;
        Ok(Self { public: key.public(), provider, shown: Arc::new(certified.into()) })
    }

    /// For answering: takes any Ed25519 key that proves itself; who may do what is asked afterwards.
    pub(super) fn answering(&self) -> Result<Arc<QuicServerConfig>, Error> {
        let verifier = AnyKey(self.proof());
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(Error::setup)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(self.shown.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(QuicServerConfig::try_from(config).map_err(Error::setup)?))
    }

    /// For dialling: takes `expected` only. The second part tells after a failure whose key was shown.
    pub(super) fn dialling(
        &self,
        expected: PublicKey,
    ) -> Result<(Arc<QuicClientConfig>, Arc<OnceLock<PublicKey>>), Error> {
        let shown = Arc::new(OnceLock::new());
        let verifier = PinnedKey { expected, shown: shown.clone(), proof: self.proof() };
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(Error::setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.shown.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok((Arc::new(QuicClientConfig::try_from(config).map_err(Error::setup)?), shown))
    }

    fn proof(&self) -> Proof {
        Proof(self.provider.signature_verification_algorithms)
    }
}

/// The key that the other side of a finished handshake has proved to own.
pub(super) fn proved_key(connection: &quinn::Connection) -> Result<PublicKey, Error> {
    let spoken = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    if spoken.is_none_or(|data| data.protocol.as_deref() != Some(ALPN)) {
        return Err(Error::NotAtoll { addr: connection.remote_address().to_string() });
    }
    connection
        .peer_identity()
        .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok())
        .and_then(|chain| key_in(chain.first()?).ok())
        .ok_or_else(|| Error::Handshake("the other side showed no key".into()))
}

/// Which process holds the other end: the hash of its certificate, which is made anew at each start. Equal for all
/// starts of a release that gave it no number.
pub(super) fn process_of(connection: &quinn::Connection) -> ProcessId {
    let chain = connection
        .peer_identity()
        .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.as_deref().and_then(|chain| chain.first()).map(|leaf| leaf.as_ref());
    ProcessId(*blake3::hash(leaf.unwrap_or_default()).as_bytes())
}

fn certificate(key: &NodeKey) -> Result<CertificateDer<'static>, Error> {
    let mut params =
        rcgen::CertificateParams::new([SERVER_NAME.to_owned()]).map_err(Error::setup)?;
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(Error::setup)?;
    // A positive number of a fixed length.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial));
    let signer = CertificateSigner { key, public: key.public() };
    Ok(params.self_signed(&signer).map_err(Error::setup)?.der().clone())
}

struct CertificateSigner<'a> {
    key: &'a NodeKey,
    public: PublicKey,
}

impl rcgen::PublicKeyData for CertificateSigner<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for CertificateSigner<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message).to_vec())
    }
}

fn key_in(certificate: &CertificateDer<'_>) -> Result<PublicKey, rustls::Error> {
    let info = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    let key: Option<[u8; PUBLIC_KEY_BYTES]> =
        info.strip_prefix(&ED25519_PREFIX[..]).and_then(|key| key.try_into().ok());
    key.map(PublicKey).ok_or_else(|| {
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: Vec::new(),
            public_key_algorithm_id: Vec::new(),
        }
        .into()
    })
}

/// The one check that matters: that the handshake is signed by the key in the certificate.
#[derive(Clone, Copy, Debug)]
struct Proof(WebPkiSupportedAlgorithms);

impl Proof {
    fn check(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        verify_tls13_signature(message, certificate, signed, &self.0)
    }
}

fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(PeerIncompatible::Tls13RequiredForQuic.into())
}

#[derive(Debug)]
struct AnyKey(Proof);

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        key_in(certificate).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.check(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[derive(Debug)]
struct PinnedKey {
    expected: PublicKey,
    shown: Arc<OnceLock<PublicKey>>,
    proof: Proof,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = key_in(certificate)?;
        if *self.shown.get_or_init(|| key) == self.expected && key == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.proof.check(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
