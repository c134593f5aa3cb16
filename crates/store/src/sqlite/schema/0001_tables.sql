-- Every table that noetl keeps. Times are texts such as 2026-01-20T09:08:00.123Z, whose order is the order of time;
-- JSON is text; truth values are 0 and 1. Every growing table carries the top of the family.
--
-- An index stands here only when a question needs it; the question stands beside it.
-- `a OR b OR c`, and not `IN (a, b, c)`: of such a list SQLite makes a table whenever it runs a statement that checks it.

-- The log. Ids rise with time, so rows are appended at the end of the table.
CREATE TABLE noetl.event (
    event_id            INTEGER PRIMARY KEY,
    execution_id        INTEGER NOT NULL,
    version             INTEGER NOT NULL,
    parent_execution_id INTEGER,
    root_execution_id   INTEGER NOT NULL,
    catalog_id          INTEGER NOT NULL,
    event_type          TEXT NOT NULL,
    node_name           TEXT,
    node_type           TEXT,
    status              TEXT NOT NULL,
    context             TEXT,
    result              TEXT,
    meta                TEXT,
    error               TEXT,
    worker_id           TEXT,
    command_id          INTEGER,
    attempt             INTEGER,
    iteration           INTEGER,
    duration            REAL,
    created_at          TEXT NOT NULL,
    schema_version      INTEGER NOT NULL,
    node_id             TEXT GENERATED ALWAYS AS (node_name) VIRTUAL
) STRICT;
-- Reading one log; and no two decisions write the same version.
CREATE UNIQUE INDEX noetl.event_log ON event (execution_id, version);
-- One terminal event per execution, whatever the program does.
CREATE UNIQUE INDEX noetl.event_one_end ON event (execution_id)
    WHERE event_type = 'playbook.completed' OR event_type = 'playbook.failed' OR event_type = 'execution.cancelled';
-- One proof per execution.
CREATE UNIQUE INDEX noetl.event_one_proof ON event (execution_id) WHERE event_type = 'execution.quiesced';
-- The recursive query for a family over this table.
CREATE INDEX noetl.event_parent ON event (parent_execution_id, execution_id) WHERE parent_execution_id IS NOT NULL;
-- Who was cancelled, latest first.
CREATE INDEX noetl.event_cancelled ON event (created_at) WHERE event_type = 'execution.cancelled';

-- The heads: written with the events, derivable from them.
CREATE TABLE noetl.execution (
    execution_id        INTEGER PRIMARY KEY,
    catalog_id          INTEGER NOT NULL,
    path                TEXT NOT NULL,
    playbook_version    INTEGER NOT NULL,
    parent_execution_id INTEGER,
    parent_command_id   INTEGER,
    root_execution_id   INTEGER NOT NULL,
    depth               INTEGER NOT NULL,
    status              TEXT NOT NULL CHECK (status = 'RUNNING' OR status = 'COMPLETED' OR status = 'FAILED' OR status = 'CANCELLED'),
    version             INTEGER NOT NULL,
    decided             INTEGER NOT NULL,
    in_flight           INTEGER NOT NULL CHECK (in_flight >= 0),
    runnable            INTEGER NOT NULL,
    engine              INTEGER NOT NULL,
    cancel_mode         TEXT,
    cancel_grace_ms     INTEGER,
    shield              TEXT,
    started_at          TEXT NOT NULL,
    updated_at          TEXT NOT NULL,
    ended_at            TEXT,
    quiesced_at         TEXT,
    current_step        TEXT,
    steps_entered       INTEGER NOT NULL,
    commands_issued     INTEGER NOT NULL,
    failed_steps        TEXT,
    error_detail        TEXT,
    cancel              TEXT,
    pause               TEXT,
    concurrency_key     TEXT,
    labels              TEXT,
    cleanup             TEXT,
    cleanup_of          INTEGER,
    active              INTEGER GENERATED ALWAYS AS (status = 'RUNNING') VIRTUAL,
    error               TEXT GENERATED ALWAYS AS (coalesce(error_detail ->> '$.message', error_detail ->> '$')) VIRTUAL,
    reason              TEXT GENERATED ALWAYS AS (cancel ->> '$.reason') VIRTUAL,
    cancelled_by        TEXT GENERATED ALWAYS AS (cancel ->> '$.cancelled_by') VIRTUAL,
    CHECK ((ended_at IS NULL) = (status = 'RUNNING'))
) STRICT;
-- Children of one execution: the cascade.
CREATE INDEX noetl.execution_parent ON execution (parent_execution_id) WHERE parent_execution_id IS NOT NULL;
-- Members of one family, besides its top.
CREATE INDEX noetl.execution_root ON execution (root_execution_id) WHERE parent_execution_id IS NOT NULL;
-- What runs, what failed, newest first.
CREATE INDEX noetl.execution_status ON execution (status);
-- The same of one playbook.
CREATE INDEX noetl.execution_path ON execution (path, status);
-- What has ended and still runs somewhere: cancels to push.
CREATE INDEX noetl.execution_unquiesced ON execution (execution_id) WHERE ended_at IS NOT NULL AND in_flight > 0;

