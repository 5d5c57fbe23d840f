//! Borrowed server records: the main server and its virtual hosts.

use core::cell::UnsafeCell;
use core::ptr;
use core::time::Duration;
use std::os::fd::{BorrowedFd, RawFd};

use super::module;
use super::pool::Pool;
use super::text;
use crate::config::ServerConfig;
use crate::ffi;

/// A borrowed `server_rec`.
#[repr(transparent)]
pub struct Server(UnsafeCell<ffi::server_rec>);

impl Server {
    /// # Safety
    ///
    /// `server` is a server record that is live for `'a`.
    pub(super) unsafe fn borrow<'a>(server: *mut ffi::server_rec) -> &'a Self {
        // SAFETY: the caller's promise; the wrapper is transparent.
        unsafe { &*server.cast::<Self>() }
    }

    /// For calls into httpd.
    pub(super) const fn as_ptr(&self) -> *mut ffi::server_rec {
        self.0.get()
    }

    /// httpd's record.
    fn raw(&self) -> &ffi::server_rec {
        // SAFETY: `borrow`'s caller promised it is live; httpd does not write
        // the fields read here after the configuration is read.
        unsafe { &*self.as_ptr() }
    }

    /// The main server; `None` before httpd has read its configuration.
    pub fn main() -> Option<&'static Self> {
        // SAFETY: httpd's own variable, written between configurations by the
        // only thread there is then.
        let main = unsafe { ffi::ap_server_conf };
        // SAFETY: it lives until the next configuration replaces it, and by
        // then this module has been unloaded or told.
        (!main.is_null()).then(|| unsafe { Self::borrow(main) })
    }

    /// This server and those after it; all of them from the main server.
    pub fn and_following(&self) -> impl Iterator<Item = &Self> {
        core::iter::successors(Some(self), |server| {
            let next = server.raw().next;
            // SAFETY: httpd links live records.
            (!next.is_null()).then(|| unsafe { Self::borrow(next) })
        })
    }

    /// Whether `other` is the same record.
    pub fn is(&self, other: &Self) -> bool {
        ptr::eq(self, other)
    }

    /// Whether it is a virtual host.
    pub fn is_virtual(&self) -> bool {
        self.raw().is_virtual != 0
    }

    /// `ServerName`, as far as the configuration has been read.
    pub fn hostname(&self) -> Option<&[u8]> {
        // SAFETY: httpd's string, which lives as long as the record.
        unsafe { text::bytes(self.raw().server_hostname) }
    }

    /// The port in `ServerName`, 0 if there is none.
    pub fn port(&self) -> u16 {
        self.raw().port
    }

    /// `ServerAdmin`.
    pub fn admin(&self) -> Option<&[u8]> {
        // SAFETY: httpd's string, which lives as long as the record.
        unsafe { text::bytes(self.raw().server_admin) }
    }

    /// `Timeout`.
    pub fn timeout(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.raw().timeout).unwrap_or(0))
    }

    /// The least grave level our records are written at: httpd's number.
    pub fn log_level(&self) -> u32 {
        // SAFETY: the record is live, and the index is our module's.
        let level =
            unsafe { ffi::ap_get_server_module_loglevel(self.as_ptr(), super::module::index()) };
        u32::try_from(level).unwrap_or(0)
    }

    /// The pool of the configuration this server belongs to.
    pub fn config_pool(&self) -> Option<&Pool> {
        let process = self.raw().process;
        if process.is_null() {
            return None;
        }
        // SAFETY: httpd's only record of its process, which it never frees.
        let pool = unsafe { (*process).pconf };
        // SAFETY: the configuration's pool lives as long as its servers.
        Some(unsafe { Pool::borrow(pool) })
    }

    /// The descriptor behind `ErrorLog`; `None` for syslog and the like.
    pub fn error_log(&self) -> Option<BorrowedFd<'_>> {
        let log = self.raw().error_log;
        if log.is_null() {
            return None;
        }
        let mut fd: RawFd = -1;
        // SAFETY: httpd's open log; the descriptor is written to our variable.
        let status = unsafe { ffi::apr_os_file_get(&raw mut fd, log) };
        // SAFETY: httpd keeps it open as long as the record lives.
        (status == 0 && fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Our record of this server, for writing.
    pub(super) fn config_ptr(&self) -> *mut ServerConfig {
        // SAFETY: httpd made the vector with the server.
        unsafe { module::record(self.raw().module_config) }
    }

    /// Our record of this server.
    pub fn config(&self) -> Option<&ServerConfig> {
        // SAFETY: made by `module::create_server`; only command functions
        // write it, and they hold the only reference then.
        unsafe { self.config_ptr().as_ref() }
    }

    /// As [`config`](Self::config), but none for a virtual host without a
    /// directive of ours: httpd lets it share the main server's record.
    pub fn own_config(&self) -> Option<&ServerConfig> {
        let shares = Self::main()
            .is_some_and(|main| !self.is(main) && ptr::eq(self.config_ptr(), main.config_ptr()));
        if shares { None } else { self.config() }
    }
}
