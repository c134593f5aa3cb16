//! What a shell command gets, and what it gives.

use noetl_core::tool::{ErrorKind, ToolCall};
use noetl_tools::{ALWAYS_EXPOSED, NEEDED_TO_RUN, OUTPUT_BYTES_MAX, PROXIES, Stream};
use serde_json::json;

use crate::support::{Bench, Lines, call, map, shell};

#[tokio::test]
async fn commands_run_in_order_in_one_shell_until_one_fails() {
    let bench = Bench::new();
    let table = [
        (json!(["echo one", "echo two"]), 0, "one\ntwo\n"),
        (json!(["x=5; mkdir d; cd d", "echo $x $(basename $PWD)"]), 0, "5 d\n"),
        (json!(["echo one", "false", "echo three"]), 1, "one\n"),
        (json!(["echo one", "(exit 9)", "echo three"]), 9, "one\n"),
        (json!(["set -e\nfalse\necho no", "echo no"]), 1, ""),
        (json!(["echo one; exit 0", "echo two"]), 0, "one\n"),
        (json!(["set -- a b", "echo $#", "echo last"]), 0, "2\nlast\n"),
        (json!(["cat <<END\nhere\nEND", "echo last"]), 0, "here\nlast\n"),
        (json!("echo \"it's\"; kill -KILL $$"), 137, "it's\n"),
    ];
    for (commands, exit_code, stdout) in table {
        let outcome = bench.run(call("shell", json!({"cmds": commands}))).await;
        assert_eq!(
            (&outcome.data["exit_code"], &outcome.data["stdout"]),
            (&json!(exit_code), &json!(stdout)),
            "{commands}"
        );
        match outcome.error {
            None => assert_eq!(exit_code, 0, "{commands}"),
            Some(error) => {
                assert_eq!((error.kind, error.hard, error.retryable), (ErrorKind::Code, false, false));
                assert_eq!(error.code, format!("EXIT_{exit_code}"));
                assert_eq!(error.details["exit_code"], exit_code);
            }
        }
    }
}

#[tokio::test]
async fn an_error_names_the_last_word_of_stderr() {
    let outcome = Bench::new().shell("echo first >&2; echo reason >&2; exit 3").await;
    assert_eq!(outcome.error.unwrap().message, "the command ended with status 3: reason");
    assert_eq!(outcome.data, json!({"exit_code": 3, "stdout": "", "stderr": "first\nreason\n"}));
}

#[tokio::test]
async fn inputs_are_variables_and_nothing_else_of_the_worker_is() {
    let bench = Bench::with(|config| config.expose_env = vec!["CARGO_PKG_NAME".to_owned()]);
    let config = json!({"command": "echo \"$name/$count/$own\"; env | cut -d= -f1 | sort", "env": {"own": "é"}});
    let input = map(json!({"name": "a b", "count": 2, "list": [1]}));
    let outcome = bench.run(ToolCall { input, ..call("shell", config) }).await;
    let stdout = outcome.data["stdout"].as_str().unwrap();
    let (values, names) = stdout.split_once('\n').unwrap();
    assert_eq!(values, "a b/2/é");
    let allowed = ["CARGO_PKG_NAME", "NOETL_TREE"];
    let every_tool = [&ALWAYS_EXPOSED[..], &NEEDED_TO_RUN, &PROXIES].concat();
    // The shell itself adds some.
    let shells = ["PWD", "OLDPWD", "SHLVL", "_"];
    for name in names.lines().filter(|name| !["name", "count", "own"].contains(name)) {
        let upper = name.to_uppercase();
        assert!(allowed.contains(&name) || shells.contains(&name) || every_tool.contains(&upper.as_str()), "{name}");
    }
    assert!(names.contains("CARGO_PKG_NAME"));
}

#[tokio::test]
async fn a_command_has_no_input_and_its_own_directory() {
    let bench = Bench::new();
    std::fs::create_dir(bench.directory.path().join("inside")).unwrap();
    let outcome = bench.run(call("shell", json!({"command": "cat; basename $PWD", "cwd": "inside"}))).await;
    assert_eq!(outcome.data["stdout"], "inside\n");
    let outcome = bench.run(call("shell", json!({"command": "true", "cwd": "nowhere"}))).await;
    let error = outcome.error.unwrap();
    assert_eq!((error.kind, error.hard), (ErrorKind::Config, true));
    assert!(error.message.contains("nowhere, which is no directory on the worker"), "{}", error.message);
}

