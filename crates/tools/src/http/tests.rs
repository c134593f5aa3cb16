use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Map, Value, json};

use super::auth::Authorization;
use super::request::Request;

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no mapping"),
    }
}

fn read(config: Value) -> Request {
    Request::read(&map(config)).unwrap()
}

#[test]
fn the_query_is_what_the_address_has_and_then_the_params() {
    let table = [
        (json!({}), "http://h/p"),
        (json!({"params": {}}), "http://h/p"),
        (json!({"params": {"gone": null}}), "http://h/p"),
        (json!({"params": {"page": 2, "on": true, "q": "a b&c"}}), "http://h/p?page=2&on=true&q=a+b%26c"),
        (json!({"params": {"id": [1, null, "x"], "o": {"k": 1}}}), "http://h/p?id=1&id=x&o=%7B%22k%22%3A1%7D"),
        (json!({"url": "http://h/p?a=1", "params": {"b": 2}}), "http://h/p?a=1&b=2"),
        (json!({"url": " https://h/p ", "method": "post"}), "https://h/p"),
    ];
    for (config, expected) in table {
        let mut whole = map(json!({"url": "http://h/p"}));
        whole.extend(map(config));
        assert_eq!(Request::read(&whole).unwrap().url.as_str(), expected);
    }
}

#[test]
fn the_body_is_json_a_form_or_a_text() {
    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";
    const TEXT: &str = "text/plain; charset=utf-8";
    let form = json!({"Content-Type": FORM});
    let table = [
        (json!({"json": {"a": [1, null]}}), r#"{"a":[1,null]}"#, JSON),
        (json!({"payload": [1]}), "[1]", JSON),
        (json!({"data": {"a": 1}}), r#"{"a":1}"#, JSON),
        (json!({"body": true}), "true", JSON),
        (json!({"json": "text"}), r#""text""#, JSON),
        (json!({"json": r#"{"from": "tojson"}"#}), r#"{"from": "tojson"}"#, JSON),
        (json!({"data": r#"[1, 2]"#}), "[1, 2]", JSON),
        (json!({"data": "plain é"}), "plain é", TEXT),
        (json!({"body": ""}), "", TEXT),
        (json!({"json": null, "data": {"a": 1}}), r#"{"a":1}"#, JSON),
        (json!({"form": {"a": "x y", "n": 1, "gone": null, "l": [1, 2]}}), "a=x+y&n=1&l=1&l=2", FORM),
        (json!({"form": "a=1"}), "a=1", FORM),
        (json!({"data": {"a": "ä"}, "headers": form}), "a=%C3%A4", FORM),
        (json!({"data": "a=1", "headers": form}), "a=1", FORM),
        (
            json!({"data": {"a": 1}, "headers": {"content-type": "application/vnd.x+json"}}),
            r#"{"a":1}"#,
            "application/vnd.x+json",
        ),
        (json!({"body": "<a/>", "headers": {"content-type": "application/xml"}}), "<a/>", "application/xml"),
    ];
    for (config, body, content_type) in table {
        let mut whole = map(json!({"url": "http://h", "method": "POST"}));
        whole.extend(map(config.clone()));
        let request = Request::read(&whole).unwrap();
        assert_eq!(request.body.as_deref(), Some(body.as_bytes()), "{config}");
        assert_eq!(request.headers[CONTENT_TYPE], content_type, "{config}");
    }
    let request = read(json!({"url": "http://h", "data": null}));
    assert_eq!((request.body, request.headers.contains_key(CONTENT_TYPE)), (None, false));
}

#[test]
fn headers_are_texts_and_hide_their_values() {
    let headers = json!({"X-Number": 1, "X-On": true, "X-Gone": null, "X-Many": ["a", "b"], "x-token": " geheim\n"});
    let request = read(json!({"url": "http://h", "headers": headers}));
    let of = |name: &str| request.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!((of("x-number"), of("x-on"), of("x-many")), (vec!["1"], vec!["true"], vec!["a", "b"]));
    assert_eq!((of("x-token"), of("x-gone")), (vec!["geheim"], vec![]));
    assert!(!format!("{request:?}").contains("geheim"));
}

#[test]
fn a_header_that_the_playbook_wrote_wins_over_auth() {
    let mut request = read(json!({"url": "http://h", "headers": {"Authorization": "Own"}}));
    assert_eq!(request.sign(Authorization::Bearer("t".to_owned())).unwrap(), None);
    assert_eq!(request.headers[AUTHORIZATION], "Own");
    let mut request = read(json!({"url": "http://h?a=1"}));
    request.sign(Authorization::Basic { user: "ann".to_owned(), password: "pä".to_owned() }).unwrap();
    assert_eq!(request.headers[AUTHORIZATION], "Basic YW5uOnDDpA==");
    let key = Authorization::Query { name: "key".to_owned(), value: "k&".to_owned() };
    assert_eq!(request.sign(key).unwrap().as_deref(), Some("key"));
    assert_eq!(request.url.as_str(), "http://h/?a=1&key=k%26");
}

#[test]
fn bad_configuration_says_what_to_do_and_shows_no_secret() {
    let table = [
        (json!({}), "`url` is missing or empty: give the address to ask"),
        (json!({"url": ""}), "`url` is missing or empty: give the address to ask"),
        (json!({"url": 1}), "`url` must be a text"),
        (
            json!({"url": "/path?token=geheim"}),
            "`url` is no address: relative URL without a base; write it like https://host/path",
        ),
        (json!({"url": "ftp://h/"}), "`url` has the scheme `ftp`: only http and https can be asked"),
        (json!({"url": "http://h", "method": "B AD"}), "`method` must be a method of HTTP, such as GET or POST"),
        (json!({"url": "http://h", "headers": []}), "`headers` must be a mapping of names to values"),
        (json!({"url": "http://h", "params": "a=1"}), "`params` must be a mapping of names to values"),
        (json!({"url": "http://h", "headers": {"a b": 1}}), "`a b` can not be the name of a header"),
        (
            json!({"url": "http://h", "headers": {"a": "geheim\nx"}}),
            "the header `a` holds a character that headers can not have",
        ),
        (json!({"url": "http://h", "form": [1]}), "`form` must be a mapping of names to values"),
        (json!({"url": "http://h", "verify_ssl": "maybe"}), "`verify_ssl` must be true or false"),
    ];
    for (config, message) in table {
        let error = Request::read(&map(config)).unwrap_err();
        assert_eq!((error.message.as_str(), error.hard, error.code.as_str()), (message, true, "HTTP_CONFIG"));
    }
}

#[test]
fn errors_name_the_request_without_its_secrets() {
    let name = |url: &str| read(json!({"url": url, "method": "put"})).to_string();
    assert_eq!(name("https://ann:geheim@h:8443/a/b?token=geheim#geheim"), "PUT https://h:8443/a/b?…");
    assert_eq!(name("http://h"), "PUT http://h/");
}
