//! What python code sees, and what counts as its result.

use std::sync::Arc;

use noetl_core::tool::{ErrorKind, StopOrder, Stopped, ToolCall};
use noetl_tools::{StopSignal, Stream, stop_line};
use serde_json::{Value, json};

use crate::support::{Bench, Lines, call, map, printed, python};

fn with(code: &str, input: Value) -> ToolCall {
    let context = json!({"city": "Ulm", "ctx": {"page": 3}, "fetch": {"rows": [1, 2]}, "execution_id": "overridden"});
    ToolCall { input: map(input), context: Arc::new(context), ..python(code) }
}

#[tokio::test]
async fn results_follow_the_rules_of_the_language() {
    let bench = Bench::new();
    let none = json!({});
    let table: Vec<(&str, Value, Value)> = vec![
        // A top-level return comes first.
        ("return 1", none.clone(), json!(1)),
        ("return", none.clone(), json!(null)),
        ("result = [1]\nreturn {'a': 1}", none.clone(), json!({"a": 1})),
        ("result = 5\nif False:\n  return 1", none.clone(), json!(5)),
        ("for x in range(9):\n  if x == 4:\n    return x", none.clone(), json!(4)),
        ("def main():\n  return 1\nreturn 2", none.clone(), json!(2)),
        ("try:\n  return 1\nexcept:\n  return 2\nfinally:\n  x = 3", none.clone(), json!(1)),
        (
            "class C:\n  def __enter__(s): pass\n  def __exit__(s, *e): s.__class__.seen = e[0]\n\
             def f(): return C.seen\nwith C():\n  return {'seen': None}",
            none.clone(),
            json!({"seen": null}),
        ),
        ("\"\"\"A docstring.\"\"\"\nfrom __future__ import annotations\nreturn 7", none.clone(), json!(7)),
        ("from math import *\nreturn floor(2.5)", none.clone(), json!(2)),
        ("x: int = 4\ny: str\nreturn x", none.clone(), json!(4)),
        ("if (n := 3) > 2:\n  return n", none.clone(), json!(3)),
        ("import asyncio\nawait asyncio.sleep(0)\nreturn 'late'", none.clone(), json!("late")),
        // Names stay global with it.
        ("import math\ndef f():\n  return math.pi > 3 and y\ny = 8\nreturn f()", none.clone(), json!(8)),
        ("n = n + 1\nreturn n", json!({"n": 1}), json!(2)),
        ("def inc():\n  global n\n  n += 1\ninc()\nreturn n", json!({"n": 1}), json!(2)),
        ("return [x * k for x in xs]", json!({"xs": [1, 2], "k": 3}), json!([3, 6])),
        ("fs = [lambda: x for x in range(2)]\nx = 5\nreturn [f() for f in fs]", none.clone(), json!([1, 1])),
        (
            "try:\n  1/0\nexcept ZeroDivisionError as e:\n  kept = str(e)\nreturn kept",
            none.clone(),
            json!("division by zero"),
        ),
        ("match {'k': 1}:\n  case {'k': v, **rest}:\n    return [v, rest]", none.clone(), json!([1, {}])),
        ("return result", json!({"result": 6}), json!(6)),
        // Then the variable `result`.
        ("result = {'a': (1, 2)}", none.clone(), json!({"a": [1, 2]})),
        ("result = None", none.clone(), json!(null)),
        ("def f():\n  global result\n  result = 3\nf()", none.clone(), json!(3)),
        ("exec('result = 3')", none.clone(), json!(3)),
        ("result = 2", json!({"result": 2}), json!(2)),
        ("import asyncio\nresult = await asyncio.sleep(0, 'slept')", none.clone(), json!("slept")),
        ("async def work():\n  return 4\nresult = work()", none.clone(), json!(4)),
        ("result = 1\ndef main():\n  return 2", none.clone(), json!(1)),
        ("print('said')\nresult = 1", none.clone(), json!(1)),
        // Then what `main` returns.
        ("def main():\n  return 1", none.clone(), json!(1)),
        ("def main(a, c=9):\n  return [a, c]", json!({"a": 1, "b": 2}), json!([1, 9])),
        ("def main(**all):\n  return all", json!({"a": 1, "b": 2}), json!({"a": 1, "b": 2})),
        ("async def main(a):\n  return a", json!({"a": 1}), json!(1)),
        // A parameter may also name what code finds ready-made; an argument of that name, or a default, wins.
        ("def main(input_data):\n  return input_data", json!({"a": 1}), json!({"a": 1})),
        ("def main(args, **rest):\n  return [args, rest]", json!({"a": 1}), json!([{"a": 1}, {"a": 1}])),
        ("def main(context):\n  return context['args']", json!({"a": 1}), json!({"a": 1})),
        ("def main(input_data):\n  return input_data", json!({"input_data": 2}), json!(2)),
        ("def main(step='mine'):\n  return step", none.clone(), json!("mine")),
        ("def main(result):\n  return result + 1", json!({"result": 1}), json!(2)),
        ("import sys\ndef main():\n  sys.exit()", none.clone(), json!({"stdout": "", "stderr": ""})),
        // Then what was printed.
        ("print('a')\nsys.stderr.write('b')", none.clone(), json!({"stdout": "a\n", "stderr": "b"})),
        (
            "import subprocess\nsubprocess.run(['echo', 'child'])",
            none.clone(),
            json!({"stdout": "child\n", "stderr": ""}),
        ),
        ("print(result)", json!({"result": 1}), json!({"stdout": "1\n", "stderr": ""})),
        ("", none.clone(), json!({"stdout": "", "stderr": ""})),
        // An exit that is no error ends the code.
        ("sys.exit(0)\nresult = 1", none.clone(), json!({"stdout": "", "stderr": ""})),
        ("result = 1\nsys.exit()\nresult = 2", none.clone(), json!(1)),
        ("def main():\n  return 1\nsys.exit()", none.clone(), json!({"stdout": "", "stderr": ""})),
    ];
    for (code, input, expected) in table {
        let outcome = bench.run(with(code, input)).await;
        assert_eq!((outcome.error, outcome.data), (None, expected), "{code}");
    }
}

