//! Whether an append lands: the guards, written once for every store.
//!
//! A store shows the rows as they stand under its lock; what comes out is a verdict, or the head to write. Nothing is
//! written before everything has been checked, so an append that does not land leaves nothing behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use noetl_core::append::{Append, CommandChange, DueChange, Guard, RefusedBy, Verdict};
use noetl_core::concurrency::KeyHolder;
use noetl_core::event::Event;
use noetl_core::head::{CommandState, Head};
use noetl_core::id::{CommandId, ExecutionId, ScheduleId};
use noetl_core::schedule::Tick;
use noetl_core::time::Timestamp;

use crate::StoreError;

/// The rows that guards look at, as they stand under the lock.
pub trait Rows {
    /// Returns the head.
    fn head(&mut self, execution_id: ExecutionId) -> Result<Option<Head>, StoreError>;

    /// Returns where a live command stands.
    fn command_state(
        &mut self,
        execution_id: ExecutionId,
        command_id: CommandId,
        epoch: u32,
    ) -> Result<Option<CommandState>, StoreError>;

    /// Returns the tick that a schedule waits for; `None` when it is paused, or gone.
    fn waits_for(&mut self, schedule_id: ScheduleId) -> Result<Option<Timestamp>, StoreError>;

    /// Returns who has a concurrency key; it is held until the transaction has ended.
    fn key_holders(&mut self, key: &str) -> Result<Vec<KeyHolder>, StoreError>;
}

/// What the check found.
#[derive(Debug)]
pub enum Check {
    /// It lands: this is to be written.
    Lands(Box<Landing>),
    /// It does not; nothing is to be written.
    Stays(Verdict),
}

/// What an append makes of the head.
#[derive(Debug)]
pub struct Landing {
    /// The head after the append.
    pub head: Head,
    /// The execution is born here.
    pub born: bool,
    /// The same for each child, in order.
    pub children: Vec<Landing>,
}

impl Landing {
    /// Returns the version of the first of `events` events.
    pub(crate) fn first_version(&self, events: usize) -> u64 {
        self.head.version - events as u64 + 1
    }
}

/// Says whether `append` lands on the rows as they stand. `locked`: its decision was made under this very lock.
pub fn check(rows: &mut impl Rows, append: &Append, locked: bool) -> Result<Check, StoreError> {
    well_formed(append)?;
    match &append.guard {
        Guard::New(first) => {
            let parent = match first.parent_execution_id {
                None => None,
                Some(parent) => match rows.head(parent)? {
                    None => return refused(RefusedBy::ParentUnknown),
                    Some(parent) => Some(parent),
                },
            };
            let check = birth(rows, append, first, parent.as_ref(), &mut Family::default())?;
            // Looked at last: a start that is sent again is told that it exists.
            for tick in ticks(append) {
                if matches!(check, Check::Lands(_)) && rows.waits_for(tick.schedule_id)? != Some(tick.at) {
                    return refused(RefusedBy::TickTaken);
                }
            }
            Ok(check)
        }
        Guard::At(decided) => {
            let Some(head) = rows.head(append.execution_id)? else { return refused(RefusedBy::Unknown) };
            if !head.is_active() {
                return refused(RefusedBy::Ended);
            }
            if head.decided != *decided {
                return Ok(Check::Stays(Verdict::Conflict));
            }
            change(rows, append, head)
        }
        Guard::Claim { command_id, epoch, .. } => {
            let Some(head) = rows.head(append.execution_id)? else { return refused(RefusedBy::Unknown) };
            // Cancel or claim, whichever holds the head first: the other one finds it so.
            if !head.is_active() {
                return refused(RefusedBy::Ended);
            }
            match rows.command_state(append.execution_id, *command_id, *epoch)? {
                Some(CommandState::Pending) => change(rows, append, head),
                // Pause or claim, likewise: what is set aside is not pending.
                Some(CommandState::Paused | CommandState::Claimed | CommandState::Suspended | CommandState::Lost)
                | None => refused(RefusedBy::NotPending),
            }
        }
        Guard::Locked if !locked => {
            Err(StoreError::BadData("an append with guard `Locked` belongs into `locked`, not into a batch".into()))
        }
        Guard::Locked => {
            let Some(head) = rows.head(append.execution_id)? else { return refused(RefusedBy::Unknown) };
            change(rows, append, head)
        }
    }
}

