//! The parent's side: scoreboards and inboxes that outlive restarts, and the
//! supervisor, told about each configuration.
#![forbid(unsafe_code)]

use super::control::{self, ToSupervisor};
use super::files::{self, Need};
use super::plan::{GroupPlan, Plan};
use super::retained::{Retained, RetainedGroup, RetainedSupervisor};
use super::secrets::{self, Variables};
use super::supervisor::{self, Orders, Role};
use super::sys::{self, Fork, Kept, MOST_FDS};
use crate::scoreboard::Scoreboard;
use crate::scoreboard::snapshot::Publisher;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long the parent waits for a supervisor that does not read.
const PATIENCE: Duration = Duration::from_secs(5);

/// A group of the configuration, as httpd's side hands it over: `board`, `shape`
/// and `open_files` of the plan are filled in here.
pub struct Wanted<'l> {
    /// What the supervisor is told.
    pub plan: GroupPlan,
    /// Variables for the environment; they replace those of `env-file=`.
    pub environment: Variables,
    /// The error log of the server it was defined in.
    pub log: Option<BorrowedFd<'l>>,
}

/// How a child process reaches one group.
#[derive(Debug)]
pub struct Entrance {
    /// The group.
    pub name: String,
    /// Its scoreboard.
    pub board: Scoreboard,
    /// The sending end of each slot's inbox.
    pub inboxes: Vec<Kept>,
}

/// The parent's hold on daemon mode, for one configuration.
#[derive(Debug)]
pub struct Parent {
    retained: Retained,
    /// Whether httpd is starting: other modules have read no secrets yet.
    is_early: bool,
    /// Groups that have fewer processes than they are to have, and how many these are.
    fewer: Vec<(String, u32)>,
    plan: Plan,
    /// Copies of the groups' error logs.
    logs: Vec<Option<OwnedFd>>,
    /// The variables of the groups' environments.
    environments: Vec<Option<OwnedFd>>,
    /// Copy of the main error log.
    main_log: Option<OwnedFd>,
}

impl Parent {
    /// Prepares the groups of a configuration: those that were there before keep
    /// scoreboard and inboxes.  `retained` is what [`retained`](Self::retained)
    /// gave the last time, or empty.
    pub fn prepare(
        retained: &[u8],
        mut wanted: Vec<Wanted<'_>>,
        main_log: Option<BorrowedFd<'_>>,
        log_level: u32,
    ) -> io::Result<Self> {
        let is_early = retained.is_empty();
        let mut retained = Retained::decode(retained);
        let ours = retained.descriptors();
        // A server that runs is not to end for a configuration that has grown.
        let fewer = if is_early { Vec::new() } else { lower(&mut wanted, ours) };
        let need = Need::of(wanted.iter().map(|group| group.plan.processes));
        retained.files = need.make_room(ours, retained.files).map_err(io::Error::other)?;
        retained.change_groups(wanted.iter_mut().map(|group| &mut group.plan))?;
        retained.open_missing(wanted.iter().any(|group| group.plan.server_metrics))?;
        let mut plan = Plan { log_level, ..Plan::default() };
        let (mut logs, mut environments) = (Vec::new(), Vec::new());
        for group in wanted {
            plan.groups.push(group.plan);
            environments.push(secrets::seal(&group.environment)?);
            logs.push(group.log.and_then(|log| log.try_clone_to_owned().ok()));
        }
        retained.files.tell(&mut plan);
        let main_log = main_log.and_then(|log| log.try_clone_to_owned().ok());
        Ok(Self { retained, is_early, fewer, plan, logs, environments, main_log })
    }

    /// What is to be kept until the next configuration.
    pub fn retained(&self) -> Vec<u8> {
        self.retained.encode()
    }

    /// How child processes reach the groups.
    pub fn entrances(&self) -> io::Result<Vec<Entrance>> {
        self.retained
            .groups
            .iter()
            .map(|group| {
                Ok(Entrance {
                    name: group.name.clone(),
                    board: Scoreboard::open(group.memory.find()?, group.shape())?,
                    inboxes: group.inboxes.iter().map(|(send, _)| *send).collect(),
                })
            })
            .collect()
    }

