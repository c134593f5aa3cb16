-- Every table that noetl keeps, in the schema `noetl`. The names are those of the SQLite file; the types are
-- PostgreSQL's own. Every growing table carries the top of the family.
--
-- Documents of the log are `jsonb`, so that people can search in them; what only programs read is `json`, which keeps
-- the text as it was. An index stands here only when a question needs it; the question stands beside it.

-- The log, one partition for the executions that started in one month (the high bits of an id are its time). The
-- partitions are made by the program, each with a unique index on `event_id`.
CREATE TABLE noetl.event (
    execution_id        bigint NOT NULL,
    version             bigint NOT NULL,
    event_id            bigint NOT NULL,
    parent_execution_id bigint,
    root_execution_id   bigint NOT NULL,
    catalog_id          bigint NOT NULL,
    event_type          text NOT NULL,
    node_id             text GENERATED ALWAYS AS (node_name) STORED,
    node_name           text,
    node_type           text,
    status              text NOT NULL,
    context             jsonb,
    result              jsonb,
    meta                jsonb,
    error               text,
    worker_id           text,
    command_id          bigint,
    attempt             bigint,
    iteration           bigint,
    duration            double precision,
    created_at          timestamptz NOT NULL,
    schema_version      integer NOT NULL,
    -- In which order the keys of `context` and `result` were written; `jsonb` has an order of its own.
    key_order           text,
    -- Reading one log; and no two decisions write the same version.
    PRIMARY KEY (execution_id, version)
) PARTITION BY RANGE (execution_id);
-- One terminal event per execution, whatever the program does.
CREATE UNIQUE INDEX event_one_end ON noetl.event (execution_id)
    WHERE event_type IN ('playbook.completed', 'playbook.failed', 'execution.cancelled');
-- One proof per execution.
CREATE UNIQUE INDEX event_one_proof ON noetl.event (execution_id) WHERE event_type = 'execution.quiesced';
-- The recursive query for a family over this table.
CREATE INDEX event_parent ON noetl.event (parent_execution_id, execution_id) WHERE parent_execution_id IS NOT NULL;
-- Who was cancelled, latest first.
CREATE INDEX event_cancelled ON noetl.event (created_at) WHERE event_type = 'execution.cancelled';

