//! How long things took, counted by size: as many as there may be, in the same room.

use std::time::Duration;

use super::Percentiles;

/// Sizes are told apart to one part in so many.
const PARTS: u64 = 32;
/// Powers of two of a microsecond: up to half an hour and more.
const POWERS: u64 = 32;

/// Counts of durations.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Histogram { counts: vec![0; (PARTS * POWERS) as usize], total: 0, longest: Duration::ZERO }
    }

    /// Counts one more.
    pub(super) fn note(&mut self, took: Duration) {
        let place = place(u64::try_from(took.as_micros()).unwrap_or(u64::MAX)).min(self.counts.len() - 1);
        self.counts[place] += 1;
        self.total += 1;
        self.longest = self.longest.max(took);
    }

    /// Adds what another one has counted.
    pub(super) fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    /// Returns how many were counted.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Returns the percentiles of a `per`th of each.
    pub(super) fn percentiles(&self, per: u32) -> Percentiles {
        let at = |share: f64| self.at(share) / f64::from(per);
        let max = self.longest.as_secs_f64() * 1000.0 / f64::from(per);
        Percentiles { p50: at(0.5).min(max), p90: at(0.9).min(max), p99: at(0.99).min(max), max }
    }

    /// Returns the milliseconds that this share of all did not exceed.
    fn at(&self, share: f64) -> f64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_us(place as u64) as f64 / 1000.0;
            }
        }
        0.0
    }
}

/// Returns where so many microseconds are counted.
fn place(us: u64) -> usize {
    if us < PARTS {
        return us as usize;
    }
    let power = u64::from(us.ilog2() - PARTS.ilog2());
    ((power + 1) * PARTS + ((us >> power) - PARTS)) as usize
}

/// Returns the most microseconds that are counted at a place.
fn upper_us(place: u64) -> u64 {
    if place < PARTS {
        return place;
    }
    let power = place / PARTS - 1;
    ((place % PARTS + PARTS + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_counted_where_it_belongs() {
        let mut last = 0;
        for us in (0..5_000).chain([1 << 20, (1 << 30) + 7, 1 << 36]) {
            let at = place(us);
            let upper = upper_us(at as u64);
            assert!(at >= last && upper >= us && upper - us <= us / PARTS, "{us} µs at {at}, up to {upper}");
            last = at;
        }
    }

    #[test]
    fn percentiles_are_right_to_a_few_parts_in_a_hundred() {
        let mut all = Histogram::new();
        let mut half = Histogram::new();
        for ms in 1..=1000 {
            if ms % 2 == 0 { &mut all } else { &mut half }.note(Duration::from_millis(ms));
        }
        all.add(&half);
        let Percentiles { p50, p90, p99, max } = all.percentiles(1);
        for (got, exact) in [(p50, 500.0), (p90, 900.0), (p99, 990.0)] {
            assert!((got - exact).abs() <= exact / 25.0, "{got} for {exact}");
        }
        assert_eq!((all.total(), max), (1000, 1000.0));
        assert_eq!(all.percentiles(10).max, 100.0);
        assert_eq!(Histogram::new().percentiles(1).p99, 0.0);
    }
}
