//! What a tool sees of the worker's environment: a short list of names, and nothing else.

/// Names that every tool sees, and templates too.
pub const ALWAYS_EXPOSED: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

/// Names that processes need to run at all, where the machine is not as others are: where libraries lie, who vouches
/// for a server, what letters are, who one is. None of them holds a secret.
pub const NEEDED_TO_RUN: [&str; 12] = [
    "LD_LIBRARY_PATH",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "NO_PROXY",
    "PYTHONPATH",
    "REQUESTS_CA_BUNDLE",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "USER",
    "VIRTUAL_ENV",
];

/// Names of the way out of a closed network. They pass as long as no password stands in them.
pub const PROXIES: [&str; 2] = ["HTTP_PROXY", "HTTPS_PROXY"];

/// Returns the variables that tools may see, sorted by name.
///
/// A variable that is no UTF-8 is left out.
pub(crate) fn exposed(
    names: &[String],
    variables: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Vec<(String, String)> {
    let variables =
        variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut seen: Vec<(String, String)> =
        variables.filter(|(name, value)| names.iter().any(|exposed| exposed == name) || passes(name, value)).collect();
    seen.sort();
    seen
}

fn passes(name: &str, value: &str) -> bool {
    // The names of proxies are written in small letters as well.
    let upper = name.to_ascii_uppercase();
    let small = name == name.to_ascii_lowercase();
    if ALWAYS_EXPOSED.contains(&name) || NEEDED_TO_RUN.contains(&name) || small && upper == "NO_PROXY" {
        return true;
    }
    // `user:password@host`, with or without a scheme.
    PROXIES.contains(&upper.as_str()) && (small || name == upper) && !value.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_names_pass() {
        let variables = [("PATH", "/bin"), ("NOETL_TOKEN", "secret"), ("API_HOST", "h"), ("API", "no")];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let expected = [("API_HOST".to_owned(), "h".to_owned()), ("PATH".to_owned(), "/bin".to_owned())];
        assert_eq!(exposed(&["API_HOST".to_owned()], variables), expected);
    }

    #[test]
    fn what_processes_need_to_run_passes_and_a_password_in_a_proxy_does_not() {
        let seen = |names: &[&str], name: &str, value: &str| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            !exposed(&names, [(name.into(), value.into())]).is_empty()
        };
        for name in ["PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "LC_ALL", "USER", "NO_PROXY"] {
            assert!(seen(&[], name, "x"), "{name}");
        }
        for name in ["HTTP_PROXY", "https_proxy", "no_proxy"] {
            assert!(seen(&[], name, "http://proxy.local:3128"), "{name}");
        }
        for (name, value) in [
            ("HTTP_PROXY", "http://ann:swordfish@proxy.local:3128"),
            ("https_proxy", "ann:swordfish@proxy.local:3128"),
            ("Http_Proxy", "http://proxy.local:3128"),
            ("PGPASSWORD", "x"),
            ("PGHOST", "x"),
            ("AWS_PROFILE", "x"),
            ("NOETL_URL", "x"),
            ("pythonpath", "x"),
            ("LD_PRELOAD", "x"),
        ] {
            assert!(!seen(&[], name, value), "{name}");
        }
        assert!(seen(&["HTTP_PROXY"], "HTTP_PROXY", "http://ann:swordfish@proxy.local:3128"), "it was exposed");
    }
}
