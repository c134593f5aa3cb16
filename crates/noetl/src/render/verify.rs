//! What a verification found.

use serde_json::Value;

use super::{BOLD, DIM, RED, clean, document};

/// Returns one line with the numbers, then one per broken promise with the events that show it below.
pub fn report(body: &Value) -> String {
    let problems = document::list(body, "problems");
    let executions = document::count(body, "executions").unwrap_or(0);
    let mut out = format!("{executions} execution(s) verified, {} problem(s)\n", problems.len());
    for problem in problems {
        let field = |key: &str| clean(document::text(problem, key).unwrap_or("?")).into_owned();
        out.push_str(&format!(
            "  {RED}{}{RED:#} {BOLD}{}{BOLD:#}  {}  {}\n",
            field("property"),
            field("title"),
            field("execution_id"),
            field("found")
        ));
        for event in document::list(problem, "events") {
            out.push_str(&format!("      {DIM}{}{DIM:#}\n", clean(event.as_str().unwrap_or_default())));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_broken_promise_is_one_line_with_its_events_below() {
        let body = json!({
            "executions": 2, "events": 31,
            "problems": [{
                "property": "C1", "title": "no start after the decision", "execution_id": "7",
                "found": "command.claimed after the end", "events": ["7 9 …", "7 10 …"],
            }],
        });
        assert_eq!(
            anstream::adapter::strip_str(&report(&body)).to_string(),
            "2 execution(s) verified, 1 problem(s)\n  \
             C1 no start after the decision  7  command.claimed after the end\n      7 9 …\n      7 10 …\n"
        );
    }
}
