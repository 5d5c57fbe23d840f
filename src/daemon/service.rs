//! A daemon process that serves no requests (`threads=0`): it runs its import
//! scripts on the main thread, for as long as they like.
//!
//! The main thread is the application's.  What the supervisor says is heard by a
//! thread beside it, which passes it on as a `SIGTERM`: the runtime has that raise
//! `SystemExit` where the script is.
#![forbid(unsafe_code)]

use super::announcer::Announcer;
use super::control::{self, Message, ToDaemon, ToSupervisorFromDaemon};
use super::heartbeat::Heartbeat;
use super::log::ProcessLog;
use super::process::{FAILED, Seat, announce, overdue};
use super::sys;
use crate::host::Runtime;
use crate::scoreboard::Reason;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the thread beside the script works with.
struct Attendant {
    control: Arc<OwnedFd>,
    signals: OwnedFd,
    runtime: Runtime,
    heartbeat: Arc<Heartbeat>,
    announcer: Arc<Mutex<Announcer>>,
    shutdown_timeout: Duration,
    eviction: bool,
    /// Whether the script was told to end: none is begun after that.
    ending: Arc<AtomicBool>,
    log: &'static ProcessLog,
}

/// Runs the scripts of the service; the exit code.
pub fn serve(seat: Seat, runtime: Runtime, heartbeat: Heartbeat, log: &'static ProcessLog) -> i32 {
    let heartbeat = Arc::new(heartbeat);
    let ending = Arc::new(AtomicBool::new(false));
    let (told, is_told) = channel();
    let announcer = Arc::new(Mutex::new(Announcer::new(runtime, move || {
        let _ = told.send(());
    })));
    let control = Arc::new(seat.control);
    // Before the scripts: what runs for ever is never done loading.
    let ready = ToSupervisorFromDaemon::Ready { failure: None };
    if control::send(control.as_fd(), &ready, &[]).is_err() {
        return FAILED;
    }
    let attendant = Attendant {
        control: Arc::clone(&control),
        // A signal the script handles itself is its own from then on; the last two
        // do nothing, which is better than the end of the process.
        signals: match sys::catch_signals(&[
            Signal::SIGUSR1,
            Signal::SIGXCPU,
            Signal::SIGHUP,
            Signal::SIGUSR2,
        ]) {
            Ok(signals) => signals,
            Err(cause) => {
                log.error(&format!("WSGI9108: cannot set up the service: {cause}"));
                return FAILED;
            }
        },
        runtime,
        heartbeat: Arc::clone(&heartbeat),
        announcer: Arc::clone(&announcer),
        shutdown_timeout: seat.plan.shutdown_timeout,
        eviction: seat.plan.limits.eviction.is_some(),
        ending: Arc::clone(&ending),
        log,
    };
    let attending = std::thread::Builder::new().name("wsgi-control".to_owned());
    if let Err(cause) = attending.spawn(move || attendant.attend()) {
        log.error(&format!("WSGI9108: cannot set up the service: {cause}"));
        return FAILED;
    }
    let mut complete = true;
    for script in &seat.plan.preload {
        if ending.load(Ordering::SeqCst) {
            break;
        }
        complete &= runtime.load_script(&script.application_group, &script.path);
    }
    log.info("The service has ended; stopping daemon process");
    if !announce_end(&announcer, &is_told, seat.plan.shutdown_timeout) {
        return overdue(log, runtime, || heartbeat.log_stacks_now());
    }
    heartbeat.end();
    runtime.stop();
    if complete { 0 } else { FAILED }
}

/// Tells subscribers of the end; whether that was done within this time.  Zero is for ever.
fn announce_end(announcer: &Mutex<Announcer>, is_told: &Receiver<()>, time: Duration) -> bool {
    let thread = {
        let mut announcer = announcer.lock().unwrap_or_else(PoisonError::into_inner);
        announcer.stop();
        announcer.take_thread()
    };
    let Some(thread) = thread else { return true };
    let told = if time.is_zero() { is_told.recv().ok() } else { is_told.recv_timeout(time).ok() };
    // It must not be in Python when that ends.
    told.is_some() && thread.join().is_ok()
}

impl Attendant {
    fn attend(mut self) {
        loop {
            if let Err(cause) = self.wait() {
                self.log.error(&format!("WSGI0023: cannot wait: {cause}"));
            }
            while let Some(signal) = super::process::next_signal(&self.signals) {
                let why = match signal {
                    Signal::SIGXCPU => Reason::CpuTimeLimit,
                    Signal::SIGUSR1 if self.eviction => Reason::EvictionSignal,
                    Signal::SIGUSR1 => Reason::GracefulSignal,
                    other => {
                        if let Some(mut announcer) = self.announcer() {
                            announce(&mut announcer, other, self.log);
                        }
                        continue;
                    }
                };
                let message = ToSupervisorFromDaemon::Retire { why };
                let _ = control::try_send(self.control.as_fd(), &message, &[]);
            }
            loop {
                match control::receive(&*self.control) {
                    Ok(Message::One(ToDaemon::Log { level }, mut fds)) => {
                        let to = fds.pop();
                        let _ = sys::set_error_stream(to.as_ref().map(AsFd::as_fd));
                        self.log.reopen(to, level);
                    }
                    Ok(Message::One(ToDaemon::Stacks, _)) => self.heartbeat.log_stacks(),
                    // It runs no requests.
                    Ok(Message::One(
                        ToDaemon::Interrupt { .. }
                        | ToDaemon::Load(_)
                        | ToDaemon::Keep(_)
                        | ToDaemon::Resume,
                        _,
                    )) => {}
                    Ok(Message::One(ToDaemon::Drain { why, .. } | ToDaemon::Stop { why }, _)) => {
                        if let Some(mut announcer) = self.announcer() {
                            announcer.note(why);
                        }
                        return self.end(&why.to_string());
                    }
                    Ok(Message::None) => break,
                    // Without its supervisor nobody would ever stop it.
                    Ok(Message::Closed) | Err(_) => return self.end("the supervisor is gone"),
                }
            }
        }
    }

    /// The announcer, unless the process is ending: then there is nothing more to tell.
    fn announcer(&self) -> Option<MutexGuard<'_, Announcer>> {
        self.announcer.try_lock().ok()
    }

    fn wait(&self) -> io::Result<()> {
        let mut fds = [
            PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        sys::poll(&mut fds, None).map(drop)
    }

    /// Has the script end, and ends the process if it does not in time.
    fn end(&mut self, why: &str) {
        self.log.info(&format!("Shutdown requested: {why}"));
        self.ending.store(true, Ordering::SeqCst);
        let _ = kill(Pid::this(), Signal::SIGTERM);
        if !self.shutdown_timeout.is_zero() {
            std::thread::sleep(self.shutdown_timeout);
            let runtime = self.runtime;
            sys::exit_now(overdue(self.log, runtime, || self.heartbeat.log_stacks_now()));
        }
    }
}
