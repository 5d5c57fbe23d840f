//! Signals to daemon processes and to httpd.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{
    Httpd, Load, Process, Request, expect_served, gated_group, is_ours, loaded_group, ours_only,
    texts, wait_for_end, wait_until,
};

/// Longer than any request here takes.
const AMPLE: Duration = Duration::from_secs(20);

/// A group of so many processes, all of them loaded.
fn start(processes: usize, options: &str) -> (Httpd, Vec<Process>) {
    let options = format!("processes={processes} threads=3 {options}");
    let httpd = gated_group(&options).start();
    let pids = httpd.wait_for_loads(processes);
    // It says so a moment before it takes requests.
    httpd.get("/").ok();
    let members = pids.into_iter().map(|pid| Process::find(pid).unwrap()).collect();
    (httpd, members)
}

/// Sends `signal` to all processes of a group under load: the slow request they have ends
/// well, and they are replaced.
#[track_caller]
fn expect_replaced(processes: usize, signal: Signal, options: &str, is_gentle: bool) {
    let (httpd, members) = start(processes, options);
    let mut slow = httpd.begin("/slow?3");
    let load = Load::start(&httpd, 3, "/slow?0.02");
    load.wait_for(20);
    let send = || members.iter().for_each(|member| member.signal(signal));
    if is_gentle {
        httpd.expect_no_wait(&load, send);
    } else {
        send();
    }
    assert_eq!(slow.read_response(false).unwrap().status, 200, "{signal} {processes}");
    wait_for_end(AMPLE, &members);
    load.wait_for(20);
    let answers = load.stop();
    ours_only!("the reference cuts what it has just taken on, or lets it wait");
    expect_served(&answers, AMPLE);
    wait_until("every process to have a successor", || {
        (httpd.loads().len() >= 2 * processes).then_some(())
    });
    assert_eq!(httpd.loads().len(), 2 * processes, "{signal}");
    assert!(!is_gentle || texts(&answers).len() > processes, "{:?}", texts(&answers));
}

#[test]
fn signals_to_end_gently_replace_a_process_and_nobody_waits() {
    ours_only!("the reference lets requests wait for the import");
    for (processes, signal) in
        [(1, Signal::SIGUSR1), (2, Signal::SIGUSR1), (1, Signal::SIGXCPU), (2, Signal::SIGXCPU)]
    {
        expect_replaced(processes, signal, "", true);
    }
}

#[test]
fn signals_to_end_let_requests_finish_and_bring_a_new_process() {
    for (processes, signal) in
        [(1, Signal::SIGTERM), (2, Signal::SIGTERM), (1, Signal::SIGINT), (2, Signal::SIGINT)]
    {
        expect_replaced(processes, signal, "shutdown-timeout=10", false);
    }
}

#[test]
fn signals_without_a_meaning_are_ignored() {
    for processes in [1, 2] {
        let (httpd, members) = start(processes, "");
        let load = Load::start(&httpd, 2, "/slow?0.02");
        for signal in [Signal::SIGHUP, Signal::SIGUSR2] {
            members.iter().for_each(|member| member.signal(signal));
            load.wait_for(20);
        }
        expect_served(&load.stop(), AMPLE);
        assert!(members.iter().all(Process::is_alive));
        assert_eq!(httpd.loads().len(), processes);
    }
}

#[test]
fn a_process_that_loads_is_not_ended_by_a_signal_to_end_gently() {
    ours_only!("the reference starts another");
    let first = "note('loading', os.getpid())\ntime.sleep(2.5)\n"
        .replace("os.getpid()", "str(os.getpid())");
    let httpd = loaded_group("threads=2", &first).start();
    httpd.wait_for_file("run/loading", "\n");
    let pid = httpd.read("run/loading").trim().parse().unwrap();
    let loading = Process::find(pid).unwrap();
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGHUP] {
        loading.signal(signal);
    }
    // It is new enough.
    assert_eq!(httpd.get("/").ok(), pid.to_string());
}

#[test]
fn httpd_stops_within_the_shutdown_timeout_whatever_runs() {
    ours_only!("the reference gives everything three seconds");
    let (mut httpd, _) = start(2, "shutdown-timeout=1");
    for text in ["WSGI014", "app.wsgi\"", "AH00045", "AH00046"] {
        httpd.allow_error(text);
    }
    httpd.allow_stacks();
    // All threads are taken, and more wait for one.
    let _slow: Vec<_> = (0..6).map(|_| httpd.begin("/slow?60")).collect();
    let mut waiting: Vec<_> = (0..2).map(|_| httpd.connect()).collect();
    for connection in &mut waiting {
        connection.write(Request::get("/waits").head()).unwrap();
    }
    let family = httpd.processes();
    let start = Instant::now();
    httpd.end_by(Signal::SIGTERM);
    // What the machine takes on top.
    let slack = Duration::from_secs(2);
    wait_for_end(Duration::from_secs(12), &family);
    assert!(start.elapsed() < Duration::from_secs(2) + slack, "{:?}", start.elapsed());
    expect_nothing_left(&httpd);
}

#[test]
fn a_graceful_stop_of_httpd_drains_daemon_processes() {
    ours_only!("the reference ends daemon processes while children still wait for them");
    let (mut httpd, _) = start(2, "shutdown-timeout=1");
    let mut slow: Vec<_> = (0..4).map(|_| httpd.begin("/slow?3")).collect();
    let family = httpd.processes();
    httpd.parent().signal(Signal::SIGWINCH);
    for connection in &mut slow {
        assert_eq!(connection.read_response(false).unwrap().status, 200);
    }
    httpd.end_by(Signal::SIGWINCH);
    wait_for_end(Duration::from_secs(4), &family);
    expect_nothing_left(&httpd);
}

#[test]
fn a_restart_of_httpd_lets_daemon_processes_finish() {
    ours_only!("row 2");
    let (httpd, members) = start(1, "");
    let mut slow = httpd.begin("/slow?2");
    httpd.graceful();
    assert_eq!(slow.read_response(false).unwrap().ok(), members[0].pid.to_string());
    wait_for_end(Duration::from_secs(5), &members);
    let next = httpd.daemon();
    // Its children take what they do with them; what comes then is served at once.
    httpd.hold_imports();
    httpd.restart();
    httpd.get("/").ok();
    httpd.let_import();
    wait_for_end(Duration::from_secs(10), &[next]);
}

#[test]
fn a_hard_restart_does_not_wait_for_what_runs() {
    ours_only!("the reference is out for as long as httpd waits for its children");
    let (mut httpd, _) = start(1, "shutdown-timeout=1 graceful-timeout=1");
    for text in ["WSGI014", "app.wsgi\"", "AH00045", "AH00046"] {
        httpd.allow_error(text);
    }
    httpd.allow_stacks();
    let _slow: Vec<_> = (0..3).map(|_| httpd.begin("/slow?60")).collect();
    let start = Instant::now();
    httpd.restart();
    httpd.get("/").ok();
    // A third of what runs.
    assert!(start.elapsed() < AMPLE, "{:?}", start.elapsed());
}

/// Fails if httpd left a file below its `run` directory.
#[track_caller]
fn expect_nothing_left(httpd: &Httpd) {
    assert!(is_ours());
    let left = || -> Vec<String> {
        let entries = std::fs::read_dir(httpd.path("run")).unwrap().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        // What the application itself has written.
        names.filter(|name| !["loads", "busy", "begun"].contains(&name.as_str())).collect()
    };
    wait_until("no file to be left", || left().is_empty().then_some(()));
}
