//! The record `LoadModule` looks for, and the records httpd keeps for us.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_ulong, c_void};
use core::ptr;

use super::command::Command;
use super::guard::{guard, log_panics};
use super::pool::Pool;
use crate::config::{DirConfig, ServerConfig};
use crate::ffi;

/// What a module brings along.
pub trait Module {
    /// What `<IfModule>` and the hook order of other modules know it by.
    const NAME: &'static CStr;
    /// Its directives.
    const COMMANDS: &'static [Command];

    /// Joins httpd's hooks; the pool lives as long as the configuration.
    fn register_hooks(pool: &Pool);
}

/// The module record; httpd writes its index into it.
#[repr(transparent)]
pub struct ModuleRecord(UnsafeCell<ffi::module>);

// SAFETY: httpd writes the record while it loads modules, on its only thread;
// later it is read-only.
unsafe impl Sync for ModuleRecord {}

impl ModuleRecord {
    /// The record of `M`.
    pub const fn new<M: Module>() -> Self {
        Self(UnsafeCell::new(ffi::module {
            version: ffi::MODULE_MAGIC_NUMBER_MAJOR,
            minor_version: ffi::MODULE_MAGIC_NUMBER_MINOR,
            module_index: -1,
            name: M::NAME.as_ptr(),
            dynamic_load_handle: ptr::null_mut(),
            next: ptr::null_mut(),
            magic: ffi::MODULE_MAGIC_COOKIE as c_ulong,
            rewrite_args: None,
            create_dir_config: Some(create_dir),
            merge_dir_config: Some(merge_dir),
            create_server_config: Some(create_server),
            merge_server_config: Some(merge_server),
            cmds: M::COMMANDS.as_ptr().cast(),
            register_hooks: Some(register_hooks::<M>),
            flags: 0,
        }))
    }

    /// For calls into httpd.
    pub(super) const fn as_ptr(&self) -> *mut ffi::module {
        self.0.get()
    }
}

/// The number httpd gave our module.
pub(super) fn index() -> c_int {
    // SAFETY: our own static; httpd wrote it when it loaded us.
    unsafe { (*crate::wsgi_module.as_ptr()).module_index }
}

/// Our record in a vector of records; null if there is none.
///
/// # Safety
///
/// `vector` is null or a live vector of httpd's.
pub(super) unsafe fn record<T>(vector: *const ffi::ap_conf_vector_t) -> *mut T {
    if vector.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the caller's promise, and the module record is our static.
    unsafe { ffi::ap_get_module_config(vector, crate::wsgi_module.as_ptr()) }.cast()
}

/// Stores our record in a vector of records.
///
/// # Safety
///
/// `vector` is a live vector of httpd's that only this thread uses; the record lives as
/// long.
pub(super) unsafe fn keep(vector: *mut ffi::ap_conf_vector_t, record: *mut c_void) {
    // SAFETY: the caller's promise, and the module record is our static.
    unsafe { ffi::ap_set_module_config(vector, crate::wsgi_module.as_ptr(), record) };
}

/// # Safety
///
/// For httpd only, through the module record.
unsafe extern "C" fn register_hooks<M: Module>(pool: *mut ffi::apr_pool_t) {
    guard((), || {
        log_panics();
        // SAFETY: httpd's pool of the configuration.
        M::register_hooks(unsafe { Pool::borrow(pool) });
    });
}

/// # Safety
///
/// For httpd only, through the module record.
unsafe extern "C" fn create_dir(pool: *mut ffi::apr_pool_t, _dir: *mut c_char) -> *mut c_void {
    guard(ptr::null_mut(), || {
        // SAFETY: httpd's pool for this record.
        unsafe { Pool::borrow(pool) }.own_raw(DirConfig::new())
    })
}

/// # Safety
///
/// For httpd only, through the module record.
unsafe extern "C" fn merge_dir(
    pool: *mut ffi::apr_pool_t,
    base: *mut c_void,
    new: *mut c_void,
) -> *mut c_void {
    guard(base, || {
        // SAFETY: made by `create_dir` or here, alive as long as the result.
        let base = unsafe { &*base.cast::<DirConfig>() };
        // SAFETY: as above.
        let new = unsafe { &*new.cast::<DirConfig>() };
        // SAFETY: httpd's pool for the merged record.
        unsafe { Pool::borrow(pool) }.own_raw(DirConfig::merge(base, new))
    })
}

/// # Safety
///
/// For httpd only, through the module record.
unsafe extern "C" fn create_server(
    pool: *mut ffi::apr_pool_t,
    _server: *mut ffi::server_rec,
) -> *mut c_void {
    guard(ptr::null_mut(), || {
        // SAFETY: httpd's pool for this record.
        unsafe { Pool::borrow(pool) }.own_raw(ServerConfig::new())
    })
}

/// # Safety
///
/// For httpd only, through the module record.
unsafe extern "C" fn merge_server(
    pool: *mut ffi::apr_pool_t,
    base: *mut c_void,
    new: *mut c_void,
) -> *mut c_void {
    guard(base, || {
        // SAFETY: made by `create_server`, alive as long as the result.
        let base = unsafe { &*base.cast::<ServerConfig>() };
        // SAFETY: as above.
        let new = unsafe { &*new.cast::<ServerConfig>() };
        // SAFETY: httpd's pool for the merged record.
        unsafe { Pool::borrow(pool) }.own_raw(ServerConfig::merge(base, new))
    })
}
