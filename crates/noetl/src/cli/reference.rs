//! What `noetl run REF` names: a file, or something in a catalog.

use std::path::{Path, PathBuf};

/// What a reference names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A playbook file; with `./noetl.yaml` the reference names the step to start with.
    File {
        /// Where.
        path: PathBuf,
        /// The step that the reference named.
        target: Option<String>,
    },
    /// A catalog path.
    Catalog {
        /// `metadata.path`.
        path: String,
        /// `None` = the newest.
        version: Option<i64>,
    },
    /// A catalog id.
    Id(String),
}

/// Folder that simple names are looked up in.
const AUTOMATION: &str = "automation";
/// File whose steps simple names may be.
const PROJECT_FILE: &str = "noetl.yaml";

/// Returns what `reference` names, given `--version` and which files there are.
///
/// `catalog://NAME[@VERSION]` is a catalog path, `pbk_…` and plain numbers of 15 digits and more are catalog ids. What
/// looks like a file, or is one (as written, with `.yaml` or `.yml`, or below `automation/`), is a file. A simple name
/// beside a `noetl.yaml` is a step of that. Everything else is a catalog path, `NAME@VERSION` included.
pub fn resolve(reference: &str, version: Option<&str>, is_file: impl Fn(&Path) -> bool) -> Reference {
    // What is no number (`1.0`, `latest`) names no version; that is what the published client makes of it.
    let version = version.and_then(|version| version.trim().parse().ok());
    if let Some(name) = reference.strip_prefix("catalog://") {
        return catalog(name, version);
    }
    if is_id(reference) {
        return Reference::Id(reference.to_owned());
    }
    let file = |path: PathBuf| Reference::File { path, target: None };
    let yaml = [".yaml", ".yml"].iter().any(|extension| reference.ends_with(extension));
    if yaml || is_file(Path::new(reference)) {
        return file(PathBuf::from(reference));
    }
    let simple = !reference.contains(['/', '\\', '@']);
    let mut candidates: Vec<PathBuf> =
        [".yaml", ".yml"].iter().map(|extension| PathBuf::from(format!("{reference}{extension}"))).collect();
    candidates.extend([".yaml", ".yml"].iter().map(|ext| Path::new(AUTOMATION).join(format!("{reference}{ext}"))));
    if let Some(path) = candidates.into_iter().find(|path| is_file(path)) {
        return file(path);
    }
    if simple && is_file(Path::new(PROJECT_FILE)) {
        return Reference::File { path: PathBuf::from(PROJECT_FILE), target: Some(reference.to_owned()) };
    }
    catalog(reference, version)
}

fn catalog(name: &str, version: Option<i64>) -> Reference {
    match name.rsplit_once('@') {
        Some((path, number)) if !path.is_empty() => {
            Reference::Catalog { path: path.to_owned(), version: number.parse().ok() }
        }
        Some(_) | None => Reference::Catalog { path: name.to_owned(), version },
    }
}

/// An id is a number as the catalog gives it, or `pbk_…`. The published client takes every slash-less name of more
/// than 20 characters for an id as well; such a name could then never be run, so we do not.
fn is_id(reference: &str) -> bool {
    reference.starts_with("pbk_") || (reference.len() >= 15 && reference.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(files: &[&str], reference: &str, version: Option<&str>) -> Reference {
        resolve(reference, version, |path| files.iter().any(|file| Path::new(file) == path))
    }

    fn file(path: &str) -> Reference {
        Reference::File { path: path.into(), target: None }
    }

    fn named(path: &str, version: Option<i64>) -> Reference {
        Reference::Catalog { path: path.into(), version }
    }

    #[test]
    fn a_reference_is_a_file_a_path_or_an_id() {
        let files = ["hello.yaml", "deep/x.yml", "automation/nightly.yaml", "plain"];
        for (reference, version, expected) in [
            ("catalog://demo/hello", None, named("demo/hello", None)),
            ("catalog://demo/hello@3", Some("9"), named("demo/hello", Some(3))),
            ("catalog://demo/hello", Some("9"), named("demo/hello", Some(9))),
            ("catalog://demo/hello@latest", None, named("demo/hello", None)),
            ("pbk_01H", None, Reference::Id("pbk_01H".into())),
            ("543857931469455628", None, Reference::Id("543857931469455628".into())),
            ("hello.yaml", None, file("hello.yaml")),
            ("missing.yaml", None, file("missing.yaml")),
            ("dir/missing.yml", None, file("dir/missing.yml")),
            ("plain", None, file("plain")),
            ("hello", None, file("hello.yaml")),
            ("deep/x", None, file("deep/x.yml")),
            ("nightly", None, file("automation/nightly.yaml")),
            ("demo/hello", None, named("demo/hello", None)),
            ("demo/hello", Some("2"), named("demo/hello", Some(2))),
            ("demo/hello", Some("1.0"), named("demo/hello", None)),
            ("demo/hello@4", None, named("demo/hello", Some(4))),
            ("a_name_of_more_than_twenty_characters", None, named("a_name_of_more_than_twenty_characters", None)),
        ] {
            assert_eq!(at(&files, reference, version), expected, "{reference} {version:?}");
        }
    }

    #[test]
    fn a_simple_name_beside_a_project_file_is_one_of_its_steps() {
        let step = Reference::File { path: "noetl.yaml".into(), target: Some("deploy".into()) };
        assert_eq!(at(&["noetl.yaml"], "deploy", None), step);
        assert_eq!(at(&["noetl.yaml"], "a/deploy", None), named("a/deploy", None));
        assert_eq!(at(&["noetl.yaml", "deploy.yml"], "deploy", None), file("deploy.yml"));
    }
}
