//! Planted mistakes: what would happen if the engine did one thing wrong. A test of the tests.
//!
//! Nothing of them is in the product. The explorer's own thin shell makes the mistake; each is one that somebody might
//! well make, and that looks right in a test without races.

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// A claim is written as read, without looking again at the head and the command's row.
    ClaimUnguarded,
    /// A cascade lists the children of an execution before it has fenced it.
    ListBeforeFence,
    /// A decision that was made before the end is written after it.
    LateApplied,
    /// A cancel certifies that nothing runs although a worker holds a command.
    QuiescedEarly,
    /// A report counts for the present attempt of its command, whoever made it.
    EpochIgnored,
    /// A child is born in a transaction of its own that does not look at the parent.
    ChildUnguarded,
    /// A cancel leaves what waits, and the timer that wakes it, where they are.
    TimerRevived,
    /// What has to happen later is written down after the decision, in a transaction of its own.
    ObligationForgotten,
    /// A lost attempt is tried again under the same epoch.
    EpochReused,
    /// A terminal execution's last report is not followed by the proof.
    ProofForgotten,
}

impl Mutant {
    /// Every mistake.
    pub const ALL: [Mutant; 10] = [
        Mutant::ClaimUnguarded,
        Mutant::ListBeforeFence,
        Mutant::LateApplied,
        Mutant::QuiescedEarly,
        Mutant::EpochIgnored,
        Mutant::ChildUnguarded,
        Mutant::TimerRevived,
        Mutant::ObligationForgotten,
        Mutant::EpochReused,
        Mutant::ProofForgotten,
    ];
}
