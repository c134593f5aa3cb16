//! The codes of diagnostics. A code keeps its meaning for ever; a new finding gets a new one.

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)+) => {
        $($(#[doc = $doc])+ pub(super) const $name: &str = $code;)+

        /// Every code with what it means, in order.
        pub const CODES: &[(&str, &str)] = &[$(($code, concat!($($doc),+))),+];
    };
}

codes! {
    /// The source is too large.
    SOURCE_SIZE = "NE0001";
    /// The source is no YAML.
    SYNTAX = "NE0002";
    /// A key is written twice in one mapping.
    DUPLICATE_KEY = "NE0003";
    /// A value has the wrong kind.
    WRONG_KIND = "NE0004";
    /// A key that this place does not know.
    UNKNOWN_KEY = "NE0005";
    /// A key of an older language that is not read any more.
    LEGACY_KEY = "NE0006";
    /// A value that is out of range.
    OUT_OF_RANGE = "NE0007";

    /// `apiVersion` is not `noetl.io/v2`.
    API_VERSION = "NE0101";
    /// `kind` is not `Playbook`.
    DOCUMENT_KIND = "NE0102";
    /// The playbook has neither path nor name.
    NO_PATH = "NE0103";
    /// The workflow is missing or empty.
    NO_STEPS = "NE0104";
    /// The workflow has too many steps.
    TOO_MANY_STEPS = "NE0105";
    /// A concurrency key does not say what it is, or what happens when it is taken.
    NO_KEY = "NE0106";

    /// A step has no name.
    NO_STEP_NAME = "NE0201";
    /// Two steps have the same name.
    DUPLICATE_STEP = "NE0202";
    /// A step, entry or arc names a step that does not exist.
    UNKNOWN_STEP = "NE0203";
    /// A step has no tool.
    NO_TOOL = "NE0204";
    /// No arc leads to a step.
    UNREACHABLE_STEP = "NE0205";
    /// A step has a name that means something else in templates.
    SHADOWED_STEP = "NE0206";
    /// Two ways to say when a step may start.
    TWO_ADMISSIONS = "NE0207";

    /// A tool has no kind.
    NO_TOOL_KIND = "NE0301";
    /// A tool kind that does not exist.
    UNKNOWN_TOOL_KIND = "NE0302";
    /// A tool kind that exists, but not here.
    UNSUPPORTED_TOOL_KIND = "NE0303";
    /// Two tasks of a pipeline have the same label.
    DUPLICATE_LABEL = "NE0304";
    /// A `workbook` tool names no task of the workbook.
    UNKNOWN_WORKBOOK_TASK = "NE0305";
    /// A tool lacks what its kind can not do without.
    INCOMPLETE_TOOL = "NE0306";
    /// A pipeline has too many tasks.
    TOO_MANY_TASKS = "NE0307";

    /// A policy has no rules.
    NO_RULES = "NE0401";
    /// A rule that can not be read.
    BAD_RULE = "NE0402";
    /// `do` is no known action.
    UNKNOWN_ACTION = "NE0403";
    /// `jump` does not say where to, or to no task.
    BAD_JUMP = "NE0404";
    /// A rule behind one that always matches.
    UNREACHABLE_RULE = "NE0405";

    /// A loop has no iterator, or one that is no name.
    BAD_ITERATOR = "NE0501";
    /// A loop has nothing to iterate, or two things.
    BAD_LOOP_SOURCE = "NE0502";
    /// A word that is none of those possible here.
    UNKNOWN_WORD = "NE0503";

    /// An arc that can not be read.
    BAD_ARC = "NE0601";
    /// The target of a `set` can not be written.
    BAD_TARGET = "NE0602";
    /// The target of a `set` has no prefix.
    NO_TARGET_PREFIX = "NE0603";

    /// A template that can not be read.
    BAD_TEMPLATE = "NE0701";
    /// Code that looks like a template but is none is used as it is.
    VERBATIM = "NE0702";
    /// A condition without braces is text, and so always true.
    CONSTANT_CONDITION = "NE0703";
    /// A template reads a name that nothing defines.
    UNDEFINED_NAME = "NE0704";
    /// A command that looks like a template but is none fails its step.
    UNREADABLE_COMMAND = "NE0705";
    /// A template reads a secret where it is empty.
    SECRET_ELSEWHERE = "NE0706";
    /// An input that no template finds under its bare name.
    SHADOWED_INPUT = "NE0707";
    /// A key that is read and has no effect.
    NO_EFFECT = "NE0708";
}
