//! The timers of a daemon process, judged from outside: what the scoreboard and
//! `/proc` say about a process, against what its group allows.
//!
//! Works on plain numbers: times are µs of the monotonic clock.  What the
//! scoreboard says is a hint of a process that runs the application; the worst a
//! false one does is to replace that process.
#![forbid(unsafe_code)]

use super::plan::Limits;
use crate::scoreboard::{Reason, Running};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What is known of a process at one moment.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// When this was.
    pub now: u64,
    /// Since when it takes requests; none: it loads.
    pub ready: Option<u64>,
    /// When Python's lock was last to be had.
    pub beat: Option<u64>,
    /// When something was last done for a request.
    pub active: Option<u64>,
    /// Since when a request, or the process itself, waits for its first script.
    pub loading: Option<u64>,
    /// What it runs.
    pub running: Vec<Running>,
}

/// What is to be done about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A thread of it is to be interrupted in this request.
    Interrupt(u64),
    /// It is replaced: it serves until its replacement is ready.
    Replace(Reason),
    /// It is of no more use: it stops, and another starts at once.
    Stop(Reason),
}

/// The memory of a process' timers.
#[derive(Debug, Default)]
pub struct Watch {
    /// Requests that were interrupted, and when.
    interrupted: BTreeMap<u64, u64>,
    /// When something is due next, as far as the last look could tell.
    next: Option<u64>,
}

impl Watch {
    /// What is due, and notes when something will be.
    pub fn judge(&mut self, sight: &Sight, limits: &Limits, threads: u32) -> Vec<Verdict> {
        if !self.interrupted.is_empty() {
            let running: BTreeSet<u64> = sight.running.iter().map(|running| running.id).collect();
            self.interrupted.retain(|id, _| running.contains(id));
        }
        self.next = None;
        let mut verdicts = Vec::new();
        if self.is_past(sight, sight.beat, limits.deadlock) {
            verdicts.push(Verdict::Stop(Reason::DeadlockTimeout));
        }
        if self.is_past(sight, sight.loading, limits.startup) {
            verdicts.push(Verdict::Stop(Reason::StartupTimeout));
        }
        self.judge_requests(sight, limits, threads, &mut verdicts);
        if self.is_past(sight, sight.ready, limits.age) {
            verdicts.push(Verdict::Replace(Reason::RestartInterval));
        }
        if !is_busy(sight, limits, threads) && self.is_past(sight, sight.active, limits.inactivity)
        {
            verdicts.push(Verdict::Replace(Reason::InactivityTimeout));
        }
        verdicts
    }

    /// How many µs after the sight it was judged by something is due.
    pub const fn next(&self) -> Option<u64> {
        self.next
    }

    /// The requests that have taken too long.
    fn judge_requests(
        &mut self,
        sight: &Sight,
        limits: &Limits,
        threads: u32,
        verdicts: &mut Vec<Verdict>,
    ) {
        let Some(limit) = limits.request.map(|limit| request_limit(limit, threads)) else { return };
        let mut is_stuck = false;
        for running in &sight.running {
            let interrupted = self.interrupted.get(&running.id).copied();
            match (interrupted, limits.interrupt) {
                (Some(at), grace) => is_stuck |= self.is_past(sight, Some(at), grace),
                (None, grace) if self.is_past(sight, Some(running.since), Some(limit)) => {
                    if grace.is_some() {
                        self.interrupted.insert(running.id, sight.now);
                        self.is_past(sight, Some(sight.now), grace);
                        verdicts.push(Verdict::Interrupt(running.id));
                    } else {
                        is_stuck = true;
                    }
                }
                (None, _) => {}
            }
        }
        if is_stuck {
            verdicts.push(Verdict::Replace(Reason::RequestTimeout));
        }
    }

    /// Whether `limit` has passed since `since`; if not, notes when it will have.
    fn is_past(&mut self, sight: &Sight, since: Option<u64>, limit: Option<Duration>) -> bool {
        let (Some(since), Some(limit)) = (since, limit) else { return false };
        let left = micros(limit).saturating_sub(sight.now.saturating_sub(since));
        if left > 0 {
            self.next = Some(self.next.map_or(left, |next| next.min(left)));
        }
        left == 0
    }
}

/// How long a request may take: with more threads one stuck request hurts less
/// (`spec`: request-timeout × (1 + ln threads)).
pub fn request_limit(limit: Duration, threads: u32) -> Duration {
    limit.mul_f64(1.0 + f64::from(threads.max(1)).ln())
}

/// Whether a request runs that is worth waiting for: one that has taken all the time
/// it may, and that of an interrupted one on top, is not.
pub fn is_busy(sight: &Sight, limits: &Limits, threads: u32) -> bool {
    let patience = limits
        .request
        .map(|limit| request_limit(limit, threads) + limits.interrupt.unwrap_or_default())
        .map_or(u64::MAX, micros);
    sight.running.iter().any(|running| sight.now.saturating_sub(running.since) <= patience)
}