-- What waits until somebody resumes it: the sweep passes over its obligations.
CREATE INDEX noetl.execution_paused ON execution (execution_id) WHERE pause IS NOT NULL;

-- Who has a concurrency key.
CREATE INDEX noetl.execution_key ON execution (concurrency_key, execution_id)
    WHERE concurrency_key IS NOT NULL AND quiesced_at IS NULL;

-- Who has labels at all.
CREATE INDEX noetl.execution_labels ON execution (execution_id) WHERE labels IS NOT NULL;

-- Live commands only; a settled one leaves the table.
CREATE TABLE noetl.command (
    execution_id      INTEGER NOT NULL,
    command_id        INTEGER NOT NULL,
    epoch             INTEGER NOT NULL,
    root_execution_id INTEGER NOT NULL,
    state             TEXT NOT NULL CHECK (state = 'pending' OR state = 'paused' OR state = 'claimed' OR state = 'suspended' OR state = 'lost'),
    step              TEXT NOT NULL,
    visit             INTEGER NOT NULL,
    iteration         INTEGER,
    kind              TEXT NOT NULL,
    pool              TEXT NOT NULL,
    priority          INTEGER NOT NULL,
    enters            INTEGER NOT NULL,
    at_most_once      INTEGER NOT NULL,
    losses            INTEGER NOT NULL,
    losses_max        INTEGER NOT NULL,
    stopping          TEXT,
    grace_ms          INTEGER,
    wait              TEXT,
    issued_at         TEXT NOT NULL,
    session_id        INTEGER,
    worker_id         TEXT,
    claimed_at        TEXT,
    started           INTEGER NOT NULL,
    running           TEXT,
    work              TEXT NOT NULL,
    PRIMARY KEY (execution_id, command_id, epoch),
    CHECK (state NOT IN ('claimed', 'lost') OR session_id IS NOT NULL)
) STRICT, WITHOUT ROWID;
-- What a worker may take next: the next execution, for they take turns, and its oldest command.
CREATE INDEX noetl.command_pending ON command (pool, priority DESC, execution_id, command_id) WHERE state = 'pending';
-- What a session holds.
CREATE INDEX noetl.command_held ON command (session_id) WHERE session_id IS NOT NULL;

-- Obligations: what has to happen later.
CREATE TABLE noetl.due (
    execution_id       INTEGER NOT NULL,
    kind               TEXT NOT NULL,
    key                INTEGER NOT NULL,
    at                 TEXT NOT NULL,
    command_id         INTEGER,
    root_execution_id  INTEGER NOT NULL,
    PRIMARY KEY (execution_id, kind, key)
) STRICT, WITHOUT ROWID;
-- What is due now.
CREATE INDEX noetl.due_at ON due (at);

