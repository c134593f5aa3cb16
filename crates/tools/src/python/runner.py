"""Runs one piece of playbook code after the other, in one interpreter that stays warm.

The worker starts this with `control`, a buffered binary reader on a socket, and sends one command at a time: a
length (four bytes, big-endian) and JSON. Two frames answer it: "started" at once, then the outcome. What the code
prints goes to the process's own stdout and stderr, which the worker reads; stdin is empty.

A command leaves the interpreter as it found it, or says in `dirty` why it could not: then it is replaced. What code
imports stays imported; that is what a warm interpreter is for.

SIGTERM is the polite stop. While code runs it becomes a KeyboardInterrupt, so that `finally:` runs. SIGURG follows
it, and only wakes us: a signal that comes just before a long system call is otherwise not acted on before its end.
"""

import _locale
import _thread
import ast
import builtins
import collections.abc
import contextvars
import datetime
import decimal
import dis
import gc
import importlib
import json
import linecache
import os
import signal
import sys
import time
import traceback
import types
import uuid
import warnings

RESULT_BYTES_MAX = 64 << 20  # the worker refuses more
MESSAGE_CHARS_MAX = 8192
COMPILED_MAX = 256  # programs kept compiled
COMPILED_CHARS_MAX = 1 << 20  # longer ones are compiled each time
LEAKED_FILES_MAX = 64  # files that commands may leave open, together
MODULE = "noetl_step"
READY_MADE = ("input_data", "args", "context", "variables", "execution_id", "step")
NO_RETURN = object()
getpid, exit_at_once = os.getpid, os._exit  # what we need before the code's own are put back


# --- Code -------------------------------------------------------------------------------------------------------


