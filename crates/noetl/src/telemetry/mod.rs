//! What the program says about itself: one line per happening, with fields. Never payloads, never secrets.

mod lines;

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::lines::{FLUSH_TIMEOUT, WAITING_BYTES_MAX, dropped};

use self::lines::{Lines, Writer};
use crate::server::log_file::LogFile;

/// Environment variable that says what is logged: `debug`, or `noetl_engine=debug,info`.
pub const LOG_VARIABLE: &str = "NOETL_LOG";

/// Where the lines go, and how they look.
#[derive(Debug, Default)]
pub struct LogOptions {
    /// One JSON object per line.
    pub json: bool,
    /// What is logged when [`LOG_VARIABLE`] does not say; `info` by default.
    pub filter: Option<String>,
    /// Into this file instead of standard error.
    pub file: Option<LogFile>,
}

/// Logging, while it is held. Dropped, it writes what still waits, for [`FLUSH_TIMEOUT`] at most.
#[derive(Debug)]
#[must_use = "what waits is written when it is dropped"]
pub struct Logging(Lines);

impl Drop for Logging {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Begins logging. Only the first call in a process counts.
///
/// Whoever logs never waits for whoever reads: lines go through a bounded buffer, and what does not fit is counted.
/// Fails when the filter can not be read.
pub fn init(options: LogOptions) -> Result<Logging, String> {
    let named = std::env::var(LOG_VARIABLE).ok().filter(|filter| !filter.trim().is_empty());
    let text = named.or(options.filter).unwrap_or_else(|| "info".to_owned());
    let filter = EnvFilter::try_new(&text).map_err(|error| format!("{LOG_VARIABLE}: `{text}`: {error}"))?;
    let ansi = options.file.is_none()
        && std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = match options.file {
        Some(file) => Lines::begin(file, options.json),
        None => Lines::begin(std::io::stderr(), options.json),
    };
    let lines = lines.map_err(|error| format!("no thread for the log: {error}"))?;
    let writer = lines.clone();
    let writer = move || Writer::new(&writer);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_span_events(FmtSpan::NONE);
    // A second call finds a subscriber already there: tests do that, and nothing is wrong.
    let begun = if options.json {
        builder.json().with_writer(writer).finish().try_init()
    } else {
        builder.with_writer(writer).finish().try_init()
    };
    if begun.is_ok() {
        std::panic::set_hook(Box::new(panicked));
    }
    Ok(Logging(lines))
}

/// Logs a panic. The usual hook would write to standard error itself, and wait there for whoever reads it.
fn panicked(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    tracing::error!(place, thread, "a panic: {}", panic.payload_as_str().unwrap_or("no message"));
}
