-- Executions take turns among the pending commands of one pool and one priority.
DROP INDEX noetl.command_pending;
-- What a worker may take next: the next execution, and its oldest command.
CREATE INDEX noetl.command_pending ON command (pool, priority DESC, execution_id, command_id) WHERE state = 'pending';
