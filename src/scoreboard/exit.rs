//! How a daemon process ended, and why it was to end.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a daemon process is replaced or stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Reason {
    /// A script changed.
    ScriptReload = 1,
    /// `maximum-requests`.
    MaximumRequests,
    /// `request-timeout`.
    RequestTimeout,
    /// `startup-timeout`.
    StartupTimeout,
    /// `restart-interval`.
    RestartInterval,
    /// `deadlock-timeout`.
    DeadlockTimeout,
    /// `inactivity-timeout`.
    InactivityTimeout,
    /// `cpu-time-limit`.
    CpuTimeLimit,
    /// `SIGUSR1`, where `eviction-timeout` is set.
    EvictionSignal,
    /// `SIGUSR1`.
    GracefulSignal,
    /// `SIGTERM` or `SIGINT`, or httpd stops.
    ShutdownSignal,
    /// `max-rss`.
    MaximumResident,
    /// `memory-limit` or `virtual-memory-limit`.
    MemoryLimit,
    /// httpd was restarted, or the group is no longer configured.
    Configuration,
}

impl Reason {
    /// All of them, in the order of their numbers, which begin at 1.
    const ALL: [Self; 14] = [
        Self::ScriptReload,
        Self::MaximumRequests,
        Self::RequestTimeout,
        Self::StartupTimeout,
        Self::RestartInterval,
        Self::DeadlockTimeout,
        Self::InactivityTimeout,
        Self::CpuTimeLimit,
        Self::EvictionSignal,
        Self::GracefulSignal,
        Self::ShutdownSignal,
        Self::MaximumResident,
        Self::MemoryLimit,
        Self::Configuration,
    ];

    /// What subscribers to the end of a process are told: mod_wsgi's word for it, where
    /// it has one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScriptReload => "script_reload",
            Self::MaximumRequests => "maximum_requests",
            Self::RequestTimeout => "request_timeout",
            Self::StartupTimeout => "startup_timeout",
            Self::RestartInterval => "restart_interval",
            Self::DeadlockTimeout => "deadlock_timeout",
            Self::InactivityTimeout => "inactivity_timeout",
            Self::CpuTimeLimit => "cpu_time_limit",
            Self::EvictionSignal => "eviction_signal",
            Self::GracefulSignal => "graceful_signal",
            // A restart of httpd is a signal to the reference's processes.
            Self::ShutdownSignal | Self::Configuration => "shutdown_signal",
            Self::MaximumResident => "maximum_rss",
            Self::MemoryLimit => "memory_limit",
        }
    }

    /// The reason with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::ScriptReload => "its script changed",
            Self::MaximumRequests => "maximum-requests reached",
            Self::RequestTimeout => "request-timeout passed",
            Self::StartupTimeout => "startup-timeout passed",
            Self::RestartInterval => "restart-interval passed",
            Self::DeadlockTimeout => "deadlock-timeout passed",
            Self::InactivityTimeout => "inactivity-timeout passed",
            Self::CpuTimeLimit => "cpu-time-limit reached",
            Self::EvictionSignal => "evicted by SIGUSR1",
            Self::GracefulSignal => "told by SIGUSR1",
            Self::ShutdownSignal => "told to stop",
            Self::MaximumResident => "max-rss exceeded",
            Self::MemoryLimit => "memory-limit reached",
            Self::Configuration => "restart of httpd",
        })
    }
}

/// How a process ended, as the supervisor saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It called `exit` with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The supervisor killed it because a deadline had passed.
    Overdue,
    /// The kernel killed it for want of memory.
    OutOfMemory,
}

/// How a process ended, and why it was to end if somebody wanted that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// How.
    pub how: How,
    /// Why, unless it ended of its own accord.
    pub why: Option<Reason>,
}

impl fmt::Display for Exit {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            How::Code(code) => write!(to, "exited with code {code}"),
            How::Signal(signal) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(name) => write!(to, "was ended by {name}"),
                Err(_) => write!(to, "was ended by signal {signal}"),
            },
            How::Overdue => write!(to, "was killed because its time to stop had passed"),
            How::OutOfMemory => {
                write!(to, "was ended by SIGKILL: the kernel had no memory left for it")
            }
        }?;
        self.why.map_or(Ok(()), |why| write!(to, " ({why})"))
    }
}

impl Exit {
    /// As one number: reason, kind and value.
    pub(super) fn to_number(self) -> u64 {
        let (kind, value) = match self.how {
            How::Code(code) => (1, code),
            How::Signal(signal) => (2, signal),
            How::Overdue => (3, 0),
            How::OutOfMemory => (4, 0),
        };
        let why = self.why.map_or(0, |why| why as u8);
        (u64::from(why) << 40) | (kind << 32) | u64::from(value as u32)
    }

    /// Back from one number.
    pub(super) fn from_number(number: u64) -> Option<Self> {
        let value = number as u32 as i32;
        let how = match (number >> 32) as u8 {
            1 => How::Code(value),
            2 => How::Signal(value),
            3 => How::Overdue,
            4 => How::OutOfMemory,
            _ => return None,
        };
        Some(Self { how, why: Reason::from_number((number >> 40) as u8) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_a_number_and_back() {
        let hows = [How::Code(-3), How::Code(255), How::Signal(9), How::Overdue, How::OutOfMemory];
        for why in Reason::ALL.into_iter().map(Some).chain([None]) {
            for how in hows {
                let exit = Exit { how, why };
                assert_eq!(Exit::from_number(exit.to_number()), Some(exit));
            }
        }
        assert_eq!(Exit::from_number(0), None);
        assert_eq!(Exit::from_number(u64::MAX), None);
    }

    #[test]
    fn an_exit_says_how_and_why() {
        let killed = Exit { how: How::Signal(9), why: None };
        assert_eq!(killed.to_string(), "was ended by SIGKILL");
        let overdue = Exit { how: How::Overdue, why: Some(Reason::RequestTimeout) };
        assert_eq!(
            overdue.to_string(),
            "was killed because its time to stop had passed (request-timeout passed)"
        );
    }
}
