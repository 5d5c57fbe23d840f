//! How environs begin: most requests come to few places by few ways, and everything
//! that follows from these is the same dict, copied.
#![forbid(unsafe_code)]

use crate::raw::{Attached, Kept, Object};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many are kept.  Names of servers, of which clients may make up any number, are
/// part of them.
const MOST: usize = 8;

/// Longer ones are made anew for each request: long paths are rare, and kept for
/// nothing if their like does not come again.
const LONGEST: usize = 8 * 1024;

/// Dicts by the bytes they were made of, those asked for last in front.
#[derive(Debug, Default)]
pub struct Beginnings(Mutex<Vec<(Box<[u8]>, Kept)>>);

impl Beginnings {
    /// Takes the lock; nobody holds it while running Python.
    fn known(&self) -> MutexGuard<'_, Vec<(Box<[u8]>, Kept)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dict that was made of these bytes; not to be changed.
    pub fn find<'p>(&self, py: Attached<'p>, bytes: &[u8]) -> Option<Object<'p>> {
        let mut known = self.known();
        let at = known.iter().position(|(key, _)| **key == *bytes)?;
        // A step to the front each time.
        if at > 0 {
            known.swap(at, at - 1);
        }
        known.get(at.saturating_sub(1)).map(|(_, dict)| dict.get(py))
    }

    /// Keeps `dict`, which was made of `bytes`, for the next requests.
    pub fn keep(&self, bytes: &[u8], dict: Object<'_>) {
        let py = dict.py();
        if bytes.len() > LONGEST {
            return;
        }
        let new = (bytes.into(), dict.keep());
        let mut known = self.known();
        // Another thread may have come first.
        let same = known.iter().position(|(key, _)| **key == *bytes);
        let old = match same.or_else(|| known.len().checked_sub(1).filter(|_| known.len() == MOST))
        {
            Some(at) => Some(std::mem::replace(&mut known[at], new)),
            None => {
                known.push(new);
                None
            }
        };
        drop(known);
        // Without the lock: what ends with a dict may run Python.
        drop(old.map(|(_, dict)| dict.take(py)));
    }
}
