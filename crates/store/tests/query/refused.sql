-- Queries that are refused, or fail, with the message: a query, `--!` with the message, and an empty line.

SELECT ARRAY[1,2,3], ARRAY['a','b'] || 'c', array_length(ARRAY[1,2], 1), cardinality('{}'::int[]), (ARRAY['x','y'])[2], ARRAY[1,2] @> ARRAY[1], ARRAY[1,2] && ARRAY[3], array_to_string(ARRAY['a', NULL, 'b'], ','), array_to_string(ARRAY['a', NULL, 'b'], ',', '*'), string_to_array('a,b', ','), array_position(ARRAY['a','b'], 'b'), array_append(ARRAY[1], 2)
--! invalid input syntax for type text[]: "c" (line 1, column 40)

SELECT 'it''s', E'a\nb', $$x'y$$, 'a' 'b'
--! syntax error: a column can not be named by the text 'b'

SELECT nope FROM event
--! column "nope" does not exist (line 1, column 8)

SELECT e.nope FROM event e
--! column e.nope does not exist (line 1, column 8)

SELECT event.status FROM event e
--! missing FROM-clause entry for table "event" (line 1, column 8)

SELECT status FROM event, execution
--! column reference "status" is ambiguous: name its table (line 1, column 8)

SELECT status, version FROM event GROUP BY status
--! column "version" must appear in the GROUP BY clause or be used in an aggregate function

SELECT count(*), status FROM event
--! column "status" must appear in the GROUP BY clause or be used in an aggregate function

SELECT status FROM event WHERE count(*) > 1
--! aggregate function count is not allowed here (line 1, column 32)

SELECT status FROM event WHERE status = 5
--! operator does not exist: text = bigint: add a cast (line 1, column 41)

SELECT status FROM event WHERE version = 'abc'
--! invalid input syntax for type bigint: "abc" (line 1, column 42)

SELECT status FROM event WHERE version
--! argument of WHERE must be type boolean, not type bigint

SELECT status FROM event WHERE context->>'n' > 5
--! operator does not exist: text > bigint: add a cast (line 1, column 48)

SELECT created_at + 1 FROM event
--! operator does not exist: timestamp without time zone + bigint: add a cast (line 1, column 21)

SELECT created_at > 'rubbish' FROM event
--! invalid input syntax for type timestamp without time zone: "rubbish" (line 1, column 21)

SELECT 1 UNION SELECT 'a'
--! UNION types bigint and text cannot be matched: add a cast

SELECT 1 UNION SELECT '2'
--! UNION types bigint and text cannot be matched: add a cast

SELECT 1, 2 UNION SELECT 3
--! each UNION query must have the same number of columns

SELECT DISTINCT status FROM event ORDER BY version
--! for SELECT DISTINCT, ORDER BY expressions must appear in select list

SELECT status FROM event ORDER BY 2
--! position 2 is not in the select list

SELECT status FROM event ORDER BY -1
--! position -1 is not in the select list

SELECT status, count(*) FROM event GROUP BY status, -1
--! position -1 is not in the select list

SELECT 1/0
--! division by zero

SELECT 'abc'::int
--! invalid input syntax for type bigint: "abc"

SELECT path::int FROM execution
--! invalid input syntax for type bigint: "jobs/parent"

SELECT * FROM nowhere
--! relation "nowhere" does not exist; the tables are event, execution, command, due, cancellation, cancellation_front, cancellation_trail, snapshot, catalog, credential, keychain, runtime, schedule, result, log, log_size (line 1, column 15)

SELECT * FROM pg_catalog.pg_tables
--! relation "pg_catalog.pg_tables" does not exist; the tables are event, execution, command, due, cancellation, cancellation_front, cancellation_trail, snapshot, catalog, credential, keychain, runtime, schedule, result, log, log_size (line 1, column 15)

SELECT * FROM event e, catalog e
--! table name "e" is given more than once (line 1, column 24)

SELECT "status" FROM event WHERE "nope" = 'x'
--! column "nope" does not exist (line 1, column 34)

SELECT sum(status) FROM event
--! function sum(text) does not exist: add a cast (line 1, column 8)

SELECT max(active) FROM execution
--! function max(boolean) does not exist: add a cast (line 1, column 8)

SELECT coalesce(1, 'a'::text)
--! COALESCE types bigint and text cannot be matched: add a cast (line 1, column 8)

SELECT length(5)
--! length takes text, not bigint: add ::text (line 1, column 8)

SELECT string_agg(version, ',') FROM event
--! string_agg takes text, not bigint: add ::text (line 1, column 8)

SELECT row_number() FROM event
--! window function row_number requires an OVER clause (line 1, column 8)

SELECT event_id FROM event WHERE row_number() OVER () = 1
--! window function row_number is not allowed here (line 1, column 34)

