//! Large answers, and answers whose items refer to each other.

use std::hash::{BuildHasher, Hasher, RandomState};

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::answer::{Answer, Refusal};
use super::collections::Page;
use super::params::Params;
use super::state::Services;

/// Items of the heavy collection.
const HEAVY_TOTAL: i64 = 100;
/// What a heavy item carries when the request does not say, in KiB.
const HEAVY_KB_DEFAULT: i64 = 10;
/// Largest number of a detail.
const DETAIL_MAX: i64 = 20_000;
/// Largest filler of an item, in KiB.
const FILLER_KB_MAX: i64 = 256;

pub(super) fn routes() -> Router<Services> {
    Router::new()
        .route("/api/v1/heavy", get(heavy))
        .route("/api/v1/heavy/stats", get(heavy_stats))
        .route("/api/v1/reference-chain/items", get(chain_items))
        .route("/api/v1/reference-chain/detail/{number}", get(chain_detail))
}

async fn heavy(params: Params) -> Answer {
    let page = Page { number: params.positive("page", 1)?, size: params.int("pageSize", 10)?, total: HEAVY_TOTAL };
    let payload_kb = params.int("payload_kb", HEAVY_KB_DEFAULT)?.max(0);
    let items = page.map(|i| heavy_item(i, payload_kb));
    let estimated_kb = i64::try_from(items.len()).unwrap_or(i64::MAX).saturating_mul(payload_kb.saturating_add(1));
    Ok(Json(json!({
        "data": items,
        "paging": {"hasMore": page.more(), "page": page.number, "pageSize": page.size, "total": page.total},
        "meta": {"payload_kb_per_item": payload_kb, "estimated_response_kb": estimated_kb},
    })))
}

fn heavy_item(i: i64, payload_kb: i64) -> Value {
    const CATEGORIES: [&str; 4] = ["finance", "technology", "healthcare", "education"];
    let mut noise = Noise::seeded();
    let category = CATEGORIES[usize::from(noise.byte()) % CATEGORIES.len()];
    json!({
        "id": i,
        "name": format!("Heavy Assessment {i}"),
        "score": 50 + i % 50,
        "category": category,
        "metadata": {
            "created_at": "2024-01-01T00:00:00Z",
            "updated_at": "2024-06-01T00:00:00Z",
            "version": format!("1.{}.0", i % 10),
            "tags": ["tag_0", "tag_1", "tag_2", "tag_3", "tag_4"],
        },
        "description": format!("This sentence describes assessment {i} at some length. ").repeat(10),
        "payload": noise.text(kib(payload_kb)),
    })
}

async fn heavy_stats() -> Json<Value> {
    Json(json!({
        "total_items": HEAVY_TOTAL,
        "default_payload_kb": HEAVY_KB_DEFAULT,
        "max_recommended_payload_kb": 1000,
    }))
}

async fn chain_items(params: Params) -> Answer {
    let size = params.int("pageSize", 25)?.clamp(1, 200);
    let total = params.int("total", 382)?.clamp(1, 20_000);
    let payload_kb = params.int("payload_kb", 1)?.clamp(0, FILLER_KB_MAX);
    let last = (total + size - 1) / size;
    let page = Page { number: params.int("page", 1)?.clamp(1, last), size, total };
    let chain = Chain::asked(&params, 50)?;

    let item = |i: i64| {
        json!({
            "record_id": i,
            "record_ref": reference("record", i),
            "prev_ref": (i > 1).then(|| reference("record", i - 1)),
            "batch": page.number,
            "payload": filler(&format!("item-{i}"), payload_kb),
        })
    };
    let items = page.map(item);
    let chained = chain.references("page", page.number);
    let approximate_kb = i64::try_from(items.len()).unwrap_or(i64::MAX).saturating_mul(payload_kb) + 1;
    Ok(Json(json!({
        "data": items,
        "paging": {
            "hasMore": page.more(),
            "page": page.number,
            "pageSize": size,
            "total": total,
            "nextPage": page.more().then_some(page.number + 1),
        },
        "refs": {
            "mode": chain.mode.as_str(),
            "root_ref": reference("run-root", 1),
            "page_ref": reference("page", page.number),
            "prev_page_ref": (page.number > 1).then(|| reference("page", page.number - 1)),
            "next_page_ref": page.more().then(|| reference("page", page.number + 1)),
            "chain_length": chained.len(),
            "chain": chained,
        },
        "meta": {"payload_kb_per_record": payload_kb, "approx_response_kb": approximate_kb},
    })))
}

async fn chain_detail(Path(number): Path<String>, params: Params) -> Answer {
    let number: i64 = number
        .parse()
        .map_err(|_| super::params::unprocessable(format!("the number must be an integer, is `{number}`")))?;
    if number <= 0 {
        return Err(Refusal::error(StatusCode::NOT_FOUND, "no such detail"));
    }
    if number > DETAIL_MAX {
        return Err(Refusal::error(StatusCode::BAD_REQUEST, format!("details end at {DETAIL_MAX}")));
    }
    let payload_kb = params.int("payload_kb", 2)?.clamp(0, FILLER_KB_MAX);
    let chain = Chain::asked(&params, 100)?;
    let chained = chain.references("detail", number);
    Ok(Json(json!({
        "record_id": number,
        "status": "ok",
        "refs": {
            "mode": chain.mode.as_str(),
            "detail_ref": reference("detail", number),
            "prev_detail_ref": (number > 1).then(|| reference("detail", number - 1)),
            "parent_ref": params.text("parent_ref"),
            "chain_length": chained.len(),
            "chain": chained,
        },
        "summary": {
            "classification": format!("class-{}", number % 7),
            "score": 40 + number % 60,
            "payload_kb": payload_kb,
        },
        "payload": filler(&format!("detail-{number}"), payload_kb),
    })))
}

