//! Sending an answer's body through httpd's output filters, and cutting it off
//! so that the client notices.

use core::ptr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::request::Request;
use crate::ffi;

/// Why nothing more can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The client is gone.
    #[error("the client closed the connection")]
    Gone,
    /// The client took nothing for too long; `flushing` says whether there was
    /// nothing new to write.
    #[error("the client did not take the response in time")]
    TimedOut {
        /// See above.
        flushing: bool,
    },
    /// A filter gave up, with this status of APR.
    #[error("httpd's output filters failed with status {0}")]
    Failed(i32),
}

/// What follows a piece of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// More, soon: httpd may collect.
    More,
    /// Nothing for a while: the client is to see it now.
    Flush,
    /// Nothing: the answer is complete.
    End,
    /// Nothing, and the client is to see what there is before the request ends.
    FlushAndEnd,
}

/// A piece of an open file.
#[derive(Debug)]
pub struct FilePart {
    /// The file; closed when the piece has been flushed, or with the request.
    pub file: OwnedFd,
    /// Its first byte.
    pub offset: u64,
    /// How many.
    pub length: u64,
    /// Whether the system may copy it (`WSGIEnableSendfile`).
    pub sendfile: bool,
}

/// An answer's body on its way out; one per request.
pub struct Answer<'r> {
    request: &'r Request,
    brigade: *mut ffi::apr_bucket_brigade,
    /// Holds the files that were not flushed yet; null if there are none.
    files: *mut ffi::apr_pool_t,
    /// Whether httpd's filters have seen anything of it.
    begun: bool,
}

impl<'r> Answer<'r> {
    /// Begins the answer to `request`.
    pub fn new(request: &'r Request) -> Self {
        Self { request, brigade: ptr::null_mut(), files: ptr::null_mut(), begun: false }
    }

    /// Whether httpd's filters have seen anything of it.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Sends `data`.  It is copied if it cannot be sent at once.
    pub fn pass(&mut self, data: &[u8], then: Then) -> Result<(), SendError> {
        let brigade = self.brigade();
        if !data.is_empty() {
            // SAFETY: the data outlives the call below; a filter that keeps
            // the bucket longer copies it, as transient buckets demand.
            let bucket = unsafe {
                ffi::apr_bucket_transient_create(
                    data.as_ptr().cast(),
                    data.len() as ffi::apr_size_t,
                    self.request.bucket_alloc(),
                )
            };
            // SAFETY: our live brigade takes the fresh bucket.
            unsafe { ffi::wsgi_brigade_append(brigade, bucket) };
        }
        self.send(brigade, then)
    }

    /// Sends a piece of a file, with what follows it where that is said to come soon:
    /// filters that want an answer whole (ranges) find its end behind the file.
    ///
    /// It is never mapped: whoever else has the file open could truncate it.
    pub fn pass_file(&mut self, part: FilePart, then: Then) -> Result<(), SendError> {
        let brigade = self.brigade();
        if part.length > 0 {
            let pool = self.files();
            let file = adopt(part.file, part.sendfile, pool)?;
            // SAFETY: our live brigade and a file of our pool.
            let last = unsafe {
                ffi::apr_brigade_insert_file(
                    brigade,
                    file,
                    ffi::apr_off_t::try_from(part.offset).unwrap_or(ffi::apr_off_t::MAX),
                    ffi::apr_off_t::try_from(part.length).unwrap_or(ffi::apr_off_t::MAX),
                    pool,
                )
            };
            // SAFETY: a file bucket; pieces of one file share the setting.
            unsafe { ffi::apr_bucket_file_enable_mmap(last, 0) };
        }
        if then == Then::More {
            return Ok(());
        }
        self.send(brigade, then)
    }

    /// Ends the answer so that the client sees that it is not complete.
    ///
    /// Only after headers have been sent; before that, an error page is better.
    pub fn cut(&mut self) {
        let request = self.request;
        request.close_connection();
        let reset = request.ends_by_closing();
        let brigade = self.brigade();
        // SAFETY: the request's pool and allocator are live.  mod_http leaves
        // out the last chunk, and mod_http2 resets the stream, when they see it.
        let error = unsafe {
            ffi::ap_bucket_error_create(
                ffi::HTTP_BAD_GATEWAY,
                ptr::null(),
                request.pool().as_ptr(),
                request.bucket_alloc(),
            )
        };
        // SAFETY: our live brigade takes the fresh bucket.
        unsafe { ffi::wsgi_brigade_append(brigade, error) };
        // Whether it arrives does not matter any more.
        let _ = self.send(brigade, Then::End);
        if reset {
            request.reset_connection();
        }
    }

    /// Ends the answer to a client that takes none of it: nothing more is written,
    /// because that would wait for the client again.
    pub fn abandon(&mut self) {
        if self.request.is_stream() {
            return self.cut();
        }
        self.request.close_connection();
        self.request.reset_connection();
    }

    /// Our brigade, made when it is first needed.
    fn brigade(&mut self) -> *mut ffi::apr_bucket_brigade {
        if self.brigade.is_null() {
            self.brigade = self.request.make_brigade();
        }
        self.brigade
    }

    /// Our pool for files, made when it is first needed.
    ///
    /// The request's own would keep each file open until its end, and an answer
    /// may have more pieces than a process descriptors.
    fn files(&mut self) -> *mut ffi::apr_pool_t {
        if self.files.is_null() {
            let parent = self.request.pool().as_ptr();
            // SAFETY: the request's pool is live; the result goes to our variable.
            unsafe {
                ffi::apr_pool_create_ex(&raw mut self.files, parent, None, ptr::null_mut());
            }
        }
        self.files
    }

