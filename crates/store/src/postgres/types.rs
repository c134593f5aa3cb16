//! Values on the wire: times to the millisecond, and documents as text.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use noetl_core::time::Timestamp;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// 2000-01-01T00:00:00Z, from which PostgreSQL counts, in Unix milliseconds.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;
/// The first moment that both we and PostgreSQL know: 4000-01-01 BC.
const FIRST_MS: i64 = -188_395_632_000_000;

/// A `timestamptz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) Timestamp);

impl ToSql for Moment {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        // A moment beyond the calendar (a wait of ages) is kept as the calendar's end, as in every other table.
        let last = jiff::Timestamp::MAX.as_millisecond();
        let ms = self.0.0.clamp(FIRST_MS, last);
        out.put_i64((ms - POSTGRES_EPOCH_MS) * 1_000);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Moment {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let since = i64::from_be_bytes(raw.try_into()?);
        Ok(Moment(Timestamp(since.div_euclid(1_000) + POSTGRES_EPOCH_MS)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

/// The text of a `json` or `jsonb`.
#[derive(Debug, Clone, Copy)]
pub(super) struct JsonText<'a>(pub(super) &'a str);

impl<'a> FromSql<'a> for JsonText<'a> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let raw = match raw.split_first() {
            // Its wire format has a version, which is 1.
            Some((1, rest)) if *ty == Type::JSONB => rest,
            _ if *ty == Type::JSONB => return Err("a jsonb of an unknown version".into()),
            _ => raw,
        };
        Ok(JsonText(std::str::from_utf8(raw)?))
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::JSON | Type::JSONB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_comes_back_to_the_millisecond() {
        for ms in [0, 1, -1, 1_768_900_080_123, POSTGRES_EPOCH_MS, POSTGRES_EPOCH_MS - 1] {
            let mut wire = BytesMut::new();
            Moment(Timestamp(ms)).to_sql(&Type::TIMESTAMPTZ, &mut wire).unwrap();
            assert_eq!(Moment::from_sql(&Type::TIMESTAMPTZ, &wire).unwrap(), Moment(Timestamp(ms)));
        }
        for ms in [i64::MIN, i64::MAX] {
            let mut wire = BytesMut::new();
            assert!(Moment(Timestamp(ms)).to_sql(&Type::TIMESTAMPTZ, &mut wire).is_ok());
        }
    }
}
