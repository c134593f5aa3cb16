//! Sealing: XChaCha20-Poly1305 under a key of its own for each row, which is sealed with the master key.
//!
//! What is sealed is bound to the row it is for, so that ciphertext moved to another row, or put back after the row was
//! written again, does not open.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use noetl_store::secret::Sealed;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of a nonce: so many that random ones never meet.
const NONCE_BYTES: usize = 24;
/// Bytes by which ciphertext is longer: the authenticator.
const TAG_BYTES: usize = 16;
/// Where the sealed row key ends and the sealed data begins.
const HEAD_BYTES: usize = NONCE_BYTES + KEY_BYTES + TAG_BYTES;
/// Fewest characters of a key that is written as free text.
const TEXT_KEY_CHARS_MIN: usize = 32;
/// Says how the rest is made, should that ever change.
const FORMAT: &str = "v1:";

/// Why something can not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The system has no randomness to give.
    #[error("the system gives no random numbers")]
    Random,
    /// Another key, another row, or damage; which of them can not be told.
    #[error("it was sealed with another key, or is damaged")]
    Unopened,
}

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key is 32 random bytes as base64 or hex, as `openssl rand -base64 32` makes them, or any text of at least {TEXT_KEY_CHARS_MIN} characters that nobody can guess"
)]
pub struct BadKey;

/// The key to everything. Its `Debug` is its fingerprint.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey(Zeroizing<[u8; KEY_BYTES]>);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.fingerprint())
    }
}

impl MasterKey {
    /// Returns a new key.
    pub fn generate() -> Result<Self, SealError> {
        random().map(MasterKey)
    }

    /// Reads a key: base64 or hex of 32 bytes, or a long text.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let text = text.trim();
        if let Some(key) = hex(text) {
            return Ok(MasterKey(key));
        }
        for alphabet in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            let decoded = Zeroizing::new(alphabet.decode(text).unwrap_or_default());
            if let Ok(key) = <[u8; KEY_BYTES]>::try_from(decoded.as_slice()) {
                return Ok(MasterKey(Zeroizing::new(key)));
            }
        }
        if text.chars().count() < TEXT_KEY_CHARS_MIN {
            return Err(BadKey);
        }
        Ok(MasterKey(digest("noetl encryption key", text.as_bytes())))
    }

    /// Returns the key as text that [`MasterKey::parse`] reads.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }

    /// Returns what tells this key from others and says nothing else about it.
    pub fn fingerprint(&self) -> String {
        digest("noetl key fingerprint", self.0.as_slice())[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns what stands for `bytes` and can not be made, or guessed from, without this key.
    pub fn tag(&self, bytes: &[u8]) -> String {
        let keyed = Zeroizing::new([self.0.as_slice(), bytes].concat());
        digest("noetl tag", &keyed)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Seals `plain` for the row that `row` names.
    pub fn seal(&self, row: &str, plain: &[u8]) -> Result<Sealed, SealError> {
        let row_key = random()?;
        let mut sealed = encrypt(&self.0, row, row_key.as_slice())?;
        sealed.extend(encrypt(&row_key, row, plain)?);
        Ok(Sealed(format!("{FORMAT}{}", STANDARD.encode(sealed)).into()))
    }

    /// Opens what was sealed for the row that `row` names.
    pub fn open(&self, row: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let text = sealed.0.strip_prefix(FORMAT).ok_or(SealError::Unopened)?;
        let bytes = STANDARD.decode(text).map_err(|_| SealError::Unopened)?;
        let (head, data) = bytes.split_at_checked(HEAD_BYTES).ok_or(SealError::Unopened)?;
        let row_key = decrypt(&self.0, row, head)?;
        let row_key: Zeroizing<[u8; KEY_BYTES]> =
            Zeroizing::new(row_key.as_slice().try_into().map_err(|_| SealError::Unopened)?);
        decrypt(&row_key, row, data)
    }
}

fn encrypt(key: &[u8; KEY_BYTES], row: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let nonce: Zeroizing<[u8; NONCE_BYTES]> = random()?;
    let cipher = XChaCha20Poly1305::new(key.into());
    let payload = Payload { msg: plain, aad: row.as_bytes() };
    let text = cipher.encrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Unopened)?;
    Ok([nonce.as_slice(), &text].concat())
}

fn decrypt(key: &[u8; KEY_BYTES], row: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (nonce, text) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Unopened)?;
    let cipher = XChaCha20Poly1305::new(key.into());
    let payload = Payload { msg: text, aad: row.as_bytes() };
    cipher.decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| SealError::Unopened)
}

