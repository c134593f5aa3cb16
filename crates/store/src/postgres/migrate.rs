//! The shape of the tables, one numbered step after the other, forwards only.
//!
//! A step that was released is never edited: its text is remembered by checksum. A database that a newer program wrote
//! is refused, untouched. Several servers may start at once: they take turns, and the first one does the work.

use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use super::connection;
use super::connection::Address;
use crate::StoreError;
use crate::query::QUERYABLE;

struct Step {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

const STEPS: &[Step] = &[Step { version: 1, name: "tables", sql: include_str!("schema/0001_tables.sql") }];

/// Newest shape that this program knows.
pub const SCHEMA_LATEST: i64 = 1;
const _: () = assert!(STEPS.len() as i64 == SCHEMA_LATEST);

/// The lock that servers take in turns while they look at the shape: `noetl` and a number.
const SHAPE_LOCK: i64 = 0x6e6f_6574_6c00_0001;

/// The role that people's queries run as: it can read, and not what is encrypted. It belongs to the whole cluster.
pub(super) const READER: &str = "noetl_reader";

/// What becomes of a database whose tables have an older shape, or that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// It is brought to the newest one.
    Newest,
    /// It stays as it is, and is not opened: who only looks changes nothing under the servers that use it.
    AsItIs,
}

/// Brings the database to the newest shape, or sees that it has it.
pub(super) async fn migrate(address: &Address, shape: Shape) -> Result<(), StoreError> {
    let (client, task) = address.connect(|_| {}).await?;
    let done = walk(STEPS, &client, shape).await;
    drop(client);
    // It ends with the client.
    task.await.ok();
    done
}

async fn walk(steps: &[Step], client: &Client, shape: Shape) -> Result<(), StoreError> {
    connection::inspect(client).await?;
    client.batch_execute("SET search_path = pg_catalog; SET TimeZone = 'UTC'; BEGIN").await?;
    client.execute("SELECT pg_advisory_xact_lock($1)", &[&SHAPE_LOCK]).await?;
    // Dropped connections roll back by themselves.
    let from = version(client).await?;
    let latest = steps.last().map_or(0, |step| step.version);
    if from > latest {
        return Err(StoreError::Closed(format!(
            "the database was written by a newer noetl (schema {from}, this one knows {latest}); use that one"
        )));
    }
    verify(steps, client, from).await?;
    let missing: Vec<&Step> = steps.iter().filter(|step| step.version > from).collect();
    if shape == Shape::AsItIs && !missing.is_empty() {
        return Err(StoreError::Closed(match from {
            0 => "the database has no tables of noetl: `noetl db init` makes them".to_owned(),
            older => format!(
                "the tables of the database are older (schema {older}, this one knows {latest}): `noetl db init`, or a \
                 server that starts, brings them up to date"
            ),
        }));
    }
    if !missing.is_empty() {
        tracing::info!(from, to = latest, "bringing the database to the newest shape");
    }
    for step in &missing {
        apply(client, step).await?;
    }
    if latest == SCHEMA_LATEST && !missing.is_empty() {
        reader(client).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(())
}

async fn apply(client: &Client, step: &Step) -> Result<(), StoreError> {
    client
        .batch_execute(
            "CREATE SCHEMA IF NOT EXISTS noetl;
             CREATE TABLE IF NOT EXISTS noetl.schema_version (
                 version    bigint PRIMARY KEY,
                 name       text NOT NULL,
                 checksum   text NOT NULL,
                 applied_at timestamptz NOT NULL
             )",
        )
        .await?;
    client.batch_execute(step.sql).await?;
    client
        .execute(
            "INSERT INTO noetl.schema_version (version, name, checksum, applied_at) VALUES ($1, $2, $3, now())",
            &[&step.version, &step.name, &checksum(step.sql)],
        )
        .await?;
    Ok(())
}

/// Checks that the steps the database went through are the ones this program has.
async fn verify(steps: &[Step], client: &Client, from: i64) -> Result<(), StoreError> {
    for step in steps.iter().filter(|step| step.version <= from) {
        let query = "SELECT checksum FROM noetl.schema_version WHERE version = $1";
        let kept: Option<String> =
            client.query_opt(query, &[&step.version]).await?.map(|row| row.try_get(0)).transpose()?;
        if kept != Some(checksum(step.sql)) {
            return Err(StoreError::Closed(format!(
                "step {} (`{}`) of its schema is not the one this program knows",
                step.version, step.name
            )));
        }
    }
    Ok(())
}

/// Returns the newest step that the database went through; 0 for an empty one.
async fn version(client: &Client) -> Result<i64, StoreError> {
    let known = "SELECT to_regclass('noetl.schema_version') IS NOT NULL, \
                 EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                         WHERE n.nspname = 'noetl' AND c.relkind IN ('r', 'p', 'v'))";
    let row = client.query_one(known, &[]).await?;
    match (row.try_get::<_, bool>(0)?, row.try_get::<_, bool>(1)?) {
        (true, _) => {
            let newest = "SELECT coalesce(max(version), 0) FROM noetl.schema_version";
            Ok(client.query_one(newest, &[]).await?.try_get(0)?)
        }
        (false, true) => Err(StoreError::Closed(
            "the schema `noetl` of the database belongs to another program; use another one".into(),
        )),
        (false, false) => Ok(0),
    }
}

/// Makes the role for people's queries and gives it what it may read. A database user that may not make roles goes
/// without: its queries are held by other walls.
async fn reader(client: &Client) -> Result<(), StoreError> {
    // Another database of the cluster may be making it at the same moment; whatever goes wrong, it is not needed.
    let make = format!(
        "DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER}') THEN
                CREATE ROLE {READER} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
            END IF;
            IF NOT pg_has_role('{READER}', 'MEMBER') THEN
                EXECUTE format('GRANT {READER} TO %I', current_user);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'no role for queries: %', SQLERRM;
        END $$"
    );
    client.batch_execute(&make).await?;
    let made: bool =
        client.query_one("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", &[&READER]).await?.try_get(0)?;
    if !made {
        tracing::warn!("the database user may make no roles; people's queries go without one of their own");
        return Ok(());
    }
    client.batch_execute(&format!("GRANT USAGE ON SCHEMA noetl TO {READER}")).await?;
    let columns = "SELECT c.relname::text, array_agg(quote_ident(a.attname) ORDER BY a.attnum), \
                   bool_or(a.attname LIKE '%encrypted') FROM pg_class c \
                   JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid \
                   WHERE n.nspname = 'noetl' AND c.relname = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped \
                   GROUP BY c.relname ORDER BY c.relname";
    for row in client.query(columns, &[&QUERYABLE]).await? {
        let (table, columns, guarded): (String, Vec<String>, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let readable: Vec<_> = columns.into_iter().filter(|column| !column.ends_with("encrypted")).collect();
        let which = if guarded { format!(" ({})", readable.join(", ")) } else { String::new() };
        client.batch_execute(&format!("GRANT SELECT{which} ON noetl.{table} TO {READER}")).await?;
    }
    Ok(())
}

fn checksum(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
