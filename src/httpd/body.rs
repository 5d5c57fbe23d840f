//! Reading a request's body through httpd's input filters.

use core::ffi::c_char;
use core::{ptr, slice};

use super::request::Request;
use super::shield::Shield;
use crate::ffi;

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// That many bytes.
    Data(usize),
    /// Nothing yet; only without blocking.
    WouldBlock,
    /// The body is complete.
    Eof,
}

/// Why the body cannot be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The client is gone, or closed before the end.
    #[error("the client closed the connection within the request body")]
    Gone,
    /// The client sent nothing for too long.
    #[error("the client sent no more of the request body in time")]
    TimedOut,
    /// It is not encoded as announced.
    #[error("the request body is malformed")]
    Malformed,
    /// It is longer than `LimitRequestBody`.
    #[error("the request body is longer than LimitRequestBody allows")]
    TooLong,
    /// A filter gave the client an answer of its own.
    #[error("a filter refused the request body")]
    Answered,
}

impl BodyError {
    /// What a status of the input filters means.
    fn from_status(status: ffi::apr_status_t) -> Self {
        // SAFETY: looks at a number.
        if unsafe { ffi::wsgi_status_is_timeup(status) } != 0 {
            return Self::TimedOut;
        }
        match status {
            ffi::AP_FILTER_ERROR => Self::Answered,
            ffi::APR_ENOSPC => Self::TooLong,
            // What the HTTP filter says of chunks and lengths it cannot read.
            ffi::APR_EINVAL | ffi::APR_EGENERAL | ffi::APR_ENOTIMPL => Self::Malformed,
            _ => Self::Gone,
        }
    }
}

impl BodyError {
    /// What the status means with which a filter wanted to answer.
    fn from_verdict(status: u16) -> Self {
        match status {
            408 => Self::TimedOut,
            413 => Self::TooLong,
            _ => Self::Malformed,
        }
    }
}

/// A request's body; reading it sends the `100 Continue` the client waits for.
pub struct Body<'r> {
    request: &'r Request,
    brigade: *mut ffi::apr_bucket_brigade,
    end: Option<Result<(), BodyError>>,
    /// There once the answer has begun.
    shield: Option<Shield<'r>>,
}

impl<'r> Body<'r> {
    /// The body of `request`; one per request.
    pub fn new(request: &'r Request) -> Self {
        Self { request, brigade: ptr::null_mut(), end: None, shield: None }
    }

    /// The answer has begun: what a filter has to say of the body must not follow it.
    pub fn shield_answer(&mut self) {
        self.shield.get_or_insert_with(|| Shield::raise(self.request));
    }

    /// Waits until there is something, and reads it into `into`.
    pub fn read(&mut self, into: &mut [u8]) -> Result<Read, BodyError> {
        loop {
            match self.fetch(into, ffi::APR_BLOCK_READ)? {
                // Only metadata came; wait on.
                Read::WouldBlock => {}
                read => return Ok(read),
            }
        }
    }

    /// Reads what is there into `into`.
    pub fn try_read(&mut self, into: &mut [u8]) -> Result<Read, BodyError> {
        self.fetch(into, ffi::APR_NONBLOCK_READ)
    }

    /// One turn: takes what an earlier turn left, or asks the filters.
    fn fetch(&mut self, into: &mut [u8], block: ffi::apr_read_type_e) -> Result<Read, BodyError> {
        if let Some(end) = self.end {
            return end.map(|()| Read::Eof);
        }
        let brigade = self.brigade();
        // SAFETY: our live brigade.
        if unsafe { ffi::wsgi_brigade_is_empty(brigade) } != 0
            && !self.ask(brigade, into.len().max(1), block)?
        {
            return Ok(Read::WouldBlock);
        }
        self.take(brigade, into, block)
    }

    /// Our brigade, made when it is first needed.
    fn brigade(&mut self) -> *mut ffi::apr_bucket_brigade {
        if self.brigade.is_null() {
            self.brigade = self.request.make_brigade();
        }
        self.brigade
    }

