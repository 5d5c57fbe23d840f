//! Processes that are replaced because they have served, lived or grown enough.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::{
    Httpd, Load, expect_served, gated_group, group, loaded_group, ours_only, wait_for_end,
    wait_until,
};

/// Longer than any request here takes.
const AMPLE: Duration = Duration::from_secs(20);

/// Fails if a process began to be replaced before another's replacement served.
#[track_caller]
fn expect_one_at_a_time(httpd: &Httpd, reason: &str) {
    let log = httpd.log();
    let (mut replacing, mut count) = (false, 0);
    for line in log.lines() {
        if line.contains("Replacing daemon process") && line.contains(reason) {
            assert!(!replacing, "two at a time: {log}");
            (replacing, count) = (true, count + 1);
        }
        // Said by the old process, once the new one is ready.
        replacing &= !(line.contains("Finishing requests") && line.contains(reason));
    }
    assert!(count >= 2, "{count} were replaced: {log}");
}

#[test]
fn maximum_requests_replaces_processes_and_nobody_waits() {
    ours_only!("row 31: the reference waits for an idle moment, then lets requests wait");
    let httpd = gated_group("threads=3 maximum-requests=5").start();
    httpd.get("/").ok();
    let load = Load::start(&httpd, 4, "/slow?0.05");
    for processes in 2..5 {
        httpd.expect_no_wait(&load, || {});
        load.wait_for_texts(processes);
    }
    expect_served(&load.stop(), AMPLE);
    assert!(httpd.logged("maximum-requests reached") >= 3);
}

#[test]
fn a_process_serves_no_more_than_a_few_requests_over_its_maximum() {
    ours_only!("row 31: the reference overshoots under load");
    let httpd = group("threads=3 maximum-requests=50").start();
    httpd.get("/").ok();
    let load = Load::start(&httpd, 3, "/slow?0.02");
    load.wait_for_texts(4);
    let answers = load.stop();
    let last = answers.last().unwrap().result.as_ref().unwrap().text();
    for pid in crate::harness::texts(&answers) {
        let is_its = |answer: &&crate::harness::Answer| {
            answer.result.as_ref().is_ok_and(|response| response.text() == pid)
        };
        let count = answers.iter().filter(is_its).count();
        // Three at a time, 20 ms each, while a new process starts: a second is 150.
        assert!(pid == last || (48..400).contains(&count), "{pid} served {count}");
    }
    expect_served(&answers, Duration::from_secs(5));
}

#[test]
fn a_process_for_a_single_request_serves_exactly_one() {
    let once = "
def application(environ, start_response):
    note('once', '%d %s' % (os.getpid(), environ['wsgi.run_once']))
    start_response('200 OK', [])
    return [str(os.getpid()).encode()]
";
    let httpd = loaded_group("threads=1 maximum-requests=1", once).start();
    for _ in 0..4 {
        httpd.get("/").ok();
    }
    let load = Load::start(&httpd, 3, "/");
    load.wait_for(8);
    expect_served(&load.stop(), Duration::from_secs(10));
    let once = httpd.read("run/once");
    let pids: BTreeSet<&str> = once.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(once.lines().all(|line| line.ends_with(" True")), "{once}");
    assert_eq!(pids.len(), once.lines().count(), "{once}");
}

#[test]
fn processes_are_replaced_one_after_the_other_at_their_restart_interval() {
    ours_only!("row 3: the reference needs another timer for it, and lets requests wait");
    let httpd = gated_group("processes=2 threads=2 restart-interval=1").start();
    httpd.wait_for_loads(2);
    httpd.get("/").ok();
    let load = Load::start(&httpd, 3, "/slow?0.02");
    for processes in 3..6 {
        httpd.expect_no_wait(&load, || {});
        load.wait_for_texts(processes);
    }
    expect_served(&load.stop(), AMPLE);
    expect_one_at_a_time(&httpd, "restart-interval passed");
}

