//! The timers of a process group: what takes too long, and what nobody uses.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{
    Httpd, Load, Process, Request, expect_served, group, loaded_group, ours_only, wait_for_end,
    wait_until,
};

/// What a new process may take to serve, beyond the second that is promised: the machine may be
/// busy with other tests.
const SLACK: Duration = Duration::from_secs(3);

/// The stack of the application as Python writes it where its lock is not to be had.
const STACK: &str = "in application";

/// Announces the fate of a request that is cut, and that of its process.
fn expect_lost(httpd: &mut Httpd, code: &str) {
    httpd.expect_error("WSGI0146");
    if !code.is_empty() {
        httpd.expect_error(code);
    }
    httpd.allow_stacks();
    // The lines of a stack.
    httpd.allow_error("app.wsgi\"");
}

/// The line about the one request that was lost.
#[track_caller]
fn lost(httpd: &Httpd) -> String {
    wait_until("a line about the lost request", || {
        httpd.log().lines().find(|line| line.contains("WSGI0146")).map(str::to_owned)
    })
}

#[test]
fn an_idle_process_is_replaced_by_one_that_has_loaded_its_script() {
    ours_only!("the reference's next request waits for the import");
    let httpd = group("threads=2 inactivity-timeout=1").start();
    let old = httpd.daemon();
    let loads = httpd.wait_for_loads(2);
    wait_for_end(Duration::from_secs(10), std::slice::from_ref(&old));
    assert!(httpd.log().contains("inactivity-timeout passed"), "{}", httpd.log());
    assert_eq!(loads[0], old.pid);
    // Nobody has used it: it stays.
    httpd.let_pass(3.0);
    assert_eq!(httpd.loads(), loads);
    assert_eq!(httpd.get("/").ok(), loads[1].to_string());
}

#[test]
fn a_request_that_runs_is_activity() {
    let httpd = group("threads=2 inactivity-timeout=1").start();
    let pid = httpd.get("/slow?3").ok();
    assert_eq!(httpd.loads().len(), 1);
    assert_eq!(httpd.logged("Replacing"), 0, "{}", httpd.log());
    let old = Process::find(pid.parse().unwrap()).unwrap();
    wait_for_end(Duration::from_secs(10), &[old]);
}

#[test]
fn requests_that_are_to_be_ignored_are_no_activity() {
    let ignored = "<Location /ignored>\nWSGIIgnoreActivity On\n</Location>";
    let httpd = group("threads=2 inactivity-timeout=1").config(ignored).start();
    // Alone they do not count as a use.
    let old: i32 = httpd.get("/ignored").ok().parse().unwrap();
    httpd.let_pass(2.5);
    assert_eq!(httpd.get("/ignored").ok(), old.to_string());
    let old = httpd.daemon();
    // And they do not hold the end off.
    let load = Load::start(&httpd, 1, "/ignored");
    wait_for_end(Duration::from_secs(10), &[old]);
    expect_served(&load.stop(), Duration::from_secs(5));
}

#[test]
fn a_script_that_hangs_when_it_is_first_asked_for_costs_its_process() {
    let hang = "if os.path.exists(ROOT + '/run/hang'):\n    note('hung', '')\n    time.sleep(60)\n";
    let options = "threads=3 startup-timeout=1 shutdown-timeout=1";
    let site = group(options).file("run/hang", "");
    let mut httpd = site.start();
    let source = httpd.read("app.wsgi").replace("note('loads'", &format!("{hang}note('loads'"));
    httpd.write("app.wsgi", source);
    if crate::harness::is_ours() {
        expect_lost(&mut httpd, "WSGI9117");
    }
    httpd.allow_error("WSGI014");
    let start = Instant::now();
    let mut first = httpd.connect();
    first.write(Request::get("/").head()).unwrap();
    httpd.wait_for_file("run/hung", "\n");
    std::fs::remove_file(httpd.path("run/hang")).unwrap();
    assert_eq!(first.read_response(false).unwrap().status, 502);
    // 1 s to load, 1 s to stop, 1 s until it is killed.
    assert!(start.elapsed() < Duration::from_secs(3) + SLACK, "{:?}", start.elapsed());
    httpd.get("/").ok();
    ours_only!("the reference does not say what hangs");
    assert!(lost(&httpd).contains("startup-timeout passed"), "{}", lost(&httpd));
    assert!(httpd.log().contains("in <module>"), "{}", httpd.log());
}