    /// In a child process: what it copies httpd's scoreboard with, if any group may
    /// see that.
    pub fn publisher(&self) -> io::Result<Option<Publisher>> {
        let is_wanted = self.plan.groups.iter().any(|group| group.server_metrics);
        let memory = self.retained.snapshot.filter(|_| is_wanted);
        let open =
            |(writing, _): (Kept, Kept)| Publisher::open(writing.find()?, std::process::id());
        memory.map(open).transpose()
    }

    /// In a child process: closes what only the parent needs.  The sending ends
    /// of inboxes and of the lifeline stay.
    pub fn in_child(&mut self) {
        self.environments.clear();
        for group in &self.retained.groups {
            group.memory.close();
            for (_, receive) in &group.inboxes {
                receive.close();
            }
        }
        for supervisor in self.retained.supervisors() {
            supervisor.control.close();
        }
        if let Some((read, _)) = self.retained.lifeline {
            read.close();
        }
        if let Some(legacy) = self.retained.legacy {
            legacy.close();
        }
        if let Some((writing, reading)) = self.retained.snapshot {
            writing.close();
            reading.close();
        }
    }

    /// The groups for whose processes the hard limit on open files is too low, and how
    /// many they have.
    pub fn fewer(&self) -> &[(String, u32)] {
        &self.fewer
    }

    /// The processes that are the parent's to wait for.
    pub fn processes(&self) -> Vec<i32> {
        self.retained.supervisors().map(|supervisor| supervisor.pid).collect()
    }

    /// Tells the supervisor the configuration, starting one if there is none;
    /// without groups none is started.
    pub fn announce(&mut self) -> io::Result<()> {
        if self.retained.supervisor.is_none() && self.plan.groups.is_empty() {
            return Ok(());
        }
        while self.has_supervisor() {
            match self.send_plan() {
                Ok(()) => return Ok(()),
                // Dead or stuck: closing its control socket ends it.
                Err(_) => self.lose_supervisor(),
            }
        }
        self.retained.supervisor = Some(self.start_supervisor(Role::Active)?);
        self.send_plan()?;
        // Afterwards: the first processes are on their way.
        if self.is_early {
            // One that is started later does without.
            self.retained.spare = self.start_supervisor(Role::Spare).ok();
        }
        Ok(())
    }

    /// Whether there is a supervisor, which may have been the spare one.
    fn has_supervisor(&mut self) -> bool {
        if self.retained.supervisor.is_none() {
            self.retained.supervisor = self.retained.spare.take();
        }
        self.retained.supervisor.is_some()
    }

    /// Tells the supervisor that the configuration has ended: a parent that leaves
    /// without that was killed.
    pub fn bid_farewell(&self) {
        if let Some(supervisor) = &self.retained.supervisor {
            // A supervisor that does not read finds out by itself.
            let _ = supervisor
                .control
                .find()
                .and_then(|control| control::try_send(control, &ToSupervisor::Farewell, &[]));
        }
    }

    /// The supervisor is gone: the next [`announce`](Self::announce) starts another.
    pub fn lose_supervisor(&mut self) {
        if let Some(supervisor) = self.retained.supervisor.take() {
            supervisor.control.close();
        }
    }

    /// Forgets the spare supervisor if `pid` is that; whether it was.
    pub fn lose_spare(&mut self, pid: u32) -> bool {
        let is_spare = self.retained.spare.as_ref().is_some_and(|it| it.pid as u32 == pid);
        if is_spare && let Some(spare) = self.retained.spare.take() {
            spare.control.close();
        }
        is_spare
    }

