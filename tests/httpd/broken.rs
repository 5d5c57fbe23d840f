//! New versions of a script that cannot be loaded: old code goes on serving.
#![forbid(unsafe_code)]

use nix::sys::signal::Signal;

use crate::harness::{
    APPLICATION, Httpd, Load, Mode, Request, Site, group, loaded_group, ours_only, wait_until,
};

/// A version that cannot be loaded.
const BROKEN: &str = "raise KeyError('broken on purpose')\n";

/// A version that cannot be loaded, which waits until `run/go` is there and notes in
/// `run/tries` when it begins.
const SLOWLY_BROKEN: &str = r"
import os, time
ROOT = os.path.dirname(__file__) + '/run/'
with open(ROOT + 'tries', 'a') as file:
    file.write('one\n')
while not os.path.exists(ROOT + 'go'):
    time.sleep(0.01)
raise KeyError('broken on purpose')
";

/// Announces what the log says of [`BROKEN`].
fn expect_broken(httpd: &mut Httpd) {
    httpd.expect_error("WSGI9104");
    httpd.expect_error("KeyError: 'broken on purpose'");
    for text in ["WSGI0109", "app.wsgi\""] {
        httpd.allow_error(text);
    }
}

/// A version of the harness' application that answers with this text.
fn saying(source: &str, text: &str) -> String {
    source.replace("str(os.getpid()).encode()]", &format!("b'{text}']"))
}

/// Breaks the script of a running group and waits until that was tried.
fn break_script(httpd: &mut Httpd) {
    expect_broken(httpd);
    httpd.write("app.wsgi", BROKEN);
    httpd.get("/").ok();
    httpd.wait_for_log("WSGI9104");
}

/// Every answer to `load` is a whole one, by the code there was before.
#[track_caller]
fn expect_no_failure(load: Load) {
    let answers = load.stop();
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status() != 200).collect();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), answers.len(), failed[0]);
}

#[test]
fn a_script_that_broke_costs_no_request() {
    ours_only!("row 47: the reference answers 500");
    for processes in [1, 2] {
        let mut httpd = group(&format!("processes={processes} threads=3")).start();
        httpd.get("/").ok();
        httpd.wait_for_loads(processes);
        let load = Load::start(&httpd, 4, "/");
        load.wait_for(50);
        break_script(&mut httpd);
        load.wait_for(50);
        httpd.write("app.wsgi", saying(APPLICATION, "mended"));
        assert_eq!(httpd.get("/").ok(), "mended");
        load.wait_for(20);
        expect_no_failure(load);
        assert_eq!(httpd.logged("KeyError: 'broken on purpose'"), 1, "{}", httpd.log());
        let path = httpd.path("app.wsgi");
        httpd.wait_for_log(&format!("cannot load '{}'", path.display()));
    }
}

#[test]
fn a_version_that_was_tried_keeps_no_request_waiting() {
    ours_only!("row 47: the reference answers 500");
    let mut httpd = group("threads=3").start();
    let old = httpd.get("/").ok();
    expect_broken(&mut httpd);
    let tries = |httpd: &Httpd| httpd.read("run/tries").lines().count();
    httpd.write("app.wsgi", SLOWLY_BROKEN);
    // Waits for the outcome.
    let mut first = httpd.connect();
    first.write(Request::get("/").head()).unwrap();
    wait_until("the first try", || (tries(&httpd) == 1).then_some(()));
    std::fs::write(httpd.path("run/go"), "").unwrap();
    assert_eq!(first.read_response(false).unwrap().ok(), old);
    std::fs::remove_file(httpd.path("run/go")).unwrap();
    let before = tries(&httpd);
    wait_until("another try", || (tries(&httpd) > before).then_some(()));
    // That one is under way, for as long as this takes.
    for _ in 0..3 {
        assert_eq!(httpd.get("/").ok(), old);
    }
    std::fs::write(httpd.path("run/go"), "").unwrap();
}

