//! Answers kept under an idempotency key: whoever repeats a request gets the first one again.

use noetl_store::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::engine::Engine;

impl Engine {
    /// Does something once for a key, and keeps its answer; without a key it is just done.
    ///
    /// What is done must be safe to be done twice: a repeat that comes before the answer is kept does it again.
    pub(crate) async fn once<T, E>(&self, key: Option<String>, work: impl Future<Output = Result<T, E>>) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<StoreError>,
    {
        let Some(key) = key else { return work.await };
        if let Some(kept) = self.store.answer(&key).await? {
            return Ok(read(&key, kept)?);
        }
        let answer = work.await?;
        self.store.keep_answer(&key, serde_json::to_value(&answer).unwrap_or(Value::Null)).await?;
        Ok(answer)
    }
}

/// Reads an answer that was kept.
pub(crate) fn read<T: DeserializeOwned>(key: &str, kept: Value) -> Result<T, StoreError> {
    serde_json::from_value(kept).map_err(|error| StoreError::Corrupt(format!("the answer kept for {key}: {error}")))
}
