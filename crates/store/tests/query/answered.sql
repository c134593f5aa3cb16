-- Queries and their answers: a query, `--=` with the names of the columns as JSON, `--` with each row as JSON,
-- and an empty line. The answers agree with PostgreSQL 15 on the tables of fixture.sql, at 2026-01-20T09:20:00Z,
-- but for what is said in the module's documentation (times are written as ISO-8601 with milliseconds).

SELECT * FROM event ORDER BY event_id
--= ["execution_id", "version", "event_id", "parent_execution_id", "root_execution_id", "catalog_id", "event_type", "node_id", "node_name", "node_type", "status", "context", "result", "meta", "error", "worker_id", "command_id", "attempt", "iteration", "duration", "created_at", "schema_version"]
-- [543857931469455628, 1, 1001, null, 543857931469455628, 1, "playbook.initialized", "root", "start", "playbook", "INITIALIZED", {"workload": {"n": 3, "tags": ["a", "b"], "ratio": 0.5, "on": true}}, null, {"by": "cli"}, null, null, null, null, null, null, "2026-01-20T09:00:00.000Z", 1]
-- [543857931469455628, 2, 1002, null, 543857931469455628, 1, "command.issued", "s1", "fan out", "python", "PENDING", {"args": {"i": 1}}, null, null, null, null, 7, 1, null, null, "2026-01-20T09:00:00.250Z", 1]
-- [543857931469455628, 3, 1003, null, 543857931469455628, 1, "call.done", "s1", "fan out", "python", "COMPLETED", null, {"status": "ok", "context": {"rows": [{"id": 1, "name": "x"}, {"id": 2, "name": null}]}}, null, null, "w1", 7, 1, null, 1.5, "2026-01-20T09:00:01.750Z", 1]
-- [543857931469455628, 4, 1004, null, 543857931469455628, 1, "execution.cancelled", null, "cancel", null, "CANCELLED", {"reason": "Detected infinite loop", "cascade": true, "mode": "finish"}, null, {"late": false}, null, null, null, null, null, null, "2026-01-20T09:08:00.123Z", 1]
-- [543857932012345678, 1, 1005, 543857931469455628, 543857931469455628, 2, "playbook.initialized", "root", "start", "playbook", "INITIALIZED", {"workload": {"n": 10, "tags": []}}, null, null, null, null, null, null, null, null, "2026-01-20T09:00:01.500Z", 1]
-- [543857932012345678, 2, 1006, null, 543857931469455628, 2, "command.issued", "s1", "load_it", "http", "RUNNING", {"args": {"i": 2}}, null, null, null, null, 8, 1, 0, null, "2026-01-20T09:01:00.000Z", 1]
-- [543857932012345678, 3, 1007, null, 543857931469455628, 2, "command.failed", "s1", "load_it", "http", "FAILED", null, null, {"code": 503, "retry": null}, "Timeout: 100% of 30s", "w2", 8, 2, 0, 30.25, "2026-01-20T09:10:30.000Z", 1]
-- [543857933098765432, 1, 1008, 543857931469455628, 543857931469455628, 3, "playbook.initialized", "root", "start", "playbook", "INITIALIZED", {"workload": {"n": 7, "tags": ["b"]}}, null, null, null, null, null, null, null, null, "2026-01-20T09:00:02.000Z", 1]
-- [543857933098765432, 2, 1009, null, 543857931469455628, 3, "playbook.completed", "root", "end", "playbook", "COMPLETED", null, 42, null, null, "w1", null, null, null, 2.25, "2026-01-20T09:00:04.250Z", 1]
-- [543861711535604109, 1, 1010, null, 543861711535604109, null, "playbook.initialized", "root", "start", "playbook", "INITIALIZED", {"workload": "it's \"text\""}, null, null, null, null, null, null, null, null, "2026-01-20T09:15:00.000Z", 1]

SELECT e.* FROM noetl.event AS e WHERE e.status = 'FAILED'
--= ["execution_id", "version", "event_id", "parent_execution_id", "root_execution_id", "catalog_id", "event_type", "node_id", "node_name", "node_type", "status", "context", "result", "meta", "error", "worker_id", "command_id", "attempt", "iteration", "duration", "created_at", "schema_version"]
-- [543857932012345678, 3, 1007, null, 543857931469455628, 2, "command.failed", "s1", "load_it", "http", "FAILED", null, null, {"code": 503, "retry": null}, "Timeout: 100% of 30s", "w2", 8, 2, 0, 30.25, "2026-01-20T09:10:30.000Z", 1]

SELECT noetl.event.status FROM noetl.event WHERE event_id = 1001
--= ["status"]
-- ["INITIALIZED"]

SELECT count(*), count(error), count(DISTINCT execution_id) FROM event
--= ["count", "count", "count"]
-- [10, 1, 4]

SELECT status, count(*) AS n FROM event GROUP BY status ORDER BY n DESC, status
--= ["status", "n"]
-- ["INITIALIZED", 4]
-- ["COMPLETED", 2]
-- ["CANCELLED", 1]
-- ["FAILED", 1]
-- ["PENDING", 1]
-- ["RUNNING", 1]

SELECT status AS s, count(*) FROM event GROUP BY s HAVING count(*) > 1 ORDER BY 1
--= ["s", "count"]
-- ["COMPLETED", 2]
-- ["INITIALIZED", 4]

SELECT status, count(*) FILTER (WHERE node_type = 'http') AS http, sum(duration), avg(duration), max(created_at) FROM event GROUP BY 1 ORDER BY 1
--= ["status", "http", "sum", "avg", "max"]
-- ["CANCELLED", 0, null, null, "2026-01-20T09:08:00.123Z"]
-- ["COMPLETED", 0, 3.75, 1.875, "2026-01-20T09:00:04.250Z"]
-- ["FAILED", 1, 30.25, 30.25, "2026-01-20T09:10:30.000Z"]
-- ["INITIALIZED", 0, null, null, "2026-01-20T09:15:00.000Z"]
-- ["PENDING", 0, null, null, "2026-01-20T09:00:00.250Z"]
-- ["RUNNING", 1, null, null, "2026-01-20T09:01:00.000Z"]

SELECT DISTINCT ON (execution_id) execution_id, event_type, created_at FROM event ORDER BY execution_id, created_at DESC
--= ["execution_id", "event_type", "created_at"]
-- [543857931469455628, "execution.cancelled", "2026-01-20T09:08:00.123Z"]
-- [543857932012345678, "command.failed", "2026-01-20T09:10:30.000Z"]
-- [543857933098765432, "playbook.completed", "2026-01-20T09:00:04.250Z"]
-- [543861711535604109, "playbook.initialized", "2026-01-20T09:15:00.000Z"]

SELECT DISTINCT ON (node_type) node_type, event_id FROM event ORDER BY node_type DESC NULLS LAST, event_id DESC LIMIT 3
--= ["node_type", "event_id"]
-- ["python", 1003]
-- ["playbook", 1010]
-- ["http", 1007]

SELECT node_type FROM event ORDER BY node_type, event_id
--= ["node_type"]
-- ["http"]
-- ["http"]
-- ["playbook"]
-- ["playbook"]
-- ["playbook"]
-- ["playbook"]
-- ["playbook"]
-- ["python"]
-- ["python"]
-- [null]

SELECT node_type FROM event ORDER BY node_type DESC, event_id
--= ["node_type"]
-- [null]
-- ["python"]
-- ["python"]
-- ["playbook"]
-- ["playbook"]
-- ["playbook"]
-- ["playbook"]
-- ["playbook"]
-- ["http"]
-- ["http"]

SELECT node_type, event_id FROM event ORDER BY node_type NULLS FIRST, event_id DESC LIMIT 4 OFFSET 1
--= ["node_type", "event_id"]
-- ["http", 1007]
-- ["http", 1006]
-- ["playbook", 1010]
-- ["playbook", 1009]

SELECT event_id FROM event ORDER BY event_id OFFSET 8
--= ["event_id"]
-- [1009]
-- [1010]

SELECT event_id FROM event ORDER BY event_id FETCH FIRST 2 ROWS ONLY
--= ["event_id"]
-- [1001]
-- [1002]

SELECT event_id, row_number() OVER (PARTITION BY execution_id ORDER BY version DESC) AS rn, lag(event_type) OVER w, rank() OVER (ORDER BY node_type) FROM event WINDOW w AS (PARTITION BY execution_id ORDER BY version) ORDER BY event_id
--= ["event_id", "rn", "lag", "rank"]
-- [1001, 4, null, 3]
-- [1002, 3, "playbook.initialized", 8]
-- [1003, 2, "command.issued", 8]
-- [1004, 1, "call.done", 10]
-- [1005, 3, null, 3]
-- [1006, 2, "playbook.initialized", 1]
-- [1007, 1, "command.issued", 1]
-- [1008, 2, null, 3]
-- [1009, 1, "playbook.initialized", 3]
-- [1010, 1, null, 3]