fn random<const BYTES: usize>() -> Result<Zeroizing<[u8; BYTES]>, SealError> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|_| SealError::Random)?;
    Ok(bytes)
}

fn digest(purpose: &str, bytes: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut hash = Sha256::new();
    hash.update(purpose.as_bytes());
    hash.update([0]);
    hash.update(bytes);
    Zeroizing::new(hash.finalize().into())
}

fn hex(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_row_and_its_key_alone() {
        let (key, other) = (MasterKey::generate().unwrap(), MasterKey::generate().unwrap());
        let sealed = key.seal("credential 1 version 1", b"secret").unwrap();
        assert_eq!(key.open("credential 1 version 1", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(key.open("credential 1 version 2", &sealed), Err(SealError::Unopened));
        assert_eq!(other.open("credential 1 version 1", &sealed), Err(SealError::Unopened));
        assert!(!sealed.0.contains("secret"));
        let again = key.seal("credential 1 version 1", b"secret").unwrap();
        assert_ne!(sealed, again, "each time a key and nonces of its own");
    }

    #[test]
    fn a_changed_or_cut_text_does_not_open() {
        let key = MasterKey::generate().unwrap();
        let sealed = key.seal("row", b"some plain text").unwrap();
        let text = &*sealed.0;
        for end in 0..text.len() {
            assert!(key.open("row", &Sealed(text[..end].into())).is_err(), "cut at {end}");
            let mut bytes = text.as_bytes().to_vec();
            bytes[end] = if bytes[end] == b'A' { b'B' } else { b'A' };
            let changed = Sealed(String::from_utf8(bytes).unwrap().into());
            assert!(key.open("row", &changed).is_err(), "changed at {end}");
        }
    }

    #[test]
    fn a_key_is_read_in_every_form() {
        let key = MasterKey::generate().unwrap();
        let hex: String = key.0.iter().map(|byte| format!("{byte:02X}")).collect();
        for text in [
            STANDARD.encode(key.0.as_slice()),
            STANDARD_NO_PAD.encode(key.0.as_slice()),
            URL_SAFE.encode(key.0.as_slice()),
            URL_SAFE_NO_PAD.encode(key.0.as_slice()),
            format!(" {hex}\n"),
            key.to_text().to_string(),
        ] {
            assert_eq!(MasterKey::parse(&text).unwrap(), key, "{text}");
        }
        let phrase = "correct horse battery staple, and then some";
        assert_eq!(MasterKey::parse(phrase).unwrap(), MasterKey::parse(phrase).unwrap());
        assert_ne!(MasterKey::parse(phrase).unwrap(), key);
        for text in ["", "secret", "a text of thirty-one characters"] {
            assert_eq!(MasterKey::parse(text), Err(BadKey), "{text}");
        }
    }

    #[test]
    fn the_fingerprint_is_all_that_is_shown_of_a_key() {
        let key = MasterKey::parse(&"0".repeat(64)).unwrap();
        assert_eq!(key.fingerprint().len(), 32);
        assert_eq!(format!("{key:?}"), format!("MasterKey({})", key.fingerprint()));
        assert_ne!(key.fingerprint(), MasterKey::parse(&"1".repeat(64)).unwrap().fingerprint());
    }
}