SELECT 3000000000::int
--! integer out of range

SELECT substring('a', 1, -1)
--! negative substring length not allowed

SELECT context->'a' = 1 FROM event
--! operator does not exist: jsonb = bigint: add a cast (line 1, column 23)

SELECT jsonb_array_elements(context) FROM event
--! cannot extract elements from an object

SELECT jsonb_array_length(context) FROM event
--! cannot get array length of an object

SELECT ('{"a": "x"}'::jsonb->'a')::int
--! invalid input syntax for type bigint: "\"x\""

SELECT execution_id FROM event HAVING count(*) > 1
--! column "execution_id" must appear in the GROUP BY clause or be used in an aggregate function

SELECT x FROM (SELECT 1 AS x, 2 AS x) t
--! column reference "x" is ambiguous: name its table (line 1, column 8)

SELECT lower(status) FROM event GROUP BY upper(status)
--! column "status" must appear in the GROUP BY clause or be used in an aggregate function

SELECT status, (SELECT count(*) FROM execution x WHERE x.version = e.version) FROM event e GROUP BY status
--! column "version" must appear in the GROUP BY clause or be used in an aggregate function

SELECT node_type, count(*) FROM event GROUP BY GROUPING SETS ((node_type), ())
--! GROUPING SETS is not supported on the embedded store

SELECT sum(duration) FILTER (WHERE status = 'FAILED'), count(*) FILTER (WHERE active IS NULL) FROM event LEFT JOIN execution USING (execution_id)
--! column reference "status" is ambiguous: name its table (line 1, column 36)

SELECT 'a' LIKE 'a\', 'a%' LIKE 'a!%' ESCAPE '!'
--! LIKE pattern must not end with its escape character

SELECT (context->'workload'->'n')::text, context->'workload'->'n' > '2'::jsonb FROM event WHERE event_id = 1001
--! operator jsonb > jsonb is not supported on the embedded store (line 1, column 69)

SELECT justify_hours(interval '25 hours')
--! function justify_hours(interval) is not supported on the embedded store (line 1, column 8)

SELECT EVENT_TYPE, "node_name" FROM event WHERE "EVENT_TYPE" = 'x'
--! column "EVENT_TYPE" does not exist (line 1, column 49)

SELECT node_name, count(*) c FROM event GROUP BY node_name HAVING c > 1
--! column "c" does not exist (line 1, column 67)

SELECT $1
--! parameter $1 is not supported on the embedded store (line 1, column 8); write its value into the query

SELECT count(*) FROM event e WHERE e IS NOT NULL
--! the row value e is not supported on the embedded store (line 1, column 36)

SELECT ('[1, "a", null, {"b": 2}]'::jsonb)->1, jsonb_array_elements('[1, "a", null, {"b": 2}]'), jsonb_array_elements_text('[1, "a", null, {"b": 2}]')
--! a second function that makes rows in the select list is not supported on the embedded store (line 1, column 98); put it in FROM

SELECT i.n FROM execution x LEFT JOIN LATERAL (SELECT count(*) AS n FROM event e WHERE e.execution_id = x.execution_id) i ON true
--! LATERAL subquery is not supported on the embedded store

SELECT strpos(path, '/'), overlay('abc' placing 'X' from 2) FROM execution
--! OVERLAY is not supported on the embedded store

SELECT 'a' SIMILAR TO 'a|b'
--! SIMILAR TO is not supported on the embedded store; use ~ with a regular expression

INSERT INTO noetl.event (event_type, status) VALUES ('execution.cancelled', 'CANCELLED')
--! INSERT is not allowed: queries are read-only, one SELECT at a time (line 1, column 1)

  -- a comment
  UPDATE noetl.event SET status = 'x'
--! UPDATE is not allowed: queries are read-only, one SELECT at a time (line 2, column 3)

DELETE FROM event
--! DELETE is not allowed: queries are read-only, one SELECT at a time (line 1, column 1)

DROP TABLE noetl.event
--! DROP is not allowed: queries are read-only, one SELECT at a time (line 1, column 1)

CREATE TABLE x (a int)
--! CREATE is not allowed: queries are read-only, one SELECT at a time (line 1, column 1)

TRUNCATE event
--! TRUNCATE is not allowed: queries are read-only, one SELECT at a time (line 1, column 1)

ATTACH DATABASE '/tmp/other' AS p
--! ATTACH is not allowed: queries are read-only, one SELECT at a time (line 1, column 1)

PRAGMA table_info(event)
--! PRAGMA is not allowed: queries are read-only, one SELECT at a time (line 1, column 1)

COPY event TO '/tmp/x'
--! COPY is not allowed: queries are read-only, one SELECT at a time (line 1, column 1)

SET search_path = noetl
--! SET is not allowed: queries are read-only, one SELECT at a time (line 1, column 1)

