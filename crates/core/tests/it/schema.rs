//! The schema for editors: it takes every playbook that is at hand, refuses what registration refuses, and knows every
//! key that the reader knows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use boon::{Compiler, Schemas};
use noetl_core::playbook::{SCHEMA, TOOL_KINDS, compile};
use serde_json::Value;

const HEAD: &str = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {path: p}\n";
const NAME: &str = "playbook.json";
/// A key that no place knows, and that is like none.
const BOGUS: &str = "zzqqzz";

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// Returns what the schema says against each document.
fn findings(documents: &[(String, Value)]) -> Vec<String> {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource(NAME, schema()).unwrap();
    let index = compiler.compile(NAME, &mut schemas).unwrap_or_else(|error| panic!("{error:#}"));
    let check = |(name, document): &(String, Value)| {
        schemas.validate(document, index).err().map(|error| format!("{name}: {error:#}"))
    };
    documents.iter().filter_map(check).collect()
}

fn yaml(source: &str) -> Value {
    serde_saphyr::from_str(source).unwrap_or_else(|error| panic!("{error}\n{source}"))
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test may read files; the library may not")]
fn every_playbook_at_hand_fits() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os("NOETL_CONFORMANCE_DIR").map(PathBuf::from);
    let public = named.into_iter().chain([root.join("../shared/conformance")]).map(|folder| folder.join("playbooks"));
    let mut paths = Vec::new();
    let folders = public.chain([root.join("examples"), root.join("conformance")]);
    folders.filter(|folder| folder.is_dir()).for_each(|folder| collect(&folder, &mut paths));
    let mut documents = Vec::new();
    for path in paths {
        let source = std::fs::read_to_string(&path).unwrap();
        // What registration refuses need not fit, and other files are no playbooks.
        if compile(&source).is_ok() {
            documents.push((path.display().to_string(), yaml(&source)));
        }
    }
    assert!(documents.len() >= 5, "the examples are gone");
    let found = findings(&documents);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_spelling_fits_and_what_registration_refuses_does_not() {
    for (workflow, fits) in [
        ("[{step: a, tool: {kind: noop}}]", true),
        (
            "[{step: a, tool: [{name: x, kind: noop}, {y: {kind: python, code: x}}, {kind: noop}], next: b}, {step: b, tool: {spec: {kind: noop}}}]",
            true,
        ),
        ("[{step: a, tool: {kind: noop}, next: [{step: a, when: false}, a]}]", true),
        (
            "[{step: a, tool: {kind: noop}, loop: {in: [1], iterator: i, spec: {mode: parallel, max_in_flight: '{{ 2 }}'}}}]",
            true,
        ),
        (
            "[{step: a, tool: {kind: noop}, loop: {cursor: {kind: postgres, claim: x}, iterator: i, spec: {mode: cursor, frame: {max_rows: '{{ 3 }}', process: frame}}}}]",
            true,
        ),
        (
            "[{step: a, tool: {kind: noop, spec: {policy: {rules: [{when: true, then: {do: retry, attempts: 2}}, {else: {do: fail}}]}}}}]",
            true,
        ),
        ("[{step: a, tool: {kind: noop, spec: {policy: {rules: [{else: ~, then: {do: continue}}]}}}}]", true),
        (
            "[{step: a, tool: {kind: noop}, when: '{{ x }}', spec: {policy: {admit: {rules: [{when: true, then: {allow: true}}]}}}}]",
            true,
        ),
        ("[]", false),
        ("[{step: a}]", false),
        ("[{tool: {kind: noop}}]", false),
        ("[{step: a, tool: {code: x}}]", false),
        ("[{step: a, tool: []}]", false),
        ("[{step: a, tool: {kind: noop}, case: []}]", false),
        ("[{step: a, tool: {kind: noop}, next: {spec: {}}}]", false),
        ("[{step: a, tool: {kind: noop}, next: {arcs: [{when: true}]}}]", false),
        ("[{step: a, tool: {kind: noop}, loop: {in: [1], iterator: i, spec: {mode: paralel}}}]", false),
        ("[{step: a, tool: {kind: noop, spec: {policy: {rules: []}}}}]", false),
        ("[{step: a, tool: {kind: noop, spec: {policy: {rules: [{else: {do: stop}}]}}}}]", false),
    ] {
        let document = yaml(&format!("{HEAD}workflow: {workflow}"));
        let found = findings(&[(workflow.to_owned(), document)]);
        assert_eq!(found.is_empty(), fits, "{workflow}: {found:?}");
    }
}

/// Returns the keys that the reader names when it finds one that it does not know.
fn known(rest: &str) -> BTreeSet<String> {
    let found = match compile(&format!("{HEAD}{rest}")) {
        Ok(compiled) => compiled.warnings,
        Err(found) => found,
    };
    let finding = found.iter().find(|finding| finding.message.contains(BOGUS));
    let hint = finding.and_then(|finding| finding.hint.clone()).unwrap_or_else(|| panic!("{rest}: {found:#?}"));
    let list = hint.strip_prefix("known are: ").unwrap_or_else(|| panic!("{rest}: {hint}"));
    list.split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn keys(pointer: &str) -> BTreeSet<String> {
    let schema = schema();
    let properties = schema.pointer(&format!("{pointer}/properties")).and_then(Value::as_object);
    properties.unwrap_or_else(|| panic!("the schema has no {pointer}")).keys().cloned().collect()
}

#[test]
fn the_schema_and_the_reader_know_the_same_keys() {
    let noop = "tool: {kind: noop}";
    let step = |more: &str| format!("workflow: [{{step: a, {noop}, {more}}}]");
    let tool = |more: &str| format!("workflow: [{{step: a, tool: {{kind: noop, {more}}}}}]");
    let root = |more: &str| format!("{more}\nworkflow: [{{step: a, {noop}}}]");
    let executor = "/properties/executor";
    for (pointer, source) in [
        (executor.to_owned(), root("executor: {zzqqzz: 1}")),
        (format!("{executor}/properties/spec"), root("executor: {spec: {zzqqzz: 1}}")),
        (format!("{executor}/properties/spec/properties/cancel"), root("executor: {spec: {cancel: {zzqqzz: 1}}}")),
        (format!("{executor}/properties/spec/properties/limits"), root("executor: {spec: {limits: {zzqqzz: 1}}}")),
        ("/$defs/step".into(), step("zzqqzz: 1")),
        ("/$defs/step_spec".into(), step("spec: {zzqqzz: 1}")),
        ("/$defs/step_spec/properties/cancel".into(), step("spec: {cancel: {zzqqzz: 1}}")),
        (
            "/$defs/step_spec/properties/policy/properties/admit".into(),
            step("spec: {policy: {admit: {rules: [], zzqqzz: 1}}}"),
        ),
        ("/$defs/loop".into(), step("loop: {in: [1], iterator: i, zzqqzz: 1}")),
        ("/$defs/loop/properties/spec".into(), step("loop: {in: [1], iterator: i, spec: {zzqqzz: 1}}")),
        (
            "/$defs/loop/properties/spec/properties/frame".into(),
            step("loop: {cursor: {kind: postgres, claim: x}, iterator: i, spec: {frame: {zzqqzz: 1}}}"),
        ),
        ("/$defs/next/anyOf/2".into(), step("next: {arcs: [], zzqqzz: 1}")),
        ("/$defs/next/anyOf/2/properties/spec".into(), step("next: {spec: {zzqqzz: 1}, arcs: []}")),
        ("/$defs/arc/anyOf/1".into(), step("next: {arcs: [{step: a, zzqqzz: 1}]}")),
        ("/$defs/output".into(), step("output: {zzqqzz: 1}")),
        ("/$defs/policy".into(), tool("spec: {policy: {rules: [{else: }], zzqqzz: 1}}")),
        ("/$defs/rule".into(), tool("spec: {policy: {rules: [{else: , zzqqzz: 1}]}}")),
        ("/$defs/then/anyOf/1".into(), tool("spec: {policy: {rules: [{else: {then: {do: fail, zzqqzz: 1}}}]}}")),
    ] {
        assert_eq!(keys(&pointer), known(&source), "{pointer}");
    }
    // `rules` there is a mistake that the reader explains, so it is no key of the schema.
    let mut policy = known(&step("spec: {policy: {zzqqzz: 1}}"));
    policy.remove("rules");
    assert_eq!(keys("/$defs/step_spec/properties/policy"), policy);
}

#[test]
fn the_schema_knows_every_kind_of_tool_and_its_keys() {
    let schema = schema();
    let branches = schema.pointer("/$defs/tool/allOf").and_then(Value::as_array).unwrap();
    let kinds: Vec<_> =
        branches.iter().filter_map(|branch| branch.pointer("/if/properties/kind/const")?.as_str()).collect();
    assert_eq!(kinds, TOOL_KINDS);
    for kind in TOOL_KINDS {
        // A workbook tool has what the task that it names has.
        if *kind == "workbook" {
            continue;
        }
        let needs = "code: x, url: x, query: x, path: x, cmds: [x], source: {}";
        let source = format!("workflow: [{{step: a, tool: {{kind: {kind}, {BOGUS}: 1, {needs}}}}}]");
        let compiled = compile(&format!("{HEAD}{source}"));
        let found = match &compiled {
            Ok(compiled) => &compiled.warnings,
            Err(found) => found,
        };
        if !found.iter().any(|finding| finding.message.contains(BOGUS)) {
            // The reader leaves the keys of this kind to its tool.
            continue;
        }
        assert_eq!(keys(&format!("/$defs/tool_{kind}")), known(&source), "{kind}");
    }
}