SELECT event_id, sum(duration) OVER (ORDER BY event_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) s, lead(version, 1, 0) OVER (ORDER BY event_id) FROM event ORDER BY event_id
--= ["event_id", "s", "lead"]
-- [1001, null, 2]
-- [1002, null, 3]
-- [1003, 1.5, 4]
-- [1004, 1.5, 1]
-- [1005, 1.5, 2]
-- [1006, 1.5, 3]
-- [1007, 31.75, 1]
-- [1008, 31.75, 2]
-- [1009, 34.0, 1]
-- [1010, 34.0, 0]

SELECT status, sum(count(*)) OVER () FROM event GROUP BY status ORDER BY status
--= ["status", "sum"]
-- ["CANCELLED", 10]
-- ["COMPLETED", 10]
-- ["FAILED", 10]
-- ["INITIALIZED", 10]
-- ["PENDING", 10]
-- ["RUNNING", 10]

SELECT status FROM event UNION SELECT status FROM execution ORDER BY status
--= ["status"]
-- ["CANCELLED"]
-- ["COMPLETED"]
-- ["FAILED"]
-- ["INITIALIZED"]
-- ["PENDING"]
-- ["RUNNING"]

SELECT status FROM execution INTERSECT SELECT status FROM event EXCEPT SELECT 'RUNNING' ORDER BY 1
--= ["status"]
-- ["CANCELLED"]
-- ["COMPLETED"]

SELECT 1 AS a UNION ALL (SELECT 2 UNION SELECT 2 ORDER BY 1 LIMIT 1) ORDER BY a DESC
--= ["a"]
-- [2]
-- [1]

SELECT 1 UNION SELECT 2 INTERSECT SELECT 3 ORDER BY 1
--= ["?column?"]
-- [1]

VALUES (1, 'a'), (2, NULL)
--= ["column1", "column2"]
-- [1, "a"]
-- [2, null]

VALUES (1, 'a'), (2, 'b') ORDER BY 1 DESC LIMIT 1
--= ["column1", "column2"]
-- [2, "b"]

SELECT t.x, t.y FROM (VALUES (1, 'a'), (2, 'b')) AS t(x, y) WHERE y <> 'a'
--= ["x", "y"]
-- [2, "b"]

SELECT path, (SELECT count(*) FROM event e WHERE e.execution_id = x.execution_id) AS events FROM execution x ORDER BY execution_id
--= ["path", "events"]
-- ["jobs/parent", 4]
-- ["jobs/child", 3]
-- ["jobs/child", 2]
-- ["jobs/other", 1]

SELECT execution_id FROM execution x WHERE EXISTS (SELECT 1 FROM event WHERE event.execution_id = x.execution_id AND status = 'FAILED')
--= ["execution_id"]
-- [543857932012345678]

SELECT execution_id FROM execution WHERE execution_id NOT IN (SELECT parent_execution_id FROM execution WHERE parent_execution_id IS NOT NULL) ORDER BY 1
--= ["execution_id"]
-- [543857932012345678]
-- [543857933098765432]
-- [543861711535604109]

SELECT x.path, c.kind FROM execution x LEFT JOIN catalog c ON c.path = x.path AND c.version = 1 ORDER BY x.execution_id
--= ["path", "kind"]
-- ["jobs/parent", "Playbook"]
-- ["jobs/child", "Playbook"]
-- ["jobs/child", "Playbook"]
-- ["jobs/other", null]

SELECT count(*) FROM execution, catalog
--= ["count"]
-- [12]

SELECT count(*) FROM execution CROSS JOIN catalog
--= ["count"]
-- [12]

SELECT path, execution_id, catalog_id FROM execution JOIN catalog USING (path) ORDER BY execution_id, catalog_id
--= ["path", "execution_id", "catalog_id"]
-- ["jobs/parent", 543857931469455628, 1]
-- ["jobs/child", 543857932012345678, 2]
-- ["jobs/child", 543857932012345678, 3]
-- ["jobs/child", 543857933098765432, 2]
-- ["jobs/child", 543857933098765432, 3]

SELECT * FROM (SELECT path, version FROM execution) a FULL JOIN (SELECT path, version FROM catalog) b USING (path, version) ORDER BY 1, 2
--= ["path", "version"]
-- ["jobs/child", 1]
-- ["jobs/child", 2]
-- ["jobs/child", 3]
-- ["jobs/other", 1]
-- ["jobs/parent", 1]
-- ["jobs/parent", 4]

SELECT path, b.kind FROM execution a RIGHT JOIN catalog b USING (path) ORDER BY path, b.kind
--= ["path", "kind"]
-- ["jobs/child", "Playbook"]
-- ["jobs/child", "Playbook"]
-- ["jobs/child", "Playbook"]
-- ["jobs/child", "Playbook"]
-- ["jobs/parent", "Playbook"]

SELECT * FROM (SELECT 1 AS a, 2 AS b) x NATURAL JOIN (SELECT 1 AS a, 3 AS c) y
--= ["a", "b", "c"]
-- [1, 2, 3]

SELECT CASE WHEN active THEN 'on' ELSE 'off' END AS state, active, NOT active, active = true, active IS TRUE FROM execution ORDER BY execution_id
--= ["state", "active", "?column?", "?column?", "?column?"]
-- ["off", false, true, false, false]
-- ["on", true, false, true, true]
-- ["off", false, true, false, false]
-- ["on", true, false, true, true]

SELECT CASE status WHEN 'RUNNING' THEN 1 WHEN 'FAILED' THEN 2 END FROM execution ORDER BY execution_id
--= ["case"]
-- [null]
-- [1]
-- [null]
-- [1]

SELECT coalesce(reason, 'none'), nullif(in_flight, 0), greatest(in_flight, depth, 1), least(3, NULL, 2) FROM execution ORDER BY execution_id
--= ["coalesce", "nullif", "greatest", "least"]
-- ["Detected infinite loop", null, 1, 2]
-- ["none", 1, 1, 2]
-- ["none", null, 1, 2]
-- ["none", 2, 2, 2]

SELECT execution_id FROM execution WHERE active AND in_flight BETWEEN 1 AND 2 ORDER BY 1
--= ["execution_id"]
-- [543857932012345678]
-- [543861711535604109]

SELECT event_id FROM event WHERE execution_id = '543857931469455628' AND version IN ('1', 2) ORDER BY 1
--= ["event_id"]
-- [1001]
-- [1002]

SELECT event_id FROM event WHERE status = ANY(ARRAY['FAILED','CANCELLED']) ORDER BY 1
--= ["event_id"]
-- [1004]
-- [1007]

SELECT event_id FROM event WHERE status = ANY('{FAILED,CANCELLED}') AND event_id <> ALL('{1}'::bigint[]) ORDER BY 1
--= ["event_id"]
-- [1004]
-- [1007]

SELECT event_id FROM event WHERE event_id > ALL(ARRAY[1008, 1007]) ORDER BY 1
--= ["event_id"]
-- [1009]
-- [1010]

SELECT event_id FROM event WHERE (execution_id, version) IN ((543857931469455628, 1), (543857932012345678, 2)) ORDER BY 1
--= ["event_id"]
-- [1001]
-- [1006]

SELECT (1, 2) < (1, 3), (1, 'a') = (1, 'b')
--= ["?column?", "?column?"]
-- [true, false]

SELECT context->'workload'->>'n', context->'workload'->'tags'->>0, context->'workload'->'tags'->>-1, context#>>'{workload,tags,1}', context->>'workload' FROM event WHERE event_id = 1001
--= ["?column?", "?column?", "?column?", "?column?", "?column?"]
-- ["3", "a", "b", "b", "{\"n\": 3, \"on\": true, \"tags\": [\"a\", \"b\"], \"ratio\": 0.5}"]

SELECT event_id, result->'context'->'rows'->1->>'name', result->'context'->'rows'->0->'id' FROM event WHERE result IS NOT NULL ORDER BY 1
--= ["event_id", "?column?", "?column?"]
-- [1003, null, 1]
-- [1007, null, null]
-- [1009, null, null]

