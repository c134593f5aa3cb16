//! Paging: which part of a long answer is wanted, and where the rest is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::ApiError;

/// Farthest row that paging by number reaches; beyond it page by id.
pub const OFFSET_MAX: u64 = 1_000_000;

/// Where a page stands among the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pagination {
    /// This page, from 1.
    pub page: u64,
    /// Most events on a page.
    pub page_size: u64,
    /// Events that match, on all pages.
    pub total_events: u64,
    /// Pages.
    pub total_pages: u64,
    /// There is a later page.
    pub has_next: bool,
    /// There is an earlier page.
    pub has_prev: bool,
}

impl Pagination {
    /// Returns where `page` stands when `total` events match.
    pub fn new(page: u64, page_size: u64, total: u64) -> Self {
        let pages = total.div_ceil(page_size).max(1);
        Pagination {
            page,
            page_size,
            total_events: total,
            total_pages: pages,
            has_next: page < pages,
            has_prev: page > 1,
        }
    }
}

/// Returns `(limit, offset)` of a page, or which field is wrong.
pub fn window(page: Option<u64>, page_size: Option<u64>, default: u64, most: u64) -> Result<(u64, u64), ApiError> {
    let size = page_size.unwrap_or(default);
    if size == 0 || size > most {
        return Err(ApiError::bad_field("page_size", format!("must be 1 to {most}")));
    }
    let page = page.unwrap_or(1);
    match page.checked_sub(1).and_then(|before| before.checked_mul(size)) {
        Some(offset) if offset <= OFFSET_MAX => Ok((size, offset)),
        Some(_) => Err(ApiError::bad_field("page", format!("reaches only to row {OFFSET_MAX}; page by id beyond it"))),
        None => Err(ApiError::bad_field("page", "must be 1 or more")),
    }
}
