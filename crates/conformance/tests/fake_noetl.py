#!/usr/bin/env python3
"""A stand-in for the noetl binary that does what a playbook's own text says: to test who judges the real one.

A playbook is JSON: {"path": ..., "refuse": bool, "status": ..., "steps": {name: result}, "events": [[type, node], ...]}.
"""

import http.server
import json
import signal
import sys
import urllib.parse

PAGE_SIZE = 2  # smaller than anybody asks for, so that paging is seen to work

catalog = {}
executions = {}
credentials = {}


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        if self.path == "/api/catalog/register":
            playbook = json.loads(body["content"])
            if playbook.get("refuse"):
                return self.answer(422, {"message": "a step has no tool"})
            catalog[playbook["path"]] = playbook
            return self.answer(200, {"status": "success"})
        if self.path == "/api/catalog/list":
            entries = [{"path": path, "version": 1, "kind": "playbook"} for path in catalog]
            return self.answer(200, {"entries": entries})
        if self.path == "/api/credentials":
            credentials[body["name"]] = body
            return self.answer(200, {"name": body["name"]})
        if self.path == "/api/execute":
            execution = dict(catalog[body["path"]], payload=body["payload"], credentials=credentials)
            identity = str(1000 + len(executions))
            executions[identity] = execution
            return self.answer(200, {"execution_id": identity, "status": "started"})
        if self.path.endswith("/cancel"):
            executions[self.path.split("/")[3]]["status"] = "CANCELLED"
            return self.answer(200, {"status": "cancelled"})
        return self.answer(404, {"detail": "Not Found"})

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        parts = [urllib.parse.unquote(part) for part in url.path.split("/")[1:]]
        if parts == ["health"]:
            return self.answer(200, {"status": "ok"})
        execution = executions[parts[2]]
        if len(parts) == 3:
            return self.answer(200, {"status": execution["status"], "error": execution.get("error")})
        if parts[3] == "steps":
            steps = dict(execution.get("steps", {}), payload=execution["payload"], credentials=execution["credentials"])
            if parts[4] not in steps:
                return self.answer(404, {"detail": "no such step"})
            return self.answer(200, {"step": parts[4], "visits": 1, "result": steps[parts[4]]})
        page = int(urllib.parse.parse_qs(url.query)["page"][0])
        events = [{"event_type": kind, "node_name": node} for kind, node in execution.get("events", [])]
        shown = events[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
        more = page * PAGE_SIZE < len(events)
        return self.answer(200, {"events": shown, "pagination": {"page": page, "has_next": more}})


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
