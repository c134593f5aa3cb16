#!/usr/bin/env python3
"""A worker for `shell` steps in some hundred lines: cancellation-check, claim, check, run.

    python3 worker.py http://localhost:8082[,http://another:8082] [pool ...]

docs/reference/worker-protocol.md explains every request made here. NOETL_TOKEN is sent when it is set.
"""
import functools, http.client, json, os, signal, subprocess, sys, time, urllib.error, urllib.request

SERVERS, POOLS = [url.rstrip("/") for url in sys.argv[1].split(",")], sys.argv[2:] or ["default"]
say, now = functools.partial(print, flush=True), time.monotonic
NAME = f"{os.uname().nodename}-py-{os.getpid()}"
turn = 0         # which server is asked
alive = now()    # when the last request that was answered had been sent
silence = 1e9    # how long no answer may come before what runs is stopped: two thirds of the lease


def ask(method, path, body=None, until=1e12):
    """Returns status and answer, if need be of the next server; (0, {}) when there is none until then."""
    global turn, alive
    headers, pause = {"content-type": "application/json"}, 0.05
    if os.environ.get("NOETL_TOKEN"):
        headers["authorization"] = "Bearer " + os.environ["NOETL_TOKEN"]
    data = None if body is None else json.dumps(body).encode()
    while True:
        sent, url = now(), SERVERS[turn % len(SERVERS)] + path
        try:
            request = urllib.request.Request(url, data, headers, method=method)
            with urllib.request.urlopen(request, timeout=min(40, max(1, until - sent))) as answer:
                status, said = answer.status, json.load(answer)
            alive = sent
            return status, said
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 426:
                alive = sent
                return error.code, json.load(error)
        except (OSError, http.client.HTTPException, ValueError):
            pass  # refused, timed out, cut off in the middle
        if now() + pause > until:
            return 0, {}
        time.sleep(pause)  # everything may be sent again
        turn, pause = turn + 1, min(2 * pause, 2)


def is_cancelled(execution):
    return ask("GET", f"/api/executions/{execution}/cancellation-check")[1].get("cancelled", False)


def run(call, held, session):  # one tool, and a look for a cancel while it runs
    config, env = call["config"], {**os.environ, **{k: str(v) for k, v in call["input"].items()}}
    command = config.get("cmds") or config.get("command") or config.get("cmd")
    command = command if isinstance(command, str) else "\n".join(["set -e", *command])
    process = subprocess.Popen(["/bin/sh", "-c", command], env=env, start_new_session=True, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    stopped, silent, kill_at = None, False, now() + (call["timeout_ms"] or 1e12) / 1000
    while True:
        try:
            out, err = process.communicate(timeout=0.05)
            break
        except subprocess.TimeoutExpired:
            if now() > kill_at:
                stopped = stopped and "killed"
                os.killpg(process.pid, signal.SIGKILL)
        mine = dict(held, started=True, cancel="interrupt" if stopped else None)
        poll = {"session_id": session, "held": [mine], "free": 0, "wait_ms": 500}
        until = min(kill_at, now() + 0.5 if stopped else alive + silence)
        status, orders = ask("POST", "/api/worker/poll", poll, until)  # a sign of life, too
        ours = [c for c in orders.get("cancels", []) if c["mode"] == "interrupt"]
        if stopped is None and now() >= alive + silence:  # soon it is given to somebody else
            say("no server answers, stopping", held["command_id"])
            silent = True
        elif stopped is None and (ours or status == 410 or orders.get("unknown")):
            say("cancelled while it runs, stopping", held["command_id"])
        else:
            continue
        stopped, kill_at = "stopped", now() + (ours[0]["grace_ms"] if ours else 5000) / 1000
        os.killpg(process.pid, signal.SIGTERM)
    if silent:
        return None
    outcome = {"data": {"exit_code": process.returncode, "stdout": out, "stderr": err}, "stopped": stopped}
    if process.returncode:
        outcome["error"] = {"message": err.strip()[-200:] or "it failed", "code": f"EXIT_{process.returncode}"}
    return outcome


def work(offer, session):
    execution, held = offer["execution_id"], {k: offer[k] for k in ("execution_id", "command_id", "epoch")}
    if is_cancelled(execution):                                       # 1. check
        return say("cancelled, not claimed", held["command_id"])
    path = f"/api/commands/{held['command_id']}"
    status, claimed = ask("POST", path + "/claim", {"worker_id": NAME, "session_id": session})
    if status != 200:                                                 # 2. claim
        return say("not claimed:", claimed["message"])
    held["epoch"] = claimed["epoch"]
    step = {"session_id": session, "execution_id": execution, "epoch": held["epoch"]}
    report = dict(held, outcome={"cancelled": {"started": False, "stopped": None, "pids": []}})
    if is_cancelled(execution):                                       # 3. check
        say("execution has been cancelled, skipping command", held["command_id"])
    else:
        say("running", offer["step"], held["command_id"])
        status, todo = ask("POST", path + "/advance", step)
        while status == 200 and "report" not in todo:                 # 4. run
            if "call" in todo:
                step["outcome"] = run(todo["call"], held, session)
                if step["outcome"] is None:
                    todo = {"report": dict(held, outcome="released")}
                    break
            else:
                step["outcome"] = None
                time.sleep(todo["wait_ms"] / 1000)
            status, todo = ask("POST", path + "/advance", dict(step, continuation=todo["continuation"]))
        report = todo.get("report", report)
    ask("POST", "/api/worker/report", {"reports": [report], "poll": {"session_id": session, "offer": True}})


session = None
while True:
    if session is None:
        status, welcome = ask("POST", "/api/worker/hello", {"worker_id": NAME, "slots": 1, "pools": POOLS})
        if status != 200:
            sys.exit(f"the server refuses this worker: {welcome.get('message', status)}")
        session, silence = welcome["session_id"], welcome["lease_ms"] / 1000 * 2 / 3
        say("at your service as", NAME)
    status, orders = ask("POST", "/api/worker/poll", {"session_id": session, "free": 1, "wait_ms": 10000, "offer": True})
    if status not in (200, 410):
        sys.exit(f"the server refuses this worker: {orders.get('message', status)}")
    session = None if status == 410 else session
    shell = [offer for offer in orders.get("offers", []) if offer["kind"] == "shell"]
    for offer in shell[:1]:
        work(offer, session)
    if not shell and orders.get("offers"):
        time.sleep(1)  # what is offered is for others
