//! The connection a request came on: addresses, ids, socket.

use core::ptr;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use super::request::Request;
use crate::ffi;

impl Request {
    /// The connection, read as [`raw`](Self::raw) is.
    fn connection(&self) -> &ffi::conn_rec {
        // SAFETY: a request has a connection, which outlives it.
        unsafe { &*self.raw().connection }
    }

    /// The client's address (mod_remoteip may have replaced it).
    pub fn remote_ip(&self) -> &[u8] {
        self.string(self.raw().useragent_ip).unwrap_or_default()
    }

    /// The port of the client's end of the connection.
    pub fn remote_port(&self) -> u16 {
        // SAFETY: a connection has addresses as long as it lives.
        unsafe { (*self.connection().client_addr).port }
    }

    /// The address of our end.
    pub fn local_ip(&self) -> &[u8] {
        self.string(self.connection().local_ip).unwrap_or_default()
    }

    /// The port of our end.
    pub fn local_port(&self) -> u16 {
        // SAFETY: a connection has addresses as long as it lives.
        unsafe { (*self.connection().local_addr).port }
    }

    /// The name of our end's address, if httpd knows one.
    pub fn local_host(&self) -> Option<&[u8]> {
        // SAFETY: a connection has addresses as long as it lives.
        let name = unsafe { (*self.connection().local_addr).hostname };
        self.string(name)
    }

    /// The id in the request's log records (`%L`); made if there is none.
    pub fn log_id(&self) -> &[u8] {
        if self.raw().log_id.is_null() {
            let (connection, r) = (self.raw().connection, self.as_ptr());
            // SAFETY: the request is live; only the field's address is taken.
            let id = unsafe { &raw mut (*r).log_id };
            // SAFETY: request and connection are live, and so is the field.
            unsafe { ffi::ap_run_generate_log_id(connection, r, id) };
        }
        self.string(self.raw().log_id).unwrap_or_default()
    }

    /// The id in the connection's log records; made if there is none.
    pub fn connection_log_id(&self) -> &[u8] {
        if self.connection().log_id.is_null() {
            let connection = self.raw().connection;
            // SAFETY: the connection is live; only the field's address is taken.
            let id = unsafe { &raw mut (*connection).log_id };
            // SAFETY: the connection is live, and so is the field.
            unsafe { ffi::ap_run_generate_log_id(connection, ptr::null(), id) };
        }
        self.string(self.connection().log_id).unwrap_or_default()
    }

    /// Whether the client is known to be gone.
    pub fn is_aborted(&self) -> bool {
        // SAFETY: a request's connection is live.
        unsafe { ffi::wsgi_aborted(self.raw().connection) != 0 }
    }

    /// Whether the connection is one stream of several (HTTP/2).
    pub fn is_stream(&self) -> bool {
        !self.connection().master.is_null()
    }

    /// No further request on this connection.
    pub fn close_connection(&self) {
        // SAFETY: the connection is live, and this thread's while its request is.
        unsafe { (*self.raw().connection).keepalive = ffi::AP_CONN_CLOSE };
    }

    /// The client's socket, to wait for with `poll`; `None` for a stream.
    ///
    /// Bytes may also wait in httpd's filters: read without blocking first.
    pub fn client(&self) -> Option<BorrowedFd<'_>> {
        let fd = descriptor(self.raw().connection).filter(|fd| !self.is_stream() && *fd >= 0)?;
        // SAFETY: httpd keeps the socket open while it serves the request.
        Some(unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Whether httpd has closed the client's socket: a child with threads that is told
    /// to stop at once does, and then waits for them.
    pub fn is_abandoned(&self) -> bool {
        let connection = self.raw().connection;
        let master = self.connection().master;
        descriptor(if master.is_null() { connection } else { master }) == Some(-1)
    }

    /// The client's socket as APR has it; `None` for a stream.
    fn socket(&self) -> Option<*mut ffi::apr_socket_t> {
        if self.is_stream() {
            return None;
        }
        // SAFETY: the connection is live.
        let socket = unsafe { ffi::ap_get_conn_socket(self.raw().connection) };
        (!socket.is_null()).then_some(socket)
    }

    /// Sets how long httpd waits for the client in one read or write; what it was,
    /// or `None` for a stream.
    pub fn set_client_timeout(&self, timeout: Duration) -> Option<Duration> {
        let socket = self.socket()?;
        let mut before: ffi::apr_interval_time_t = 0;
        // SAFETY: the connection's socket; the result goes to our variable.
        unsafe { ffi::apr_socket_timeout_get(socket, &raw mut before) };
        // Neither for ever nor not at all: httpd sets neither, and APR would change
        // the mode of the socket for it.
        let before = u64::try_from(before).ok().filter(|before| *before > 0)?;
        let timeout = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX);
        // SAFETY: the connection's socket, used by this thread only.
        unsafe { ffi::apr_socket_timeout_set(socket, timeout) };
        Some(Duration::from_micros(before))
    }
}

/// The descriptor of a live connection's socket, -1 if that is closed.
fn descriptor(connection: *mut ffi::conn_rec) -> Option<RawFd> {
    // SAFETY: both callers have it from a live request.
    let socket = unsafe { ffi::ap_get_conn_socket(connection) };
    if socket.is_null() {
        return None;
    }
    let mut fd: RawFd = -1;
    // SAFETY: the connection's socket; the descriptor goes to our variable.
    let status = unsafe { ffi::apr_os_sock_get(&raw mut fd, socket) };
    (status == 0).then_some(fd)
}