#[tokio::test]
async fn code_finds_its_inputs_its_context_and_the_ready_made_modules() {
    let bench = Bench::new();
    let table: Vec<(&str, Value, Value)> = vec![
        ("result = [a, input_data, args]", json!({"a": 1}), json!([1, {"a": 1}, {"a": 1}])),
        ("result = input_data", json!({"input_data": "mine"}), json!("mine")),
        (
            "result = [message, data, context, json]",
            json!({"message": 1, "data": 2, "context": 3, "json": 4}),
            json!([1, 2, 3, 4]),
        ),
        ("result = input_data['not a name']", json!({"not a name": 1}), json!(1)),
        (
            "result = [context.get('city'), 'fetch' in context, context['fetch']['rows']]",
            json!({}),
            json!(["Ulm", true, [1, 2]]),
        ),
        (
            "result = [execution_id, context['execution_id'], step, context['step']]",
            json!({}),
            json!(["42", "42", "a_step", "a_step"]),
        ),
        (
            "result = [variables, context['variables'], context['args']]",
            json!({"a": 1}),
            json!([{"page": 3}, {"page": 3}, {"a": 1}]),
        ),
        (
            "result = [json.loads('1'), sys.argv, os.sep, datetime.date(2024, 2, 3).year, len(str(uuid.uuid4()))]",
            json!({}),
            json!([1, [""], "/", 2024, 36]),
        ),
        ("result = [sys.stdin.read(), os.getcwd() == os.path.realpath('.')]", json!({}), json!(["", true])),
        ("import dataclasses\n@dataclasses.dataclass\nclass P:\n  x: 'int'\nresult = P(1)", json!({}), json!({"x": 1})),
        ("result = __name__", json!({}), json!("noetl_step")),
    ];
    for (code, input, expected) in table {
        let outcome = bench.run(with(code, input)).await;
        assert_eq!((outcome.error, outcome.data), (None, expected), "{code}");
    }
}

#[tokio::test]
async fn the_context_says_where_the_server_answers_unless_the_workload_has_a_key_of_that_name() {
    let bench = Bench::new();
    let outcome = bench.run(with("result = context['server_url']", json!({}))).await;
    assert_eq!((outcome.error, outcome.data), (None, json!("http://localhost:8082")));
    let context = Arc::new(json!({"server_url": "http://other"}));
    let call = ToolCall { context, ..python("result = [context['server_url'], server_url]") };
    let outcome = bench.run(call).await;
    assert_eq!((outcome.error, outcome.data), (None, json!(["http://other", "http://other"])));
}

