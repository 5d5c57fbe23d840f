//! A process group: everything one `WSGIDaemonProcess` says.
#![forbid(unsafe_code)]

use super::identity::{Group, User};
use super::python::{Python, PythonError, choose};
use super::python_search::System;
use super::{Location, ServerConfig};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything one `WSGIDaemonProcess` says.
///
/// Fields are what was written, `None` where nothing was; the methods of the
/// same name give what is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessGroup {
    /// The name requests choose it by.
    pub name: Vec<u8>,
    /// Where it is defined.
    pub at: Location,
    /// The server it is defined in.
    pub declared_in: DeclaringServer,
    /// `processes=`; see [`Self::is_multiprocess`].
    pub processes: Option<u32>,
    /// `threads=`.
    pub threads: Option<u32>,
    /// `user=`; `None` is Apache's `User`.
    pub user: Option<User>,
    /// `group=`; `None` is Apache's `Group`.
    pub group: Option<Group>,
    /// `supplementary-groups=`; `None` is what `initgroups` finds.
    pub supplementary_groups: Option<Vec<Group>>,
    /// `umask=`.
    pub umask: Option<u32>,
    /// `chroot=`.
    pub chroot: Option<PathBuf>,
    /// `home=`.
    pub home: Option<PathBuf>,
    /// `lang=`.
    pub lang: Option<Vec<u8>>,
    /// `locale=`.
    pub locale: Option<Vec<u8>>,
    /// `display-name=`; see [`Self::title`].
    pub display_name: Option<Vec<u8>>,
    /// `python-home=`.
    pub python_home: Option<PathBuf>,
    /// `python=`.
    pub python: Option<PythonChoice>,
    /// `python-path=`.
    pub python_path: Option<Vec<u8>>,
    /// `python-eggs=`.
    pub python_eggs: Option<PathBuf>,
    /// `graceful=`.
    pub graceful: Option<OnGraceful>,
    /// `reload=`.
    pub reload: Option<OnReload>,
    /// `env=`, in the order written.
    pub env: Vec<Variable>,
    /// `env-file=`: read by root whenever a process starts, so that what it
    /// holds is neither in httpd's memory nor older than the process.
    pub env_file: Option<PathBuf>,
    /// `clear-env=`.
    pub clear_env: Option<bool>,
    /// The numbers.
    pub limits: Limits,
    /// The times.
    pub timeouts: Timeouts,
    /// `stdout-level=`, httpd's number.
    pub stdout_level: Option<u32>,
    /// `stderr-level=`, httpd's number.
    pub stderr_level: Option<u32>,
    /// `server-metrics=`.
    pub server_metrics: Option<bool>,
    /// `socket-user=`: stored only, there is no socket to own.
    pub socket_user: Option<User>,
    /// `script-user=`.
    pub script_user: Option<User>,
    /// `script-group=`.
    pub script_group: Option<Group>,
}

/// A variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name; never empty, without `=`.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// The server a group is defined in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeclaringServer {
    /// Its `ServerName`.
    pub name: Option<Vec<u8>>,
    /// Whether it is a virtual host; a group of the main server is for all.
    pub is_virtual: bool,
}

/// What `python=` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PythonChoice {
    /// An interpreter binary.
    Binary(PathBuf),
    /// A version, such as 3.12, or 3.14t.
    Version {
        /// The 3.
        major: u8,
        /// The 12.
        minor: u8,
        /// Whether it is the build that can do without its lock.
        free_threaded: bool,
    },
}

/// What a restart of httpd does to a group whose definition is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnGraceful {
    /// Its processes are replaced: people deploy code this way.
    #[default]
    Restart,
    /// They stay.
    Keep,
}

/// What a changed script does to the processes of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnReload {
    /// No request that comes later is served by the old code: it waits for the
    /// replacement.
    #[default]
    Immediate,
    /// The old code serves until its replacement is ready.
    Rolling,
}

/// The numbers of a group that are not times; 0 is "off" or "as the system has it".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// `listen-backlog=`: how many requests may wait.
    pub listen_backlog: Option<u32>,
    /// `maximum-requests=`.
    pub maximum_requests: Option<u32>,
    /// `stack-size=`, bytes.
    pub stack_size: Option<u64>,
    /// `cpu-priority=`, a nice value.
    pub cpu_priority: Option<i32>,
    /// `memory-limit=`, bytes.
    pub memory_limit: Option<u64>,
    /// `max-rss=`, bytes.
    pub max_rss: Option<u64>,
    /// `virtual-memory-limit=`, bytes.
    pub virtual_memory_limit: Option<u64>,
    /// `send-buffer-size=`, bytes.
    pub send_buffer_size: Option<u64>,
    /// `receive-buffer-size=`, bytes.
    pub receive_buffer_size: Option<u64>,
    /// `header-buffer-size=`, bytes.
    pub header_buffer_size: Option<u64>,
    /// `response-buffer-size=`, bytes.
    pub response_buffer_size: Option<u64>,
    /// `switch-interval=`.
    pub switch_interval: Option<Duration>,
}

