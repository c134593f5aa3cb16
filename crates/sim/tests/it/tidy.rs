//! The walls of ARCHITECTURE.md, as tests: who may use whom, and what each crate may never use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use noetl_core::properties::Property;

/// What each crate may use of ours in what it ships. An arrow that is not here fails this test.
const ARROWS: &[(&str, &[&str])] = &[
    ("noetl-core", &[]),
    ("noetl-store", &["noetl-core"]),
    ("noetl-engine", &["noetl-core", "noetl-store"]),
    ("noetl-tools", &["noetl-core"]),
    ("noetl", &["noetl-core", "noetl-store", "noetl-engine", "noetl-tools"]),
    ("noetl-sim", &["noetl-core", "noetl-store", "noetl-engine"]),
    ("noetl-testkit", &[]),
    ("noetl-conformance", &["noetl-testkit"]),
];

/// Crates that would bring a clock, a socket, a process or chance to where it must not be.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("noetl-core", &["tokio", "axum", "reqwest", "rusqlite", "rustix", "getrandom", "rand", "tracing"]),
    ("noetl-store", &["axum", "reqwest", "rustix"]),
    ("noetl-engine", &["axum", "reqwest", "rusqlite", "rustix", "getrandom", "rand", "hyper"]),
    ("noetl-tools", &["axum", "rusqlite"]),
    ("noetl-sim", &["axum", "reqwest", "hyper", "rustix"]),
];

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().expect("cargo metadata")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

#[test]
fn every_arrow_between_crates_is_on_the_map() {
    let allowed: BTreeMap<_, BTreeSet<_>> =
        ARROWS.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect();
    for package in &metadata().packages {
        let Some(allowed) = allowed.get(package.name.as_str()) else {
            panic!("{} is not on the map: add it to ARCHITECTURE.md and here", package.name);
        };
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal) {
            let ours = dependency.name.starts_with("noetl");
            assert!(
                !ours || allowed.contains(dependency.name.as_str()),
                "{} may not use {}: see ARCHITECTURE.md",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn no_crate_declares_what_it_may_never_use() {
    let packages = metadata().packages;
    for (name, forbidden) in FORBIDDEN {
        let package = packages.iter().find(|package| package.name.as_str() == *name).expect(name);
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal) {
            assert!(!forbidden.contains(&dependency.name.as_str()), "{name} may never use {}", dependency.name);
        }
    }
}

#[test]
fn there_is_one_tls_provider() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    for second in ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"] {
        assert!(
            !lock.contains(&format!("name = \"{second}\"")),
            "{second} is a second TLS provider; only ring is used"
        );
    }
}

#[test]
fn unsafe_code_lives_in_the_process_supervisor_alone_and_says_why() {
    for file in sources(&root().join("crates")) {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let path = file.strip_prefix(root()).expect("below the repository").display().to_string();
        let lines: Vec<_> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            if code.starts_with("//") || !(code.contains("unsafe {") || code.contains("unsafe fn")) {
                continue;
            }
            if path.ends_with("tests/it/tidy.rs") {
                continue;
            }
            assert!(path.starts_with("crates/tools/"), "{path}:{}: unsafe code outside the supervisor", number + 1);
            let before = lines[number.saturating_sub(6)..number].join("\n");
            assert!(before.contains("SAFETY:"), "{path}:{}: an unsafe block without SAFETY", number + 1);
        }
    }
}

/// The types of which every variant must be thought of wherever one is.
const CLOSED: &[&str] = &[
    "Event::",
    "Status::",
    "CommandState::",
    "LiveState::",
    "Guard::",
    "Reported::",
    "Input::",
    "Refusal::",
    "DueKind::",
];

#[test]
fn states_and_events_are_matched_by_name_in_the_core() {
    // A catch-all over events or states would let a new variant slip through where somebody must think.
    for file in sources(&root().join("crates/core/src")) {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let lines: Vec<_> = text.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.trim_end().ends_with('{')) {
            if !line.trim_start().split("//").next().is_some_and(|code| code.contains("match ")) {
                continue;
            }
            let indent = line.len() - line.trim_start().len();
            let body = lines[number + 1..]
                .iter()
                .take_while(|line| line.trim().is_empty() || line.len() - line.trim_start().len() > indent);
            let arms: Vec<_> = body.filter(|line| line.len() - line.trim_start().len() == indent + 4).collect();
            let closed = arms.iter().any(|arm| CLOSED.iter().any(|name| arm.trim_start().starts_with(name)));
            let catch_all = arms.iter().any(|arm| arm.trim_start().starts_with("_ =>"));
            assert!(!(closed && catch_all), "{}:{}: match it by name", file.display(), number + 1);
        }
    }
}

#[test]
fn there_is_no_file_beyond_a_thousand_lines() {
    for file in sources(&root().join("crates")) {
        let lines = std::fs::read_to_string(&file).expect("a source file").lines().count();
        assert!(lines <= 1000, "{} has {lines} lines: look for the seam", file.display());
    }
}

/// docs/proof.md explains each promise by its number and name, and names only tests that there are.
#[test]
fn every_promise_is_explained_and_every_named_test_exists() {
    let page = std::fs::read_to_string(root().join("docs/proof.md")).expect("docs/proof.md");
    for property in Property::ALL {
        let row = format!("| {} | {} |", property.code(), property.title());
        assert!(page.contains(&row), "docs/proof.md does not explain `{row}`");
    }
    every_named_test_exists("docs/proof.md", &page);
}

/// docs/reference/cancellation.md names for each race a test that walks it, and names only tests that there are.
#[test]
fn every_race_has_a_test() {
    let page = std::fs::read_to_string(root().join("docs/reference/cancellation.md")).expect("the page");
    let table = page.split("| what meets | who wins |").nth(1).expect("the table of races");
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 30, "{} races", rows.len());
    let walked = rows.iter().map(|row| row.trim_end_matches('|').rsplit('|').next().unwrap_or_default());
    let walked: Vec<&str> = walked.collect();
    for (row, walked) in rows.iter().zip(&walked) {
        assert!(walked.contains('`'), "no test walks this race: {row}");
    }
    every_named_test_exists("docs/reference/cancellation.md", &walked.concat());
}

/// What stands between backticks in `text` and looks like the name of a test is one.
fn every_named_test_exists(page: &str, text: &str) {
    let tests = |file: &&PathBuf| {
        file.components().any(|part| ["tests", "conformance"].iter().any(|name| part.as_os_str() == *name))
    };
    let code: String = sources(&root().join("crates"))
        .iter()
        .filter(tests)
        .map(|file| std::fs::read_to_string(file).expect("a source file"))
        .collect();
    let words = text.split('`').skip(1).step_by(2);
    let names =
        words.filter(|word| word.chars().all(|letter| letter.is_ascii_lowercase() || "_0123456789".contains(letter)));
    for name in names.filter(|word| word.matches('_').count() > 2) {
        assert!(code.contains(&format!("fn {name}(")), "{page} names the test `{name}`, which is not there");
    }
}

fn sources(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![below.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}