SELECT event_id, jsonb_typeof(result), result::text, result IS NULL FROM event ORDER BY 1
--= ["event_id", "jsonb_typeof", "result", "?column?"]
-- [1001, null, null, true]
-- [1002, null, null, true]
-- [1003, "object", "{\"status\": \"ok\", \"context\": {\"rows\": [{\"id\": 1, \"name\": \"x\"}, {\"id\": 2, \"name\": null}]}}", false]
-- [1004, null, null, true]
-- [1005, null, null, true]
-- [1006, null, null, true]
-- [1007, "null", "null", false]
-- [1008, null, null, true]
-- [1009, "number", "42", false]
-- [1010, null, null, true]

SELECT meta->'retry', meta->>'retry', meta->'retry' IS NULL, meta->>'retry' IS NULL, meta->'nope' IS NULL FROM event WHERE event_id = 1007
--= ["?column?", "?column?", "?column?", "?column?", "?column?"]
-- [null, null, false, true, true]

SELECT (meta->>'code')::int + 1, (meta->'code')::int, (context->'workload'->>'ratio')::float * 2 FROM event WHERE event_id IN (1001, 1007) ORDER BY event_id
--= ["?column?", "int4", "?column?"]
-- [null, null, 1.0]
-- [504, 503, null]

SELECT event_id FROM event WHERE context @> '{"workload": {"tags": ["b"]}}' ORDER BY 1
--= ["event_id"]
-- [1001]
-- [1008]

SELECT event_id FROM event WHERE context->'workload' ? 'tags' AND NOT context ?| array['x', 'args'] ORDER BY 1
--= ["event_id"]
-- [1001]
-- [1005]
-- [1008]

SELECT event_id FROM event WHERE context->'workload' ?& '{n,on}' ORDER BY 1
--= ["event_id"]
-- [1001]

SELECT '{"a": 1, "b": [1,2]}'::jsonb = '{"b": [1, 2], "a": 1.0}'::jsonb, '{"a":1}'::jsonb || '{"b":2}', '{"a":1,"b":2}'::jsonb - 'a', '[1,2,3]'::jsonb - 1
--= ["?column?", "?column?", "?column?", "?column?"]
-- [true, {"a": 1, "b": 2}, {"b": 2}, [1, 3]]

SELECT jsonb_build_object('id', event_id, 'ok', status = 'COMPLETED', 'when', created_at, 'meta', meta, 'none', NULL) FROM event WHERE event_id = 1007
--= ["jsonb_build_object"]
-- [{"id": 1007, "ok": false, "when": "2026-01-20T09:10:30.000Z", "meta": {"code": 503, "retry": null}, "none": null}]

SELECT json_build_array(1, 'a', true, NULL, 1.5), to_jsonb('a'::text), to_json(5)
--= ["json_build_array", "to_jsonb", "to_json"]
-- [[1, "a", true, null, 1.5], "a", 5]

SELECT jsonb_array_length(context->'workload'->'tags') FROM event WHERE event_id IN (1001, 1005) ORDER BY event_id
--= ["jsonb_array_length"]
-- [2]
-- [0]

SELECT execution_id, jsonb_agg(event_type ORDER BY version DESC) FROM event GROUP BY execution_id ORDER BY 1
--= ["execution_id", "jsonb_agg"]
-- [543857931469455628, ["execution.cancelled", "call.done", "command.issued", "playbook.initialized"]]
-- [543857932012345678, ["command.failed", "command.issued", "playbook.initialized"]]
-- [543857933098765432, ["playbook.completed", "playbook.initialized"]]
-- [543861711535604109, ["playbook.initialized"]]

SELECT array_agg(version ORDER BY version), json_agg(active), jsonb_object_agg(path || version, depth), json_agg(started_at > '2026-01-20 09:00:01') FROM execution
--= ["array_agg", "json_agg", "jsonb_object_agg", "json_agg"]
-- [[1, 2, 3, 4], [false, true, false, true], {"jobs/parent4": 0, "jobs/child3": 1, "jobs/child2": 1, "jobs/other1": 0}, [false, true, true, true]]

SELECT string_agg(DISTINCT status, ',' ORDER BY status), string_agg(node_name, '|' ORDER BY event_id) FROM event
--= ["string_agg", "string_agg"]
-- ["CANCELLED,COMPLETED,FAILED,INITIALIZED,PENDING,RUNNING", "start|fan out|fan out|cancel|start|load_it|load_it|start|end|start"]

SELECT string_agg(DISTINCT status, ', ' ORDER BY status DESC), count(DISTINCT (status, node_type)) FROM event
--= ["string_agg", "count"]
-- ["RUNNING, PENDING, INITIALIZED, FAILED, COMPLETED, CANCELLED", 7]

SELECT bool_and(active), bool_or(active), every(depth >= 0) FROM execution
--= ["bool_and", "bool_or", "every"]
-- [false, true, true]

SELECT array_agg(status), string_agg(status, ','), json_agg(status), sum(version), count(*) FROM event WHERE false
--= ["array_agg", "string_agg", "json_agg", "sum", "count"]
-- [null, null, null, null, 0]

SELECT e.event_id, t.tag FROM event e, jsonb_array_elements_text(e.context->'workload'->'tags') AS t(tag) WHERE jsonb_typeof(e.context->'workload') = 'object' ORDER BY 1, 2
--= ["event_id", "tag"]
-- [1001, "a"]
-- [1001, "b"]
-- [1008, "b"]

SELECT e.event_id, r.value->>'name' AS name, r.value FROM event e CROSS JOIN LATERAL jsonb_array_elements(e.result->'context'->'rows') r WHERE e.event_id = 1003 ORDER BY 2
--= ["event_id", "name", "value"]
-- [1003, "x", {"id": 1, "name": "x"}]
-- [1003, null, {"id": 2, "name": null}]

SELECT event_id, t FROM event LEFT JOIN LATERAL jsonb_array_elements_text(context->'workload'->'tags') t ON true WHERE event_id IN (1001, 1005, 1008) ORDER BY 1, 2
--= ["event_id", "t"]
-- [1001, "a"]
-- [1001, "b"]
-- [1005, null]
-- [1008, "b"]

SELECT k, v FROM event, jsonb_each(context->'workload') AS x(k, v) WHERE event_id = 1001 ORDER BY k
--= ["k", "v"]
-- ["n", 3]
-- ["on", true]
-- ["ratio", 0.5]
-- ["tags", ["a", "b"]]

SELECT key, value FROM event, jsonb_each_text(context->'workload') WHERE event_id = 1001 ORDER BY key
--= ["key", "value"]
-- ["n", "3"]
-- ["on", "true"]
-- ["ratio", "0.5"]
-- ["tags", "[\"a\", \"b\"]"]

SELECT DISTINCT jsonb_object_keys(context) AS k FROM event ORDER BY k
--= ["k"]
-- ["args"]
-- ["cascade"]
-- ["mode"]
-- ["reason"]
-- ["workload"]

SELECT count(*) FROM (SELECT jsonb_object_keys(context->'workload') FROM event WHERE event_id = 1001) k
--= ["count"]
-- [4]

SELECT event_id, jsonb_array_elements_text(context->'workload'->'tags') FROM event WHERE event_id = 1001
--= ["event_id", "jsonb_array_elements_text"]
-- [1001, "a"]
-- [1001, "b"]

SELECT n, n * n AS square FROM generate_series(1, 5, 2) AS n
--= ["n", "square"]
-- [1, 1]
-- [3, 9]
-- [5, 25]

SELECT * FROM generate_series(3, 1, -1) WITH ORDINALITY AS s(v, i)
--= ["v", "i"]
-- [3, 1]
-- [2, 2]
-- [1, 3]

SELECT g::date FROM generate_series('2026-01-30'::timestamp, '2026-02-02', '1 day') g
--= ["g"]
-- ["2026-01-30"]
-- ["2026-01-31"]
-- ["2026-02-01"]
-- ["2026-02-02"]

SELECT * FROM unnest(ARRAY['a', 'b']) WITH ORDINALITY AS t(x, i)
--= ["x", "i"]
-- ["a", 1]
-- ["b", 2]

SELECT unnest('{1,2}'::int[]) + 1 AS x
--= ["x"]
-- [2]
-- [3]

SELECT date_trunc('hour', created_at) AS hour, count(*) FROM event GROUP BY 1 ORDER BY 1
--= ["hour", "count"]
-- ["2026-01-20T09:00:00.000Z", 10]

SELECT date_trunc('minute', created_at), count(*) FROM event GROUP BY date_trunc('minute', created_at) ORDER BY date_trunc('minute', created_at)
--= ["date_trunc", "count"]
-- ["2026-01-20T09:00:00.000Z", 6]
-- ["2026-01-20T09:01:00.000Z", 1]
-- ["2026-01-20T09:08:00.000Z", 1]
-- ["2026-01-20T09:10:00.000Z", 1]
-- ["2026-01-20T09:15:00.000Z", 1]

