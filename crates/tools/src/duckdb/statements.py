# Runs statements on a DuckDB database. The worker sends them as `request`; what this returns is not a playbook's to
# see: `answers`, one per statement that worked, and `error`, what stopped them.
import datetime, decimal, json, math, os, signal, threading, uuid


def plain(value, is_json=False):
    """The JSON of a value, in the forms that the tool `postgres` gives."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        if is_json:
            try:
                return json.loads(value)
            except ValueError:
                pass
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, decimal.Decimal):
        number = float(value)
        return number if decimal.Decimal(repr(number)) == value else str(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return str(value)


class TooLarge(Exception):
    pass


def fields(cursor):
    """Names of the columns, and which of them hold JSON."""
    described = cursor.description or []
    return [column[0] for column in described], [str(column[1]) == "JSON" for column in described]


def rows(cursor, chunk):
    names, are_json = fields(cursor)
    while True:
        fetched = cursor.fetchmany(chunk)
        if not fetched:
            return
        for row in fetched:
            yield {name: plain(value, is_json) for name, value, is_json in zip(names, row, are_json)}


def run(connection, statement, params, budget):
    cursor = connection.execute(statement["sql"], params) if params else connection.execute(statement["sql"])
    names, _ = fields(cursor)
    first = statement["sql"].split(None, 1)[0].lower()
    counts = ("insert", "update", "delete", "merge", "with", "create", "copy")
    if names == ["Success"] or (names == ["Count"] and first in counts and not statement["may_return_rows"]):
        # How DuckDB says what a change has done.
        answer = cursor.fetchall()
        changed = answer[0][0] if names == ["Count"] and answer else 0
        return {"columns": [], "rows": [], "affected_rows": changed}
    answer = {"columns": names, "rows": []}
    for row in rows(cursor, 1000):
        budget[0] -= len(json.dumps(row, ensure_ascii=False))
        if budget[0] < 0:
            raise TooLarge()
        answer["rows"].append(row)
    answer["affected_rows"] = len(answer["rows"])
    return answer


class Stoppable:
    """Interrupts what runs on a connection once a SIGTERM comes.

    The handler of python itself comes after the statement, and not every statement looks up in between: a thread has
    to do it, which hears of signals by the wakeup file.
    """

    AGAIN_SECONDS = 0.05  # what begins just now does not hear the first call

    def __init__(self, connection):
        self.connection = connection
        self.over = threading.Event()

    def __enter__(self):
        self.ear, self.wakeup = os.pipe()
        os.set_blocking(self.wakeup, False)
        self.before = signal.set_wakeup_fd(self.wakeup, warn_on_full_buffer=False)
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        while True:
            heard = os.read(self.ear, 64)
            if not heard:
                return
            while signal.SIGTERM in heard and not self.over.wait(self.AGAIN_SECONDS):
                self.connection.interrupt()

    def __exit__(self, *_):
        self.over.set()
        signal.set_wakeup_fd(self.before)
        os.close(self.wakeup)
        self.thread.join()
        os.close(self.ear)


def main(request):
    try:
        import duckdb
    except ImportError as error:
        return {"missing": str(error)}
    answers = []
    budget = [request["bytes_max"]]
    try:
        connection = duckdb.connect(request["database"])
        try:
            with Stoppable(connection):
                for statement in request["statements"]:
                    answers.append(run(connection, statement, request["params"], budget))
        finally:
            connection.close()
    except TooLarge:
        return {"answers": answers, "too_large": True}
    except (duckdb.Error, RuntimeError) as error:
        return {"answers": answers, "error": {"type": type(error).__name__, "message": str(error)}}
    return {"answers": answers}
