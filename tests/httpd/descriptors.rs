//! How many daemon processes the descriptors of httpd's parent are enough for.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Httpd, Process, Request, Site, can_run, mpm, ours_only, skip, wait_until};

/// Answers with the limits on open files, and whether `select` takes what it opens.
const LIMITS: &str = "
import resource, select
def application(environ, start_response):
    with open(__file__) as file:
        select.select([file], [], [], 0)
    start_response('200 OK', [])
    return [str(resource.getrlimit(resource.RLIMIT_NOFILE)).encode()]
";

/// Directives for a group of more processes than 100 descriptors are enough for.
const MANY: &str = "WSGIDaemonProcess one processes=25 threads=1\nWSGIProcessGroup one\n\
    WSGIRestrictEmbedded On\nWSGIScriptAlias / ${ROOT}/app.wsgi";

/// The soft limit on open files of a process.
fn limit_of(process: &Process) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/limits", process.pid)).unwrap();
    let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

#[test]
fn httpd_makes_room_for_its_groups_and_applications_keep_their_limit() {
    ours_only!("the reference has one socket for each group");
    if !can_run(&["prlimit", "--nofile=100:4096", "true"]) {
        return skip("no prlimit, or not so many files");
    }
    let httpd =
        Site::new(MANY).file("app.wsgi", LIMITS).through(&["prlimit", "--nofile=100:4096"]).start();
    assert_eq!(httpd.get("/").ok(), "(100, 4096)");
    let raised = limit_of(&httpd.parent());
    assert!(raised > 200, "{raised}");
    for _ in 0..2 {
        httpd.graceful();
        assert_eq!(httpd.get("/").ok(), "(100, 4096)");
        assert_eq!(limit_of(&httpd.parent()), raised);
    }
}

#[test]
fn a_limit_that_is_enough_is_left_alone() {
    ours_only!("the reference has one socket for each group");
    if !can_run(&["prlimit", "--nofile=100:4096", "true"]) {
        return skip("no prlimit, or not so many files");
    }
    let lines = MANY.replace("processes=25", "processes=1");
    let httpd = Site::new(&lines)
        .file("app.wsgi", LIMITS)
        .through(&["prlimit", "--nofile=900:4096"])
        .start();
    assert_eq!(httpd.get("/").ok(), "(900, 4096)");
    assert_eq!(limit_of(&httpd.parent()), 900);
    // Nobody calls `select` there, and a later configuration may need more.
    let supervisor = httpd.processes().into_iter().find(|it| it.title() == "wsgi: supervisor");
    assert_eq!(limit_of(&supervisor.unwrap()), 4096);
}

#[test]
fn more_processes_than_the_hard_limit_allows_are_refused_with_both_numbers() {
    ours_only!("the reference has one socket for each group");
    if !can_run(&["prlimit", "--nofile=100:4096", "true"]) {
        return skip("no prlimit, or not so many files");
    }
    let site = Site::new(&format!("WSGIDaemonProcess small\n{MANY}"));
    let said = site.through(&["prlimit", "--nofile=100:150"]).refusal();
    let line = said.lines().find(|line| line.contains("WSGI9214")).expect("it is named");
    assert!(line.contains("httpd.conf:"), "{line}");
    assert!(line.contains("26 daemon processes need"), "{line}");
    assert!(line.contains("the hard limit is 150"), "{line}");
}

#[test]
fn a_group_that_grows_at_a_restart_finds_room() {
    ours_only!("the reference has one socket for each group");
    if !can_run(&["prlimit", "--nofile=100:4096", "true"]) {
        return skip("no prlimit, or not so many files");
    }
    let small = MANY.replace("processes=25", "processes=1");
    let site = Site::new(&small).file("app.wsgi", LIMITS);
    let mut httpd = site.through(&["prlimit", "--nofile=100:4096"]).start();
    assert_eq!(httpd.get("/").ok(), "(100, 4096)");
    httpd.reconfigure(MANY);
    httpd.graceful();
    wait_for_processes(&httpd, 25);
    assert_eq!(httpd.get("/").ok(), "(100, 4096)");
}

