//! Borrowed requests: what httpd knows about one, and what a handler may set.

use core::any::Any;
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char};
use core::ptr;

use super::module;
use super::pool::Pool;
use super::server::Server;
use super::table::Table;
use super::text;
use crate::config::DirConfig;
use crate::ffi;

/// A borrowed `request_rec`.
///
/// Its strings live in its pool, which frees none before the request ends, so
/// what a getter gave stays readable even if the field is set anew.
#[repr(transparent)]
pub struct Request(UnsafeCell<ffi::request_rec>);

/// `Options ExecCGI`, in the width httpd answers in.
#[allow(clippy::unnecessary_cast, reason = "versions of httpd differ")]
const OPT_EXECCGI: i32 = ffi::OPT_EXECCGI as i32;

/// What is at `r->filename`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Nothing, or nothing that may be looked at.
    Missing,
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// What httpd found out about the file at `r->filename`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// What it is.
    pub target: Target,
    /// Permission bits in APR's form (`0x0020` group write, `0x0002` world write).
    pub protection: u32,
    /// The owner.
    pub user: u32,
    /// The group.
    pub group: u32,
    /// When it changed: µs since the epoch.
    pub changed: i64,
}

impl Request {
    /// # Safety
    ///
    /// `r` is a request that is live for `'a` and used by this thread only.
    pub(super) unsafe fn borrow<'a>(r: *mut ffi::request_rec) -> &'a Self {
        // SAFETY: the caller's promise; the wrapper is transparent.
        unsafe { &*r.cast::<Self>() }
    }

    /// For calls into httpd.
    pub(super) const fn as_ptr(&self) -> *mut ffi::request_rec {
        self.0.get()
    }

    /// httpd's record; the reference is not kept over a call into httpd.
    pub(super) fn raw(&self) -> &ffi::request_rec {
        // SAFETY: `borrow`'s caller promised it is live; nobody writes while
        // one expression reads.
        unsafe { &*self.as_ptr() }
    }

    /// A string httpd keeps.
    pub(super) fn string(&self, text: *const c_char) -> Option<&[u8]> {
        // SAFETY: all strings of a request and its connection live in pools
        // that outlive the borrow.
        unsafe { text::bytes(text) }
    }

    /// The request's memory.
    pub fn pool(&self) -> &Pool {
        // SAFETY: lives as long as the request, on its thread.
        unsafe { Pool::borrow(self.raw().pool) }
    }

    /// The server or virtual host it is for.
    pub fn server(&self) -> &Server {
        // SAFETY: httpd's server records outlive requests.
        unsafe { Server::borrow(self.raw().server) }
    }

