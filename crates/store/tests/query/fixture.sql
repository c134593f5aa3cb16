-- Tables and rows of the query tests. The text is valid on SQLite and on PostgreSQL, so that the expected
-- answers in cases.sql can be compared with what PostgreSQL says.
CREATE TABLE noetl.event (
  execution_id BIGINT NOT NULL, version BIGINT NOT NULL, event_id BIGINT NOT NULL, parent_execution_id BIGINT,
  root_execution_id BIGINT, catalog_id BIGINT, event_type TEXT NOT NULL, node_id TEXT, node_name TEXT,
  node_type TEXT, status TEXT, context JSONB, result JSONB, meta JSONB, error TEXT, worker_id TEXT,
  command_id BIGINT, attempt BIGINT, iteration BIGINT, duration DOUBLE PRECISION, created_at TIMESTAMP NOT NULL,
  schema_version BIGINT, PRIMARY KEY (execution_id, version)
);
CREATE TABLE noetl.execution (
  execution_id BIGINT PRIMARY KEY, version BIGINT NOT NULL, decided BIGINT NOT NULL, status TEXT NOT NULL,
  active BOOLEAN NOT NULL, path TEXT NOT NULL, parent_execution_id BIGINT, depth BIGINT, in_flight BIGINT,
  reason TEXT, started_at TIMESTAMP, ended_at TIMESTAMP
);
CREATE TABLE noetl.credential (
  id BIGINT PRIMARY KEY, name TEXT NOT NULL, type TEXT, data_encrypted TEXT, created_at TIMESTAMP
);
CREATE TABLE noetl.catalog (
  catalog_id BIGINT PRIMARY KEY, path TEXT NOT NULL, version BIGINT NOT NULL, kind TEXT, content TEXT, created_at TIMESTAMP
);
INSERT INTO noetl.catalog VALUES
  (1, 'jobs/parent', 1, 'Playbook', 'a: 1', '2026-01-19T08:00:00.000Z'),
  (2, 'jobs/child', 1, 'Playbook', 'b: 2', '2026-01-19T08:00:00.000Z'),
  (3, 'jobs/child', 2, 'Playbook', NULL, '2026-01-19T09:30:00.500Z');
INSERT INTO noetl.credential VALUES
  (1, 'warehouse', 'postgres', 'c2VjcmV0', '2026-01-01T00:00:00.000Z'),
  (2, 'bucket', 'gcs', 'bW9yZQ==', '2026-01-02T00:00:00.000Z');
INSERT INTO noetl.execution VALUES
  (543857931469455628, 4, 3, 'CANCELLED', FALSE, 'jobs/parent', NULL, 0, 0, 'Detected infinite loop', '2026-01-20T09:00:00.000Z', '2026-01-20T09:08:00.123Z'),
  (543857932012345678, 3, 3, 'RUNNING', TRUE, 'jobs/child', 543857931469455628, 1, 1, NULL, '2026-01-20T09:00:01.500Z', NULL),
  (543857933098765432, 2, 2, 'COMPLETED', FALSE, 'jobs/child', 543857931469455628, 1, 0, NULL, '2026-01-20T09:00:02.000Z', '2026-01-20T09:00:04.250Z'),
  (543861711535604109, 1, 1, 'RUNNING', TRUE, 'jobs/other', NULL, 0, 2, NULL, '2026-01-20T09:15:00.000Z', NULL);
INSERT INTO noetl.event VALUES
  (543857931469455628, 1, 1001, NULL, 543857931469455628, 1, 'playbook.initialized', 'root', 'start', 'playbook', 'INITIALIZED', '{"workload": {"n": 3, "tags": ["a", "b"], "ratio": 0.5, "on": true}}', NULL, '{"by": "cli"}', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-20T09:00:00.000Z', 1),
  (543857931469455628, 2, 1002, NULL, 543857931469455628, 1, 'command.issued', 's1', 'fan out', 'python', 'PENDING', '{"args": {"i": 1}}', NULL, NULL, NULL, NULL, 7, 1, NULL, NULL, '2026-01-20T09:00:00.250Z', 1),
  (543857931469455628, 3, 1003, NULL, 543857931469455628, 1, 'call.done', 's1', 'fan out', 'python', 'COMPLETED', NULL, '{"status": "ok", "context": {"rows": [{"id": 1, "name": "x"}, {"id": 2, "name": null}]}}', NULL, NULL, 'w1', 7, 1, NULL, 1.5, '2026-01-20T09:00:01.750Z', 1),
  (543857931469455628, 4, 1004, NULL, 543857931469455628, 1, 'execution.cancelled', NULL, 'cancel', NULL, 'CANCELLED', '{"reason": "Detected infinite loop", "cascade": true, "mode": "finish"}', NULL, '{"late": false}', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-20T09:08:00.123Z', 1),
  (543857932012345678, 1, 1005, 543857931469455628, 543857931469455628, 2, 'playbook.initialized', 'root', 'start', 'playbook', 'INITIALIZED', '{"workload": {"n": 10, "tags": []}}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-20T09:00:01.500Z', 1),
  (543857932012345678, 2, 1006, NULL, 543857931469455628, 2, 'command.issued', 's1', 'load_it', 'http', 'RUNNING', '{"args": {"i": 2}}', NULL, NULL, NULL, NULL, 8, 1, 0, NULL, '2026-01-20T09:01:00.000Z', 1),
  (543857932012345678, 3, 1007, NULL, 543857931469455628, 2, 'command.failed', 's1', 'load_it', 'http', 'FAILED', NULL, 'null', '{"code": 503, "retry": null}', 'Timeout: 100% of 30s', 'w2', 8, 2, 0, 30.25, '2026-01-20T09:10:30.000Z', 1),
  (543857933098765432, 1, 1008, 543857931469455628, 543857931469455628, 3, 'playbook.initialized', 'root', 'start', 'playbook', 'INITIALIZED', '{"workload": {"n": 7, "tags": ["b"]}}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-20T09:00:02.000Z', 1),
  (543857933098765432, 2, 1009, NULL, 543857931469455628, 3, 'playbook.completed', 'root', 'end', 'playbook', 'COMPLETED', NULL, '42', NULL, NULL, 'w1', NULL, NULL, NULL, 2.25, '2026-01-20T09:00:04.250Z', 1),
  (543861711535604109, 1, 1010, NULL, 543861711535604109, NULL, 'playbook.initialized', 'root', 'start', 'playbook', 'INITIALIZED', '{"workload": "it''s \"text\""}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-20T09:15:00.000Z', 1);
