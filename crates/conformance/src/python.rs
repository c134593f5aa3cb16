//! Which modules the python3 has that the server will use: the first on PATH.

use std::collections::BTreeMap;

use tokio::process::Command;

use crate::Fault;

/// Imports each module named by an argument and prints those that can not be.
const PROBE: &str = "
import importlib, json, sys
missing = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception:
        missing.append(name)
print(json.dumps(missing))
";

/// What is known of python3.
#[derive(Debug, Default)]
pub struct Python {
    available: BTreeMap<String, bool>,
}

impl Python {
    /// Returns the modules that can not be imported; each is tried once.
    pub async fn missing(&mut self, modules: &[String]) -> Result<Vec<String>, Fault> {
        let unknown: Vec<&String> = modules.iter().filter(|module| !self.available.contains_key(*module)).collect();
        if !unknown.is_empty() {
            let missing = probe(&unknown).await?;
            let unknown: Vec<String> = unknown.into_iter().cloned().collect();
            for module in unknown {
                let available = !missing.contains(&module);
                self.available.insert(module, available);
            }
        }
        let is_missing = |module: &&String| self.available.get(*module) == Some(&false);
        Ok(modules.iter().filter(is_missing).cloned().collect())
    }
}

async fn probe(modules: &[&String]) -> Result<Vec<String>, Fault> {
    let output = Command::new("python3").arg("-c").arg(PROBE).args(modules).kill_on_drop(true).output().await;
    let output = output.map_err(Fault::while_doing("run python3"))?;
    // What a module prints while it is imported comes first.
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = text.lines().last().unwrap_or_default();
    serde_json::from_str(answer).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        Fault(format!("python3 does not tell which modules it has: {}", said.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_module_that_is_not_installed_is_missing() {
        let wanted = ["json", "no_such_module_anywhere", "datetime"].map(str::to_owned);
        let mut python = Python::default();
        assert_eq!(python.missing(&wanted).await.unwrap(), ["no_such_module_anywhere"]);
        assert_eq!(python.missing(&wanted).await.unwrap(), ["no_such_module_anywhere"]);
    }
}
