//! Scripts that processes load before anybody asks them to, because another had to.
#![forbid(unsafe_code)]

use nix::sys::signal::Signal;

use crate::harness::{Process, group, ours_only, wait_until};

/// So many different processes.
fn different(loads: &[i32]) -> usize {
    loads.iter().collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn what_one_process_loaded_for_a_request_the_others_load_ahead() {
    ours_only!("each process of the reference loads a script when it is first asked for it");
    let httpd = group("processes=3 threads=2").start();
    httpd.get("/").ok();
    let loads = httpd.wait_for_loads(3);
    assert_eq!(different(&loads), 3, "{loads:?}");
}

#[test]
fn a_supervisor_that_was_killed_leaves_its_successor_the_scripts() {
    ours_only!("the reference has no supervisor");
    let mut httpd = group("processes=2 threads=2").start();
    httpd.expect_error("WSGI9305");
    httpd.expect_error("WSGI9101");
    let first = httpd.daemon();
    // The other one has it from the supervisor: that knows it.
    httpd.wait_for_loads(2);
    httpd.supervisor_of(first.pid).unwrap().signal(Signal::SIGKILL);
    // Nobody asks for anything meanwhile.
    let loads = httpd.wait_for_loads(4);
    assert_eq!(different(&loads), 4, "{loads:?}");
    let new = wait_until("a new process to serve", || {
        let pid = httpd.get("/").ok().parse().unwrap();
        loads[2..].contains(&pid).then(|| Process::find(pid)).flatten()
    });
    new.signal(Signal::SIGKILL);
    let loads = httpd.wait_for_loads(5);
    assert_eq!(different(&loads), 5, "{loads:?}");
}
