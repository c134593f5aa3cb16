//! Every question that is asked often is answered from an index, however large the tables grow.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use noetl_core::append::{Due, DueKind};
use noetl_core::head::Status;
use noetl_core::id::{CancellationId, ExecutionId, SessionId};
use noetl_core::time::Timestamp;
use noetl_core::turns::Turns;
use rusqlite::Connection;
use rusqlite::trace::{TraceEvent, TraceEventCodes};

use super::tables::{self, Tables};
use super::{SqliteOptions, connection, jobs, migrate, pending, read, schedule};
use crate::catalog::ResourceKey;
use crate::conformance::{ManualClock, Script};
use crate::{EventQuery, JobQuery, ListQuery, Pick};

/// Writes down every statement that the connection runs from now on.
fn listen(connection: &mut Connection) -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let hear = move |event: TraceEvent<'_>| {
        if let TraceEvent::Stmt(_, sql) = event {
            // What begins like a comment is a statement that SQLite runs for itself.
            if !sql.starts_with("--") && !sql.starts_with("EXPLAIN") {
                heard.lock().unwrap().push(sql.to_owned());
            }
        }
    };
    connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(hear)).unwrap();
    seen
}

/// Returns the plan of every statement, line by line.
fn plans(connection: &Connection, statements: &Mutex<Vec<String>>) -> Vec<(String, String)> {
    let statements = std::mem::take(&mut *statements.lock().unwrap());
    let mut lines = Vec::new();
    for sql in statements {
        // Parameters are left unbound; a plan does not depend on them.
        let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let mut details = explain.raw_query();
        while let Some(detail) = details.next().unwrap() {
            lines.push((sql.clone(), detail.get(3).unwrap()));
        }
    }
    assert!(!lines.is_empty());
    lines
}

/// A scan is fine where the table or the index read is as small as the answer.
fn assert_indexed(lines: &[(String, String)], allowed: &[&str]) {
    for (sql, line) in lines {
        let slow = line.starts_with("SCAN") || line.contains("TEMP B-TREE");
        assert!(!slow || allowed.iter().any(|allowed| line.contains(allowed)), "{line}\n  in {sql}");
    }
}

/// Returns the statements for which SQLite makes a table of their own each time they run, as it does of a list of three
/// values and more, or to sort: it costs as much as writing a row.
fn with_a_table_of_their_own(connection: &Connection, lines: &[(String, String)]) -> Vec<String> {
    let statements: BTreeSet<&str> = lines.iter().map(|(sql, _)| sql.as_str()).collect();
    let makes = |sql: &str| {
        let mut explain = connection.prepare(&format!("EXPLAIN {sql}")).unwrap();
        let mut codes = explain.raw_query();
        let mut makes = false;
        while let Some(code) = codes.next().unwrap() {
            let code: String = code.get(1).unwrap();
            makes |= matches!(code.as_str(), "OpenEphemeral" | "OpenAutoindex" | "SorterOpen");
        }
        makes
    };
    statements.into_iter().filter(|sql| makes(sql)).map(ToOwned::to_owned).collect()
}

fn open() -> (tempfile::TempDir, Tables, ManualClock) {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(Timestamp(1_768_900_080_123));
    let options = SqliteOptions::new(folder.path().join("noetl.db"));
    let connection = connection::writer(&options).unwrap();
    migrate::migrate(&connection, &options.path, &clock.clock()).unwrap();
    (folder, Tables::new(connection, clock.clock()), clock)
}

