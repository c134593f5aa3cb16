//! `noetl logs`: what tools print, from a run, a server, and a worker elsewhere.

use serde_json::Value;

use crate::support::{Home, Said, Server, eventually, terminate};

const CHATTY: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: chatty, path: test/chatty}
workflow:
  - step: start
    tool:
      - name: count
        kind: python
        code: |
          for n in range(3):
              print(f'line {n}')
          print('careful', file=sys.stderr)
      - name: loud
        kind: shell
        cmds: ['printf unfinished']
    next: {arcs: [{step: end}]}
  - step: end
    tool:
      kind: python
      code: |
        print('the end')
        raise ValueError('what a pity')
";

/// Prints, then waits for a file, then prints again.
const SLOW: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: slow, path: test/slow}
workflow:
  - step: start
    tool:
      kind: shell
      cmds: ['echo before', 'until [ -e go ]; do sleep 0.05; done', 'echo after']
";

fn id_of(home: &Home) -> String {
    let list = home.run(&["ps", "--json"]).done().json();
    list[0]["execution_id"].as_str().unwrap().to_owned()
}

/// Everything that was printed, once nothing can follow.
fn logs(home: &Home, id: &str, more: &[&str]) -> Vec<String> {
    let arguments = [&["logs", id, "--follow"], more].concat();
    home.run(&arguments).done().stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_run_on_its_own_leaves_the_lines_of_its_tools() {
    let home = Home::new();
    home.file("chatty.yaml", CHATTY);
    let said = home.run(&["run", "chatty.yaml", "--verbose"]);
    assert!(said.stderr.contains("start | line 2"), "{}", said.stderr);
    let id = id_of(&home);
    // Without `--follow`, because the run waited for its own lines before it ended.
    let all = home.run(&["logs", &id]).done().stdout;
    let first: Vec<&str> = all.lines().filter(|line| line.starts_with("start | ")).collect();
    let mut sorted = first.clone();
    sorted.sort_unstable();
    let expected = ["start | careful", "start | line 0", "start | line 1", "start | line 2", "start | unfinished"];
    assert_eq!(sorted, expected, "{all}");
    assert_eq!(first.last(), Some(&"start | unfinished"));
    assert!(all.contains("end | the end\n") && all.contains("ValueError: what a pity\n"), "{all}");
    let only = home.run(&["logs", &id, "--step", "start"]).done().stdout;
    assert!(only.contains("\nunfinished\n") && !only.contains('|'), "{only}");
    let json = home.run(&["logs", &id, "--json", "--step", "start", "--tail", "1"]).done().stdout;
    let line: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&line["line"], &line["task"], &line["stream"]),
        (&"unfinished".into(), &"loud".into(), &"stdout".into())
    );
    assert_eq!(home.run(&["logs", "1"]).exit, 4);
    assert_eq!(home.run(&["logs", &id, "--step", "nothing"]).done().stdout, "");
}

#[test]
fn a_follower_sees_lines_while_they_are_printed_and_ends_with_the_execution() {
    let home = Home::new();
    let _server = Server::start(&home, &[]);
    home.file("slow.yaml", SLOW);
    home.run(&["register", "slow.yaml"]).done();
    let started = home.run(&["run", "test/slow", "-r", "distributed", "--json"]).done().json();
    let id = started["execution_id"].as_str().unwrap();
    let mut follower = home.spawn(&["logs", id, "--follow", "--step", "start"]);
    let mut output = std::io::BufReader::new(follower.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "before\n");
    // It runs still, and would for ever.
    home.file("go", "");
    line.clear();
    std::io::Read::read_to_string(&mut output, &mut line).unwrap();
    assert_eq!(line, "after\n");
    assert!(follower.wait().unwrap().success());
    assert_eq!(home.run(&["wait", id]).done().stdout, "COMPLETED\n");
}

#[test]
fn lines_come_from_a_worker_elsewhere_and_go_with_their_execution() {
    let home = Home::new();
    let server = Server::start(&home, &["--no-worker"]);
    let worker = home.spawn(&["worker", "run", "--server-url", &server.url, "--slots", "2"]);
    home.file("chatty.yaml", CHATTY);
    home.run(&["register", "chatty.yaml"]).done();
    let started = home.run(&["run", "test/chatty", "-r", "distributed", "--json"]).done().json();
    let id = started["execution_id"].as_str().unwrap();
    home.run(&["wait", id, "--for", "quiesced"]);
    let lines = logs(&home, id, &[]);
    for expected in ["start | line 0", "start | unfinished", "end | the end", "end | ValueError: what a pity"] {
        assert!(lines.iter().any(|line| line == expected), "{expected}: {lines:?}");
    }
    let rows = |table: &str| {
        let sizes = home.run(&["db", "size", "--json"]).done().json();
        let tables = sizes["tables"].as_array().unwrap().clone();
        tables.iter().find(|row| row["table"] == table).unwrap()["rows"].as_u64().unwrap()
    };
    assert_eq!(rows("log"), lines.len() as u64);
    eventually("it is old enough", || {
        home.run(&["db", "prune", "--older-than", "0s", "--yes"]).done();
        (rows("log") == 0 && rows("log_size") == 0).then_some(())
    });
    terminate(&worker);
    assert_eq!(Said::of(worker.wait_with_output().unwrap()).exit, 0);
}

#[test]
fn a_command_that_prints_without_end_is_cut_and_runs_on() {
    let home = Home::new();
    home.file(
        "flood.yaml",
        "\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: flood, path: test/flood}
workflow:
  - step: start
    tool:
      kind: python
      code: |
        print('x' * 100_000)
        for n in range(50_000):
            print(n)
        result = 'done'
",
    );
    home.run(&["run", "flood.yaml"]).done();
    let id = id_of(&home);
    let step = home.run(&["query", &format!("SELECT status FROM noetl.execution WHERE execution_id = {id}")]);
    assert!(step.stdout.contains("COMPLETED"), "{}", step.stdout);
    let lines = logs(&home, &id, &["--step", "start"]);
    // A long line is several.
    let long: Vec<usize> = lines.iter().take_while(|line| line.starts_with('x')).map(String::len).collect();
    assert_eq!((long.len(), long[0], long.iter().sum::<usize>()), (7, 16_384, 100_000));
    let last = lines.last().unwrap();
    assert!(last.starts_with("… cut here: of one command 10000 lines") || last.contains("are missing here"), "{last}");
    assert!(lines.len() <= 10_001, "{}", lines.len());
}
