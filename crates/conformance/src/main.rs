//! Command line of the conformance tools: `serve-http` and `run`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks on its outputs")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand, ValueEnum};
use noetl_conformance::run::{self, Session, Store, Tally, Verdict};
use noetl_conformance::{Fault, manifest, services};
use tokio::signal::unix::{SignalKind, signal};

/// Some entry did not do what it must.
const EXIT_FAILED: u8 = 1;
/// The run could not be made.
const EXIT_FAULT: u8 = 2;
/// A signal ended the run.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs public playbooks against a noetl binary and checks what came out.
#[derive(Debug, Parser)]
#[command(name = "noetl-conformance")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the HTTP test server until it is interrupted.
    ServeHttp {
        /// Port on loopback; 0 is any free one.
        #[arg(long, default_value_t = services::PORT_DEFAULT)]
        port: u16,
    },
    /// Run the entries of a manifest against a server of their own.
    Run(RunArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Folder with manifest.yaml and playbooks/.
    #[arg(long, value_name = "DIR")]
    conformance_dir: PathBuf,
    /// The noetl binary.
    #[arg(long, value_name = "FILE")]
    noetl: PathBuf,
    /// Run these entries only, and what they build on.
    #[arg(long, value_name = "ID", num_args = 1..)]
    only: Vec<String>,
    /// Run all entries, and then all of them again on the same server.
    #[arg(long)]
    twice: bool,
    /// Where the server keeps its state.
    #[arg(long, value_enum, default_value_t = StoreArg::Embedded)]
    store: StoreArg,
    /// Leave the folder with data and logs, and say where it is.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StoreArg {
    Embedded,
    Postgres,
}

#[tokio::main]
async fn main() -> ExitCode {
    noetl_conformance::install_tls_provider();
    let cli = Cli::parse();
    let work = async {
        match cli.command {
            Command::ServeHttp { port } => serve_http(port).await,
            Command::Run(args) => run_entries(args).await,
        }
    };
    // Whoever loses is dropped, and what it started goes with it: processes, cluster, folders.
    let done = tokio::select! {
        done = work => done,
        () = interrupted() => return ExitCode::from(EXIT_INTERRUPTED),
    };
    done.unwrap_or_else(|fault| {
        eprintln!("error: {fault}");
        ExitCode::from(EXIT_FAULT)
    })
}

/// Waits for a signal that asks the process to end.
async fn interrupted() {
    let asked = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => drop(signals.recv().await),
            // Without a handler the signal ends the process by itself.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = asked(SignalKind::interrupt()) => {}
        () = asked(SignalKind::terminate()) => {}
        () = asked(SignalKind::hangup()) => {}
    }
}

async fn serve_http(port: u16) -> Result<ExitCode, Fault> {
    let mut listening = services::listen(port).await?;
    println!("listening on http://{}", listening.address());
    listening.ended().await?;
    Ok(ExitCode::SUCCESS)
}

async fn run_entries(args: RunArgs) -> Result<ExitCode, Fault> {
    let absolute =
        |path: &PathBuf| path.canonicalize().map_err(|error| Fault(format!("find {}: {error}", path.display())));
    let folder = absolute(&args.conformance_dir)?;
    let binary = absolute(&args.noetl)?;
    let entries = manifest::load(&folder)?;
    let entries = run::select(entries, &args.only)?;

    let mut scratch = tempfile::Builder::new().prefix("noetl-conformance-").tempdir().map_err(scratch_fault)?;
    if args.keep {
        scratch.disable_cleanup(true);
        println!("data and logs stay in {}", scratch.path().display());
    }
    let store = match args.store {
        StoreArg::Embedded => Store::Embedded,
        StoreArg::Postgres => Store::Postgres,
    };
    let settings = run::Settings { folder, binary, store, scratch: scratch.path() };
    let mut session = Session::start(&settings, &entries).await?;

    let mut tally = Tally::default();
    for round in 1..=if args.twice { 2 } else { 1 } {
        if round == 2 {
            println!("once more, on the same server");
        }
        for entry in &entries {
            let started = Instant::now();
            let verdict = session.run(entry).await;
            report(&entry.id, &verdict, started.elapsed().as_secs_f64());
            tally.count(&verdict);
        }
    }
    let ended = session.end().await;
    if let Err(fault) = &ended {
        println!("FAIL    the server at the end: {fault}");
        tally.failed += 1;
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

fn report(id: &str, verdict: &Verdict, seconds: f64) {
    match verdict {
        Verdict::Passed => println!("PASS    {id} ({seconds:.1} s)"),
        Verdict::Failed(reason) => println!("FAIL    {id} ({seconds:.1} s): {reason}"),
        Verdict::Skipped(reason) => println!("SKIP    {id}: {reason}"),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn scratch_fault(error: std::io::Error) -> Fault {
    Fault(format!("make a folder for the run: {error}"))
}
