//! The fence around CPython and around the host's table.
//!
//! Rules: everything that runs Python takes [`Attached`], which proves that this
//! thread may; an [`Object`] cannot outlive the proof; a [`Kept`] can, and gives
//! its object only to who is attached.  What blocks runs in
//! [`Attached::detached`], whose closure cannot carry Python objects along
//! because none is `Send`.  Whoever calls us from C goes through [`guard()`].

mod capsule;
pub mod class;
pub mod configuration;
mod containers;
mod entry;
#[cfg(not(free_threaded))]
mod frames;
#[cfg(free_threaded)]
#[path = "frames_free.rs"]
mod frames;
mod guard;
pub mod host;
mod object;
mod options;
mod stack;
pub mod stacks;
mod symbols;
pub mod system;
mod thread;
mod values;

pub use capsule::Capsule;
pub use class::{Args, Class, ClassOf, Getter, Instantiated, KeptInstance, Method, Next, This};
pub use guard::guard;
pub use host::{Apache, Fault, HostLog, HostRequest, LONGEST_LINE, Settings, Source, Telemetry};
pub use object::{Builtin, Exception, Kept, Object, Raised};
pub use stack::{Extent, Stack};
pub use symbols::version_number;
pub use thread::{
    Attached, Interpreter, Thread, finalize, initialize, shares_lock_fairly, stop_threads,
};
pub use values::Blank;