#[tokio::test]
async fn bare_names_of_the_context_stand_behind_everything_else() {
    let bench = Bench::new();
    let context = json!({
        "city": "Ulm", "shared": "context", "fetch": {"rows": [1, 2]}, "json": "shadow", "step": "shadow",
        "type": "shadow", "main": "shadow", "result": "shadow", "not a name": 1, "__name__": "shadow",
    });
    let run = async |code: &str, libs: Value| {
        let call = call("python", json!({"code": code, "libs": libs}));
        let call = ToolCall { input: map(json!({"shared": "argument"})), context: Arc::new(context.clone()), ..call };
        bench.run(call).await
    };
    let table = [
        ("return [city, fetch['rows']]", json!(["Ulm", [1, 2]])),
        ("return shared", json!("argument")),
        ("return [json.loads('1'), step, type(1).__name__, __name__]", json!([1, "a_step", "int", "noetl_step"])),
        ("print('no result of its own')", json!({"stdout": "no result of its own\n", "stderr": ""})),
        // Code may use the name for itself, in a wrapped body too.
        ("city = city.upper()\nreturn city", json!("ULM")),
        ("city = 'Bern'\nresult = [city, context['city']]", json!(["Bern", "Ulm"])),
    ];
    for (code, expected) in table {
        let outcome = run(code, Value::Null).await;
        assert_eq!((outcome.error, outcome.data), (None, expected), "{code}");
    }
    let outcome = run("return city.floor(1.5)", json!({"city": "math"})).await;
    assert_eq!((outcome.error, outcome.data), (None, json!(1)));
    let error = run("return fetched", Value::Null).await.error.unwrap();
    assert_eq!(error.message, "NameError: name 'fetched' is not defined");
}

#[tokio::test]
async fn megabytes_may_be_printed_and_returned_and_prints_never_become_the_result() {
    let bench = Bench::new();
    let code = "for n in range(3000):\n  print('x' * 1000)\nresult = ['y' * 1000] * 3000";
    let outcome = bench.python(code).await;
    assert_eq!(outcome.error, None);
    let rows = outcome.data.as_array().unwrap();
    assert!(rows.len() == 3000 && rows.iter().all(|row| row.as_str().is_some_and(|row| row.len() == 1000)));
    let outcome = bench.python("print('x' * 3_000_000)").await;
    assert_eq!(outcome.data["stdout"].as_str().map(str::len), Some(3_000_001));
}

#[tokio::test]
async fn a_script_file_gets_arguments_libraries_and_the_whole_context() {
    let bench = Bench::new();
    let script = "import dataclasses\n\n@dataclasses.dataclass\nclass Greeting:\n    text: str\n\n\
                  async def main(name, count, missing=None):\n    await aio.sleep(0)\n    \
                  return {'greeting': Greeting(f'{name} of {context[\"city\"]}'), 'count': count + 1, 'missing': missing}\n\n\
                  if __name__ == '__main__':\n    raise SystemExit('a script is not run as a program')\n";
    let folder = bench.directory.path().join("scripts");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("greet.py"), script).unwrap();
    let config =
        json!({"script": {"uri": "./scripts/greet.py", "source": {"type": "file"}}, "libs": {"aio": "asyncio"}});
    let call = ToolCall { config: map(config), ..with("", json!({"name": "Ann", "count": 2, "unused": true})) };
    let outcome = bench.run(call).await;
    let expected = json!({"greeting": {"text": "Ann of Ulm"}, "count": 3, "missing": null});
    assert_eq!((outcome.error, outcome.data), (None, expected));
}

#[tokio::test]
async fn inputs_are_copies() {
    let bench = Bench::new();
    let call = with("rows.append(9)\ncontext['fetch']['rows'].clear()\nresult = rows", json!({"rows": [1]}));
    for _ in 0..2 {
        assert_eq!(bench.run(call.clone()).await.data, json!([1, 9]));
    }
}

