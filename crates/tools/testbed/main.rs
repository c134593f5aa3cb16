//! What the tests need beside the library: a supervisor, and a worker that can be killed.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use noetl_core::id::{CommandId, ExecutionId};
use noetl_core::tool::ToolCall;
use noetl_tools::{
    LogSink, NoSecrets, Outside, StopSignal, Stream, SupervisorCommand, TIMEOUT_GRACE, Toolbox, ToolboxConfig,
};
use serde_json::{Map, Value, json};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["supervise"] => noetl_tools::supervise_main(),
        ["worker", directory, slots, kind, command] => worker(directory, slots, kind, command),
        _ => ExitCode::from(2),
    }
}

/// Runs the command in every slot at once and prints what it prints.
fn worker(directory: &str, slots: &str, kind: &str, command: &str) -> ExitCode {
    let (Ok(slots), Ok(runtime)) = (slots.parse(), tokio::runtime::Runtime::new()) else { return ExitCode::from(2) };
    let toolbox = Toolbox::new(ToolboxConfig {
        slots,
        python: "python3".to_owned(),
        expose_env: Vec::new(),
        secrets_dir: None,
        directory: directory.into(),
        server_url: None,
        supervisor: SupervisorCommand::this_executable(["supervise"]),
        timeout_grace: TIMEOUT_GRACE,
        cgroups: std::env::var_os("TESTBED_WITHOUT_CGROUPS").is_none(),
    });
    let Ok(toolbox) = toolbox.map(Arc::new) else { return ExitCode::from(2) };
    let Value::Object(config) = json!({"command": command, "code": command}) else { return ExitCode::from(2) };
    runtime.block_on(async {
        let mut running = tokio::task::JoinSet::new();
        for slot in 0..slots {
            let (toolbox, call) = (Arc::clone(&toolbox), call(kind, config.clone()));
            running.spawn(async move {
                toolbox.run(slot, call, StopSignal::never(), Outside { log: &Print, secrets: &NoSecrets }).await
            });
        }
        running.join_all().await;
    });
    ExitCode::SUCCESS
}

fn call(kind: &str, config: Map<String, Value>) -> ToolCall {
    ToolCall {
        execution_id: ExecutionId(1),
        command_id: CommandId(2),
        step: "step".into(),
        iteration: None,
        label: "task".into(),
        kind: kind.into(),
        config,
        input: Map::new(),
        context: Value::Null.into(),
        attempt: 1,
        timeout_ms: None,
    }
}

struct Print;

impl LogSink for Print {
    fn line(&self, _: Stream, line: &str) {
        writeln!(std::io::stdout(), "{line}").ok();
    }
}
