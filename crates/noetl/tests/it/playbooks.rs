//! Playbooks that tests run.

/// Two steps that need no worker.
pub(crate) const NOOP: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata:
  name: noop
  path: test/noop
workflow:
  - step: start
    tool:
      kind: noop
    next:
      spec: {mode: exclusive}
      arcs:
        - step: end
  - step: end
    tool:
      kind: noop
";

/// A python step that says hello, and a shell step that repeats it.
pub(crate) const HELLO: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata:
  name: hello
  path: test/hello
workload:
  who: world
workflow:
  - step: start
    tool:
      kind: python
      input:
        who: \"{{ workload.who }}\"
      code: |
        result = {\"text\": \"hello \" + who}
    next:
      spec: {mode: exclusive}
      arcs:
        - step: end
  - step: end
    tool:
      kind: shell
      cmds:
        - echo \"{{ start.text }}\"
";

/// A shell step that sleeps far longer than any test.
pub(crate) const SLEEP: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata:
  name: sleep
  path: test/sleep
workflow:
  - step: start
    tool:
      kind: shell
      cmds:
        - sleep 600
";

/// A step that fails and that nothing handles.
pub(crate) const FAILS: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata:
  name: fails
  path: test/fails
workflow:
  - step: start
    tool:
      kind: shell
      cmds:
        - echo it went wrong >&2; exit 3
";

/// A step that takes a moment and leaves a line behind.
pub(crate) const MOMENT: &str = "\
apiVersion: noetl.io/v2
kind: Playbook
metadata:
  name: moment
  path: test/moment
workload:
  file: nowhere
  line: nothing
workflow:
  - step: start
    tool:
      kind: shell
      cmds:
        - sleep 0.2; echo \"{{ workload.line }}\" >> \"{{ workload.file }}\"
    next:
      spec: {mode: exclusive}
      arcs:
        - step: end
  - step: end
    tool:
      kind: shell
      cmds:
        - sleep 0.2; echo \"{{ workload.line }} end\" >> \"{{ workload.file }}\"
";

/// Starts ten children, each of which starts ten that sleep: 111 executions.
pub(crate) const FAMILY: [(&str, &str); 3] = [
    (
        "family.yaml",
        "\
apiVersion: noetl.io/v2
kind: Playbook
metadata:
  name: family
  path: test/family
workflow:
  - step: start
    loop:
      in: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
      iterator: n
      spec: {mode: parallel, max_in_flight: 10}
    tool:
      kind: playbook
      path: test/family/child
",
    ),
    (
        "child.yaml",
        "\
apiVersion: noetl.io/v2
kind: Playbook
metadata:
  name: child
  path: test/family/child
workflow:
  - step: start
    loop:
      in: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
      iterator: n
      spec: {mode: parallel, max_in_flight: 10}
    tool:
      kind: playbook
      path: test/family/grandchild
",
    ),
    (
        "grandchild.yaml",
        "\
apiVersion: noetl.io/v2
kind: Playbook
metadata:
  name: grandchild
  path: test/family/grandchild
workflow:
  - step: start
    tool:
      kind: shell
      cmds:
        - sleep 600
",
    ),
];
