//! Processes that die: what becomes of their requests, and who takes their place.
#![forbid(unsafe_code)]

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{
    Answer, Httpd, Load, Mode, Process, Request, Site, expect_served, gated_group, group, is_ours,
    loaded_group, ours_only, wait_for_end, wait_until, wait_within,
};

/// Notes each request in `run/started` before it answers with its process id.
const NOTED: &str = r#"
import os, time
ROOT = os.path.dirname(__file__)
started = os.open(ROOT + '/run/started', os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
def application(environ, start_response):
    path = environ['PATH_INFO']
    if path.startswith('/die'):
        os._exit(3)
    if path.startswith('/abort'):
        os.abort()
    if path.startswith('/realtime'):
        os.kill(os.getpid(), 40)
        time.sleep(20)
    os.write(started, ('%s %d\n' % (environ['REQUEST_URI'], os.getpid())).encode())
    if path.startswith('/slow'):
        time.sleep(20)
    if path.startswith('/load'):
        time.sleep(0.01)
    start_response('200 OK', [])
    return [str(os.getpid()).encode()]
"#;

/// A server whose application runs in a daemon process group with these options.
fn start(options: &str) -> Httpd {
    let config =
        format!("WSGIRestrictEmbedded On\nWSGIDaemonProcess one {options}\nWSGIProcessGroup one");
    let site = Site::new(&config)
        .config("WSGIApplicationGroup %{GLOBAL}\nWSGIScriptAlias / ${ROOT}/app.wsgi")
        .file("app.wsgi", NOTED);
    site.open_run();
    site.start()
}

/// The daemon process that answers `GET /`.
#[track_caller]
fn daemon_process(httpd: &Httpd) -> Process {
    let pid = httpd.get("/").ok().parse().unwrap();
    Process::find(pid).expect("it has just answered")
}

/// Announces what the death of a daemon process leaves in the log.
fn expect_death(httpd: &mut Httpd) {
    if is_ours() {
        httpd.expect_error("WSGI9101");
    }
}

/// Announces what a request leaves in the log whose process dies before it answers.
fn expect_bad_gateway(httpd: &mut Httpd) {
    expect_death(httpd);
    // Which of two depends on how far the answer had come.
    httpd.expect_error("WSGI014");
    // What Python says when it is told to abort.
    for text in ["Fatal Python error", "ended by SIGABRT", "exit signal Abort"] {
        httpd.allow_error(text);
    }
}

#[test]
fn a_killed_daemon_process_is_replaced() {
    let mut httpd = start("threads=2");
    expect_death(&mut httpd);
    let first = daemon_process(&httpd);
    first.signal(Signal::SIGKILL);
    wait_until("the daemon process to end", || (!first.is_alive()).then_some(()));
    // The promise is 100 ms; a machine that runs all tests at once may take longer.
    wait_within(Duration::from_secs(1), "another daemon process", || {
        let family = httpd.processes();
        family.into_iter().find(|it| it.parent == first.parent && it.pid != first.pid)
    });
    let second = daemon_process(&httpd);
    assert_ne!(first.pid, second.pid);
}

#[test]
fn only_requests_that_had_started_fail_when_a_daemon_process_is_killed() {
    let mut httpd = start("processes=2 threads=3");
    daemon_process(&httpd);
    let load = Load::start(&httpd, 8, "/load?#");
    load.wait_for(50);
    for _ in 0..3 {
        let line = httpd.read("run/started").lines().last().unwrap().to_owned();
        let pid = line.split(' ').nth(1).unwrap().parse().unwrap();
        Process::find(pid).inspect(|it| it.signal(Signal::SIGKILL));
        load.wait_for(50);
    }
    let answers = load.stop();
    httpd.allow_error("WSGI014");
    httpd.allow_error("WSGI9101");
    let started = httpd.read("run/started");
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status() != 200).collect();
    assert!(failed.iter().all(|answer| answer.status() == 502), "{failed:?}");
    let had_not_started = |answer: &&&Answer| !started.contains(&format!("{} ", answer.target));
    let early: Vec<_> = failed.iter().filter(had_not_started).collect();
    // From Python's lock to the application's first line it takes a moment.
    assert!(!is_ours() || early.len() <= 1, "{early:?} had not started");
    // Each of the three that died had as many requests as threads.
    assert!(failed.len() <= 9, "{} of {} failed", failed.len(), answers.len());
    if is_ours() && !failed.is_empty() {
        let log = httpd.log().to_lowercase();
        assert!(
            log.contains("signal 9") || log.contains("sigkill") || log.contains("killed"),
            "{log}"
        );
    }
}

