//! Stand-ins for public services: echo, posts, forecast, callbacks, an object store.

use axum::body::Bytes;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal};
use super::params::Params;
use super::state::{Services, locked};

/// Posts of all users together.
const POSTS: i64 = 100;
/// Posts of one user.
const POSTS_PER_USER: i64 = 10;
/// The hour of the day at which it is warmest.
const WARMEST_HOUR: u32 = 14;

pub(super) fn routes() -> Router<Services> {
    Router::new()
        .route("/get", get(echo))
        .route("/post", post(echo))
        .route("/anything", any(echo))
        .route("/anything/", any(echo))
        .route("/anything/{*rest}", any(echo))
        .route("/posts", get(posts))
        .route("/posts/{number}", get(one_post))
        .route("/v1/forecast", get(forecast))
        .route("/api/internal/callback", post(callback))
        .route("/api/internal/callback/async", post(callback))
        .route("/upload/storage/v1/b/{bucket}/o", post(upload))
        .route("/storage/v1/b/{bucket}/o", get(objects))
}

async fn echo(
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    params: Params,
    body: Bytes,
) -> Json<Value> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    let form = if is_form { fields(form_urlencoded::parse(&body).into_owned()) } else { Map::new() };
    let text = if is_form { String::new() } else { String::from_utf8_lossy(&body).into_owned() };
    let parsed = if is_form { Value::Null } else { serde_json::from_slice(&body).unwrap_or(Value::Null) };
    Json(json!({
        "args": fields(params.pairs().iter().cloned()),
        "headers": header_fields(&headers),
        "method": method.as_str(),
        "origin": "127.0.0.1",
        "url": format!("http://{host}{path}"),
        "data": text,
        "form": form,
        "files": {},
        "json": parsed,
    }))
}

/// Returns the pairs as a map; the last one of a name wins.
fn fields(pairs: impl Iterator<Item = (String, String)>) -> Map<String, Value> {
    pairs.map(|(name, value)| (name, Value::String(value))).collect()
}

/// Returns the headers as a map; names are lower-case, as the HTTP library hands them over.
fn header_fields(headers: &HeaderMap) -> Map<String, Value> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    fields(headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))))
}

async fn posts() -> Json<Value> {
    Json((1..=POSTS).map(post_numbered).collect())
}

async fn one_post(Path(number): Path<String>) -> Answer {
    match number.parse() {
        Ok(number) if (1..=POSTS).contains(&number) => Ok(Json(post_numbered(number))),
        Ok(_) | Err(_) => Err(Refusal::with_body(StatusCode::NOT_FOUND, json!({}))),
    }
}

fn post_numbered(i: i64) -> Value {
    json!({
        "userId": (i - 1) / POSTS_PER_USER + 1,
        "id": i,
        "title": format!("Post {i}: it's the title"),
        "body": format!("First line of post {i}\nsecond line with \"quotes\""),
    })
}

