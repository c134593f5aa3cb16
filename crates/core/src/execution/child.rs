//! Sub-playbooks: a child is born in its parent's append, under the parent's lock.

use crate::event::Parent;
use crate::execution::draft::{Draft, Halt};
use crate::execution::start::{StartRefusal, bear};
use crate::execution::{Env, Needs, Start, StartParent};
use crate::id::{CommandId, ExecutionId};
use crate::tool::{ErrorKind, ToolError};
use crate::work::ChildRequest;

impl Draft {
    /// Gives birth to a child that `command_id` waits for, or says why there can be none.
    pub(super) fn start_child(
        &mut self,
        request: &ChildRequest,
        command_id: CommandId,
        env: &mut Env<'_>,
    ) -> Result<Result<ExecutionId, ToolError>, Halt> {
        let key = (request.path.clone(), request.version);
        let Some(known) = env.books.known.get(&key) else {
            return Err(Halt::Needs(Needs { playbooks: vec![key], ..Needs::default() }));
        };
        let Some(book) = known.clone() else {
            let message = match request.version {
                Some(version) => format!("the catalog has no version {version} of playbook `{}`", request.path),
                None => format!("the catalog has no playbook `{}`", request.path),
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
            rerun: None,
        };
        match bear(&start, &book.playbook, env) {
            Ok(birth) => {
                self.out.children.push(birth);
                Ok(Ok(start.execution_id))
            }
            Err(StartRefusal::Needs(needs)) => Err(Halt::Needs(needs)),
            Err(refusal @ StartRefusal::TooDeep { .. }) => {
                Ok(Err(ToolError::hard(ErrorKind::Limit, "MAX_DEPTH", refusal.to_string())))
            }
            Err(refusal @ StartRefusal::Workload { .. }) => {
                Ok(Err(ToolError::hard(ErrorKind::Transform, "TEMPLATE", refusal.to_string())))
            }
        }
    }
}