/// Refuses what a decision under a lock may not return.
pub(crate) fn decided_under_lock(append: &Append, execution_id: ExecutionId) -> Result<(), StoreError> {
    if append.execution_id == execution_id && append.guard == Guard::Locked {
        Ok(())
    } else {
        Err(StoreError::BadData(format!(
            "a decision under the lock of execution {execution_id} is about that one only"
        )))
    }
}

/// Says that a decision contradicts the rows it was shown.
pub(crate) fn stayed_under_lock(execution_id: ExecutionId, verdict: &Verdict) -> StoreError {
    StoreError::BadData(format!("a decision under the lock of execution {execution_id} did not land: {verdict:?}"))
}

/// What is born in one append.
#[derive(Debug, Default)]
struct Family {
    born: Vec<ExecutionId>,
    /// With the concurrency keys they take.
    holders: Vec<(Arc<str>, KeyHolder)>,
}

/// Returns the ticks that a start is for.
pub(crate) fn ticks(append: &Append) -> impl Iterator<Item = &Tick> {
    append.due.iter().filter_map(|change| match change {
        DueChange::Tick(tick) => Some(tick),
        DueChange::Set(_) | DueChange::Clear { .. } | DueChange::Enter(_) => None,
    })
}

fn refused(by: RefusedBy) -> Result<Check, StoreError> {
    Ok(Check::Stays(Verdict::Refused(by)))
}

fn birth(
    rows: &mut impl Rows,
    append: &Append,
    first: &Head,
    parent: Option<&Head>,
    family: &mut Family,
) -> Result<Check, StoreError> {
    if rows.head(append.execution_id)?.is_some() || family.born.contains(&append.execution_id) {
        return refused(RefusedBy::Exists);
    }
    if let Some(parent) = parent {
        // The parent's head is held here, so it cannot end between this look and the birth: no child escapes a
        // cascade that has fenced its parent.
        if !parent.is_active() {
            return refused(RefusedBy::ParentEnded);
        }
        if first.root_execution_id != parent.root_execution_id || first.depth != parent.depth + 1 {
            return Err(bad(append, "is not of its parent's family, one deeper"));
        }
    } else if first.root_execution_id != append.execution_id || first.depth != 0 {
        return Err(bad(append, "has no parent, so it must be its own root"));
    }
    if let Some(admission) = append.admission() {
        let mut holders = rows.key_holders(&admission.key)?;
        holders.extend(family.holders.iter().filter(|(key, _)| *key == admission.key).map(|(_, one)| one.clone()));
        // Whoever has the lock of the key first takes the place; the other one is decided again.
        if !admission.holds(&holders) {
            return refused(RefusedBy::KeyHeld);
        }
        let holder = KeyHolder { execution_id: append.execution_id, active: true, started_at: append.at };
        family.holders.push((Arc::clone(&admission.key), holder));
    }
    family.born.push(append.execution_id);
    land(rows, append, first.clone(), true, family)
}

