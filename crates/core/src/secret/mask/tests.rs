//! A table of the ways in which values get out, and the property that none of them does.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn mask(values: &[&str]) -> Mask {
    let mut mask = Mask::default();
    values.iter().for_each(|value| mask.add(value));
    mask
}

fn masked(values: &[&str], text: &str) -> String {
    mask(values).text(text).unwrap_or_else(|| text.to_owned())
}

fn percent_encoded(text: &str, keep: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ if keep.as_bytes().contains(&byte) => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// JSON without the quotes.
fn json_inside(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap();
    json[1..json.len() - 1].to_owned()
}

/// JSON as Python writes it: ASCII only.
fn ascii_json(text: &str) -> String {
    let mut units = [0; 2];
    json_inside(text)
        .chars()
        .map(|letter| match letter.is_ascii() {
            true => letter.to_string(),
            false => letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        })
        .collect()
}

#[test]
fn a_value_is_found_in_every_spelling() {
    for (secret, text, expected) in [
        ("swordfish", "the swordfish!", "the ********!"),
        ("sword-fish", "sword-fishsword-fish", "****************"),
        ("swordfish", "Swordfish", "Swordfish"),
        ("sword/fish+1 x", "a=sword%2Ffish%2B1%20x&b", "a=********&b"),
        ("sword/fish+1 x", "a=sword%2ffish%2b1+x&b", "a=********&b"),
        ("sword/fish+1 x", "a=sword%252Ffish%252B1%2520x&b", "a=********&b"),
        ("sword/fish+1 x", r#""sword\/fish+1 x""#, r#""********""#),
        ("pass\"word", r#"{"p": "pass\"word"}"#, r#"{"p": "********"}"#),
        ("pass\"word", r#"{"p": "{\"p\": \"pass\\\"word\"}"}"#, r#"{"p": "{\"p\": \"********\"}"}"#),
        ("pass'word", r"'pass\'word'", "'********'"),
        ("back\\slash", r#"{"p": "back\\slash"}"#, r#"{"p": "********"}"#),
        ("back\\slash", r"back\\\\slash", "********"),
        ("pässwörd", r"p\u00e4ssw\u00F6rd", "********"),
        ("pässwörd", r"p\xe4ssw\xf6rd", "********"),
        ("pässwörd", "p%C3%A4ssw%c3%b6rd", "********"),
        ("key🔑key", r"key\ud83d\udd11key", "********"),
        ("key🔑key", r"key\U0001F511key", "********"),
        ("a<b&c>\"d'", "a&lt;b&amp;c&gt;&quot;d&#39;", "********"),
        ("line1\tand\u{8}more", r"line1\tand\bmore", "********"),
        // The beginning at the very end: the rest was cut off.
        ("swordfish-and-chips", "it is swordfish-a", "it is ********"),
        ("swordfish-and-chips", "it is sword", "it is sword"),
        ("swordfish-and-chips", "swordfish-a in between", "swordfish-a in between"),
    ] {
        assert_eq!(masked(&[secret], text), expected, "{secret} in {text}");
    }
}

#[test]
fn base64_is_found_wherever_it_stands_in_the_encoded_text() {
    let secret = "swordfish-and-chips-and-a-long-tail-that-makes-base64-break-its-lines";
    for before in ["", "u", "us", "user:", "{\"token\": \"", "aaaa"] {
        for after in ["", "!", "\"}", "abc"] {
            let text = format!("{before}{secret}{after}");
            for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                let out = masked(&[secret], &format!("Authorization: Basic {encoded} end"));
                assert!(out.contains(MASKED) && out.ends_with(" end"), "{text}: {out}");
                let left = out.split(' ').nth(2).unwrap().replace(MASKED, "");
                assert!(left.len() <= before.len() * 4 / 3 + after.len() * 4 / 3 + 8, "{text}: {out}");
            }
            let lines: Vec<String> = STANDARD
                .encode(&text)
                .as_bytes()
                .chunks(76)
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect();
            for glue in ["\n", "\r\n", "\\n"] {
                let out = masked(&[secret], &lines.join(glue));
                assert!(out.len() < MASKED.len() + before.len() * 2 + after.len() * 2 + 12, "{out}");
            }
        }
    }
    let odd = "sw\"rdfish\n";
    let document = json!({ "p": odd }).to_string();
    assert!(masked(&[odd], &STANDARD.encode(&document)).contains(MASKED));
}

#[test]
fn what_is_short_or_shown_anyway_is_no_secret() {
    assert_eq!(masked(&["short"], "a short text"), "a short text");
    let mut mask = Mask::default();
    let data = json!({
        "db_user": "postgres", "db_password": "postgres", "token": "tok-123456", "nested": {"key": ["deep-secret"]},
        "pin": 123456, "dsn": "postgres://me:p%40ssword@db/x", "on": true, "db_port": 5432,
    });
    mask.add_data(data.as_object().unwrap());
    for (text, expected) in [
        ("postgres on 5432", None),
        ("tok-123456", Some(MASKED)),
        ("is deep-secret", Some("is ********")),
        ("pin 123456", Some("pin ********")),
        ("postgres://me:p%40ssword@db/x", Some(MASKED)),
        ("PGPASSWORD=p@ssword", Some("PGPASSWORD=********")),
    ] {
        assert_eq!(mask.text(text).as_deref(), expected, "{text}");
    }
}

fn mask_of(data: &serde_json::Value) -> Mask {
    let mut mask = Mask::default();
    mask.add_data(data.as_object().unwrap());
    mask
}

fn value_masked(mask: &Mask, mut value: serde_json::Value) -> serde_json::Value {
    mask.value(&mut value);
    value
}

#[test]
fn a_value_is_whole_and_only_what_may_be_cut_off_ends_with_the_beginning_of_a_secret() {
    let mask = mask_of(&json!({"db_user": "postgres", "db_password": "postgres123", "token": "tok-0123456789"}));
    for (value, expected) in [
        (json!("postgres"), json!("postgres")),
        (json!({"postgres": ["a postgres"]}), json!({"postgres": ["a postgres"]})),
        (json!("postgres12"), json!("postgres12")),
        (json!("postgres123"), json!(MASKED)),
        (json!("of postgres123"), json!(format!("of {MASKED}"))),
        (json!({"postgres123": 1}), json!({MASKED: 1})),
        (json!("tok-01234567"), json!("tok-01234567")),
        (json!("Basic cG9zdGdyZXMxMjM="), json!("Basic ********")),
    ] {
        assert_eq!(value_masked(&mask, value.clone()), expected, "{value}");
    }
    // Printed text, a message, and a result as long as what tools cut.
    assert_eq!(mask.text("it is postgres12").as_deref(), Some("it is ********"));
    assert_eq!(mask.text("it is tok-01234").as_deref(), Some("it is ********"));
    let long = format!("{}tok-01234567", " ".repeat(CUT_BYTES_MIN));
    assert!(!value_masked(&mask, json!(long)).as_str().unwrap().contains("tok-"));
    // What is plain is no beginning of anything; that it is a user's name does not make a password plain.
    assert_eq!(mask.text("for user postgres"), None);
    assert_eq!(mask.text("for user postgres123").as_deref(), Some("for user ********"));
}

#[test]
fn a_password_that_is_a_word_is_masked_where_it_stands_alone() {
    let word = mask_of(&json!({"db_user": "tester", "db_password": "postgres", "db_host": "postgres.internal"}));
    for (text, expected) in [
        ("postgres_storage", "postgres_storage"),
        ("http_to_postgres", "http_to_postgres"),
        ("postgresql", "postgresql"),
        ("épostgres", "épostgres"),
        ("postgres", MASKED),
        ("a postgres-b", "a ********-b"),
        ("postgres://tester:postgres@h", "********://tester:********@h"),
        ("password=postgres;", "password=********;"),
        ("{\"p\":\"postgres\"}", "{\"p\":\"********\"}"),
        ("u%3Apostgres%40h", "u%3A********%40h"),
        ("a\\npostgres\\nb", "a\\n********\\nb"),
        ("a\\u003apostgres", "a\\u003a********"),
        ("p%6Fstgres", MASKED),
        ("Basic dGVzdGVyOnBvc3RncmVz", "Basic dGVzdGVyOn********"),
    ] {
        assert_eq!(value_masked(&word, json!({"v": text}))["v"], json!(expected), "{text}");
    }
    assert_eq!(value_masked(&word, json!({"postgres_x": 1})), json!({"postgres_x": 1}));
    assert_eq!(value_masked(&word, json!("postgres.internal")), json!("postgres.internal"));
    assert_eq!(value_masked(&word, json!("at postgres.internal")), json!("at ********.internal"));
    // Long, with a digit, or with a capital letter: no ordinary word.
    for secret in ["correcthorsebattery", "postgres1", "Postgres"] {
        let mask = mask(&[secret]);
        assert_eq!(value_masked(&mask, json!(format!("a_{secret}_b"))), json!("a_********_b"), "{secret}");
    }
}

#[test]
fn documents_are_masked_in_keys_values_and_numbers() {
    let mask = mask(&["swordfish", "123456"]);
    let mut value = json!({"swordfish": {"a": ["x swordfish", 123_456, 1_234_567, true, null]}, "b": "fine"});
    mask.value(&mut value);
    assert_eq!(value, json!({MASKED: {"a": ["x ********", MASKED, 1_234_567, true, null]}, "b": "fine"}));
}

#[test]
fn the_lines_of_a_long_secret_are_secrets() {
    let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----\n";
    let mask = mask(&[key]);
    assert_eq!(mask.text(key.trim()).as_deref(), Some(MASKED));
    assert_eq!(mask.text("  kqhkiG9w0BAQEF").as_deref(), Some("  ********"));
}

#[test]
fn a_mask_says_nothing_of_what_it_holds() {
    assert!(!format!("{:?}", mask(&["swordfish"])).contains("sword"));
}

#[test]
fn many_backslashes_take_no_time() {
    let secret = "\\".repeat(2_000);
    let mask = mask(&[&secret]);
    assert!(mask.text(&"\\".repeat(20_000)).is_some());
}

fn spelled(form: u8, text: &str) -> String {
    match form {
        0 => text.to_owned(),
        1 => json_inside(text),
        2 => ascii_json(text),
        3 => percent_encoded(text, "-_.~"),
        4 => percent_encoded(text, "-_.~/").replace("%20", "+"),
        5 => STANDARD.encode(text),
        6 => URL_SAFE_NO_PAD.encode(text),
        _ => json_inside(&ascii_json(text)),
    }
}

proptest! {
    /// Whatever surrounds it, and wherever the text is cut into pieces, no spelling of a secret comes through.
    #[test]
    fn no_spelling_comes_through(
        secret in "[ -~äé🔑\n\t]{8,40}",
        before in "[ -~]{0,20}",
        after in "[ -~]{0,20}",
        form in 0_u8..8,
        cuts in proptest::collection::vec(0_usize..400, 0..4),
    ) {
        let secret = secret.trim().to_owned();
        // A word is masked where it stands alone only.
        prop_assume!(!secret.bytes().all(|byte| byte.is_ascii_lowercase()));
        prop_assume!(secret.len() >= 8 && !secret.contains(MASKED) && !MASKED.contains(&secret));
        // A value whose spelling repeats itself may show again beside its mask.
        let mask = mask(&[&secret]);
        let leak = spelled(form, &secret);
        let text = format!("{before}{leak}{after}");
        let out = mask.text(&text);
        prop_assert!(out.is_some(), "{leak:?} in {text:?}");
        prop_assert!(!out.unwrap().contains(&leak));

        let places: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        let mut borders: Vec<usize> = cuts.iter().map(|cut| places[cut % places.len()]).collect();
        borders.extend([0, text.len()]);
        borders.sort_unstable();
        let mut pieces = PieceMask::default();
        let mut through = String::new();
        for pair in borders.windows(2) {
            through.push_str(&pieces.push(&mask, &text[pair[0]..pair[1]], pair[1] < text.len()).unwrap_or_default());
        }
        through.push_str(&pieces.finish(&mask).unwrap_or_default());
        prop_assert!(!through.contains(&leak), "{leak:?} in {through:?}");
        prop_assert!(through.contains(MASKED), "{through:?}");
    }

    /// Text without a secret in it comes through as it is, in pieces too.
    #[test]
    fn everything_else_comes_through(text in "[a-z %\\\\+&/=]{0,60}", cut in 0_usize..60) {
        let mask = mask(&["SECRET-VALUE"]);
        prop_assert_eq!(mask.text(&text), None);
        let cut = cut.min(text.len());
        let mut pieces = PieceMask::default();
        let mut through = pieces.push(&mask, &text[..cut], true).unwrap_or_default();
        through.push_str(&pieces.push(&mask, &text[cut..], false).unwrap_or_default());
        prop_assert_eq!(through, text);
    }
}
