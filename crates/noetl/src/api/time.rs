//! Times and durations as answers show them.

use noetl_core::head::Head;
use noetl_core::time::Timestamp;

/// Returns `1d 2h 3m 4s` without its zero parts; `0s` at least.
pub fn human(ms: u64) -> String {
    let seconds = ms / 1000;
    let parts = [(seconds / 86_400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let words: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if words.is_empty() { "0s".to_owned() } else { words.join(" ") }
}

/// Returns milliseconds as seconds.
pub fn seconds(ms: u64) -> f64 {
    // Exact up to 285,000 years.
    #[expect(clippy::cast_precision_loss, reason = "durations stay far below 2^53 ms")]
    let ms = ms as f64;
    ms / 1000.0
}

/// Returns how long an execution took, or has taken so far.
pub fn duration_ms(head: &Head, now: Timestamp) -> u64 {
    head.ended_at.unwrap_or(now).since_ms(head.started_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_drop_their_zero_parts() {
        for (ms, text) in [(0, "0s"), (999, "0s"), (65_000, "1m 5s"), (3_600_000, "1h"), (93_784_000, "1d 2h 3m 4s")] {
            assert_eq!(human(ms), text);
        }
    }
}
