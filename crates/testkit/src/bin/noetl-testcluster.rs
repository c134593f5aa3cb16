//! `noetl-testcluster COMMAND…`: runs a command whose tests share one PostgreSQL cluster.
#![expect(clippy::print_stderr, reason = "a command line speaks on its outputs")]

use std::process::ExitCode;

/// The command could not be run.
const EXIT_FAULT: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: noetl-testcluster COMMAND…");
        return EXIT_FAULT.into();
    };
    match noetl_testkit::share(&program, &arguments.collect::<Vec<_>>()).await {
        // Ended by a signal: as a shell says it, somehow.
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX).into(),
        Err(fault) => {
            eprintln!("error: {fault}");
            EXIT_FAULT.into()
        }
    }
}