/// The times of a group; zero is "off".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// `startup-timeout=`.
    pub startup: Option<Duration>,
    /// `shutdown-timeout=`.
    pub shutdown: Option<Duration>,
    /// `deadlock-timeout=`.
    pub deadlock: Option<Duration>,
    /// `inactivity-timeout=`.
    pub inactivity: Option<Duration>,
    /// `request-timeout=`.
    pub request: Option<Duration>,
    /// `interrupt-timeout=`.
    pub interrupt: Option<Duration>,
    /// `graceful-timeout=`.
    pub graceful: Option<Duration>,
    /// `eviction-timeout=`.
    pub eviction: Option<Duration>,
    /// `restart-interval=`.
    pub restart_interval: Option<Duration>,
    /// `connect-timeout=`.
    pub connect: Option<Duration>,
    /// `socket-timeout=`.
    pub socket: Option<Duration>,
    /// `queue-timeout=`.
    pub queue: Option<Duration>,
    /// `response-socket-timeout=`.
    pub response_socket: Option<Duration>,
    /// `response-flush-delay=`.
    pub response_flush_delay: Option<Duration>,
    /// `cpu-time-limit=`.
    pub cpu_time: Option<Duration>,
}

/// `time`, or `default` where nothing was written; `None` is "off".
fn in_force(time: Option<Duration>, default: Duration) -> Option<Duration> {
    Some(time.unwrap_or(default)).filter(|time| !time.is_zero())
}

impl Timeouts {
    /// How long a stopping process may take before it is killed.
    pub fn shutdown(&self) -> Option<Duration> {
        in_force(self.shutdown, Duration::from_secs(5))
    }

    /// How long the requests of a process that is to be replaced may take.
    pub fn graceful(&self) -> Option<Duration> {
        in_force(self.graceful, Duration::from_secs(15))
    }

    /// How long a child process tries to reach a daemon process.
    pub fn connect(&self) -> Option<Duration> {
        in_force(self.connect, Duration::from_secs(15))
    }

    /// How long the socket between the two may be silent; `None` is httpd's `Timeout`.
    pub fn socket(&self) -> Option<Duration> {
        in_force(self.socket, Duration::ZERO)
    }

    /// How long a request may wait for a thread.
    pub fn queue(&self) -> Option<Duration> {
        in_force(self.queue, Duration::ZERO)
    }

    /// How long a write to the client may take; `None` leaves httpd's.
    pub fn response_socket(&self) -> Option<Duration> {
        in_force(self.response_socket, Duration::ZERO).or_else(|| self.socket())
    }

    /// How long to wait for more of an answer before what is there is flushed.
    pub fn response_flush_delay(&self) -> Duration {
        self.response_flush_delay.unwrap_or(Duration::from_millis(5))
    }

    /// How much processor time a process may use.
    pub fn cpu_time(&self) -> Option<Duration> {
        in_force(self.cpu_time, Duration::ZERO)
    }

    /// How long the first load of a script may take.
    pub fn startup(&self) -> Option<Duration> {
        in_force(self.startup, Duration::ZERO)
    }

    /// How long the interpreter lock may be out of reach.
    pub fn deadlock(&self) -> Option<Duration> {
        in_force(self.deadlock, Duration::from_secs(300))
    }

    /// How long a process may do nothing.
    pub fn inactivity(&self) -> Option<Duration> {
        in_force(self.inactivity, Duration::ZERO)
    }

    /// How long a request may take; `spec/daemon.md` 5.8 has the formula.
    pub fn request(&self) -> Option<Duration> {
        in_force(self.request, Duration::ZERO)
    }

    /// How long an interrupted request may go on.
    pub fn interrupt(&self) -> Option<Duration> {
        in_force(self.interrupt, Duration::ZERO)
    }

    /// The same where `SIGUSR1` asks for the replacement.
    pub fn eviction(&self) -> Option<Duration> {
        in_force(self.eviction, Duration::ZERO)
    }

    /// How old a process may grow.
    pub fn restart_interval(&self) -> Option<Duration> {
        in_force(self.restart_interval, Duration::ZERO)
    }
}

impl Limits {
    /// How many requests may wait for a thread.
    pub fn listen_backlog(&self) -> u32 {
        self.listen_backlog.unwrap_or(100)
    }

    /// How long a line of an answer's head may be.
    pub fn header_buffer_size(&self) -> u64 {
        self.header_buffer_size.filter(|&size| size != 0).unwrap_or(32 * 1024)
    }

    /// After how many bytes an answer is flushed whether there is more or not.
    pub fn response_buffer_size(&self) -> u64 {
        self.response_buffer_size.filter(|&size| size != 0).unwrap_or(8 * 1024 * 1024)
    }

    /// After how many requests a process is replaced.
    pub fn maximum_requests(&self) -> Option<u32> {
        self.maximum_requests.filter(|&count| count != 0)
    }
}

impl ProcessGroup {
    /// Number of processes.
    pub fn processes(&self) -> u32 {
        self.processes.unwrap_or(1)
    }

