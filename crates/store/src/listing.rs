//! Lists of executions, as SQL that both databases understand.
//!
//! A page is read from its newest row along an index and no further. A condition that names several statuses would have
//! to be sorted first; so each status is a strand of its own, read as far as the page goes, and the strands are put
//! together.

use noetl_core::head::Status;

use crate::ListQuery;

/// Every status, in the order of strands.
const STATUSES: [Status; 4] = [Status::Running, Status::Completed, Status::Failed, Status::Cancelled];

/// What makes a database read an index from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steering {
    /// Equality with the columns in front of the id.
    Equality,
    /// The same for a path, of which the database knows which statuses it has. For a status alone a range of one value,
    /// and an order that names it: a planner that takes it for a constant, and for evenly spread over ids, goes through
    /// all ids instead when those that have it are old.
    Order,
}

/// The conditions of a list that have nothing to do with the status.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    /// As they stand in a statement.
    pub(crate) plain: Vec<String>,
    /// How the statement names the path, if it has to be a certain one.
    pub(crate) path: Option<String>,
}

impl ListQuery {
    /// Returns the path, if it is one and not a pattern.
    pub(crate) fn exact_path(&self) -> Option<&str> {
        self.path.as_deref().filter(|path| !path.contains('*'))
    }

    /// Returns the statement that lists `columns`.
    pub(crate) fn select(&self, columns: &str, conditions: &Conditions, steering: Steering) -> String {
        let newest = if self.active_first { "status <> 'RUNNING', execution_id DESC" } else { "execution_id DESC" };
        let (limit, offset) = (integer(self.limit), integer(self.offset));
        let page = format!("ORDER BY {newest} LIMIT {limit} OFFSET {offset}");
        match &self.strands()[..] {
            [] => format!("SELECT {columns} {} {page}", self.among(conditions)),
            [status] => {
                let strand = strand(conditions, *status, steering);
                format!("SELECT {columns} {strand} LIMIT {limit} OFFSET {offset}")
            }
            strands => {
                let most = limit.saturating_add(offset);
                let strands = strands.iter().enumerate().map(|(place, status)| {
                    let strand = strand(conditions, *status, steering);
                    format!("SELECT * FROM (SELECT * {strand} LIMIT {most}) AS strand_{place}")
                });
                let strands = strands.collect::<Vec<_>>().join(" UNION ALL ");
                format!("SELECT {columns} FROM ({strands}) AS listed {page}")
            }
        }
    }

    /// Returns the statement that counts what would be listed, in no order.
    pub(crate) fn select_count(&self, conditions: &Conditions) -> String {
        let (limit, offset) = (integer(self.limit), integer(self.offset));
        let from = self.among(conditions);
        format!("SELECT count(*) FROM (SELECT 1 {from} LIMIT {limit} OFFSET {offset}) AS counted")
    }

    /// Returns the statuses that are read each along its index; none: one look at all of them. The index of a path holds
    /// the status in front of the id, so a path alone is as many strands as there are statuses.
    fn strands(&self) -> Vec<Status> {
        if self.is_of_few() || self.status.is_empty() && !self.active_first && self.exact_path().is_none() {
            return Vec::new();
        }
        STATUSES.into_iter().filter(|status| self.status.is_empty() || self.status.contains(status)).collect()
    }

    /// Returns whether a condition leaves so few that they are looked through: children, a family, what is to quiesce.
    fn is_of_few(&self) -> bool {
        self.parent.is_some() || self.root.is_some() || self.unquiesced || self.job.is_some()
    }

    /// Returns the table with all conditions.
    fn among(&self, conditions: &Conditions) -> String {
        // As expressions, so that few are not looked for among all that have the status or the path.
        let (status, path) = if self.is_of_few() { ("status || ''", "path || ''") } else { ("status", "path") };
        let mut all = conditions.plain.clone();
        all.extend(conditions.path.as_ref().map(|value| format!("{path} = {value}")));
        if !self.status.is_empty() {
            let words: Vec<String> = self.status.iter().map(|status| format!("'{}'", status.as_str())).collect();
            all.push(format!("{status} IN ({})", words.join(", ")));
        }
        from(&all)
    }
}

/// Returns the executions of one status, newest first.
fn strand(conditions: &Conditions, status: Status, steering: Steering) -> String {
    let status = status.as_str();
    let mut all = conditions.plain.clone();
    let order = match (steering, &conditions.path) {
        (Steering::Equality, path) | (Steering::Order, path @ Some(_)) => {
            all.extend(path.as_ref().map(|path| format!("path = {path}")));
            all.push(format!("status = '{status}'"));
            "execution_id DESC"
        }
        (Steering::Order, None) => {
            all.push(format!("status >= '{status}' AND status <= '{status}'"));
            "status DESC, execution_id DESC"
        }
    };
    format!("{} ORDER BY {order}", from(&all))
}

fn from(conditions: &[String]) -> String {
    let condition = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    format!("FROM noetl.execution{condition}")
}

/// Returns a number as databases keep it.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use noetl_core::id::ExecutionId;

    use super::*;

    #[test]
    fn a_page_is_put_together_from_strands_that_are_as_long() {
        let query = ListQuery { active_first: true, limit: 10, offset: 5, ..ListQuery::default() };
        let deep = Conditions { plain: vec!["depth = 0".to_owned()], path: None };
        let sql = query.select("execution_id", &deep, Steering::Equality);
        assert_eq!(sql.matches("WHERE depth = 0 AND status = ").count(), 4, "{sql}");
        assert_eq!(sql.matches("LIMIT 15").count(), 4, "{sql}");
        assert!(sql.ends_with("ORDER BY status <> 'RUNNING', execution_id DESC LIMIT 10 OFFSET 5"), "{sql}");
        let all = ListQuery { limit: u64::MAX, ..ListQuery::default() };
        assert_eq!(all.strands(), []);
        let path = ListQuery { path: Some("a/b".into()), ..ListQuery::default() };
        assert_eq!(path.strands(), STATUSES);
        assert_eq!(ListQuery { path: Some("a/*".into()), ..ListQuery::default() }.strands(), []);
        let failed = ListQuery { status: vec![Status::Failed], limit: 1, ..path };
        assert_eq!(failed.strands(), [Status::Failed]);
        let named = Conditions { plain: Vec::new(), path: Some("$1".to_owned()) };
        let sql = failed.select("1", &named, Steering::Order);
        assert!(sql.contains("path = $1 AND status = 'FAILED' ORDER BY execution_id DESC LIMIT 1"), "{sql}");
        let old = ListQuery { path: None, ..failed.clone() }.select("1", &Conditions::default(), Steering::Order);
        assert!(
            old.contains("status >= 'FAILED' AND status <= 'FAILED' ORDER BY status DESC, execution_id DESC"),
            "{old}"
        );
        let children = ListQuery { parent: Some(ExecutionId(7)), active_first: true, ..failed };
        let sql = children.select("1", &named, Steering::Order);
        let end = "path || '' = $1 AND status || '' IN ('FAILED') ORDER BY status <> 'RUNNING', execution_id DESC";
        assert!(sql.contains(end), "{sql}");
    }
}