#[test]
fn a_group_that_outgrows_the_hard_limit_at_a_restart_does_not_end_httpd() {
    ours_only!("the reference has one socket for each group");
    if !can_run(&["prlimit", "--nofile=100:150", "true"]) {
        return skip("no prlimit, or not so many files");
    }
    let small = MANY.replace("processes=25", "processes=1");
    let site = Site::new(&small).file("app.wsgi", LIMITS);
    let mut httpd = site.through(&["prlimit", "--nofile=100:150"]).start();
    assert_eq!(httpd.get("/").ok(), "(100, 150)");
    httpd.reconfigure(MANY);
    for restart in 1..3 {
        httpd.graceful();
        wait_for_processes(&httpd, 2);
        assert_eq!(httpd.get("/").ok(), "(100, 150)");
        assert_eq!(httpd.log().matches("WSGI9245").count(), restart, "{}", httpd.log());
    }
    assert!(!httpd.log().contains("WSGI9214"), "{}", httpd.log());
}

/// Answers with the variable of [`HAS_VARIABLE`], and notes it in `run/loads` when loaded.
const VARIABLE: &str = "
import os
LOGIN = os.environ.get('LOGIN', 'none')
with open(os.path.dirname(__file__) + '/run/loads', 'a') as file:
    file.write(LOGIN + '\\n')
def application(environ, start_response):
    start_response('200 OK', [])
    return [str(os.getpid()).encode() if environ['PATH_INFO'] == '/' else LOGIN.encode()]
";

/// Directives for a group with a variable in its environment.
const HAS_VARIABLE: &str = "WSGIDaemonProcess one env=LOGIN=joe\nWSGIProcessGroup one\n\
    WSGIRestrictEmbedded On\nWSGIApplicationGroup %{GLOBAL}\n\
    WSGIScriptAlias / ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";

/// A server with [`HAS_VARIABLE`].
fn has_variable() -> Httpd {
    let site = Site::new(HAS_VARIABLE).file("app.wsgi", VARIABLE);
    site.open_run();
    site.start()
}

/// Leaves a process room for so many more descriptors.
fn leave_room(process: &Process, count: usize) {
    let open: Vec<u64> = std::fs::read_dir(format!("/proc/{}/fd", process.pid))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    let limit = (0..).filter(|number| !open.contains(number)).nth(count).unwrap();
    limit_to(process, limit);
}

/// Sets the soft limit on open files of a process.
fn limit_to(process: &Process, limit: u64) {
    let (pid, limit) = (process.pid.to_string(), format!("--nofile={limit}:"));
    assert!(can_run(&["prlimit", "--pid", &pid, &limit]));
}

/// The supervisor that has the configuration.
fn supervisor(httpd: &Httpd) -> Process {
    httpd.processes().into_iter().find(|it| it.title() == "wsgi: supervisor").unwrap()
}

#[test]
fn a_configuration_there_is_no_room_for_changes_nothing() {
    ours_only!("the reference starts its daemon processes anew");
    if !can_run(&["prlimit", "--nofile=100:", "true"]) {
        return skip("no prlimit");
    }
    let mut httpd = has_variable();
    httpd.expect_error("WSGI9111: unreadable configuration: no room for its descriptors");
    assert_eq!(httpd.get("/login").ok(), "joe");
    let supervisor = supervisor(&httpd);
    let usual = limit_of(&supervisor);
    // From the plan itself to the variables, which are the last but for the inboxes.
    for room in 0..5 {
        leave_room(&supervisor, room);
        httpd.graceful();
        wait_until("WSGI9111", || (httpd.logged("WSGI9111") > room).then_some(()));
        limit_to(&supervisor, usual);
        assert_eq!(httpd.get("/login").ok(), "joe");
    }
    httpd.reconfigure(&HAS_VARIABLE.replace("joe", "ann"));
    httpd.graceful();
    wait_until("the next configuration", || (httpd.get("/login").ok() == "ann").then_some(()));
}

#[test]
fn a_process_there_is_no_room_for_does_not_start_without_its_variables() {
    ours_only!("the reference hands nothing over");
    if !can_run(&["prlimit", "--nofile=100:", "true"]) {
        return skip("no prlimit");
    }
    let mut httpd = has_variable();
    for text in ["WSGI9101: ", "WSGI9102: ", "WSGI9108: ", "WSGI0024: "] {
        httpd.allow_error(text);
    }
    let loads = || httpd.read("run/loads").lines().count();
    let attempts = || loads() + httpd.logged("WSGI9102") + httpd.logged("WSGI0024");
    wait_until("the first process", || (loads() == 1).then_some(()));
    let supervisor = supervisor(&httpd);
    let usual = limit_of(&supervisor);
    for room in 0..7 {
        let before = attempts();
        leave_room(&supervisor, room);
        httpd.daemon().signal(Signal::SIGKILL);
        wait_until("another start", || (attempts() > before).then_some(()));
        limit_to(&supervisor, usual);
        assert_eq!(httpd.get("/login").ok(), "joe");
    }
    let loads = httpd.read("run/loads");
    assert!(loads.lines().all(|line| line == "joe"), "{loads}");
}