#[test]
fn a_restart_into_a_broken_script_costs_no_request() {
    ours_only!("row 47: the reference answers 500");
    let mut httpd = group("processes=2 threads=3").start();
    httpd.get("/").ok();
    httpd.wait_for_loads(2);
    expect_broken(&mut httpd);
    let load = Load::start(&httpd, 4, "/");
    load.wait_for(20);
    httpd.write("app.wsgi", BROKEN);
    httpd.graceful();
    httpd.wait_for_log("WSGI9104");
    load.wait_for(50);
    httpd.graceful();
    load.wait_for(50);
    httpd.write("app.wsgi", saying(APPLICATION, "mended"));
    assert_eq!(httpd.get("/").ok(), "mended");
    expect_no_failure(load);
}

#[test]
fn a_process_that_was_to_be_recycled_stays_while_its_script_is_broken() {
    ours_only!("row 47: the reference answers 500");
    let mut httpd = group("threads=3").start();
    let old = httpd.daemon();
    break_script(&mut httpd);
    let failed = httpd.logged("WSGI9104");
    old.signal(Signal::SIGUSR1);
    wait_until("a try to replace it", || (httpd.logged("WSGI9104") > failed).then_some(()));
    assert_eq!(httpd.daemon().pid, old.pid);
    httpd.write("app.wsgi", saying(APPLICATION, "mended"));
    assert_eq!(httpd.get("/").ok(), "mended");
}

#[test]
fn when_the_last_process_dies_requests_are_told_why_the_script_is_broken() {
    ours_only!("WSGI9101 is ours");
    let mut httpd = group("threads=3").start();
    let old = httpd.daemon();
    break_script(&mut httpd);
    httpd.expect_error("WSGI9101");
    old.signal(Signal::SIGKILL);
    wait_until("a request to fail", || (httpd.get("/").status == 500).then_some(()));
    httpd.wait_for_log("WSGI0109");
    httpd.write("app.wsgi", saying(APPLICATION, "mended"));
    assert_eq!(httpd.get("/").ok(), "mended");
}

#[test]
fn a_script_that_was_broken_at_the_start_serves_on_once_it_was_mended() {
    ours_only!("row 47: the reference answers 500");
    let mut httpd = loaded_group("threads=3", "").file("app.wsgi", BROKEN).start();
    expect_broken(&mut httpd);
    assert_eq!(httpd.get("/").status, 500);
    httpd.write("app.wsgi", saying(APPLICATION, "mended"));
    assert_eq!(httpd.get("/").ok(), "mended");
    httpd.write("app.wsgi", BROKEN);
    assert_eq!(httpd.get("/").ok(), "mended");
    httpd.wait_for_log("WSGI9104");
}

#[test]
fn a_version_that_ends_the_process_that_loads_it_costs_no_request() {
    ours_only!("row 47: the reference answers 500");
    let mut httpd = group("threads=3").start();
    let old = httpd.get("/").ok();
    httpd.expect_error("WSGI9102");
    httpd.write("app.wsgi", "import os\nos._exit(3)\n");
    assert_eq!(httpd.get("/").ok(), old);
    assert_eq!(httpd.get("/").ok(), old);
    httpd.write("app.wsgi", saying(APPLICATION, "mended"));
    assert_eq!(httpd.get("/").ok(), "mended");
}

#[test]
fn one_broken_script_of_two_holds_back_the_other_and_costs_no_request() {
    ours_only!("row 47: the reference answers 500");
    let answer = |text: &str| {
        format!("def application(e, s):\n    s('200 OK', [])\n    return [b'{text}']\n")
    };
    let mut httpd = Site::new(Mode::Daemon.config())
        .config("WSGIScriptAlias /a ${ROOT}/app.wsgi\nWSGIScriptAlias /b ${ROOT}/b.wsgi")
        .file("app.wsgi", answer("old a"))
        .file("b.wsgi", answer("old b"))
        .start();
    expect_broken(&mut httpd);
    assert_eq!((httpd.get("/a").ok(), httpd.get("/b").ok()), ("old a".into(), "old b".into()));
    httpd.write("app.wsgi", BROKEN);
    assert_eq!(httpd.get("/a").ok(), "old a");
    httpd.write("b.wsgi", answer("new b"));
    assert_eq!(httpd.get("/b").ok(), "old b");
    httpd.write("app.wsgi", answer("new a"));
    assert_eq!((httpd.get("/a").ok(), httpd.get("/b").ok()), ("new a".into(), "new b".into()));
}