SELECT ended_at - started_at, EXTRACT(EPOCH FROM (ended_at - started_at)), age(ended_at, started_at) FROM execution ORDER BY execution_id
--= ["?column?", "extract", "age"]
-- ["00:08:00.123", 480.123, "00:08:00.123"]
-- [null, null, null]
-- ["00:00:02.25", 2.25, "00:00:02.25"]
-- [null, null, null]

SELECT avg(ended_at - started_at), sum(ended_at - started_at), max(ended_at - started_at), min(ended_at - started_at) FROM execution
--= ["avg", "sum", "max", "min"]
-- ["00:04:01.1865", "00:08:02.373", "00:08:00.123", "00:00:02.25"]

SELECT path, EXTRACT(EPOCH FROM (NOW() - started_at)) / 60 AS minutes FROM execution ORDER BY execution_id
--= ["path", "minutes"]
-- ["jobs/parent", 20.0]
-- ["jobs/child", 19.975]
-- ["jobs/child", 19.966666666666665]
-- ["jobs/other", 5.0]

SELECT execution_id FROM execution WHERE NOW() - started_at > INTERVAL '19 minutes' AND NOW() - started_at < '1 hour' ORDER BY 1
--= ["execution_id"]
-- [543857931469455628]
-- [543857932012345678]
-- [543857933098765432]

SELECT created_at + INTERVAL '1 day 2 hours', created_at - INTERVAL '5' MINUTE, created_at + 2 * INTERVAL '1 hour', created_at + make_interval(days => 1, mins => 30) FROM event WHERE event_id = 1004
--= ["?column?", "?column?", "?column?", "?column?"]
-- ["2026-01-21T11:08:00.123Z", "2026-01-20T09:03:00.123Z", "2026-01-20T11:08:00.123Z", "2026-01-21T09:38:00.123Z"]

SELECT created_at::date, created_at::text, created_at::date + 1, created_at::date - DATE '2026-01-01', to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.MS') FROM event WHERE event_id = 1004
--= ["created_at", "created_at", "?column?", "?column?", "to_char"]
-- ["2026-01-20", "2026-01-20 09:08:00.123", "2026-01-21", 19, "2026-01-20 09:08:00.123"]

SELECT EXTRACT(YEAR FROM created_at), EXTRACT(dow FROM created_at), EXTRACT(week FROM created_at), EXTRACT(second FROM created_at), date_part('hour', created_at), EXTRACT(doy FROM created_at::date), EXTRACT(milliseconds FROM created_at), EXTRACT(quarter FROM created_at), EXTRACT(isodow FROM created_at) FROM event WHERE event_id = 1004
--= ["extract", "extract", "extract", "extract", "date_part", "extract", "extract", "extract", "extract"]
-- [2026, 2, 4, 0.123, 9, 20, 123.0, 1, 2]

SELECT EXTRACT(epoch FROM created_at), EXTRACT(hour FROM INTERVAL '26:05:07.5'), EXTRACT(day FROM INTERVAL '3 days 4 hours'), EXTRACT(epoch FROM INTERVAL '1 month 1 day') FROM event WHERE event_id = 1004
--= ["extract", "extract", "extract", "extract"]
-- [1768900080.123, 26, 3, 2678400.0]

SELECT INTERVAL '1 day 2 hours', INTERVAL '90 minutes', INTERVAL '1 year 2 months', '2 weeks'::interval, INTERVAL '1 day' * 1.5, INTERVAL '1 hour' / 4, -INTERVAL '1 day', INTERVAL '1 day' - INTERVAL '2 hours', INTERVAL '1 day' = INTERVAL '24 hours'
--= ["interval", "interval", "interval", "interval", "?column?", "?column?", "?column?", "?column?", "?column?"]
-- ["1 day 02:00:00", "01:30:00", "1 year 2 mons", "14 days", "1 day 12:00:00", "00:15:00", "-1 days", "1 day -02:00:00", true]

SELECT now(), CURRENT_TIMESTAMP = now(), CURRENT_DATE, now()::date = CURRENT_DATE, now() - '2026-01-20', LOCALTIMESTAMP
--= ["now", "?column?", "current_date", "?column?", "?column?", "localtimestamp"]
-- ["2026-01-20T09:20:00.000Z", true, "2026-01-20", true, "09:20:00", "2026-01-20T09:20:00.000Z"]

SELECT TIMESTAMP '2026-01-20 10:00' - TIMESTAMP '2026-01-19 09:30:15', TIMESTAMP '2026-03-31' - INTERVAL '1 month', '2026-01-31'::timestamp + '1 month', DATE '2026-01-31' + INTERVAL '1 hour'
--= ["?column?", "?column?", "?column?", "?column?"]
-- ["1 day 00:29:45", "2026-02-28T00:00:00.000Z", "2026-02-28T00:00:00.000Z", "2026-01-31T01:00:00.000Z"]

SELECT event_id FROM event WHERE created_at >= '2026-01-20 09:08' AND created_at < '2026-01-20T09:11:00Z' ORDER BY 1
--= ["event_id"]
-- [1004]
-- [1007]

SELECT event_id FROM event WHERE created_at::date = '2026-01-20' AND created_at > DATE '2026-01-20' AND created_at BETWEEN '2026-01-20' AND '2026-01-20 09:00:01.5' ORDER BY 1
--= ["event_id"]
-- [1001]
-- [1002]
-- [1005]

SELECT to_timestamp(1768900080.123), to_char(INTERVAL '1 day 02:03:04', 'HH24:MI:SS'), to_char(1234.5, 'FM9,999.00'), make_date(2026, 1, 20), make_timestamp(2026, 1, 20, 9, 8, 7.5), date_bin('15 minutes', TIMESTAMP '2026-01-20 09:08', TIMESTAMP '2026-01-01')
--= ["to_timestamp", "to_char", "to_char", "make_date", "make_timestamp", "date_bin"]
-- ["2026-01-20T09:08:00.123Z", "02:03:04", "1,234.50", "2026-01-20", "2026-01-20T09:08:07.500Z", "2026-01-20T09:00:00.000Z"]

SELECT now() AT TIME ZONE 'UTC', (now() AT TIME ZONE 'UTC')::text, now()::text
--= ["timezone", "timezone", "now"]
-- ["2026-01-20T09:20:00.000Z", "2026-01-20 09:20:00", "2026-01-20 09:20:00+00"]

SELECT date_trunc('week', now()), date_trunc('month', now()), date_trunc('quarter', DATE '2026-05-20'), date_trunc('hour', INTERVAL '1 day 2:03')
--= ["date_trunc", "date_trunc", "date_trunc", "date_trunc"]
-- ["2026-01-19T00:00:00.000Z", "2026-01-01T00:00:00.000Z", "2026-04-01T00:00:00.000Z", "1 day 02:00:00"]

SELECT event_type FROM event WHERE event_type LIKE 'command.%' AND event_type NOT LIKE '%ISSUED' AND error ILIKE '%TIMEOUT: 100\%%' ORDER BY 1
--= ["event_type"]
-- ["command.failed"]

SELECT event_type ~ '^command\.', event_type ~* 'FAILED$', event_type !~ 'x', event_type ~~ 'command%' FROM event WHERE event_id = 1007
--= ["?column?", "?column?", "?column?", "?column?"]
-- [true, true, true, true]

SELECT event_id FROM event WHERE event_type LIKE ANY (ARRAY['play%', '%cancelled']) ORDER BY 1
--= ["event_id"]
-- [1001]
-- [1004]
-- [1005]
-- [1008]
-- [1009]
-- [1010]

SELECT upper('abc') || lower('DEF'), length('héé'), initcap('hello wORLD'), reverse('abc'), repeat('ab', 2), replace('abcb', 'b', 'x'), left('hello', 2), right('hello', -2), lpad('7', 3, '0'), rpad('7', 3), strpos('hello', 'l'), position('lo' in 'hello')
--= ["?column?", "length", "initcap", "reverse", "repeat", "replace", "left", "right", "lpad", "rpad", "strpos", "position"]
-- ["ABCdef", 3, "Hello World", "cba", "abab", "axcx", "he", "llo", "007", "7  ", 3, 4]

SELECT split_part('a/b/c', '/', 2), split_part('a/b/c', '/', -1), substring('hello' from 2 for 3), substring('hello', 0, 2), substr('hello', 3), substring('abc123' from '[0-9]+'), trim('  x '), trim(both 'x' from 'xxaxx'), ltrim('xxa', 'x'), btrim('--a-', '-'), translate('abc', 'ab', 'x')
--= ["split_part", "split_part", "substring", "substring", "substr", "substring", "btrim", "btrim", "ltrim", "btrim", "translate"]
-- ["b", "c", "ell", "h", "llo", "123", "x", "a", "a", "a", "xc"]

