//! `--tls-cert` and `--tls-key`: reading a certificate and its key.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::listen::TlsConfig;

/// Why TLS can not be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can not be read.
    #[error("{path}: {problem}")]
    File {
        /// Which.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The parts do not fit.
    #[error("certificate and key can not be used: {0}")]
    Parts(#[from] rustls::Error),
}

/// Reads a chain of certificates and a private key, both PEM.
pub fn load(certificate: &Path, key: &Path) -> Result<TlsConfig, TlsError> {
    let refuse = |path: &Path, problem: String| TlsError::File { path: path.display().to_string(), problem };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| refuse(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(refuse(certificate, "holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| {
        let problem = match error {
            rustls::pki_types::pem::Error::NoItemsFound => "holds no private key".to_owned(),
            other => other.to_string(),
        };
        refuse(key, problem)
    })?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConfig(Arc::new(config)))
}

/// Chooses the one provider of cryptography for this process. To be called first thing in `main`; again does nothing.
pub fn install_provider() {
    // An error says that one is installed already.
    rustls::crypto::ring::default_provider().install_default().ok();
}
