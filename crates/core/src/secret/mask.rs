//! Masking: a secret that a command was given is taken out of everything that leaves it.
//!
//! Found are the value itself, also where its characters are URL-encoded, or escaped as JSON, Python or HTML do it, even
//! repeatedly; and its base64, whatever stands before and after it in the encoded text. Not found is what was
//! turned into something else: a hash, a cipher, another compression or alphabet, the letters one by one. So masking
//! guards against accidents, not against a playbook that means to give a secret away.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Map, Value};

use super::{MASKED, is_secret};
use crate::event::Write;
use crate::tool::{ToolError, ToolOutcome};
use crate::work::{Awaited, Reported};

/// Shortest value that is masked, in bytes: a shorter one would be found everywhere.
pub const MASKED_BYTES_MIN: usize = 6;
/// Most values that one command's mask holds; more than any credential has fields.
pub const MASKED_VALUES_MAX: usize = 4_096;
/// Most bytes of a line that are held back because its secret may go on in the next piece.
const PIECE_BYTES_MAX: usize = 32 * 1024;
/// Most readings of a text that are followed at a time.
const PLACES_MAX: usize = 16;
/// Longest run of backslashes before an escaped character: three levels of escaping need seven.
const BACKSLASHES_MAX: usize = 15;

/// The secrets of one command.
#[derive(Clone, Default)]
pub struct Mask {
    secrets: Vec<Secret>,
    known: BTreeSet<String>,
    /// Bytes that something to be masked may begin with.
    begins: Begins,
}

#[derive(Clone)]
struct Secret {
    letters: Vec<char>,
    /// Its base64 wherever it may stand in a longer text, without the characters that its neighbours share.
    encoded: BTreeSet<Vec<u8>>,
}

#[derive(Clone)]
struct Begins([bool; 256]);

impl Default for Begins {
    fn default() -> Self {
        Begins([false; 256])
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").field("secrets", &self.secrets.len()).finish_non_exhaustive()
    }
}

impl Mask {
    /// Returns whether there is nothing to mask.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Adds every secret value of a credential or a keychain entry.
    ///
    /// A password that is also the user's name, and so is shown anyway, is none.
    pub fn add_data(&mut self, data: &Map<String, Value>) {
        let mut plain = BTreeSet::new();
        let mut secret = Vec::new();
        collect(data, &mut plain, &mut secret);
        for text in secret {
            if !plain.contains(&text) {
                self.add(&text);
            }
        }
    }