SELECT concat('a', NULL, 1, true), concat_ws('-', 'a', NULL, 'b'), format('%s-%I-%L', 'a', 'B c', 'it''s'), regexp_replace('a1b22', '[0-9]+', '#'), regexp_replace('a1b22', '[0-9]+', '#', 'g'), regexp_match('ab12', '([a-z]+)([0-9]+)'), starts_with('abc', 'ab'), ascii('a'), chr(65)
--= ["concat", "concat_ws", "format", "regexp_replace", "regexp_replace", "regexp_match", "starts_with", "ascii", "chr"]
-- ["a1t", "a-b", "a-\"B c\"-'it''s'", "a#b22", "a#b#", ["ab", "12"], true, 97, "A"]

SELECT 7 / 2, 7 / 2.0, 7 % 3, -7 / 2, -7 % 3, 2 ^ 10, 10::numeric / 4, 1e3, 0.1 + 0.2, 5 & 3, 5 | 3, 1 << 4, ~1, abs(-5), @ -5
--= ["?column?", "?column?", "?column?", "?column?", "?column?", "?column?", "?column?", "?column?", "?column?", "?column?", "?column?", "?column?", "?column?", "abs", "?column?"]
-- [3, 3.5, 1, -3, -1, 1024.0, 2.5, 1000.0, 0.30000000000000004, 1, 7, 16, -2, 5, 5]

SELECT round(2.5), round(-2.5), round(3.14159, 2), round(2.5::float8), ceil(1.2), floor(-1.2), trunc(1.99, 1), sqrt(16), power(2, 3), mod(7, 3), sign(-2), 2.5::int, 3.5::float8::int, '42'::int, '3.7'::numeric::int, ln(1), exp(0)
--= ["round", "round", "round", "round", "ceil", "floor", "trunc", "sqrt", "power", "mod", "sign", "int4", "int4", "int4", "int4", "ln", "exp"]
-- [3.0, -3.0, 3.14, 2.0, 2, -2, 1.9, 4.0, 8.0, 1, -1, 3, 4, 42, 4, 0.0, 1.0]

SELECT 'a' || 1 || true, 1::text || 'x', 1.5::text, 1.0::float8::text, NULL || 'a', true::text, 'yes'::bool, 1::bool, false::int, 'x'::varchar(1) || 'abcdef'::varchar(3)
--= ["?column?", "?column?", "text", "text", "?column?", "text", "bool", "bool", "int4", "?column?"]
-- ["a1true", "1x", "1.5", "1", null, "true", true, true, 0, "xabc"]

SELECT NULL IS NULL, 1 IS DISTINCT FROM NULL, NULL IS NOT DISTINCT FROM NULL, (NULL = 1) IS UNKNOWN, true AND NULL, 1 IN (2, NULL), NOT (1 = 2 OR 2 = 2)
--= ["?column?", "?column?", "?column?", "?column?", "?column?", "?column?", "?column?"]
-- [true, true, true, true, null, null, false]

SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY duration), percentile_disc(0.9) WITHIN GROUP (ORDER BY duration), mode() WITHIN GROUP (ORDER BY status), stddev(duration), var_pop(version) FROM event
--= ["percentile_cont", "percentile_disc", "mode", "stddev", "var_pop"]
-- [2.25, 30.25, "INITIALIZED", 16.38660530229899, 1.0000000000000004]

WITH a AS (SELECT 1 AS x), b(y) AS (SELECT x + 1 FROM a) SELECT x, y FROM a, b
--= ["x", "y"]
-- [1, 2]

WITH event AS (SELECT * FROM noetl.event WHERE status = 'FAILED') SELECT event_id FROM event
--= ["event_id"]
-- [1007]

WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n), max(n) FROM t
--= ["sum", "max"]
-- [15, 5]

WITH RECURSIVE tree AS (SELECT execution_id, path, 0 AS level FROM execution WHERE parent_execution_id IS NULL UNION ALL SELECT x.execution_id, x.path, t.level + 1 FROM execution x JOIN tree t ON x.parent_execution_id = t.execution_id) SELECT * FROM tree ORDER BY level, execution_id
--= ["execution_id", "path", "level"]
-- [543857931469455628, "jobs/parent", 0]
-- [543861711535604109, "jobs/other", 0]
-- [543857932012345678, "jobs/child", 1]
-- [543857933098765432, "jobs/child", 1]

WITH r AS MATERIALIZED (SELECT status, count(*) c FROM event GROUP BY status) SELECT r.status FROM r WHERE c = (SELECT max(c) FROM r)
--= ["status"]
-- ["INITIALIZED"]

SELECT row_to_json(c) FROM catalog c WHERE catalog_id = 3
--= ["row_to_json"]
-- [{"catalog_id": 3, "path": "jobs/child", "version": 2, "kind": "Playbook", "content": null, "created_at": "2026-01-19T09:30:00.500Z"}]

SELECT json_agg(t) FROM (SELECT path, version FROM catalog ORDER BY catalog_id) t
--= ["json_agg"]
-- [[{"path": "jobs/parent", "version": 1}, {"path": "jobs/child", "version": 1}, {"path": "jobs/child", "version": 2}]]

SELECT id, name, type FROM credential ORDER BY id
--= ["id", "name", "type"]
-- [1, "warehouse", "postgres"]
-- [2, "bucket", "gcs"]

SELECT a.event_id, b.event_id FROM event a JOIN event b ON a.execution_id = b.execution_id AND b.version = a.version + 1 WHERE a.status <> b.status ORDER BY 1
--= ["event_id", "event_id"]
-- [1001, 1002]
-- [1002, 1003]
-- [1003, 1004]
-- [1005, 1006]
-- [1006, 1007]
-- [1008, 1009]

SELECT "execution_id" AS "Execution Id", STATUS FROM NOETL.EXECUTION WHERE Status = 'RUNNING' ORDER BY "Execution Id"
--= ["Execution Id", "status"]
-- [543857932012345678, "RUNNING"]
-- [543861711535604109, "RUNNING"]

SELECT x.execution_id, path, count(e.event_id) FROM execution x JOIN event e ON e.execution_id = x.execution_id GROUP BY x.execution_id ORDER BY 1
--= ["execution_id", "path", "count"]
-- [543857931469455628, "jobs/parent", 4]
-- [543857932012345678, "jobs/child", 3]
-- [543857933098765432, "jobs/child", 2]
-- [543861711535604109, "jobs/other", 1]

SELECT execution_id, max(version) - min(version) + 1 AS n FROM event GROUP BY execution_id HAVING max(created_at) < NOW() - INTERVAL '10 minutes' ORDER BY n DESC, execution_id
--= ["execution_id", "n"]
-- [543857931469455628, 4]
-- [543857933098765432, 2]

SELECT status, CASE WHEN count(*) > 2 THEN 'many' ELSE 'few' END FROM event GROUP BY status ORDER BY count(*) DESC, status
--= ["status", "case"]
-- ["INITIALIZED", "many"]
-- ["COMPLETED", "few"]
-- ["CANCELLED", "few"]
-- ["FAILED", "few"]
-- ["PENDING", "few"]
-- ["RUNNING", "few"]

SELECT pg_typeof(1), pg_typeof(now()), pg_typeof('a'::text)
--= ["pg_typeof", "pg_typeof", "pg_typeof"]
-- ["bigint", "timestamp with time zone", "text"]

SELECT event_id FROM event ORDER BY duration DESC NULLS LAST, event_id LIMIT 2
--= ["event_id"]
-- [1007]
-- [1009]

SELECT execution_id, event_type FROM (SELECT *, row_number() OVER (PARTITION BY execution_id ORDER BY version DESC) rn FROM event) last WHERE rn = 1 ORDER BY 1
--= ["execution_id", "event_type"]
-- [543857931469455628, "execution.cancelled"]
-- [543857932012345678, "command.failed"]
-- [543857933098765432, "playbook.completed"]
-- [543861711535604109, "playbook.initialized"]

SELECT node_type, round(avg(duration)::numeric, 2) AS d, round(100.0 * count(*) / sum(count(*)) OVER (), 1) AS pct FROM event GROUP BY node_type ORDER BY 1
--= ["node_type", "d", "pct"]
-- ["http", 30.25, 20.0]
-- ["playbook", 2.25, 50.0]
-- ["python", 1.5, 20.0]
-- [null, null, 10.0]

SELECT count(*) FROM event WHERE meta IS NULL AND NOT (status = 'FAILED') AND created_at > now() - interval '1 day'
--= ["count"]
-- [7]

