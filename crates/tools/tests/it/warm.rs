//! An interpreter stays warm as long as commands leave it clean.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Bench, kill};

#[tokio::test]
async fn a_clean_command_leaves_its_interpreter_to_the_next() {
    let bench = Bench::new();
    let first = bench.python("result = os.getpid()").await.data;
    for code in [
        "import subprocess\nsubprocess.run(['true'])\nresult = os.getpid()",
        "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()\nresult = os.getpid()",
        "import asyncio\nasync def main(): return os.getpid()",
        "result = os.getpid()",
    ] {
        assert_eq!(bench.python(code).await.data, first, "{code}");
    }
    assert_eq!(bench.python("raise ValueError").await.stopped, None);
    // A task beside it does not disturb it, whatever that leaves.
    bench.shell("setsid -f sleep 1000; (trap '' TERM; sleep 1000) &").await;
    assert_eq!(bench.python("result = os.getpid()").await.data, first);
}

#[tokio::test]
async fn a_command_that_leaves_something_costs_its_interpreter() {
    let mut bench = Bench::new();
    let table = [
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
        "import subprocess\nsubprocess.Popen(['sleep', '1000'])",
        "import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True, stdout=-3, stderr=-3)",
        "import subprocess\nsubprocess.run('setsid -f sleep 1000', shell=True)",
        "import subprocess\nsubprocess.run('trap \"\" TERM; sleep 1000 & exit', shell=True)",
        "if not os.fork():\n  import time\n  time.sleep(1000)",
        "import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_DFL)",
        "import signal\nsignal.setitimer(signal.ITIMER_REAL, 1000)",
        "os.close(1)",
        "sys.stdout.close()",
        "os.dup2(os.open('/dev/null', os.O_WRONLY), 1)",
        "sys.path.append('elsewhere')",
        "files = [os.dup(0) for _ in range(100)]",
    ];
    for code in table {
        let before = bench.python("result = os.getpid()").await.data;
        let outcome = bench.python(&format!("{code}\nresult = 'done'")).await;
        assert_eq!((outcome.error, outcome.data, outcome.stopped), (None, json!("done"), None), "{code}");
        bench.assert_nothing_runs();
        let after = bench.python("print('heard')\nresult = os.getpid()").await.data;
        assert_ne!(before, after, "{code}");
    }
}

#[tokio::test]
async fn nothing_of_one_command_is_seen_by_the_next() {
    let bench = Bench::new();
    let before =
        bench.python("result = [os.getpid(), os.getcwd(), sorted(os.environ), sys.getrecursionlimit()]").await.data;
    let code = "import builtins, decimal, io, logging, random\n\
                leftover = 1\nos.environ['LEFTOVER'] = '1'\ndel os.environ['PATH']\nos.chdir('/')\nos.umask(0)\n\
                builtins.leftover_too = 1\nbuiltins.len = None\nsys.setrecursionlimit(5000)\nsys.stdout = io.StringIO()\n\
                decimal.getcontext().prec = 2\nlogging.basicConfig(level=10)\nrandom.seed(1)\nresult = random.random()";
    let seeded = bench.python(code).await.data;
    let code = "import decimal, logging, random\n\
                print('heard')\nnames = [name for name in ('leftover', 'leftover_too') if name in globals() or name in dir(__builtins__)]\n\
                mask = os.umask(0o22)\nos.umask(mask)\n\
                result = [names, len('abc'), decimal.getcontext().prec, logging.root.handlers, mask != 0, random.random(), sys.stdout.closed]";
    let outcome = bench.python(code).await;
    let seen = outcome.data.as_array().unwrap();
    assert_eq!(
        (&seen[0], &seen[1], &seen[2], &seen[3], &seen[4]),
        (&json!([]), &json!(3), &json!(28), &json!([]), &json!(true))
    );
    assert_ne!(seen[5], seeded);
    let after =
        bench.python("result = [os.getpid(), os.getcwd(), sorted(os.environ), sys.getrecursionlimit()]").await.data;
    assert_eq!(before, after);
}

