//! The promises that every store keeps, one test each.
//!
//! What PROTOCOL says looks right and goes wrong stands here as a test. A store passes when every promise of
//! [`for_each_promise`](crate::for_each_promise) holds for it; the suite speaks of nothing that only one store has.

#![expect(clippy::unwrap_used, reason = "a suite of tests")]

mod batch;
mod cascade;
mod claim;
mod concurrency;
mod durable;
mod family;
mod fixture;
mod guard;
mod head;
mod jobs;
mod locked;
mod logs;
mod obligation;
mod pause;
mod reading;
mod record;
mod schedule;
mod secret;
mod session;
mod upkeep;
mod withdraw;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use noetl_core::time::Timestamp;

pub use self::fixture::{Script, Stage};
pub use self::{
    batch::*, cascade::*, claim::*, concurrency::*, durable::*, family::*, guard::*, head::*, jobs::*, locked::*,
    logs::*, obligation::*, pause::*, reading::*, record::*, schedule::*, secret::*, session::*, upkeep::*,
    withdraw::*,
};
use crate::{Clock, Store};

/// A clock that stands still until it is moved.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Returns a clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        ManualClock(Arc::new(AtomicI64::new(start.0)))
    }

    /// Returns the time it shows.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    /// Moves it on.
    pub fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(i64::try_from(ms).unwrap_or(0), Ordering::SeqCst);
    }

    /// Returns it as a store takes it.
    pub fn clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

/// An empty store to be tried.
pub struct Subject {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its clock.
    pub clock: ManualClock,
    /// Opens the same data again, after the process that held it is gone without a word. `None`: it forgets.
    pub reopen: Option<Reopen>,
}