SELECT lower(status), length(path) FROM execution WHERE lower(path) LIKE 'jobs/%' ORDER BY length(path) DESC, execution_id
--= ["lower", "length"]
-- ["cancelled", 11]
-- ["running", 10]
-- ["completed", 10]
-- ["running", 10]

SELECT coalesce(context->>'reason', error, '-') FROM event ORDER BY event_id
--= ["coalesce"]
-- ["-"]
-- ["-"]
-- ["-"]
-- ["Detected infinite loop"]
-- ["-"]
-- ["-"]
-- ["Timeout: 100% of 30s"]
-- ["-"]
-- ["-"]
-- ["-"]

SELECT execution_id, string_agg(event_type, ' > ' ORDER BY version) FROM event GROUP BY execution_id ORDER BY execution_id
--= ["execution_id", "string_agg"]
-- [543857931469455628, "playbook.initialized > command.issued > call.done > execution.cancelled"]
-- [543857932012345678, "playbook.initialized > command.issued > command.failed"]
-- [543857933098765432, "playbook.initialized > playbook.completed"]
-- [543861711535604109, "playbook.initialized"]

SELECT e.status, x.status FROM event e JOIN execution x USING (execution_id) WHERE e.version = x.version ORDER BY execution_id
--= ["status", "status"]
-- ["CANCELLED", "CANCELLED"]
-- ["FAILED", "RUNNING"]
-- ["COMPLETED", "COMPLETED"]
-- ["INITIALIZED", "RUNNING"]

SELECT true, false, not true, 1 = 1
--= ["?column?", "?column?", "?column?", "?column?"]
-- [true, false, false, true]

SELECT 1 WHERE 1 = 0
--= ["?column?"]

SELECT CAST('2026-01-20' AS date), CAST(1.7 AS int), CAST('{"a": 1}' AS jsonb), '2026-01-20'::timestamptz, '1 day'::interval + '2 hours'
--= ["date", "int4", "jsonb", "timestamptz", "?column?"]
-- ["2026-01-20", 2, {"a": 1}, "2026-01-20T00:00:00.000Z", "1 day 02:00:00"]

SELECT min(created_at)::date, max(created_at) - min(created_at), count(*)::float / 3, sum(version)::text FROM event
--= ["min", "?column?", "?column?", "sum"]
-- ["2026-01-20", "00:15:00", 3.3333333333333335, "20"]

SELECT to_char(created_at, 'HH24:MI') AS at, count(*) FROM event GROUP BY at ORDER BY at
--= ["at", "count"]
-- ["09:00", 6]
-- ["09:01", 1]
-- ["09:08", 1]
-- ["09:10", 1]
-- ["09:15", 1]

SELECT jsonb_pretty('{"a": [1]}'::jsonb), jsonb_strip_nulls('{"a": null, "b": 1}'::jsonb), jsonb_extract_path_text('{"a": {"b": 5}}'::jsonb, 'a', 'b')
--= ["jsonb_pretty", "jsonb_strip_nulls", "jsonb_extract_path_text"]
-- ["{\n    \"a\": [\n        1\n    ]\n}", {"b": 1}, "5"]

SELECT a.n FROM (SELECT 1 AS n UNION ALL SELECT NULL) a ORDER BY n DESC
--= ["n"]
-- [null]
-- [1]

SELECT 2 BETWEEN 1 AND 3, 'b' NOT BETWEEN 'a' AND 'c', 5 NOT IN (1, 2)
--= ["?column?", "?column?", "?column?"]
-- [true, false, true]

SELECT event_id FROM event e WHERE version = (SELECT max(version) FROM event i WHERE i.execution_id = e.execution_id) ORDER BY 1
--= ["event_id"]
-- [1004]
-- [1007]
-- [1009]
-- [1010]

SELECT status FROM event GROUP BY status ORDER BY max(event_id) DESC
--= ["status"]
-- ["INITIALIZED"]
-- ["COMPLETED"]
-- ["FAILED"]
-- ["RUNNING"]
-- ["CANCELLED"]
-- ["PENDING"]

SELECT (SELECT max(event_id) FROM event) - 1000 AS n, ARRAY(SELECT 1)
--= ["n", "array"]
-- [10, [1]]

SELECT ((1)), (SELECT (SELECT 5)), -(-3), - 3
--= ["?column?", "?column?", "?column?", "?column?"]
-- [1, 5, 3, -3]

SELECT 1=-1, 2>-1, 2*-1, 2<>-1, 5<=-6, 3/-1, 2-1, 2--1
--= ["?column?", "?column?", "?column?", "?column?", "?column?", "?column?", "?column?", "?column?"]
-- [false, true, -2, true, false, -3, 1, 2]

SELECT concat('a', true), concat_ws(',', true, 1), format('%s', false), 'a' || true
--= ["concat", "concat_ws", "format", "?column?"]
-- ["at", "t,1", "f", "atrue"]

SELECT ARRAY['a'] || '{b,c}', ARRAY(SELECT version FROM catalog ORDER BY catalog_id), ARRAY(SELECT 1 WHERE false)
--= ["?column?", "array", "array"]
-- [["a", "b", "c"], [1, 1, 2], []]

SELECT count(*) FROM event HAVING count(*) > 1
--= ["count"]
-- [10]

SELECT * FROM (SELECT 1 AS x, 2 AS x) t
--= ["x", "x"]
-- [1, 2]

SELECT upper(status) AS u FROM event GROUP BY u ORDER BY u
--= ["u"]
-- ["CANCELLED"]
-- ["COMPLETED"]
-- ["FAILED"]
-- ["INITIALIZED"]
-- ["PENDING"]
-- ["RUNNING"]

SELECT upper(status) || '!' FROM event GROUP BY upper(status) ORDER BY 1
--= ["?column?"]
-- ["CANCELLED!"]
-- ["COMPLETED!"]
-- ["FAILED!"]
-- ["INITIALIZED!"]
-- ["PENDING!"]
-- ["RUNNING!"]

SELECT status, (SELECT count(*) FROM execution x WHERE x.status = e.status) FROM event e GROUP BY status ORDER BY 1
--= ["status", "count"]
-- ["CANCELLED", 1]
-- ["COMPLETED", 1]
-- ["FAILED", 0]
-- ["INITIALIZED", 0]
-- ["PENDING", 0]
-- ["RUNNING", 2]

SELECT min(execution_id), max(path) FROM execution WHERE path IN ('jobs/child', 'x')
--= ["min", "max"]
-- [543857932012345678, "jobs/child"]

SELECT avg(version), sum(version) / count(*), avg(version)::int, round(avg(version), 2) FROM event
--= ["avg", "?column?", "avg", "round"]
-- [2.0, 2, 2, 2.0]

SELECT status, array_agg(DISTINCT node_type ORDER BY node_type) FROM event GROUP BY status ORDER BY 1
--= ["status", "array_agg"]
-- ["CANCELLED", [null]]
-- ["COMPLETED", ["playbook", "python"]]
-- ["FAILED", ["http"]]
-- ["INITIALIZED", ["playbook"]]
-- ["PENDING", ["python"]]
-- ["RUNNING", ["http"]]

SELECT array_agg(DISTINCT version ORDER BY version DESC), array_agg(DISTINCT version) FROM event
--= ["array_agg", "array_agg"]
-- [[4, 3, 2, 1], [1, 2, 3, 4]]

SELECT count(*) AS total, sum(CASE WHEN status = 'FAILED' THEN 1 ELSE 0 END) AS failed FROM event
--= ["total", "failed"]
-- [10, 1]

SELECT x.path, count(*) AS c FROM execution x JOIN event e ON e.execution_id = x.execution_id WHERE e.created_at >= now() - interval '1 hour' GROUP BY x.path ORDER BY c DESC, x.path LIMIT 5
--= ["path", "c"]
-- ["jobs/child", 5]
-- ["jobs/parent", 4]
-- ["jobs/other", 1]

SELECT first_value(event_type) OVER (PARTITION BY execution_id ORDER BY version), last_value(event_type) OVER (PARTITION BY execution_id ORDER BY version ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING), ntile(2) OVER (ORDER BY event_id), cume_dist() OVER (ORDER BY status), nth_value(event_id, 2) OVER (ORDER BY event_id) FROM event ORDER BY event_id
--= ["first_value", "last_value", "ntile", "cume_dist", "nth_value"]
-- ["playbook.initialized", "execution.cancelled", 1, 0.8, null]
-- ["playbook.initialized", "execution.cancelled", 1, 0.9, 1002]
-- ["playbook.initialized", "execution.cancelled", 1, 0.3, 1002]
-- ["playbook.initialized", "execution.cancelled", 1, 0.1, 1002]
-- ["playbook.initialized", "command.failed", 1, 0.8, 1002]
-- ["playbook.initialized", "command.failed", 2, 1.0, 1002]
-- ["playbook.initialized", "command.failed", 2, 0.4, 1002]
-- ["playbook.initialized", "playbook.completed", 2, 0.8, 1002]
-- ["playbook.initialized", "playbook.completed", 2, 0.3, 1002]
-- ["playbook.initialized", "playbook.initialized", 2, 0.8, 1002]

