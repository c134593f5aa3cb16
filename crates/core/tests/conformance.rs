//! Every public playbook compiles. They are found beside the repository, or where `NOETL_CONFORMANCE_DIR` says.

#![expect(clippy::unwrap_used, reason = "a test stops where it finds something unexpected")]
#![expect(clippy::disallowed_methods, reason = "a test may read files; the library may not")]

use std::path::{Path, PathBuf};

use noetl_core::diag::Diagnostic;
use noetl_core::playbook;

fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
    let named = std::env::var_os("NOETL_CONFORMANCE_DIR").map(PathBuf::from);
    named.into_iter().chain([beside]).map(|folder| folder.join("playbooks")).find(|folder| folder.is_dir())
}

fn playbooks(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            playbooks(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
}

fn show(path: &Path, findings: &[Diagnostic]) -> String {
    findings.iter().map(|finding| format!("{}:{finding}\n", path.display())).collect()
}

#[test]
fn every_public_playbook_compiles_but_the_broken_ones() {
    let Some(folder) = folder() else {
        println!("skipped: no conformance set; name its folder in NOETL_CONFORMANCE_DIR");
        return;
    };
    let mut paths = Vec::new();
    playbooks(&folder, &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no playbook", folder.display());
    for path in paths {
        let source = std::fs::read_to_string(&path).unwrap();
        let broken = path.components().any(|part| part.as_os_str() == "broken_playbooks");
        match playbook::compile(&source) {
            Ok(compiled) => {
                assert!(!broken, "{} should be refused", path.display());
                print!("{}", show(&path, &compiled.warnings));
            }
            Err(findings) => {
                assert!(broken, "{}", show(&path, &findings));
                print!("{}", show(&path, &findings));
            }
        }
    }
}