#[tokio::test]
async fn values_become_json_without_losing_what_can_be_kept() {
    let bench = Bench::new();
    let table = [
        ("[Decimal('19.99'), Decimal('10'), Decimal('10.50'), Decimal('1E+2')]", json!([19.99, 10, 10.5, 100])),
        (
            "[Decimal('0.1234567890123456789012'), Decimal('NaN'), Decimal(2)**80]",
            json!(["0.1234567890123456789012", "NaN", "1208925819614629174706176"]),
        ),
        ("datetime.datetime(2024, 1, 2, 3, 4, 5)", json!("2024-01-02 03:04:05")),
        (
            "[datetime.date(2024, 1, 2), datetime.timedelta(1), uuid.UUID(int=0)]",
            json!(["2024-01-02", "1 day, 0:00:00", "00000000-0000-0000-0000-000000000000"]),
        ),
        ("[{3}, frozenset([4]), (5,), range(2), {'k': 1}.keys()]", json!([[3], [4], [5], [0, 1], ["k"]])),
        (
            "{1: 'a', None: 'b', True: 'c', (1, 2): 'd', datetime.date(2024, 1, 2): {2.5: 'e'}}",
            json!({"1": "c", "null": "b", "(1, 2)": "d", "2024-01-02": {"2.5": "e"}}),
        ),
        ("[b'bytes', bytearray(b'x')]", json!(["bytes", "x"])),
        ("'\\ud800x'", json!("\u{fffd}x")),
        ("[2**63 - 1, -2**63, 2**64 - 1]", json!([i64::MAX, i64::MIN, u64::MAX])),
        ("type('T', (), {'__str__': lambda s: 'own'})()", json!("own")),
        ("'é' * 3", json!("ééé")),
    ];
    for (expression, expected) in table {
        let code = format!("from decimal import Decimal\nresult = {expression}");
        let outcome = bench.python(&code).await;
        assert_eq!((outcome.error, outcome.data), (None, expected), "{expression}");
    }
}

#[tokio::test]
async fn what_is_no_json_is_refused_with_its_place() {
    let bench = Bench::new();
    let deep = "result = []\nfor _ in range(5000): result = [result]";
    let table = [
        (
            "result = {'rows': [1, {'p': float('nan')}]}",
            "result.rows[1].p is no number that JSON knows (NaN or infinite): make it None or a text",
        ),
        ("return float('inf')", "result is no number that JSON knows (NaN or infinite): make it None or a text"),
        ("result = []\nresult.append(result)", "the result contains itself"),
        (deep, "the result is nested too deeply"),
        ("result = []\nfor _ in range(200): result = [result]", "the result is nested too deeply"),
    ];
    for (code, message) in table {
        let error = bench.python(code).await.error.expect(code);
        assert_eq!((error.code.as_str(), error.kind, error.hard), ("RESULT_NOT_JSON", ErrorKind::Schema, false));
        assert_eq!(error.message, message);
    }
    let error = bench.python("result = 'x' * (65 << 20)").await.error.unwrap();
    assert_eq!((error.code.as_str(), error.kind), ("RESULT_TOO_LARGE", ErrorKind::Limit));
    let outcome = bench.python("result = 'x' * (20 << 20)").await;
    assert_eq!(outcome.data.as_str().unwrap().len(), 20 << 20);
}