#[test]
fn the_questions_of_every_step_use_an_index() {
    let (_folder, mut tables, _clock) = open();
    let seen = listen(&mut tables.connection);
    let connection = &tables.connection;
    let id = ExecutionId(1);
    let now = Timestamp(1_768_900_080_123);
    let mut turns = Turns::default();
    turns.served(&Arc::from("default"), 0, id, now);
    {
        tables::head(connection, id).unwrap();
        tables::commands(connection, id).unwrap();
        tables::tail(connection, id, 3).unwrap();
        read::load(connection, id).unwrap();
        read::terminal_event(connection, id).unwrap();
        read::result(connection, "noetl://x").unwrap();
        pending::candidates(connection, &[Arc::from("default")], &turns, 5, 10).unwrap();
        read::due(connection, now, 10).unwrap();
        read::held(connection, SessionId(1)).unwrap();
        schedule::due(connection, now, None, 10).unwrap();
        schedule::waits_for(connection, noetl_core::id::ScheduleId(1)).unwrap();
        jobs::open_cancellations(connection).unwrap();
        jobs::cancellation(connection, CancellationId(1)).unwrap();
        jobs::cancellations(connection, &JobQuery { limit: 9, ..JobQuery::default() }).unwrap();
        jobs::cancellations(connection, &JobQuery { open: true, limit: 9, ..JobQuery::default() }).unwrap();
        read::resource(connection, &ResourceKey::Latest("a".into())).unwrap();
        read::resource(connection, &ResourceKey::Version("a".into(), 1)).unwrap();
        read::answer(connection, "k").unwrap();
        for query in [
            EventQuery { execution_id: Some(id), after_version: Some(1), limit: 9, ..EventQuery::default() },
            EventQuery { execution_id: Some(id), newest_first: true, limit: 9, ..EventQuery::default() },
            EventQuery { since_event_id: Some(noetl_core::id::EventId(4)), limit: 9, ..EventQuery::default() },
        ] {
            read::events(connection, &query).unwrap();
        }
        for query in [
            ListQuery { parent: Some(id), limit: 9, ..ListQuery::default() },
            ListQuery { status: vec![Status::Running], limit: 9, ..ListQuery::default() },
            ListQuery { parent: Some(id), status: vec![Status::Running], limit: 9, ..ListQuery::default() },
        ] {
            read::executions(connection, &query).unwrap();
        }
    }
    let lines = plans(connection, &seen);
    assert_indexed(&lines, &["USING INDEX cancellation_open"]);
    assert!(lines.iter().any(|(_, line)| line.contains("event_one_end")), "{lines:?}");
    assert!(lines.iter().any(|(_, line)| line.contains("command_pending")), "{lines:?}");
}

/// A page, whatever it is of, is read along an index from its newest row. Only the strands that a page is put together
/// from are sorted, and each is no longer than the page.
#[test]
fn a_page_of_a_list_is_read_from_its_end() {
    let (_folder, mut tables, _clock) = open();
    let seen = listen(&mut tables.connection);
    let connection = &tables.connection;
    let path = || Some("a/b".to_owned());
    let (one, two) = (vec![Status::Failed], vec![Status::Failed, Status::Cancelled]);
    let page = ListQuery { limit: 9, ..ListQuery::default() };
    for (query, index) in [
        (ListQuery { active_first: true, ..page.clone() }, "execution_status"),
        (ListQuery { status: one.clone(), ..page.clone() }, "execution_status"),
        (ListQuery { status: two.clone(), ..page.clone() }, "execution_status"),
        (
            ListQuery { status: two, active_first: true, before: Some(ExecutionId(7)), ..page.clone() },
            "execution_status",
        ),
        (ListQuery { path: path(), ..page.clone() }, "execution_path"),
        (ListQuery { path: path(), status: one, ..page.clone() }, "execution_path"),
        (ListQuery { path: path(), idle_since: Some(Timestamp(1)), ..page.clone() }, "execution_path"),
    ] {
        read::executions(connection, &query).unwrap();
        read::execution_ids(connection, &query).unwrap();
        for (sql, line) in plans(connection, &seen) {
            let put_together =
                ["SCAN strand_", "SCAN listed", "CO-ROUTINE", "COMPOUND", "LEFT", "RIGHT", "MERGE", "UNION ALL"];
            let fine = put_together.iter().any(|fine| line.starts_with(fine)) || line.contains("MATERIALIZE");
            let sorts = line.contains("TEMP B-TREE") && sql.contains("strand_");
            assert!(fine || sorts || line.contains(index), "{line}\n  in {sql}");
        }
    }
}

