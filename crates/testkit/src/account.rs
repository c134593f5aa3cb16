//! Who runs the cluster: PostgreSQL refuses to run as root.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::Fault;

/// An account that PostgreSQL runs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    /// We ourselves.
    Own,
    /// Somebody without rights.
    Other { uid: u32, gid: u32 },
}

impl Account {
    pub(crate) fn unprivileged() -> Result<Self, Fault> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Account::Own);
        }
        let accounts = fs::read_to_string("/etc/passwd").map_err(Fault::while_doing("read /etc/passwd"))?;
        Account::named(&accounts, "postgres")
            .or_else(|| Account::named(&accounts, "nobody"))
            .ok_or_else(|| Fault("root can not run PostgreSQL, and there is no account `postgres` or `nobody`".into()))
    }

    fn named(accounts: &str, wanted: &str) -> Option<Self> {
        accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next() != Some(wanted) {
                return None;
            }
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Account::Other { uid, gid })
        })
    }

    pub(crate) fn own(self, path: &Path) -> Result<(), Fault> {
        match self {
            Account::Own => Ok(()),
            Account::Other { uid, gid } => {
                chown(path, Some(uid), Some(gid)).map_err(Fault::while_doing(format!("hand over {}", path.display())))
            }
        }
    }

    pub(crate) fn command(self, program: &Path, home: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(home).env_clear().env("HOME", home).env("LC_ALL", "C").env("TZ", "UTC");
        if let Account::Other { uid, gid } = self {
            // The standard library gives up root's other groups by itself when it changes the user.
            command.gid(gid).uid(uid);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let accounts =
            "root:x:0:0:root:/root:/bin/bash\npostgres2:x:7:8::/:/bin/sh\npostgres:x:103:104:a,b:/v:/bin/sh\n";
        assert_eq!(Account::named(accounts, "postgres"), Some(Account::Other { uid: 103, gid: 104 }));
        assert_eq!(Account::named(accounts, "nobody"), None);
    }
}