#[test]
fn processes_that_leak_are_replaced_one_after_the_other() {
    ours_only!("max-rss= is ours");
    let httpd = gated_group("processes=2 threads=1 max-rss=100000000").start();
    httpd.wait_for_loads(2);
    // Old enough to be replaced at the same moment.
    httpd.let_pass(3.0);
    httpd.hold_imports();
    // One thread each: both run at once, and both leak.
    let leaks: Vec<_> = (0..2).map(|_| httpd.begin("/leak?150000")).collect();
    for mut leak in leaks {
        assert_eq!(leak.read_response(false).unwrap().status, 200);
    }
    let load = Load::start(&httpd, 2, "/slow?0.02");
    httpd.expect_service_beside_an_import(&load);
    wait_until("both to be replaced", || (httpd.loads().len() == 4).then_some(()));
    load.wait_for(20);
    expect_served(&load.stop(), AMPLE);
    expect_one_at_a_time(&httpd, "max-rss exceeded");
}

#[test]
fn what_is_too_large_from_the_start_is_replaced_ever_more_seldom() {
    ours_only!("max-rss= is ours");
    let httpd = loaded_group("threads=2 max-rss=1000000", "").start();
    httpd.wait_for_loads(2);
    // Once a second would be nine; after 2 s and 4 s there are four.
    httpd.let_pass(8.0);
    let loads = httpd.loads().len();
    assert!((3..=5).contains(&loads), "{loads}: {}", httpd.log());
}

#[test]
fn a_process_whose_request_ran_out_of_memory_is_replaced() {
    ours_only!("row 5: the reference leaves it as it is");
    for option in ["memory-limit=400000000", "virtual-memory-limit=2000000000"] {
        let mut httpd = group(&format!("threads=2 {option}")).start();
        httpd.expect_error("MemoryError");
        httpd.allow_error("WSGI0174");
        let old = httpd.daemon();
        assert_eq!(httpd.get("/allocate?4000").status, 500, "{option}");
        let new = httpd.successor_of(&old);
        assert_eq!(httpd.loads(), [old.pid, new.pid], "{option}");
        wait_for_end(Duration::from_secs(5), &[old]);
        assert_eq!(httpd.logged("Replacing"), 1, "{option}");
    }
}

#[test]
fn a_process_that_lives_near_its_limit_is_replaced_though_it_does_not_fail() {
    ours_only!("row 5: the reference leaves it as it is");
    for option in ["memory-limit=400000000", "virtual-memory-limit=2000000000"] {
        let httpd = group(&format!("threads=2 {option}")).start();
        let old = httpd.daemon();
        let load = Load::start(&httpd, 1, "/");
        // It has caught the error, as frameworks do.
        assert_eq!(httpd.get("/fill?4").ok(), old.pid.to_string(), "{option}");
        httpd.successor_of(&old);
        wait_for_end(Duration::from_secs(5), &[old]);
        expect_served(&load.stop(), Duration::from_secs(5));
    }
}

#[test]
fn a_process_that_has_used_its_processor_time_is_replaced() {
    for options in ["", "graceful-timeout=0"] {
        // It burns what processor there is: a busy machine makes its answers late.
        let import = "time.sleep(6)\n";
        let httpd = loaded_group(&format!("threads=2 cpu-time-limit=2 {options}"), import).start();
        let old = httpd.daemon();
        let mut slow = httpd.begin("/slow?9");
        let load = Load::start(&httpd, 1, "/burn?0.05");
        load.wait_for_texts(2);
        let limit = if crate::harness::is_ours() { 5 } else { 30 };
        expect_served(&load.stop(), Duration::from_secs(limit));
        assert_eq!(slow.read_response(false).unwrap().ok(), old.pid.to_string(), "{options}");
        ours_only!("row 4: without a graceful-timeout the reference serves nobody from here on");
        wait_until("it to be said why", || {
            (httpd.logged("cpu-time-limit reached") > 0).then_some(())
        });
        wait_for_end(Duration::from_secs(5), &[old]);
    }
}
