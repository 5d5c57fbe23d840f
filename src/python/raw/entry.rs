//! The doors a host comes in by.

use super::guard;
use super::host::{Apache, HostLog, HostRequest, Settings, Telemetry};
use super::options;
use crate::provider::{self, Question};
use crate::{events, request, runtime, telemetry, watch};
use core::ffi::c_int;
use wsgi_wire::vtable::{self, ABI, Bytes, Host, Runtime, Start, outcome, reply};

/// # Safety
///
/// For a host only, as [`Runtime::abandon`] says.
unsafe extern "C" fn abandon() {
    guard((), telemetry::abandon);
}

/// The table a host gets.
static RUNTIME: Runtime = Runtime {
    size: size_of::<Runtime>() as u32,
    abi: ABI,
    start,
    load_script,
    handle,
    ask,
    stop,
    beat,
    interrupt,
    stacks,
    signal,
    stopping,
    abandon,
};

/// Gives the table; see [`vtable::ENTRY`].
///
/// # Safety
///
/// For a host only.
#[unsafe(no_mangle)]
unsafe extern "C" fn wsgi_python_runtime() -> *const Runtime {
    &raw const RUNTIME
}

/// # Safety
///
/// For a host only, as [`Runtime::start`] says.
unsafe extern "C" fn start(start: *const Start) -> c_int {
    guard(-1, || {
        // SAFETY: the host lends a start table for this call.
        let Some(start) = (unsafe { start.as_ref() }) else { return -1 };
        let sizes = (start.size as usize, start.abi);
        if sizes != (size_of::<Start>(), ABI) {
            return -1;
        }
        // SAFETY: the host promises a table that stays valid.
        let Some(host) = (unsafe { start.host.as_ref() }) else { return -1 };
        if (host.size as usize, host.abi) != (size_of::<Host>(), ABI) {
            return -1;
        }
        // SAFETY: the host lends a table of options for this call.
        let Some(options) = (unsafe { start.options.as_ref() }) else { return -1 };
        // SAFETY: the `host` of a start table.
        let log = unsafe { HostLog::borrow(host) };
        let settings = Settings {
            program: copy(start.program),
            python_path: copy(start.python_path),
            home: copy(start.home),
            user_name: copy(start.user_name),
            user_home: copy(start.user_home),
            process_group: copy(start.process_group),
            maximum_processes: start.maximum_processes,
            threads_per_process: start.threads_per_process,
            apache_version: start.apache_version,
            apache: Apache {
                maximum_processes: start.apache.maximum_processes,
                threads_per_process: start.apache.threads_per_process,
                description: copy(start.apache.description),
                mpm_name: copy(start.apache.mpm_name),
                build_date: copy(start.apache.build_date),
            },
            multithread: start.multithread != 0,
            multiprocess: start.multiprocess != 0,
            run_once: start.run_once != 0,
            reload_in_place: start.reload_in_place != 0,
            service: start.service != 0,
            stdout_level: start.stdout_level,
            stderr_level: start.stderr_level,
            switch_interval: (start.switch_interval > 0.0).then_some(start.switch_interval),
            stacks_signal: (start.stacks_signal > 0).then_some(start.stacks_signal),
            telemetry: Telemetry::new(&start.telemetry, copy(start.telemetry.service)),
            // SAFETY: of the start table, in the call that lends it.
            options: unsafe { options::copy(options) },
        };
        if runtime::start(log, settings) { 0 } else { -1 }
    })
}

/// A copy of what a host lends.
fn copy(bytes: Bytes) -> Vec<u8> {
    // SAFETY: only called on values received in the call that is running.
    unsafe { bytes.as_slice() }.to_vec()
}

/// # Safety
///
/// For a host only, as [`Runtime::load_script`] says.
unsafe extern "C" fn load_script(application_group: Bytes, script: Bytes) -> c_int {
    guard(-1, || {
        // SAFETY: received in this call.
        let group = unsafe { application_group.as_slice() };
        // SAFETY: received in this call.
        let script = unsafe { script.as_slice() };
        if request::load(group, script) { 0 } else { -1 }
    })
}

/// # Safety
///
/// For a host only, as [`Runtime::handle`] says.
unsafe extern "C" fn handle(request: *mut vtable::HostRequest, head: Bytes) -> c_int {
    guard(outcome::CUT, || {
        let Some(runtime) = runtime::running() else { return outcome::FAILED };
        // SAFETY: the request of this call; `request::handle` drops it before it returns.
        let Some(request) = (unsafe { HostRequest::borrow(runtime.log, request) }) else {
            return outcome::FAILED;
        };
        // SAFETY: received in this call.
        request::handle(runtime, request, unsafe { head.as_slice() })
    })
}

/// # Safety
///
/// For a host only, as [`Runtime::ask`] says.
unsafe extern "C" fn ask(
    request: *mut vtable::HostRequest,
    head: Bytes,
    question: *const vtable::Question,
) -> c_int {
    guard(reply::FAILED, || {
        let Some(runtime) = runtime::running() else { return reply::UNLOADED };
        // SAFETY: the host lends a question for this call.
        let Some(question) = (unsafe { question.as_ref() }) else { return reply::FAILED };
        // SAFETY: the request of this call; `provider::ask` drops it before it returns.
        let Some(request) = (unsafe { HostRequest::borrow(runtime.log, request) }) else {
            return reply::FAILED;
        };
        // SAFETY: received in this call.
        let who = unsafe { question.who.as_slice() };
        // SAFETY: received in this call.
        let what = unsafe { question.what.as_slice() };
        let question = Question { kind: question.kind, who, what };
        // SAFETY: received in this call.
        provider::ask(runtime, request, unsafe { head.as_slice() }, question)
    })
}

/// # Safety
///
/// For a host only, as [`Runtime::stop`] says.
unsafe extern "C" fn stop() {
    guard((), runtime::stop);
}

/// # Safety
///
/// For a host only, as [`Runtime::beat`] says.
unsafe extern "C" fn beat() {
    guard((), watch::beat);
}

/// # Safety
///
/// For a host only, as [`Runtime::interrupt`] says.
unsafe extern "C" fn interrupt(request: u64) -> c_int {
    guard(-1, || if watch::interrupt(request) { 0 } else { -1 })
}

/// # Safety
///
/// For a host only, as [`Runtime::stacks`] says.
unsafe extern "C" fn stacks() {
    guard((), watch::stacks);
}

/// # Safety
///
/// For a host only, as [`Runtime::signal`] says.
unsafe extern "C" fn signal(number: c_int) {
    guard((), || events::signal(number));
}

/// # Safety
///
/// For a host only, as [`Runtime::stopping`] says.
unsafe extern "C" fn stopping(reason: Bytes) {
    // SAFETY: received in this call.
    guard((), || events::stopping(unsafe { reason.as_slice() }));
}
