//! Documents that are small to send and large to understand.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Target;

/// Levels of what is nested deeply.
const LEVELS: usize = 100_000;
/// Longest time that a document may take to be understood or refused, without optimisation, on a busy machine.
const UNDERSTOOD: Duration = Duration::from_secs(30);

fn playbook(body: &str) -> Vec<u8> {
    let text = format!("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: h, path: hostile/one}}\n{body}");
    json!({ "content": text }).to_string().into_bytes()
}

/// Sends a document and returns how it was answered.
#[track_caller]
fn refused(target: &Target, path: &str, body: &[u8]) -> (u16, String) {
    let began = Instant::now();
    let (status, answer) = target.post(path, body);
    assert!(began.elapsed() < UNDERSTOOD, "{path}: {:?}", began.elapsed());
    assert!((400..500).contains(&status), "{path}: {status} {answer}");
    serde_json::from_str::<Value>(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert!(answer.len() < 1 << 20, "{} bytes of refusal", answer.len());
    (status, answer)
}

#[test]
fn json_that_is_deep_or_odd_is_refused_wherever_json_is_read() {
    let target = Target::new(&["--no-worker"]);
    let nest = |open: &str, inner: &str, close: &str| format!("{}{inner}{}", open.repeat(LEVELS), close.repeat(LEVELS));
    let deep = [nest("[", "", "]"), nest("{\"a\":", "1", "}"), "[".repeat(LEVELS), nest("{\"a\":[", "", "]}")];
    let endpoints = [
        ("/api/execute", "payload"),
        ("/api/executions/1/cancel", "reason"),
        ("/api/executions/1/rerun", "payload"),
        ("/api/executions/cancel", "filter"),
        ("/api/catalog/register", "content"),
        ("/api/catalog/list", "path"),
        ("/api/postgres/execute", "query"),
        ("/api/credentials", "data"),
        ("/api/schedules", "payload"),
        ("/api/worker/hello", "meta"),
        ("/api/worker/report", "outcome"),
        ("/api/worker/poll", "held"),
    ];
    for (path, field) in endpoints {
        for value in &deep {
            refused(&target, path, value.as_bytes());
            refused(&target, path, format!("{{\"{field}\": {value}}}").as_bytes());
        }
        for odd in ["1e999999", "-1e-999999999", "\"\\ud800\"", "\"\\u0000\"", "NaN", "Infinity", "'x'", "/**/1"] {
            refused(&target, path, format!("{{\"no such key\": {odd}, \"{field}\": {odd}}}").as_bytes());
        }
        // Ten million keys of one name, a number with a million digits, a string of a million escapes.
        refused(&target, path, format!("{{{}\"a\":1}}", "\"a\":1,".repeat(500_000)).as_bytes());
        refused(&target, path, format!("{{\"zz\": {}}}", "9".repeat(1_000_000)).as_bytes());
        refused(&target, path, format!("{{\"zz\": \"{}\"}}", "\\u0041".repeat(500_000)).as_bytes());
    }
    target.survives();
}

#[test]
fn yaml_that_is_deep_or_multiplies_is_refused() {
    let target = Target::new(&["--no-worker"]);
    let mut laughs = String::from("workload:\n  a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..30 {
        let names = vec![format!("*a{}", level - 1); 9].join(", ");
        laughs.push_str(&format!("  a{level}: &a{level} [{names}]\n"));
    }
    let merged: String = (1..40)
        .map(|level| format!("  m{level}: &m{level}\n    <<: [*m{0}, *m{0}]\n    k{level}: *m{0}\n", level - 1))
        .collect();
    let step = "workflow: [{step: start, tool: {kind: noop}}]\n";
    let indented = |open: &str| {
        let mut text = String::from("workload:\n");
        for level in 0..1_900 {
            text.push_str(&" ".repeat(level + 1));
            text.push_str(open);
            text.push('\n');
        }
        text
    };
    let bombs = [
        format!("{laughs}{step}"),
        format!("workload:\n  m0: &m0 {{a: 1}}\n{merged}{step}"),
        format!("workload: &w {{a: *w}}\n{step}"),
        format!("workload: {}{}\n{step}", "[".repeat(LEVELS), "]".repeat(LEVELS)),
        format!("workload: {}1{}\n{step}", "{a: ".repeat(LEVELS), "}".repeat(LEVELS)),
        format!("workload:\n  {}x\n{step}", "- ".repeat(LEVELS)),
        format!("workload:\n  {}x\n{step}", "? ".repeat(LEVELS)),
        format!("{}{step}", indented("a:")),
        format!("workload: \"{}\"\n{step}", "{{".repeat(LEVELS)),
        format!("workload: {{a: \"{{{{ {}1{} }}}}\"}}\n{step}", "(".repeat(LEVELS), ")".repeat(LEVELS)),
        format!("workload: {{a: \"{{{{ {}1 }}}}\"}}\n{step}", "not ".repeat(LEVELS)),
        format!("workload: {{a: \"{{{{ 1{} }}}}\"}}\n{step}", "|int".repeat(LEVELS)),
        format!("workload: {{a: \"{{{{ a{} }}}}\"}}\n{step}", ".b".repeat(LEVELS)),
        format!("workload: {{a: \"{}\"}}\n{step}", "{% if x %}".repeat(LEVELS)),
        format!("workload: {{a: !!binary \"{}\"}}\n{step}", "*".repeat(LEVELS)),
        "\0".repeat(LEVELS),
        "%YAML 9.9\n---\n".repeat(10_000),
        "--- a\n".repeat(LEVELS),
        format!("{step}{}", "# ".repeat(LEVELS)) + "\n\t\t\t-",
        format!("workflow:\n{}", "  - {step: start, tool: {kind: noop}}\n".repeat(20_000)),
        "workflow: 7\n".to_owned(),
    ];
    for bomb in &bombs {
        let began = Instant::now();
        let (status, answer) = target.post("/api/catalog/register", &playbook(bomb));
        assert!(began.elapsed() < UNDERSTOOD, "{:?}: {}", began.elapsed(), &bomb[..bomb.len().min(100)]);
        // Some are only strange, and taken.
        assert!(status == 200 || status == 422 || status == 400, "{status} {}", &answer[..answer.len().min(300)]);
        assert!(answer.len() < 4 << 20, "{} bytes of answer", answer.len());
    }
    for content in ["a", "AAAA", "////", " ", "\u{feff}", "kind: Playbook", "[]", "7"] {
        refused(&target, "/api/catalog/register", json!({ "content": content }).to_string().as_bytes());
    }
    target.survives();
}

#[test]
fn templates_without_end_fail_their_execution_and_nothing_else() {
    let target = Target::new(&[]);
    let endless = [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{{ 'x' * 999999999999 }}",
        "{{ range(99999999999)|list }}",
        "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
        "{{ 'x'|center(99999999999) }}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ [1]*100000000 }}",
        "{{ 'a'|indent(999999999) }}",
    ];
    for template in endless {
        let body = format!(
            "workflow: [{{step: start, tool: {{kind: noop}}, set: {{ctx.x: {}}}}}]\n",
            serde_json::to_string(template).unwrap()
        );
        let (status, answer) = target.post("/api/catalog/register", &playbook(&body));
        if status == 422 {
            continue;
        }
        assert_eq!(status, 200, "{answer}");
        let (status, answer) = target.post("/api/execute", br#"{"path": "hostile/one"}"#);
        assert_eq!(status, 200, "{answer}");
        let id = serde_json::from_str::<Value>(&answer).unwrap()["execution_id"].as_str().unwrap().to_owned();
        let began = Instant::now();
        loop {
            let path = format!("/api/executions/{id}/status?wait_seconds=20&until=terminal");
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            let answer = target.send(request.as_bytes());
            let status: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
            match status["status"].as_str() {
                Some("FAILED" | "COMPLETED") => break,
                _ => assert!(began.elapsed() < UNDERSTOOD, "{template}: {status}"),
            }
        }
        target.is_well();
    }
    target.survives();
}