    /// Passes the brigade on and empties it.
    fn send(&mut self, brigade: *mut ffi::apr_bucket_brigade, then: Then) -> Result<(), SendError> {
        self.begun = true;
        let alloc = self.request.bucket_alloc();
        if matches!(then, Then::Flush | Then::FlushAndEnd) {
            // SAFETY: the connection's allocator.
            let flush = unsafe { ffi::apr_bucket_flush_create(alloc) };
            // SAFETY: our live brigade takes the fresh bucket.
            unsafe { ffi::wsgi_brigade_append(brigade, flush) };
        }
        if matches!(then, Then::End | Then::FlushAndEnd) {
            // SAFETY: the connection's allocator.
            let end = unsafe { ffi::apr_bucket_eos_create(alloc) };
            // SAFETY: our live brigade takes the fresh bucket.
            unsafe { ffi::wsgi_brigade_append(brigade, end) };
        }
        // SAFETY: the request's live chain, and our live brigade.
        let status = unsafe { ffi::ap_pass_brigade(self.request.output_filters(), brigade) };
        // SAFETY: our live brigade; what a filter kept it has taken out.
        unsafe { ffi::apr_brigade_cleanup(brigade.cast()) };
        // SAFETY: looks at a number.
        if unsafe { ffi::wsgi_status_is_timeup(status) } != 0 {
            // httpd takes this for an abort too.
            let flushing = matches!(then, Then::Flush | Then::FlushAndEnd);
            return Err(SendError::TimedOut { flushing });
        }
        if self.request.is_aborted() {
            return Err(SendError::Gone);
        }
        if then == Then::Flush && !self.files.is_null() {
            // SAFETY: ours, not used again.  Filters have sent what they had, and
            // whoever keeps a bucket sets it aside: its file moves to another pool.
            unsafe { ffi::apr_pool_destroy(self.files) };
            self.files = ptr::null_mut();
        }
        match status {
            ffi::APR_SUCCESS => Ok(()),
            status => Err(SendError::Failed(status)),
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if !self.brigade.is_null() {
            // SAFETY: our live brigade, not used again.
            unsafe { ffi::apr_brigade_destroy(self.brigade) };
        }
    }
}

impl Request {
    /// The allocator of buckets of this connection.
    fn bucket_alloc(&self) -> *mut ffi::apr_bucket_alloc_t {
        // SAFETY: the request is live.
        let connection = unsafe { (*self.as_ptr()).connection };
        // SAFETY: a request's connection is live.
        unsafe { (*connection).bucket_alloc }
    }

    /// A new, empty brigade of the request's pool.
    pub(super) fn make_brigade(&self) -> *mut ffi::apr_bucket_brigade {
        // SAFETY: pool and allocator are live.
        unsafe { ffi::apr_brigade_create(self.pool().as_ptr(), self.bucket_alloc()) }
    }

    /// Where bodies come from.
    pub(super) fn input_filters(&self) -> *mut ffi::ap_filter_t {
        // SAFETY: the request is live.
        unsafe { (*self.as_ptr()).input_filters }
    }

    /// Where answers go.
    fn output_filters(&self) -> *mut ffi::ap_filter_t {
        // SAFETY: the request is live.
        unsafe { (*self.as_ptr()).output_filters }
    }

    /// Whether the client learns only from the end of the connection that the
    /// body is complete.
    fn ends_by_closing(&self) -> bool {
        // SAFETY: the request is live.
        let chunked = unsafe { (*self.as_ptr()).chunked } != 0;
        !self.is_stream() && !chunked && self.headers_out().get(c"Content-Length").is_none()
    }

    /// Ends the connection with a reset instead of an orderly end.
    fn reset_connection(&self) {
        use std::os::fd::AsFd;

        let Some(socket) = self.client() else { return };
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // SAFETY: an open socket, and a value of the option's type.
        unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            );
        }
        // SAFETY: the request is live.
        let connection = unsafe { (*self.as_ptr()).connection };
        // SAFETY: the connection is live, and this thread's while its request
        // is; aborted ones are closed without lingering.
        unsafe { ffi::wsgi_set_aborted(connection) };
    }
}

/// Makes `file` APR's, in a live pool.
///
/// `apr_os_file_put` alone would leave it to us to close it, but a bucket
/// may be set aside and outlive the request (HTTP/2): a duplicate made by
/// APR is closed by whoever has the bucket last.
fn adopt(
    file: OwnedFd,
    sendfile: bool,
    pool: *mut ffi::apr_pool_t,
) -> Result<*mut ffi::apr_file_t, SendError> {
    let mut number: RawFd = file.as_raw_fd();
    let flags = ffi::APR_READ | if sendfile { ffi::APR_SENDFILE_ENABLED } else { 0 };
    let mut borrowed: *mut ffi::apr_file_t = ptr::null_mut();
    // SAFETY: an open descriptor; the result goes to our variable.
    unsafe { ffi::apr_os_file_put(&raw mut borrowed, &raw mut number, flags, pool) };
    let mut owned: *mut ffi::apr_file_t = ptr::null_mut();
    // SAFETY: the file made above; the result goes to our variable.
    match unsafe { ffi::apr_file_dup(&raw mut owned, borrowed, pool) } {
        ffi::APR_SUCCESS => {}
        status => return Err(SendError::Failed(status)),
    }
    // SAFETY: the file made above.
    unsafe { ffi::apr_os_file_get(&raw mut number, owned) };
    // SAFETY: an open descriptor; CGI programs are not to inherit it.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    Ok(owned)
}
