//! `WSGIScriptReloading`: a script that changes while httpd runs.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::harness::{
    Httpd, Load, Mode, Request, Site, expect_served, gated_group, in_both_modes, is_ours,
    loaded_group, ours_only, texts, wait_until,
};

/// A script that answers with `text` and its process id.
fn version(text: &str) -> String {
    format!(
        "import os\ndef application(environ, start_response):\n    \
         start_response('200 OK', [])\n    return [b'{text} %d' % os.getpid()]\n"
    )
}

/// The first word of the answer to `GET /`.
#[track_caller]
fn answer(httpd: &Httpd) -> String {
    httpd.get("/").ok().split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn the_request_that_follows_a_change_is_served_by_the_new_script() {
    in_both_modes(&version("one"), |httpd| {
        assert_eq!(answer(httpd), "one");
        httpd.write("app.wsgi", version("two"));
        assert_eq!(answer(httpd), "two");
        httpd.write("app.wsgi", version("three"));
        assert_eq!(answer(httpd), "three");
    });
}

#[test]
fn an_older_script_is_a_change_too() {
    in_both_modes(&version("one"), |httpd| {
        assert_eq!(answer(httpd), "one");
        httpd.write("app.wsgi", version("two"));
        let file = std::fs::File::options().write(true).open(httpd.path("app.wsgi")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000))
            .unwrap();
        assert_eq!(answer(httpd), "two");
    });
}

#[test]
fn a_script_stays_where_reloading_is_off() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        // Both requests must meet one process.
        let httpd =
            Site::app(mode, &version("one")).config("WSGIScriptReloading Off").one_child().start();
        assert_eq!(answer(&httpd), "one");
        httpd.write("app.wsgi", version("two"));
        assert_eq!(answer(&httpd), "one");
        httpd.graceful();
        wait_until("the new script after a restart", || (answer(&httpd) == "two").then_some(()));
    }
}

#[test]
fn a_daemon_process_is_replaced_and_a_child_is_not() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, &version("one")).one_child().start();
        let pid = |text: String| text.split(' ').nth(1).unwrap().to_owned();
        let before = pid(httpd.get("/").ok());
        httpd.write("app.wsgi", version("two"));
        let after = pid(httpd.get("/").ok());
        assert_eq!(before == after, mode == Mode::Embedded, "{before} {after}");
    }
}

#[test]
fn a_request_that_waited_for_a_thread_is_served_by_the_new_script() {
    let waits = "    import time\n    run = os.path.dirname(__file__) + '/run/'\n    \
        if environ['PATH_INFO'] == '/hold':\n        open(run + 'in', 'w').close()\n        \
        end = time.time() + 20\n        \
        while not os.path.exists(run + 'go') and time.time() < end: time.sleep(0.01)\n    start_response";
    let script = |text: &str| version(text).replace("    start_response", waits);
    let site = Site::new("WSGIDaemonProcess app threads=1\nWSGIProcessGroup app")
        .config("WSGIScriptAlias / ${ROOT}/app.wsgi")
        .file("app.wsgi", script("one"))
        .one_child();
    site.open_run();
    let httpd = site.start();
    let mut holding = httpd.connect();
    holding.write(Request::get("/hold").head()).unwrap();
    wait_until("a request to run", || httpd.path("run/in").exists().then_some(()));
    let mut waiting = httpd.connect();
    waiting.write(Request::get("/").head()).unwrap();
    // httpd looks at the file when it has the head; that look is believed for 50 ms.
    let asked = Instant::now();
    wait_until("a look too old to be believed", || {
        (asked.elapsed() > Duration::from_millis(200)).then_some(())
    });
    httpd.write("app.wsgi", script("two"));
    httpd.write("run/go", "");
    let said = waiting.read_response(false).unwrap();
    assert!(said.text().starts_with("two"), "{}", said.text());
    assert!(holding.read_response(false).unwrap().text().starts_with("one"));
}

