//! The command table: rows our settings are written in, and the C functions
//! httpd calls for them.
//!
//! A row's address travels in `cmd_data`, so one C function per style of
//! arguments serves every directive.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt::Display;
use core::marker::PhantomData;
use core::ptr;

use super::guard::guard;
use super::pool::Pool;
use super::server::Server;
use super::text;
use crate::config::interpreter_directives as interpreters;
use crate::config::{DirConfig, DirectiveError, ServerConfig};
use crate::ffi;

/// Where a directive may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The main server or a virtual host (`RSRC_CONF`).
    Server,
    /// The main server only (`RSRC_CONF`, then `GLOBAL_ONLY` when it is read).
    Global,
    /// As [`Global`](Self::Global); in [`SECTION`] it is said of some interpreters.
    GlobalOrBlock,
    /// A server or a section, not `.htaccess` (`ACCESS_CONF | RSRC_CONF`).
    ServerOrDirectory,
    /// Anywhere; `.htaccess` needs `AllowOverride FileInfo` (`OR_FILEINFO`).
    FileInfo,
    /// Sections; `.htaccess` needs `AllowOverride AuthConfig` (`OR_AUTHCFG`).
    AuthConfig,
}

impl Place {
    /// httpd's word for it.
    const fn bits(self) -> c_int {
        match self {
            Self::Server | Self::Global | Self::GlobalOrBlock => ffi::RSRC_CONF,
            Self::ServerOrDirectory => ffi::ACCESS_CONF | ffi::RSRC_CONF,
            Self::FileInfo => ffi::OR_FILEINFO,
            Self::AuthConfig => ffi::OR_AUTHCFG,
        }
    }
}

/// What a reader returns; the shim puts the directive's name before the error.
pub type Reading = Result<(), DirectiveError>;