    /// Adds every text and number in `value`, whatever its field is called.
    pub fn add_all(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.add(text),
            Value::Number(number) => self.add(&number.to_string()),
            Value::Array(items) => items.iter().for_each(|item| self.add_all(item)),
            Value::Object(map) => map.values().for_each(|item| self.add_all(item)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Adds one value, its lines, and the password of an address in it.
    pub fn add(&mut self, text: &str) {
        self.add_one(text);
        if text.contains('\n') {
            text.lines().for_each(|line| self.add_one(line));
        }
        if let Some(password) = password_of(text) {
            self.add_one(&password);
        }
    }

    fn add_one(&mut self, text: &str) {
        let text = text.trim();
        if text.len() < MASKED_BYTES_MIN
            || self.secrets.len() >= MASKED_VALUES_MAX
            || !self.known.insert(text.to_owned())
        {
            return;
        }
        let mut encoded = base64_anywhere(text.as_bytes());
        // What is encoded is often a document that holds the value.
        let json = serde_json::to_string(text).unwrap_or_default();
        let inside = json.get(1..json.len().saturating_sub(1)).unwrap_or_default();
        for document in [inside.to_owned(), ascii(inside)] {
            encoded.extend(base64_anywhere(document.as_bytes()));
        }
        let letters: Vec<char> = text.chars().collect();
        let mut first = [0; 4];
        let begins = &mut self.begins.0;
        begins[usize::from(letters[0].encode_utf8(&mut first).as_bytes()[0])] = true;
        for byte in *b"%\\+&" {
            begins[usize::from(byte)] = true;
        }
        for byte in encoded.iter().filter_map(|pattern| pattern.first()) {
            begins[usize::from(*byte)] = true;
            begins[usize::from(url_safe(*byte))] = true;
        }
        self.secrets.push(Secret { letters, encoded });
    }

    /// Returns `text` with everything secret replaced; `None` if there is nothing secret in it.
    ///
    /// The beginning of a secret at the very end counts too: the rest may have been cut off.
    pub fn text(&self, text: &str) -> Option<String> {
        if self.is_empty() || text.len() < MASKED_BYTES_MIN {
            return None;
        }
        let bytes = text.as_bytes();
        let mut out: Option<String> = None;
        let (mut at, mut copied) = (0, 0);
        while at < bytes.len() {
            let end = if self.begins.0[usize::from(bytes[at])] && text.is_char_boundary(at) {
                self.match_at(bytes, at)
            } else {
                None
            };
            let Some(end) = end else {
                at += 1;
                continue;
            };
            let out = out.get_or_insert_with(|| String::with_capacity(text.len()));
            out.push_str(&text[copied..at]);
            out.push_str(MASKED);
            at = end;
            copied = end;
        }
        let mut out = out?;
        out.push_str(&text[copied..]);
        Some(out)
    }

    /// Masks every text of a document, keys too.
    pub fn value(&self, value: &mut Value) {
        if self.is_empty() {
            return;
        }
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => {
                if self.known.contains(&number.to_string()) {
                    *value = Value::String(MASKED.to_owned());
                }
            }
            Value::String(text) => self.string(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(map) => self.map(map),
        }
    }

    /// Masks every text of a mapping, keys too.
    pub fn map(&self, map: &mut Map<String, Value>) {
        map.values_mut().for_each(|item| self.value(item));
        if map.keys().any(|key| self.text(key).is_some()) {
            *map = std::mem::take(map).into_iter().map(|(key, item)| (self.text(&key).unwrap_or(key), item)).collect();
        }
    }

    /// Masks a text in its place.
    pub fn string(&self, text: &mut String) {
        if let Some(masked) = self.text(text) {
            *text = masked;
        }
    }

    /// Returns how many bytes at the end of a piece of text may be the beginning of something that goes on in the next
    /// piece.
    fn reach(&self) -> usize {
        // Twelve bytes a letter at most: `\ud83d\udd11`.
        self.secrets.iter().map(|secret| secret.letters.len() * 12).max().unwrap_or(0).min(PIECE_BYTES_MAX)
    }

    /// Returns where what is secret and begins at `at` ends, the longest if there are several.
    fn match_at(&self, text: &[u8], at: usize) -> Option<usize> {
        let one = |secret: &Secret| {
            let encoded = secret.encoded.iter().filter_map(|pattern| match_base64(pattern, text, at)).max();
            match_letters(&secret.letters, text, at).max(encoded)
        };
        self.secrets.iter().filter_map(one).max()
    }
}

/// Takes the texts of `data` apart: those that anybody may see, and the others.
fn collect(data: &Map<String, Value>, plain: &mut BTreeSet<String>, secret: &mut Vec<String>) {
    fn leaf(is_secret: bool, value: &Value, plain: &mut BTreeSet<String>, secret: &mut Vec<String>) {
        let mut put = |text: String| {
            if is_secret {
                secret.push(text);
            } else {
                plain.insert(text);
            }
        };
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => put(number.to_string()),
            Value::String(text) => put(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| leaf(is_secret, item, plain, secret)),
            Value::Object(map) => collect(map, plain, secret),
        }
    }
    for (field, value) in data {
        leaf(is_secret(field, value), value, plain, secret);
    }
}

/// Returns the password in `scheme://user:password@host`, decoded if it is encoded.
fn password_of(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("://")?;
    let (user, _) = rest.split(['/', '?', '#']).next()?.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    Some(percent_decoded(password))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match after.split_at_checked(2) {
            Some((digits, after)) if *first == b'%' && hex(digits).is_some() => {
                bytes.push(hex(digits).and_then(|byte| u8::try_from(byte).ok()).unwrap_or_default());
                rest = after;
            }
            Some(_) | None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns where the letters end that begin at `at`, each written in any of its ways. At the end of the text, the
/// beginning of the letters will do.
fn match_letters(letters: &[char], text: &[u8], at: usize) -> Option<usize> {
    // Escaping again doubles every backslash there is.
    let levels: &[usize] = if letters.contains(&'\\') { &[1, 2, 4, 8] } else { &[1] };
    levels.iter().filter_map(|backslashes| match_level(letters, text, at, *backslashes)).max()
}

/// The same where each backslash is written as so many.
fn match_level(letters: &[char], text: &[u8], at: usize, backslashes: usize) -> Option<usize> {
    // All places that some reading of the text so far has come to; hardly ever more than one.
    let mut places = vec![at];
    let mut next = Vec::new();
    let mut read = 0;
    for letter in letters {
        if read >= MASKED_BYTES_MIN && places.contains(&text.len()) {
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

fn hex(digits: &[u8]) -> Option<u32> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Returns the base64 of `bytes` for each of the three places that they may have in a longer text, without the
/// characters that carry bits of what stands before or after.
fn base64_anywhere(bytes: &[u8]) -> BTreeSet<Vec<u8>> {
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
fn ascii(json: &str) -> String {
    let mut units = [0; 2];
    json.chars().fold(String::new(), |mut out, letter| {
        match letter.is_ascii() {
            true => out.push(letter),
            false => letter.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
        out
    })
}

fn url_safe(byte: u8) -> u8 {
    match byte {
        b'+' => b'-',
        b'/' => b'_',
        other => other,
    }
}

/// Returns where the base64 ends that begins at `at`, in either alphabet, broken into lines or not. The last character,
/// which carries bits of what follows, and the padding go with it.
fn match_base64(pattern: &[u8], text: &[u8], mut at: usize) -> Option<usize> {
    for (nth, byte) in pattern.iter().enumerate() {
        if nth > 0 {
            at = after_line_break(text, at);
        }
        at = match text.get(at) {
            Some(given) if given == byte || *given == url_safe(*byte) => at + 1,
            Some(b'%') if text.get(at + 1..at + 3).and_then(hex) == Some(u32::from(*byte)) => at + 3,
            Some(b'\\') if *byte == b'/' && text.get(at + 1) == Some(&b'/') => at + 2,
            // The rest may have been cut off.
            None if nth >= MASKED_BYTES_MIN => return Some(at),
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

/// Masks a stream of text that comes in pieces: what stands across a border is found as well.
#[derive(Debug, Default)]
pub struct PieceMask {
    held_back: String,
}

impl PieceMask {
    /// Takes a piece and returns what may go on. With `more`, the same line goes on in the next piece.
    pub fn push(&mut self, mask: &Mask, piece: &str, more: bool) -> Option<String> {
        let joined = if self.held_back.is_empty() {
            None
        } else {
            let mut text = std::mem::take(&mut self.held_back);
            text.push_str(piece);
            Some(text)
        };
        let text = joined.as_deref().unwrap_or(piece);
        if !more || mask.is_empty() {
            return Some(mask.text(text).unwrap_or_else(|| text.to_owned()));
        }
        let mut border = text.len().saturating_sub(mask.reach());
        while !text.is_char_boundary(border) {
            border -= 1;
        }
        // Nothing is cut in the middle of what is found: what begins before the border is let go with it.
        let (out, rest) = mask.split(text, border);
        self.held_back = rest.to_owned();
        (!out.is_empty()).then_some(out)
    }

    /// Returns what is still held back.
    pub fn finish(&mut self, mask: &Mask) -> Option<String> {
        let rest = std::mem::take(&mut self.held_back);
        (!rest.is_empty()).then(|| mask.text(&rest).unwrap_or(rest))
    }
}

impl Mask {
    /// Masks `text` up to about `border`, and returns that and the rest as it is.
    fn split<'t>(&self, text: &'t str, border: usize) -> (String, &'t str) {
        let bytes = text.as_bytes();
        let mut out = String::with_capacity(border);
        let (mut at, mut copied) = (0, 0);
        while at < border {
            let found = (self.begins.0[usize::from(bytes[at])] && text.is_char_boundary(at))
                .then(|| self.match_at(bytes, at))
                .flatten();
            match found {
                // It may go on beyond the end.
                Some(end) if end == bytes.len() => break,
                Some(end) => {
                    out.push_str(&text[copied..at]);
                    out.push_str(MASKED);
                    at = end;
                    copied = end;
                }
                None => at += 1,
            }
        }
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        out.push_str(&text[copied..at.max(copied)]);
        (out, &text[at.max(copied)..])
    }
}

impl Mask {
    /// Masks what a tool gave.
    pub fn outcome(&self, outcome: &mut ToolOutcome) {
        let ToolOutcome { error, data, http, pg, py, stopped: _ } = outcome;
        error.iter_mut().for_each(|error| self.error(error));
        self.value(data);
        [http, pg, py].into_iter().flatten().for_each(|part| self.value(part));
    }

    /// Masks what is reported of a command: whatever a template made of secrets is in there too.
    pub fn reported(&self, reported: &mut Reported) {
        match reported {
            Reported::Started { .. } | Reported::Cancelled { .. } | Reported::Released => {}
            Reported::Done(done) => {
                self.value(&mut done.data);
                done.error.iter_mut().for_each(|error| self.error(error));
                self.writes(&mut done.ctx);
            }
            Reported::Suspended(pause) => {
                self.value(&mut pause.continuation);
                self.writes(&mut pause.ctx);
                match &mut pause.wait {
                    Awaited::Delay { .. } | Awaited::Worker => {}
                    Awaited::Child(request) => self.map(&mut request.input),
                }
            }
        }
    }

    fn error(&self, error: &mut ToolError) {
        self.string(&mut error.code);
        self.string(&mut error.message);
        self.map(&mut error.details);
    }

    fn writes(&self, writes: &mut [Write]) {
        writes.iter_mut().for_each(|write| self.value(&mut write.value));
    }
}

#[cfg(test)]
mod tests;
