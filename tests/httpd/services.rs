//! `threads=0`: processes that run a script and serve no requests.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Httpd, Process, Site, ours_only, wait_for_end, wait_until, wait_within};

/// What scripts here begin with.
const PREAMBLE: &str = r"
import atexit, fcntl, os, sys, time
ROOT = os.path.dirname(__file__)

def note(name, text):
    with open(ROOT + '/run/' + name, 'a') as file:
        file.write('%s\n' % text)

def run():
    while True:
        time.sleep(0.05)

note('starts', '%d %f' % (os.getpid(), time.monotonic()))
";

/// Runs until it is told to end, and takes its time over it; notes in `run/clash` if another one
/// runs at the same moment.
const LOCKED: &str = r"
lock = open(ROOT + '/run/lock', 'w')
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    note('clash', os.getpid())
note('locked', os.getpid())
def linger():
    if os.path.exists(ROOT + '/run/linger'):
        time.sleep(2.5)
atexit.register(linger)
run()
";

/// Runs until it is told to end, and notes how that goes.
const POLITE: &str = r"
atexit.register(note, 'exits', os.getpid())
try:
    run()
except SystemExit:
    note('stopped', os.getpid())
    raise
";

/// A service in the group `task` with these options and this script.
fn service(options: &str, script: &str) -> Site {
    service_in("%{GLOBAL}", options, script)
}

/// The same in an application group.
fn service_in(application_group: &str, options: &str, script: &str) -> Site {
    let config = format!(
        "WSGIDaemonProcess task threads=0 {options}\n\
         WSGIImportScript ${{ROOT}}/task.py process-group=task \
         application-group={application_group}"
    );
    let site = Site::new(&config).file("task.py", PREAMBLE.to_owned() + script);
    site.open_run();
    site
}

/// The processes that began to run the script, and when.
fn starts(httpd: &Httpd) -> Vec<(i32, f64)> {
    let text = httpd.read("run/starts");
    let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let parse = |line: &str| {
        let (pid, time) = line.split_once(' ')?;
        Some((pid.parse().ok()?, time.parse().ok()?))
    };
    lines.filter_map(parse).collect()
}

/// Waits until the script was begun so often, and gives its processes.
#[track_caller]
fn wait_for_starts(httpd: &Httpd, count: usize) -> Vec<i32> {
    wait_until(format!("{count} starts"), || {
        let pids: Vec<i32> = starts(httpd).into_iter().map(|(pid, _)| pid).collect();
        (pids.len() >= count).then_some(pids)
    })
}

/// The process of a service, which runs.
#[track_caller]
fn process(pid: i32) -> Process {
    Process::find(pid).expect("the service runs")
}

#[test]
fn a_service_is_told_to_end_by_systemexit() {
    let mut httpd = service("", POLITE).start();
    let pid = wait_for_starts(&httpd, 1)[0];
    let service = process(pid);
    httpd.end_by(Signal::SIGTERM);
    wait_for_end(Duration::from_secs(3), &[service]);
    assert_eq!(httpd.read("run/stopped"), format!("{pid}\n"));
    assert_eq!(httpd.read("run/exits"), format!("{pid}\n"));
}

#[test]
fn what_a_service_does_at_its_end_is_not_disturbed() {
    ours_only!("row 95: under prefork the reference disturbs it with a second SIGTERM");
    let script = r"
try:
    run()
finally:
    note('cleaning', os.getpid())
    time.sleep(1)
    note('cleaned', os.getpid())
";
    let mut httpd = service("", script).start();
    let pid = wait_for_starts(&httpd, 1)[0];
    let service = process(pid);
    httpd.end_by(Signal::SIGTERM);
    wait_for_end(Duration::from_secs(4), &[service]);
    assert_eq!(httpd.read("run/cleaned"), format!("{pid}\n"));
}

#[test]
fn a_service_that_does_not_end_is_killed_and_seen() {
    ours_only!("the reference does not say what it did");
    let script = r"
while True:
    try:
        run()
    except SystemExit:
        note('ignored', os.getpid())
";
    let mut httpd = service("shutdown-timeout=1", script).start();
    httpd.expect_error("WSGI9409");
    httpd.allow_stacks();
    httpd.allow_error("task.py\"");
    let service = process(wait_for_starts(&httpd, 1)[0]);
    let start = Instant::now();
    httpd.end_by(Signal::SIGTERM);
    wait_for_end(Duration::from_secs(4), &[service]);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(httpd.read("run/ignored").lines().count() >= 1);
    let log = httpd.log();
    assert!(log.contains("in run"), "{log}");
    assert_eq!(httpd.logged("WSGI9409"), 1, "{log}");
}

