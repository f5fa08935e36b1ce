//! Which events have arrived: one bit each.

/// A set of numbers that are counted up from zero.
#[derive(Debug, Default)]
pub(super) struct Seen {
    words: Vec<u64>,
    count: u64,
}

impl Seen {
    /// Adds a number; false when it was there already. The caller bounds the numbers: memory grows
    /// with the largest.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(is_new);
        is_new
    }

    /// How many different numbers were added.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The first numbers below `end` that were not added, at most `limit`.
    pub(super) fn missing(&self, end: u64, limit: usize) -> Vec<u64> {
        (0..end).filter(|number| !self.contains(*number)).take(limit).collect()
    }

    /// Whether every number of `others` was added here too.
    pub(super) fn contains_all(&self, others: &Self) -> bool {
        let own = self.words.iter().copied().chain(std::iter::repeat(0));
        others.words.iter().zip(own).all(|(other, own)| other & !own == 0)
    }

    fn contains(&self, number: u64) -> bool {
        let word = self.words.get((number / 64) as usize).copied().unwrap_or(0);
        word & (1 << (number % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_is_a_set() {
        let numbers = [0, 1, 63, 64, 65, 1, 1000, 0, 64];
        let (mut seen, mut set) = (Seen::default(), BTreeSet::new());
        for number in numbers {
            assert_eq!(seen.insert(number), set.insert(number), "{number}");
        }
        assert_eq!(seen.count(), set.len() as u64);
        assert_eq!(seen.missing(67, 100).len(), 67 - 5);
        assert_eq!(seen.missing(67, 3), [2, 3, 4]);
        assert_eq!(Seen::default().missing(2, 9), [0, 1]);
    }

    #[test]
    fn a_set_contains_its_parts() {
        let of = |numbers: &[u64]| {
            let mut seen = Seen::default();
            numbers.iter().for_each(|number| {
                seen.insert(*number);
            });
            seen
        };
        assert!(of(&[1, 2, 100]).contains_all(&of(&[2, 100])));
        assert!(of(&[1]).contains_all(&of(&[])));
        assert!(!of(&[1, 2]).contains_all(&of(&[2, 100])));
        assert!(!of(&[1, 100]).contains_all(&of(&[2])));
    }
}