fn change(rows: &mut impl Rows, append: &Append, head: Head) -> Result<Check, StoreError> {
    let mut after: BTreeMap<(CommandId, u32), Option<CommandState>> = BTreeMap::new();
    for change in &append.commands {
        // Changes take effect in order: a lost claim is `Delete claimed` and `Insert lost` of the same key.
        match change {
            CommandChange::Insert(row) => {
                after.insert((row.command_id, row.epoch), Some(row.state));
            }
            CommandChange::Delete { command_id, epoch, expect } => {
                if standing(rows, append, &after, *command_id, *epoch)? != Some(*expect) {
                    return Ok(Check::Stays(Verdict::Conflict));
                }
                after.insert((*command_id, *epoch), None);
            }
            CommandChange::Started { command_id, epoch } => {
                match standing(rows, append, &after, *command_id, *epoch)? {
                    Some(CommandState::Claimed | CommandState::Lost) => {}
                    Some(CommandState::Pending | CommandState::Paused | CommandState::Suspended) | None => {
                        return Ok(Check::Stays(Verdict::Conflict));
                    }
                }
            }
            CommandChange::Withdraw { command_id, epoch } => {
                match standing(rows, append, &after, *command_id, *epoch)? {
                    // Claim or withdrawal, whichever holds the head first: the other one finds it so.
                    Some(CommandState::Pending | CommandState::Paused) => {
                        after.insert((*command_id, *epoch), Some(CommandState::Suspended));
                    }
                    Some(CommandState::Claimed) => {}
                    Some(CommandState::Suspended | CommandState::Lost) | None => {
                        return Ok(Check::Stays(Verdict::Conflict));
                    }
                }
            }
        }
    }
    land(rows, append, head, false, &mut Family::default())
}

fn standing(
    rows: &mut impl Rows,
    append: &Append,
    after: &BTreeMap<(CommandId, u32), Option<CommandState>>,
    command_id: CommandId,
    epoch: u32,
) -> Result<Option<CommandState>, StoreError> {
    match after.get(&(command_id, epoch)) {
        Some(state) => Ok(*state),
        None => rows.command_state(append.execution_id, command_id, epoch),
    }
}

fn land(
    rows: &mut impl Rows,
    append: &Append,
    mut head: Head,
    born: bool,
    family: &mut Family,
) -> Result<Check, StoreError> {
    after_the_end(append, &head)?;
    if i64::from(head.in_flight) + append.in_flight_delta() < 0 {
        return Err(bad(append, "settles more attempts than are in flight"));
    }
    for change in &append.commands {
        match change {
            CommandChange::Insert(row) if row.root_execution_id != head.root_execution_id => {
                return Err(bad(append, "cannot hold a command of another family"));
            }
            CommandChange::Insert(_)
            | CommandChange::Delete { .. }
            | CommandChange::Started { .. }
            | CommandChange::Withdraw { .. } => {}
        }
    }
    head.land(append);
    let mut children = Vec::with_capacity(append.children.len());
    for child in &append.children {
        let Guard::New(first) = &child.guard else {
            return Err(bad(child, "is a child, so its guard must be `New`"));
        };
        if ticks(child).next().is_some() {
            return Err(bad(child, "is a child, so no schedule starts it"));
        }
        let parent = match first.parent_execution_id {
            // A cleanup is born beside, not below: nothing above it can be ended.
            None => None,
            Some(parent) if parent == append.execution_id => Some(&head),
            Some(_) => return Err(bad(child, "is written with an execution that is not its parent")),
        };
        match birth(rows, child, first, parent, family)? {
            Check::Lands(landing) => children.push(*landing),
            stays @ Check::Stays(_) => return Ok(stays),
        }
    }
    Ok(Check::Lands(Box::new(Landing { head, born, children })))
}

/// Refuses what may never follow a terminal event: property C4, and C1 within one append.
fn after_the_end(append: &Append, head: &Head) -> Result<(), StoreError> {
    let before = head.status;
    let mut ended = before.is_terminal();
    for new in &append.events {
        // The proof is given once, and the head says so.
        let proves_twice = matches!(new.event, Event::ExecutionQuiesced { .. })
            && !(head.quiesced_at.is_none() && append.head.quiesced);
        let allowed = !proves_twice && (!ended || new.event.after_the_end().is_allowed());
        if !allowed {
            let name = noetl_core::event::row::wire_name(&new.event);
            return Err(bad(append, &format!("has ended, `{name}` cannot follow")));
        }
        ended |= new.event.is_terminal();
    }
    if before.is_terminal() && append.head.status.is_some_and(|status| status != before) {
        return Err(bad(append, "has ended, its status cannot change"));
    }
    Ok(())
}

