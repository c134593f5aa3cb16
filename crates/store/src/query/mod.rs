//! `noetl query` on the embedded store: PostgreSQL's SQL, read-only, on SQLite.
//!
//! People write the SQL that they know from PostgreSQL. [`translate()`] parses it as PostgreSQL, finds out what
//! every name and expression means (scopes and types are PostgreSQL's) and writes SQLite text for it; what has
//! no translation is refused by name, never passed on in the hope that SQLite means the same. [`run`] executes
//! the text behind an authorizer that knows nothing but reading, with limits on time, rows and bytes.
//!
//! ```text
//! translate   the door: one statement, a query, of bounded size
//!   select    WITH, set operations, VALUES, LIMIT      block     one SELECT
//!   from      tables, joins          rows     functions that make rows
//!   scope     names                  types    types       schema    tables
//!   expr      syntax                 operators, membership, cast, naming, order
//!   calls     calls by family:       aggregates, scalars, time_calls, json_calls
//! functions   what the SQLite text calls, on values of interval, moment, to_char, jsonb and pattern
//! run         authorizer, limits, rows as JSON
//! ```
//!
//! How values stand in SQLite is said at [`Type`]. Where we differ from PostgreSQL on purpose: there is one time
//! zone, UTC; times have milliseconds; `numeric` is a double once it has decimals; text sorts by its bytes; a
//! scalar subquery of several rows gives the first; `now()` and its relatives are one time for a whole query.

mod aggregates;
mod block;
mod calls;
mod cast;
mod error;
mod expr;
mod fields;
mod from;
mod functions;
mod interval;
mod json_calls;
mod jsonb;
mod membership;
mod moment;
mod naming;
mod operators;
mod order;
mod pattern;
mod rows;
mod run;
mod scalars;
mod schema;
mod scope;
mod select;
mod time_calls;
mod to_char;
mod translate;
mod types;

pub use error::{Position, QueryError};
pub use functions::register_functions;
pub use run::{QueryLimits, QueryRows, run};
pub(crate) use schema::QUERYABLE;
pub use schema::Schema;
pub use translate::{OutputColumn, QUERY_BYTES, QUERY_OPERATORS, Translated, translate};
pub use types::Type;
