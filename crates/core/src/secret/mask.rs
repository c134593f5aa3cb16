//! Masking: a secret that a command was given is taken out of everything that leaves it.
//!
//! Found are the value itself, also where its characters are URL-encoded, or escaped as JSON, Python or HTML do it, even
//! repeatedly; and its base64, whatever stands before and after it in the encoded text. Not found is what was
//! turned into something else: a hash, a cipher, another compression or alphabet, the letters one by one. So masking
//! guards against accidents, not against a playbook that means to give a secret away.

mod spelling;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use self::spelling::{ascii, base64_anywhere, hex, is_alone, match_base64, match_letters, url_safe};
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
/// Shortest text of a result at whose end the beginning of a secret counts: as long as a printed line. Tools cut
/// nothing shorter, and a short value that is the beginning of a password is likely something else.
const CUT_BYTES_MIN: usize = crate::log::LOG_LINE_BYTES_MAX;
/// Longest password that may be an ordinary word, in bytes.
const WORD_BYTES_MAX: usize = 12;

/// The secrets of one command.
#[derive(Clone, Default)]
pub struct Mask {
    secrets: Vec<Secret>,
    known: BTreeSet<String>,
    /// Values of the fields beside them that anybody may see: a host, a user's name.
    plain: BTreeSet<String>,
    /// Bytes that something to be masked may begin with.
    begins: Begins,
}

#[derive(Clone)]
struct Secret {
    letters: Vec<char>,
    /// It may be an ordinary word, so it is no secret inside a longer one.
    is_word: bool,
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
        let room = MASKED_VALUES_MAX.saturating_sub(self.plain.len());
        self.plain.extend(plain.into_iter().take(room));
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
        let is_word = text.len() <= WORD_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_lowercase());
        self.secrets.push(Secret { letters, is_word, encoded });
    }

    /// Returns `text`, which may have been cut off, with everything secret replaced; `None` if there is nothing secret
    /// in it.
    ///
    /// The beginning of a secret at the very end counts too, unless it is something plain.
    pub fn text(&self, text: &str) -> Option<String> {
        self.replaced(text, true)
    }

    /// The same of a value. It is whole unless it is very long, and what is plain is not looked into.
    fn whole(&self, text: &str) -> Option<String> {
        if self.plain.contains(text) && !self.known.contains(text) {
            return None;
        }
        self.replaced(text, text.len() >= CUT_BYTES_MIN)
    }

    fn replaced(&self, text: &str, cut: bool) -> Option<String> {
        if self.is_empty() || text.len() < MASKED_BYTES_MIN {
            return None;
        }
        let bytes = text.as_bytes();
        let mut out: Option<String> = None;
        let (mut at, mut copied) = (0, 0);
        while at < bytes.len() {
            let end = if self.begins.0[usize::from(bytes[at])] && text.is_char_boundary(at) {
                self.match_at(text, at, cut)
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
            Value::String(text) => {
                if let Some(masked) = self.whole(text) {
                    *text = masked;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(map) => self.map(map),
        }
    }

    /// Masks every text of a mapping, keys too.
    pub fn map(&self, map: &mut Map<String, Value>) {
        map.values_mut().for_each(|item| self.value(item));
        if map.keys().any(|key| self.whole(key).is_some()) {
            *map = std::mem::take(map).into_iter().map(|(key, item)| (self.whole(&key).unwrap_or(key), item)).collect();
        }
    }

    /// Masks a text, which may have been cut off, in its place.
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
    fn match_at(&self, text: &str, at: usize, cut: bool) -> Option<usize> {
        let bytes = text.as_bytes();
        let one = |secret: &Secret| {
            let encoded = secret.encoded.iter().filter_map(|pattern| match_base64(pattern, bytes, at, cut)).max();
            let shown = match_letters(&secret.letters, bytes, at, cut)
                .filter(|end| !secret.is_word || is_alone(text, at, *end))
                .filter(|end| !cut || *end < bytes.len() || !self.is_plain_end(&text[at..]));
            shown.max(encoded)
        };
        self.secrets.iter().filter_map(one).max()
    }

    /// Returns whether what a text ends with is something plain, and no secret by itself.
    fn is_plain_end(&self, end: &str) -> bool {
        self.plain.contains(end) && !self.known.contains(end)
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
                .then(|| self.match_at(text, at, true))
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
