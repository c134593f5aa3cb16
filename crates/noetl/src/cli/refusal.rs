//! What a server's refusal means for the exit code, and what to do about it.

use crate::client::{Answer, Unreachable};
use crate::render::diagnostics::{self, Finding};
use crate::render::{clean_lines, document};

use super::console;
use super::stop::{Exit, Stop};

/// Returns how a command ends that was refused.
pub fn of(answer: &Answer) -> Stop {
    let stop = Stop::new(exit(answer.status.as_u16()), clean_lines(&answer.message()));
    match answer.status.as_u16() {
        401 => stop.hint("give a token: --token-file FILE, or NOETL_TOKEN in the environment"),
        403 => stop.hint("the token is not allowed to do this, or the server refuses this host name"),
        507 => stop.hint("make room on the disk, or remove old executions with `noetl db prune`"),
        _ => stop,
    }
}

/// The same, after showing every finding about a playbook whose text is `source`.
pub fn of_playbook(answer: &Answer, file: &str, source: &str) -> Stop {
    let findings = answer.json().map(|body| Finding::of_answer(&body)).unwrap_or_default();
    if findings.is_empty() {
        return of(answer);
    }
    console::note(diagnostics::report(file, source, &findings).trim_end());
    Stop::new(exit(answer.status.as_u16()), format!("{file} is no valid playbook: {}", diagnostics::tally(&findings)))
}

/// Returns how a command ends that got no answer.
pub fn unreachable(lost: &Unreachable) -> Stop {
    let stop = Stop::new(Exit::Unreachable, lost.to_string());
    if lost.timed_out {
        stop.hint("the server may have carried it out all the same: look before you repeat it")
    } else {
        stop.hint("start a server with `noetl server start`, or name another with --server-url")
            .hint("without a named server, commands use the data directory")
    }
}

/// Returns the answer's document, or how the command ends.
pub fn expect(answer: &Answer) -> Result<serde_json::Value, Stop> {
    if !answer.is_success() {
        return Err(of(answer));
    }
    answer.json().ok_or_else(|| {
        Stop::new(Exit::Failed, format!("the server's answer is not JSON: {}", document_start(&answer.text)))
            .hint("is this a noetl server?")
    })
}

/// Returns the ids as they came, or `what` is missing.
pub fn required_id(body: &serde_json::Value, key: &str) -> Result<String, Stop> {
    body.get(key).and_then(document::id).ok_or_else(|| {
        Stop::new(Exit::Failed, format!("the server's answer has no `{key}`")).hint("is this a noetl server?")
    })
}

fn document_start(text: &str) -> String {
    let start: String = text.chars().take(200).collect();
    crate::render::clean(start.trim()).into_owned()
}

fn exit(status: u16) -> Exit {
    match status {
        401 | 403 => Exit::Forbidden,
        404 => Exit::Unknown,
        400 | 413 | 415 | 422 => Exit::Usage,
        408 | 502 | 503 | 504 => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn each_refusal_has_its_exit() {
        for (status, exit) in [
            (400, Exit::Usage),
            (401, Exit::Forbidden),
            (403, Exit::Forbidden),
            (404, Exit::Unknown),
            (409, Exit::Failed),
            (413, Exit::Usage),
            (422, Exit::Usage),
            (500, Exit::Failed),
            (503, Exit::Unreachable),
            (507, Exit::Failed),
        ] {
            let answer = Answer { status: StatusCode::from_u16(status).unwrap(), text: "{}".into() };
            assert_eq!(of(&answer).exit, exit, "{status}");
        }
    }

    #[test]
    fn an_answer_that_is_no_document_is_said_to_be_none() {
        let answer = Answer { status: StatusCode::OK, text: "<html>\u{1b}[2J".into() };
        let stop = expect(&answer).unwrap_err();
        assert!(stop.message.contains("<html>\\u{1b}[2J"), "{stop}");
    }
}
