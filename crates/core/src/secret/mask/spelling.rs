//! The ways in which the same letters are written: as they are, escaped, URL-encoded, as base64.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::MASKED_BYTES_MIN;

/// Most readings of a text that are followed at a time.
const PLACES_MAX: usize = 16;
/// Longest run of backslashes before an escaped character: three levels of escaping need seven.
const BACKSLASHES_MAX: usize = 15;

/// Returns where the letters end that begin at `at`, each written in any of its ways. At the end of a text that may
/// have been `cut` off, the beginning of the letters will do.
pub(super) fn match_letters(letters: &[char], text: &[u8], at: usize, cut: bool) -> Option<usize> {
    // Escaping again doubles every backslash there is.
    let levels: &[usize] = if letters.contains(&'\\') { &[1, 2, 4, 8] } else { &[1] };
    levels.iter().filter_map(|backslashes| match_level(letters, text, at, *backslashes, cut)).max()
}

/// The same where each backslash is written as so many.
fn match_level(letters: &[char], text: &[u8], at: usize, backslashes: usize, cut: bool) -> Option<usize> {
    // All places that some reading of the text so far has come to; hardly ever more than one.
    let mut places = vec![at];
    let mut next = Vec::new();
    let mut read = 0;
    for letter in letters {
        if cut && read >= MASKED_BYTES_MIN && places.contains(&text.len()) {
            return Some(text.len());
        }
        for place in places.drain(..) {
            spellings(*letter, text, place, backslashes, &mut next);
        }
        next.sort_unstable();
        next.dedup();
        next.truncate(PLACES_MAX);
        std::mem::swap(&mut places, &mut next);
        if places.is_empty() {
            return None;
        }
        read += letter.len_utf8();
    }
    places.into_iter().max()
}

/// Puts into `ends` where `letter` ends, for each way in which it may be written at `at`.
fn spellings(letter: char, text: &[u8], at: usize, backslashes: usize, ends: &mut Vec<usize>) {
    let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) else { return };
    let mut utf8 = [0; 4];
    let utf8 = letter.encode_utf8(&mut utf8).as_bytes();
    if letter == '\\' {
        let run = rest.iter().take(backslashes).take_while(|byte| **byte == b'\\').count();
        ends.extend((run == backslashes).then_some(at + run));
    } else if rest.starts_with(utf8) {
        ends.push(at + utf8.len());
    }
    match rest[0] {
        b'+' if letter == ' ' => ends.push(at + 1),
        b'%' => ends.extend(percent(utf8, text, at)),
        b'\\' if letter != '\\' => backslash(letter, text, at, ends),
        b'&' => ends.extend(entity(letter, rest).map(|len| at + len)),
        _ => {}
    }
}

/// `%C3%A9`; a percent sign that was encoded again is `%25`, and so on.
fn percent(utf8: &[u8], text: &[u8], mut at: usize) -> Option<usize> {
    for byte in utf8 {
        if text.get(at) != Some(&b'%') {
            return None;
        }
        at += 1;
        while text.get(at..at + 2).and_then(hex) != Some(u32::from(*byte)) {
            if text.get(at..at + 2) != Some(b"25") {
                return None;
            }
            at += 2;
        }
        at += 2;
    }
    Some(at)
}

/// `\"`, `\n`, `\u00e9`, `\xe9`, with any number of backslashes that escaping again makes of one.
fn backslash(letter: char, text: &[u8], at: usize, ends: &mut Vec<usize>) {
    let run = text[at..].iter().take(BACKSLASHES_MAX).take_while(|byte| **byte == b'\\').count();
    let after = at + run;
    let short = match letter {
        '"' | '\'' | '/' => Some(letter as u32),
        '\n' => Some(u32::from(b'n')),
        '\r' => Some(u32::from(b'r')),
        '\t' => Some(u32::from(b't')),
        '\u{8}' => Some(u32::from(b'b')),
        '\u{c}' => Some(u32::from(b'f')),
        _ => None,
    };
    if short.is_some() && text.get(after).map(|byte| u32::from(*byte)) == short {
        ends.push(after + 1);
    }
    let number = |digits: usize| text.get(after + 1..after + 1 + digits).and_then(hex);
    let code = letter as u32;
    match text.get(after) {
        Some(b'x') if number(2) == Some(code) => ends.push(after + 3),
        Some(b'U') if number(8) == Some(code) => ends.push(after + 9),
        Some(b'u') => {
            let mut units = [0; 2];
            let units = letter.encode_utf16(&mut units);
            let mut place = after;
            for (nth, unit) in units.iter().enumerate() {
                if nth > 0 {
                    place += text[place..].iter().take(BACKSLASHES_MAX).take_while(|byte| **byte == b'\\').count();
                }
                let given = text.get(place + 1..place + 5).and_then(hex);
                if text.get(place) != Some(&b'u') || given != Some(u32::from(*unit)) {
                    return;
                }
                place += 5;
            }
            ends.push(place);
        }
        Some(_) | None => {}
    }
}

