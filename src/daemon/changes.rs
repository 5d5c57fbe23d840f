//! Scripts that are not what a daemon process has loaded any more.
//!
//! With `reload=immediate` a process that meets one takes no more requests (its slot
//! is **held**) until the supervisor says what became of it: a replacement has loaded
//! the script, and the process is to end; or it could not, and old code serves on.
//! Then that version is not asked about again.
#![forbid(unsafe_code)]

use super::plan::Script;
use crate::scoreboard::Slot;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// When a file was changed, in ns since the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed(i64);

impl Changed {
    /// When the file at `path` was; none if there is none.
    pub fn of(path: &[u8]) -> Option<Self> {
        let file = std::fs::metadata(OsStr::from_bytes(path)).ok()?;
        Some(Self(file.mtime().saturating_mul(1_000_000_000).saturating_add(file.mtime_nsec())))
    }
}

/// A version of a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The script.
    pub script: Script,
    /// When its file was changed.
    pub changed: Changed,
}

/// The scripts that changed under a process.
#[derive(Debug, Default)]
pub struct Changes(Mutex<Known>);

/// What is known of them.
#[derive(Debug, Default)]
struct Known {
    /// The last version of each, and whether old code serves in its place.
    versions: BTreeMap<Script, (Changed, bool)>,
    /// Those the supervisor has not been told of.
    news: Vec<Change>,
}

impl Changes {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request found that `script` is not what is loaded: whether it is run by the
    /// code that is.  If not, `slot` is held before this returns.
    pub fn is_kept(&self, script: Script, slot: Slot<'_>, is_rolling: bool) -> bool {
        let changed = Changed::of(&script.path).unwrap_or_default();
        let mut known = self.lock();
        match known.versions.get(&script) {
            Some((version, true)) if *version == changed => return true,
            Some((version, false)) if *version == changed => {}
            _ => {
                known.versions.insert(script.clone(), (changed, is_rolling));
                known.news.push(Change { script, changed });
            }
        }
        // With the lock, or the answer to the last change could let it go before.
        if !is_rolling {
            slot.hold();
        }
        is_rolling
    }

    /// Whether there are changes the supervisor has not been told of.
    pub fn has_news(&self) -> bool {
        !self.lock().news.is_empty()
    }

    /// The changes noted since the last call.
    pub fn take(&self) -> Vec<Change> {
        std::mem::take(&mut self.lock().news)
    }

    /// Old code serves in place of this version.
    pub fn keep(&self, change: Change) {
        self.lock().versions.insert(change.script, (change.changed, true));
    }

    /// Old code serves in place of every version there is: nobody is left to ask.
    pub fn keep_all(&self) {
        let mut known = self.lock();
        known.news.clear();
        known.versions.values_mut().for_each(|(_, is_kept)| *is_kept = true);
    }

    /// The next request that meets this change notes it again.
    pub fn forget(&self, change: &Change) {
        self.lock().versions.remove(&change.script);
    }

    /// Lets a held `slot` take requests again.
    pub fn resume(&self, slot: Slot<'_>) {
        let _known = self.lock();
        slot.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::{Scoreboard, Shape, State};

    fn board() -> Scoreboard {
        let shape = Shape::for_group(1, 1);
        let board = Scoreboard::open(Scoreboard::create(shape).unwrap(), shape).unwrap();
        board.slot(0).unwrap().open(1, 1);
        board
    }

    fn script() -> Script {
        Script { application_group: Vec::new(), path: b"/proc/self/exe".to_vec() }
    }

    #[test]
    fn a_change_holds_the_process_until_it_is_answered() {
        let (board, changes) = (board(), Changes::default());
        let slot = board.slot(0).unwrap();
        assert!(!changes.is_kept(script(), slot, false));
        assert_eq!(slot.state(), State::Held);
        let news = changes.take();
        assert_eq!(news.len(), 1);
        assert!(!changes.is_kept(script(), slot, false), "nobody has answered");
        assert!(changes.take().is_empty(), "it was told already");
        changes.keep(news[0].clone());
        changes.resume(slot);
        assert_eq!(slot.state(), State::Ready);
        assert!(changes.is_kept(script(), slot, false));
        assert_eq!(slot.state(), State::Ready);
    }

    #[test]
    fn another_change_is_news_again() {
        let (board, changes) = (board(), Changes::default());
        let slot = board.slot(0).unwrap();
        changes.keep(Change { script: script(), changed: Changed(1) });
        assert!(!changes.is_kept(script(), slot, false));
        assert_eq!(changes.take().len(), 1);
    }

    #[test]
    fn with_a_rolling_reload_old_code_serves_at_once() {
        let (board, changes) = (board(), Changes::default());
        let slot = board.slot(0).unwrap();
        assert!(changes.is_kept(script(), slot, true));
        assert!(changes.is_kept(script(), slot, true));
        assert_eq!(slot.state(), State::Ready);
        assert_eq!(changes.take().len(), 1);
    }

    #[test]
    fn without_a_supervisor_old_code_serves() {
        let (board, changes) = (board(), Changes::default());
        let slot = board.slot(0).unwrap();
        assert!(!changes.is_kept(script(), slot, false));
        changes.keep_all();
        changes.resume(slot);
        assert!(changes.is_kept(script(), slot, false));
        assert!(changes.take().is_empty());
    }
}