#[test]
fn a_request_that_waits_for_new_code_is_served_by_old_code_if_the_supervisor_dies() {
    ours_only!("the reference has no supervisor");
    let mut httpd = group("threads=3").start();
    httpd.expect_error("WSGI9305");
    let old = httpd.daemon();
    let supervisor = httpd.supervisor_of(old.pid).unwrap();
    let slow = SLOWLY_BROKEN.replace("raise KeyError('broken on purpose')", "");
    httpd.write("app.wsgi", slow + &saying(APPLICATION, "new"));
    let mut waiting = httpd.connect();
    waiting.write(Request::get("/").head()).unwrap();
    httpd.wait_for_file("run/tries", "one");
    supervisor.signal(Signal::SIGKILL);
    assert_eq!(waiting.read_response(false).unwrap().ok(), old.pid.to_string());
    std::fs::write(httpd.path("run/go"), "").unwrap();
    wait_until("new code", || (httpd.get("/").ok() == "new").then_some(()));
}

/// Notes in `run/tries` that an import begins, and waits until the file for that try is there.
const STEP_BY_STEP: &str = r"
import os, time
RUN = os.path.dirname(__file__) + '/run/'
with open(RUN + 'tries', 'a') as file:
    file.write('one\n')
mine = RUN + 'go-%d' % len(open(RUN + 'tries').readlines())
end = time.time() + 20
while not os.path.exists(mine) and time.time() < end:
    time.sleep(0.01)
";

/// Waits until so many imports of [`STEP_BY_STEP`] have begun.
fn wait_for_tries(httpd: &Httpd, count: usize) {
    let tries = || httpd.read("run/tries").lines().count();
    wait_until(format!("{count} tries"), || (tries() >= count).then_some(()));
}

#[test]
fn a_request_does_not_wait_for_a_restart_that_meets_a_reload() {
    ours_only!("the reference starts its processes anew at every restart");
    let httpd = loaded_group("threads=3", "").start();
    httpd.get("/").ok();
    httpd.write("app.wsgi", saying(&[STEP_BY_STEP, APPLICATION].concat(), "new"));
    let mut waiting = httpd.connect();
    waiting.write(Request::get("/").head()).unwrap();
    wait_for_tries(&httpd, 1);
    httpd.graceful();
    httpd.write("run/go-1", "");
    // What the restart starts is not done before this is answered.
    assert_eq!(waiting.read_response(false).unwrap().ok(), "new");
    wait_for_tries(&httpd, 2);
    assert_eq!(httpd.get("/").ok(), "new");
    httpd.write("run/go-2", "");
}

#[test]
fn a_request_does_not_wait_for_a_reload_that_meets_a_restart() {
    ours_only!("the reference starts its processes anew at every restart");
    let httpd = loaded_group("threads=3", "").start();
    httpd.get("/").ok();
    httpd.write("app.wsgi", [STEP_BY_STEP, APPLICATION].concat());
    httpd.graceful();
    wait_for_tries(&httpd, 1);
    // What loads has read the file that was.
    httpd.write("app.wsgi", saying(&[STEP_BY_STEP, APPLICATION].concat(), "newer"));
    let mut waiting = httpd.connect();
    waiting.write(Request::get("/").head()).unwrap();
    httpd.write("run/go-2", "");
    assert_eq!(waiting.read_response(false).unwrap().ok(), "newer");
    httpd.write("run/go-1", "");
}
