//! The command line: one file per command. Commands ask over HTTP; what they print is made by [`crate::render`].

pub mod background;
pub mod bench;
pub mod cancel;
pub mod cancel_mode;
pub mod catalog;
pub mod cleanup;
pub mod completions;
pub mod config;
pub mod console;
pub mod context;
pub mod credential;
pub mod db;
pub mod display;
pub mod events;
pub mod executions;
pub mod follow;
pub mod jobs;
pub mod labels;
pub mod link;
pub mod logs;
pub mod pause;
pub mod plan;
pub mod query;
pub mod reference;
pub mod refusal;
pub mod rerun;
pub mod run;
pub mod schedule;
pub mod schema;
pub mod server;
pub mod status;
pub mod stop;
pub mod target;
pub mod tools;
pub mod tree;
pub mod validate;
pub mod verify;
pub mod wait;
pub mod why;
pub mod worker;
pub mod workers;
pub mod workload;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::stop::{Exit, Stop};
use self::target::Globals;

/// What stands below `noetl --help`.
const AFTER_HELP: &str = "\
Exit codes:
  0    done, or the run completed
  1    the run failed, the execution has already ended, or the server refused
  2    usage, malformed input, or an invalid playbook
  3    the server can not be reached, or the data directory can not be opened
  4    no such execution, catalog entry or worker
  5    not permitted
  6    waiting ran out
  7    the execution was cancelled
  70   a defect of noetl
  130  Ctrl-C

Whom a command asks: the server that --server-url, --host/--port or --context names; else the owner of the data \
directory; else the current context's server; else it opens the data directory itself.";

/// Runs playbooks, shows what they do, and stops them
#[derive(Debug, Parser)]
#[command(name = "noetl", version, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Cancel(Box<cancel::Cancel>),
    Cleanup(cleanup::Cleanup),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Jobs(jobs::Jobs),
    Why(why::Why),
    Rerun(rerun::Rerun),
    Status(status::Status),
    #[command(visible_alias = "ps")]
    Executions(executions::Executions),
    Events(events::Events),
    Logs(logs::Logs),
    Tree(tree::Tree),
    Wait(wait::Wait),
    Query(query::Query),
    Register(catalog::Register),
    #[command(subcommand)]
    Catalog(catalog::Catalog),
    List(catalog::List),
    #[command(subcommand)]
    Get(catalog::Get),
    Validate(validate::Validate),
    Verify(verify::Verify),
    Schema(schema::Schema),
    #[command(subcommand)]
    Server(server::Server),
    #[command(subcommand)]
    Worker(worker::Worker),
    Workers(workers::Workers),
    Tools(tools::Tools),
    #[command(subcommand)]
    Schedule(schedule::Schedules),
    Db(db::Db),
    #[command(subcommand)]
    Credential(credential::Credential),
    #[command(subcommand)]
    Context(context::Contexts),
    Bench(bench::Bench),
    Completions(completions::Completions),
    /// Deprecated name of `run`
    #[command(hide = true)]
    Exec(Box<run::Run>),
    /// Deprecated names of `run -r distributed`, `status` and `rerun`
    #[command(hide = true, subcommand)]
    Execute(Execute),
}

#[derive(Debug, Subcommand)]
enum Execute {
    Playbook(Box<run::Run>),
    Status(status::Status),
    Rerun(rerun::Rerun),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let Some(command) = cli.command else {
        // Said and not complained about: nothing was asked, so nothing failed.
        return match console::print(&Cli::command().render_help().ansi().to_string()) {
            Ok(()) => Exit::Done.into(),
            Err(stop) => stop.exit.into(),
        };
    };
    // Only fails when somebody was faster, and there is one provider to choose.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let stop = Stop::new(Exit::Defect, format!("can not start the threads this needs: {error}"));
            console::complain(&stop);
            return stop.exit.into();
        }
    };
    let outcome = runtime.block_on(command.run(&cli.globals));
    // Whatever still hangs has been told to stop or was left on purpose; nobody waits for it.
    runtime.shutdown_background();
    match outcome {
        Ok(exit) => exit.into(),
        Err(stop) => {
            console::complain(&stop);
            stop.exit.into()
        }
    }
}