/// What reads a directive's arguments.
#[derive(Clone, Copy)]
pub enum Reader {
    /// Exactly one argument.
    Take1(fn(&mut Scope<'_>, &[u8]) -> Reading),
    /// Everything behind the name, word by word.
    Raw(fn(&mut Scope<'_>, &mut Words<'_>) -> Reading),
    /// As [`Raw`](Self::Raw), of a section; the directives in it are read next.
    Section(fn(&mut Scope<'_>, &mut Words<'_>) -> Reading),
}

/// The one section of ours.
pub const SECTION: &CStr = c"<WSGIInterpreterOptions";

/// A row of the table of directives.
pub struct Directive {
    /// As the configuration spells it.
    pub name: &'static CStr,
    /// Where it may stand.
    pub place: Place,
    /// What reads it.
    pub reader: Reader,
    /// The usage text httpd prints.
    pub usage: &'static CStr,
}

impl Directive {
    /// A directive with exactly one argument.
    pub const fn take1(
        name: &'static CStr,
        place: Place,
        reader: fn(&mut Scope<'_>, &[u8]) -> Reading,
        usage: &'static CStr,
    ) -> Self {
        Self { name, place, reader: Reader::Take1(reader), usage }
    }

    /// A directive that splits its arguments itself.
    pub const fn raw(
        name: &'static CStr,
        place: Place,
        reader: fn(&mut Scope<'_>, &mut Words<'_>) -> Reading,
        usage: &'static CStr,
    ) -> Self {
        Self { name, place, reader: Reader::Raw(reader), usage }
    }

    /// A section.
    pub const fn section(
        name: &'static CStr,
        place: Place,
        reader: fn(&mut Scope<'_>, &mut Words<'_>) -> Reading,
        usage: &'static CStr,
    ) -> Self {
        Self { name, place, reader: Reader::Section(reader), usage }
    }

    /// The row as httpd reads it.
    const fn command(&'static self) -> Command {
        let (func, args_how) = match self.reader {
            Reader::Take1(_) => (ffi::cmd_func { take1: Some(take1) }, ffi::TAKE1),
            Reader::Raw(_) => (ffi::cmd_func { raw_args: Some(raw_args) }, ffi::RAW_ARGS),
            Reader::Section(_) => (ffi::cmd_func { raw_args: Some(section) }, ffi::RAW_ARGS),
        };
        Command(ffi::command_rec {
            name: self.name.as_ptr(),
            func,
            cmd_data: ptr::from_ref(self).cast_mut().cast(),
            req_override: self.place.bits(),
            args_how,
            errmsg: self.usage.as_ptr(),
        })
    }
}

/// A row in the form httpd reads.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Command(ffi::command_rec);

// SAFETY: a row holds addresses of statics and is never written.
unsafe impl Sync for Command {}

impl Command {
    /// The row that ends the table.
    pub const END: Self = Self(ffi::command_rec {
        name: ptr::null(),
        func: ffi::cmd_func { no_args: None },
        cmd_data: ptr::null_mut(),
        req_override: 0,
        args_how: ffi::RAW_ARGS,
        errmsg: ptr::null(),
    });
}

/// `rows` in the form httpd reads, with the end marked; `M` is `N + 1`.
pub const fn commands<const N: usize, const M: usize>(
    rows: &'static [Directive; N],
) -> [Command; M] {
    assert!(M == N + 1, "one row more, for the end");
    let mut table = [Command::END; M];
    let mut at = 0;
    while at < N {
        table[at] = rows[at].command();
        at += 1;
    }
    table
}

/// Where a directive stands, and the records it may write to.
///
/// The records are written while httpd reads its configuration and never after.
pub struct Scope<'c> {
    /// The record of the server (or virtual host) the directive stands in; in
    /// `.htaccess` one that is thrown away.
    pub server: &'c mut ServerConfig,
    /// The record of the section it stands in.  Outside any section this is
    /// the server's record of defaults, which httpd itself merges under every
    /// section: a request's `DirConfig` already contains it.
    pub dir: &'c mut DirConfig,
    cmd: *mut ffi::cmd_parms,
}

impl<'c> Scope<'c> {
    /// Where `cmd` stands; `None` if httpd forgot to make our records.  What a
    /// directive in `.htaccess` says of its server goes to `nowhere`.
    ///
    /// # Safety
    ///
    /// `cmd` and `dir_config` are what httpd handed to a command function; no
    /// other `Scope` made of them is used while this one is.
    unsafe fn borrow(
        cmd: *mut ffi::cmd_parms,
        dir_config: *mut c_void,
        nowhere: &'c mut ServerConfig,
    ) -> Option<Self> {
        // SAFETY: the caller's promise.
        let parms = unsafe { &*cmd };
        // SAFETY: the caller's promise; only asks where `cmd` stands.
        let htaccess = unsafe { ffi::ap_check_cmd_context(cmd, ffi::WSGI_NOT_IN_HTACCESS as _) };
        let server = if htaccess.is_null() {
            // SAFETY: httpd keeps the server a directive stands in alive.
            let server = unsafe { Server::borrow(parms.server) };
            // SAFETY: made by `module::create_server`, and by the caller's promise
            // nobody else looks at it: the configuration is read by one thread.
            unsafe { server.config_ptr().as_mut() }?
        } else {
            // Read while requests are served: other threads look at the server's.
            nowhere
        };
        // SAFETY: made by `module::create_dir`; else as above.
        let dir = unsafe { dir_config.cast::<DirConfig>().as_mut() }?;
        Some(Self { server, dir, cmd })
    }

    /// What httpd knows about this directive.
    fn parms(&self) -> &ffi::cmd_parms {
        // SAFETY: `borrow`'s caller promised it lives while the scope does.
        unsafe { &*self.cmd }
    }

    /// The server the directive stands in.
    pub fn server_record(&self) -> &Server {
        // SAFETY: httpd keeps the server a directive stands in alive.
        unsafe { Server::borrow(self.parms().server) }
    }

    /// Whether it stands outside every `<VirtualHost>`.
    pub fn is_main(&self) -> bool {
        !self.server_record().is_virtual()
    }

    /// The file the directive was read from.
    pub fn file(&self) -> Vec<u8> {
        self.directive().map_or_else(Vec::new, |directive| {
            // SAFETY: httpd's own file name, or null.
            unsafe { text::bytes(directive.filename) }.unwrap_or_default().to_vec()
        })
    }

    /// The line it stands on.
    pub fn line(&self) -> u32 {
        self.directive().map_or(0, |directive| u32::try_from(directive.line_num).unwrap_or(0))
    }

    /// The directive as httpd parsed it.
    fn directive(&self) -> Option<&ffi::ap_directive_t> {
        // SAFETY: null or in httpd's tree, which outlives the reading.
        unsafe { self.parms().directive.as_ref() }
    }

    /// Whether it stands inside [`SECTION`].
    pub fn is_in_section(&self) -> bool {
        let mut outer = self.directive().map_or(ptr::null_mut(), |directive| directive.parent);
        // SAFETY: null or in httpd's tree, which outlives the reading.
        while let Some(directive) = unsafe { outer.as_ref() } {
            // SAFETY: a name in httpd's tree, or null.
            let name = unsafe { text::bytes(directive.directive) }.unwrap_or_default();
            if name.eq_ignore_ascii_case(SECTION.to_bytes()) {
                return true;
            }
            outer = directive.parent;
        }
        false
    }

    /// `path` below `ServerRoot` unless it is absolute; `None` if it is no path.
    pub fn resolve(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.pool().root_relative(path)
    }

    /// Memory for the time of this configuration.
    fn pool(&self) -> &Pool {
        // SAFETY: httpd's configuration pool, which outlives the reading.
        unsafe { Pool::borrow(self.parms().pool) }
    }
}

/// The words of a directive's arguments, split as httpd splits them.
pub struct Words<'a> {
    rest: *const c_char,
    pool: *mut ffi::apr_pool_t,
    _line: PhantomData<&'a [u8]>,
}

impl<'a> Words<'a> {
    /// What has not been read, without blanks before it.
    pub fn rest(&self) -> &'a [u8] {
        // SAFETY: a C string that httpd keeps for this directive.
        unsafe { text::bytes(self.rest) }.unwrap_or_default().trim_ascii_start()
    }
}

