//! What httpd's parent holds between restarts, while this module is not loaded: numbers of
//! descriptors and processes, as bytes.
//!
//! The module that reads them may be another build than the one that wrote them.  What any
//! build must understand comes first, and never changes; a build understands the rest only
//! if it wrote that itself.
#![forbid(unsafe_code)]

use super::files::Raised;
use super::legacy;
use super::plan::GroupPlan;
use super::sys::{self, Kept};
use crate::scoreboard::snapshot;
use crate::scoreboard::{Scoreboard, Shape, slots_of};
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use std::io;

/// What tells one build of this module from another: a supervisor of another
/// build is not sent what it might misread, nor its scoreboards used.
const BUILD: &str = env!("WSGI_BUILD_ID");

/// Says that a [`Legible`] follows; another one says that something else does.
const FORMAT: [u8; 4] = *b"WSG2";

/// What the parent holds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Retained {
    /// Whom configurations are sent to.
    pub(super) supervisor: Option<RetainedSupervisor>,
    /// Takes the place of the supervisor if that dies: it was forked as early.
    pub(super) spare: Option<RetainedSupervisor>,
    /// Reading and writing end.
    pub(super) lifeline: Option<(Kept, Kept)>,
    /// What the supervisor leaves its successor.
    pub(super) legacy: Option<Kept>,
    /// The groups of the last configuration.
    pub(super) groups: Vec<RetainedGroup>,
    /// The limit on open files.
    pub(super) files: Raised,
    /// Where child processes copy httpd's scoreboard to: a descriptor to write it, and
    /// one that cannot.
    pub(super) snapshot: Option<(Kept, Kept)>,
}

/// What every build can read: fields and their order stay as they are.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Legible {
    /// Which build wrote it.
    build: String,
    /// What another build has no use for.  Its supervisor sees its control socket close,
    /// drains its processes and leaves.
    descriptors: Vec<Kept>,
    /// The pipe serves any build.
    lifeline: Option<(Kept, Kept)>,
    /// The soft limit on open files before it was raised, and after.
    files: (u64, u64),
}

impl Retained {
    /// What an earlier load of this module kept; of what another build kept, as much as
    /// serves any.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let Some((legible, rest)) = Legible::decode(bytes) else { return Self::default() };
        if legible.build == BUILD
            && let Ok(own) = postcard::from_bytes(rest)
        {
            return own;
        }
        legible.descriptors.into_iter().for_each(Kept::close);
        let files = legible.files.into();
        Self { lifeline: legible.lifeline, files, ..Self::default() }
    }

    /// The form in which it is kept.
    pub(super) fn encode(&self) -> Vec<u8> {
        let legible = Legible {
            build: BUILD.to_owned(),
            descriptors: self.all_descriptors(),
            lifeline: self.lifeline,
            files: self.files.into(),
        };
        legible.encode(postcard::to_allocvec(self).unwrap_or_default())
    }

    /// Goes on with the groups of these plans, and writes into each which scoreboard it
    /// has; what was of other groups is given up.
    pub(super) fn change_groups<'p>(
        &mut self,
        plans: impl Iterator<Item = &'p mut GroupPlan>,
    ) -> io::Result<()> {
        let mut old = std::mem::take(&mut self.groups);
        let last_board = old.iter().map(|group| group.board).max().unwrap_or(0);
        let boards = last_board.max(sys::now_micros()) + 1..;
        for (next_board, plan) in boards.zip(plans) {
            let known = old.iter().position(|group| group.serves(plan));
            let mut group = match known {
                Some(index) => old.swap_remove(index),
                None => RetainedGroup::create(plan, next_board)?,
            };
            group.add_inboxes(plan.processes)?;
            (plan.board, plan.shape) = (group.board, group.shape);
            self.groups.push(group);
        }
        old.into_iter().for_each(RetainedGroup::close);
        Ok(())
    }

    /// Opens what every configuration needs and the last one has not left, and what is
    /// needed to show httpd's scoreboard, if it `is_shown`.
    pub(super) fn open_missing(&mut self, is_shown: bool) -> io::Result<()> {
        let pair = |(one, other)| Ok::<_, io::Error>((Kept::new(one)?, Kept::new(other)?));
        if self.lifeline.is_none() {
            self.lifeline = Some(pair(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)?);
        }
        if self.legacy.is_none() {
            self.legacy = Some(Kept::new(legacy::create()?)?);
        }
        if self.snapshot.is_none() && is_shown {
            self.snapshot = Some(pair(snapshot::create()?)?);
        }
        Ok(())
    }

    /// The supervisor and the spare one, as far as there are such.
    pub(super) fn supervisors(&self) -> impl Iterator<Item = &RetainedSupervisor> {
        self.supervisor.iter().chain(&self.spare)
    }

    /// How many descriptors the groups hold.
    pub(super) fn descriptors(&self) -> u64 {
        self.groups.iter().map(|group| 1 + 2 * group.inboxes.len() as u64).sum()
    }

    /// Everything that is of no use to another build.
    fn all_descriptors(&self) -> Vec<Kept> {
        let pairs = self.groups.iter().flat_map(|group| &group.inboxes).chain(&self.snapshot);
        let memories = self.groups.iter().map(|group| group.memory);
        let controls = self.supervisors().map(|supervisor| supervisor.control);
        let pairs = pairs.flat_map(|(one, other)| [*one, *other]);
        pairs.chain(memories).chain(controls).chain(self.legacy).collect()
    }
}