impl Command {
    async fn run(self, globals: &Globals) -> Result<Exit, Stop> {
        match self {
            Command::Run(run) => run.run(globals).await,
            Command::Cancel(cancel) => cancel.run(globals).await,
            Command::Cleanup(cleanup) => cleanup.run(globals).await,
            Command::Pause(pause) => pause.run(globals).await,
            Command::Resume(resume) => resume.run(globals).await,
            Command::Jobs(jobs) => jobs.run(globals).await,
            Command::Why(why) => why.run(globals).await,
            Command::Rerun(rerun) => rerun.run(globals).await,
            Command::Status(status) => status.run(globals).await,
            Command::Executions(executions) => executions.run(globals).await,
            Command::Events(events) => events.run(globals).await,
            Command::Logs(logs) => logs.run(globals).await,
            Command::Tree(tree) => tree.run(globals).await,
            Command::Wait(wait) => wait.run(globals).await,
            Command::Query(query) => query.run(globals).await,
            Command::Register(register) => register.run(globals).await,
            Command::Catalog(catalog) => catalog.run(globals).await,
            Command::List(list) => list.run(globals).await,
            Command::Get(get) => get.run(globals).await,
            Command::Validate(validate) => validate.run(),
            Command::Verify(verify) => verify.run(globals).await,
            Command::Schema(schema) => schema.run(),
            Command::Server(server) => server.run(globals).await,
            Command::Worker(worker) => worker.run(globals).await,
            Command::Workers(workers) => workers.run(globals).await,
            Command::Tools(tools) => tools.run(),
            Command::Schedule(schedules) => schedules.run(globals).await,
            Command::Db(db) => db.run(globals).await,
            Command::Credential(credential) => credential.run(globals).await,
            Command::Context(contexts) => contexts.run(globals),
            Command::Bench(bench) => bench.run(globals).await,
            Command::Completions(completions) => completions.run(),
            Command::Exec(run) => {
                console::note("'exec' is a deprecated alias for 'run'");
                run.run(globals).await
            }
            Command::Execute(Execute::Playbook(mut run)) => {
                console::note("'execute playbook' is deprecated: use 'run -r distributed'");
                run.runtime = config::Runtime::Distributed;
                run.run(globals).await
            }
            Command::Execute(Execute::Rerun(rerun)) => rerun.run(globals).await,
            Command::Execute(Execute::Status(status)) => {
                console::note("'execute status' is deprecated: use 'status'");
                status.run(globals).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_every_command_may_stand_before_and_after_its_name() {
        for arguments in [
            ["noetl", "--server-url", "http://x", "status", "1"],
            ["noetl", "status", "1", "--server-url", "http://x"],
            ["noetl", "status", "--server-url", "http://x", "1"],
        ] {
            let cli = Cli::try_parse_from(arguments).unwrap();
            assert_eq!(cli.globals.server_url.as_deref(), Some("http://x"));
        }
    }

    #[test]
    fn the_command_lines_of_the_founding_document_are_understood() {
        for line in [
            "noetl cancel 543857931469455628",
            "noetl cancel 543857931469455628 --reason loop",
            "noetl cancel 543857931469455628 --cascade",
            "noetl cancel 543857931469455628 --json",
            "noetl cancel 1 2 3 -r why --cascade --interrupt --grace 5s --wait --dry-run --ignore-finished -j",
            "noetl cancel 1 --wait=5m",
            "noetl cancel 1 --step load --iteration 3",
            "noetl cancel --filter path=etl/* --filter idle_for=10m --yes",
            "noetl cancel --filter all --rate 100 --max 5000 --yes --wait=5m",
            "noetl jobs --open --limit 5 -j",
            "noetl jobs 543857931469455628 --stop --wait=1m",
            "noetl cleanup --older-than-minutes 5 --dry-run --json",
            "noetl pause 1 2 -r why --cascade -j",
            "noetl resume 1 --cascade",
            "noetl status 543857931469455628",
            "noetl verify 543857931469455628 --trace",
            "noetl verify --all --database-url postgres://h/d -j",
            "noetl query SELECT",
            "noetl ps --status running,failed",
            "noetl ps --label team=data --label env=prod",
            "noetl run demo/hello --label team=data --label env=prod",
            "noetl cancel --filter label=team=data --filter label=env=prod --yes",
            "noetl run demo/hello -r distributed --set a=1 --set b=2 -V 3 -i in.json --follow",
            "noetl exec hello.yaml",
            "noetl execute playbook demo/hello",
            "noetl register playbook -f a.yaml",
            "noetl register playbook --directory d",
            "noetl register credential -f pg.json",
            "noetl get credential pg --include-data",
            "noetl register a.yaml --host localhost --port 8083",
            "noetl catalog load a b --batch-size 10",
            "noetl list Playbook --json",
            "noetl server start --port 9 --host 0.0.0.0",
            "noetl worker start -n a --pool x,y --slots 2 --server-url http://a:1,http://b:2",
            "noetl worker stop --name a --force",
            "noetl workers --json",
            "noetl execute rerun 543857931469455628 -i in.json -j",
            "noetl rerun 543857931469455628 --keep-finished --latest --set a=1",
            "noetl completions fish",
            "noetl schedule add poll feeds/poll --every 5m --overlap cancel --missed all --set a=1 -V 3 --paused",
            "noetl schedule add nightly a/b --cron @daily --tz Europe/Berlin",
            "noetl schedule list -j",
            "noetl schedule remove nightly",
            "noetl db prune --older-than 30d --yes",
            "noetl context add x --server-url http://h --set-current --runtime distributed",
            "noetl context set-runtime local",
        ] {
            if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn a_wait_takes_its_time_only_with_an_equals_sign() {
        let Ok(Cli { command: Some(Command::Cancel(cancel)), .. }) =
            Cli::try_parse_from(["noetl", "cancel", "--wait", "5", "6"])
        else {
            panic!()
        };
        assert_eq!(cancel.ids, ["5", "6"]);
        assert_eq!(cancel.wait, Some(std::time::Duration::from_secs(60)));
    }
}