#[test]
fn a_service_whose_subscriber_does_not_end_is_started_again() {
    ours_only!("the reference waits for the subscriber for ever");
    let script = r"
import mod_wsgi
@mod_wsgi.subscribe_shutdown
def hang(event, **details):
    note('told', event)
    run()
";
    let mut httpd = service("shutdown-timeout=1", script).start();
    httpd.expect_error("WSGI9409");
    httpd.expect_error("WSGI9101");
    httpd.allow_stacks();
    httpd.wait_for_file("run/told", "process_stopping");
    let first = wait_for_starts(&httpd, 1)[0];
    let second = wait_for_starts(&httpd, 2)[1];
    assert_ne!(first, second);
    // What hangs is seen.
    httpd.wait_for_log("in hang");
}

#[test]
fn two_processes_of_one_service_never_run_at_once() {
    ours_only!("the reference may start one before the other has ended");
    let mut httpd = service("", LOCKED).file("run/linger", "").start();
    // The supervisor that is killed.
    httpd.allow_error("WSGI9305");
    httpd.allow_error("AH");
    let mut pids = wait_for_starts(&httpd, 1);
    let next = |httpd: &Httpd, what: &str, before: &[i32]| {
        let pids = wait_for_starts(httpd, before.len() + 1);
        assert_eq!(pids.len(), before.len() + 1, "{what}: {pids:?}");
        let old = Process::find(*before.last().unwrap());
        wait_for_end(Duration::from_secs(5), &Vec::from_iter(old));
        wait_until("it to look at the lock", || {
            (httpd.read("run/locked").lines().count() == pids.len()).then_some(())
        });
        assert_eq!(httpd.read("run/clash"), "", "{what}: {pids:?}");
        pids
    };
    httpd.graceful();
    pids = next(&httpd, "graceful", &pids);
    httpd.restart();
    pids = next(&httpd, "restart", &pids);
    process(*pids.last().unwrap()).signal(Signal::SIGUSR1);
    pids = next(&httpd, "USR1", &pids);
    let supervisor = httpd.supervisor_of(*pids.last().unwrap()).unwrap();
    supervisor.signal(Signal::SIGKILL);
    pids = next(&httpd, "supervisor", &pids);
    assert_ne!(httpd.supervisor_of(*pids.last().unwrap()).unwrap().pid, supervisor.pid);
    std::fs::remove_file(httpd.path("run/linger")).unwrap();
}

#[test]
fn a_service_that_returns_is_started_again_ever_more_slowly() {
    ours_only!("the reference starts it again at once, for ever");
    let httpd = service("", "").start();
    wait_for_starts(&httpd, 4);
    let starts = starts(&httpd);
    let pauses: Vec<f64> = starts.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    for (pause, least) in pauses.iter().zip([1.0, 2.0, 4.0]) {
        assert!((least..least + 2.5).contains(pause), "{pauses:?}");
    }
    // That it returns is its own affair: nothing here is an error.
    assert!(httpd.logged("The service ended") >= 3, "{}", httpd.log());
}

#[test]
fn a_service_that_ran_for_long_is_started_again_at_once() {
    let script =
        "if len(open(ROOT + '/run/starts').readlines()) > 1:\n    run()\ntime.sleep(10.5)\n";
    let httpd = service("", script).start();
    wait_for_starts(&httpd, 2);
    let starts = starts(&httpd);
    let pause = starts[1].1 - starts[0].1;
    assert!(pause < 12.5, "{pause}");
    assert_eq!(httpd.logged("is started again in"), 0, "{}", httpd.log());
}

#[test]
fn the_failure_of_a_service_is_logged_once_for_each_start() {
    let mut httpd = service("", "raise KeyError('broken service')\n").start();
    httpd.expect_error("broken service");
    httpd.allow_error("WSGI");
    httpd.allow_error("task.py");
    let pids = wait_for_starts(&httpd, 3);
    // The third may not have got that far.
    let last = "KeyError: 'broken service'";
    wait_until("three tracebacks", || (httpd.logged(last) >= 3).then_some(()));
    let tracebacks = httpd.logged(last);
    assert!(tracebacks <= starts(&httpd).len(), "{pids:?}: {}", httpd.log());
}

#[test]
fn a_group_may_have_several_processes_of_a_service() {
    let httpd = service("processes=2", POLITE).start();
    let pids = wait_for_starts(&httpd, 2);
    assert_ne!(pids[0], pids[1]);
    ours_only!("the reference ends a service by SIGTERM only");
    process(pids[0]).signal(Signal::SIGUSR1);
    let pids = wait_for_starts(&httpd, 3);
    assert_eq!(httpd.read("run/stopped"), format!("{}\n", pids[0]));
    assert!(process(pids[1]).is_alive() && process(pids[2]).is_alive());
}

#[test]
fn the_signals_of_a_service_are_its_own() {
    let script = r"
import signal
def heard(number, frame):
    note('heard', signal.Signals(number).name)
for name in ('SIGUSR2', 'SIGHUP', 'SIGALRM'):
    signal.signal(getattr(signal, name), heard)
note('prepared', '')
run()
";
    let httpd = service("", script).start();
    let service = process(wait_for_starts(&httpd, 1)[0]);
    httpd.wait_for_file("run/prepared", "\n");
    for signal in [Signal::SIGUSR2, Signal::SIGHUP, Signal::SIGALRM] {
        service.signal(signal);
        httpd.wait_for_file("run/heard", signal.as_str());
    }
    assert!(service.is_alive());
}