-- The heads: written with the events, derivable from them. A step changes no column that an index looks at, so that
-- the new row stays in the page of the old one.
CREATE TABLE noetl.execution (
    execution_id        bigint PRIMARY KEY,
    catalog_id          bigint NOT NULL,
    path                text COLLATE "C" NOT NULL,
    playbook_version    bigint NOT NULL,
    parent_execution_id bigint,
    parent_command_id   bigint,
    root_execution_id   bigint NOT NULL,
    depth               bigint NOT NULL,
    status              text NOT NULL CHECK (status IN ('RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED')),
    version             bigint NOT NULL,
    decided             bigint NOT NULL,
    in_flight           bigint NOT NULL CHECK (in_flight >= 0),
    runnable            boolean NOT NULL,
    engine              bigint NOT NULL,
    cancel_mode         text,
    cancel_grace_ms     bigint,
    shield              text,
    started_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    ended_at            timestamptz,
    quiesced_at         timestamptz,
    current_step        text,
    steps_entered       bigint NOT NULL,
    commands_issued     bigint NOT NULL,
    failed_steps        json,
    error_detail        json,
    cancel              json,
    pause               json,
    concurrency_key     text,
    labels              jsonb,
    cleanup             json,
    cleanup_of          bigint,
    active              boolean GENERATED ALWAYS AS (status = 'RUNNING') STORED,
    unquiesced          boolean GENERATED ALWAYS AS (ended_at IS NOT NULL AND in_flight > 0) STORED,
    error               text GENERATED ALWAYS AS (coalesce(error_detail ->> 'message', error_detail #>> '{}')) STORED,
    reason              text GENERATED ALWAYS AS (cancel ->> 'reason') STORED,
    cancelled_by        text GENERATED ALWAYS AS (cancel ->> 'cancelled_by') STORED,
    CHECK ((ended_at IS NULL) = (status = 'RUNNING'))
) WITH (fillfactor = 70);
-- Children of one execution: the cascade.
CREATE INDEX execution_parent ON noetl.execution (parent_execution_id) WHERE parent_execution_id IS NOT NULL;
-- Members of one family, besides its top.
CREATE INDEX execution_root ON noetl.execution (root_execution_id) WHERE parent_execution_id IS NOT NULL;
-- What runs, what failed, newest first.
CREATE INDEX execution_status ON noetl.execution (status, execution_id);
-- The same of one playbook.
CREATE INDEX execution_path ON noetl.execution (path, status, execution_id);
-- Which statuses go with which paths: a planner that takes them for independent goes through all ids to find none.
CREATE STATISTICS noetl.execution_kinds (mcv) ON path, status FROM noetl.execution;
-- What has ended and still runs somewhere: cancels to push.
CREATE INDEX execution_unquiesced ON noetl.execution (execution_id) WHERE unquiesced;

-- What waits until somebody resumes it: the sweep passes over its obligations.
CREATE INDEX execution_paused ON noetl.execution (execution_id) WHERE pause IS NOT NULL;

-- Who has a concurrency key.
CREATE INDEX execution_key ON noetl.execution (concurrency_key, execution_id)
    WHERE concurrency_key IS NOT NULL AND quiesced_at IS NULL;

-- Who has a label.
CREATE INDEX execution_labels ON noetl.execution USING gin (labels jsonb_path_ops) WHERE labels IS NOT NULL;

-- Live commands only; a settled one leaves the table.
CREATE TABLE noetl.command (
    execution_id      bigint NOT NULL,
    command_id        bigint NOT NULL,
    epoch             bigint NOT NULL,
    root_execution_id bigint NOT NULL,
    state             text NOT NULL CHECK (state IN ('pending', 'paused', 'claimed', 'suspended', 'lost')),
    step              text NOT NULL,
    visit             bigint NOT NULL,
    iteration         bigint,
    kind              text NOT NULL,
    pool              text NOT NULL,
    priority          integer NOT NULL,
    enters            boolean NOT NULL,
    at_most_once      boolean NOT NULL,
    losses            bigint NOT NULL,
    losses_max        bigint NOT NULL,
    stopping          json,
    grace_ms          bigint,
    wait              json,
    issued_at         timestamptz NOT NULL,
    session_id        bigint,
    worker_id         text,
    claimed_at        timestamptz,
    started           boolean NOT NULL,
    running           json,
    work              json NOT NULL,
    PRIMARY KEY (execution_id, command_id, epoch),
    CHECK (state NOT IN ('claimed', 'lost') OR session_id IS NOT NULL)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
-- What a worker may take next: the next execution, for they take turns, and its oldest command.
CREATE INDEX command_pending ON noetl.command (pool, priority DESC, execution_id, command_id)
    WHERE state = 'pending';
-- What a session holds.
CREATE INDEX command_held ON noetl.command (session_id) WHERE session_id IS NOT NULL;

-- Obligations: what has to happen later.
CREATE TABLE noetl.due (
    execution_id       bigint NOT NULL,
    kind               text COLLATE "C" NOT NULL,
    key                bigint NOT NULL,
    at                 timestamptz NOT NULL,
    command_id         bigint,
    root_execution_id  bigint NOT NULL,
    PRIMARY KEY (execution_id, kind, key)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
-- What is due now.
CREATE INDEX due_at ON noetl.due (at);

-- Cancellations that take more than one commit, and the ids they have still to visit. A cascade names an execution, a
-- job selects several; what it has still to look for lies below its cursor.
CREATE TABLE noetl.cancellation (
    cancellation_id        bigint PRIMARY KEY,
    requested_execution_id bigint,
    root_execution_id      bigint,
    selection              json,
    cascade                boolean NOT NULL,
    reason                 text,
    cancelled_by           text NOT NULL,
    requested_by           text,
    remote                 text,
    mode                   text,
    grace_ms               bigint,
    idempotency_key        text,
    rate                   bigint,
    selected               bigint,
    cursor                 bigint,
    cancelled              bigint NOT NULL,
    visited                bigint NOT NULL,
    spared                 bigint NOT NULL,
    created_at             timestamptz NOT NULL,
    claimed_until          timestamptz,
    stopped_at             timestamptz,
    stopped_by             text,
    done_at                timestamptz,
    -- What is done to each member: cancel, pause or resume.
    action                 text NOT NULL,
    CHECK ((requested_execution_id IS NULL) = (selection IS NOT NULL)),
    CHECK (cursor IS NULL OR (selection IS NOT NULL AND done_at IS NULL AND stopped_at IS NULL))
);
CREATE INDEX cancellation_open ON noetl.cancellation (cancellation_id) WHERE done_at IS NULL;
CREATE INDEX cancellation_requested ON noetl.cancellation (requested_execution_id)
    WHERE requested_execution_id IS NOT NULL;

-- The requested one is the selected or named execution that this one is reached through.
CREATE TABLE noetl.cancellation_front (
    cancellation_id        bigint NOT NULL,
    execution_id           bigint NOT NULL,
    requested_execution_id bigint NOT NULL,
    root_execution_id      bigint NOT NULL,
    PRIMARY KEY (cancellation_id, execution_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- Who cancelled what, why, and through which ancestor: one row for each execution that was.
CREATE VIEW noetl.cancellation_trail AS
SELECT execution_id,
       root_execution_id,
       parent_execution_id,
       path,
       status,
       ended_at                                        AS cancelled_at,
       cancelled_by,
       cancel ->> 'requested_by'                       AS requested_by,
       cancel ->> 'remote'                             AS remote,
       reason,
       cancel ->> 'mode'                               AS mode,
       (cancel ->> 'cascade')::boolean                 AS cascade,
       (cancel ->> 'requested_execution_id')::bigint   AS requested_execution_id,
       (cancel ->> 'job_id')::bigint                   AS job_id,
       quiesced_at,
       in_flight
FROM noetl.execution
WHERE cancel IS NOT NULL;

-- Folded states, the newest two of each execution.
CREATE TABLE noetl.snapshot (
    execution_id      bigint NOT NULL,
    version           bigint NOT NULL,
    root_execution_id bigint NOT NULL,
    engine            bigint NOT NULL,
    state             json NOT NULL,
    PRIMARY KEY (execution_id, version)
);

-- Large results, beside the log.
CREATE TABLE noetl.result (
    reference         text PRIMARY KEY,
    execution_id      bigint NOT NULL,
    root_execution_id bigint NOT NULL,
    store             text NOT NULL,
    bytes             bigint NOT NULL,
    data              json NOT NULL,
    created_at        timestamptz NOT NULL
);
CREATE INDEX result_execution ON noetl.result (execution_id);

-- What tools printed, line by line. Ids rise in the order in which the lines of one execution can be seen.
CREATE TABLE noetl.log (
    log_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    execution_id bigint NOT NULL,
    command_id   bigint NOT NULL,
    step         text NOT NULL,
    iteration    bigint,
    task         text NOT NULL,
    attempt      bigint NOT NULL,
    stream       text NOT NULL CHECK (stream IN ('stdout', 'stderr', 'system')),
    at           timestamptz NOT NULL,
    source       bigint NOT NULL,
    serial       bigint NOT NULL,
    line         text NOT NULL,
    -- A line that was sent twice is one line.
    UNIQUE (source, serial)
);
CREATE INDEX log_execution ON noetl.log (execution_id, log_id);

-- How much of it each execution has, and whether its limit was reached.
CREATE TABLE noetl.log_size (
    execution_id bigint PRIMARY KEY,
    bytes        bigint NOT NULL,
    is_cut       boolean NOT NULL
);

-- Playbooks by path and version.
CREATE TABLE noetl.catalog (
    catalog_id bigint PRIMARY KEY,
    path       text NOT NULL,
    version    bigint NOT NULL,
    kind       text NOT NULL,
    content    text NOT NULL,
    meta       jsonb,
    created_at timestamptz NOT NULL,
    UNIQUE (path, version)
);

-- Encrypted secrets.
CREATE TABLE noetl.credential (
    id             bigint PRIMARY KEY,
    name           text COLLATE "C" NOT NULL UNIQUE,
    type           text NOT NULL,
    version        bigint NOT NULL,
    data_encrypted text NOT NULL,
    meta           json,
    tags           json,
    description    text,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL
);

CREATE TABLE noetl.keychain (
    cache_key         text PRIMARY KEY,
    keychain_name     text NOT NULL,
    catalog_id        bigint NOT NULL,
    credential_type   text NOT NULL,
    cache_type        text NOT NULL,
    scope_type        text NOT NULL,
    execution_id      bigint,
    root_execution_id bigint,
    data_encrypted    text NOT NULL,
    expires_at        timestamptz NOT NULL,
    created_at        timestamptz NOT NULL,
    accessed_at       timestamptz,
    access_count      bigint NOT NULL DEFAULT 0,
    auto_renew        boolean NOT NULL DEFAULT false,
    renew_config      jsonb
);
CREATE INDEX keychain_execution ON noetl.keychain (execution_id) WHERE execution_id IS NOT NULL;
CREATE INDEX keychain_expires ON noetl.keychain (expires_at);

-- What holds for the whole store: the fingerprint of the key that secrets are sealed with.
CREATE TABLE noetl.setting (
    name       text PRIMARY KEY,
    value      text NOT NULL,
    updated_at timestamptz NOT NULL
);

-- One row per life of a worker: its lease.
CREATE TABLE noetl.runtime (
    runtime_id    bigint PRIMARY KEY,
    name          text NOT NULL,
    kind          text NOT NULL,
    status        text NOT NULL CHECK (status IN ('ready', 'closed')),
    capacity      bigint NOT NULL,
    pools         json NOT NULL,
    runtime       json NOT NULL,
    lease_ends_at timestamptz NOT NULL,
    heartbeat_at  timestamptz NOT NULL,
    started_at    timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX runtime_name ON noetl.runtime (name);

-- Executions that start by the clock.
CREATE TABLE noetl.schedule (
    schedule_id       bigint PRIMARY KEY,
    name              text NOT NULL UNIQUE,
    playbook_path     text NOT NULL,
    playbook_version  bigint,
    cron              text,
    interval_seconds  bigint,
    enabled           boolean NOT NULL DEFAULT true,
    timezone          text NOT NULL DEFAULT 'UTC',
    missed            text NOT NULL DEFAULT 'once' CHECK (missed IN ('once', 'skip', 'all')),
    overlap           text NOT NULL DEFAULT 'skip' CHECK (overlap IN ('allow', 'skip', 'cancel')),
    next_run_at       timestamptz,
    last_run_at       timestamptz,
    last_status       text,
    last_execution_id bigint,
    input_payload     json,
    meta              jsonb,
    created_by        text,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    CHECK ((cron IS NULL) <> (interval_seconds IS NULL))
);
-- Whose tick has come.
CREATE INDEX schedule_next ON noetl.schedule (next_run_at) WHERE enabled;

-- The first answer to each idempotency key.
CREATE TABLE noetl.idempotency (
    key        text PRIMARY KEY,
    answer     json NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX idempotency_created ON noetl.idempotency (created_at);