    fn start_supervisor(&mut self, role: Role) -> io::Result<RetainedSupervisor> {
        let (ours, theirs) = sys::message_pair()?;
        sys::set_timeout(&ours, PATIENCE)?;
        let parent = sys::pidfd(Pid::this())?;
        let Some((lifeline, _)) = self.retained.lifeline else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let lifeline = lifeline.find()?.try_clone_to_owned()?;
        // The parent's view of the scoreboards goes too: the supervisor maps each from
        // its descriptor, and no daemon process is to inherit another group's.
        match sys::fork_apart(None)? {
            Fork::Parent(pid) => {
                Ok(RetainedSupervisor { pid: pid.as_raw(), control: Kept::new(ours)? })
            }
            Fork::Child => {
                let forgotten = secrets::forget(self.environments.iter().flatten());
                files::allow_most();
                supervisor::run(Orders {
                    control: theirs,
                    lifeline,
                    parent,
                    role,
                    // A spare one would keep a log open that was rotated long ago.
                    log: self.main_log.take().filter(|_| role == Role::Active),
                    log_level: self.plan.log_level,
                    forgotten,
                })
            }
        }
    }

    fn send_plan(&self) -> io::Result<()> {
        let Some(supervisor) = &self.retained.supervisor else { return Ok(()) };
        let control = supervisor.control.find()?;
        let memory = memfd_create("wsgi-plan", MFdFlags::MFD_CLOEXEC)?;
        let bytes = postcard::to_allocvec(&self.plan).map_err(io::Error::other)?;
        let mut file = std::fs::File::from(memory);
        file.write_all(&bytes)?;
        let legacy = self.retained.legacy.ok_or(io::ErrorKind::NotFound)?;
        let log = self.main_log.iter().map(AsFd::as_fd);
        let fds: Vec<BorrowedFd<'_>> =
            [file.as_fd(), legacy.find()?].into_iter().chain(log).collect();
        control::send(control, &ToSupervisor::Begin, &fds)?;
        for (index, group) in self.retained.groups.iter().enumerate() {
            self.send_group(control, index as u32, group)?;
        }
        control::send(control, &ToSupervisor::Commit, &[])
    }

    fn send_group(
        &self,
        control: BorrowedFd<'_>,
        index: u32,
        group: &RetainedGroup,
    ) -> io::Result<()> {
        let log = self.logs.get(index as usize).and_then(Option::as_ref);
        let mut fds: Vec<BorrowedFd<'_>> = log.iter().map(|log| log.as_fd()).collect();
        fds.push(group.memory.find()?);
        let may_see =
            self.plan.groups.get(index as usize).is_some_and(|group| group.server_metrics);
        let snapshot = self.retained.snapshot.as_ref().filter(|_| may_see);
        if let Some((_, reading)) = snapshot {
            fds.push(reading.find()?);
        }
        let environment = self.environments.get(index as usize).and_then(Option::as_ref);
        fds.extend(environment.iter().map(|it| it.as_fd()));
        let message = ToSupervisor::Group {
            index,
            log: log.is_some(),
            board: true,
            snapshot: snapshot.is_some(),
            environment: environment.is_some(),
            first_inbox: 0,
        };
        control::send(control, &message, &fds)?;
        for (number, part) in group.inboxes.chunks(MOST_FDS).enumerate() {
            let first_inbox = (number * MOST_FDS) as u32;
            let fds: Vec<BorrowedFd<'_>> =
                part.iter().map(|(_, receive)| receive.find()).collect::<io::Result<_>>()?;
            let message = ToSupervisor::Group {
                index,
                log: false,
                board: false,
                snapshot: false,
                environment: false,
                first_inbox,
            };
            control::send(control, &message, &fds)?;
        }
        Ok(())
    }
}

/// Lowers the numbers of processes until the hard limit on open files is enough for
/// them; the groups this was done to.
fn lower(wanted: &mut [Wanted<'_>], ours: u64) -> Vec<(String, u32)> {
    let mut processes: Vec<u32> = wanted.iter().map(|group| group.plan.processes).collect();
    files::fit(&mut processes, ours);
    let mut fewer = Vec::new();
    for (Wanted { plan, .. }, count) in wanted.iter_mut().zip(processes) {
        if count < plan.processes {
            plan.processes = count;
            fewer.push((plan.name.clone(), count));
        }
    }
    fewer
}
