//! Dice that a seed decides (SplitMix64): the same throws on every machine, in every version.

/// The dice.
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// Those of a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from the first up to and including the last.
    pub(super) fn between(&mut self, (first, last): (u64, u64)) -> u64 {
        first + self.next() % (last - first + 1)
    }

    /// True in a share of all throws.
    pub(super) fn is_within(&mut self, share: f64) -> bool {
        (self.next() as f64) < share * u64::MAX as f64
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_all_throws_and_they_differ() {
        let throws = |seed| {
            let mut chance = Chance::new(seed);
            (0..1_000).map(|_| chance.between((5, 500))).collect::<Vec<_>>()
        };
        assert_eq!(throws(7), throws(7));
        assert_ne!(throws(7), throws(8));
        assert!(throws(7).iter().all(|ms| (5..=500).contains(ms)));
        assert!(throws(7).iter().any(|ms| *ms < 50) && throws(7).iter().any(|ms| *ms > 450));
    }

    #[test]
    fn a_share_is_about_that_share() {
        let mut chance = Chance::new(1);
        let within = (0..10_000).filter(|_| chance.is_within(0.1)).count();
        assert!((900..1_100).contains(&within), "{within}");
        assert!(!chance.is_within(0.0));
    }
}
