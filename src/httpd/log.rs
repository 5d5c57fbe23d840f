//! Log records: `error!(r, WSGI0042, "…")`, with the level `LogLevel wsgi:…` asks for.
//!
//! From `warn` up a record has a code; below it may have one.  Nothing is
//! formatted unless the level is wanted.  httpd escapes control characters.

use core::ffi::{CStr, c_int};
use core::fmt;
use std::ffi::CString;

use super::request::Request;
use super::server::Server;
use super::{module, text};
use crate::ffi;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// httpd cannot go on.
    Emerg,
    /// A process cannot.
    Alert,
    /// A service is hurt.
    Crit,
    /// One request failed.
    Error,
    /// Works, will hurt.
    Warn,
    /// Starts, stops, restarts.
    Notice,
    /// Decisions an operator asks about.
    Info,
    /// For us.
    Debug,
}

impl Level {
    /// httpd's number.
    const fn number(self) -> c_int {
        match self {
            Self::Emerg => ffi::APLOG_EMERG,
            Self::Alert => ffi::APLOG_ALERT,
            Self::Crit => ffi::APLOG_CRIT,
            Self::Error => ffi::APLOG_ERR,
            Self::Warn => ffi::APLOG_WARNING,
            Self::Notice => ffi::APLOG_NOTICE,
            Self::Info => ffi::APLOG_INFO,
            Self::Debug => ffi::APLOG_DEBUG,
        }
    }
}

impl Level {
    /// httpd logs starts, stops and what is worse whatever `LogLevel` says.
    fn is_always_wanted(self) -> bool {
        self <= Self::Notice
    }
}

/// Where a record was written: in our source, or in the application's.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'f> {
    /// The file.
    pub file: &'f CStr,
    /// The line.
    pub line: u32,
}

/// Something that has a log.
pub trait Log {
    /// Whether records of this level are written at all.
    fn wants(&self, level: Level) -> bool;

    /// Writes a record.
    fn write(&self, level: Level, origin: Origin<'_>, line: &CStr);
}

impl<L: Log + ?Sized> Log for &L {
    fn wants(&self, level: Level) -> bool {
        (**self).wants(level)
    }

    fn write(&self, level: Level, origin: Origin<'_>, line: &CStr) {
        (**self).write(level, origin, line);
    }
}

impl Log for Request {
    fn wants(&self, level: Level) -> bool {
        level.is_always_wanted() || level.number() <= self.log_level()
    }

    fn write(&self, level: Level, origin: Origin<'_>, line: &CStr) {
        // SAFETY: a borrowed request is live; the format takes one C string.
        unsafe {
            ffi::ap_log_rerror_(
                origin.file.as_ptr(),
                line_number(origin),
                module::index(),
                level.number(),
                0,
                self.as_ptr(),
                c"%s".as_ptr(),
                line.as_ptr(),
            );
        }
    }
}

impl Log for Server {
    fn wants(&self, level: Level) -> bool {
        // SAFETY: a borrowed server is live.
        let wanted = unsafe { ffi::ap_get_server_module_loglevel(self.as_ptr(), module::index()) };
        level.is_always_wanted() || level.number() <= wanted
    }

    fn write(&self, level: Level, origin: Origin<'_>, line: &CStr) {
        // SAFETY: a borrowed server is live; the format takes one C string.
        unsafe {
            ffi::ap_log_error_(
                origin.file.as_ptr(),
                line_number(origin),
                module::index(),
                level.number(),
                0,
                self.as_ptr(),
                c"%s".as_ptr(),
                line.as_ptr(),
            );
        }
    }
}

/// The process: the main server's log, or standard error before there is one.
#[derive(Debug, Clone, Copy)]
pub struct Process;

impl Log for Process {
    fn wants(&self, level: Level) -> bool {
        match Server::main() {
            Some(main) => main.wants(level),
            None => level <= Level::Notice,
        }
    }

    fn write(&self, level: Level, origin: Origin<'_>, line: &CStr) {
        if let Some(main) = Server::main() {
            return main.write(level, origin, line);
        }
        // SAFETY: httpd writes to standard error if there is no server; the
        // format takes one C string.
        unsafe {
            ffi::ap_log_error_(
                origin.file.as_ptr(),
                line_number(origin),
                module::index(),
                level.number(),
                0,
                core::ptr::null(),
                c"%s".as_ptr(),
                line.as_ptr(),
            );
        }
    }
}

impl Process {
    /// Writes a line that was worded elsewhere (the runtime).
    pub fn log_line(self, level: Level, line: &[u8]) {
        if self.wants(level) {
            self.write(level, Origin { file: c"", line: 0 }, &c_line(line));
        }
    }