#[test]
fn a_request_whose_process_dies_is_a_bad_gateway() {
    for path in ["/die", "/abort"] {
        let mut httpd = start("threads=2");
        expect_bad_gateway(&mut httpd);
        assert_eq!(httpd.get(path).status, 502);
        assert_eq!(httpd.get("/").status, 200);
    }
}

#[test]
fn a_process_ended_by_a_signal_without_a_name_is_replaced_too() {
    let mut httpd = start("threads=2");
    expect_bad_gateway(&mut httpd);
    if !is_ours() {
        httpd.allow_error("exit signal signal #40");
    }
    assert_eq!(httpd.get("/realtime").status, 502);
    assert_eq!(httpd.get("/").status, 200);
    assert!(!is_ours() || httpd.log().contains("was ended by signal 40"), "{}", httpd.log());
}

#[test]
fn the_log_says_why_a_process_died() {
    ours_only!("the reference does not know");
    for (path, reason) in [("/die", "3"), ("/abort", "SIGABRT")] {
        let mut httpd = start("threads=2");
        expect_bad_gateway(&mut httpd);
        assert_eq!(httpd.get(path).status, 502);
        let log = httpd.log();
        let bad = log.lines().find(|line| line.contains("WSGI014")).unwrap();
        let message = bad.split("WSGI014").nth(1).unwrap();
        assert!(message.contains(&format!(" {reason}")), "{bad}");
    }
}

#[test]
fn the_log_names_a_lost_request_and_what_happens_next() {
    ours_only!("the reference says neither");
    for (options, next) in [
        ("processes=1 threads=2", "a replacement is starting"),
        ("processes=2 threads=1", "another process takes over"),
    ] {
        let mut httpd = start(options);
        expect_bad_gateway(&mut httpd);
        httpd.write("app.wsgi", NOTED.replace("time.sleep(20)", "time.sleep(2)"));
        let mut slow = httpd.connect();
        if options.contains("threads=1") {
            // One of the two is busy: the other answers, so both take requests.
            slow.write(Request::get("/slow").head()).unwrap();
            httpd.wait_for_file("run/started", "/slow");
        }
        daemon_process(&httpd);
        assert_eq!(httpd.get("/die/a%20b%0a?token=secret").status, 502);
        let log = httpd.log();
        let lost: Vec<_> = log.lines().filter(|line| line.contains("WSGI0146")).collect();
        assert_eq!(lost.len(), 1, "{lost:?}");
        let message = lost[0].split("WSGI0146: ").nth(1).unwrap();
        assert!(message.starts_with("request lost: GET /die/a%20b%0A, id "), "{message}");
        let age = message.split(", after ").nth(1).and_then(|rest| rest.split(" s: ").next());
        assert!(age.unwrap().parse::<f32>().is_ok(), "{message}");
        assert!(message.contains("s: its daemon process exited with code 3; "), "{message}");
        assert!(message.ends_with(&format!("; {next} [group 'one']")), "{message}");
        assert!(!log.contains("secret"), "{log}");
    }
}