class Program:
    """Compiled code. `wrapped`: it holds a top-level `return`, and so it became the body of a function."""

    def __init__(self, code, filename):
        self.lines = (len(code), None, code.splitlines(True), filename)
        tree = compile(code, filename, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        own = list(own_scope(tree))
        self.wrapped = any(isinstance(node, ast.Return) for node in own)
        if self.wrapped:
            tree = wrap(tree, own, filename)
        self.code = compile_tree(tree, filename)
        self.assigns_result = assigns(self.code, "result", ("STORE_NAME", "STORE_GLOBAL"))

    def run(self, namespace):
        """Returns the value of a top-level return, else NO_RETURN."""
        value = eval(self.code, namespace)  # a coroutine if the code awaits on top level
        if self.wrapped:
            function = namespace.pop("__noetl_body__")
            namespace["__noetl_import_all__"] = lambda statement: exec(statement, namespace)
            namespace["__noetl_no_return__"] = NO_RETURN
            return awaited(awaited(function()))
        awaited(value)
        return NO_RETURN


def compile_tree(tree, filename):
    return compile(tree, filename, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def own_scope(node):
    """Yields the nodes below that do not belong to a function or class of their own."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, SCOPES):
            yield from own_scope(child)


def wrap(tree, own, filename):
    """Makes a module with top-level `return` into one with a function, in which every name is still global.

    A function and not an exception in place of `return`: `with` and `except:` would see the exception, and a
    database connection would roll back.
    """
    for node in own:
        if isinstance(node, (ast.Yield, ast.YieldFrom)):
            raise SyntaxError("'yield' outside function", (filename, node.lineno, node.col_offset + 1, None))
    waits = (ast.Await, ast.AsyncFor, ast.AsyncWith)
    is_async = any(isinstance(node, waits) or getattr(node, "is_async", 0) for node in own)
    head, body = [], tree.body
    while body and isinstance(body[0], ast.Expr) and isinstance(getattr(body[0], "value", None), ast.Constant):
        head, body = head + body[:1], body[1:]  # the docstring
    while body and isinstance(body[0], ast.ImportFrom) and body[0].module == "__future__":
        head, body = head + body[:1], body[1:]
    module = ast.parse(("async " if is_async else "") + "def __noetl_body__(): return __noetl_no_return__")
    function = module.body[0]
    function.body = [ForFunction().visit(statement) for statement in body] + function.body
    module.body = head + module.body
    ast.fix_missing_locations(module)
    # The compiler itself tells which names would be the function's own.
    inner = next(c for c in compile_tree(module, filename).co_consts if getattr(c, "co_name", "") == "__noetl_body__")
    names = sorted(name for name in {*inner.co_varnames, *inner.co_cellvars} if name.isidentifier())
    if names:
        function.body.insert(0, ast.Global(names=names))
        ast.fix_missing_locations(module)
    return module


class ForFunction(ast.NodeTransformer):
    """Rewrites what is allowed in a module but not in a function with globals."""

    def visit_AnnAssign(self, node):
        if not isinstance(node.target, ast.Name):
            return node
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)

    def visit_ImportFrom(self, node):
        if [alias.name for alias in node.names] != ["*"]:
            return node
        statement = ast.Constant(value="from %s%s import *" % ("." * node.level, node.module or ""))
        name = ast.Name(id="__noetl_import_all__", ctx=ast.Load())
        call = ast.Expr(ast.Call(func=name, args=[statement], keywords=[]))
        return ast.fix_missing_locations(ast.copy_location(call, node))

    def leave_alone(self, node):
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = leave_alone


def assigns(code, name, operations):
    """Returns whether the code assigns the global `name`, itself or in a function with `global`."""
    if any(step.opname in operations and step.argval == name for step in dis.get_instructions(code)):
        return True
    nested = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return any(assigns(constant, name, ("STORE_GLOBAL",)) for constant in nested)


def awaited(value):
    if not isinstance(value, types.CoroutineType):
        return value
    import asyncio

    return asyncio.run(value)


compiled = collections.OrderedDict()


def program(code, step):
    key = (code, step)
    known = compiled.pop(key, None) or Program(code, "<%s>" % step)
    if len(code) <= COMPILED_CHARS_MAX:
        compiled[key] = known
        if len(compiled) > COMPILED_MAX:
            compiled.popitem(last=False)
    filename = known.lines[3]
    linecache.cache[filename] = known.lines  # tracebacks show the code's lines
    return known


# --- Results ----------------------------------------------------------------------------------------------------


class NotJson(Exception):
    pass


def plain(value):
    """Returns a JSON form of what JSON does not know."""
    if isinstance(value, decimal.Decimal):
        # A number if its shortest spelling has the same value; money must not change on its way.
        if value.is_finite():
            if value == value.to_integral_value() and abs(value) < 1 << 63:
                return int(value)
            number = float(value)
            if decimal.Decimal(repr(number)) == value:
                return number
        return str(value)
    if isinstance(value, (set, frozenset, collections.deque, range, type({}.keys()), type({}.values()))):
        return list(value)
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "replace")
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if callable(getattr(value, "tolist", None)):  # numpy's arrays and scalars
        return value.tolist()
    return str(value)


write_json = json.JSONEncoder(default=plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
read_json = json.JSONDecoder().decode


def result_json(value):
    try:
        try:
            text = write_json(value)
        except TypeError:
            # Keys that JSON does not know; found only now, because they are rare and the search is slow.
            text = write_json(with_text_keys(value))
    except RecursionError:
        raise NotJson("the result is nested too deeply") from None
    except ValueError as error:
        if "ircular" in str(error):
            raise NotJson("the result contains itself") from None
        place = place_of_nan(value, "result")
        if place is None:
            raise
        raise NotJson(
            "%s is no number that JSON knows (NaN or infinite): make it None or a text" % place
        ) from None
    if len(text) > RESULT_BYTES_MAX:
        raise OverflowError
    try:
        data = text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        data = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    if len(data) > RESULT_BYTES_MAX:
        raise OverflowError
    return data


def with_text_keys(value):
    if isinstance(value, dict):
        keep = (str, int, float, bool, type(None))
        return {key if isinstance(key, keep) else str(key): with_text_keys(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_text_keys(item) for item in value]
    return value


def place_of_nan(value, place):
    if isinstance(value, float):
        return place if value != value or value in (float("inf"), float("-inf")) else None
    if isinstance(value, dict):
        inside = ((item, "%s.%s" % (place, key)) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        inside = ((item, "%s[%d]" % (place, index)) for index, item in enumerate(value))
    elif isinstance(value, (str, int, bool, type(None))):
        return None
    else:
        inside = [(plain(value), place)]
    return next(filter(None, (place_of_nan(item, name) for item, name in inside)), None)


# --- One command ------------------------------------------------------------------------------------------------


def new_namespace(command, module):
    """Returns the globals of the code: the flat names, ready-made ones, libraries, the arguments; later ones win."""
    args = command["args"]
    execution_id, step = command["execution_id"], command["step"]
    context = command["context"] if isinstance(command["context"], dict) else {}
    variables = context.get("ctx")
    system = {
        "args": dict(args),
        "variables": dict(variables) if isinstance(variables, dict) else {},
        "execution_id": execution_id,
        "step": step,
    }
    namespace = module.__dict__
    # Bare names as in templates. Not what every code counts on: a workload may well have a key called `type`.
    namespace.update((name, value) for name, value in context.items() if is_free(name))
    namespace.update(json=json, sys=sys, os=os, datetime=datetime, uuid=uuid)
    namespace.update(system, input_data=dict(args))
    # A workload may well have a key called `server_url`, and means that.
    namespace["context"] = {"server_url": command["server_url"], **context, **system}
    for alias, library in command["libs"]:
        namespace[alias] = load(library)
    for name in command["wishes"]:
        try:
            namespace[name] = importlib.import_module(name)
        except ImportError:
            pass  # a list names packages, and a package's name need not be a module's
    namespace.update((name, value) for name, value in args.items() if not is_dunder(name))
    return namespace


def is_free(name):
    return name.isidentifier() and name not in ("result", "main") and not hasattr(builtins, name) and not is_dunder(name)


def is_dunder(name):
    return name.startswith("__") and name.endswith("__")


def load(library):
    module, name = library
    if name is None:
        return importlib.import_module(module)
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError:
        return importlib.import_module(module + "." + name)


def value_of(command, namespace):
    """Runs the code and returns its result: a `return`, else `result`, else what `main` returns, else NO_RETURN."""
    code = program(command["code"], command["step"])
    args = command["args"]
    left_early = False
    try:
        value = code.run(namespace)
    except SystemExit as error:
        if exit_status(error) != 0:
            raise
        value, left_early = NO_RETURN, True
    if value is not NO_RETURN:
        return value
    if "result" in namespace and ("result" not in args or code.assigns_result):
        return awaited(namespace["result"])
    main = namespace.get("main")
    if left_early or not callable(main) or "main" in args:
        return NO_RETURN
    try:
        return awaited(main(**matching(main, args, namespace)))
    except SystemExit as error:
        if exit_status(error) != 0:
            raise
        return NO_RETURN


def matching(function, args, namespace):
    """Returns what the function has parameters for: arguments, and what code finds ready-made."""
    import inspect

    parameters = inspect.signature(function).parameters.values()
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    matched = {name: value for name, value in args.items() if takes_all or name in named}
    for name in READY_MADE:
        # A default of the function's own is what its author wants when nobody gives the argument.
        if name not in matched and name in named and named[name].default is inspect.Parameter.empty:
            matched[name] = namespace[name]
    return matched


class Interruption:
    """What a SIGTERM means now."""

    def __init__(self):
        self.busy = False  # a command is being worked on
        self.in_code = False  # and its own code is running
        self.came = False
        self.hit_code = False

    def handle(self, *_):
        if not self.busy:
            exit_at_once(0)
        self.came = True
        if self.in_code:
            self.hit_code = True
            raise KeyboardInterrupt("stopped on request")


interruption = Interruption()


def run(command):
    """Runs a command; returns the JSON of its outcome."""
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module  # dataclasses and pickle look for it there
    pid = getpid()
    try:
        try:
            interruption.in_code = True
            namespace = new_namespace(command, module)
            value = contextvars.copy_context().run(value_of, command, namespace)
            outcome = b'"printed"' if value is NO_RETURN else b'{"value":' + result_json(value) + b"}"
        finally:
            interruption.in_code = False
            if getpid() != pid:
                # The code forked and this is the child: it must not answer in its parent's name.
                flush()
                exit_at_once(exit_status(sys.exc_info()[1]))
    except NotJson as error:
        return refused("RESULT_NOT_JSON", str(error))
    except OverflowError as error:
        if error.args:
            return raised(error)
        return refused("RESULT_TOO_LARGE", "the result exceeds the limit of %d bytes" % RESULT_BYTES_MAX)
    except KeyboardInterrupt as error:
        return b'"interrupted"' if interruption.hit_code else raised(error)
    except BaseException as error:
        return raised(error)
    finally:
        interruption.in_code = False
        sys.modules.pop(MODULE, None)
        module.__dict__.clear()
    return outcome


def exit_status(error):
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        return 1
    return error.code if isinstance(error.code, int) else 0 if error.code is None else 1


def refused(code, message):
    return b'{"refused":' + write_json({"code": code, "message": message}).encode() + b"}"


def raised(error):
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = ""
    message = "%s: %s" % (name, text) if text else name
    trace = error.__traceback__
    while trace and trace.tb_frame.f_globals is globals():
        trace = trace.tb_next  # the runner's own frames
    try:
        traceback.print_exception(type(error), error, trace, file=STDERR)
    except Exception:
        print(message, file=STDERR)
    facts = {"exception_type": name, "message": message[:MESSAGE_CHARS_MAX]}
    if isinstance(error, SystemExit):
        facts["exit_code"] = exit_status(error)
    return b'{"raised":' + write_json(facts).encode("utf-8", "replace") + b"}"


# --- Between commands -------------------------------------------------------------------------------------------


STDIN, STDOUT, STDERR = sys.stdin, sys.stdout, sys.stderr


def flush():
    for stream in (STDOUT, STDERR):
        try:
            stream.flush()
        except Exception:
            pass  # closed by the code: the check of the files finds it


class Names:
    """What a module or class is to offer between commands.

    Only what we use ourselves or hand to code ready-made: to look at every module would cost more than most commands.
    """

    # What modules keep for themselves (`uuid._node`) may change.
    STATE = (type(None), int, float, str, bytes, tuple, list, dict, set)

    def __init__(self, owner):
        self.owner = owner
        self.names = dict(vars(owner))

    def restore(self):
        if vars(self.owner) == self.names:
            return
        for name, value in self.names.items():
            if vars(self.owner).get(name) is not value and not isinstance(value, self.STATE):
                setattr(self.owner, name, value)
        if isinstance(self.owner, type):
            for name in [name for name in vars(self.owner) if name not in self.names]:
                delattr(self.owner, name)
        self.names = dict(vars(self.owner))


class Baseline:
    """How the interpreter is to be between commands."""

    OWNERS = (
        *(contextvars, datetime, decimal, gc, importlib, json, json.decoder, json.encoder, linecache, os, os.path),
        *(signal, time, traceback, types, uuid, warnings, json.JSONDecoder, json.JSONEncoder),
    )
    ENVIRON = os.environ
    SIGNALS = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]

    def __init__(self, files):
        self.files = {file: self.identity(file) for file in files}
        self.file_count = self.count_files()
        self.handlers = self.signal_handlers()
        self.environ = dict(os.environ)
        self.directory = os.getcwd()
        self.path = list(sys.path)
        self.builtins = dict(vars(builtins))
        self.recursion_limit = sys.getrecursionlimit()
        self.umask = self.current_umask()
        self.owners = [Names(owner) for owner in self.OWNERS]
        self.warnings = list(warnings.filters)
        self.zone = self.current_zone()
        self.locale = _locale.setlocale(_locale.LC_ALL)

    @staticmethod
    def identity(file):
        status = os.fstat(file)
        return status.st_dev, status.st_ino

    @staticmethod
    def count_files():
        return len(os.listdir("/proc/self/fd"))

    @staticmethod
    def current_umask():
        mask = os.umask(0o77)
        os.umask(mask)
        return mask

    @staticmethod
    def current_zone():
        return time.tzname, time.timezone, time.altzone

    def signal_handlers(self):
        return [signal.getsignal(number) for number in self.SIGNALS]

    def restore(self):
        """Undoes what can be undone; returns why the interpreter is to be replaced, or None."""
        sys.stdin, sys.stdout, sys.stderr = STDIN, STDOUT, STDERR
        sys.settrace(None)
        sys.setprofile(None)
        sys.setrecursionlimit(self.recursion_limit)
        # First what everything below is done with.
        names = vars(builtins)
        if names != self.builtins:
            names.clear()
            names.update(self.builtins)
        for owner in self.owners:
            owner.restore()
        os.environ = self.ENVIRON  # another mapping may be equal to it, and is not the environment
        os.umask(self.umask)
        if dict(os.environ) != self.environ:
            os.environ.clear()
            os.environ.update(self.environ)
            time.tzset()
        elif self.current_zone() != self.zone:
            time.tzset()
        os.chdir(self.directory)
        if _locale.setlocale(_locale.LC_ALL) != self.locale:
            _locale.setlocale(_locale.LC_ALL, self.locale)
        self.restore_loaded()
        if warnings.filters != self.warnings:
            warnings.resetwarnings()
            warnings.filters[:] = self.warnings
        if sys.path != self.path:
            return "sys.path was changed"  # and what was imported by it could be another's module
        if self.signal_handlers() != self.handlers:
            return "signal handlers were changed"
        if signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0):
            return "an alarm is set"
        if _thread._count() > 0:
            return "threads are left"
        if any(self.identity(file) != identity for file, identity in self.files.items()):
            return "standard streams were changed"
        if self.count_files() > self.file_count + LEAKED_FILES_MAX:
            return "files were left open"
        return None

    @staticmethod
    def restore_loaded():
        """Undoes what code set in modules that we do not load ourselves."""
        if "random" in sys.modules:
            sys.modules["random"].seed()
        if "logging" in sys.modules:
            logging = sys.modules["logging"]
            logging.captureWarnings(False)
            if logging.root.manager.disable:
                logging.disable(logging.NOTSET)
            del logging.root.handlers[:], logging.root.filters[:]
            logging.root.setLevel("WARNING")
        if "socket" in sys.modules:
            sys.modules["socket"].setdefaulttimeout(None)
        if "asyncio.events" in sys.modules:
            # `asyncio.run` leaves the main thread without a loop, and `get_event_loop` would say so.
            events = sys.modules["asyncio.events"]
            getattr(events, "_set_event_loop_policy", events.set_event_loop_policy)(None)

    def why_dirty(self):
        try:
            return self.restore()
        except Exception as error:
            return "it could not be restored: %s" % error


def send(control, frame):
    frame = memoryview(len(frame).to_bytes(4, "big") + frame)
    while frame:
        frame = frame[os.write(control, frame) :]


def serve(reader):
    global STDIN
    control = reader.fileno()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    STDIN = sys.stdin = open(0, closefd=False)
    for stream in (STDOUT, STDERR):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    sys.argv = [""]
    sys.path[:] = [entry for entry in sys.path if entry]  # not whatever lies in the working directory
    signal.signal(signal.SIGTERM, interruption.handle)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGURG, lambda *_: None)
    gc.collect()
    gc.freeze()
    baseline = Baseline([0, 1, 2, control])
    while True:
        head = reader.read(4)
        if len(head) < 4:
            exit_at_once(0)  # the worker is done with us
        body = reader.read(int.from_bytes(head, "big"))
        interruption.busy = True
        send(control, b'{"outcome":"started"}')
        command = read_json(body.decode())
        del body
        outcome = run(command)
        del command
        linecache.cache.clear()
        dirty = baseline.why_dirty()
        flush()
        facts = write_json({"dirty": dirty, "interrupted": interruption.hit_code})[1:]
        send(control, b'{"outcome":' + outcome + b"," + facts.encode())
        del outcome
        # In this order: a SIGTERM before the first line is seen by the second, one after it ends us itself.
        interruption.busy = False
        if interruption.came:
            exit_at_once(0)


serve(control)
