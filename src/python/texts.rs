//! Short texts that come again and again, such as the names of headers: made once, and
//! hashed once.
#![forbid(unsafe_code)]

use crate::raw::{Attached, Kept, Object, Raised};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many places there are; a text has one of them, and whoever comes last has it.
/// Clients may make up any number of names of headers.
const PLACES: usize = 256;

/// Longer ones are made each time.
const LONGEST: usize = 64;

/// A text with what it was made of.
type Known = (Box<[u8]>, Kept);

/// Texts by their Latin-1 bytes.
#[derive(Debug)]
pub struct Texts(Mutex<Vec<Option<Known>>>);

impl Default for Texts {
    fn default() -> Self {
        Self(Mutex::new((0..PLACES).map(|_| None).collect()))
    }
}

impl Texts {
    /// Takes the lock; nobody holds it while running Python.
    fn places(&self) -> MutexGuard<'_, Vec<Option<Known>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `str` of these bytes.
    pub fn get<'p>(&self, py: Attached<'p>, bytes: &[u8]) -> Result<Object<'p>, Raised> {
        if bytes.len() > LONGEST {
            return py.latin1(bytes);
        }
        let at = place(bytes);
        if let Some((known, text)) = &self.places()[at]
            && **known == *bytes
        {
            return Ok(text.get(py));
        }
        let text = py.latin1(bytes)?;
        let old = self.places()[at].replace((bytes.into(), text.clone().keep()));
        // Without the lock.
        drop(old.map(|(_, text)| text.take(py)));
        Ok(text)
    }
}

/// The place of these bytes, by Fibonacci hashing, eight of them at a time.
fn place(bytes: &[u8]) -> usize {
    /// 2^64 divided by the golden ratio.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().copied().chain([last]);
    let hash = words.fold(0, |hash, word| mix(hash, u64::from_le_bytes(word)));
    // The upper bits of a product depend on all bits of its factors.
    (hash >> (u64::BITS - PLACES.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_headers_spread_over_the_places() {
        let names = (0..64).map(|number| format!("HTTP_X_REQUEST_HEADER_{number}"));
        let mut places: Vec<usize> = names.map(|name| place(name.as_bytes())).collect();
        places.sort_unstable();
        places.dedup();
        // 64 balls in 256 bins take 57 of them on average.
        assert!(places.len() > 45, "{}", places.len());
    }
}