impl Iterator for Words<'_> {
    type Item = Vec<u8>;

    /// The next word; quotes and backslashes work as everywhere in httpd.
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.rest().is_empty() {
            return None;
        }
        // SAFETY: pool and string are httpd's, of this directive.
        let word = unsafe { ffi::ap_getword_conf(self.pool, &raw mut self.rest) };
        // SAFETY: a fresh C string, or null.
        unsafe { text::bytes(word) }.map(<[u8]>::to_vec)
    }
}

/// Calls `read` with the row and the scope of a directive; what it returns is
/// the error text httpd wants, or null.
///
/// # Safety
///
/// `cmd` and `dir_config` are what httpd handed to a command function of a
/// row that [`Directive::command`] made.
unsafe fn serve(
    cmd: *mut ffi::cmd_parms,
    dir_config: *mut c_void,
    read: impl FnOnce(&Directive, &mut Scope<'_>) -> Reading,
) -> *const c_char {
    guard(c"a panic stopped the directive".as_ptr(), || {
        let mut nowhere = ServerConfig::default();
        // SAFETY: the caller's promise.
        let Some(mut scope) = (unsafe { Scope::borrow(cmd, dir_config, &mut nowhere) }) else {
            return c"the module has no record for this server".as_ptr();
        };
        // SAFETY: httpd hands every command function its row.
        let row = unsafe { &*scope.parms().cmd };
        // SAFETY: `Directive::command` put the address of a static there.
        let row = unsafe { &*row.cmd_data.cast::<Directive>() };
        if matches!(row.place, Place::Global | Place::GlobalOrBlock) {
            // SAFETY: `cmd` is what httpd handed to us.
            let refusal = unsafe { ffi::ap_check_cmd_context(cmd, ffi::WSGI_GLOBAL_ONLY as _) };
            if !refusal.is_null() {
                return refusal;
            }
        }
        if row.place != Place::GlobalOrBlock && scope.is_in_section() {
            let name = row.name.to_string_lossy().into_owned();
            interpreters::note_stray(&mut scope, name);
        }
        match read(row, &mut scope) {
            Ok(()) => ptr::null(),
            Err(error) => refuse(row, &scope, &error),
        }
    })
}

/// The text httpd prints for `error`.
fn refuse(row: &Directive, scope: &Scope<'_>, error: &dyn Display) -> *const c_char {
    let name = row.name.to_string_lossy();
    let name = name.trim_start_matches('<');
    scope.pool().text(format!("{name}: {error}").as_bytes())
}

/// # Safety
///
/// For httpd only, through a row of [`commands`].
unsafe extern "C" fn take1(
    cmd: *mut ffi::cmd_parms,
    dir_config: *mut c_void,
    first: *const c_char,
) -> *const c_char {
    let read = |row: &Directive, scope: &mut Scope<'_>| {
        // SAFETY: httpd's argument, which lives as long as the configuration.
        let first = unsafe { text::bytes(first) }.unwrap_or_default();
        match row.reader {
            Reader::Take1(read) => read(scope, first),
            _ => Ok(()),
        }
    };
    // SAFETY: httpd called us for one of our rows.
    unsafe { serve(cmd, dir_config, read) }
}

/// # Safety
///
/// For httpd only, through a row of [`commands`].
unsafe extern "C" fn raw_args(
    cmd: *mut ffi::cmd_parms,
    dir_config: *mut c_void,
    args: *const c_char,
) -> *const c_char {
    let read = |row: &Directive, scope: &mut Scope<'_>| {
        let pool = scope.parms().pool;
        let mut words = Words { rest: args, pool, _line: PhantomData };
        match row.reader {
            Reader::Raw(read) | Reader::Section(read) => read(scope, &mut words),
            Reader::Take1(_) => Ok(()),
        }
    };
    // SAFETY: httpd called us for one of our rows.
    unsafe { serve(cmd, dir_config, read) }
}

/// Reads a section, then what stands in it.
///
/// # Safety
///
/// For httpd only, through a row of [`commands`].
unsafe extern "C" fn section(
    cmd: *mut ffi::cmd_parms,
    dir_config: *mut c_void,
    args: *const c_char,
) -> *const c_char {
    // SAFETY: what httpd called us with.
    let refusal = unsafe { raw_args(cmd, dir_config, args) };
    if !refusal.is_null() {
        return refusal;
    }
    // SAFETY: what httpd handed to us; the scope that borrowed it is gone.
    let parms = unsafe { &*cmd };
    // SAFETY: null or in httpd's tree, which outlives the reading.
    let Some(directive) = (unsafe { parms.directive.as_ref() }) else { return ptr::null() };
    let (first, records) = (directive.first_child, parms.context);
    // SAFETY: the directives in the section, for the records it is read for itself, as
    // httpd's own sections do it; calls us again for those that are ours.
    unsafe { ffi::ap_walk_config(first, cmd, records) }
}
