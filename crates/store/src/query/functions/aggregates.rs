//! Aggregates that SQLite lacks: JSON and arrays, intervals, percentiles, deviations.

use rusqlite::functions::{Aggregate, Context};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Result};
use serde_json::Value as Json;

use super::{Args, FUNCTION_RESULT_BYTES, failure, flags, numbers, owned};
use crate::query::interval::Interval;

/// Values that one ordered aggregate (`percentile_cont`, `mode`) may hold in memory.
const ORDERED_VALUES: usize = 1_000_000;

pub(super) fn register(conn: &Connection) -> Result<()> {
    conn.create_aggregate_function("pg_agg_array", 1, flags(), ArrayOf)?;
    conn.create_aggregate_function("pg_agg_object", 2, flags(), ObjectOf)?;
    conn.create_aggregate_function("pg_agg_interval_sum", 1, flags(), Intervals { mean: false })?;
    conn.create_aggregate_function("pg_agg_interval_avg", 1, flags(), Intervals { mean: true })?;
    conn.create_aggregate_function("pg_agg_percentile_cont", 2, flags(), Percentile { between: true })?;
    conn.create_aggregate_function("pg_agg_percentile_disc", 2, flags(), Percentile { between: false })?;
    conn.create_aggregate_function("pg_agg_mode", 1, flags(), Mode)?;
    for (name, sample, root) in [
        ("pg_agg_stddev_samp", true, true),
        ("pg_agg_stddev_pop", false, true),
        ("pg_agg_var_samp", true, false),
        ("pg_agg_var_pop", false, false),
    ] {
        conn.create_aggregate_function(name, 1, flags(), Deviation { sample, root })?;
    }
    Ok(())
}

fn too_long() -> rusqlite::Error {
    failure(format!("an aggregate's result is longer than {FUNCTION_RESULT_BYTES} bytes"))
}

/// Collects documents into a JSON array; NULL over no rows, as in PostgreSQL.
struct ArrayOf;

impl Aggregate<String, Sql> for ArrayOf {
    fn init(&self, _: &mut Context<'_>) -> Result<String> {
        Ok(String::new())
    }

    fn step(&self, context: &mut Context<'_>, list: &mut String) -> Result<()> {
        let args = Args(context);
        list.push(if list.is_empty() { '[' } else { ',' });
        if args.is_null(0) {
            list.push_str("null");
        } else {
            list.push_str(&args.text(0).map_err(failure)?);
        }
        if list.len() > FUNCTION_RESULT_BYTES { Err(too_long()) } else { Ok(()) }
    }

    fn finalize(&self, _: &mut Context<'_>, list: Option<String>) -> Result<Sql> {
        Ok(match list {
            Some(mut list) if !list.is_empty() => {
                list.push(']');
                Sql::Text(list)
            }
            Some(_) | None => Sql::Null,
        })
    }
}

/// Collects keys and documents into a JSON object; a later key wins.
struct ObjectOf;

#[derive(Default)]
struct Object {
    map: serde_json::Map<String, Json>,
    bytes: usize,
}

impl Aggregate<Object, Sql> for ObjectOf {
    fn init(&self, _: &mut Context<'_>) -> Result<Object> {
        Ok(Object::default())
    }

    fn step(&self, context: &mut Context<'_>, object: &mut Object) -> Result<()> {
        let args = Args(context);
        if args.is_null(0) {
            return Err(failure("a json key must not be null".to_owned()));
        }
        let (key, value) = (args.text(0).map_err(failure)?, args.json(1).map_err(failure)?);
        object.bytes += key.len() + args.text(1).map_err(failure)?.len();
        object.map.insert(key, value);
        if object.bytes > FUNCTION_RESULT_BYTES { Err(too_long()) } else { Ok(()) }
    }

    fn finalize(&self, _: &mut Context<'_>, object: Option<Object>) -> Result<Sql> {
        Ok(object.map_or(Sql::Null, |object| Sql::Text(Json::Object(object.map).to_string())))
    }
}

/// Adds intervals up, or averages them.
struct Intervals {
    mean: bool,
}

#[derive(Default)]
struct IntervalSum {
    sum: Interval,
    count: u32,
}

impl Aggregate<IntervalSum, Sql> for Intervals {
    fn init(&self, _: &mut Context<'_>) -> Result<IntervalSum> {
        Ok(IntervalSum::default())
    }