async fn forecast(params: Params) -> Answer {
    let latitude = params.required_float("latitude")?;
    let longitude = params.required_float("longitude")?;
    let now = tenths(40.0 - latitude.abs() / 2.0);
    let at = |hour: u32| tenths(if hour == WARMEST_HOUR { now + 2.0 } else { now - 3.0 });
    let times: Vec<String> = (0..24).map(|hour| format!("2024-06-01T{hour:02}:00")).collect();
    let temperatures: Vec<f64> = (0..24).map(at).collect();
    let time = "2024-06-01T12:00";
    Ok(Json(json!({
        "latitude": latitude,
        "longitude": longitude,
        "timezone": "GMT",
        "current": {"time": time, "temperature_2m": now},
        "current_weather": {"time": time, "temperature": now, "windspeed": 10.5},
        "hourly": {"time": times, "temperature_2m": temperatures},
    })))
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

async fn callback(body: Bytes) -> Answer {
    let received: Value = serde_json::from_slice(&body)
        .map_err(|error| Refusal::error(StatusCode::BAD_REQUEST, format!("the body must be JSON: {error}")))?;
    Ok(Json(json!({"status": "ok", "received": received})))
}

async fn upload(State(services): State<Services>, Path(bucket): Path<String>, params: Params, body: Bytes) -> Answer {
    let name = params.required("name")?;
    let object = json!({"kind": "storage#object", "bucket": bucket, "name": name, "size": body.len().to_string()});
    locked(&services).objects.entry(bucket).or_default().push(object.clone());
    Ok(Json(object))
}

async fn objects(State(services): State<Services>, Path(bucket): Path<String>, params: Params) -> Json<Value> {
    let prefix = params.text("prefix").unwrap_or_default();
    let memory = locked(&services);
    let stored = memory.objects.get(&bucket).into_iter().flatten();
    let items: Vec<&Value> =
        stored.filter(|object| object["name"].as_str().is_some_and(|name| name.starts_with(prefix))).collect();
    Json(json!({"kind": "storage#objects", "items": items}))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use serde_json::json;
    use tower::ServiceExt;

    use super::*;
    use crate::services::router;
    use crate::services::tests::ask;

    async fn send(uri: &str, content_type: &str, body: impl Into<Body>) -> (u16, Value) {
        let request = Request::post(uri)
            .header(header::HOST, "h:1")
            .header(header::CONTENT_TYPE, content_type)
            .body(body.into())
            .unwrap();
        let answer = router().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn an_echo_shows_what_was_sent() {
        let (_, echoed) = send("/anything/a/b?x=1&x=2&y=%20", "application/json", r#"{"k": [1]}"#).await;
        assert_eq!(echoed["args"], json!({"x": "2", "y": " "}));
        assert_eq!(echoed["json"], json!({"k": [1]}));
        assert_eq!(echoed["data"], r#"{"k": [1]}"#);
        assert_eq!(echoed["method"], "POST");
        assert_eq!(echoed["url"], "http://h:1/anything/a/b?x=1&x=2&y=%20");
        assert_eq!(echoed["headers"]["content-type"], "application/json");
        let (_, form) = send("/post", "application/x-www-form-urlencoded; charset=utf-8", "a=1&b=x+y").await;
        assert_eq!((&form["form"], &form["data"]), (&json!({"a": "1", "b": "x y"}), &json!("")));
        let (_, text) = send("/post", "text/plain", "not json").await;
        assert_eq!((&text["data"], &text["json"]), (&json!("not json"), &json!(null)));
    }

    #[tokio::test]
    async fn bodies_of_several_mib_pass() {
        let (status, echoed) = send("/post", "text/plain", vec![b'x'; 5 * 1024 * 1024]).await;
        assert_eq!((status, echoed["data"].as_str().unwrap().len()), (200, 5 * 1024 * 1024));
    }

    #[tokio::test]
    async fn posts_are_numbered_and_quoted() {
        let router = router();
        let (_, posts) = ask(&router, "GET", "/posts").await;
        let posts = posts.as_array().unwrap();
        assert_eq!(posts.len(), 100);
        assert_eq!(posts[10]["userId"], 2);
        assert_eq!(posts[9]["userId"], 1);
        assert_eq!(posts[6]["body"], "First line of post 7\nsecond line with \"quotes\"");
        assert_eq!(ask(&router, "GET", "/posts/100").await.1["title"], "Post 100: it's the title");
        assert_eq!(ask(&router, "GET", "/posts/101").await, (404, json!({})));
        assert_eq!(ask(&router, "GET", "/posts/x").await, (404, json!({})));
    }

    #[tokio::test]
    async fn the_published_temperatures_hold() {
        let router = router();
        let cases = [(37.7749, 21.1), (40.7128, 19.6), (40.71, 19.6), (51.5074, 14.2), (48.8566, 15.6), (52.52, 13.7)];
        for (latitude, temperature) in cases {
            let uri = format!("/v1/forecast?latitude={latitude}&longitude=0&hourly=temperature_2m");
            let (_, answer) = ask(&router, "GET", &uri).await;
            assert_eq!(answer["current"]["temperature_2m"], temperature);
            assert_eq!(answer["current_weather"]["temperature"], temperature);
            let hours = answer["hourly"]["temperature_2m"].as_array().unwrap();
            assert_eq!(hours.len(), 24);
            assert_eq!(hours[14], tenths(temperature + 2.0));
            assert_eq!(hours[0], tenths(temperature - 3.0));
        }
        assert_eq!(ask(&router, "GET", "/v1/forecast?latitude=1").await.0, 422);
        assert_eq!(ask(&router, "GET", "/v1/forecast?latitude=north&longitude=1").await.0, 422);
    }

    #[tokio::test]
    async fn a_callback_must_be_json() {
        let answer = send("/api/internal/callback", "application/json", r#"{"id": 1}"#).await;
        assert_eq!(answer, (200, json!({"status": "ok", "received": {"id": 1}})));
        assert_eq!(send("/api/internal/callback/async", "application/json", "").await.0, 400);
    }

    #[tokio::test]
    async fn the_same_name_twice_is_two_objects() {
        let router = router();
        for name in ["m%2F1_a", "m%2F1_a", "other"] {
            let uri = format!("/upload/storage/v1/b/bucket/o?uploadType=media&name={name}");
            assert_eq!(ask(&router, "POST", &uri).await.0, 200);
        }
        let (_, found) = ask(&router, "GET", "/storage/v1/b/bucket/o?prefix=m/1_").await;
        assert_eq!(found["items"].as_array().unwrap().len(), 2);
        assert_eq!(found["items"][0]["name"], "m/1_a");
        assert_eq!(ask(&router, "GET", "/storage/v1/b/none/o").await.1["items"], json!([]));
        assert_eq!(ask(&router, "POST", "/upload/storage/v1/b/bucket/o").await.0, 422);
    }
}