    /// Whether applications are told that there may be other processes: the mere
    /// presence of `processes=` says so, `processes=1` included.
    pub const fn is_multiprocess(&self) -> bool {
        self.processes.is_some()
    }

    /// Number of threads that serve requests in each process.
    pub fn threads(&self) -> u32 {
        self.threads.unwrap_or(15)
    }

    /// What a restart of httpd does to the group.
    pub fn on_graceful(&self) -> OnGraceful {
        self.graceful.unwrap_or_default()
    }

    /// Whether requests of this server may run in it; `name` is its `ServerName`.
    pub fn is_visible_in(&self, server: &ServerConfig, name: Option<&[u8]>) -> bool {
        let owner = &self.declared_in;
        !owner.is_virtual
            || server.defines(&self.name)
            || (owner.name.is_some() && owner.name.as_deref() == name)
    }

    /// What a changed script does to the group.
    pub fn on_reload(&self) -> OnReload {
        self.reload.unwrap_or_default()
    }

    /// What `ps` is to show instead of httpd's command line.
    pub fn title(&self) -> Option<Vec<u8>> {
        match self.display_name.as_deref()? {
            b"%{GROUP}" => Some([b"(wsgi:", self.name.as_slice(), b")"].concat()),
            title => Some(title.to_vec()),
        }
    }

    /// The Python its processes run; `fallback` is `WSGIPythonHome`.
    ///
    /// A group that names a Python of its own has nothing to do with the
    /// server's, not even with its home.
    pub fn choose_python(
        &self,
        system: &System,
        fallback: Option<&Path>,
    ) -> Result<Python, PythonError> {
        let fallback = if self.python.is_some() { None } else { fallback };
        choose(system, self.python_home.as_deref().or(fallback), self.python.as_ref())
    }

    /// Options that were written and have no effect: there is no named socket.
    pub fn inert_options(&self) -> Vec<&'static str> {
        [
            ("socket-user", self.socket_user.is_some()),
            ("send-buffer-size", self.limits.send_buffer_size.is_some()),
            ("receive-buffer-size", self.limits.receive_buffer_size.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_written)| is_written.then_some(name))
        .collect()
    }

    /// Whether both say the same, wherever they say it.
    pub fn is_twin(&self, other: &Self) -> bool {
        let (at, declared_in) = (other.at.clone(), other.declared_in.clone());
        Self { at, declared_in, ..self.clone() } == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Option<Duration> {
        Some(Duration::from_secs(count))
    }

    #[test]
    fn what_is_not_written_has_the_manuals_default() {
        let group = ProcessGroup::default();
        assert_eq!((group.processes(), group.threads()), (1, 15));
        assert!(!group.is_multiprocess());
        assert_eq!(group.on_graceful(), OnGraceful::Restart);
        assert_eq!(group.limits.listen_backlog(), 100);
        assert_eq!(group.limits.maximum_requests(), None);
        assert_eq!(group.limits.header_buffer_size(), 32_768);
        assert_eq!(group.limits.response_buffer_size(), 8_388_608);
        let times = &group.timeouts;
        assert_eq!(
            [times.shutdown(), times.deadlock(), times.graceful(), times.connect()],
            [seconds(5), seconds(300), seconds(15), seconds(15)]
        );
        for off in [
            times.startup(),
            times.inactivity(),
            times.request(),
            times.interrupt(),
            times.eviction(),
            times.restart_interval(),
            times.socket(),
            times.queue(),
            times.response_socket(),
            times.cpu_time(),
        ] {
            assert_eq!(off, None);
        }
        assert_eq!(times.response_flush_delay(), Duration::from_millis(5));
    }

    #[test]
    fn zero_switches_a_time_off() {
        let times = Timeouts { shutdown: seconds(0), graceful: seconds(0), ..Timeouts::default() };
        assert_eq!((times.shutdown(), times.graceful()), (None, None));
    }

    #[test]
    fn the_response_socket_timeout_falls_back_to_the_socket_timeout() {
        let times = Timeouts { socket: seconds(7), ..Timeouts::default() };
        assert_eq!(times.response_socket(), seconds(7));
    }

    #[test]
    fn the_title_may_name_the_group() {
        let mut group = ProcessGroup { name: b"blog".into(), ..ProcessGroup::default() };
        assert_eq!(group.title(), None);
        group.display_name = Some(b"%{GROUP}".into());
        assert_eq!(group.title().as_deref(), Some(b"(wsgi:blog)".as_slice()));
        group.display_name = Some(b"my %{GROUP}".into());
        assert_eq!(group.title().as_deref(), Some(b"my %{GROUP}".as_slice()));
    }

    #[test]
    fn twins_differ_in_nothing_but_their_place() {
        let one = ProcessGroup { threads: Some(5), ..ProcessGroup::default() };
        let at = Location { file: "b.conf".into(), line: 7 };
        assert!(one.is_twin(&ProcessGroup { at: at.clone(), ..one.clone() }));
        assert!(!one.is_twin(&ProcessGroup { at, threads: Some(6), ..one.clone() }));
    }
}