BEGIN
--! BEGIN is not allowed: queries are read-only, one SELECT at a time (line 1, column 1)

VACUUM
--! VACUUM is not allowed: queries are read-only, one SELECT at a time (line 1, column 1)

SELECT 1; DROP TABLE event
--! a second statement (DROP) is not allowed: queries are read-only, one SELECT at a time (line 1, column 11)

SELECT 1; SELECT 2
--! a second statement (SELECT) is not allowed: queries are read-only, one SELECT at a time (line 1, column 11)

WITH x AS (INSERT INTO event VALUES (1) RETURNING *) SELECT * FROM x
--! INSERT is not allowed: queries are read-only, one SELECT at a time

WITH x AS (DELETE FROM event RETURNING *) SELECT * FROM x
--! DELETE is not allowed: queries are read-only, one SELECT at a time

WITH x AS (SELECT 1) DELETE FROM event
--! DELETE is not allowed: queries are read-only, one SELECT at a time

SELECT * INTO copy FROM event
--! SELECT INTO is not allowed: queries are read-only, one SELECT at a time

SELECT * FROM event FOR UPDATE
--! FOR UPDATE is not allowed: queries are read-only, one SELECT at a time

EXPLAIN ANALYZE SELECT 1
--! EXPLAIN with options is not supported on the embedded store

EXPLAIN DELETE FROM event
--! DELETE is not allowed: queries are read-only, one SELECT at a time

SELECT data_encrypted FROM credential
--! column credential.data_encrypted is encrypted and can not be read (line 1, column 8)

SELECT id FROM credential WHERE data_encrypted LIKE 'c%'
--! column credential.data_encrypted is encrypted and can not be read (line 1, column 33)

SELECT c.name, length(c.data_encrypted) FROM noetl.credential c
--! column credential.data_encrypted is encrypted and can not be read (line 1, column 23)

SELECT a.id FROM credential a JOIN credential b USING (data_encrypted)
--! column "data_encrypted" is encrypted and can not be read

SELECT x.s FROM credential AS x(i, n, t, s, c)
--! column credential.data_encrypted is encrypted and can not be read (line 1, column 8)

SELECT rowid FROM event
--! column "rowid" does not exist (line 1, column 8)

SELECT * FROM sqlite_master
--! relation "sqlite_master" does not exist; the tables are event, execution, command, due, cancellation, cancellation_front, cancellation_trail, snapshot, catalog, credential, keychain, runtime, schedule, result, log, log_size (line 1, column 15)

SELECT * FROM noetl.sqlite_schema
--! relation "noetl.sqlite_schema" does not exist; the tables are event, execution, command, due, cancellation, cancellation_front, cancellation_trail, snapshot, catalog, credential, keychain, runtime, schedule, result, log, log_size (line 1, column 15)

SELECT * FROM main.event
--! relation "main.event" does not exist; the tables are event, execution, command, due, cancellation, cancellation_front, cancellation_trail, snapshot, catalog, credential, keychain, runtime, schedule, result, log, log_size (line 1, column 15)

SELECT * FROM pragma_table_info('event')
--! function pragma_table_info in FROM is not supported on the embedded store

SELECT load_extension('x')
--! function load_extension(unknown) is not supported on the embedded store (line 1, column 8)

SELECT readfile('/tmp/other')
--! function readfile(unknown) is not supported on the embedded store (line 1, column 8)

SELECT writefile('/tmp/x', 'a')
--! function writefile(unknown, unknown) is not supported on the embedded store (line 1, column 8)

SELECT randomblob(10)
--! function randomblob(bigint) is not supported on the embedded store (line 1, column 8)

SELECT sqlite_version()
--! function sqlite_version() is not supported on the embedded store (line 1, column 8)

SELECT "nope" = 'nope'
--! column "nope" does not exist (line 1, column 8)

SELECT [status] FROM event
--! syntax error: an array is written ARRAY[…]