-- Cancellations that take more than one commit, and the ids they have still to visit. A cascade names an execution, a
-- job selects several; what it has still to look for lies below its cursor.
CREATE TABLE noetl.cancellation (
    cancellation_id        INTEGER PRIMARY KEY,
    requested_execution_id INTEGER,
    root_execution_id      INTEGER,
    selection              TEXT,
    cascade                INTEGER NOT NULL,
    reason                 TEXT,
    cancelled_by           TEXT NOT NULL,
    requested_by           TEXT,
    remote                 TEXT,
    mode                   TEXT,
    grace_ms               INTEGER,
    idempotency_key        TEXT,
    rate                   INTEGER,
    selected               INTEGER,
    cursor                 INTEGER,
    cancelled              INTEGER NOT NULL,
    visited                INTEGER NOT NULL,
    spared                 INTEGER NOT NULL,
    created_at             TEXT NOT NULL,
    claimed_until          TEXT,
    stopped_at             TEXT,
    stopped_by             TEXT,
    done_at                TEXT,
    -- What is done to each member: cancel, pause or resume.
    action                 TEXT NOT NULL,
    CHECK ((requested_execution_id IS NULL) = (selection IS NOT NULL)),
    CHECK (cursor IS NULL OR (selection IS NOT NULL AND done_at IS NULL AND stopped_at IS NULL))
) STRICT;
CREATE INDEX noetl.cancellation_open ON cancellation (cancellation_id) WHERE done_at IS NULL;
CREATE INDEX noetl.cancellation_requested ON cancellation (requested_execution_id)
    WHERE requested_execution_id IS NOT NULL;

-- The requested one is the selected or named execution that this one is reached through.
CREATE TABLE noetl.cancellation_front (
    cancellation_id        INTEGER NOT NULL,
    execution_id           INTEGER NOT NULL,
    requested_execution_id INTEGER NOT NULL,
    root_execution_id      INTEGER NOT NULL,
    PRIMARY KEY (cancellation_id, execution_id)
) STRICT, WITHOUT ROWID;

-- Who cancelled what, why, and through which ancestor: one row for each execution that was.
CREATE VIEW noetl.cancellation_trail AS
SELECT execution_id,
       root_execution_id,
       parent_execution_id,
       path,
       status,
       ended_at                                            AS cancelled_at,
       cancelled_by,
       CAST(cancel ->> '$.requested_by' AS TEXT)           AS requested_by,
       CAST(cancel ->> '$.remote' AS TEXT)                 AS remote,
       reason,
       CAST(cancel ->> '$.mode' AS TEXT)                   AS mode,
       CAST(cancel ->> '$.cascade' AS INTEGER)             AS cascade,
       CAST(cancel ->> '$.requested_execution_id' AS INTEGER) AS requested_execution_id,
       CAST(cancel ->> '$.job_id' AS INTEGER)              AS job_id,
       quiesced_at,
       in_flight
FROM execution
WHERE cancel IS NOT NULL;

-- Folded states, the newest two of each execution.
CREATE TABLE noetl.snapshot (
    execution_id      INTEGER NOT NULL,
    version           INTEGER NOT NULL,
    root_execution_id INTEGER NOT NULL,
    engine            INTEGER NOT NULL,
    state             TEXT NOT NULL,
    PRIMARY KEY (execution_id, version)
) STRICT;

-- Large results, beside the log.
CREATE TABLE noetl.result (
    reference         TEXT NOT NULL PRIMARY KEY,
    execution_id      INTEGER NOT NULL,
    root_execution_id INTEGER NOT NULL,
    store             TEXT NOT NULL,
    bytes             INTEGER NOT NULL,
    data              TEXT NOT NULL,
    created_at        TEXT NOT NULL
) STRICT;
CREATE INDEX noetl.result_execution ON result (execution_id);

-- What tools printed, line by line, in the order in which it came.
CREATE TABLE noetl.log (
    log_id       INTEGER PRIMARY KEY,
    execution_id INTEGER NOT NULL,
    command_id   INTEGER NOT NULL,
    step         TEXT NOT NULL,
    iteration    INTEGER,
    task         TEXT NOT NULL,
    attempt      INTEGER NOT NULL,
    stream       TEXT NOT NULL CHECK (stream = 'stdout' OR stream = 'stderr' OR stream = 'system'),
    at           TEXT NOT NULL,
    source       INTEGER NOT NULL,
    serial       INTEGER NOT NULL,
    line         TEXT NOT NULL
) STRICT;
CREATE INDEX noetl.log_execution ON log (execution_id);
-- A line that was sent twice is one line.
CREATE UNIQUE INDEX noetl.log_sent ON log (source, serial);

-- How much of it each execution has, and whether its limit was reached.
CREATE TABLE noetl.log_size (
    execution_id INTEGER PRIMARY KEY,
    bytes        INTEGER NOT NULL,
    is_cut       INTEGER NOT NULL
) STRICT;

