//! Whatever is written, the reader and the evaluator answer: no panic, no hang, no memory without end.
//!
//! Cases are damaged playbooks and templates, made from a seed. `NOETL_TEST_LONG=1` looks for ten minutes each;
//! `NOETL_TEST_SEED=N` runs the one case that a failure names.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use noetl_core::expr::{Binding, Condition, Library, Names, ResultBinding, Scope, Template, is_template};
use noetl_core::id::ExecutionId;
use noetl_core::playbook::compile;
use noetl_core::result::Bound;
use noetl_core::schedule::Rhythm;
use noetl_core::time::Timestamp;
use serde_json::{Value, json};

/// Cases of a short run.
const CASES: u64 = 400;
/// A long run looks for so long.
const LONG: Duration = Duration::from_secs(600);
/// No case may keep a processor busy for longer, not even without optimisation.
const CASE_MAX: Duration = Duration::from_secs(30);
/// Most memory that this process may have used in the end, in MiB.
const PEAK_MIB_MAX: u64 = 2_048;
/// Where the seeds of short runs begin. Seeds that found something stand in [`KEPT`].
const FIRST_SEED: u64 = 20_260_120;
/// Seeds that once failed.
const KEPT: &[u64] = &[20_260_304];

/// Pieces that mean something somewhere.
const TOKENS: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{{ x }}",
    "{% if x %}",
    "{% endif %}",
    "{% for i in x %}",
    "{% endfor %}",
    "{% raw %}",
    "{% endraw %}",
    "{% set a = x %}",
    "{% macro m() %}",
    "{% endmacro %}",
    "|",
    "|int",
    "|tojson",
    "|replace('a','b')",
    "|default(",
    "|length",
    "|join(',')",
    "range(99999999)",
    "now()",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    ":",
    "- ",
    "\n",
    "\n  ",
    "\t",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "? ",
    "---\n",
    "|\n",
    ">-\n",
    "#",
    "~",
    "null",
    "true",
    "1e999",
    "-0",
    "99999999999999999999",
    "\u{0}",
    "\u{feff}",
    "é",
    "💥",
    "a.b.c[0]['d']",
    " is ",
    " not ",
    " in ",
    " if ",
    " else ",
    " and ",
    "**",
    "//",
    "~",
    ".",
    "..",
    "__class__",
    "loop",
    "self",
    "step: ",
    "tool: ",
    "kind: ",
    "next: ",
    "loop: ",
    "cursor: ",
    "policy: ",
    "rules: ",
    "else:",
    "jump",
    "retry",
];

/// Numbers from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Damages `text` a few times: cuts, doubles, moves and replaces pieces, and puts in what means something.
fn damage(text: &str, others: &[String], chance: &mut Chance) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for _ in 0..=chance.below(6) {
        let at = chance.below(letters.len() + 1);
        let end = (at + chance.below(40)).min(letters.len());
        let piece: Vec<char> = letters[at..end].to_vec();
        match chance.below(7) {
            0 => drop(letters.splice(at..end, [])),
            1 => {
                let times = 1 + chance.below(60);
                let many: Vec<char> = piece.iter().copied().cycle().take(piece.len() * times).collect();
                drop(letters.splice(at..at, many));
            }
            2 => {
                let to = chance.below(letters.len() + 1);
                drop(letters.splice(to..to, piece));
            }
            3 => {
                let other: Vec<char> = chance.pick(others).chars().collect();
                let from = chance.below(other.len() + 1);
                let until = (from + chance.below(200)).min(other.len());
                drop(letters.splice(at..end, other[from..until].iter().copied()));
            }
            4 => {
                let times = 1 + chance.below(300);
                drop(letters.splice(at..at, chance.pick(TOKENS).repeat(times).chars()));
            }
            _ => drop(letters.splice(at..end, chance.pick(TOKENS).chars())),
        }
    }
    letters.truncate(400_000);
    letters.into_iter().collect()
}