SELECT `status` FROM event
--! syntax error: Expected: an expression, found: ` at Line: 1, Column: 8

SELECT status FROM event WHERE status == 'x'
--! operator == does not exist; write = (line 1, column 39)

SELECT status FROM event WHERE status GLOB 'x*'
--! syntax error: No infix parser for token Word(Word { value: "GLOB", quote_style: None, keyword: GLOB }) at Line: 1, Column: 39

SELECT status FROM event WHERE status REGEXP 'x*'
--! REGEXP is not supported on the embedded store; use ~

SELECT * FROM event TABLESAMPLE SYSTEM (10)
--! TABLESAMPLE is not supported on the embedded store

SELECT * FROM event WINDOW
--! syntax error: Expected: identifier, found: EOF

SELECT
--! syntax error: Expected: an expression, found: EOF

SELEC 1
--! a query begins with SELECT, WITH or VALUES, not SELEC (line 1, column 1)

SELECT 'unterminated
--! syntax error: Unterminated string literal at Line: 1, Column: 8

SELECT status FROM event WHERE
--! syntax error: Expected: an expression, found: EOF

SELECT a.b.c.d FROM event
--! column a.b.c.d does not exist (line 1, column 8)

SELECT * EXCEPT (status) FROM event
--! syntax error: Expected: SELECT, VALUES, or a subquery in the query body, found: status at Line: 1, Column: 18

SELECT TOP 5 * FROM event
--! TOP is not supported on the embedded store

SELECT count(*) FROM event LIMIT 5, 10
--! syntax error: unexpected , at Line: 1, Column: 35

SELECT count(*) FROM event GROUP BY ROLLUP (status)
--! ROLLUP is not supported on the embedded store

SELECT pg_sleep(10)
--! function pg_sleep(bigint) is not supported on the embedded store (line 1, column 8)

SELECT pg_read_file('/tmp/other')
--! function pg_read_file(unknown) is not supported on the embedded store (line 1, column 8)

SELECT public.f(1)
--! function public.f is not supported on the embedded store

SELECT nextval('x')
--! function nextval(unknown) is not supported on the embedded store (line 1, column 8)

SELECT xmlelement(name foo)
--! syntax error: Expected: ), found: foo at Line: 1, Column: 24

SELECT sum(DISTINCT version) OVER () FROM event
--! sum with OVER in this form is not supported on the embedded store (line 1, column 8)

SELECT now() AT TIME ZONE 'Europe/Berlin'
--! time zone "Europe/Berlin" is not supported on the embedded store; times are in UTC

SELECT ctid FROM event
--! column "ctid" does not exist (line 1, column 8)

SELECT 'a'::regclass
--! type REGCLASS is not supported on the embedded store

SELECT 1::money
--! type money is not supported on the embedded store

SELECT B'101'
--! literal B'101' is not supported on the embedded store (line 1, column 8)

SELECT X'41'
--! literal X'41' is not supported on the embedded store (line 1, column 8)

SELECT event_id FROM event WHERE created_at > now() - '1 day'
--! invalid input syntax for type timestamp with time zone: "1 day" (line 1, column 55)

SELECT 1.5e400
--! number 1.5e400 is not supported (line 1, column 8)

SELECT OVERLAPS FROM event
--! column "overlaps" does not exist (line 1, column 8)

SELECT (DATE '2026-01-01', DATE '2026-02-01') OVERLAPS (DATE '2026-01-15', DATE '2026-03-01')
--! operator OVERLAPS between row values is not supported on the embedded store

SELECT GROUPING(status) FROM event
--! function grouping(text) is not supported on the embedded store (line 1, column 8)

SELECT event_id FROM ONLY event LIMIT 1
--! relation "only" does not exist; the tables are event, execution, command, due, cancellation, cancellation_front, cancellation_trail, snapshot, catalog, credential, keychain, runtime, schedule, result, log, log_size (line 1, column 22)

SELECT execution_id FROM event ORDER BY execution_id USING >
--! ORDER BY … USING is not supported on the embedded store

SELECT t.a, t.b FROM (SELECT ROW(1, 2)) t
--! function row(bigint, bigint) is not supported on the embedded store (line 1, column 30)

SELECT e1.event_id FROM event e1, LATERAL (SELECT 1) x
--! LATERAL subquery is not supported on the embedded store

SELECT 'abc' COLLATE "C" < 'b', 'abc' COLLATE "de_DE"
--! COLLATE "de_DE" is not supported on the embedded store

SELECT U&'\0041', N'x'
--! literal N'x' is not supported on the embedded store (line 1, column 19)

SELECT 1 ? 2
--! ? takes jsonb, not bigint: add a cast (line 1, column 12)

SELECT status s FROM event ORDER BY lower(s)
--! column "s" does not exist (line 1, column 43)

SELECT event_id FROM event WHERE NOT EXISTS (SELECT FROM event WHERE false) ORDER BY 1 LIMIT 1
--! SELECT without columns is not supported on the embedded store

TABLE catalog
--! TABLE is not supported on the embedded store; write SELECT * FROM

SELECT md5('a')
--! function md5(unknown) is not supported on the embedded store (line 1, column 8)

SELECT upper(1, 2)
--! function upper(bigint, bigint) is not supported on the embedded store (line 1, column 8)

SELECT * FROM event e JOIN execution x ON e.nope = x.path
--! column e.nope does not exist (line 1, column 43)

SELECT context @? '$.a' FROM event
--! operator @? is not supported on the embedded store (line 1, column 19)

SELECT 'a' < 1::bigint
--! invalid input syntax for type bigint: "a" (line 1, column 14)

SELECT now() + now()
--! operator does not exist: timestamp with time zone + timestamp with time zone: add a cast (line 1, column 16)