    /// Asks the filters for at most `most` bytes; whether something came.
    fn ask(
        &mut self,
        brigade: *mut ffi::apr_bucket_brigade,
        most: usize,
        block: ffi::apr_read_type_e,
    ) -> Result<bool, BodyError> {
        let most = ffi::apr_off_t::try_from(most).unwrap_or(ffi::apr_off_t::MAX);
        let filters = self.request.input_filters();
        let answered = self.request.is_answered();
        let read = || {
            // SAFETY: the request's live chain, and our live brigade.
            unsafe { ffi::ap_get_brigade(filters, brigade, ffi::AP_MODE_READBYTES, block, most) }
        };
        let (status, verdict) = match self.shield {
            Some(shield) => shield.during(read),
            None => (read(), None),
        };
        if let Some(verdict) = verdict {
            return Err(self.fail(BodyError::from_verdict(verdict)));
        }
        // Before headers are sent this is AP_FILTER_ERROR; later the filter's
        // verdict shows only in what it sent to the client.
        if self.request.is_answered() && !answered {
            return Err(self.fail(BodyError::Answered));
        }
        if status == ffi::APR_SUCCESS {
            // SAFETY: our live brigade.
            return Ok(unsafe { ffi::wsgi_brigade_is_empty(brigade) } == 0);
        }
        // SAFETY: looks at a number.
        if block == ffi::APR_NONBLOCK_READ && unsafe { ffi::wsgi_status_is_eagain(status) } != 0 {
            return Ok(false);
        }
        Err(self.fail(BodyError::from_status(status)))
    }

    /// Moves bytes from the brigade into `into` until one of them is used up.
    fn take(
        &mut self,
        brigade: *mut ffi::apr_bucket_brigade,
        into: &mut [u8],
        block: ffi::apr_read_type_e,
    ) -> Result<Read, BodyError> {
        let mut count = 0;
        // SAFETY: our live brigade.
        while unsafe { ffi::wsgi_brigade_is_empty(brigade) } == 0 {
            // SAFETY: it is not empty.
            let bucket = unsafe { ffi::wsgi_brigade_first(brigade) };
            // SAFETY: a live bucket.
            if unsafe { ffi::wsgi_bucket_is_eos(bucket) } != 0 {
                if count == 0 {
                    self.end = Some(Ok(()));
                    return Ok(Read::Eof);
                }
                break;
            }
            // SAFETY: a live bucket.
            if unsafe { ffi::wsgi_bucket_is_metadata(bucket) } == 0 {
                if count == into.len() {
                    break;
                }
                match self.copy(bucket, &mut into[count..], block)? {
                    Some(copied) => count += copied,
                    None => break,
                }
            } else {
                // SAFETY: a live bucket, not used again.
                unsafe { ffi::wsgi_bucket_delete(bucket) };
            }
        }
        // A read of no bytes is complete without any.
        Ok(if count == 0 && !into.is_empty() { Read::WouldBlock } else { Read::Data(count) })
    }

    /// Moves bytes from the front of `bucket`; `None` if it has none yet.
    fn copy(
        &mut self,
        bucket: *mut ffi::apr_bucket,
        into: &mut [u8],
        block: ffi::apr_read_type_e,
    ) -> Result<Option<usize>, BodyError> {
        let mut data: *const c_char = ptr::null();
        let mut length: ffi::apr_size_t = 0;
        let wait = i32::from(block == ffi::APR_BLOCK_READ);
        // SAFETY: a live bucket; results go to our variables.
        let status = unsafe { ffi::wsgi_bucket_read(bucket, &raw mut data, &raw mut length, wait) };
        // SAFETY: looks at a number.
        if unsafe { ffi::wsgi_status_is_eagain(status) } != 0 {
            return Ok(None);
        }
        if status != ffi::APR_SUCCESS {
            return Err(self.fail(BodyError::from_status(status)));
        }
        let count = into.len().min(length as usize);
        if count > 0 {
            // SAFETY: the bucket holds `length` bytes there until it goes.
            let found = unsafe { slice::from_raw_parts(data.cast::<u8>(), count) };
            into[..count].copy_from_slice(found);
        }
        if count < length as usize {
            // SAFETY: a live bucket, longer than `count`; a bucket that has
            // been read can be split.
            unsafe { ffi::wsgi_bucket_split(bucket, count as ffi::apr_size_t) };
        }
        // SAFETY: a live bucket, not used again.
        unsafe { ffi::wsgi_bucket_delete(bucket) };
        Ok(Some(count))
    }

    /// Remembers `error`: it is what every later read meets too.
    fn fail(&mut self, error: BodyError) -> BodyError {
        self.end = Some(Err(error));
        self.request.close_connection();
        error
    }
}

impl Drop for Body<'_> {
    fn drop(&mut self) {
        if !self.brigade.is_null() {
            // SAFETY: our live brigade, not used again.
            unsafe { ffi::apr_brigade_destroy(self.brigade) };
        }
    }
}
