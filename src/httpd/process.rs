//! What httpd knows about itself: root, user, MPM, stage of start-up.

use core::ffi::{CStr, c_int};

use super::pool::Pool;
use super::text;
use crate::ffi;

/// Which of the runs of the configuration this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// httpd has not begun to read it.
    Initial,
    /// The first of two passes at start: nothing is started yet.
    FirstPass,
    /// Only a test (`-t`) or a dump (`-S`).
    Test,
    /// The pass before the first children are forked.
    Start,
    /// A later restart.
    Restart,
    /// The configuration is being taken down, to leave or to read another.
    Down,
}

/// Which of the runs of the configuration this is.
pub fn stage() -> Stage {
    if state(ffi::AP_SQ_RUN_MODE) == ffi::AP_SQ_RM_CONFIG_TEST
        || state(ffi::AP_SQ_RUN_MODE) == ffi::AP_SQ_RM_CONFIG_DUMP
    {
        return Stage::Test;
    }
    match state(ffi::AP_SQ_MAIN_STATE) {
        ffi::AP_SQ_MS_INITIAL_STARTUP => Stage::Initial,
        ffi::AP_SQ_MS_CREATE_PRE_CONFIG => Stage::FirstPass,
        ffi::AP_SQ_MS_EXITING | ffi::AP_SQ_MS_DESTROY_CONFIG => Stage::Down,
        _ if state(ffi::AP_SQ_CONFIG_GEN) > 1 => Stage::Restart,
        _ => Stage::Start,
    }
}

/// An answer of `ap_state_query`.
fn state(question: c_int) -> c_int {
    // SAFETY: reads httpd's own variables.
    unsafe { ffi::ap_state_query(question) }
}

/// What the MPM is like.  Ask from post_config on: earlier there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mpm {
    /// Whether child processes have several threads.
    pub is_threaded: bool,
    /// Whether connections wait without a thread.
    pub is_async: bool,
    /// Most child processes there may be (`MaxRequestWorkers`, `ServerLimit`).
    pub most_processes: u32,
    /// Whether there may be more child processes than there have been so far
    /// (`ServerLimit`).
    pub has_room: bool,
    /// Most threads a child process may have.
    pub threads: u32,
    /// How often children have been replaced by a restart.
    pub generation: u32,
}

/// Asks the MPM; call from post_config on.
pub fn mpm() -> Mpm {
    let number = |question| u32::try_from(ask(question)).unwrap_or(0);
    Mpm {
        is_threaded: ask(ffi::AP_MPMQ_IS_THREADED) != ffi::AP_MPMQ_NOT_SUPPORTED,
        is_async: ask(ffi::AP_MPMQ_IS_ASYNC) > 0,
        most_processes: number(ffi::AP_MPMQ_MAX_DAEMONS),
        has_room: number(ffi::AP_MPMQ_MAX_DAEMON_USED) < number(ffi::AP_MPMQ_HARD_LIMIT_DAEMONS),
        // 0 in an MPM without threads.
        threads: number(ffi::AP_MPMQ_MAX_THREADS).max(1),
        generation: number(ffi::AP_MPMQ_GENERATION),
    }
}

/// Whether the MPM is about to leave; child processes ask while they wait.
pub fn is_stopping() -> bool {
    ask(ffi::AP_MPMQ_MPM_STATE) == ffi::AP_MPMQ_STOPPING
}

/// An answer of the MPM; 0 if it has none.
fn ask(question: c_int) -> c_int {
    let mut answer = 0;
    // SAFETY: the answer is written to our variable.
    let status = unsafe { ffi::ap_mpm_query(question, &raw mut answer) };
    if status == 0 { answer } else { 0 }
}

/// Whether httpd runs as one process, for debugging (`-X`).
pub fn is_single() -> bool {
    // SAFETY: reads httpd's list of `-D` names.
    let one_process = unsafe { ffi::ap_exists_config_define(c"ONE_PROCESS".as_ptr()) };
    // SAFETY: as above.
    one_process != 0 || unsafe { ffi::ap_exists_config_define(c"DEBUG".as_ptr()) } != 0
}

/// The user and group child processes change to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `User`.
    pub user_name: Vec<u8>,
    /// Its number.
    pub user: u32,
    /// `Group`.
    pub group_name: Vec<u8>,
    /// Its number.
    pub group: u32,
}

/// `User` and `Group`.
pub fn identity() -> Identity {
    // SAFETY: httpd's variable, written while the configuration is read.
    let config = unsafe { ffi::ap_unixd_config };
    Identity {
        // SAFETY: a string that lives as long as the configuration, or null.
        user_name: unsafe { text::bytes(config.user_name) }.unwrap_or_default().to_vec(),
        user: config.user_id,
        // SAFETY: as above.
        group_name: unsafe { text::bytes(config.group_name) }.unwrap_or_default().to_vec(),
        group: config.group_id,
    }
}

/// The `Server:` line, as `ServerTokens` wants it.
pub fn banner() -> &'static [u8] {
    // SAFETY: asks for a string.
    let banner = unsafe { ffi::ap_get_server_banner() };
    // SAFETY: it lives as long as the configuration.
    unsafe { text::bytes(banner) }.unwrap_or_default()
}

/// The `Server:` line with everything, whatever `ServerTokens` says.
pub fn description() -> &'static [u8] {
    // SAFETY: asks for a string.
    let description = unsafe { ffi::ap_get_server_description() };
    // SAFETY: it lives as long as the configuration.
    unsafe { text::bytes(description) }.unwrap_or_default()
}

/// When httpd was built.
pub fn build_date() -> &'static [u8] {
    // SAFETY: asks for a string.
    let date = unsafe { ffi::ap_get_server_built() };
    // SAFETY: a text of the program.
    unsafe { text::bytes(date) }.unwrap_or_default()
}

/// Name of the MPM; call from post_config on.
pub fn mpm_name() -> &'static [u8] {
    // SAFETY: asks for a string.
    let name = unsafe { ffi::ap_show_mpm() };
    // SAFETY: a text of the MPM, which stays loaded.
    unsafe { text::bytes(name) }.unwrap_or_default()
}

/// Adds `component` ("mod_wsgi/6.1.1") to the `Server:` line.
pub fn add_version_component(conf: &Pool, component: &CStr) {
    // SAFETY: httpd's pool and a C string, which httpd copies.
    unsafe { ffi::ap_add_version_component(conf.as_ptr(), component.as_ptr()) };
}