#[test]
fn an_answer_cut_in_the_middle_looks_cut() {
    ours_only!("row 1: the reference makes it look complete");
    for head in ["[]", "[('Content-Length', '1000')]"] {
        let source = format!(
            "import os\ndef application(environ, start_response):\n    \
             start_response('200 OK', {head})\n    yield b'x' * 100\n    os._exit(1)\n"
        );
        let mut httpd = Site::app(Mode::Daemon, &source).start();
        httpd.allow_error("WSGI");
        let mut connection = httpd.connect();
        let cut = connection.exchange(&Request::get("/cut?q").keep_alive()).unwrap_err();
        let partial = cut.partial.expect("the head was sent");
        assert_eq!((partial.status, partial.body.len()), (200, 100), "{head}");
        assert!(connection.is_closed());
        httpd.wait_for_log("WSGI0119: response cut off: GET /cut, id ");
        httpd.wait_for_log("its daemon process exited with code 1; a replacement is starting");
    }
}

#[test]
fn curl_reports_an_answer_that_was_cut() {
    ours_only!("row 1: the reference makes it look complete");
    let source = "
import os
def application(environ, start_response):
    start_response('200 OK', [])
    yield b'first'
    os.kill(os.getpid(), 9)
";
    let mut httpd = Site::app(Mode::Daemon, source).start();
    httpd.allow_error("WSGI");
    let url = format!("http://127.0.0.1:{}/", httpd.port());
    let Ok(output) =
        std::process::Command::new("curl").args(["-sS", "--max-time", "20", &url]).output()
    else {
        return crate::harness::skip("curl is not installed");
    };
    assert_eq!(output.stdout, b"first");
    // 18: a partial file; 56: the connection was reset.
    assert!(matches!(output.status.code(), Some(18 | 56)), "{output:?}");
}

#[test]
fn a_process_that_cannot_start_is_tried_again_ever_more_slowly() {
    ours_only!("row 9: the reference tries again at once, for ever");
    // It ends itself while it is loaded at the start.
    let config = "WSGIDaemonProcess one\nWSGIScriptAlias / ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";
    let mut httpd = Site::new(config)
        .file("app.wsgi", "import os\nos.write(os.open(os.path.dirname(__file__) + '/run/tries', os.O_WRONLY | os.O_APPEND | os.O_CREAT), b'x')\nos._exit(1)\n");
    httpd.open_run();
    let mut httpd = std::mem::replace(&mut httpd, Site::new("")).start();
    httpd.allow_error("WSGI");
    httpd.wait_for_file("run/tries", "xx");
    let start = std::time::Instant::now();
    httpd.wait_for_file("run/tries", "xxx");
    assert!(start.elapsed() > Duration::from_millis(900), "{:?}", start.elapsed());
}

#[test]
fn a_supervisor_that_is_killed_is_replaced() {
    ours_only!("the reference has no supervisor");
    let mut httpd = start("threads=2");
    httpd.allow_error("WSGI");
    let daemon = daemon_process(&httpd);
    let supervisor = httpd.supervisor_of(daemon.pid).expect("a daemon process has a supervisor");
    supervisor.signal(Signal::SIGKILL);
    wait_until("the old daemon process to end", || (!daemon.is_alive()).then_some(()));
    let next = wait_until("a request to be served again", || {
        let response = httpd.get("/");
        (response.status == 200).then(|| response.text())
    });
    let next = httpd.supervisor_of(next.parse().unwrap()).expect("it has a supervisor");
    assert_ne!(next.pid, supervisor.pid);
    assert_eq!(next.parent, httpd.parent().pid);
}

#[test]
fn a_request_in_flight_survives_its_supervisor() {
    ours_only!("the reference has no supervisor");
    let mut httpd = start("threads=2");
    httpd.allow_error("WSGI");
    httpd.write("app.wsgi", NOTED.replace("time.sleep(20)", "time.sleep(2)"));
    let daemon = daemon_process(&httpd);
    let mut slow = httpd.connect();
    slow.write(Request::get("/slow").head()).unwrap();
    httpd.wait_for_file("run/started", "/slow");
    httpd.supervisor_of(daemon.pid).unwrap().signal(Signal::SIGKILL);
    assert_eq!(slow.read_response(false).unwrap().ok(), daemon.pid.to_string());
}