    /// Keeps a value until the request is over, in place of one that was kept before.
    pub fn keep<T: 'static>(&self, value: T) -> &T {
        let kept: &Box<dyn Any> = self.pool().own(Box::new(value) as Box<dyn Any>);
        // SAFETY: httpd's vector for this request, which is live and this thread's; the
        // value lives in the request's pool.
        unsafe { module::keep(self.raw().request_config, ptr::from_ref(kept).cast_mut().cast()) };
        kept.downcast_ref().expect("made of this type two lines above")
    }

    /// The value that is kept, if it is one of this type.
    pub fn kept<T: 'static>(&self) -> Option<&T> {
        // SAFETY: httpd's vector for this request.
        let kept = unsafe { module::record::<Box<dyn Any>>(self.raw().request_config) };
        // SAFETY: null or stored by `keep`, in memory that lives as long as the request.
        unsafe { kept.as_ref() }?.downcast_ref()
    }

    /// Our record for this request: defaults and sections merged.
    pub fn config(&self) -> Option<&DirConfig> {
        // SAFETY: httpd's vector for this request.
        let record = unsafe { module::record::<DirConfig>(self.raw().per_dir_config) };
        // SAFETY: made by our create or merge function; read-only by now.
        unsafe { record.as_ref() }
    }

    /// The method, as the client wrote it.
    pub fn method(&self) -> &[u8] {
        self.string(self.raw().method).unwrap_or_default()
    }

    /// Whether the method is `GET` or `HEAD`, which httpd counts as one.
    pub fn is_get_or_head(&self) -> bool {
        self.raw().method_number == ffi::M_GET
    }

    /// Whether only headers are to be sent.
    pub fn is_head(&self) -> bool {
        self.raw().header_only != 0
    }

    /// The path, unescaped and without query.
    pub fn uri(&self) -> &[u8] {
        self.string(self.raw().uri).unwrap_or_default()
    }

    /// The request line.
    pub fn request_line(&self) -> &[u8] {
        self.string(self.raw().the_request).unwrap_or_default()
    }

    /// The query.
    pub fn args(&self) -> Option<&[u8]> {
        self.string(self.raw().args)
    }

    /// What of the path is behind the file.
    pub fn path_info(&self) -> &[u8] {
        self.string(self.raw().path_info).unwrap_or_default()
    }

    /// The path without its path information; what mod_include makes up is
    /// left whole.
    pub fn script_name(&self) -> &[u8] {
        if self.path_info().is_empty() || self.protocol() == b"INCLUDED" {
            return self.uri();
        }
        let (uri, path_info) = (self.raw().uri, self.raw().path_info);
        // SAFETY: two C strings of the request; the second is not empty, and
        // httpd's requests have the first.
        let end = unsafe { ffi::ap_find_path_info(uri, path_info) };
        let end = usize::try_from(end).unwrap_or(0);
        self.uri().get(..end).unwrap_or_else(|| self.uri())
    }

    /// The file the URL was mapped to.
    pub fn filename(&self) -> Option<&[u8]> {
        self.string(self.raw().filename)
    }

    /// Maps the URL to this file; the two parts of its name become one.
    pub fn set_filename(&self, path: &[u8], rest: &[u8]) {
        let path = self.pool().text_of(path, rest).cast_mut();
        // SAFETY: the request is live and this thread's.
        unsafe { (*self.as_ptr()).filename = path };
    }

    /// Says what follows the file in the URL, before httpd looks for the file.
    pub fn set_path_info(&self, rest: &[u8]) {
        let rest = self.pool().text(rest).cast_mut();
        // SAFETY: the request is live and this thread's.
        unsafe { (*self.as_ptr()).path_info = rest };
    }

    /// The name of the handler it is for.
    pub fn handler(&self) -> Option<&[u8]> {
        self.string(self.raw().handler)
    }

    /// Chooses the handler.
    pub fn set_handler(&self, name: &'static CStr) {
        // SAFETY: the request is live and this thread's.
        unsafe { (*self.as_ptr()).handler = name.as_ptr() };
    }

    /// The host the client asked for.
    pub fn hostname(&self) -> Option<&[u8]> {
        self.string(self.raw().hostname)
    }

    /// "HTTP/1.1".
    pub fn protocol(&self) -> &[u8] {
        self.string(self.raw().protocol).unwrap_or_default()
    }

    /// The protocol's version: 1001 for HTTP/1.1.
    pub fn protocol_number(&self) -> u32 {
        u32::try_from(self.raw().proto_num).unwrap_or(0)
    }

    /// When the request line was read: µs since the epoch.
    pub fn request_time(&self) -> u64 {
        u64::try_from(self.raw().request_time).unwrap_or(0)
    }

    /// What httpd found at [`filename`](Self::filename).
    pub fn file(&self) -> FileInfo {
        let info = &self.raw().finfo;
        let target = match info.filetype {
            ffi::APR_NOFILE => Target::Missing,
            ffi::APR_REG => Target::File,
            ffi::APR_DIR => Target::Directory,
            _ => Target::Other,
        };
        FileInfo {
            target,
            protection: u32::try_from(info.protection).unwrap_or(0),
            user: info.user,
            group: info.group,
            changed: info.mtime,
        }
    }

    /// Whether `AcceptPathInfo Off` is in force.
    pub fn rejects_path_info(&self) -> bool {
        self.raw().used_path_info == ffi::WSGI_ACCEPT_PATHINFO_OFF as i32
    }

    /// Whether `Options ExecCGI` is in force.
    pub fn may_exec(&self) -> bool {
        // SAFETY: a borrowed request is live.
        let options = unsafe { ffi::ap_allow_options(self.as_ptr()) };
        options & OPT_EXECCGI != 0
    }

    /// `LimitRequestBody`; `None` if there is no limit.
    pub fn body_limit(&self) -> Option<u64> {
        // SAFETY: a borrowed request is live.
        let limit = unsafe { ffi::ap_get_limit_req_body(self.as_ptr()) };
        u64::try_from(limit).ok().filter(|&limit| limit > 0)
    }

    /// Notes modules leave for each other.
    pub fn notes(&self) -> Table<'_> {
        // SAFETY: the request's table and pool.
        unsafe { Table::borrow(self.raw().notes, self.pool()) }
    }

    /// Variables of `SetEnv`, `SetEnvIf`, `RewriteRule [E=…]` and modules.
    pub fn variables(&self) -> Table<'_> {
        // SAFETY: the request's table and pool.
        unsafe { Table::borrow(self.raw().subprocess_env, self.pool()) }
    }

    /// The client's headers.
    pub fn headers_in(&self) -> Table<'_> {
        // SAFETY: the request's table and pool.
        unsafe { Table::borrow(self.raw().headers_in, self.pool()) }
    }

    /// The answer's headers.
    pub fn headers_out(&self) -> Table<'_> {
        // SAFETY: the request's table and pool.
        unsafe { Table::borrow(self.raw().headers_out, self.pool()) }
    }

    /// The answer's headers that error documents keep.
    pub fn error_headers_out(&self) -> Table<'_> {
        // SAFETY: the request's table and pool.
        unsafe { Table::borrow(self.raw().err_headers_out, self.pool()) }
    }

    /// The authenticated user.
    pub fn user(&self) -> Option<&[u8]> {
        self.string(self.raw().user)
    }

    /// The kind of authentication that found the user.
    pub fn auth_type(&self) -> Option<&[u8]> {
        self.string(self.raw().ap_auth_type)
    }

    /// The request that was redirected here internally.
    pub fn previous(&self) -> Option<&Self> {
        let previous = self.raw().prev;
        // SAFETY: httpd keeps it as long as this request, on the same thread.
        (!previous.is_null()).then(|| unsafe { Self::borrow(previous) })
    }

    /// The port in URLs of this server (`UseCanonicalName`, …).
    pub fn server_port(&self) -> u16 {
        // SAFETY: a borrowed request is live.
        unsafe { ffi::ap_get_server_port(self.as_ptr()) }
    }

    /// The name in URLs of this server (`UseCanonicalName`).
    pub fn server_name(&self) -> &[u8] {
        // SAFETY: a borrowed request is live.
        self.string(unsafe { ffi::ap_get_server_name_for_url(self.as_ptr()) }).unwrap_or_default()
    }

    /// "http" or "https".
    pub fn scheme(&self) -> &[u8] {
        // SAFETY: a borrowed request is live; `ap_http_scheme` is the hook.
        self.string(unsafe { ffi::ap_run_http_scheme(self.as_ptr()) }).unwrap_or_default()
    }

    /// Whether mod_ssl says that the client uses TLS.
    pub fn is_https(&self) -> bool {
        // SAFETY: a request's connection is live.
        unsafe { ffi::wsgi_is_https(self.raw().connection) != 0 }
    }

    /// `DocumentRoot`, as virtual hosts and the like see it.
    pub fn document_root(&self) -> &[u8] {
        // SAFETY: a borrowed request is live.
        self.string(unsafe { ffi::ap_document_root(self.as_ptr()) }).unwrap_or_default()
    }

    /// The URL prefix of the context (`Alias`).
    pub fn context_prefix(&self) -> &[u8] {
        // SAFETY: a borrowed request is live.
        self.string(unsafe { ffi::ap_context_prefix(self.as_ptr()) }).unwrap_or_default()
    }

    /// The directory the context's prefix stands for.
    pub fn context_document_root(&self) -> &[u8] {
        // SAFETY: a borrowed request is live.
        self.string(unsafe { ffi::ap_context_document_root(self.as_ptr()) }).unwrap_or_default()
    }

    /// Whether `CGIPassAuth On` is in force.
    pub fn passes_auth_to_cgi(&self) -> bool {
        // SAFETY: a borrowed request is live.
        unsafe { ffi::wsgi_cgi_pass_auth(self.as_ptr()) != 0 }
    }

    /// Whether `QualifyRedirectURL On` is in force.
    pub fn qualifies_redirect_url(&self) -> bool {
        // SAFETY: a borrowed request is live.
        unsafe { ffi::wsgi_qualify_redirect_url(self.as_ptr()) != 0 }
    }

    /// Whether `CGIVar REQUEST_URI current-uri` is in force.
    pub fn wants_current_uri(&self) -> bool {
        // SAFETY: a borrowed request is live.
        unsafe { ffi::wsgi_request_uri_is_current(self.as_ptr()) != 0 }
    }

    /// `path` as a whole URL of this server.
    pub fn whole_url(&self, path: &[u8]) -> &[u8] {
        let path = self.pool().text(path);
        // SAFETY: request, pool and string are live.
        let url = unsafe { ffi::ap_construct_url(self.pool().as_ptr(), path, self.as_ptr()) };
        self.string(url).unwrap_or_default()
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        // SAFETY: a borrowed request is live.
        unsafe { ffi::wsgi_expecting_100(self.as_ptr()) != 0 }
    }

    /// Lets no `100 Continue` be sent any more: the answer has begun.
    pub fn forget_continue(&self) {
        // SAFETY: the request is live and this thread's.
        unsafe { ffi::wsgi_clear_expecting_100(self.as_ptr()) };
    }

    /// Tells the client that its body is wanted, if it waits for that and if
    /// the answer has not begun.
    ///
    /// A blocking read does so by itself, one without blocking does not.
    pub fn send_continue(&self) {
        if !self.expects_continue() || self.protocol_number() < 1001 || self.has_begun() {
            return;
        }
        let r = self.as_ptr();
        let (status, line) = (self.raw().status, self.raw().status_line);
        // SAFETY: the request is live and this thread's.
        unsafe { (*r).status = ffi::HTTP_CONTINUE };
        // SAFETY: as above.
        unsafe { (*r).status_line = ptr::null() };
        // SAFETY: a borrowed request is live.  This clears the expectation.
        unsafe { ffi::ap_send_interim_response(r, 0) };
        // SAFETY: the request is live and this thread's.
        unsafe { (*r).status_line = line };
        // SAFETY: as above.
        unsafe { (*r).status = status };
    }

    /// Whether the client has been sent the headers of the answer.
    pub fn has_begun(&self) -> bool {
        self.raw().sent_bodyct != 0
    }

    /// Whether an answer has been sent to its end, by us or by a filter.
    pub fn is_answered(&self) -> bool {
        // SAFETY: a borrowed request is live.
        unsafe { ffi::wsgi_eos_sent(self.as_ptr()) != 0 }
    }

    /// Answers with `status`, and with `line` ("404 Not Found") as written.
    pub fn set_status(&self, status: u16, line: &[u8]) {
        let line = self.pool().text(line);
        let r = self.as_ptr();
        // SAFETY: the request is live and this thread's.
        unsafe { (*r).status = i32::from(status) };
        // SAFETY: as above.
        unsafe { (*r).status_line = line };
    }

    /// Sets the content type the way httpd's own modules do, so that
    /// `AddDefaultCharset` and `AddOutputFilterByType` act on it.
    pub fn set_content_type(&self, content_type: &[u8]) {
        let content_type = self.pool().text(content_type);
        // SAFETY: the request is live; the string lives in its pool.
        unsafe { ffi::ap_set_content_type(self.as_ptr(), content_type) };
    }

    /// Takes back what httpd guessed from the name of the file.
    pub fn clear_content_type(&self) {
        // SAFETY: the request is live; null is how httpd says "none".
        unsafe { ffi::ap_set_content_type(self.as_ptr(), ptr::null()) };
    }

    /// Announces the length of the answer's body.
    pub fn set_content_length(&self, length: u64) {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        // SAFETY: a borrowed request is live.
        unsafe { ffi::ap_set_content_length(self.as_ptr(), length) };
    }

    /// Answers with another resource of this server, asked for with `GET`.
    pub fn redirect_internally(&self, uri: &[u8]) {
        let r = self.as_ptr();
        // SAFETY: the request is live and this thread's.
        unsafe { (*r).method = c"GET".as_ptr() };
        // SAFETY: as above.
        unsafe { (*r).method_number = ffi::M_GET };
        // The body belonged to the first request.
        self.headers_in().unset(b"Content-Length");
        // SAFETY: the request is live; the string lives in its pool.
        unsafe { ffi::ap_internal_redirect_handler(self.pool().text(uri), r) };
    }

    /// Whether the first output filter works on content rather than protocol:
    /// it may want a body even for `HEAD`.
    pub fn has_content_filter(&self) -> bool {
        let filter = self.raw().output_filters;
        if filter.is_null() {
            return false;
        }
        // SAFETY: the request's live chain.
        let record = unsafe { (*filter).frec };
        // SAFETY: every filter has its record.
        !record.is_null() && unsafe { (*record).ftype } < ffi::AP_FTYPE_PROTOCOL
    }
}