fn entity(letter: char, rest: &[u8]) -> Option<usize> {
    let names: &[&str] = match letter {
        '&' => &["&amp;", "&#38;", "&#x26;"],
        '<' => &["&lt;", "&#60;", "&#x3c;"],
        '>' => &["&gt;", "&#62;", "&#x3e;"],
        '"' => &["&quot;", "&#34;", "&#x22;"],
        '\'' => &["&apos;", "&#39;", "&#x27;"],
        _ => &[],
    };
    let is_it = |name: &&&str| rest.get(..name.len()).is_some_and(|text| text.eq_ignore_ascii_case(name.as_bytes()));
    names.iter().find(is_it).map(|name| name.len())
}

pub(super) fn hex(digits: &[u8]) -> Option<u32> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Returns the base64 of `bytes` for each of the three places that they may have in a longer text, without the
/// characters that carry bits of what stands before or after.
pub(super) fn base64_anywhere(bytes: &[u8]) -> BTreeSet<Vec<u8>> {
    (0..3_usize)
        .map(|before| {
            let text = STANDARD_NO_PAD.encode([&[0; 3][..before], bytes].concat());
            let whole = (before + bytes.len()) * 8 / 6;
            text.as_bytes()[(before * 8).div_ceil(6)..whole].to_vec()
        })
        .filter(|pattern| pattern.len() >= MASKED_BYTES_MIN)
        .collect()
}

/// JSON as Python writes it: whatever is not ASCII is escaped.
pub(super) fn ascii(json: &str) -> String {
    let mut units = [0; 2];
    json.chars().fold(String::new(), |mut out, letter| {
        match letter.is_ascii() {
            true => out.push(letter),
            false => letter.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
        out
    })
}

pub(super) fn url_safe(byte: u8) -> u8 {
    match byte {
        b'+' => b'-',
        b'/' => b'_',
        other => other,
    }
}

/// Returns where the base64 ends that begins at `at`, in either alphabet, broken into lines or not. The last character,
/// which carries bits of what follows, and the padding go with it.
pub(super) fn match_base64(pattern: &[u8], text: &[u8], mut at: usize, cut: bool) -> Option<usize> {
    for (nth, byte) in pattern.iter().enumerate() {
        if nth > 0 {
            at = after_line_break(text, at);
        }
        at = match text.get(at) {
            Some(given) if given == byte || *given == url_safe(*byte) => at + 1,
            Some(b'%') if text.get(at + 1..at + 3).and_then(hex) == Some(u32::from(*byte)) => at + 3,
            Some(b'\\') if *byte == b'/' && text.get(at + 1) == Some(&b'/') => at + 2,
            // The rest may have been cut off.
            None if cut && nth >= MASKED_BYTES_MIN => return Some(at),
            Some(_) | None => return None,
        };
    }
    let last = text.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte));
    at += usize::from(last);
    let padding = text[at..].iter().take(2).take_while(|byte| **byte == b'=').count();
    Some(at + padding)
}

fn after_line_break(text: &[u8], at: usize) -> usize {
    let breaks: [&[u8]; 4] = [b"\r\n", b"\n", b"\\r\\n", b"\\n"];
    breaks.iter().find(|one| text[at..].starts_with(one)).map_or(at, |one| at + one.len())
}

/// Returns whether what begins at `at` and ends at `end` is a word of its own: no letter, digit or `_` beside it.
///
/// What stands before it may be the end of an escape (`%3A`, `\n`, `\u003a`), whose letters are none.
pub(super) fn is_alone(text: &str, at: usize, end: usize) -> bool {
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let before = text[..at].chars().next_back();
    let after = text[end..].chars().next();
    !after.is_some_and(part) && (!before.is_some_and(part) || ends_escaped(&text.as_bytes()[..at]))
}

fn ends_escaped(before: &[u8]) -> bool {
    let digits = |sign: &[u8], count: usize| {
        let (start, digits) = before.split_at(before.len().saturating_sub(count));
        digits.len() == count && start.ends_with(sign) && hex(digits).is_some()
    };
    let letter = matches!(before, [.., b'\\', b'n' | b'r' | b't' | b'b' | b'f']);
    letter || digits(b"%", 2) || digits(b"\\x", 2) || digits(b"\\u", 4) || digits(b"\\U", 8)
}
