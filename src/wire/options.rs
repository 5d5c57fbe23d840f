//! What a Python and its interpreters are started with, beside what each process
//! has of its own: the directives about Python itself.
#![forbid(unsafe_code)]

use crate::vtable::Bytes;
use core::ffi::c_int;

/// What is said of a process' Python; see [`Start::options`](crate::vtable::Start::options).
#[repr(C)]
pub struct Options {
    /// What is said of its interpreters, the least specific first: where two say
    /// something of the same, the later one holds.
    pub layers: *const Layer,
    /// How many.
    pub layer_count: usize,
    /// Filters of warnings, as after `python -W`.
    pub warnings: *const Bytes,
    /// How many.
    pub warning_count: usize,
    /// `PYTHON_EGG_CACHE` in `os.environ`.  Empty: left alone.
    pub python_eggs: Bytes,
    /// One of [`hash_seed`], or the seed.
    pub hash_seed: i64,
    /// Level of optimisation; 0 leaves Python's own.
    pub optimize: c_int,
    /// 1: no bytecode files are written.
    pub dont_write_bytecode: u8,
    /// 1: `stop` ends nothing.
    pub keeps_interpreters: u8,
    /// 1: scripts whose paths differ in case only are one module.
    pub ignores_case: u8,
    /// 1: `sys.stdin` and `sys.stdout` are left alone, for who debugs the process.
    pub is_debugged: u8,
}

/// Values of [`Options::hash_seed`] that are no seeds.
pub mod hash_seed {
    /// As Python likes, and its environment says.
    pub const UNSET: i64 = -2;
    /// Another one for each process, whatever the environment says.
    pub const RANDOM: i64 = -1;
}

/// What is said of some interpreters.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Layer {
    /// The application group it is for; see [`is_for_one`](Self::is_for_one).
    pub application_group: Bytes,
    /// Directories for the front of `sys.path`, separated by `:`; those of a later
    /// layer come before these.
    pub python_path: Bytes,
    /// `sys.setswitchinterval` in seconds; 0: nothing said.
    pub switch_interval: f64,
    /// 1: it is for one application group only; 0: for all.
    pub is_for_one: u8,
    /// A [`switch`]: whether a sub-interpreter has a lock of its own.
    pub own_gil: u8,
    /// A [`switch`]: whether a free-threaded Python does without its lock.
    pub free_threading: u8,
    /// A [`switch`]: whether `sys.stdin` raises.
    pub restrict_stdin: u8,
    /// A [`switch`]: whether `sys.stdout` raises.
    pub restrict_stdout: u8,
    /// A [`switch`]: whether `signal.signal` has no effect.
    pub restrict_signal: u8,
}

/// What a layer says of something that is on or off.
pub mod switch {
    /// Nothing.
    pub const UNSET: u8 = 0;
    /// Off.
    pub const OFF: u8 = 1;
    /// On.
    pub const ON: u8 = 2;

    /// The number for what was said.
    pub const fn of(said: Option<bool>) -> u8 {
        match said {
            None => UNSET,
            Some(false) => OFF,
            Some(true) => ON,
        }
    }

    /// What the number says.
    pub const fn said(number: u8) -> Option<bool> {
        match number {
            OFF => Some(false),
            ON => Some(true),
            _ => None,
        }
    }
}