/// A time in µs.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn seconds(count: u64) -> Option<Duration> {
        Some(Duration::from_secs(count))
    }

    fn at(seconds: u64) -> Sight {
        Sight { now: seconds * SECOND, ..Sight::default() }
    }

    fn running(id: u64, since: u64) -> Vec<Running> {
        vec![Running { id, since: since * SECOND }]
    }

    #[test]
    fn without_limits_nothing_is_due() {
        let sight = Sight {
            ready: Some(0),
            beat: Some(0),
            active: Some(0),
            loading: Some(0),
            running: running(1, 0),
            ..at(1_000_000)
        };
        let mut watch = Watch::default();
        assert!(watch.judge(&sight, &Limits::default(), 1).is_empty());
        assert_eq!(watch.next(), None);
    }

    #[test]
    fn a_request_has_more_time_with_more_threads() {
        let times = [1, 5, 15].map(|threads| request_limit(Duration::from_secs(10), threads));
        assert_eq!(times.map(|time| time.as_secs()), [10, 26, 37]);
    }

    #[test]
    fn a_stuck_request_replaces_its_process_when_its_time_is_up() {
        let limits = Limits { request: seconds(10), ..Limits::default() };
        let mut watch = Watch::default();
        let early = Sight { running: running(7, 91), ..at(100) };
        assert!(watch.judge(&early, &limits, 1).is_empty());
        assert_eq!(watch.next(), Some(SECOND));
        let late = Sight { running: running(7, 91), ..at(101) };
        let verdicts = watch.judge(&late, &limits, 1);
        assert_eq!(verdicts, [Verdict::Replace(Reason::RequestTimeout)]);
        assert!(watch.judge(&late, &limits, 5).is_empty(), "five threads: 26 s");
    }

    #[test]
    fn a_request_is_interrupted_once_and_its_process_replaced_if_that_does_not_help() {
        let limits = Limits { request: seconds(1), interrupt: seconds(2), ..Limits::default() };
        let mut watch = Watch::default();
        let mut look = |now| watch.judge(&Sight { running: running(7, 0), ..at(now) }, &limits, 1);
        assert_eq!(look(1), [Verdict::Interrupt(7)]);
        assert_eq!(look(2), []);
        assert_eq!(look(3), [Verdict::Replace(Reason::RequestTimeout)]);
    }

    #[test]
    fn a_later_request_is_not_taken_for_the_interrupted_one() {
        let limits = Limits { request: seconds(1), interrupt: seconds(2), ..Limits::default() };
        let mut watch = Watch::default();
        watch.judge(&Sight { running: running(7, 0), ..at(1) }, &limits, 1);
        assert!(watch.judge(&at(2), &limits, 1).is_empty());
        let verdicts = watch.judge(&Sight { running: running(7, 3), ..at(4) }, &limits, 1);
        assert_eq!(verdicts, [Verdict::Interrupt(7)]);
    }

    #[test]
    fn a_lock_that_is_never_to_be_had_stops_the_process() {
        let limits = Limits { deadlock: seconds(5), ..Limits::default() };
        let mut watch = Watch::default();
        assert!(watch.judge(&at(100), &limits, 1).is_empty(), "no heartbeat yet");
        let late = Sight { beat: Some(95 * SECOND), ..at(100) };
        assert_eq!(watch.judge(&late, &limits, 1), [Verdict::Stop(Reason::DeadlockTimeout)]);
    }

    #[test]
    fn a_process_that_does_nothing_is_replaced_unless_a_request_runs() {
        let limits = Limits { inactivity: seconds(5), ..Limits::default() };
        let mut watch = Watch::default();
        assert!(watch.judge(&at(100), &limits, 1).is_empty(), "never used");
        let idle = Sight { active: Some(95 * SECOND), ..at(100) };
        let busy = Sight { running: running(7, 10), ..idle.clone() };
        assert!(watch.judge(&busy, &limits, 1).is_empty());
        let replace = [Verdict::Replace(Reason::InactivityTimeout)];
        assert_eq!(watch.judge(&idle, &limits, 1), replace);
        let limits = Limits { request: seconds(10), ..limits };
        let hung = watch.judge(&busy, &limits, 1);
        assert!(hung.contains(&replace[0]), "a hung request is no activity: {hung:?}");
        assert!(is_busy(&busy, &limits, 50_000), "with more threads it may take longer");
    }

    #[test]
    fn a_request_is_waited_for_as_long_as_it_may_take() {
        let limits = Limits { request: seconds(10), interrupt: seconds(2), ..Limits::default() };
        let aged = |age: u64| Sight { running: running(7, 100 - age), ..at(100) };
        assert!(is_busy(&aged(12), &limits, 1));
        assert!(!is_busy(&aged(13), &limits, 1));
        assert!(is_busy(&aged(28), &limits, 5));
        assert!(!is_busy(&aged(29), &limits, 5));
    }

    #[test]
    fn a_process_grows_no_older_than_its_restart_interval() {
        let limits = Limits { age: seconds(5), ..Limits::default() };
        let mut watch = Watch::default();
        assert!(watch.judge(&at(100), &limits, 1).is_empty(), "not ready");
        let old = Sight { ready: Some(95 * SECOND), ..at(100) };
        let replace = [Verdict::Replace(Reason::RestartInterval)];
        assert_eq!(watch.judge(&old, &limits, 1), replace);
    }

    #[test]
    fn a_clock_that_seems_to_run_backwards_is_no_reason() {
        let limits = Limits { deadlock: seconds(5), request: seconds(1), ..Limits::default() };
        let sight = Sight { beat: Some(u64::MAX), running: running(1, 1_000), ..at(100) };
        assert!(Watch::default().judge(&sight, &limits, 1).is_empty());
    }
}