#[test]
fn questions_whose_answers_are_few_read_few_rows() {
    let (_folder, mut tables, _clock) = open();
    let seen = listen(&mut tables.connection);
    let connection = &tables.connection;
    let now = Timestamp(1_768_900_080_123);
    {
        read::unquiesced(connection, 10).unwrap();
        read::expired_sessions(connection, now, 10).unwrap();
        let family = ListQuery { root: Some(ExecutionId(1)), limit: 9, ..ListQuery::default() };
        read::executions(connection, &family).unwrap();
        // Newest first without a condition: from the end of the table, as far as the page goes.
        read::executions(connection, &ListQuery { limit: 9, ..ListQuery::default() }).unwrap();
    }
    let lines = plans(connection, &seen);
    let few = ["USING INDEX execution_unquiesced", "SCAN noetl.execution", "SCAN CONSTANT ROW", "FOR ORDER BY"];
    assert_indexed(&lines, &few);
    assert!(lines.iter().any(|(_, line)| line.contains("execution_unquiesced")), "{lines:?}");
    assert!(lines.iter().any(|(_, line)| line.contains("runtime_lease")), "{lines:?}");
    assert!(lines.iter().any(|(_, line)| line.contains("execution_root")), "{lines:?}");
}

#[test]
fn writing_touches_only_what_it_names() {
    let (_folder, mut tables, clock) = open();
    let script = Script::new(&clock);
    let birth = script.birth(None);
    let root = birth.execution_id;
    let write = |tables: &mut Tables, append| {
        let ready = super::encode::ready(append).unwrap();
        assert!(tables.append(&ready).is_ok());
    };
    write(&mut tables, birth);
    let head = tables.view(root).unwrap().unwrap().head;
    write(&mut tables, script.birth(Some(&head)));
    let seen = listen(&mut tables.connection);
    let mut enter = script.enter(root, 1);
    enter.snapshot = Some(Arc::new(serde_json::json!({})));
    let due = script.due(root, DueKind::Timer, 1, 0);
    enter.due.push(noetl_core::append::DueChange::Set(due.clone()));
    script.add_command(&mut enter, noetl_core::head::CommandState::Claimed);
    write(&mut tables, enter);
    tables.open_session(&script.session(SessionId(1), "w", 1_000)).unwrap();
    tables.renew_sessions(&[SessionId(1)], 1_000).unwrap();
    tables.close_session(SessionId(1)).unwrap();
    tables.forget_due(&[Due { at: due.at, ..due }]).unwrap();
    let cancellation = script.cancellation(root);
    tables.open_cancellation(&cancellation).unwrap();
    let canceller = script.clone();
    let decide = Box::new(move |locked: &_, _| canceller.cancel(locked).into());
    let chunk = tables.cancel_chunk(cancellation.cancellation_id, &Pick::Front(9), decide);
    assert_eq!(chunk.unwrap().visited, [root]);
    let unknown = tables.cancel_chunk(CancellationId(77), &Pick::Front(9), Box::new(|_, _| None.into()));
    assert!(unknown.unwrap().done);
    tables.claim_cancellation(cancellation.cancellation_id).unwrap();
    tables.stop_cancellation(cancellation.cancellation_id, "api").unwrap();
    assert!(seen.lock().unwrap().len() > 20);
    let lines = plans(&tables.connection, &seen);
    // What a step of a walk has visited is handed in as a document.
    assert_indexed(&lines, &["-ROW VALUES CLAUSE", "SCAN visited", "SCAN json_each"]);
    let mut with_tables = with_a_table_of_their_own(&tables.connection, &lines);
    // Once with a snapshot, and once in a step of a walk.
    with_tables.retain(|sql| !sql.starts_with("DELETE FROM noetl.snapshot") && !sql.contains("json_each"));
    assert_eq!(with_tables, [""; 0]);
    assert!(lines.iter().any(|(_, line)| line.contains("execution_parent")), "{lines:?}");
    assert!(lines.iter().any(|(_, line)| line.contains("command_held")), "{lines:?}");
}