    fn step(&self, context: &mut Context<'_>, state: &mut IntervalSum) -> Result<()> {
        let args = Args(context);
        if args.is_null(0) {
            return Ok(());
        }
        let text = args.text(0).map_err(failure)?;
        let sum = Interval::decode(&text).and_then(|interval| state.sum.plus(interval));
        state.sum = sum.ok_or_else(|| failure("interval out of range".to_owned()))?;
        state.count = state.count.saturating_add(1);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, state: Option<IntervalSum>) -> Result<Sql> {
        let Some(state) = state.filter(|state| state.count > 0) else { return Ok(Sql::Null) };
        let result = if self.mean { state.sum.times(1.0 / f64::from(state.count)) } else { Some(state.sum) };
        result.map(|interval| Sql::Text(interval.encode())).ok_or_else(|| failure("interval out of range".to_owned()))
    }
}

#[derive(Default)]
struct Ordered {
    values: Vec<Sql>,
    fraction: f64,
}

impl Ordered {
    fn push(&mut self, args: &Args<'_, '_>) -> Result<()> {
        if args.is_null(0) {
            return Ok(());
        }
        if self.values.len() == ORDERED_VALUES {
            return Err(failure(format!("an ordered aggregate takes at most {ORDERED_VALUES} values")));
        }
        self.values.push(owned(args.raw(0)));
        Ok(())
    }

    fn sort(&mut self) {
        self.values.sort_by(|a, b| numbers::compare(a.into(), b.into()));
    }
}

/// `percentile_cont` interpolates between two values, `percentile_disc` takes one that is there.
struct Percentile {
    between: bool,
}

impl Aggregate<Ordered, Sql> for Percentile {
    fn init(&self, _: &mut Context<'_>) -> Result<Ordered> {
        Ok(Ordered::default())
    }

    fn step(&self, context: &mut Context<'_>, state: &mut Ordered) -> Result<()> {
        let args = Args(context);
        state.fraction = args.real(1).map_err(failure)?;
        if !(0.0..=1.0).contains(&state.fraction) {
            return Err(failure(format!("percentile value {} is not between 0 and 1", state.fraction)));
        }
        state.push(&args)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a position in a list of at most a million values"
    )]
    fn finalize(&self, _: &mut Context<'_>, state: Option<Ordered>) -> Result<Sql> {
        let Some(mut state) = state.filter(|state| !state.values.is_empty()) else { return Ok(Sql::Null) };
        state.sort();
        let count = state.values.len();
        if !self.between {
            let at = (state.fraction * count as f64).ceil() as usize;
            return Ok(state.values.swap_remove(at.saturating_sub(1)));
        }
        let at = state.fraction * (count - 1) as f64;
        let number = |index: usize| match &state.values[index] {
            Sql::Integer(value) => numbers::as_real(*value),
            Sql::Real(value) => *value,
            Sql::Null | Sql::Text(_) | Sql::Blob(_) => f64::NAN,
        };
        let (low, high) = (number(at.floor() as usize), number(at.ceil() as usize));
        Ok(Sql::Real(low + (high - low) * at.fract()))
    }
}

/// The most frequent value, the smallest of equals.
struct Mode;

impl Aggregate<Ordered, Sql> for Mode {
    fn init(&self, _: &mut Context<'_>) -> Result<Ordered> {
        Ok(Ordered::default())
    }

    fn step(&self, context: &mut Context<'_>, state: &mut Ordered) -> Result<()> {
        state.push(&Args(context))
    }

    fn finalize(&self, _: &mut Context<'_>, state: Option<Ordered>) -> Result<Sql> {
        let mut state = state.unwrap_or_default();
        state.sort();
        let runs = state.values.chunk_by(|a, b| a == b);
        let longest = runs.fold(&[][..], |best: &[Sql], run| if run.len() > best.len() { run } else { best });
        Ok(longest.first().cloned().unwrap_or(Sql::Null))
    }
}

/// Standard deviation and variance, by Welford's running mean.
struct Deviation {
    sample: bool,
    root: bool,
}

#[derive(Default)]
struct Running {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Aggregate<Running, Sql> for Deviation {
    fn init(&self, _: &mut Context<'_>) -> Result<Running> {
        Ok(Running::default())
    }

    fn step(&self, context: &mut Context<'_>, state: &mut Running) -> Result<()> {
        let args = Args(context);
        if args.is_null(0) {
            return Ok(());
        }
        let value = args.real(0).map_err(failure)?;
        state.count += 1.0;
        let distance = value - state.mean;
        state.mean += distance / state.count;
        state.squares += distance * (value - state.mean);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, state: Option<Running>) -> Result<Sql> {
        let state = state.unwrap_or_default();
        let divisor = if self.sample { state.count - 1.0 } else { state.count };
        if divisor <= 0.0 {
            return Ok(Sql::Null);
        }
        let variance = state.squares / divisor;
        Ok(Sql::Real(if self.root { variance.sqrt() } else { variance }))
    }
}
