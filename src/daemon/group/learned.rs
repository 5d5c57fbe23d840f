//! The scripts a group's processes had to load for requests: their replacements load
//! them ahead.
#![forbid(unsafe_code)]

use crate::daemon::plan::Script;
use std::collections::BTreeMap;

/// Scripts that were not asked for since so many occasions to replace all processes
/// are forgotten: one that is no longer used, and cannot be loaded any more, must
/// not keep replacements from getting ready for ever.
pub(super) const MOST_EPOCHS: u64 = 3;

/// Scripts remembered at most; a process says no more either.
pub(super) const MOST_SCRIPTS: usize = 64;

/// The scripts, and the epoch of the last process that had to load each.
#[derive(Debug, Default)]
pub(super) struct Learned {
    scripts: BTreeMap<Script, u64>,
    /// Whether they are others than when this was last asked.
    is_news: bool,
}

impl Learned {
    /// Those an earlier supervisor had learned.
    pub(super) fn inherited(scripts: impl IntoIterator<Item = Script>, epoch: u64) -> Self {
        let scripts = scripts.into_iter().take(MOST_SCRIPTS).map(|script| (script, epoch));
        Self { scripts: scripts.collect(), is_news: false }
    }

    /// A process had to load `script`.  Where there is no room, another is forgotten for
    /// one that is `needed`.
    pub(super) fn learn(&mut self, script: &Script, epoch: u64, needed: bool) {
        if let Some(last) = self.scripts.get_mut(script) {
            *last = epoch;
            return;
        }
        if self.scripts.len() >= MOST_SCRIPTS {
            let oldest = self.scripts.iter().min_by_key(|(_, last)| **last);
            let Some((oldest, _)) = oldest.filter(|_| needed) else { return };
            self.scripts.remove(&oldest.clone());
        }
        self.scripts.insert(script.clone(), epoch);
        self.is_news = true;
    }

    /// All processes are replaced, for the occasion after `epoch`.
    pub(super) fn renew(&mut self, epoch: u64) {
        // Where nobody was asked for anything, nobody was not asked for it: restarts may
        // follow one another faster than a replacement gets ready.
        if self.scripts.values().all(|last| *last != epoch) {
            self.scripts.values_mut().for_each(|last| *last += 1);
        }
        let before = self.scripts.len();
        self.scripts.retain(|_, last| epoch + 1 - *last <= MOST_EPOCHS);
        self.is_news |= self.scripts.len() != before;
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Script> {
        self.scripts.keys()
    }

    /// Whether they are others than at the last call.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(path: &str) -> Script {
        Script { application_group: Vec::new(), path: path.into() }
    }

    fn knows(learned: &Learned, path: &str) -> bool {
        learned.iter().any(|it| *it == script(path))
    }

    #[test]
    fn restarts_too_fast_for_a_request_forget_no_script() {
        let mut learned = Learned::default();
        learned.learn(&script("/one"), 0, false);
        for epoch in 0..3 * MOST_EPOCHS {
            learned.renew(epoch);
        }
        assert!(knows(&learned, "/one"));
    }

    #[test]
    fn a_script_nobody_asks_for_any_more_is_forgotten() {
        let mut learned = Learned::default();
        learned.learn(&script("/one"), 0, false);
        for epoch in 0..=MOST_EPOCHS {
            learned.renew(epoch);
            learned.learn(&script("/other"), epoch + 1, false);
        }
        assert!(!knows(&learned, "/one"));
        assert!(knows(&learned, "/other"));
        assert!(learned.take_news());
        assert!(!learned.take_news());
    }

    #[test]
    fn a_script_that_changed_finds_room_among_too_many() {
        let mut learned = Learned::default();
        for number in 0..2 * MOST_SCRIPTS {
            learned.learn(&script(&format!("/{number}")), 1, false);
        }
        assert_eq!(learned.iter().count(), MOST_SCRIPTS);
        learned.learn(&script("/changed"), 2, true);
        assert!(knows(&learned, "/changed"));
        assert_eq!(learned.iter().count(), MOST_SCRIPTS);
    }
}