#[test]
fn a_script_that_broke_is_mended_by_the_next_change() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, &version("one")).start();
        httpd.expect_error("WSGI0109");
        for text in ["broken", "app.wsgi", "WSGI9104"] {
            httpd.allow_error(text);
        }
        assert_eq!(answer(&httpd), "one");
        httpd.write("app.wsgi", "raise KeyError('broken')\n");
        // Row 47: a process group has an old process to fall back on.
        let falls_back = is_ours() && mode == Mode::Daemon;
        assert_eq!(httpd.get("/").status, if falls_back { 200 } else { 500 });
        httpd.write("app.wsgi", version("two"));
        assert_eq!(answer(&httpd), "two");
    }
}

#[test]
fn no_request_fails_while_scripts_change() {
    ours_only!("row 17: the reference lets requests wait and cuts those in flight");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, &version("0")).start();
        assert_eq!(answer(&httpd), "0");
        let load = Load::start(&httpd, 4, "/");
        for number in 1..6 {
            httpd.write("app.wsgi", version(&number.to_string()));
            load.wait_for(20);
        }
        let answers = load.stop();
        let failed: Vec<_> = answers.iter().filter(|answer| answer.status() != 200).collect();
        assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), answers.len(), failed[0]);
        assert_eq!(answer(&httpd), "5");
    }
}

#[test]
fn a_request_in_flight_finishes_with_the_old_script() {
    ours_only!("row 17: the reference gives it shutdown-timeout only");
    let source = version("old").replace(
        "    start_response",
        "    import time\n    if environ['PATH_INFO'] == '/slow':\n        open(os.path.dirname(__file__) + '/run/in', 'w').close()\n        time.sleep(2)\n    start_response",
    );
    let site =
        Site::new("WSGIDaemonProcess app threads=5 shutdown-timeout=1\nWSGIProcessGroup app")
            .config("WSGIScriptAlias / ${ROOT}/app.wsgi")
            .file("app.wsgi", source);
    site.open_run();
    let httpd = site.start();
    let mut slow = httpd.connect();
    slow.write(Request::get("/slow").head()).unwrap();
    wait_until("the slow request to run", || httpd.path("run/in").exists().then_some(()));
    httpd.write("app.wsgi", version("new"));
    assert_eq!(answer(&httpd), "new");
    assert!(slow.read_response(false).unwrap().ok().starts_with("old "));
}

/// Longer than any request here takes.
const AMPLE: Duration = Duration::from_secs(20);

/// A group with `reload=rolling` that has loaded its script, and the source of that.
fn start_rolling(processes: usize) -> (Httpd, String) {
    let httpd = gated_group(&format!("processes={processes} threads=2 reload=rolling")).start();
    httpd.wait_for_loads(processes);
    httpd.get("/").ok();
    let source = httpd.read("app.wsgi");
    (httpd, source)
}

/// The source of another version of a script, which answers with this text.
fn saying(source: &str, text: &str) -> String {
    source.replace("str(os.getpid()).encode()]", &format!("b'{text}']"))
}

#[test]
fn with_a_rolling_reload_nobody_waits_for_the_import() {
    ours_only!("reload= is ours");
    for processes in [1, 2] {
        let (httpd, source) = start_rolling(processes);
        let load = Load::start(&httpd, 2, "/slow?0.02");
        for text in ["two", "three", "four"] {
            httpd.expect_no_wait(&load, || httpd.write("app.wsgi", saying(&source, text)));
            wait_until(format!("an answer {text}"), || (httpd.get("/").ok() == text).then_some(()));
        }
        expect_served(&load.stop(), AMPLE);
        // All of them, and for good.
        wait_until("the last old process to be drained", || {
            (0..20).all(|_| httpd.get("/").ok() == "four").then_some(())
        });
    }
}

