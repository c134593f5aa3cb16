//! What tools printed.

use noetl_core::id::{CommandId, ExecutionId};
use noetl_core::log::{LOG_BYTES_PER_EXECUTION_MAX, LOG_LINE_BYTES_MAX, LogLine, LogStream};

use super::Stage;
use crate::{LogQuery, LogRow};

fn line(stage: &Stage, execution_id: ExecutionId, step: &str, text: &str) -> LogLine {
    LogLine {
        execution_id,
        command_id: CommandId(7),
        step: step.into(),
        iteration: (step == "load").then_some(3),
        task: "task".into(),
        attempt: 2,
        stream: LogStream::Stderr,
        at: stage.clock.now(),
        source: 99,
        serial: stage.id(),
        line: text.to_owned(),
    }
}

async fn read(stage: &Stage, query: LogQuery) -> Vec<LogRow> {
    stage.store.log(query).await.unwrap()
}

fn texts(rows: &[LogRow]) -> Vec<&str> {
    rows.iter().map(|row| row.line.line.as_str()).collect()
}

/// In the order in which they came, page by page, of one step or of all, the last ones too.
pub async fn printed_lines_are_kept_and_read_in_order(stage: Stage) {
    let (one, other) = (stage.start().await, stage.start().await);
    let all = |execution_id| LogQuery { execution_id, step: None, after: 0, limit: 100, newest: false };
    let first = line(&stage, one, "load", "a é\u{1f600}");
    stage.store.keep_log(vec![first.clone(), line(&stage, other, "load", "x")]).await.unwrap();
    stage.store.keep_log(vec![line(&stage, one, "save", "b"), line(&stage, one, "load", "c")]).await.unwrap();
    stage.store.keep_log(Vec::new()).await.unwrap();
    let rows = read(&stage, all(one)).await;
    assert_eq!(rows[0].line, first);
    assert_eq!(texts(&rows), ["a é\u{1f600}", "b", "c"]);
    assert!(rows.is_sorted_by(|a, b| a.log_id < b.log_id));
    let page = read(&stage, LogQuery { after: rows[0].log_id, limit: 1, ..all(one) }).await;
    assert_eq!(texts(&page), ["b"]);
    assert_eq!(texts(&read(&stage, LogQuery { step: Some("load".into()), ..all(one) }).await), ["a é\u{1f600}", "c"]);
    assert_eq!(texts(&read(&stage, LogQuery { newest: true, limit: 2, ..all(one) }).await), ["b", "c"]);
    assert!(read(&stage, LogQuery { after: rows[2].log_id, ..all(one) }).await.is_empty());
    assert_eq!(texts(&read(&stage, all(other)).await), ["x"]);
}

/// A request whose answer was lost is sent again; an execution that is gone has no log.
pub async fn a_line_is_kept_once_and_only_for_an_execution_that_is_there(stage: Stage) {
    let id = stage.start().await;
    let query = LogQuery { execution_id: id, step: None, after: 0, limit: 100, newest: false };
    let lines = vec![line(&stage, id, "load", "a"), line(&stage, id, "load", "b")];
    stage.store.keep_log(lines.clone()).await.unwrap();
    let nobody = ExecutionId(stage.id());
    let mut again = lines;
    again.push(line(&stage, nobody, "load", "nobody's"));
    again.push(line(&stage, id, "load", "c"));
    stage.store.keep_log(again).await.unwrap();
    assert_eq!(texts(&read(&stage, query.clone()).await), ["a", "b", "c"]);
    assert!(read(&stage, LogQuery { execution_id: nobody, ..query.clone() }).await.is_empty());
    // It goes with its execution.
    stage.complete(id).await;
    stage.clock.advance_ms(1);
    assert_eq!(stage.store.prune(stage.clock.now(), false).await.unwrap(), 1);
    stage.store.keep_log(vec![line(&stage, id, "load", "late")]).await.unwrap();
    assert!(read(&stage, query).await.is_empty());
}

/// However many commands print, the log of an execution ends; a mark says so, once.
pub async fn the_log_of_an_execution_is_bounded(stage: Stage) {
    let id = stage.start().await;
    let text = "x".repeat(LOG_LINE_BYTES_MAX);
    let most = LOG_BYTES_PER_EXECUTION_MAX as usize / LOG_LINE_BYTES_MAX;
    let mut left = most + 10;
    while left > 0 {
        let some = left.min(512);
        left -= some;
        stage.store.keep_log((0..some).map(|_| line(&stage, id, "load", &text)).collect()).await.unwrap();
    }
    let last = LogQuery { execution_id: id, step: None, after: 0, limit: 3, newest: true };
    let rows = read(&stage, last).await;
    assert_eq!([rows[0].line.stream, rows[1].line.stream], [LogStream::Stderr; 2]);
    assert_eq!(rows[2].line.stream, LogStream::System);
    assert!(rows[2].line.line.starts_with("… cut here"), "{}", rows[2].line.line);
    let sizes = stage.store.size().await.unwrap();
    let kept = sizes.iter().find(|size| size.table == "log").expect("the log is a table").rows;
    assert_eq!(kept, most as u64 + 1);
}
