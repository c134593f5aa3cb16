#!/usr/bin/env python3
"""A worker for `shell` steps in a hundred lines: cancellation-check, claim, check, run.

    python3 worker.py http://localhost:8082 [pool ...]

docs/reference/worker-protocol.md explains every request made here. NOETL_TOKEN is sent when it is set.
"""
import functools, json, os, signal, subprocess, sys, time, urllib.error, urllib.request

SERVER, POOLS = sys.argv[1].rstrip("/"), sys.argv[2:] or ["default"]
say = functools.partial(print, flush=True)
NAME = f"{os.uname().nodename}-py-{os.getpid()}"


def ask(method, path, body=None):
    """Returns status and answer; everything may be sent again."""
    headers = {"content-type": "application/json"}
    if os.environ.get("NOETL_TOKEN"):
        headers["authorization"] = "Bearer " + os.environ["NOETL_TOKEN"]
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(SERVER + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def is_cancelled(execution):
    return ask("GET", f"/api/executions/{execution}/cancellation-check")[1].get("cancelled", False)


def run(call, held, session):  # one tool, and a look for a cancel while it runs
    config, env = call["config"], {**os.environ, **{k: str(v) for k, v in call["input"].items()}}
    command = config.get("cmds") or config.get("command") or config.get("cmd")
    command = command if isinstance(command, str) else "\n".join(["set -e", *command])
    process = subprocess.Popen(["/bin/sh", "-c", command], env=env, start_new_session=True, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    stopped, kill_at = None, time.monotonic() + (call["timeout_ms"] or 1e12) / 1000
    while True:
        try:
            out, err = process.communicate(timeout=0.05)
            break
        except subprocess.TimeoutExpired:
            if time.monotonic() > kill_at:
                stopped = stopped and "killed"
                os.killpg(process.pid, signal.SIGKILL)
        mine = dict(held, started=True, cancel="interrupt" if stopped else None)
        poll = {"session_id": session, "held": [mine], "free": 0, "wait_ms": 500}
        status, orders = ask("POST", "/api/worker/poll", poll)  # a sign of life, too
        ours = [c for c in orders.get("cancels", []) if c["mode"] == "interrupt"]
        if stopped is None and (ours or status == 410 or orders.get("unknown")):
            say("cancelled while it runs, stopping", held["command_id"])
            stopped, kill_at = "stopped", time.monotonic() + (ours[0]["grace_ms"] if ours else 5000) / 1000
            os.killpg(process.pid, signal.SIGTERM)
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
            else:
                step["outcome"] = None
                time.sleep(todo["wait_ms"] / 1000)
            status, todo = ask("POST", path + "/advance", dict(step, continuation=todo["continuation"]))
        report = todo.get("report", report)
    ask("POST", "/api/worker/report", {"reports": [report], "poll": {"session_id": session, "offer": True}})


session = None
while True:
    if session is None:
        session = ask("POST", "/api/worker/hello", {"worker_id": NAME, "slots": 1, "pools": POOLS})[1]["session_id"]
        say("at your service as", NAME)
    status, orders = ask("POST", "/api/worker/poll", {"session_id": session, "free": 1, "wait_ms": 10000, "offer": True})
    session = None if status == 410 else session
    shell = [offer for offer in orders.get("offers", []) if offer["kind"] == "shell"]
    for offer in shell[:1]:
        work(offer, session)
    if not shell and orders.get("offers"):
        time.sleep(1)  # what is offered is for others