#[tokio::test]
async fn what_code_sets_in_the_interpreter_and_its_modules_is_gone_with_it() {
    let bench = Bench::new();
    let look = "import asyncio, locale, logging, random, socket, time, uuid, warnings\n\
                loop = asyncio.get_event_loop() if sys.version_info < (3, 14) else asyncio.new_event_loop()\nloop.close()\n\
                warnings.warn('only a warning', DeprecationWarning)\n\
                class Stranger: pass\n\
                try: json.dumps(Stranger())\nexcept TypeError: unknown = True\nelse: unknown = False\n\
                result = [logging.root.isEnabledFor(logging.ERROR), socket.getdefaulttimeout(), list(time.tzname), \
                locale.setlocale(locale.LC_ALL), json.dumps([1]), json.loads('[1]'), unknown, os.getcwd(), \
                isinstance(os.environ, dict), time.time() > 1, uuid.uuid4() != uuid.uuid4(), os.path.join('a', 'b'), \
                warnings.showwarning.__module__, os.getpid()]";
    let before = bench.python(look).await;
    assert_eq!(before.error, None);
    for code in [
        "import asyncio\nasync def main(): return 1",
        "import asyncio\nasync def f(): return 1\nresult = asyncio.run(f())",
        "import asyncio\nasyncio.set_event_loop_policy(type('P', (asyncio.DefaultEventLoopPolicy,), {'get_event_loop': None})())",
        "import warnings\nwarnings.filterwarnings('error')",
        "import warnings\nwarnings.simplefilter('error')",
        "import logging\nlogging.disable(logging.CRITICAL)\nlogging.captureWarnings(True)",
        "import socket\nsocket.setdefaulttimeout(0.01)",
        "import time\nos.environ['TZ'] = 'Asia/Tokyo'\ntime.tzset()",
        "import time\nold = dict(os.environ)\nos.environ['TZ'] = 'Asia/Tokyo'\ntime.tzset()\nos.environ.clear()\nos.environ.update(old)",
        "os.environ = dict(os.environ)",
        "json.dumps = json.loads = None",
        "json.encoder.c_make_encoder = None\njson.JSONEncoder.default = lambda self, value: str(value)",
        "json.JSONEncoder.more = 1\nos.getcwd = os.getpid = os.path.join = lambda *_: 'elsewhere'\nos.fstat = os.write = os.listdir = None",
        "import time, uuid\ntime.time = uuid.uuid4 = lambda: 0",
    ] {
        let outcome = bench.python(code).await;
        assert_eq!(outcome.error, None, "{code}");
        let after = bench.python(look).await;
        assert_eq!((after.error, after.data), (None, before.data.clone()), "{code}");
    }
}

#[tokio::test]
async fn an_interpreter_that_dies_while_idle_is_not_noticed() {
    let bench = Bench::new();
    let first = bench.python("result = os.getpid()").await.data;
    // Again and again, so that the command meets the death at different moments.
    for _ in 0..10 {
        kill(bench.interpreter().unwrap(), Signal::KILL);
        let outcome = bench.python("result = os.getpid()").await;
        assert_eq!(outcome.error, None);
        assert_ne!(outcome.data, first);
    }
    kill(bench.interpreter().unwrap(), Signal::KILL);
    assert_eq!(bench.shell("echo fine").await.data["stdout"], "fine\n");
}

#[tokio::test]
async fn an_interpreter_retires_after_its_last_command() {
    let bench = Bench::new();
    let first = bench.python("result = os.getpid()").await.data;
    for _ in 2..=1000 {
        assert_eq!(bench.python("result = os.getpid()").await.data, first);
    }
    assert_ne!(bench.python("result = os.getpid()").await.data, first);
}

#[tokio::test]
async fn slots_do_not_share_anything() {
    let bench = Bench::new();
    let pid = async |slot| {
        let call = crate::support::python("result = os.getpid()");
        bench.run_in(slot, call).await.data
    };
    let (one, two) = tokio::join!(pid(0), pid(1));
    assert_ne!(one, two);
    let error = bench.run_in(2, crate::support::python("1")).await;
    assert_eq!(error.error.unwrap().message, "there is no slot 2: the toolbox has 2");
}