/// Runs `case` for many seeds, or for the one that was named.
#[expect(clippy::disallowed_methods, reason = "a test may read the clock and the environment; the library may not")]
#[expect(clippy::print_stdout, reason = "how far a search came is worth knowing")]
fn run(name: &str, case: impl Fn(&mut Chance)) {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let began = Instant::now();
    let long = variable("NOETL_TEST_LONG").is_some_and(|value| value != "0");
    let one = variable("NOETL_TEST_SEED").map(|seed| seed.parse::<u64>().expect("NOETL_TEST_SEED is a number"));
    let first = if long { RandomState::new().build_hasher().finish() } else { FIRST_SEED };
    let endless = KEPT.iter().copied().chain((0..).map(|step| first.wrapping_add(step)));
    let seeds: Box<dyn Iterator<Item = u64>> = match one {
        Some(seed) => Box::new([seed].into_iter()),
        None if long => Box::new(endless.take_while(move |_| began.elapsed() < LONG)),
        None => Box::new(endless.take(KEPT.len() + CASES as usize)),
    };
    let mut cases = 0_u64;
    for seed in seeds {
        let case_began = worked();
        let replay = format!("replay: NOETL_TEST_SEED={seed} cargo test -p noetl-core --test it {name}");
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&mut Chance(seed))));
        assert!(outcome.is_ok(), "seed {seed} fails; {replay}");
        let took = worked().saturating_sub(case_began);
        assert!(took < CASE_MAX, "seed {seed} takes {took:?} of a processor; {replay}");
        cases += 1;
    }
    let peak = peak_mib();
    println!("{name}: {cases} cases from seed {first}, peak {peak} MiB");
    assert!(peak < PEAK_MIB_MAX, "{peak} MiB were used at most");
}

/// Returns for how long a processor has worked for this thread, as the kernel counts it. The clock on the wall goes on
/// while others have the processor.
#[expect(clippy::disallowed_methods, reason = "a test may read files; the library may not")]
fn worked() -> Duration {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = counted.split_whitespace().next().and_then(|number| number.parse().ok());
    nanoseconds.map_or(Duration::ZERO, Duration::from_nanos)
}

#[expect(clippy::disallowed_methods, reason = "a test may read files; the library may not")]
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib / 1024)
}

/// Returns the texts of the examples, and of the public playbooks when they are at hand, in the order of their names.
#[expect(clippy::disallowed_methods, reason = "a test may read files; the library may not")]
fn corpus() -> Vec<String> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths = Vec::new();
    collect(&root.join("examples"), &mut paths);
    collect(&root.join("../shared/conformance/playbooks"), &mut paths);
    paths.sort();
    let texts: Vec<_> = paths.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    assert!(!texts.is_empty(), "the examples are gone");
    texts
}

#[test]
fn damaged_playbooks_are_read_or_refused_in_time() {
    let corpus = corpus();
    run("damaged_playbooks_are_read_or_refused_in_time", |chance| {
        let source = damage(chance.pick::<String>(&corpus), &corpus, chance);
        let found = match compile(&source) {
            Ok(compiled) => compiled.warnings,
            Err(found) => {
                assert!(!found.is_empty(), "refused without a word");
                found
            }
        };
        for span in found.iter().filter_map(|finding| finding.span) {
            assert!(span.start <= span.end && span.end <= source.len(), "{span:?}");
            assert!(source.is_char_boundary(span.start) && source.is_char_boundary(span.end), "{span:?}");
        }
    });
}

/// A few names of every shape.
struct Known {
    data: Value,
    result: Value,
}

impl Names for Known {
    fn lookup(&self, name: &str) -> Option<Binding> {
        match name {
            "start" | "output" | "result" => {
                Some(Binding::Result(ResultBinding::ok(Bound::inline(self.result.clone()))))
            }
            _ => self.data.get(name).map(|value| Binding::Data(Arc::new(value.clone()))),
        }
    }
}

