//! Rows in a file, one a line, between this process and another.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

/// Most bytes that wait in a file.
pub(super) const SPOOL_BYTES_MAX: u64 = 4 << 30;

/// A file of rows that is being written. Nobody else can read it, and it goes when it is dropped.
#[derive(Debug)]
pub(super) struct Spool {
    file: BufWriter<NamedTempFile>,
    bytes: u64,
}

impl Spool {
    pub(super) fn new() -> io::Result<Self> {
        let file = tempfile::Builder::new().prefix("noetl-transfer-").suffix(".jsonl").tempfile()?;
        Ok(Spool { file: BufWriter::new(file), bytes: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        self.file.get_ref().path()
    }

    pub(super) fn write(&mut self, row: &impl Serialize) -> io::Result<()> {
        let line = serde_json::to_vec(row)?;
        self.bytes += line.len() as u64 + 1;
        if self.bytes > SPOOL_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.file.write_all(&line)?;
        self.file.write_all(b"\n")
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// Returns a reader of what another process has written to the path.
    pub(super) fn into_reader(self) -> io::Result<Lines> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let reader = BufReader::new(file.reopen()?);
        Ok(Lines { reader, _file: file })
    }
}

/// Reads rows.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<File>,
    _file: NamedTempFile,
}

impl Lines {
    /// Returns the next row and what it weighs.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, usize)>> {
        let mut line = String::new();
        match self.reader.read_line(&mut line)? {
            0 => Ok(None),
            bytes => Ok(Some((serde_json::from_str(&line)?, bytes))),
        }
    }
}