impl Legible {
    /// What stands before the rest, if that can be told.
    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        postcard::take_from_bytes(bytes.strip_prefix(&FORMAT)?).ok()
    }

    /// Puts it before the rest.
    fn encode(&self, rest: Vec<u8>) -> Vec<u8> {
        let own = postcard::to_allocvec(self).unwrap_or_default();
        [&FORMAT[..], &own, &rest].concat()
    }
}

/// A supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RetainedSupervisor {
    pub(super) pid: i32,
    pub(super) control: Kept,
}

/// A process group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RetainedGroup {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) board: u64,
    pub(super) shape: (u32, u32),
    pub(super) memory: Kept,
    /// Sending and receiving end of each slot's inbox.
    pub(super) inboxes: Vec<(Kept, Kept)>,
}

impl RetainedGroup {
    /// How large its scoreboard is.
    pub(super) fn shape(&self) -> Shape {
        Shape { slots: self.shape.0, tickets: self.shape.1 }
    }

    /// A group nobody has seen before.
    pub(super) fn create(plan: &GroupPlan, board: u64) -> io::Result<Self> {
        let shape = Shape::for_group(plan.processes, plan.threads);
        let memory = Kept::new(Scoreboard::create(shape)?)?;
        Ok(Self {
            name: plan.name.clone(),
            uid: plan.identity.uid,
            board,
            shape: (shape.slots, shape.tickets),
            memory,
            inboxes: Vec::new(),
        })
    }

    /// Whether this configuration's group can go on where the last one's was.
    pub(super) fn serves(&self, plan: &GroupPlan) -> bool {
        // What one user may write, another's processes must not trust.
        self.name == plan.name
            && self.uid == plan.identity.uid
            && self.shape().holds(plan.processes, plan.threads)
    }

    /// One for each slot: a replacement starts beside its predecessor.
    pub(super) fn add_inboxes(&mut self, processes: u32) -> io::Result<()> {
        while self.inboxes.len() < slots_of(processes) as usize {
            let (send, receive) = sys::message_pair()?;
            self.inboxes.push((Kept::new(send)?, Kept::new(receive)?));
        }
        Ok(())
    }

    /// Gives up its scoreboard and its inboxes.
    pub(super) fn close(self) {
        self.memory.close();
        for (send, receive) in self.inboxes {
            send.close();
            receive.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// One that nobody ever opened, of these numbers.
    fn named(number: i32) -> Kept {
        let bytes = postcard::to_allocvec(&(number, (300_u64, 9_u64))).unwrap();
        postcard::from_bytes(&bytes).unwrap()
    }

    fn pair(one: i32, other: i32) -> (Kept, Kept) {
        (named(one), named(other))
    }

    fn supervisor(control: Kept) -> RetainedSupervisor {
        RetainedSupervisor { pid: 7, control }
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let files = Raised::from((1024, 4096));
        let kept = Retained {
            lifeline: Some(pair(3, 4)),
            legacy: Some(named(5)),
            files,
            ..Retained::default()
        };
        let found = Retained::decode(&kept.encode());
        assert_eq!((found.lifeline, found.legacy), (Some(pair(3, 4)), Some(named(5))));
        assert_eq!(found.files, files);
    }

    #[test]
    fn of_another_build_only_what_serves_any_is_used() {
        let (here, there) = sys::message_pair().unwrap();
        let legible = Legible {
            build: "another".into(),
            descriptors: vec![Kept::new(here).unwrap()],
            lifeline: Some(pair(3, 4)),
            files: (1024, 4096),
        };
        // A layout nobody here knows.
        let found = Retained::decode(&legible.encode(vec![0xff; 99]));
        assert!(sys::is_hung_up(there.as_fd()), "its supervisor is not let go");
        assert!(found.supervisor.is_none() && found.groups.is_empty());
        assert_eq!((found.lifeline, found.files), (Some(pair(3, 4)), Raised::from((1024, 4096))));
    }

    #[test]
    fn another_build_closes_all_but_the_pipe() {
        let group = RetainedGroup {
            name: "one".into(),
            uid: 0,
            board: 1,
            shape: (1, 1),
            memory: named(10),
            inboxes: vec![pair(11, 12), pair(13, 14)],
        };
        let mine = Retained {
            supervisor: Some(supervisor(named(15))),
            spare: Some(supervisor(named(16))),
            lifeline: Some(pair(3, 4)),
            legacy: Some(named(17)),
            groups: vec![group],
            files: Raised::default(),
            snapshot: Some(pair(18, 19)),
        };
        let bytes = mine.encode();
        let (legible, _) = Legible::decode(&bytes).unwrap();
        assert_eq!(legible.descriptors.len(), 10);
        let is_there = |number| legible.descriptors.contains(&named(number));
        assert!((10..=19).all(is_there), "{legible:?}");
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let legible = Legible { build: BUILD.into(), ..Legible::default() };
        let bytes = legible.encode(postcard::to_allocvec(&Retained::default()).unwrap());
        for length in 0..bytes.len() {
            let found = Retained::decode(&bytes[..length]);
            assert!(found.groups.is_empty() && found.lifeline.is_none());
        }
        assert!(Retained::decode(b"WSG3 and something else").lifeline.is_none());
    }

    #[test]
    fn the_part_for_every_build_stays_as_it_is() {
        let legible = Legible {
            build: "b".into(),
            descriptors: vec![named(1), named(-1)],
            lifeline: Some(pair(3, 4)),
            files: (1, 300),
        };
        let bytes = [
            &b"WSG2"[..],
            &[1, b'b', 2, 2, 0xac, 2, 9, 1, 0xac, 2, 9],
            &[1, 6, 0xac, 2, 9, 8, 0xac, 2, 9, 1, 0xac, 2],
        ]
        .concat();
        assert_eq!(legible.encode(Vec::new()), bytes);
    }
}
