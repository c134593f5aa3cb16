//! Patient records, and the data of each patient, made from digests: the same question has the same answer for ever.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use md5::{Digest, Md5};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::{Answer, Refusal};
use super::failures::{RETRY_AFTER_SECONDS, too_many};
use super::params::Params;
use super::state::{Services, locked};

/// Requests per second for the data of patients.
const PATIENT_DATA_LIMIT: i64 = 50;
/// Patients in one batch.
const BATCH_MAX: usize = 500;
/// What an entry weighs without its payload, in bytes.
const ENTRY_BYTES: i64 = 600;
/// Smallest payload of an entry, in bytes.
const PAYLOAD_BYTES_MIN: i64 = 100;

pub(super) fn routes() -> Router<Services> {
    Router::new()
        .route("/api/v1/patient-records", get(records))
        .route("/api/v1/patient/assessments", get(|state, params| paged(DataType::Assessments, state, params)))
        .route("/api/v1/patient/conditions", get(|state, params| paged(DataType::Conditions, state, params)))
        .route("/api/v1/patient/medications", get(|state, params| paged(DataType::Medications, state, params)))
        .route("/api/v1/patient/vital_signs", get(|state, params| paged(DataType::VitalSigns, state, params)))
        .route("/api/v1/patient/demographics", get(demographics))
        .route("/api/v1/pft/mds/details", get(mds_details))
        .route("/api/v1/pft/batch/{kind}", get(batch))
        .route("/api/v1/mds/assessment/{id}", get(mds_assessment))
        .route("/api/v1/mds/assessment_ids", get(mds_assessment_ids))
}

/// What is known of a patient page by page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DataType {
    Assessments,
    Conditions,
    Medications,
    VitalSigns,
}

impl DataType {
    fn named(name: &str) -> Option<Self> {
        match name {
            "assessments" => Some(DataType::Assessments),
            "conditions" => Some(DataType::Conditions),
            "medications" => Some(DataType::Medications),
            "vital_signs" => Some(DataType::VitalSigns),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            DataType::Assessments => "assessments",
            DataType::Conditions => "conditions",
            DataType::Medications => "medications",
            DataType::VitalSigns => "vital_signs",
        }
    }

    /// Fewest and most pages of a patient.
    fn bounds(self) -> (u64, u64) {
        match self {
            DataType::Assessments => (2, 4),
            DataType::Conditions => (1, 3),
            DataType::Medications => (2, 3),
            DataType::VitalSigns => (1, 1),
        }
    }

    fn pages(self, patient: &str) -> i64 {
        let (fewest, most) = self.bounds();
        let pages = fewest + number(&format!("{patient}:{}", self.as_str())).modulo(most - fewest + 1);
        i64::try_from(pages).unwrap_or(i64::MAX)
    }

    /// Returns row `k`, from 0, of a page.
    fn row(self, patient: &str, page: i64, k: u64) -> Value {
        let name = self.as_str();
        let seed = number(&format!("{patient}:{name}:{page}"));
        let short = name[..4].to_uppercase();
        let mut row = json!({
            "id": format!("{short}-{patient}-p{page}-i{k}"),
            "patientId": patient,
            "dataType": name,
            "value": seed.plus_modulo(k, 100),
        });
        match self {
            DataType::Assessments => {
                let count = 5 + seed.plus_modulo(k, 6);
                let ids: Vec<String> = (1..=count).map(|n| format!("MDS-{patient}-p{page}-{k}-{n:02}")).collect();
                row["mdsCount"] = json!(count);
                row["mdsAssessmentIds"] = json!(ids);
            }
            DataType::Conditions | DataType::Medications | DataType::VitalSigns => {}
        }
        row
    }
}

/// The digest of a text, read as one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DigestNumber(u128);

fn number(text: &str) -> DigestNumber {
    DigestNumber(u128::from_be_bytes(Md5::digest(text.as_bytes()).into()))
}

impl DigestNumber {
    fn modulo(self, modulus: u64) -> u64 {
        // A remainder of a u64 fits a u64.
        u64::try_from(self.0 % u128::from(modulus)).unwrap_or(u64::MAX)
    }