#[test]
fn a_script_that_hangs_before_its_process_is_ready_is_tried_again_ever_more_slowly() {
    ours_only!("row 3: the reference waits for ever");
    let hang =
        "note('tries', '')\nwhile os.path.exists(ROOT + '/run/hang'):\n    time.sleep(0.05)\n";
    let site = loaded_group("threads=3 startup-timeout=1", hang).file("run/hang", "");
    let mut httpd = site.start();
    httpd.expect_error("WSGI9117");
    httpd.expect_error("WSGI9102");
    httpd.wait_for_log("(startup-timeout passed) before it was ready; trying again in 2 s");
    assert!(httpd.log().contains("in <module>"), "{}", httpd.log());
    assert_eq!(httpd.read("run/tries").lines().count(), 2);
    std::fs::remove_file(httpd.path("run/hang")).unwrap();
    httpd.get("/").ok();
}

#[test]
fn a_process_that_never_gives_back_pythons_lock_is_replaced() {
    let mut httpd = group("threads=1 deadlock-timeout=1 shutdown-timeout=1").start();
    if crate::harness::is_ours() {
        expect_lost(&mut httpd, "WSGI9116");
    }
    httpd.allow_error("WSGI014");
    let old = httpd.daemon();
    let start = Instant::now();
    let mut stuck = httpd.begin("/hold?30");
    let new = httpd.get("/").ok();
    ours_only!("the reference's next request waits for the end of the old process");
    // 1 s without the lock, 1 s between two looks.
    assert!(start.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", start.elapsed());
    assert_ne!(new, old.pid.to_string());
    wait_for_end(Duration::from_secs(5), &[old]);
    assert_eq!(stuck.read_response(false).unwrap().status, 502);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let log = httpd.log();
    assert!(lost(&httpd).contains("deadlock-timeout passed"), "{log}");
    assert_eq!(httpd.logged(STACK), 1, "{log}");
}

#[test]
fn a_request_that_waits_for_pythons_lock_is_run_elsewhere_when_that_is_lost() {
    ours_only!("the reference has begun whatever a thread has read");
    let mut httpd = group("threads=3 deadlock-timeout=2 shutdown-timeout=60").start();
    expect_lost(&mut httpd, "WSGI9116");
    let old = httpd.daemon();
    let mut stuck = httpd.begin("/hold?60");
    // Its thread has read it long before the process is given up.
    let mut waiting = httpd.connect();
    waiting.write(Request::get("/").head()).unwrap();
    let answer = waiting.read_response(false).unwrap();
    assert_ne!(answer.ok(), old.pid.to_string());
    assert_eq!(stuck.read_response(false).unwrap().status, 502);
}

#[test]
fn a_lock_that_is_lost_while_requests_end_is_noticed() {
    ours_only!("the reference waits for ever");
    let options = "threads=2 deadlock-timeout=1 shutdown-timeout=1 graceful-timeout=0";
    let mut httpd = group(options).start();
    expect_lost(&mut httpd, "WSGI9116");
    let old = httpd.daemon();
    let mut slow = httpd.begin("/slow?60");
    old.signal(Signal::SIGUSR1);
    httpd.successor_of(&old);
    httpd.wait_for_log("Finishing requests");
    // Whoever runs in it now gets the lock never again.
    assert!(old.is_alive());
    old.signal(Signal::SIGSTOP);
    wait_until("it to stop", || old.status("State").starts_with('T').then_some(()));
    httpd.wait_for_log("WSGI9116");
    wait_for_end(Duration::from_secs(5), &[old]);
    assert_eq!(slow.read_response(false).unwrap().status, 502);
}

#[test]
fn a_long_end_is_no_deadlock() {
    ours_only!("the reference has no word for the moment");
    let first = r"
import atexit
def linger():
    while os.path.exists(ROOT + '/run/linger'):
        time.sleep(0.01)
atexit.register(linger)
";
    let site = loaded_group("threads=2 deadlock-timeout=1", first).file("run/linger", "");
    let httpd = site.start();
    let old = httpd.daemon();
    old.signal(Signal::SIGUSR1);
    httpd.successor_of(&old);
    httpd.wait_for_log("Stopping daemon process");
    httpd.let_pass(3.0);
    assert!(old.is_alive());
    std::fs::remove_file(httpd.path("run/linger")).unwrap();
    wait_for_end(Duration::from_secs(10), &[old]);
}

#[test]
fn the_group_serves_on_when_all_its_threads_are_stuck() {
    ours_only!("row 32: the reference is out for as long as it takes to stop");
    for (threads, limit) in [(1, 1.0), (3, 1.0 + 3_f64.ln())] {
        let options =
            format!("threads={threads} request-timeout=1 graceful-timeout=2 shutdown-timeout=1");
        let mut httpd = group(&options).start();
        expect_lost(&mut httpd, "WSGI9115");
        let old = httpd.daemon();
        let start = Instant::now();
        let mut stuck: Vec<_> = (0..threads).map(|_| httpd.begin("/slow?60")).collect();
        let new = httpd.get("/").ok();
        let service_again = Duration::from_secs_f64(limit + 1.0) + SLACK;
        assert!(start.elapsed() < service_again, "{:?}", start.elapsed());
        assert!(start.elapsed().as_secs_f64() > limit, "{:?}", start.elapsed());
        assert_ne!(new, old.pid.to_string());
        wait_for_end(Duration::from_secs(4), &[old]);
        for connection in &mut stuck {
            assert_eq!(connection.read_response(false).unwrap().status, 502);
        }
        let log = httpd.log();
        assert!(lost(&httpd).contains("request-timeout passed"), "{log}");
        // All threads once, the lost ones among them.
        assert_eq!(httpd.logged("WSGI9409"), 1, "{log}");
        assert_eq!(httpd.logged(STACK), threads, "{log}");
    }
}

#[test]
fn other_requests_of_a_stuck_process_come_to_their_end() {
    ours_only!("row 32");
    let options = "threads=3 request-timeout=1 graceful-timeout=15 shutdown-timeout=1";
    let mut httpd = group(options).start();
    expect_lost(&mut httpd, "WSGI9115");
    let load = Load::start(&httpd, 2, "/slow?0.7");
    load.wait_for(2);
    let old = httpd.daemon();
    let mut stuck = httpd.begin("/slow?60");
    httpd.successor_of(&old);
    assert_eq!(stuck.read_response(false).unwrap().status, 502);
    wait_for_end(Duration::from_secs(5), &[old]);
    expect_served(&load.stop(), Duration::from_secs(4));
}

#[test]
fn a_request_within_its_time_survives_the_end_of_its_process() {
    ours_only!("the reference waits only for those younger than request-timeout");
    // 20 threads: a request may take 4 s.
    let httpd = group("threads=20 request-timeout=1 shutdown-timeout=1").start();
    let old = httpd.daemon();
    let mut slow = httpd.begin("/slow?3.5");
    old.signal(Signal::SIGUSR1);
    assert_eq!(slow.read_response(false).unwrap().ok(), old.pid.to_string());
    wait_for_end(Duration::from_secs(5), &[old]);
}

#[test]
fn a_request_in_a_loop_is_interrupted_and_its_process_stays() {
    let options = "threads=2 request-timeout=1 interrupt-timeout=10";
    let mut httpd = group(options).start();
    if crate::harness::is_ours() {
        httpd.expect_error("RequestTimeout");
    }
    httpd.allow_error("WSGI");
    let old = httpd.daemon();
    let start = Instant::now();
    assert_eq!(httpd.get("/loop?60").status, 504);
    assert!(start.elapsed() < Duration::from_secs(3) + SLACK, "{:?}", start.elapsed());
    assert_eq!(httpd.daemon().pid, old.pid);
    httpd.wait_for_log("Injected RequestTimeout into thread");
    assert_eq!(httpd.logged("WSGI9115"), 0, "{}", httpd.log());
}

#[test]
fn a_request_that_cannot_be_interrupted_costs_its_process() {
    ours_only!("row 32: the reference is out for as long as it takes to stop");
    let options = "threads=1 request-timeout=1 interrupt-timeout=1 shutdown-timeout=1";
    let mut httpd = group(options).start();
    expect_lost(&mut httpd, "WSGI9115");
    let old = httpd.daemon();
    let start = Instant::now();
    let mut stuck = httpd.begin("/slow?60");
    assert_ne!(httpd.get("/").ok(), old.pid.to_string());
    assert!(start.elapsed() > Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(3) + SLACK, "{:?}", start.elapsed());
    assert_eq!(stuck.read_response(false).unwrap().status, 502);
    wait_for_end(Duration::from_secs(5), &[old]);
}

#[test]
fn without_a_graceful_timeout_requests_take_what_they_need() {
    let httpd = group("threads=2 graceful-timeout=0 shutdown-timeout=1").start();
    let old = httpd.daemon();
    let mut slow = httpd.begin("/slow?4");
    old.signal(Signal::SIGUSR1);
    ours_only!("the reference serves on in the old process");
    httpd.successor_of(&old);
    assert_eq!(slow.read_response(false).unwrap().ok(), old.pid.to_string());
    wait_for_end(Duration::from_secs(5), &[old]);
}

#[test]
fn eviction_has_a_time_of_its_own() {
    ours_only!("row 3: the reference needs another timer for it");
    let options = "threads=2 graceful-timeout=60 eviction-timeout=1 shutdown-timeout=1";
    let mut httpd = group(options).start();
    httpd.expect_error("WSGI014");
    httpd.allow_stacks();
    httpd.allow_error("app.wsgi\"");
    let old = httpd.daemon();
    let mut slow = httpd.begin("/slow?60");
    old.signal(Signal::SIGUSR1);
    httpd.successor_of(&old);
    wait_for_end(Duration::from_secs(3) + SLACK, &[old]);
    assert_eq!(slow.read_response(false).unwrap().status, 502);
    assert!(lost(&httpd).contains("evicted by SIGUSR1"), "{}", lost(&httpd));
}
