//! What SQL tools answer: the same shape for every database.

use serde::Deserialize;
use serde_json::{Map, Value};

/// What one statement answered.
#[derive(Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Answer {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Value>,
    /// How many rows it changed or returned, as the database counts.
    pub(crate) affected_rows: u64,
}

impl Answer {
    fn into_fields(self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("row_count".to_owned(), self.rows.len().into());
        fields.insert("affected_rows".to_owned(), self.affected_rows.into());
        fields.insert("columns".to_owned(), self.columns.into());
        fields.insert("rows".to_owned(), Value::Array(self.rows));
        fields
    }
}

/// Returns the data of a call: the last statement's fields, and each statement's own.
pub(crate) fn data(answers: Vec<Answer>) -> Value {
    let each: Vec<Map<String, Value>> = answers.into_iter().map(Answer::into_fields).collect();
    let mut data = each.last().cloned().unwrap_or_else(|| Answer::default().into_fields());
    data.insert("statement_count".to_owned(), each.len().into());
    for (index, mut fields) in each.into_iter().enumerate() {
        fields.insert("status".to_owned(), "success".into());
        data.insert(format!("command_{index}"), fields.into());
    }
    Value::Object(data)
}