#[tokio::test]
async fn an_exception_is_a_soft_error_with_its_type_and_text() {
    let bench = Bench::new();
    let table = [
        ("raise ValueError('bad thing')", "ValueError", "ValueError: bad thing"),
        ("1/0\nreturn 1", "ZeroDivisionError", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError", "SyntaxError: invalid syntax (<a_step>, line 1)"),
        ("yield 1\nreturn 2", "SyntaxError", "SyntaxError: 'yield' outside function (<a_step>, line 1)"),
        ("class C:\n  return 1", "SyntaxError", "SyntaxError: 'return' outside function (<a_step>, line 2)"),
        ("undefined", "NameError", "NameError: name 'undefined' is not defined"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("sys.exit(3)", "SystemExit", "SystemExit: 3"),
        ("sys.exit('no data')", "SystemExit", "SystemExit: no data"),
        ("def main(a):\n  return a", "TypeError", "TypeError: main() missing 1 required positional argument: 'a'"),
        ("async def main():\n  raise KeyError('k')", "KeyError", "KeyError: 'k'"),
        ("class E(Exception):\n  def __str__(s): raise ValueError\nraise E", "E", "E"),
        ("raise OverflowError('big')", "OverflowError", "OverflowError: big"),
        ("def f(): f()\nf()", "RecursionError", "RecursionError: maximum recursion depth exceeded"),
    ];
    for (code, exception_type, message) in table {
        let outcome = bench.python(code).await;
        let error = outcome.error.expect(code);
        assert_eq!(
            (error.kind, error.code.as_str(), error.hard),
            (ErrorKind::Code, "PYTHON_EXCEPTION", false),
            "{code}"
        );
        assert_eq!(error.message, message, "{code}");
        assert_eq!(error.details["exception_type"], exception_type, "{code}");
        assert_eq!(outcome.py, Some(json!({"exception_type": exception_type})), "{code}");
        assert_eq!(outcome.stopped, None, "{code}");
    }
    assert_eq!(bench.python("sys.exit(3)").await.error.unwrap().details["exit_code"], 3);
}

#[tokio::test]
async fn the_log_has_prints_and_a_traceback_of_the_codes_own_lines() {
    let bench = Bench::new();
    let (log, _lines) = Lines::new();
    let code = "print('one')\nprint('two', end='')\ndef f():\n    raise ValueError('x')\nf()";
    bench.run_with(python(code), StopSignal::never(), &log).await;
    let of = |wanted| {
        log.all().into_iter().filter(|(stream, _)| *stream == wanted).map(|(_, line)| line).collect::<Vec<_>>()
    };
    assert_eq!(of(Stream::Stdout), ["one", "two"]);
    let traceback = of(Stream::Stderr).join("\n");
    assert!(traceback.contains("File \"<a_step>\", line 5, in <module>\n    f()"), "{traceback}");
    assert!(traceback.contains("raise ValueError('x')"), "{traceback}");
    assert!(!traceback.contains("<noetl>"), "{traceback}");
}

#[tokio::test]
async fn libraries_come_under_their_alias() {
    let bench = Bench::new();
    let run = async |libs: Value, code: &str| bench.run(call("python", json!({"libs": libs, "code": code}))).await;
    let outcome = run(
        json!({"m": "math", "D": {"from": "decimal", "import": "Decimal"}, "path": {"from": "os", "import": "path"},
        "datetime": {"from": "datetime", "import": "datetime"}, "etree": {"from": "xml", "import": "etree"}}),
        "result = [m.floor(1.5), D('2'), path.sep, datetime(2024, 1, 2).year, etree.__name__]",
    )
    .await;
    assert_eq!((outcome.error, outcome.data), (None, json!([1, 2, "/", 2024, "xml.etree"])));
    let outcome = run(json!(["psycopg2-binary-that-is-not-there", "math"]), "result = math.floor(1.5)").await;
    assert_eq!((outcome.error, outcome.data), (None, json!(1)));
    let error = run(json!({"x": "no_such_module"}), "result = 1").await.error.unwrap();
    assert_eq!(
        (error.code.as_str(), &error.details["exception_type"]),
        ("PYTHON_EXCEPTION", &json!("ModuleNotFoundError"))
    );
    let error = run(json!({"x": 1}), "result = 1").await.error.unwrap();
    assert!(error.hard && error.kind == ErrorKind::Config);
}

#[tokio::test]
async fn a_script_comes_from_its_text_or_from_a_file() {
    let bench = Bench::new();
    std::fs::write(bench.directory.path().join("job.py"), "def main(name, count):\n  return name * count").unwrap();
    let absolute = format!("file://{}", bench.directory.path().join("job.py").display());
    let inline = json!({"uri": "inline", "source": {"type": "inline", "code": "result = name * count"}});
    for script in [
        inline,
        json!({"uri": "./job.py", "source": {"type": "file"}}),
        json!({"uri": "job.py"}),
        json!({"uri": absolute}),
    ] {
        let call = call("python", json!({"script": script, "args": {"count": 1, "name": "x"}}));
        let outcome = bench.run(ToolCall { input: map(json!({"count": 3})), ..call }).await;
        assert_eq!((outcome.error, outcome.data), (None, json!("xxx")), "{script}");
    }
    let table = [
        (json!({"script": {"uri": "ftp://h/x.py"}}), "scripts can not be loaded from `ftp`: use inline, file or http"),
        (
            json!({"script": {"uri": "x", "source": {"type": "http"}}}),
            "`script.uri` is no whole address, and `script.source.endpoint` is missing",
        ),
        (
            json!({"script": {"uri": "http://h/x", "source": {"timeout": "soon"}}}),
            "`script.source.timeout` must be a number of seconds",
        ),
        (
            json!({"script": {"source": {"type": "inline"}}}),
            "`script.source.code` is missing: an inline script needs its code",
        ),
        (json!({"script": {}}), "`script.uri` is missing: give the path of the file"),
        (json!({"script": "x.py"}), "`script` must be a mapping: {uri, source: {type: inline | file | http}}"),
        (json!({"code": "1", "script": {}}), "`code` and `script` exclude each other: give one of them"),
        (json!({"code": 1}), "`code` must be a text"),
        (json!({}), "`code` or `script` is missing: give the code to run"),
    ];
    for (config, message) in table {
        let error = bench.run(call("python", config)).await.error.unwrap();
        assert_eq!((error.message.as_str(), error.hard, error.kind), (message, true, ErrorKind::Config));
    }
    let error = bench.run(call("python", json!({"script": {"uri": "gone.py"}}))).await.error.unwrap();
    assert!(error.hard && error.message.contains("gone.py can not be used: No such file"), "{}", error.message);
}

#[tokio::test]
async fn an_interrupt_lets_the_code_clean_up() {
    let mut bench = Bench::new();
    let table = [
        "import time\ntry:\n  print('ready')\n  time.sleep(1000)\nfinally:\n  print('cleaned')",
        "import time\ntry:\n  print('ready')\n  time.sleep(1000)\nfinally:\n  print('cleaned')\nreturn 1",
        "import asyncio\nasync def main():\n  try:\n    print('ready')\n    await asyncio.sleep(1000)\n  finally:\n    print('cleaned')",
        "import subprocess\ntry:\n  print('ready')\n  subprocess.run(['sleep', '1000'])\nfinally:\n  print('cleaned')",
        "import threading\ntry:\n  print('ready')\n  threading.Event().wait()\nfinally:\n  print('cleaned')",
        "try:\n  print('ready')\n  while True: pass\nfinally:\n  print('cleaned')",
    ];
    for code in table {
        let (log, mut lines) = Lines::new();
        let (handle, signal) = stop_line();
        let stop = async {
            printed(&mut lines, "ready").await;
            handle.order(StopOrder { grace_ms: 3_600_000 });
        };
        let (outcome, ()) = tokio::join!(bench.run_with(python(code), signal, &log), stop);
        assert_eq!(outcome.error.unwrap().kind, ErrorKind::Cancelled, "{code}");
        assert_eq!(outcome.stopped, Some(Stopped::Stopped), "{code}");
        assert!(log.all().iter().any(|(_, line)| line == "cleaned"), "{code}");
        bench.assert_nothing_runs();
        assert_eq!(bench.interpreter(), None, "{code}");
    }
}

#[tokio::test]
async fn what_interrupted_code_still_returns_or_raises_does_not_hide_the_interrupt() {
    let bench = Bench::new();
    let wait = "import time\ntry:\n  print('ready')\n  time.sleep(1000)\nexcept KeyboardInterrupt:\n";
    let table = [
        ("  result = 'partial'", json!("partial")),
        ("  raise ValueError", json!(null)),
        ("  sys.exit(3)", json!(null)),
    ];
    for (last, data) in table {
        let (log, mut lines) = Lines::new();
        let (handle, signal) = stop_line();
        let stop = async {
            printed(&mut lines, "ready").await;
            handle.order(StopOrder { grace_ms: 3_600_000 });
        };
        let (outcome, ()) = tokio::join!(bench.run_with(python(&format!("{wait}{last}")), signal, &log), stop);
        assert_eq!((outcome.error.unwrap().kind, outcome.data), (ErrorKind::Cancelled, data), "{last}");
        assert_eq!((outcome.stopped, outcome.py), (Some(Stopped::Stopped), None), "{last}");
    }
}

#[tokio::test]
async fn code_that_will_not_be_interrupted_is_killed() {
    let mut bench = Bench::new();
    let table = [
        "import time\nwhile True:\n  try:\n    print('ready')\n    time.sleep(1000)\n  except: pass",
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready')\ntime.sleep(1000)",
        "import os, time\nif not os.fork(): os.setsid()\nwhile True:\n  try:\n    print('ready')\n    time.sleep(1000)\n  except: pass",
        "import os, signal\ntry:\n  print('ready')\n  os.kill(os.getpid(), signal.SIGSTOP)\nfinally:\n  while True: pass",
    ];
    for code in table {
        let (log, mut lines) = Lines::new();
        let (handle, signal) = stop_line();
        let stop = async {
            printed(&mut lines, "ready").await;
            handle.order(StopOrder { grace_ms: 100 });
        };
        let (outcome, ()) = tokio::join!(bench.run_with(python(code), signal, &log), stop);
        assert_eq!(outcome.stopped, Some(Stopped::Killed), "{code}");
        bench.assert_nothing_runs();
        assert_eq!(bench.interpreter(), None, "{code}");
    }
}

#[tokio::test]
async fn an_interpreter_that_was_asked_to_end_is_nudged_until_it_does() {
    // Python may enter a long system call between a signal and its own look at it. The moment can not be made to
    // order, but what helps can be seen.
    let bench = Bench::new();
    let code = "import signal, time\nsignal.signal(signal.SIGURG, lambda *_: os.write(1, b'nudged\\n'))\n\
                signal.signal(signal.SIGTERM, lambda *_: None)\nprint('ready')\ntime.sleep(1000)";
    let (log, mut lines) = Lines::new();
    let (handle, signal) = stop_line();
    let stop = async {
        printed(&mut lines, "ready").await;
        handle.order(StopOrder { grace_ms: 3_600_000 });
        printed(&mut lines, "nudged").await;
        printed(&mut lines, "nudged").await;
        handle.order(StopOrder { grace_ms: 0 });
    };
    let (outcome, ()) = tokio::join!(bench.run_with(python(code), signal, &log), stop);
    assert_eq!(outcome.stopped, Some(Stopped::Killed));
}

#[tokio::test]
async fn code_that_takes_its_interpreter_along_is_an_error_and_the_next_runs() {
    let mut bench = Bench::new();
    let table = [
        ("os._exit(4)", "the python process ended with status 4 before the code was done"),
        ("import ctypes\nctypes.string_at(0)", "the python process was ended by signal 11"),
        ("import signal\nos.kill(os.getpid(), signal.SIGKILL)", "the python process was ended by signal 9"),
        (
            "import signal\nos.kill(os.getpid(), signal.SIGTERM)",
            "the python process ended with status 0 before the code was done",
        ),
    ];
    for (code, message) in table {
        let outcome = bench.python(code).await;
        let error = outcome.error.expect(code);
        assert_eq!((error.code.as_str(), error.kind, error.hard), ("PYTHON_EXITED", ErrorKind::Code, false));
        assert_eq!((error.message.as_str(), outcome.stopped), (message, None), "{code}");
        bench.assert_nothing_runs();
        assert_eq!(bench.python("result = 1").await.data, json!(1));
    }
    // All files closed, the way of the worker included.
    let outcome = bench.python("import time\nos.closerange(0, 100)\nprint(1)").await;
    assert_eq!(outcome.error.unwrap().code, "PYTHON_EXITED");
    assert_eq!(bench.python("result = 1").await.data, json!(1));
}

#[tokio::test]
async fn an_interpreter_that_can_not_begin_says_why() {
    // Like one whose library is missing: it ends before it has read anything.
    let bench = Bench::with(|config| "sh".clone_into(&mut config.python));
    let error = bench.python("result = 1").await.error.unwrap();
    let begin = "the python process ended with status 2 before the code was done: sh: ";
    assert!(error.code == "PYTHON_EXITED" && error.message.starts_with(begin), "{error:?}");
    assert!(error.details["stderr"].as_str().unwrap().contains("yntax error"), "{error:?}");
}

#[tokio::test]
async fn what_code_printed_before_it_took_its_interpreter_along_is_no_part_of_the_error() {
    let bench = Bench::new();
    let outcome = bench.python("print('s3cret', file=sys.stderr, flush=True)\nos._exit(4)").await;
    assert!(!json!(outcome.error).to_string().contains("s3cret"), "{:?}", outcome.error);
}

#[tokio::test]
async fn a_forked_copy_of_the_code_does_not_answer_in_its_place() {
    let mut bench = Bench::new();
    let code = "pid = os.fork()\nif pid:\n  os.waitpid(pid, 0)\nresult = 'parent' if pid else 'child'";
    assert_eq!(bench.python(code).await.data, json!("parent"));
    let code = "pid = os.fork()\nif not pid:\n  raise ValueError\nresult = os.WEXITSTATUS(os.waitpid(pid, 0)[1])";
    assert_eq!(bench.python(code).await.data, json!(1));
    bench.assert_nothing_runs();
}
