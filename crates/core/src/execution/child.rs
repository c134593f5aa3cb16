//! Sub-playbooks: a child is born in its parent's append, under the parent's lock.

use std::sync::Arc;

use crate::event::Parent;
use crate::execution::draft::{Draft, Halt};
use crate::execution::start::{StartRefusal, bear};
use crate::execution::{BookKey, Env, Needs, Start, StartParent};
use crate::id::{CommandId, ExecutionId};
use crate::labels::Labels;
use crate::tool::{ErrorKind, ToolError};
use crate::work::ChildRequest;

impl Draft {
    /// Gives birth to a child that `command_id` waits for, and returns its path too; or says why there can be none.
    pub(super) fn start_child(
        &mut self,
        request: &ChildRequest,
        command_id: CommandId,
        env: &mut Env<'_>,
    ) -> Result<Result<(ExecutionId, Arc<str>), ToolError>, Halt> {
        let path = Arc::clone(&request.path);
        let key = match (request.catalog_id, request.version) {
            (Some(catalog_id), _) => BookKey::Id(catalog_id),
            (None, Some(version)) => BookKey::Version(path, version),
            (None, None) => BookKey::Newest(path),
        };
        let Some(known) = env.books.known.get(&key) else {
            return Err(Halt::Needs(Needs { playbooks: vec![key], ..Needs::default() }));
        };
        let Some(book) = known.clone() else {
            let message = match key {
                BookKey::Version(path, version) => format!("the catalog has no version {version} of playbook `{path}`"),
                BookKey::Newest(path) => format!("the catalog has no playbook `{path}`"),
                BookKey::Id(catalog_id) => format!("the catalog has no entry {catalog_id}"),
            };
            return Ok(Err(ToolError::hard(ErrorKind::NotFound, "PLAYBOOK_UNKNOWN", message)));
        };
        let start = Start {
            execution_id: ExecutionId(env.ids.next(env.now)),
            catalog_id: book.catalog_id,
            version: book.version,
            payload: request.input.clone(),
            parent: Some(StartParent {
                parent: Parent {
                    execution_id: self.execution.execution_id,
                    command_id: Some(command_id),
                    return_step: request.return_step.clone(),
                },
                root_execution_id: self.execution.init.root_execution_id,
                depth: self.execution.init.depth,
                shield: request.shield,
            }),
            started_by: self.execution.init.started_by.clone(),
            strict: self.execution.init.strict,
            // It has its own playbook's, and not its parent's: see `labels`.
            labels: Labels::new(),
            rerun: None,
        };
        match bear(&start, &book.playbook, env, &self.out.children) {
            Ok(birth) => {
                self.out.children.push(birth);
                Ok(Ok((start.execution_id, Arc::clone(&book.playbook.path))))
            }
            Err(StartRefusal::Needs(needs)) => Err(Halt::Needs(needs)),
            Err(refusal @ StartRefusal::TooDeep { .. }) => {
                Ok(Err(ToolError::hard(ErrorKind::Limit, "MAX_DEPTH", refusal.to_string())))
            }
            // A playbook is compiled with no more labels than an execution may have.
            Err(refusal @ StartRefusal::Labels(_)) => {
                Ok(Err(ToolError::hard(ErrorKind::Limit, "TOO_MANY_LABELS", refusal.to_string())))
            }
            // Whoever has it will let go of it: a rule may try again.
            Err(refusal @ StartRefusal::KeyHeld { .. }) => {
                let error = ToolError::soft(ErrorKind::Limit, "CONCURRENCY_KEY_HELD", refusal.to_string()).retryable();
                Ok(Err(error))
            }
            Err(refusal @ (StartRefusal::Workload { .. } | StartRefusal::Key { .. })) => {
                Ok(Err(ToolError::hard(ErrorKind::Transform, "TEMPLATE", refusal.to_string())))
            }
        }
    }
}