/// Answers with its process id; to `/hold` once `run/go` is there, and to `/fill` so that
/// there is no descriptor left until then.
const FULL: &str = "
import contextlib, os, time
ROOT = os.path.dirname(__file__)
def application(environ, start_response):
    if environ['PATH_INFO'] != '/':
        taken = []
        try:
            while environ['PATH_INFO'] == '/fill':
                taken.append(os.open('/dev/null', os.O_RDONLY))
        except OSError:
            pass
        with contextlib.suppress(OSError):
            open(ROOT + '/run/in', 'w').close()
        while not os.access(ROOT + '/run/go', os.F_OK):
            time.sleep(0.01)
        for number in taken:
            os.close(number)
    start_response('200 OK', [])
    return [str(os.getpid()).encode()]
";

#[test]
fn a_connection_there_is_no_room_for_is_told_of() {
    ours_only!("the reference accepts its connections");
    if mpm() == "prefork" {
        return skip("the one child process of prefork has one request at a time");
    }
    if !can_run(&["prlimit", "--nofile=200:4096", "true"]) {
        return skip("no prlimit, or not so many files");
    }
    let site = Site::new(
        "WSGIDaemonProcess one threads=2 connect-timeout=1\nWSGIProcessGroup one\n\
         WSGIRestrictEmbedded On\nWSGIApplicationGroup %{GLOBAL}\n\
         WSGIScriptAlias / ${ROOT}/app.wsgi",
    );
    let site = site.file("app.wsgi", FULL).one_child();
    site.open_run();
    let mut httpd = site.through(&["prlimit", "--nofile=200:4096"]).start();
    httpd.expect_error("WSGI9103: cannot take a connection: Too many open files");
    httpd.expect_error("WSGI0124: ");
    let before = httpd.get("/").ok();
    let mut filling = httpd.connect();
    filling.write(Request::get("/fill").head()).unwrap();
    let descriptors = format!("/proc/{before}/fd");
    wait_until("a full table", || {
        (std::fs::read_dir(&descriptors).unwrap().count() >= 200).then_some(())
    });
    let refused = httpd.get("/");
    assert!(matches!(refused.status, 502 | 503), "{}", refused.status);
    assert_eq!(httpd.logged("WSGI9103"), 1, "the child tries again and again");
    httpd.write("run/go", "");
    assert_eq!(filling.read_response(false).unwrap().text(), before);
    assert_eq!(httpd.get("/").ok(), before);
}

#[test]
fn a_connection_there_was_no_memory_for_is_taken_a_little_later() {
    ours_only!("the reference accepts its connections");
    if mpm() == "prefork" {
        return skip("the one child process of prefork has one request at a time");
    }
    if !can_run(&["strace", "-f", "true"]) {
        return skip("no strace, or it may not trace");
    }
    let site = Site::new(
        "WSGIDaemonProcess one threads=2\nWSGIProcessGroup one\n\
         WSGIRestrictEmbedded On\nWSGIApplicationGroup %{GLOBAL}\n\
         WSGIScriptAlias / ${ROOT}/app.wsgi",
    );
    let site = site.file("app.wsgi", FULL).one_child();
    site.open_run();
    let mut httpd = site.start();
    httpd.expect_error("WSGI9103: cannot take a connection: Cannot allocate memory");
    let pid = httpd.get("/").ok();
    // What takes the descriptor of a connection in is the only one of these calls.
    let mut strace = Command::new("strace")
        .args(["-f", "-p", &pid, "-e", "trace=recvmsg", "-e", "inject=recvmsg:error=ENOMEM:when=1"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(strace.stderr.take().unwrap());
    while !said.contains("attached") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    let mut holding = httpd.connect();
    holding.write(Request::get("/hold").head()).unwrap();
    wait_until("a request to run", || httpd.path("run/in").exists().then_some(()));
    assert_eq!(httpd.get("/").ok(), pid);
    httpd.write("run/go", "");
    assert_eq!(holding.read_response(false).unwrap().text(), pid);
    kill(Pid::from_raw(strace.id().cast_signed()), Signal::SIGINT).unwrap();
    strace.wait().unwrap();
}

/// Waits until so many daemon processes run.
#[track_caller]
fn wait_for_processes(httpd: &Httpd, count: usize) {
    wait_until(format!("{count} processes to run"), || {
        let processes = httpd.processes();
        let daemons = processes.iter().filter(|it| it.title().starts_with("wsgi: daemon"));
        (daemons.count() >= count).then_some(())
    });
}