/// Gives up a store as a crash would, and opens its data again.
pub type Reopen = Box<dyn Fn(Arc<dyn Store>) -> Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send>> + Send + Sync>;

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("store", &self.store).field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// Calls a macro with the name of every promise: `for_each_promise!(mine)` expands to `mine! { a, b, … }`.
///
/// Each is a function `async fn(Stage)` of this module.
#[macro_export]
macro_rules! for_each_promise {
    ($do:ident) => {
        $do! {
            an_execution_is_born_once,
            a_birth_is_well_formed_or_refused,
            a_decision_lands_on_the_state_it_was_made_on,
            a_decision_conflicts_when_another_came_between,
            a_decision_on_an_ended_execution_is_refused_before_it_conflicts,
            what_does_not_exist_is_unknown,
            the_log_has_no_holes_and_keeps_its_order,
            two_terminal_events_are_impossible,
            nothing_but_late_facts_follows_the_end,
            a_terminal_event_and_a_terminal_status_come_together,
            the_head_is_what_its_appends_make_of_it,
            the_head_survives_every_field,
            commands_survive_every_field,
            every_event_survives,
            a_claim_raises_the_version_and_no_decision,
            claims_do_not_starve_decisions,
            a_claim_needs_a_pending_command_of_that_epoch,
            a_claim_on_an_ended_execution_is_refused,
            a_claim_says_nothing_else,
            of_many_claims_one_wins,
            cancel_or_claim_whoever_comes_first_is_seen_by_the_other,
            a_withdrawn_command_can_not_be_claimed,
            a_withdrawn_command_that_is_held_is_not_tried_again,
            a_withdrawal_meets_other_changes_of_its_row_in_one_batch,
            claim_or_withdrawal_whoever_comes_first_is_seen_by_the_other,
            settling_what_is_not_claimed_conflicts_and_writes_nothing,
            a_lost_attempt_stays_on_the_books,
            changes_to_commands_take_effect_in_order,
            a_command_is_inserted_once,
            a_locked_decision_sees_what_stands_and_cannot_conflict,
            a_locked_decision_that_says_nothing_writes_nothing,
            a_locked_decision_is_about_its_own_execution,
            a_locked_decision_reads_the_tail_it_asks_for,
            locked_decisions_on_one_head_take_turns,
            a_locked_append_does_not_go_into_a_batch,
            late_reports_settle_under_the_lock_until_nothing_runs,
            a_decision_that_panics_harms_nobody,
            appends_of_one_batch_land_on_their_own,
            two_decisions_of_one_batch_do_not_both_land,
            a_poisoned_append_fails_alone,
            an_append_lands_as_a_whole_or_not_at_all,
            bad_values_are_cleaned_or_refused,
            batches_from_many_callers_all_land,
            an_empty_batch_is_answered,
            a_child_is_born_under_an_active_parent_only,
            a_child_knows_its_family,
            children_are_born_with_their_parents_append,
            a_child_that_is_refused_refuses_the_append,
            a_child_started_from_outside_races_with_the_end,
            a_childs_end_is_due_for_its_parent_without_touching_it,
            a_job_comes_to_every_page_once,
            what_a_job_spares_is_left_with_its_descendants,
            a_stopped_job_finishes_the_families_it_has_begun,
            a_listed_child_is_not_left_behind_by_a_stop,
            neither_a_cascade_nor_a_finished_job_is_stopped,
            a_job_is_taken_over_when_it_has_not_moved,
            jobs_are_listed_newest_first,
            finished_jobs_are_pruned,
            a_listing_is_counted_and_its_ids_read,
            a_cascade_reaches_every_descendant,
            a_cascade_leaves_what_is_shielded_alone,
            a_cascade_passes_through_what_has_ended,
            a_cascade_goes_on_where_it_stopped,
            a_cascade_is_opened_once,
            a_cascade_leaves_bystanders_alone,
            a_child_born_during_a_cascade_is_caught,
            a_cascade_whose_decision_fails_leaves_its_step_undone,
            obligations_come_due_in_order,
            an_obligation_set_again_replaces_the_first,
            an_obligation_met_is_gone,
            obligations_of_ended_executions_are_forgotten_without_an_event,
            a_paused_execution_gives_nothing_away_and_its_moments_wait,
            a_pause_goes_down_a_family_like_a_cancel,
            a_concurrency_key_is_held_until_nothing_runs,
            of_many_starts_with_one_key_as_many_land_as_may,
            children_of_one_append_share_a_key,
            a_load_is_the_newest_snapshot_and_its_tail,
            what_is_read_is_of_one_moment,
            events_are_found_by_every_condition,
            executions_are_listed_by_every_condition,
            the_terminal_event_is_found,
            large_results_stand_beside_the_log,
            candidates_come_by_pool_priority_and_age,
            candidates_take_turns_between_executions,
            what_runs_after_the_end_is_listed_until_it_is_quiet,
            a_session_replaces_older_lives_of_its_worker,
            a_lease_is_renewed_and_runs_out,
            a_closed_session_is_not_renewed,
            what_a_worker_runs_is_noted_on_what_it_holds,
            expired_sessions_that_hold_nothing_are_no_matter,
            schedules_survive_every_field_and_share_no_name,
            a_tick_starts_once,
            due_schedules_come_in_pages,
            ticks_start_once_however_many_race_for_them,
            a_tick_passes_once,
            a_paused_schedule_starts_nothing,
            only_a_start_is_for_a_tick,
            the_catalog_counts_versions_per_path,
            a_first_answer_is_kept,
            printed_lines_are_kept_and_read_in_order,
            a_line_is_kept_once_and_only_for_an_execution_that_is_there,
            the_log_of_an_execution_is_bounded,
            a_credential_is_written_by_whoever_knows_it_as_it_stands,
            the_first_key_leaves_its_fingerprint,
            another_key_takes_over_at_once_or_not_at_all,
            a_keychain_entry_is_kept_until_it_expires,
            a_sound_store_has_nothing_to_find,
            old_families_are_pruned_whole,
            what_is_cleaned_up_after_is_not_pruned,
            sizes_are_counted,
            a_closed_store_answers_nothing,
            what_was_acknowledged_survives_a_crash,
            an_unfinished_cascade_survives_a_crash,
            secrets_survive_a_crash,
        }
    };
}

/// Tries every promise on a fresh store each.
pub async fn run_all<F: Future<Output = Subject>>(make: impl Fn() -> F) {
    macro_rules! run {
        ($($promise:ident,)*) => {
            $( $promise(Stage::new(make().await)).await; )*
        };
    }
    for_each_promise!(run);
}
