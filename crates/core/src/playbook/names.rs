//! Names that templates read and nothing defines.

use std::collections::BTreeSet;

use super::codes;
use super::reader::{NameUse, Reader};
use super::suggest::nearest;
use crate::expr::FUNCTIONS;

/// Names that the engine itself binds somewhere.
pub(super) const SYSTEM_NAMES: &[&str] = &[
    "workload",
    "steps",
    "ctx",
    "iter",
    "loop",
    "loop_index",
    "_index",
    "_total",
    "_first",
    "_last",
    "output",
    "result",
    "response",
    "results",
    "event",
    "error",
    "cancellation",
    "execution_id",
    "catalog_id",
    "path",
    "version",
    "job",
    "env",
    "payload",
    "input",
    "args",
    "keychain",
    "_prev",
    "_task",
    "_attempt",
    "__frame_max_rows",
];

/// Names of the engine's that are seen instead of inputs of the same name.
pub(super) const SHADOWING_NAMES: &[&str] = &["ctx", "env", "job", "output", "path", "steps", "version"];

/// Names through which a template gets at secrets.
pub(super) const SECRET_NAMES: &[&str] = &["keychain", "token"];

/// Warns about every name in `uses` that is neither in `defined` nor bound by the engine, and about secrets where
/// there are none.
///
/// A name that is defined anywhere counts as defined everywhere: a warning has to be worth reading.
pub(super) fn check(reader: &mut Reader<'_>, defined: &BTreeSet<String>) {
    for NameUse { name, span, for_worker } in std::mem::take(&mut reader.uses) {
        // Somebody's own `token` is no function.
        let secret = match &*name {
            "token" => reader.source_from(span.end).trim_start().starts_with('('),
            name => SECRET_NAMES.contains(&name),
        };
        if secret && !for_worker && !defined.contains(&name) {
            let hint = "secrets are for what a tool on a worker is given: its configuration and `input`";
            reader.warn(codes::SECRET_ELSEWHERE, span, format!("`{name}` is empty here"), hint);
        }
        let system = SYSTEM_NAMES.contains(&&*name) || FUNCTIONS.contains(&&*name);
        if system || defined.contains(&name) {
            continue;
        }
        if reader.is_full() {
            return;
        }
        let known = defined.iter().map(String::as_str).chain(SYSTEM_NAMES.iter().copied());
        let hint = match nearest(&name, known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("give it a default under `workload`, or write `{name} | default('')`"),
        };
        let message = format!("`{name}` is defined nowhere here, so it is empty unless the request has it");
        reader.warn(codes::UNDEFINED_NAME, span, message, hint);
    }
}