/// How far back an answer names what came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChainMode {
    /// The one before and itself.
    Linked,
    /// The last few, up to itself.
    Windowed,
    /// All from the first.
    Expanded,
}

impl ChainMode {
    fn as_str(self) -> &'static str {
        match self {
            ChainMode::Linked => "linked",
            ChainMode::Windowed => "windowed",
            ChainMode::Expanded => "expanded",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Chain {
    mode: ChainMode,
    window: i64,
}

impl Chain {
    fn asked(params: &Params, window_max: i64) -> Result<Self, Refusal> {
        let mode = match params.text("ref_mode") {
            Some("windowed") => ChainMode::Windowed,
            Some("expanded") => ChainMode::Expanded,
            Some(_) | None => ChainMode::Linked,
        };
        Ok(Chain { mode, window: params.int("chain_window", 2)?.clamp(1, window_max) })
    }

    fn references(self, what: &str, current: i64) -> Vec<String> {
        let first = match self.mode {
            ChainMode::Linked => current - 1,
            ChainMode::Windowed => current - self.window + 1,
            ChainMode::Expanded => 1,
        };
        (first.max(1)..=current).map(|number| reference(what, number)).collect()
    }
}

fn reference(what: &str, number: i64) -> String {
    format!("{what}-{number:06}")
}

/// Returns the digest of `seed`, repeated to the wanted size.
fn filler(seed: &str, payload_kb: i64) -> String {
    let digest: String = Sha256::digest(seed.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    digest.chars().cycle().take(kib(payload_kb)).collect()
}

fn kib(count: i64) -> usize {
    usize::try_from(count).unwrap_or(0).saturating_mul(1024)
}

/// Letters and digits that nobody can compress or foresee; nothing secret depends on them.
struct Noise(u64);

impl Noise {
    fn seeded() -> Self {
        // The standard library seeds each hasher state at random.
        Noise(RandomState::new().build_hasher().finish() | 1)
    }

    fn byte(&mut self) -> u8 {
        // xorshift64: its state is never zero.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.to_be_bytes()[0]
    }

    fn text(&mut self, length: usize) -> String {
        const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..length).map(|_| char::from(ALPHABET[usize::from(self.byte()) % ALPHABET.len()])).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::services::router;
    use crate::services::tests::ask;

    #[tokio::test]
    async fn a_heavy_item_has_exactly_the_asked_payload() {
        let router = router();
        let (_, page) = ask(&router, "GET", "/api/v1/heavy?page=10&payload_kb=3").await;
        let items = page["data"].as_array().unwrap();
        assert_eq!(items.len(), 10);
        for item in items {
            let payload = item["payload"].as_str().unwrap();
            assert_eq!(payload.len(), 3 * 1024);
            assert!(payload.chars().all(|letter| letter.is_ascii_alphanumeric()));
        }
        assert_ne!(items[0]["payload"], items[1]["payload"]);
        assert_eq!(items[9]["metadata"]["version"], "1.0.0");
        assert_eq!(page["paging"], json!({"hasMore": false, "page": 10, "pageSize": 10, "total": 100}));
    }

    #[tokio::test]
    async fn chain_items_are_clamped_and_refer_back() {
        let router = router();
        let (_, page) =
            ask(&router, "GET", "/api/v1/reference-chain/items?page=99&ref_mode=windowed&chain_window=3").await;
        assert_eq!(
            page["paging"],
            json!({"hasMore": false, "page": 16, "pageSize": 25, "total": 382, "nextPage": null})
        );
        assert_eq!(page["refs"]["chain"], json!(["page-000014", "page-000015", "page-000016"]));
        assert_eq!(page["refs"]["chain_length"], 3);
        assert_eq!(page["data"].as_array().unwrap().len(), 7);
        assert_eq!(page["data"][0]["prev_ref"], "record-000375");
        assert_eq!(page["meta"], json!({"payload_kb_per_record": 1, "approx_response_kb": 8}));
        let (_, first) = ask(&router, "GET", "/api/v1/reference-chain/items?ref_mode=other").await;
        assert_eq!(first["data"][0]["prev_ref"], json!(null));
        assert_eq!(first["refs"]["chain"], json!(["page-000001"]));
        assert_eq!(first["refs"]["mode"], "linked");
        assert_eq!(first["paging"]["nextPage"], 2);
    }

    #[tokio::test]
    async fn a_detail_knows_its_range() {
        let router = router();
        assert_eq!(ask(&router, "GET", "/api/v1/reference-chain/detail/0").await.0, 404);
        assert_eq!(ask(&router, "GET", "/api/v1/reference-chain/detail/20001").await.0, 400);
        assert_eq!(ask(&router, "GET", "/api/v1/reference-chain/detail/x").await.0, 422);
        let uri = "/api/v1/reference-chain/detail/5?ref_mode=expanded&parent_ref=record-000005";
        let (_, detail) = ask(&router, "GET", uri).await;
        assert_eq!(detail["refs"]["chain_length"], 5);
        assert_eq!(detail["refs"]["parent_ref"], "record-000005");
        assert_eq!(detail["summary"], json!({"classification": "class-5", "score": 45, "payload_kb": 2}));
        assert_eq!(detail["payload"].as_str().unwrap().len(), 2048);
    }

    #[test]
    fn a_filler_is_the_digest_over_and_over() {
        let text = filler("item-1", 1);
        assert_eq!(text.len(), 1024);
        assert_eq!(text[..64], text[64..128]);
        // The digest of an empty text is in every book.
        let known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(filler("", 1)[..64], *known);
    }
}
