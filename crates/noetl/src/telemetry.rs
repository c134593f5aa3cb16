//! What the program says about itself: one line per happening, with fields. Never payloads, never secrets.

use std::io::IsTerminal;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt;

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

/// Begins logging. Only the first call in a process counts.
///
/// Fails when the filter can not be read.
pub fn init(options: LogOptions) -> Result<(), String> {
    let named = std::env::var(LOG_VARIABLE).ok().filter(|filter| !filter.trim().is_empty());
    let text = named.or(options.filter).unwrap_or_else(|| "info".to_owned());
    let filter = EnvFilter::try_new(&text).map_err(|error| format!("{LOG_VARIABLE}: `{text}`: {error}"))?;
    let ansi = options.file.is_none()
        && std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_span_events(FmtSpan::NONE);
    // A second call finds a subscriber already there: tests do that, and nothing is wrong.
    let begun = match (options.file, options.json) {
        (Some(file), true) => builder.json().with_writer(Mutex::new(file)).finish().try_init(),
        (Some(file), false) => builder.with_writer(Mutex::new(file)).finish().try_init(),
        (None, true) => builder.json().with_writer(std::io::stderr).finish().try_init(),
        (None, false) => builder.with_writer(std::io::stderr).finish().try_init(),
    };
    begun.ok();
    Ok(())
}
