//! `WSGIScriptReloading`: a script that changes while httpd runs.
#![forbid(unsafe_code)]

use crate::harness::{Load, Mode, Request, Site, in_both_modes, ours_only, wait_until};

/// A script that answers with `text` and its process id.
fn version(text: &str) -> String {
    format!(
        "import os\ndef application(environ, start_response):\n    \
         start_response('200 OK', [])\n    return [b'{text} %d' % os.getpid()]\n"
    )
}

/// The first word of the answer to `GET /`.
#[track_caller]
fn answer(httpd: &crate::harness::Httpd) -> String {
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
fn a_script_that_broke_is_mended_by_the_next_change() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, &version("one")).start();
        httpd.expect_error("WSGI0109");
        httpd.allow_error("broken");
        httpd.allow_error("app.wsgi");
        assert_eq!(answer(&httpd), "one");
        httpd.write("app.wsgi", "raise KeyError('broken')\n");
        assert_eq!(httpd.get("/").status, 500);
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
