//! What each promise is called: the number of the cancellation contract, or the engine's own.

use super::Property;

impl Property {
    /// Every promise that a log can show, in the order in which people read them.
    pub const ALL: [Property; 18] = [
        Property::NoStartAfterDecision,
        Property::OneTerminalEvent,
        Property::NoEscapee,
        Property::LateIsHarmless,
        Property::TrueCertificate,
        Property::NeverStuck,
        Property::Provenance,
        Property::Bystanders,
        Property::Repeatable,
        Property::WholeLog,
        Property::HeadIsFold,
        Property::SnapshotIsReplay,
        Property::ExclusiveEpochs,
        Property::OneOutcome,
        Property::FencedOutcome,
        Property::SoundFamily,
        Property::WholeLoops,
        Property::PausedIsStill,
    ];

    /// Returns its number: C1 to C10 are those of the cancellation contract, E1 and on the engine's own.
    pub fn code(self) -> &'static str {
        match self {
            Property::NoStartAfterDecision => "C1",
            Property::OneTerminalEvent => "C2",
            Property::NoEscapee => "C3",
            Property::LateIsHarmless => "C4",
            Property::TrueCertificate => "C6",
            Property::NeverStuck => "C7",
            Property::Provenance => "C8",
            Property::Bystanders => "C9",
            Property::Repeatable => "C10",
            Property::WholeLog => "E1",
            Property::HeadIsFold => "E2",
            Property::SnapshotIsReplay => "E3",
            Property::ExclusiveEpochs => "E4",
            Property::OneOutcome => "E5",
            Property::FencedOutcome => "E6",
            Property::SoundFamily => "E7",
            Property::WholeLoops => "E8",
            Property::PausedIsStill => "E9",
        }
    }

    /// Returns what it promises, in a few words.
    pub fn title(self) -> &'static str {
        match self {
            Property::NoStartAfterDecision => "no start after the decision",
            Property::OneTerminalEvent => "one terminal event",
            Property::NoEscapee => "no escapee",
            Property::LateIsHarmless => "late is harmless",
            Property::TrueCertificate => "true certificate",
            Property::NeverStuck => "never stuck",
            Property::Provenance => "provenance",
            Property::Bystanders => "bystanders",
            Property::Repeatable => "repeatable",
            Property::WholeLog => "the log is whole",
            Property::HeadIsFold => "the head is the folded log",
            Property::SnapshotIsReplay => "a snapshot is the replay",
            Property::ExclusiveEpochs => "epochs are exclusive",
            Property::OneOutcome => "one outcome per command",
            Property::FencedOutcome => "an outcome comes from the holder",
            Property::SoundFamily => "the family is sound",
            Property::WholeLoops => "loops are whole",
            Property::PausedIsStill => "a pause is still",
        }
    }
}