    /// Returns (number + k) mod modulus, without the sum that may not fit.
    fn plus_modulo(self, k: u64, modulus: u64) -> u64 {
        (self.modulo(modulus) + k % modulus) % modulus
    }
}

async fn records(State(services): State<Services>, headers: HeaderMap, params: Params) -> Answer {
    let patient = params.required("patientId")?;
    let page = params.positive("page", 1)?;
    let page_size = params.positive("pageSize", 10)?;
    let min_delay = params.float("min_delay", 2.0)?.max(0.0);
    let max_delay = params.float("max_delay", 4.0)?.max(min_delay);
    let payload_kb = params.int("payload_kb", 100)?;
    let limit = params.int("rate_limit", 50)?;

    let accepted = locked(&services).records.accept(Instant::now(), limit);
    accepted.map_err(|_| too_many("Rate limit exceeded").retry_after(RETRY_AFTER_SECONDS))?;

    let waited = min_delay + (max_delay - min_delay) * chance();
    let wait = Duration::try_from_secs_f64(waited).unwrap_or(Duration::MAX);
    tokio::time::sleep(wait).await;

    let pages = 2 + i64::try_from(number(patient).modulo(4)).unwrap_or(0);
    if page > pages {
        let text = format!("Page {page} does not exist for patient {patient}");
        return Err(Refusal::error(StatusCode::NOT_FOUND, text));
    }
    let payload_bytes = (payload_kb.saturating_mul(1024) / page_size - ENTRY_BYTES).max(PAYLOAD_BYTES_MIN);
    let payload = "M".repeat(usize::try_from(payload_bytes).unwrap_or(0));
    let first = (page - 1).saturating_mul(page_size);
    let entries: Vec<Value> =
        (first..first.saturating_add(page_size)).map(|k| entry(patient, page, k, &payload)).collect();

    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let escaped: String = form_urlencoded::byte_serialize(patient.as_bytes()).collect();
    let url =
        |page| format!("http://{host}/api/v1/patient-records?patientId={escaped}&page={page}&pageSize={page_size}");
    let mut links = vec![json!({"relation": "self", "url": url(page)})];
    if page < pages {
        links.push(json!({"relation": "next", "url": url(page + 1)}));
    }
    Ok(Json(json!({
        "resourceType": "Bundle",
        "type": "searchset",
        "total": pages * page_size,
        "link": links,
        "entry": entries,
        "meta": {
            "patientId": patient,
            "page": page,
            "pageSize": page_size,
            "totalPages": pages,
            "delaySeconds": waited,
            "estimatedResponseKB": (payload_bytes + ENTRY_BYTES).saturating_mul(page_size) / 1024,
        },
    })))
}

fn entry(patient: &str, page: i64, k: i64, payload: &str) -> Value {
    let id = format!("{patient}-p{page}-e{k}");
    json!({
        "fullUrl": format!("MedicationStatement/{id}"),
        "resource": {
            "resourceType": "MedicationStatement",
            "id": id,
            "status": "active",
            "subject": {"reference": format!("Patient/{patient}")},
            "_payload": payload,
        },
    })
}

/// Returns a number from 0 up to 1 that nobody can foresee.
fn chance() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let bits = RandomState::new().build_hasher().finish() >> 32;
    u32::try_from(bits).map_or(0.0, |bits| f64::from(bits) / (f64::from(u32::MAX) + 1.0))
}

