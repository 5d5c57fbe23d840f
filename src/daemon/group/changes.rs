//! What follows when a script has changed: a try to load it, and who serves meanwhile.
//!
//! With `reload=immediate` no process serves until the outcome is known, so that the
//! request that met the change and all later ones have the code they came for.  If it
//! cannot be loaded, old code serves them all, and that version is not tried again for
//! the sake of a request.
#![forbid(unsafe_code)]

use super::Group;
use super::member::{Member, Phase};
use crate::daemon::changes::{Change, Changed};
use crate::daemon::control::ToDaemon;
use crate::daemon::plan::Script;
use crate::scoreboard::{Reason, State};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use wsgi_wire::vtable::level;

/// How long requests wait for changed code at most, before old code serves them until
/// there is new.  Shorter, and large applications are served by code their clients have
/// seen replaced; longer, and clients and proxies have given up.
pub(super) const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// Versions of scripts.
pub(super) type Versions = BTreeMap<Script, Changed>;

/// The changes of a group's scripts.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// What processes have met.
    asked: Versions,
    /// What was tried in vain.
    tried: Versions,
    /// Processes that serve old code take no requests until then at the latest.
    held_until: Option<Instant>,
}

impl Changes {
    /// When held processes are let go.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.held_until
    }

    /// What a process that starts will at least find.
    pub(super) fn asked(&self) -> Versions {
        self.asked.clone()
    }

    /// How many versions were tried in vain.
    #[cfg(test)]
    pub(super) fn tried(&self) -> usize {
        self.tried.len()
    }

    /// New code serves; whether it is that of a change some process has met.
    pub(super) fn are_in_force(&mut self) -> bool {
        !std::mem::take(self).asked.is_empty()
    }
}

impl Group {
    /// A process has met a script that changed.
    pub(super) fn stale(&mut self, index: usize, change: &Change) {
        let asked = &self.changes.asked;
        let is_too_much = asked.len() >= self.most_scripts() && !asked.contains_key(&change.script);
        // There will be no other code; or it comes for what has been asked before.
        if self.retired || is_too_much {
            self.keep(index, change);
            return;
        }
        self.learn(&change.script, true);
        if self.changes.tried.get(&change.script) == Some(&change.changed) {
            self.keep(index, change);
            return;
        }
        self.changes.asked.insert(change.script.clone(), change.changed);
        // One that mends a script that could not be loaded is not to wait.
        self.failures = 0;
        self.not_before = None;
        if self.members[index].epoch == self.epoch {
            let how = if self.plan.rolling_reload { " one by one" } else { "" };
            self.log.info(&format!("Script changed, replacing the daemon processes{how}"));
            self.renew(Reason::ScriptReload);
        }
        if self.plan.rolling_reload {
            self.keep(index, change);
        } else {
            self.end_starts(change);
            self.hold();
        }
    }

    /// One that was loading before the change was met may have read the old file: with
    /// that the requests would wait once more.
    fn end_starts(&mut self, change: &Change) {
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let is_late = member.tried.get(&change.script) == Some(&change.changed);
            if member.phase == Phase::Starting && !is_late {
                self.drain(index, Reason::ScriptReload);
            }
        }
    }

    /// Lets a process serve old code in place of this version.
    fn keep(&self, index: usize, change: &Change) {
        let member = &self.members[index];
        let _ = member.tell(&ToDaemon::Keep(change.clone()), &[]);
        if self.changes.held_until.is_none() {
            let _ = member.tell(&ToDaemon::Resume, &[]);
        }
    }

    /// Has the processes with old code take no requests until it is known whether there
    /// is other code.
    fn hold(&mut self) {
        self.changes.held_until.get_or_insert_with(|| Instant::now() + LONGEST_HOLD);
        let is_old = |member: &&Member| member.epoch != self.epoch && member.phase == Phase::Ready;
        for member in self.members.iter().filter(is_old) {
            if let Some(slot) = self.board.slot(member.slot) {
                slot.hold();
            }
        }
    }

    /// These were tried in vain: old code serves on.
    pub(super) fn release(&mut self, tried: Versions) {
        self.changes.held_until = None;
        let known = &self.changes.tried;
        let news: Vec<Change> = tried
            .into_iter()
            .filter(|(script, changed)| known.get(script) != Some(changed))
            .map(|(script, changed)| Change { script, changed })
            .collect();
        for member in self.members.iter().filter(|member| member.phase == Phase::Ready) {
            for change in &news {
                let _ = member.tell(&ToDaemon::Keep(change.clone()), &[]);
            }
            let _ = member.tell(&ToDaemon::Resume, &[]);
        }
        // Too much for one group's scripts: some are tried once more.
        if self.changes.tried.len() >= 4 * self.most_scripts() {
            self.changes.tried.clear();
        }
        self.changes.tried.extend(news.into_iter().map(|it| (it.script, it.changed)));
    }

    /// Lets go what has been held for too long.
    pub(super) fn end_hold(&mut self, now: Instant) {
        if self.changes.held_until.is_some_and(|until| until <= now) {
            self.log.write(
                level::WARN,
                &format!(
                    "WSGI9119: a script that changed has not been loaded within {} s; old code \
                     serves until it is",
                    LONGEST_HOLD.as_secs()
                ),
            );
            self.release(self.changes.asked());
        }
    }

    /// Lets go whoever was not reached when the others were; once a second.
    pub(super) fn resume_forgotten(&self) {
        if self.changes.held_until.is_some() {
            return;
        }
        for member in self.members.iter().filter(|member| member.phase == Phase::Ready) {
            let slot = self.board.slot(member.slot);
            if slot.is_some_and(|slot| slot.state() == State::Held) {
                let _ = member.tell(&ToDaemon::Resume, &[]);
            }
        }
    }
}