#[tokio::test]
async fn a_command_starts_without_inherited_habits() {
    // A supervisor blocks every signal; what it starts must not.
    let outcome = Bench::new().shell("grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f2").await;
    let masks = outcome.data["stdout"].as_str().unwrap().lines().map(|mask| u64::from_str_radix(mask, 16).unwrap());
    // 32 and 33 belong to the C library: nobody can set them.
    let masks: Vec<u64> = masks.map(|mask| mask & !(0b11 << 31)).collect();
    assert_eq!(masks, [0, 0]);
}

#[tokio::test]
async fn a_command_holds_no_file_of_the_worker() {
    let bench = Bench::new();
    // Like one that the worker itself inherited: it does not close on exec.
    let inherited = std::fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    for _ in 0..2 {
        assert_eq!(bench.shell("ls /proc/$$/fd").await.data["stdout"], "0\n1\n2\n");
    }
}

#[tokio::test]
async fn it_is_told_which_process_runs() {
    let bench = Bench::new();
    assert_eq!(bench.toolbox.running_pid(0), None);
    let (log, mut lines) = Lines::new();
    let look = async {
        let pid = lines.recv().await.unwrap();
        let seen = bench.toolbox.running_pid(0);
        std::fs::write(bench.directory.path().join("go"), "").unwrap();
        (pid, seen)
    };
    let command = shell("echo $$; until [ -e go ]; do sleep 0.01; done");
    let (_, (pid, seen)) = tokio::join!(bench.run_with(command, noetl_tools::StopSignal::never(), &log), look);
    assert_eq!(seen.unwrap().to_string(), pid);
    assert_eq!((bench.toolbox.running_pid(0), bench.toolbox.running_pid(9)), (None, None));
}

#[tokio::test]
async fn the_log_has_every_line_of_both_streams() {
    let (log, _lines) = Lines::new();
    let command = "echo out; echo err >&2; printf 'no end'";
    Bench::new().run_with(shell(command), noetl_tools::StopSignal::never(), &log).await;
    let lines = log.all();
    let of = |stream| lines.iter().filter(|line| line.0 == stream).map(|line| line.1.as_str()).collect::<Vec<_>>();
    assert_eq!((of(Stream::Stdout), of(Stream::Stderr)), (vec!["out", "no end"], vec!["err"]));
}

#[tokio::test]
async fn output_beyond_the_limit_is_dropped_and_said() {
    let outcome = Bench::new().shell("head -c 9000000 /dev/zero | tr '\\0' x; echo end >&2").await;
    let stdout = outcome.data["stdout"].as_str().unwrap();
    assert_eq!((outcome.error, &outcome.data["stderr"]), (None, &json!("end\n")));
    assert!(stdout.len() < OUTPUT_BYTES_MAX + 100);
    assert!(
        stdout.ends_with("x\n… cut here: 611392 more bytes, the limit is 8388608"),
        "{}",
        &stdout[stdout.len() - 80..]
    );
}

#[tokio::test]
async fn what_cannot_be_started_is_a_hard_error() {
    let bench = Bench::with(|config| config.python = "no-such-python".to_owned());
    let outcome = bench.run(call("python", json!({"code": "1"}))).await;
    let error = outcome.error.unwrap();
    assert_eq!((error.kind, error.code.as_str(), error.hard), (ErrorKind::Config, "NOT_STARTED", true));
    assert!(error.message.starts_with("python (no-such-python) could not be started"), "{}", error.message);

    let error = bench.run(call("kubernetes", json!({}))).await.error.unwrap();
    assert_eq!((error.kind, error.hard), (ErrorKind::Config, true));
    let known: Vec<&str> = noetl_tools::kinds().map(|info| info.kind).collect();
    assert_eq!(error.message, format!("the tool kind `kubernetes` is not known: this worker has {}", known.join(", ")));

    let error = bench.run(call("container", json!({}))).await.error.unwrap();
    assert_eq!((error.code.as_str(), error.hard), ("UNKNOWN_KIND", true));
    assert!(error.message.starts_with("the tool kind `container` is not supported: "), "{}", error.message);

    let long = "x".repeat(200_000);
    let error = bench.run(call("shell", json!({"command": long}))).await.error.unwrap();
    assert_eq!((error.code.as_str(), error.hard), ("NOT_STARTED", true));
    assert_eq!(bench.shell("echo fine").await.data["stdout"], "fine\n");

    let bench = Bench::with(|config| config.supervisor.program = "/nowhere/noetl".into());
    let error = bench.shell("true").await.error.unwrap();
    assert_eq!((error.code.as_str(), error.hard), ("SUPERVISOR_UNAVAILABLE", true));
}

#[tokio::test]
async fn noop_says_what_it_was_told() {
    let bench = Bench::new();
    assert_eq!(bench.run(call("noop", json!({}))).await.data, json!({"status": "ok"}));
    assert_eq!(bench.run(call("noop", json!({"result": [1]}))).await.data, json!([1]));
}