#[test]
fn a_new_version_that_is_broken_takes_no_request() {
    ours_only!("reload= is ours");
    let (mut httpd, source) = start_rolling(2);
    let load = Load::start(&httpd, 2, "/slow?0.02");
    httpd.expect_error("WSGI9104");
    httpd.expect_error("KeyError: 'broken on purpose'");
    for text in ["WSGI0109", "app.wsgi\""] {
        httpd.allow_error(text);
    }
    httpd.write("app.wsgi", "raise KeyError('broken on purpose')\n");
    wait_until("three attempts", || (httpd.logged("WSGI9104") >= 3).then_some(()));
    for pause in ["in 1 s", "in 2 s", "in 4 s"] {
        let found = httpd.log().lines().any(|it| it.contains("WSGI9104") && it.contains(pause));
        assert!(found, "{pause}: {}", httpd.log());
    }
    assert_eq!(httpd.logged("KeyError: 'broken on purpose'"), 1, "{}", httpd.log());
    // Does not wait for the pause: the next would be 8 s.
    wait_until("a long pause", || {
        (httpd.logged("WSGI9104") >= 4 || httpd.log().contains("in 8 s")).then_some(())
    });
    let start = Instant::now();
    httpd.expect_no_wait(&load, || httpd.write("app.wsgi", saying(&source, "mended")));
    wait_until("the mended version", || (httpd.get("/").ok() == "mended").then_some(()));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let answers = load.stop();
    expect_served(&answers, AMPLE);
    // Two processes of the old version, and the new one perhaps.
    assert!(texts(&answers).len() <= 3, "{:?}", texts(&answers));
}

#[test]
fn another_failure_is_logged_though_the_last_was_not_mended() {
    ours_only!("reload= is ours");
    let (mut httpd, source) = start_rolling(1);
    for text in ["WSGI", "Error", "app.wsgi\""] {
        httpd.allow_error(text);
    }
    httpd.expect_error("KeyError: 'the first'");
    httpd.expect_error("KeyError: 'the second'");
    let load = Load::start(&httpd, 1, "/slow?0.02");
    httpd.write("app.wsgi", "raise KeyError('the first')\n");
    wait_until("two attempts", || (httpd.logged("WSGI9104") >= 2).then_some(()));
    httpd.write("app.wsgi", "raise KeyError('the second')\n");
    httpd.wait_for_log("KeyError: 'the second'");
    assert_eq!(httpd.logged("KeyError: 'the first'"), 1);
    httpd.write("app.wsgi", saying(&source, "mended"));
    wait_until("the mended version", || (httpd.get("/").ok() == "mended").then_some(()));
    expect_served(&load.stop(), AMPLE);
}

#[test]
fn changes_that_follow_one_another_find_room_while_old_requests_run() {
    ours_only!("row 17: the reference cuts them");
    // A process alone has five slots, and one that drains keeps its own.
    let httpd = loaded_group("threads=4", "").start();
    let source = httpd.read("app.wsgi");
    httpd.get("/").ok();
    let mut slow = Vec::new();
    for number in 0..8 {
        slow.push(httpd.begin("/slow?3"));
        let text = format!("version {number}");
        let version = saying(&source, &text);
        httpd.write("app.wsgi", version);
        let start = Instant::now();
        assert_eq!(httpd.get("/").ok(), text);
        // The first find room; after that it comes back when the oldest have finished.
        let limit = Duration::from_secs(if number < 4 { 2 } else { 6 });
        assert!(start.elapsed() < limit, "{number}: {:?}", start.elapsed());
    }
    for connection in &mut slow {
        assert_eq!(connection.read_response(false).unwrap().status, 200);
    }
}

#[test]
fn a_failure_is_logged_once_however_often_httpd_restarts_into_it() {
    ours_only!("row 9: the reference starts processes that cannot serve");
    let mut httpd = loaded_group("threads=2", "").config("WSGIScriptReloading Off").start();
    httpd.expect_error("WSGI9104");
    httpd.expect_error("KeyError: 'broken on purpose'");
    for text in ["WSGI0109", "app.wsgi\""] {
        httpd.allow_error(text);
    }
    let old = httpd.get("/").ok();
    httpd.write("app.wsgi", "raise KeyError('broken on purpose')\n");
    httpd.graceful();
    wait_until("three attempts", || (httpd.logged("WSGI9104") >= 3).then_some(()));
    assert_eq!(httpd.logged("KeyError: 'broken on purpose'"), 1, "{}", httpd.log());
    assert_eq!(httpd.get("/").ok(), old);
}
