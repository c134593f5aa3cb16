//! Times as people write them.

use std::time::Duration;

/// Returns `1d 2h 3m 4s`, zero parts dropped; below ten seconds with one decimal, below one in `ms`, `0s` for nothing.
pub fn human(seconds: f64) -> String {
    if !seconds.is_finite() || seconds <= 0.0 {
        return "0s".to_owned();
    }
    if seconds < 0.9995 {
        return format!("{:.0}ms", (seconds * 1_000.0).max(1.0));
    }
    if seconds < 10.0 {
        let tenths = (seconds * 10.0).round() / 10.0;
        if tenths.fract() != 0.0 && tenths < 10.0 {
            return format!("{tenths:.1}s");
        }
    }
    whole(seconds.round())
}

fn whole(seconds: f64) -> String {
    // Saturates far beyond any run.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "finite, not negative, whole")]
    let total = seconds as u64;
    let parts = [(total / 86_400, "d"), (total / 3_600 % 24, "h"), (total / 60 % 60, "m"), (total % 60, "s")];
    let text: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text.join(" ") }
}

/// Reads `10s`, `1m30s`, `250ms`, `2h`, `1d`, or a plain number of seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let refuse = || format!("`{text}` is no length of time: write 250ms, 10s, 1m30s, 2h or 1d");
    let text_trimmed = text.trim();
    if let Ok(seconds) = text_trimmed.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| refuse());
    }
    let mut rest = text_trimmed;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(refuse)?;
        let count: f64 = rest[..digits].parse().map_err(|_| refuse())?;
        rest = &rest[digits..];
        let letters = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match rest[..letters].trim() {
            "ms" => 0.001,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(refuse()),
        };
        rest = rest[letters..].trim_start();
        let part = Duration::try_from_secs_f64(count * unit).map_err(|_| refuse())?;
        total = total.checked_add(part).ok_or_else(refuse)?;
    }
    if text_trimmed.is_empty() { Err(refuse()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_read_like_speech() {
        for (seconds, text) in [
            (0.0, "0s"),
            (-3.0, "0s"),
            (0.000_01, "1ms"),
            (0.04, "40ms"),
            (0.999_8, "1s"),
            (1.0, "1s"),
            (1.26, "1.3s"),
            (9.97, "10s"),
            (65.0, "1m 5s"),
            (59.7, "1m"),
            (3_600.0, "1h"),
            (93_784.0, "1d 2h 3m 4s"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn flags_take_units_or_plain_seconds() {
        for (text, ms) in [
            ("10s", 10_000),
            ("10", 10_000),
            ("0", 0),
            ("0.5", 500),
            ("250ms", 250),
            ("1m30s", 90_000),
            ("1h 5m", 3_900_000),
            ("1.5m", 90_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "10 parsecs", "-1", "1m30", "nan", "1e400", "ten"] {
            assert!(parse(text).unwrap_err().contains("no length of time"), "{text}");
        }
    }
}
