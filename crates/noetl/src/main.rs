//! The `noetl` binary: everything is in the library, so that tests can reach it.

use std::process::ExitCode;

/// What is allocated on one thread and freed on another, as most of a step is, costs the system's allocator a tenth of
/// all instructions.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A supervisor of tools is this same executable under a hidden name. It has one thread and no runtime, so it is
    // looked for before anything else.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == noetl::tools::SUPERVISE) {
        return noetl_tools::supervise_main();
    }
    noetl::cli::main()
}
