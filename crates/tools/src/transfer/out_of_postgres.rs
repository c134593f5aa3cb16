//! Rows that a PostgreSQL query answers, as they come.

use noetl_core::tool::Stopped;

use super::plan::Plan;
use super::{CHUNK_BYTES_MAX, Means, Row, config_error};
use crate::failure::Failure;
use crate::postgres::{
    Connection, Rows, before_it_began, end_statement, of_statement, target, tool_error, under_brake,
    under_standing_brake,
};
use crate::sql::{self, statements};
use crate::stop::Brake;

/// A running query.
#[derive(Debug)]
pub(super) struct Source {
    connection: Connection,
    rows: Rows,
}

impl Source {
    pub(super) async fn open(means: &Means<'_>, plan: &Plan, brake: &mut Brake) -> Result<Self, Failure> {
        let mut scripts = Vec::new();
        for source in sql::sources(&plan.source_config).map_err(config_error)? {
            scripts.push(source.load(means.settings, means.clients, brake, means.outside, config_error).await?);
        }
        let script = scripts.join(";\n");
        let [statement] = statements(&script)[..] else {
            return Err(config_error("`source.query` must be one statement").into());
        };
        let params = sql::params(&plan.source_config).map_err(config_error)?;
        let target = before_it_began(brake, target(&plan.source_config, means.outside.secrets)).await??;
        let mut connection = before_it_began(brake, means.pool.connect(&target)).await??;
        let (link, notices) = connection.parts();
        let opening = Rows::open(link.client(), &statement, &params);
        let opened = under_brake(link, notices, brake, means.outside.log, opening).await;
        let rows = opened.settle(brake, |trouble| of_statement(&trouble, &script, &statement, 0))?;
        Ok(Source { connection, rows })
    }

    /// Returns the next rows; `None` once there are no more.
    pub(super) async fn next(
        &mut self,
        chunk_rows: usize,
        means: &Means<'_>,
        brake: &mut Brake,
    ) -> Result<Option<Vec<Row>>, Failure> {
        let Source { connection, rows } = self;
        let (link, notices) = connection.parts();
        let reading = async {
            let mut chunk = Vec::new();
            let mut weight = 0;
            while chunk.len() < chunk_rows && weight < CHUNK_BYTES_MAX {
                let Some((row, bytes)) = rows.next().await? else { break };
                weight += bytes;
                chunk.push(row);
            }
            Ok(chunk)
        };
        let read = under_standing_brake(link, notices, brake, means.outside.log, reading).await;
        // The statement still runs, in its way, until its last row is taken.
        link.set_busy(true);
        let chunk = read.settle(brake, |trouble| tool_error(&trouble))?;
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// Ends the query, whose rows nobody takes any more, and returns how that went.
    ///
    /// Race: the order to stop may be heard while rows are written elsewhere. That work has ended then, and this query
    /// has not: nobody may be told that nothing runs before its backend is done with it.
    pub(super) async fn end(mut self, means: &Means<'_>, brake: &mut Brake) -> Stopped {
        let Source { connection, rows } = &mut self;
        let (link, notices) = connection.parts();
        let draining = async {
            while rows.next().await?.is_some() {}
            Ok(())
        };
        end_statement(link, notices, brake, means.outside.log, draining).await
    }

    /// Says that all rows are taken. The connection is not kept: its session has not been reset.
    pub(super) fn close(mut self, means: &Means<'_>) {
        self.connection.tell_notices(means.outside.log);
        self.connection.parts().0.set_busy(false);
    }
}