    /// [`Self::log_line`] for a line that comes from line `number` of `file`.
    pub fn log_line_from(self, level: Level, line: &[u8], (file, number): (&[u8], u32)) {
        if self.wants(level) {
            self.write(level, Origin { file: &c_line(file), line: number }, &c_line(line));
        }
    }
}

impl Request {
    /// Writes a line that was worded elsewhere (a daemon process, the application).
    pub fn log_line(&self, level: Level, line: &[u8]) {
        if self.wants(level) {
            self.write(level, Origin { file: c"", line: 0 }, &c_line(line));
        }
    }

    /// [`Self::log_line`] for a line that comes from line `number` of `file`.
    pub fn log_line_from(&self, level: Level, line: &[u8], (file, number): (&[u8], u32)) {
        if self.wants(level) {
            self.write(level, Origin { file: &c_line(file), line: number }, &c_line(line));
        }
    }

    /// httpd's number of the least grave level its log takes.
    pub fn log_level(&self) -> c_int {
        // SAFETY: a borrowed request is live.
        let wanted = unsafe { ffi::ap_get_request_module_loglevel(self.as_ptr(), module::index()) };
        wanted.max(Level::Notice.number())
    }
}

/// The line as C counts.
fn line_number(origin: Origin<'_>) -> c_int {
    c_int::try_from(origin.line).unwrap_or(0)
}

/// `line` as a C string; a NUL ends it.
fn c_line(line: &[u8]) -> CString {
    CString::new(text::before_nul(line)).unwrap_or_default()
}

/// Writes `code` and `what` to the log of `to`, if it wants the level.
pub fn record(
    to: &dyn Log,
    level: Level,
    origin: Origin<'_>,
    code: &str,
    what: fmt::Arguments<'_>,
) {
    if to.wants(level) {
        let line = match code {
            "" => what.to_string(),
            code => format!("{code}: {what}"),
        };
        to.write(level, origin, &c_line(line.as_bytes()));
    }
}

/// The file a macro stands in, as a C string.
#[macro_export]
#[doc(hidden)]
macro_rules! log_origin {
    () => {
        $crate::httpd::log::Origin {
            file: const {
                match core::ffi::CStr::from_bytes_with_nul(concat!(file!(), "\0").as_bytes()) {
                    Ok(file) => file,
                    Err(_) => c"",
                }
            },
            line: line!(),
        }
    };
}

/// Writes a record of a level; the macros named after the levels call this.
#[macro_export]
#[doc(hidden)]
macro_rules! log_record {
    ($level:ident, $to:expr, $code:expr, $($what:tt)+) => {
        $crate::httpd::log::record(
            &$to,
            $crate::httpd::log::Level::$level,
            $crate::log_origin!(),
            $code,
            format_args!($($what)+),
        )
    };
}

/// Defines the macro of a level whose records always have a code.
macro_rules! coded {
    ($d:tt $name:ident $level:ident) => {
        /// Writes a record with a code: `(to, WSGI0000, "…")`, or without `to`
        /// to the process' log.
        #[allow(unused_macros, reason = "the set is complete")]
        macro_rules! $name {
            ($d code:ident, $d what:literal $d($d more:tt)*) => {
                $crate::log_record!(
                    $level, $crate::httpd::log::Process, stringify!($d code), $d what $d($d more)*
                )
            };
            ($d to:expr, $d code:ident, $d($d what:tt)+) => {
                $crate::log_record!($level, $d to, stringify!($d code), $d($d what)+)
            };
        }
    };
}

/// Defines the macro of a level whose records may do without a code.
macro_rules! free {
    ($d:tt $name:ident $level:ident) => {
        /// Writes a record: `(to, "…")` or `(to, WSGI0000, "…")`.
        #[allow(unused_macros, reason = "the set is complete")]
        macro_rules! $name {
                    ($d to:expr, $d what:literal $d($d more:tt)*) => {
                        $crate::log_record!($level, $d to, "", $d what $d($d more)*)
                    };
                    ($d to:expr, $d code:ident, $d($d what:tt)+) => {
                        $crate::log_record!($level, $d to, stringify!($d code), $d($d what)+)
                    };
                }
    };
}

coded!($ alert Alert);
coded!($ crit Crit);
coded!($ error Error);
coded!($ warn Warn);
free!($ notice Notice);
free!($ info Info);
free!($ debug Debug);