#[test]
fn nothing_of_ours_outlives_a_killed_parent() {
    ours_only!("row 29: the daemon processes of the reference serve on as orphans");
    let mut httpd = start("processes=2 threads=2");
    let daemon = daemon_process(&httpd);
    let supervisor = httpd.supervisor_of(daemon.pid).unwrap();
    let family = httpd.processes();
    let (ours, children): (Vec<_>, Vec<_>) =
        family.into_iter().partition(|it| it.pid == supervisor.pid || it.parent == supervisor.pid);
    assert!(ours.len() >= 3, "{ours:?}");
    // Not for what runs either: nobody is left to have the answer.
    let mut slow = httpd.connect();
    slow.write(Request::get("/slow").head()).unwrap();
    httpd.wait_for_file("run/started", "/slow");
    httpd.allow_error("WSGI0146");
    httpd.end_by(Signal::SIGKILL);
    wait_within(Duration::from_secs(2), "the supervisor and its daemon processes to end", || {
        (!ours.iter().any(Process::is_alive)).then_some(())
    });
    // httpd's own children know nothing of their parent's death.
    children.iter().for_each(|it| it.signal(Signal::SIGKILL));
}

#[test]
fn a_child_process_that_dies_gives_back_its_place() {
    // It held the only thread; a request of another child must get it.
    let mut httpd = start("threads=1");
    httpd.allow_error("WSGI");
    httpd.write("app.wsgi", NOTED.replace("time.sleep(20)", "time.sleep(1)"));
    let daemon = daemon_process(&httpd);
    let mut slow = httpd.connect();
    slow.write(Request::get("/slow").head()).unwrap();
    httpd.wait_for_file("run/started", "/slow");
    let parent = httpd.parent().pid;
    let supervisor = httpd.supervisor_of(daemon.pid).map_or(0, |it| it.pid);
    for child in httpd.processes() {
        if child.parent == parent && child.pid != supervisor && child.pid != daemon.pid {
            httpd.allow_error("exit signal Killed");
            child.signal(Signal::SIGKILL);
        }
    }
    let start = std::time::Instant::now();
    wait_until("a request to be served", || {
        httpd.try_send(&Request::get("/")).ok().filter(|response| response.status == 200)
    });
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[test]
fn what_a_stopped_process_was_sent_runs_once_at_most() {
    ours_only!("the reference waits for ever");
    let mut httpd = start("processes=1 threads=2 socket-timeout=2");
    let daemon = daemon_process(&httpd);
    daemon.signal(Signal::SIGSTOP);
    wait_until("it to stop", || daemon.status("State").starts_with('T').then_some(()));
    httpd.expect_error("WSGI0145: no response: GET /once, id ");
    assert_eq!(httpd.get("/once").status, 504);
    daemon.signal(Signal::SIGCONT);
    assert_eq!(daemon_process(&httpd).pid, daemon.pid);
    let count = httpd.read("run/started").lines().filter(|it| it.starts_with("/once ")).count();
    assert!(count <= 1, "{count} times");
}

#[test]
fn a_process_that_closes_everything_is_replaced() {
    ours_only!("the reference does not notice");
    let source = "
import os
def application(environ, start_response):
    if environ['PATH_INFO'] == '/close':
        os.closerange(3, 200)
    start_response('200 OK', [])
    return [str(os.getpid()).encode()]
";
    let mut httpd = Site::app(Mode::Daemon, source).start();
    let first = daemon_process(&httpd);
    expect_death(&mut httpd);
    for text in ["WSGI014", "WSGI0018", "WSGI0023"] {
        httpd.allow_error(text);
    }
    let _ = httpd.try_send(&Request::get("/close"));
    wait_until("the process to end", || (!first.is_alive()).then_some(()));
    assert_ne!(daemon_process(&httpd).pid, first.pid);
}

#[test]
fn a_process_whose_workers_cannot_wait_is_replaced() {
    ours_only!("how others wait is theirs");
    let source = "
import os
def application(environ, start_response):
    if environ['PATH_INFO'] == '/replace':
        null = os.open(os.devnull, os.O_RDWR)
        for name in os.listdir('/proc/self/fd'):
            try:
                if 'eventpoll' in os.readlink('/proc/self/fd/' + name):
                    os.dup2(null, int(name))
            except OSError:
                pass
    start_response('200 OK', [])
    return [str(os.getpid()).encode()]
";
    let mut httpd = Site::app(Mode::Daemon, source).start();
    let first = daemon_process(&httpd);
    httpd.expect_error("WSGI0018: a worker cannot wait");
    // Of a child that has none yet.
    httpd.allow_error("WSGI9103: cannot take a connection");
    assert_eq!(httpd.get("/replace").ok(), first.pid.to_string());
    // One that waited already is told of the next request all the same.
    wait_until("another process", || (httpd.get("/").ok() != first.pid.to_string()).then_some(()));
    wait_until("the process to end", || (!first.is_alive()).then_some(()));
}

#[test]
fn the_death_of_the_supervisor_stalls_no_request() {
    ours_only!("the reference has no supervisor");
    // Replacements take their time.
    let source = "
import os, time
time.sleep(1.5)
def application(environ, start_response):
    start_response('200 OK', [])
    return [str(os.getpid()).encode()]
";
    let config = "WSGIDaemonProcess one\n\
        WSGIScriptAlias / ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";
    let mut httpd = Site::new(config).file("app.wsgi", source).start();
    httpd.expect_error("WSGI9305");
    let first = daemon_process(&httpd);
    let load = Load::start(&httpd, 2, "/");
    load.wait_for(20);
    httpd.supervisor_of(first.pid).unwrap().signal(Signal::SIGKILL);
    crate::harness::wait_for_end(Duration::from_secs(20), &[first]);
    load.wait_for(20);
    for answer in load.stop() {
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert!(answer.took < Duration::from_secs(1), "{answer:?}");
    }
}

/// Ways to die that an application has, and what the log says of them.
const DEATHS: [(&str, &str); 7] = [
    ("/exit?3", "exited with code 3"),
    ("/exit?0", "exited with code 0"),
    ("/c-exit?5", "exited with code 5"),
    ("/abort?0", "ended by SIGABRT"),
    ("/signal?9", "ended by SIGKILL"),
    ("/crash?8", "ended by SIGSEGV"),
    ("/fatal?0", "ended by SIGABRT"),
];

#[test]
fn whatever_kills_a_process_is_said_of_its_request() {
    ours_only!("the reference does not know");
    let mut httpd = group("threads=1").start();
    expect_bad_gateway(&mut httpd);
    httpd.allow_error("ended by SIGSEGV");
    httpd.allow_error("on purpose");
    for (target, cause) in DEATHS {
        let before = httpd.logged("WSGI0146");
        let old = httpd.daemon();
        assert_eq!(httpd.get(target).status, 502, "{target}");
        let log = httpd.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("WSGI0146")).collect();
        assert_eq!(lines.len(), before + 1, "{target}: {log}");
        assert!(lines[before].contains(cause), "{target}: {}", lines[before]);
        let text = format!("daemon process {} {}", old.pid, cause.replace("ended", "was ended"));
        wait_until(format!("the log to say {text}"), || httpd.log().contains(&text).then_some(()));
    }
}