fn templates(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if is_template(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| templates(item, found)),
        Value::Object(map) => map.values().for_each(|item| templates(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn damaged_templates_are_evaluated_or_refused_in_time() {
    let mut all = vec![
        "{{ x.a[1:] + [y, {'k': z}] | tojson | replace(\"'\", \"''\") }}".to_owned(),
        "{% for i in x.list %}{% if i is not none and i > 1 %}{{ loop.index }}: {{ i }},{% else %}-{% endif %}{% endfor %}".to_owned(),
        "{{ (ctx.n | int) + 1 if ctx.n is defined else range(3) | list | length }}".to_owned(),
        "{{ text * 1000 }}".to_owned(),
    ];
    for source in corpus() {
        if let Ok(document) = serde_saphyr::from_str(&source) {
            templates(&document, &mut all);
        }
    }
    all.sort();
    let names = Known {
        data: json!({
            "x": {"a": [1, 2, 3], "list": [1, null, "2", true]}, "y": "it's", "z": null, "text": "abc", "n": 7,
            "ctx": {"n": "4", "list": []}, "workload": {"items": [{"id": 1}], "url": "http://h"}, "iter": {"page": 1},
        }),
        result: json!({"rows": [{"id": 1}], "status_code": 200, "headers": {}, "data": {"page": 2}, "body": {}}),
    };
    let library = Arc::new(Library::empty());
    run("damaged_templates_are_evaluated_or_refused_in_time", |chance| {
        let source = damage(chance.pick::<String>(&all), &all, chance);
        let scope = Scope { names: &names, library: &library, now: Timestamp(1_768_900_000_000) };
        match Template::compile(&source) {
            Ok(template) => drop(template.render(&scope)),
            Err(error) => {
                let range = error.range.unwrap_or(0..0);
                assert!(range.start <= range.end && range.end <= source.len(), "{range:?} of {}", source.len());
            }
        }
        if let Ok(condition) = Condition::compile(&Value::from(source.as_str())) {
            drop(condition.holds(&scope));
        }
        drop(Condition::compile_raw(&source));
    });
}

#[test]
fn damaged_words_are_read_or_refused_in_time() {
    let words: Vec<String> = [
        "* * * * *",
        "*/5 0-6 1,15 JAN-MAR SUN#2",
        "30 2 L * MON-FRI",
        "0 0 29 2 *",
        "0 0 31 2,4,6 1W",
        "@daily",
        "2026-01-20T09:06:40.002Z",
        "2026-12-31T23:59:60+14:00",
        "9223372036854775807",
        "385471962346958848",
    ]
    .map(str::to_owned)
    .to_vec();
    let zones = [TimeZone::UTC, TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").unwrap()];
    let moments = [0, 1_768_900_000_000, i64::MAX, i64::MIN, -1];
    run("damaged_words_are_read_or_refused_in_time", |chance| {
        let word = damage(chance.pick::<String>(&words), &words, chance);
        if let Ok(id) = word.parse::<ExecutionId>() {
            assert_eq!(id.to_string().parse(), Ok(id), "{word}");
        }
        if let Some(at) = Timestamp::from_iso(&word) {
            assert_eq!(Timestamp::from_iso(&at.to_iso()), Some(at), "{word}");
        }
        let rhythm = Rhythm::Cron(word.as_str().into());
        if rhythm.check().is_ok() {
            let (zone, after) = (chance.pick(&zones), Timestamp(*chance.pick(&moments)));
            if let Ok(Some(next)) = rhythm.next(zone, Timestamp(0), after) {
                assert!(next > after, "{word}: {next} is not after {after}");
            }
        }
        drop(Rhythm::Every(chance.next()).next(&TimeZone::UTC, Timestamp(*chance.pick(&moments)), Timestamp(0)));
    });
}
