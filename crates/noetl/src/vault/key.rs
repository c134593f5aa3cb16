//! Where the master key is: in the environment, or in a file beside the data directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::VaultError;
use super::seal::{MasterKey, SealError};

/// Environment variable that holds the key.
pub const KEY_VARIABLE: &str = "NOETL_ENCRYPTION_KEY";
/// Longest key file, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Where the key is.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// It was given.
    Given(MasterKey),
    /// In this file, which is made when the first secret comes.
    File(PathBuf),
}

impl KeySource {
    /// Returns the key of the environment, which has to be there.
    pub fn of_environment_alone() -> Result<Self, VaultError> {
        match KeySource::of_environment(PathBuf::new())? {
            given @ KeySource::Given(_) => Ok(given),
            KeySource::File(_) => Err(VaultError::KeyNotGiven),
        }
    }

    /// Returns the key of the environment, else the file.
    pub fn of_environment(file: PathBuf) -> Result<Self, VaultError> {
        match std::env::var(KEY_VARIABLE) {
            Ok(text) if !text.is_empty() => match MasterKey::parse(&text) {
                Ok(key) => Ok(KeySource::Given(key)),
                Err(bad) => Err(VaultError::BadKey { place: KEY_VARIABLE.to_owned(), bad }),
            },
            Ok(_) | Err(std::env::VarError::NotPresent) => Ok(KeySource::File(file)),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(VaultError::BadKey { place: KEY_VARIABLE.to_owned(), bad: super::seal::BadKey })
            }
        }
    }
}

/// Reads a key file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<MasterKey>, VaultError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(problem) => return Err(failed(path, problem)),
    };
    let mode = file.metadata().map_err(|problem| failed(path, problem))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(VaultError::KeyFileOpen { path: path.to_path_buf(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    (&mut file).take(KEY_FILE_BYTES_MAX).read_to_string(&mut text).map_err(|problem| failed(path, problem))?;
    match MasterKey::parse(&text) {
        Ok(key) => Ok(Some(key)),
        Err(bad) => Err(VaultError::BadKey { place: path.display().to_string(), bad }),
    }
}

/// Makes a key file that is not there yet. When this returns, the key is on the disk: nothing is ever sealed with a
/// key that a crash could take away.
pub(super) fn create(path: &Path) -> Result<MasterKey, VaultError> {
    let key = MasterKey::generate().map_err(|error: SealError| VaultError::Locked(error.to_string()))?;
    write_new(path, &key).map_err(|problem| failed(path, problem))?;
    Ok(key)
}

/// Writes a key to a file of its own.
pub(super) fn write_new(path: &Path, key: &MasterKey) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file
        .write_all(key.to_text().as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder(path));
    if written.is_err() {
        std::fs::remove_file(path).ok();
    }
    written
}

/// Makes what happened to the names in the folder of `path` durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

pub(super) fn failed(path: &Path, problem: io::Error) -> VaultError {
    VaultError::KeyFile { path: path.to_path_buf(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.key");
        assert_eq!(read(&path).unwrap(), None);
        let key = create(&path).unwrap();
        assert_eq!(read(&path).unwrap(), Some(key.clone()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(create(&path), Err(VaultError::KeyFile { .. })));
        assert_eq!(read(&path).unwrap(), Some(key));
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.key");
        create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(VaultError::KeyFileOpen { mode: 0o640, .. })));
    }

    #[test]
    fn what_is_no_key_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.key");
        std::fs::write(&path, "short").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(read(&path), Err(VaultError::BadKey { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "short");
    }
}