#[test]
fn the_death_of_a_process_harms_no_request_of_another() {
    ours_only!("the reference does not know");
    let mut httpd = loaded_group("processes=2 threads=1", "").start();
    httpd.wait_for_loads(2);
    expect_bad_gateway(&mut httpd);
    httpd.allow_error("ended by SIGSEGV");
    httpd.allow_error("on purpose");
    // One thread each: what dies has nothing else to run.
    let load = Load::start(&httpd, 2, "/slow?0.02");
    for (target, _) in DEATHS {
        load.wait_for(10);
        assert_eq!(httpd.get(target).status, 502, "{target}");
    }
    load.wait_for(10);
    expect_served(&load.stop(), Duration::from_secs(10));
}

#[test]
fn the_kernels_verdict_is_told_from_any_other_kill() {
    ours_only!("the reference does not know");
    let Some(limited) = MemoryGroup::new() else {
        return crate::harness::skip("memory cannot be limited here: no control group");
    };
    let mut httpd = group("threads=2").start();
    expect_bad_gateway(&mut httpd);
    // The supervisor looks where it is itself.
    for process in httpd.processes() {
        limited.take(&process);
    }
    let old = httpd.daemon();
    httpd.supervisor_of(old.pid).unwrap().signal(Signal::SIGKILL);
    // Of another supervisor, which began where its memory is counted.
    httpd.successor_of(&old);
    httpd.allow_error("WSGI9305");
    assert_eq!(httpd.get("/leak?2000000").status, 502);
    httpd.wait_for_log("the kernel had no memory left for it");
}