SELECT a.path FROM execution a WHERE a.started_at = (SELECT min(b.started_at) FROM execution b WHERE b.path = a.path) ORDER BY 1
--= ["path"]
-- ["jobs/child"]
-- ["jobs/other"]
-- ["jobs/parent"]

SELECT status AS execution_id FROM event ORDER BY execution_id
--= ["execution_id"]
-- ["CANCELLED"]
-- ["COMPLETED"]
-- ["COMPLETED"]
-- ["FAILED"]
-- ["INITIALIZED"]
-- ["INITIALIZED"]
-- ["INITIALIZED"]
-- ["INITIALIZED"]
-- ["PENDING"]
-- ["RUNNING"]

SELECT status, count(*) OVER (PARTITION BY status) FROM execution ORDER BY status, 2
--= ["status", "count"]
-- ["CANCELLED", 1]
-- ["COMPLETED", 1]
-- ["RUNNING", 2]
-- ["RUNNING", 2]

SELECT -version AS v FROM event ORDER BY v LIMIT 3
--= ["v"]
-- [-4]
-- [-3]
-- [-3]

SELECT 'a%' LIKE 'a!%' ESCAPE '!', 'abc' ILIKE 'A_C', NULL LIKE 'a'
--= ["?column?", "?column?", "?column?"]
-- [true, true, null]

SELECT * FROM execution x JOIN (catalog c JOIN event e ON e.catalog_id = c.catalog_id) ON x.execution_id = e.execution_id WHERE e.event_id = 1005
--= ["execution_id", "version", "decided", "status", "active", "path", "parent_execution_id", "depth", "in_flight", "reason", "started_at", "ended_at", "catalog_id", "path", "version", "kind", "content", "created_at", "execution_id", "version", "event_id", "parent_execution_id", "root_execution_id", "catalog_id", "event_type", "node_id", "node_name", "node_type", "status", "context", "result", "meta", "error", "worker_id", "command_id", "attempt", "iteration", "duration", "created_at", "schema_version"]
-- [543857932012345678, 3, 3, "RUNNING", true, "jobs/child", 543857931469455628, 1, 1, null, "2026-01-20T09:00:01.500Z", null, 2, "jobs/child", 1, "Playbook", "b: 2", "2026-01-19T08:00:00.000Z", 543857932012345678, 1, 1005, 543857931469455628, 543857931469455628, 2, "playbook.initialized", "root", "start", "playbook", "INITIALIZED", {"workload": {"n": 10, "tags": []}}, null, null, null, null, null, null, null, null, "2026-01-20T09:00:01.500Z", 1]

SELECT e.event_id, c.path FROM event e LEFT JOIN (catalog c JOIN execution x ON x.path = c.path) ON c.catalog_id = e.catalog_id AND x.execution_id = e.execution_id ORDER BY 1, 2
--= ["event_id", "path"]
-- [1001, "jobs/parent"]
-- [1002, "jobs/parent"]
-- [1003, "jobs/parent"]
-- [1004, "jobs/parent"]
-- [1005, "jobs/child"]
-- [1006, "jobs/child"]
-- [1007, "jobs/child"]
-- [1008, "jobs/child"]
-- [1009, "jobs/child"]
-- [1010, null]

SELECT t.* FROM execution x, (SELECT path FROM catalog) t WHERE x.path = t.path ORDER BY 1
--= ["path"]
-- ["jobs/child"]
-- ["jobs/child"]
-- ["jobs/child"]
-- ["jobs/child"]
-- ["jobs/parent"]

SELECT (SELECT s.v FROM (SELECT x.depth AS v) s) FROM execution x ORDER BY 1
--= ["v"]
-- [0]
-- [0]
-- [1]
-- [1]

SELECT g, (g || ' days')::interval FROM generate_series(1, 2) g
--= ["g", "interval"]
-- [1, "1 day"]
-- [2, "2 days"]

SELECT h, count(e.event_id) FROM generate_series(timestamp '2026-01-20 09:00', '2026-01-20 09:15', interval '5 minutes') h LEFT JOIN event e ON e.created_at >= h AND e.created_at < h + interval '5 minutes' GROUP BY h ORDER BY h
--= ["h", "count"]
-- ["2026-01-20T09:00:00.000Z", 7]
-- ["2026-01-20T09:05:00.000Z", 1]
-- ["2026-01-20T09:10:00.000Z", 1]
-- ["2026-01-20T09:15:00.000Z", 1]

SELECT coalesce(sum(duration), 0), coalesce(max(error), 'none') FROM event WHERE status = 'NOPE'
--= ["coalesce", "coalesce"]
-- [0.0, "none"]

SELECT CASE WHEN duration > 2 THEN 'slow' WHEN duration IS NULL THEN NULL ELSE 'fast' END AS speed, count(*) FROM event GROUP BY speed ORDER BY speed NULLS FIRST
--= ["speed", "count"]
-- [null, 7]
-- ["fast", 1]
-- ["slow", 2]

SELECT e.execution_id FROM event e GROUP BY e.execution_id HAVING bool_or(e.status = 'FAILED') OR max(e.version) > 3 ORDER BY 1
--= ["execution_id"]
-- [543857931469455628]
-- [543857932012345678]

SELECT execution_id::text LIKE '5438579%', execution_id % 10, execution_id / 1000000000000 FROM execution ORDER BY execution_id
--= ["?column?", "?column?", "?column?"]
-- [true, 8, 543857]
-- [true, 8, 543857]
-- [true, 2, 543857]
-- [false, 9, 543861]

SELECT event_id FROM event WHERE context->'workload'->'n' = '3' OR context->>'workload' IS NULL AND (context->'args'->>'i')::bigint IN (2) ORDER BY 1
--= ["event_id"]
-- [1001]
-- [1006]

SELECT jsonb_agg(jsonb_build_object('p', path, 'v', version) ORDER BY catalog_id) FROM catalog
--= ["jsonb_agg"]
-- [[{"p": "jobs/parent", "v": 1}, {"p": "jobs/child", "v": 1}, {"p": "jobs/child", "v": 2}]]

SELECT EXTRACT(EPOCH FROM ended_at)::bigint, EXTRACT('hour' FROM ended_at), date_part('epoch', ended_at - started_at) FROM execution WHERE ended_at IS NOT NULL ORDER BY 1
--= ["extract", "extract", "date_part"]
-- [1768899604, 9, 2.25]
-- [1768900080, 9, 480.123]

SELECT '2026-01-20 09:00:00+02'::timestamptz, '2026-01-20T09:00:00Z'::timestamptz
--= ["timestamptz", "timestamptz"]
-- ["2026-01-20T07:00:00.000Z", "2026-01-20T09:00:00.000Z"]

SELECT to_char(TIMESTAMP '2026-01-05 14:08:09', 'Day, DD Mon YYYY'), to_char(date '2026-02-01', 'FMMonth')
--= ["to_char", "to_char"]
-- ["Monday   , 05 Jan 2026", "February"]

SELECT interval '1 day' > interval '23 hours', interval '1 month' = interval '30 days', greatest(interval '1 hour', interval '2 minutes'), interval '1 hour' IN (interval '60 minutes')
--= ["?column?", "?column?", "greatest", "?column?"]
-- [true, true, "01:00:00", true]

SELECT SUM(1), COUNT(1) FROM event
--= ["sum", "count"]
-- [10, 10]

SELECT error IS NOT NULL AS e, COUNT(*) FROM event GROUP BY error IS NOT NULL ORDER BY e
--= ["e", "count"]
-- [false, 9]
-- [true, 1]

SELECT t."A b" FROM (SELECT 1 AS "A b") t
--= ["A b"]
-- [1]

SELECT status FROM event e WHERE e.execution_id = 543857932012345678 AND e.version = ANY(ARRAY(SELECT max(version) FROM event)) 
--= ["status"]

SELECT version = ANY(SELECT version FROM catalog), version <> ALL(SELECT version FROM catalog) FROM execution ORDER BY execution_id
--= ["?column?", "?column?"]
-- [false, true]
-- [false, true]
-- [true, false]
-- [true, false]

