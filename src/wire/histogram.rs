//! How long something took, over many times: mean, extremes and a histogram.
#![forbid(unsafe_code)]

/// Octaves of a histogram, the first from 1 ms to 2 ms.
const OCTAVES: u32 = 16;

/// Equal parts of an octave: what falls into one differs by a quarter at most.
const PARTS: u64 = 4;

/// Places of a histogram; the last counts what is longer than all octaves.
pub const PLACES: usize = OCTAVES as usize * PARTS as usize + 1;

/// The place of a time in a histogram; what is shorter than 1 ms is in the first.
pub fn place(micros: u64) -> usize {
    let Some(octave) = (micros / 1000).checked_ilog2() else { return 0 };
    if octave >= OCTAVES {
        return PLACES - 1;
    }
    let begin = 1000_u64 << octave;
    let part = (micros - begin) * PARTS / begin;
    // Both are small: `octave` is below 16, `part` below 4.
    octave as usize * PARTS as usize + part as usize
}

/// The times that something took.
#[derive(Debug, Clone)]
pub struct Times {
    count: u64,
    total: u64,
    least: u64,
    most: u64,
    places: [u32; PLACES],
}

impl Default for Times {
    fn default() -> Self {
        Self { count: 0, total: 0, least: u64::MAX, most: 0, places: [0; PLACES] }
    }
}

impl Times {
    /// Counts one more, of so many µs.
    pub fn add(&mut self, micros: u64) {
        self.count += 1;
        self.total = self.total.saturating_add(micros);
        self.least = self.least.min(micros);
        self.most = self.most.max(micros);
        let place = &mut self.places[place(micros)];
        *place = place.saturating_add(1);
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The mean in seconds; 0 if there is none.
    pub fn mean(&self) -> f64 {
        if self.is_empty() { 0.0 } else { self.total as f64 / self.count as f64 / 1e6 }
    }

    /// The shortest and the longest, in µs.
    pub fn extremes(&self) -> Option<(u64, u64)> {
        (!self.is_empty()).then_some((self.least, self.most))
    }

    /// How many fell into each place.
    pub const fn places(&self) -> &[u32; PLACES] {
        &self.places
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_octave_has_four_parts() {
        let known = [
            (0, 0),
            (999, 0),
            (1_000, 0),
            (1_249, 0),
            (1_250, 1),
            (1_999, 3),
            (2_000, 4),
            (10_500, 13),
            (300_000, 32),
            (65_535_999, 63),
            (65_536_000, 64),
            (u64::MAX, 64),
        ];
        for (micros, expected) in known {
            assert_eq!(place(micros), expected, "{micros}");
        }
    }

    proptest! {
        #[test]
        fn a_longer_time_is_never_in_an_earlier_place(one: u64, other: u64) {
            let (shorter, longer) = (one.min(other), one.max(other));
            prop_assert!(place(shorter) <= place(longer));
            prop_assert!(place(longer) < PLACES);
        }
    }

    #[test]
    fn mean_extremes_and_places_are_of_all_times() {
        let mut times = Times::default();
        assert_eq!((times.mean(), times.extremes()), (0.0, None));
        [3_000, 500, 2_500].into_iter().for_each(|micros| times.add(micros));
        assert!((times.mean() - 0.002).abs() < 1e-9);
        assert_eq!(times.extremes(), Some((500, 3_000)));
        assert_eq!((times.places()[0], times.places()[5], times.places()[6]), (1, 1, 1));
        assert_eq!(times.places().iter().sum::<u32>(), 3);
    }
}