/// A control group with little memory.
struct MemoryGroup(std::path::PathBuf);

impl MemoryGroup {
    /// One below that of this process, where that may be made.
    fn new() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        own.lines().find_map(Self::second).or_else(|| own.lines().find_map(Self::first))
    }

    /// By version 2 of the interface, from a line of `/proc/self/cgroup`.
    fn second(line: &str) -> Option<Self> {
        let own = line.strip_prefix("0::")?;
        let parent = std::path::Path::new("/sys/fs/cgroup").join(own.trim_matches('/'));
        let controllers = std::fs::read_to_string(parent.join("cgroup.subtree_control")).ok()?;
        if !controllers.split_whitespace().any(|name| name == "memory") {
            return None;
        }
        let group = Self::below(&parent)?;
        std::fs::write(group.0.join("memory.max"), "300M").ok()?;
        let _ = std::fs::write(group.0.join("memory.swap.max"), "0");
        Some(group)
    }

    /// By version 1 of it.
    fn first(line: &str) -> Option<Self> {
        let own = line.split_once(":memory:")?.1;
        let parent = std::path::Path::new("/sys/fs/cgroup/memory").join(own.trim_matches('/'));
        let group = Self::below(&parent)?;
        std::fs::write(group.0.join("memory.limit_in_bytes"), "300M").ok()?;
        let _ = std::fs::write(group.0.join("memory.memsw.limit_in_bytes"), "300M");
        Some(group)
    }

    /// One in that directory.
    fn below(parent: &std::path::Path) -> Option<Self> {
        let group = Self(parent.join(format!("wsgi-test-{}", std::process::id())));
        std::fs::create_dir(&group.0).ok().map(|()| group)
    }

    /// Moves a process there.
    fn take(&self, process: &Process) {
        std::fs::write(self.0.join("cgroup.procs"), process.pid.to_string()).unwrap();
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Empty once httpd has ended, which was started later and is dropped first.
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_process_that_was_ready_for_a_supervisor_that_had_died_does_not_stay() {
    ours_only!("the reference has no supervisor");
    let mut httpd = gated_group("threads=1 graceful-timeout=0").start();
    httpd.expect_error("WSGI9305");
    let supervisor = httpd.supervisor_of(httpd.daemon().pid).unwrap();
    httpd.hold_imports();
    httpd.graceful();
    let begun = wait_until("a replacement to import the application", || {
        httpd.read("run/begun").lines().nth(1).map(|pid| pid.parse().unwrap())
    });
    let unheard = Process::find(begun).unwrap();
    let imports = unheard.status("Threads");
    supervisor.signal(Signal::SIGSTOP);
    httpd.let_import();
    httpd.wait_for_loads(2);
    // It says that it is ready once its worker runs, and then waits for what is next.
    wait_until("the replacement to be ready", || {
        let is_ready =
            unheard.status("Threads") > imports && unheard.status("State").starts_with('S');
        is_ready.then_some(())
    });
    supervisor.signal(Signal::SIGKILL);
    wait_for_end(Duration::from_secs(20), &[unheard]);
    // Which may be sooner than httpd has seen the death.
    httpd.wait_for_log("WSGI9305");
}