/// Lets in the callers that ask for the data of patients, together so many a second.
fn admit(services: &Services) -> Result<(), Refusal> {
    let accepted = locked(services).patients.accept(Instant::now(), PATIENT_DATA_LIMIT);
    let refuse = |_| Refusal::error(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests");
    accepted.map(drop).map_err(|in_window: usize| refuse(in_window).retry_after(RETRY_AFTER_SECONDS))
}

async fn paged(kind: DataType, State(services): State<Services>, params: Params) -> Answer {
    let patient = params.required("patientId")?;
    let page = params.positive("page", 1)?;
    admit(&services)?;
    let pages = kind.pages(patient);
    if page > pages {
        return Err(Refusal::with_body(StatusCode::NOT_FOUND, json!({"error": "page not found"})));
    }
    let paging = json!({"hasMore": page < pages, "page": page, "pageSize": 1, "total": pages});
    Ok(Json(json!({"data": [kind.row(patient, page, 0)], "paging": paging})))
}

async fn demographics(State(services): State<Services>, params: Params) -> Answer {
    let patient = params.required("patientId")?;
    admit(&services)?;
    Ok(Json(demographics_of(patient)))
}

fn demographics_of(patient: &str) -> Value {
    let DigestNumber(seed) = number(&format!("{patient}:demographics"));
    json!({
        "patientId": patient,
        "firstName": format!("First{}", seed % 1000),
        "lastName": format!("Last{}", (seed >> 8) % 1000),
        "dob": "1950-01-01",
        "gender": if seed % 2 == 0 { "M" } else { "F" },
        "status": "active",
    })
}

async fn mds_details(State(services): State<Services>, params: Params) -> Answer {
    let id = params.required("assessmentId")?.trim();
    if id.is_empty() || id.contains(',') {
        return Err(Refusal::error(StatusCode::BAD_REQUEST, "`assessmentId` must be exactly one id"));
    }
    admit(&services)?;
    Ok(Json(json!({"rowCount": 1, "rows": [{"assessment_id": id, "payload": detail_of(id)}]})))
}

async fn mds_assessment(State(services): State<Services>, Path(id): Path<String>) -> Answer {
    admit(&services)?;
    Ok(Json(detail_of(&id)))
}

fn detail_of(id: &str) -> Value {
    let seed = number(id);
    let question = |i: u64, j: u64| {
        let response = seed.plus_modulo(10 * i + j, 5).to_string();
        json!({"key": format!("B{i}0{j}"), "responses": [{"responseValue": response}]})
    };
    let section = |i: u64| {
        let questions: Vec<Value> = (1..=3).map(|j| question(i, j)).collect();
        json!({"sectionId": format!("S{i}"), "questions": questions})
    };
    let sections: Vec<Value> = (1..=3).map(section).collect();
    json!({"assessmentId": id, "status": "completed", "sections": sections})
}

async fn mds_assessment_ids(State(services): State<Services>, params: Params) -> Answer {
    let patient = params.required("patientId")?;
    admit(&services)?;
    let count = 2 + number(&format!("{patient}:mds")).modulo(4);
    let ids: Vec<String> = (1..=count).map(|n| format!("MDS-{patient}-{n:03}")).collect();
    Ok(Json(json!({"patientId": patient, "assessmentIds": ids, "count": count})))
}

async fn batch(Path(kind): Path<String>, params: Params) -> Answer {
    let patients = params.required("patientIds")?;
    let page_size = params.positive("pageSize", 10)?;
    let per_facility = params.positive("patientsPerFacility", 1000)?;
    let patients: Option<Vec<i64>> = patients.split(',').map(|id| id.trim().parse().ok()).collect();
    let patients = patients
        .filter(|patients| patients.len() <= BATCH_MAX)
        .ok_or_else(|| Refusal::error(StatusCode::BAD_REQUEST, "`patientIds` must be 1 to 500 integers"))?;
    let rows_of: Box<dyn Fn(i64) -> Vec<Value>> = match (kind.as_str(), DataType::named(&kind)) {
        (_, Some(paged)) => Box::new(move |id| paged_rows(paged, id, page_size)),
        ("demographics", None) => Box::new(|id| vec![json!({"payload": demographics_of(&id.to_string())})]),
        ("mds", None) => Box::new(|id| vec![mds_row(id)]),
        (_, None) => return Err(Refusal::error(StatusCode::BAD_REQUEST, format!("unknown data type `{kind}`"))),
    };
    let mut rows = Vec::new();
    for &id in &patients {
        for mut row in rows_of(id) {
            row["patient_id"] = json!(id);
            row["facility_mapping_id"] = json!((id - 1).div_euclid(per_facility) + 1);
            rows.push(row);
        }
    }
    Ok(Json(json!({"dataType": kind, "patientCount": patients.len(), "rowCount": rows.len(), "rows": rows})))
}

fn paged_rows(kind: DataType, id: i64, page_size: i64) -> Vec<Value> {
    let patient = id.to_string();
    let pages = kind.pages(&patient);
    let page_row = |page: i64| {
        let data: Vec<Value> =
            (0..u64::try_from(page_size).unwrap_or(0)).map(|k| kind.row(&patient, page, k)).collect();
        let total = pages.saturating_mul(page_size);
        let paging = json!({"hasMore": page < pages, "page": page, "pageSize": page_size, "total": total});
        json!({
            "page_number": page,
            "is_last_page": page == pages,
            "payload": {"data": data, "paging": paging},
        })
    };
    (1..=pages).map(page_row).collect()
}

fn mds_row(id: i64) -> Value {
    let assessment = format!("MDS-{id}-{}", DataType::Assessments.pages(&id.to_string()));
    json!({"payload": detail_of(&assessment), "assessment_id": assessment})
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::services::router;
    use crate::services::tests::ask;

    #[test]
    fn a_digest_is_read_big_endian() {
        // The digest of an empty text: d41d8cd98f00b204e9800998ecf8427e.
        assert_eq!(number(""), DigestNumber(0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e));
        assert_eq!(DigestNumber(u128::MAX).plus_modulo(7, 100), 55 + 7);
    }

    #[tokio::test(start_paused = true)]
    async fn the_published_page_counts_hold() {
        let router = router();
        for (patient, pages) in [("0001", 5), ("0002", 3), ("0003", 3), ("0004", 3), ("0005", 4), ("0006", 2)] {
            let uri = |page| format!("/api/v1/patient-records?patientId=P-{patient}&page={page}&payload_kb=8");
            let (status, last) = ask(&router, "GET", &uri(pages)).await;
            assert_eq!((status, &last["meta"]["totalPages"]), (200, &json!(pages)));
            assert_eq!(last["link"].as_array().unwrap().len(), 1);
            let gone = json!({"detail": format!("Page {} does not exist for patient P-{patient}", pages + 1)});
            assert_eq!(ask(&router, "GET", &uri(pages + 1)).await, (404, gone));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_page_waits_within_its_bounds_and_has_its_entries() {
        let started = Instant::now();
        let uri = "/api/v1/patient-records?patientId=P-0001&page=2&pageSize=4&min_delay=1&max_delay=1.5&payload_kb=8";
        let (_, page) = ask(&router(), "GET", uri).await;
        let waited = started.elapsed();
        assert!(waited >= Duration::from_secs(1) && waited <= Duration::from_millis(1_502), "{waited:?}");
        let entries = page["entry"].as_array().unwrap();
        assert_eq!(entries.len(), 4);
        assert_eq!(entries[0]["resource"]["id"], "P-0001-p2-e4");
        assert_eq!(entries[3]["fullUrl"], "MedicationStatement/P-0001-p2-e7");
        assert_eq!(entries[0]["resource"]["_payload"].as_str().unwrap().len(), 8 * 1024 / 4 - 600);
        assert_eq!(page["link"][1]["relation"], "next");
        assert_eq!(page["total"], 20);
    }

    #[tokio::test]
    async fn required_and_bounded_parameters_are_enforced() {
        let router = router();
        for uri in [
            "/api/v1/patient-records",
            "/api/v1/patient-records?patientId=x&page=0",
            "/api/v1/patient-records?patientId=x&pageSize=0",
            "/api/v1/patient/assessments?page=1",
            "/api/v1/pft/mds/details",
            "/api/v1/pft/batch/mds",
        ] {
            assert_eq!(ask(&router, "GET", uri).await.0, 422, "{uri}");
        }
        for uri in [
            "/api/v1/pft/mds/details?assessmentId=%20",
            "/api/v1/pft/mds/details?assessmentId=a,b",
            "/api/v1/pft/batch/mds?patientIds=",
            "/api/v1/pft/batch/mds?patientIds=1,x",
            "/api/v1/pft/batch/allergies?patientIds=1",
        ] {
            assert_eq!(ask(&router, "GET", uri).await.0, 400, "{uri}");
        }
        assert_eq!(ask(&router, "GET", "/api/v1/patient/allergies?patientId=1").await.0, 404);
    }

    #[tokio::test(start_paused = true)]
    async fn every_page_of_a_patient_can_be_read_and_none_beyond() {
        let router = router();
        for kind in ["assessments", "conditions", "medications", "vital_signs"] {
            let mut page = 1;
            loop {
                let uri = format!("/api/v1/patient/{kind}?patientId=7&page={page}");
                let (status, answer) = ask(&router, "GET", &uri).await;
                assert_eq!(status, 200, "{uri}");
                let row = &answer["data"][0];
                assert_eq!(row["id"], format!("{}-7-p{page}-i0", &kind[..4].to_uppercase()));
                if kind == "assessments" {
                    let count = row["mdsCount"].as_u64().unwrap();
                    assert!((5..=10).contains(&count));
                    let ids = row["mdsAssessmentIds"].as_array().unwrap();
                    assert_eq!(ids.len() as u64, count);
                    assert_eq!(ids[0], format!("MDS-7-p{page}-0-01"));
                }
                if answer["paging"]["hasMore"] == false {
                    assert_eq!(answer["paging"]["total"], page);
                    break;
                }
                page += 1;
            }
            let uri = format!("/api/v1/patient/{kind}?patientId=7&page={}", page + 1);
            assert_eq!(ask(&router, "GET", &uri).await, (404, json!({"error": "page not found"})));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_fifty_first_question_in_a_second_is_refused_and_batches_are_not_counted() {
        let router = router();
        for n in 0..50 {
            let uri = match n % 3 {
                0 => "/api/v1/patient/demographics?patientId=1",
                1 => "/api/v1/mds/assessment/MDS-1",
                _ => "/api/v1/mds/assessment_ids?patientId=1",
            };
            assert_eq!(ask(&router, "GET", uri).await.0, 200);
        }
        let refused = ask(&router, "GET", "/api/v1/patient/demographics?patientId=1").await;
        assert_eq!(refused, (429, json!({"detail": "Too Many Requests"})));
        assert_eq!(ask(&router, "GET", "/api/v1/pft/batch/mds?patientIds=1").await.0, 200);
        tokio::time::advance(Duration::from_millis(1_001)).await;
        assert_eq!(ask(&router, "GET", "/api/v1/patient/demographics?patientId=1").await.0, 200);
    }

    #[tokio::test]
    async fn a_batch_has_a_row_per_patient_and_page() {
        let router = router();
        let uri = "/api/v1/pft/batch/conditions?patientIds=1,%202,1001&pageSize=2&patientsPerFacility=1000";
        let (_, batch) = ask(&router, "GET", uri).await;
        assert_eq!(batch["patientCount"], 3);
        let rows = batch["rows"].as_array().unwrap();
        let pages: i64 = ["1", "2", "1001"].iter().map(|patient| DataType::Conditions.pages(patient)).sum();
        assert_eq!(batch["rowCount"], pages);
        assert_eq!(rows.last().unwrap()["facility_mapping_id"], 2);
        assert_eq!(rows.last().unwrap()["is_last_page"], true);
        assert_eq!(rows[0]["payload"]["data"].as_array().unwrap().len(), 2);
        let (_, people) = ask(&router, "GET", "/api/v1/pft/batch/demographics?patientIds=1").await;
        assert_eq!(people["rows"][0]["payload"], demographics_of("1"));
    }

    #[test]
    fn a_detail_has_three_sections_of_three_questions() {
        let detail = detail_of("MDS-1");
        assert_eq!(detail["sections"].as_array().unwrap().len(), 3);
        let last = &detail["sections"][2]["questions"][2];
        assert_eq!(last["key"], "B303");
        assert_eq!(last["responses"][0]["responseValue"], number("MDS-1").plus_modulo(33, 5).to_string());
    }
}
