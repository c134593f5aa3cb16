//! A log file of bounded size: when it is full it becomes `.1`, `.1` becomes `.2`, and the last one goes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Largest log file, in bytes.
pub const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Old log files kept.
pub const LOG_FILES_KEPT: u32 = 4;

/// A log file that is moved aside when it is full.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl LogFile {
    /// Opens the file, and goes on at its end.
    pub fn open(path: &Path) -> io::Result<Self> {
        LogFile::with_limit(path, LOG_BYTES_MAX)
    }

    fn with_limit(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(LogFile { path: path.to_path_buf(), file, bytes, bytes_max })
    }

    fn rotate(&mut self) -> io::Result<()> {
        for age in (1..LOG_FILES_KEPT).rev() {
            let (from, to) = (aged(&self.path, age), aged(&self.path, age + 1));
            if from.exists() {
                std::fs::rename(from, to)?;
            }
        }
        std::fs::rename(&self.path, aged(&self.path, 1))?;
        self.file = append(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A line is never torn: what does not fit begins the next file.
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn aged(path: &Path, age: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_moves_aside_and_the_oldest_goes() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("server.log");
        let mut log = LogFile::with_limit(&path, 10).unwrap();
        for line in 0..20 {
            writeln!(log, "line {line:02}").unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "line 19\n");
        assert_eq!(std::fs::read_to_string(aged(&path, 1)).unwrap(), "line 18\n");
        assert!(aged(&path, LOG_FILES_KEPT).exists());
        assert!(!aged(&path, LOG_FILES_KEPT + 1).exists());
    }
}
