//! How far a connection is encrypted and the server's certificate believed: the words of `sslmode`.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::Trouble;

/// What has to be true of the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Believe {
    /// Nothing: encryption keeps listeners out, and that is all. As PostgreSQL's own clients do with `prefer` and
    /// `require`, and as many servers with a certificate of their own making need it.
    #[default]
    Anyone,
    /// Somebody whom we trust has signed it.
    Signed,
    /// And it is for the host that we wanted.
    SignedForHost,
}

/// How to encrypt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tls {
    pub(crate) believe: Believe,
    /// File with the certificates of those whom we trust; those that the system trusts if there is none.
    pub(crate) roots: Option<PathBuf>,
}

/// Returns what a word of `sslmode` means.
pub(crate) fn mode(word: &str) -> Result<(SslMode, Believe), String> {
    Ok(match word {
        "disable" => (SslMode::Disable, Believe::Anyone),
        // "Unencrypted first" differs from "encrypted first" only with servers that allow both.
        "allow" | "prefer" => (SslMode::Prefer, Believe::Anyone),
        "require" => (SslMode::Require, Believe::Anyone),
        "verify-ca" => (SslMode::Require, Believe::Signed),
        "verify-full" => (SslMode::Require, Believe::SignedForHost),
        other => {
            return Err(format!("`sslmode` is `{other}`: use disable, prefer, require, verify-ca or verify-full"));
        }
    })
}

impl Tls {
    /// Returns what makes encrypted connections.
    pub(crate) fn connector(&self) -> Result<MakeRustlsConnect, Trouble> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self.believe {
            Believe::Anyone => Arc::new(AnyCertificate(Arc::clone(&provider))),
            Believe::Signed => Arc::new(AnyHost(self.signed(&provider)?)),
            Believe::SignedForHost => self.signed(&provider)?,
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Trouble::Tls(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }

    fn signed(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Trouble> {
        let mut roots = RootCertStore::empty();
        match &self.roots {
            Some(file) => {
                let refuse = |error: String| Trouble::Tls(format!("`sslrootcert` {}: {error}", file.display()));
                for certificate in CertificateDer::pem_file_iter(file).map_err(|error| refuse(error.to_string()))? {
                    let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
                    roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| Trouble::Tls(format!("no certificates to trust: {error}")))
    }
}

/// Believes any certificate whose key the server has.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Believes what the inner verifier believes, for whatever host the certificate is.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last, so everything else is in order.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