/// Checks what needs no rows.
fn well_formed(append: &Append) -> Result<(), StoreError> {
    let ending = append.events.iter().find_map(|new| new.event.ends_as());
    if ending != append.head.status.filter(|status| status.is_terminal()) {
        return Err(bad(append, "gets a terminal event and a terminal status together, or neither"));
    }
    let first_is_birth =
        matches!(append.events.first(), Some(new) if matches!(new.event, Event::PlaybookInitialized(_)));
    match &append.guard {
        Guard::New(head) => {
            if !first_is_birth {
                return Err(bad(append, "is new, so it must begin with `playbook.initialized`"));
            }
            if head.execution_id != append.execution_id || head.version != 0 || head.decided != 0 || head.in_flight != 0
            {
                return Err(bad(append, "is new, so its first head must be its own, at version 0"));
            }
            for change in &append.commands {
                match change {
                    CommandChange::Insert(_) => {}
                    CommandChange::Delete { .. } | CommandChange::Started { .. } | CommandChange::Withdraw { .. } => {
                        return Err(bad(append, "is new, so it has no command to change"));
                    }
                }
            }
        }
        Guard::Claim { command_id, epoch, .. } => claim_only(append, *command_id, *epoch)?,
        Guard::At(_) | Guard::Locked => {}
    }
    if !matches!(append.guard, Guard::New(_)) && ticks(append).next().is_some() {
        return Err(bad(append, "exists, so no schedule starts it"));
    }
    if let Some(admission) = append.admission() {
        let own = match &append.guard {
            Guard::New(head) => head.concurrency_key.as_deref() == Some(&*admission.key),
            Guard::At(_) | Guard::Claim { .. } | Guard::Locked => false,
        };
        if !own {
            return Err(bad(append, "takes a concurrency key that is not its own, or not where it begins"));
        }
    }
    if !matches!(append.guard, Guard::New(_)) && first_is_birth {
        return Err(bad(append, "exists, `playbook.initialized` cannot follow"));
    }
    let own = |row_of: ExecutionId| row_of == append.execution_id;
    for change in &append.commands {
        match change {
            CommandChange::Insert(row) if !own(row.execution_id) => {
                return Err(bad(append, "cannot hold a command of another execution"));
            }
            CommandChange::Insert(row) if row.state.in_flight() && row.holder.is_none() => {
                return Err(bad(append, "cannot hold a command in flight that nobody holds"));
            }
            CommandChange::Insert(_)
            | CommandChange::Delete { .. }
            | CommandChange::Started { .. }
            | CommandChange::Withdraw { .. } => {}
        }
    }
    Ok(())
}

/// A claim does not count as a decision, so it may say nothing that a decision reads.
fn claim_only(append: &Append, claimed: CommandId, claimed_epoch: u32) -> Result<(), StoreError> {
    let (enter, claim) = match append.events.as_slice() {
        [claim] => (None, claim),
        [enter, claim] => (Some(enter), claim),
        _ => return Err(bad(append, "can only be claimed by `command.claimed`, behind `step.enter`")),
    };
    let enters = enter.is_none_or(|enter| matches!(enter.event, Event::StepEnter { .. }));
    let claims = matches!(&claim.event, Event::CommandClaimed { command_id, epoch, .. }
        if *command_id == claimed && *epoch == claimed_epoch);
    let silent = append.commands.is_empty()
        && append.children.is_empty()
        && append.results.is_empty()
        && append.snapshot.is_none()
        && append.head.status.is_none()
        && !append.head.quiesced
        && append.head.runnable.is_none()
        && append.head.error.is_none()
        && append.head.cancel.is_none()
        && append.head.pause.is_none();
    if enters && claims && silent {
        Ok(())
    } else {
        Err(bad(append, "can only be claimed by `command.claimed`, behind `step.enter`, and by nothing else"))
    }
}

fn bad(append: &Append, what: &str) -> StoreError {
    StoreError::BadData(format!("execution {} {what}", append.execution_id))
}