#[test]
fn signals_nobody_asked_for_do_not_end_a_service() {
    let httpd = service("", POLITE).start();
    let service = process(wait_for_starts(&httpd, 1)[0]);
    for signal in [Signal::SIGUSR2, Signal::SIGHUP] {
        service.signal(signal);
    }
    // It would be the first to end of those.
    service.signal(Signal::SIGTERM);
    httpd.wait_for_file("run/stopped", &service.pid.to_string());
    wait_for_end(Duration::from_secs(5), &[service]);
}

#[test]
fn a_service_may_end_itself_by_its_own_handler() {
    let script = r"
import signal
asked = False
def ask(number, frame):
    global asked
    asked = True
signal.signal(signal.SIGTERM, ask)
note('prepared', '')
while not asked:
    time.sleep(0.05)
note('left', os.getpid())
";
    let httpd = service("", script).start();
    let service = process(wait_for_starts(&httpd, 1)[0]);
    httpd.wait_for_file("run/prepared", "\n");
    httpd.graceful();
    wait_for_end(Duration::from_secs(5), std::slice::from_ref(&service));
    assert_eq!(httpd.read("run/left"), format!("{}\n", service.pid));
    wait_for_starts(&httpd, 2);
}

#[test]
fn a_service_in_an_application_group_of_its_own_runs_and_ends_in_time() {
    let mut httpd = service_in("named", "shutdown-timeout=1", POLITE).start();
    // Python lets only the main interpreter handle signals.
    httpd.expect_error("WSGI0090");
    httpd.allow_error("WSGI9");
    httpd.allow_stacks();
    httpd.allow_error("task.py\"");
    let service = process(wait_for_starts(&httpd, 1)[0]);
    httpd.end_by(Signal::SIGTERM);
    wait_for_end(Duration::from_secs(4), &[service]);
}

#[test]
fn timers_of_requests_do_not_end_a_service() {
    let options = "startup-timeout=1 request-timeout=1 inactivity-timeout=1 maximum-requests=1";
    let elsewhere = "WSGIDaemonProcess other\n\
        WSGIScriptAlias / ${ROOT}/other.wsgi process-group=other application-group=%{GLOBAL}";
    let other = "import time\ndef application(environ, start_response):\n    \
        time.sleep(3)\n    start_response('200 OK', [])\n    return []\n";
    let httpd = service(options, POLITE).config(elsewhere).file("other.wsgi", other).start();
    let service = process(wait_for_starts(&httpd, 1)[0]);
    httpd.get("/").ok();
    assert!(service.is_alive());
    assert_eq!(starts(&httpd).len(), 1);
}

#[test]
fn a_service_that_never_gives_back_pythons_lock_is_replaced_where_that_is_wanted() {
    ours_only!("the reference has no timers for services");
    let script = r"
import ctypes
if len(open(ROOT + '/run/starts').readlines()) == 1:
    ctypes.PyDLL(None).usleep(60000000)
run()
";
    let mut httpd = service("deadlock-timeout=1 shutdown-timeout=1", script).start();
    httpd.expect_error("WSGI9116");
    httpd.allow_stacks();
    let old = process(wait_for_starts(&httpd, 1)[0]);
    wait_for_starts(&httpd, 2);
    assert!(!old.is_alive());
    assert!(httpd.log().contains("in <module>"), "{}", httpd.log());
}

#[test]
fn a_service_that_is_killed_is_started_again() {
    let mut httpd = service("", POLITE).start();
    if crate::harness::is_ours() {
        httpd.expect_error("WSGI9101");
    }
    let service = process(wait_for_starts(&httpd, 1)[0]);
    service.signal(Signal::SIGKILL);
    wait_for_starts(&httpd, 2);
}

#[test]
fn a_service_that_is_no_longer_configured_ends() {
    let mut httpd = service("", POLITE).start();
    let service = process(wait_for_starts(&httpd, 1)[0]);
    httpd.reconfigure("");
    httpd.graceful();
    wait_for_end(Duration::from_secs(5), &[service]);
}

#[test]
fn a_service_does_not_outlive_a_killed_parent() {
    ours_only!("row 29: the daemon processes of the reference go on as orphans");
    let mut httpd = service("", POLITE).start();
    let service = process(wait_for_starts(&httpd, 1)[0]);
    let family = httpd.processes();
    httpd.end_by(Signal::SIGKILL);
    wait_within(Duration::from_secs(2), "the service to end", || {
        (!service.is_alive()).then_some(())
    });
    // httpd's own children know nothing of their parent's death.
    family.iter().for_each(|it| it.signal(Signal::SIGKILL));
}