SELECT exists(SELECT 1 FROM event), (SELECT 1 WHERE false) IS NULL
--= ["exists", "?column?"]
-- [true, true]

SELECT 1 AS a, 2 AS b UNION ALL SELECT 3, 4 ORDER BY b DESC LIMIT 1 OFFSET 1
--= ["a", "b"]
-- [1, 2]

SELECT event_id, version FROM event ORDER BY version DESC, event_id ASC LIMIT 3
--= ["event_id", "version"]
-- [1004, 4]
-- [1003, 3]
-- [1007, 3]

SELECT date '2026-01-20' BETWEEN '2026-01-01' AND '2026-02-01', '2026-01-20 10:00'::timestamp::date = date '2026-01-20'
--= ["?column?", "?column?"]
-- [true, true]

SELECT random() < 1, random() >= 0
--= ["?column?", "?column?"]
-- [true, true]

SELECT event_id AS "select", status "from" FROM event WHERE event_id = 1001
--= ["select", "from"]
-- [1001, "INITIALIZED"]

SELECT ROUND(duration::numeric, 1)::text FROM event WHERE duration IS NOT NULL ORDER BY 1
--= ["round"]
-- ["1.5"]
-- ["2.3"]
-- ["30.3"]

SELECT sum(duration)::int, sum(duration)::bigint % 7, avg(duration)::numeric(10,2) FROM event
--= ["sum", "?column?", "avg"]
-- [34, 6, 11.33]

SELECT array_agg(created_at ORDER BY created_at) FROM catalog
--= ["array_agg"]
-- [["2026-01-19T08:00:00.000Z", "2026-01-19T08:00:00.000Z", "2026-01-19T09:30:00.500Z"]]

SELECT value, jsonb_typeof(value) FROM jsonb_array_elements('[1, "a", null, {"b": 2}, true, 1.5]')
--= ["value", "jsonb_typeof"]
-- [1, "number"]
-- ["a", "string"]
-- [null, "null"]
-- [{"b": 2}, "object"]
-- [true, "boolean"]
-- [1.5, "number"]

SELECT e FROM jsonb_array_elements_text('["x", "y"]') e WHERE e <> 'x'
--= ["e"]
-- ["y"]

SELECT bool_and(false) OVER (), max(started_at) OVER (PARTITION BY path) FROM execution ORDER BY execution_id
--= ["bool_and", "max"]
-- [false, "2026-01-20T09:00:00.000Z"]
-- [false, "2026-01-20T09:00:02.000Z"]
-- [false, "2026-01-20T09:00:02.000Z"]
-- [false, "2026-01-20T09:15:00.000Z"]

SELECT lag(started_at) OVER (ORDER BY started_at), started_at - lag(started_at) OVER (ORDER BY started_at) FROM execution ORDER BY started_at
--= ["lag", "?column?"]
-- [null, null]
-- ["2026-01-20T09:00:00.000Z", "00:00:01.5"]
-- ["2026-01-20T09:00:01.500Z", "00:00:00.5"]
-- ["2026-01-20T09:00:02.000Z", "00:14:58"]

SELECT DISTINCT ON (path) path, status, count(*) OVER () FROM execution ORDER BY path, started_at
--= ["path", "status", "count"]
-- ["jobs/child", "RUNNING", 4]
-- ["jobs/other", "RUNNING", 4]
-- ["jobs/parent", "CANCELLED", 4]

SELECT DISTINCT path, status FROM execution ORDER BY status DESC, path
--= ["path", "status"]
-- ["jobs/child", "RUNNING"]
-- ["jobs/other", "RUNNING"]
-- ["jobs/child", "COMPLETED"]
-- ["jobs/parent", "CANCELLED"]

SELECT path FROM execution GROUP BY path HAVING count(*) = (SELECT max(c) FROM (SELECT count(*) c FROM execution GROUP BY path) q)
--= ["path"]
-- ["jobs/child"]

EXPLAIN SELECT 1
--= ["QUERY PLAN"]
-- ["SCAN CONSTANT ROW"]

EXPLAIN SELECT event_id FROM event WHERE execution_id = 1
--= ["QUERY PLAN"]
-- ["SEARCH event USING INDEX sqlite_autoindex_event_1 (execution_id=?)"]

SELECT * FROM credential ORDER BY id
--= ["id", "name", "type", "data_encrypted", "created_at"]
-- [1, "warehouse", "postgres", null, "2026-01-01T00:00:00.000Z"]
-- [2, "bucket", "gcs", null, "2026-01-02T00:00:00.000Z"]

SELECT to_jsonb(c) FROM credential c WHERE id = 1
--= ["to_jsonb"]
-- [{"id": 1, "name": "warehouse", "type": "postgres", "data_encrypted": null, "created_at": "2026-01-01T00:00:00.000Z"}]

SELECT json_agg(c) FROM credential c
--= ["json_agg"]
-- [[{"id": 1, "name": "warehouse", "type": "postgres", "data_encrypted": null, "created_at": "2026-01-01T00:00:00.000Z"}, {"id": 2, "name": "bucket", "type": "gcs", "data_encrypted": null, "created_at": "2026-01-02T00:00:00.000Z"}]]

SELECT x.secret FROM (SELECT * FROM credential) AS x(a, b, c, secret, d)
--= ["secret"]
-- [null]
-- [null]

SELECT context['workload']['n'] FROM event WHERE event_id = 1001
--= ["context"]
-- [3]

SELECT string_agg(path, ',') OVER (ORDER BY execution_id) FROM execution ORDER BY 1
--= ["string_agg"]
-- ["jobs/parent"]
-- ["jobs/parent,jobs/child"]
-- ["jobs/parent,jobs/child,jobs/child"]
-- ["jobs/parent,jobs/child,jobs/child,jobs/other"]

SELECT count(*) FROM event WHERE created_at > now() - '1 day'::interval
--= ["count"]
-- [10]

SELECT 99999999999999999999
--= ["?column?"]
-- [1e+20]

SELECT * FROM event NATURAL JOIN execution LIMIT 0
--= ["execution_id", "version", "parent_execution_id", "status", "event_id", "root_execution_id", "catalog_id", "event_type", "node_id", "node_name", "node_type", "context", "result", "meta", "error", "worker_id", "command_id", "attempt", "iteration", "duration", "created_at", "schema_version", "decided", "active", "path", "depth", "in_flight", "reason", "started_at", "ended_at"]

SELECT 1 = ANY('{1,2}'), 3 = ANY(NULL::int[]), 2 > ALL('{}'::int[]), 'a' = ANY(string_to_array('a,b', ','))
--= ["?column?", "?column?", "?column?", "?column?"]
-- [true, false, true, true]

SELECT CAST(NULL AS timestamp) + interval '1 day', NULL::jsonb->'a', coalesce(NULL, NULL)
--= ["?column?", "?column?", "coalesce"]
-- [null, null, null]

SELECT count(*) FROM (SELECT DISTINCT execution_id, node_type FROM event) d
--= ["count"]
-- [7]

SELECT 'é' < 'z', 'a' < 'B', upper('é')
--= ["?column?", "?column?", "upper"]
-- [false, false, "É"]

SELECT '2026-01-20' = created_at::date FROM event LIMIT 1
--= ["?column?"]
-- [true]

SELECT E'\x41\101\u0041'
--= ["?column?"]
-- ["AAA"]

SELECT max(length(status)), length(max(status)) FROM event
--= ["max", "length"]
-- [11, 7]

SELECT count(DISTINCT status) FILTER (WHERE version > 1) FROM event
--= ["count"]
-- [5]

SELECT DISTINCT count(*) FROM event GROUP BY execution_id ORDER BY count(*)
--= ["count"]
-- [1]
-- [2]
-- [3]
-- [4]

SELECT status, count(*) FROM event GROUP BY 1, status ORDER BY 2 DESC, 1 LIMIT 2
--= ["status", "count"]
-- ["INITIALIZED", 4]
-- ["COMPLETED", 2]

(SELECT event_id FROM event ORDER BY event_id LIMIT 2) ORDER BY event_id DESC
--= ["event_id"]
-- [1002]
-- [1001]

SELECT event_id FROM event WHERE event_type ~ ALL (ARRAY['^command', 'ed$']) ORDER BY event_id
--= ["event_id"]
-- [1002]
-- [1006]
-- [1007]

SELECT event_id FROM event WHERE event_type ~ ANY (ARRAY['^command[.]f', '^execution']) ORDER BY event_id
--= ["event_id"]
-- [1004]
-- [1007]

SELECT status FROM event ORDER BY (1) LIMIT 1
--= ["status"]
-- ["CANCELLED"]