-- Playbooks by path and version.
CREATE TABLE noetl.catalog (
    catalog_id INTEGER PRIMARY KEY,
    path       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    content    TEXT NOT NULL,
    meta       TEXT,
    created_at TEXT NOT NULL,
    UNIQUE (path, version)
) STRICT;

-- Encrypted secrets.
CREATE TABLE noetl.credential (
    id             INTEGER PRIMARY KEY,
    name           TEXT NOT NULL UNIQUE,
    type           TEXT NOT NULL,
    version        INTEGER NOT NULL,
    data_encrypted TEXT NOT NULL,
    meta           TEXT,
    tags           TEXT,
    description    TEXT,
    created_at     TEXT NOT NULL,
    updated_at     TEXT NOT NULL
) STRICT;

CREATE TABLE noetl.keychain (
    cache_key         TEXT NOT NULL PRIMARY KEY,
    keychain_name     TEXT NOT NULL,
    catalog_id        INTEGER NOT NULL,
    credential_type   TEXT NOT NULL,
    cache_type        TEXT NOT NULL,
    scope_type        TEXT NOT NULL,
    execution_id      INTEGER,
    root_execution_id INTEGER,
    data_encrypted    TEXT NOT NULL,
    expires_at        TEXT NOT NULL,
    created_at        TEXT NOT NULL,
    accessed_at       TEXT,
    access_count      INTEGER NOT NULL DEFAULT 0,
    auto_renew        INTEGER NOT NULL DEFAULT 0,
    renew_config      TEXT
) STRICT;
CREATE INDEX noetl.keychain_execution ON keychain (execution_id) WHERE execution_id IS NOT NULL;
CREATE INDEX noetl.keychain_expires ON keychain (expires_at);

-- What holds for the whole store: the fingerprint of the key that secrets are sealed with.
CREATE TABLE noetl.setting (
    name       TEXT NOT NULL PRIMARY KEY,
    value      TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;

-- One row per life of a worker: its lease.
CREATE TABLE noetl.runtime (
    runtime_id    INTEGER PRIMARY KEY,
    name          TEXT NOT NULL,
    kind          TEXT NOT NULL,
    status        TEXT NOT NULL CHECK (status IN ('ready', 'closed')),
    capacity      INTEGER NOT NULL,
    pools         TEXT NOT NULL,
    runtime       TEXT NOT NULL,
    lease_ends_at TEXT NOT NULL,
    heartbeat_at  TEXT NOT NULL,
    started_at    TEXT NOT NULL
) STRICT;
CREATE INDEX noetl.runtime_name ON runtime (name);
CREATE INDEX noetl.runtime_lease ON runtime (lease_ends_at);

-- Executions that start by the clock.
CREATE TABLE noetl.schedule (
    schedule_id       INTEGER PRIMARY KEY,
    name              TEXT NOT NULL UNIQUE,
    playbook_path     TEXT NOT NULL,
    playbook_version  INTEGER,
    cron              TEXT,
    interval_seconds  INTEGER,
    enabled           INTEGER NOT NULL DEFAULT 1,
    timezone          TEXT NOT NULL DEFAULT 'UTC',
    missed            TEXT NOT NULL DEFAULT 'once' CHECK (missed = 'once' OR missed = 'skip' OR missed = 'all'),
    overlap           TEXT NOT NULL DEFAULT 'skip' CHECK (overlap = 'allow' OR overlap = 'skip' OR overlap = 'cancel'),
    next_run_at       TEXT,
    last_run_at       TEXT,
    last_status       TEXT,
    last_execution_id INTEGER,
    input_payload     TEXT,
    meta              TEXT,
    created_by        TEXT,
    created_at        TEXT NOT NULL,
    updated_at        TEXT NOT NULL,
    CHECK ((cron IS NULL) <> (interval_seconds IS NULL))
) STRICT;
-- Whose tick has come.
CREATE INDEX noetl.schedule_next ON schedule (next_run_at) WHERE enabled = 1;

-- The first answer to each idempotency key.
CREATE TABLE noetl.idempotency (
    key        TEXT NOT NULL PRIMARY KEY,
    answer     TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX noetl.idempotency_created ON idempotency (created_at);
