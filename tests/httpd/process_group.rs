//! `WSGIDaemonProcess` and `WSGIProcessGroup`: which process group a request runs in, and from
//! where a group may be used.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::harness::{Connection, Httpd, Request, Site, expect_refusal, ours_only, wait_until};

/// Answers with the process group it runs in, and its process id.
const GROUP: &str = r#"
import os
import mod_wsgi
def application(environ, start_response):
    start_response('200 OK', [])
    assert mod_wsgi.process_group == environ['mod_wsgi.process_group']
    return [('%s %d' % (mod_wsgi.process_group, os.getpid())).encode()]
"#;

/// A site with [`GROUP`] at `/`.
fn site(config: &str) -> Site {
    Site::new(config).config("WSGIScriptAlias / ${ROOT}/app.wsgi").file("app.wsgi", GROUP)
}

/// The first word of the answer to `GET target` at this host.
#[track_caller]
fn group_of(httpd: &Httpd, host: &str, target: &str) -> String {
    let request = Request::get(target).header("Host", host);
    let text = httpd.send(&request).ok();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// A virtual host.
fn vhost(name: &str, lines: &str) -> String {
    format!("<VirtualHost *:${{PORT}}>\nServerName {name}\n{lines}\n</VirtualHost>\n")
}

#[test]
fn without_a_process_group_the_application_is_embedded() {
    let httpd = site("WSGIDaemonProcess one").start();
    assert_eq!(group_of(&httpd, "x", "/"), "");
}

#[test]
fn an_inner_section_overrides_the_outer() {
    let httpd = site("WSGIDaemonProcess one\nWSGIDaemonProcess two\nWSGIProcessGroup one")
        .config("<Location /two>\nWSGIProcessGroup two\n</Location>")
        .config("<Location /none>\nWSGIProcessGroup %{GLOBAL}\n</Location>")
        .config(&vhost("a.test", "WSGIProcessGroup two"))
        .config(&vhost("b.test", ""))
        .start();
    assert_eq!(group_of(&httpd, "b.test", "/"), "one");
    assert_eq!(group_of(&httpd, "b.test", "/two/x"), "two");
    assert_eq!(group_of(&httpd, "b.test", "/none"), "");
    assert_eq!(group_of(&httpd, "a.test", "/"), "two");
}

#[test]
fn a_request_for_a_group_leaves_the_child_process() {
    let httpd = site("WSGIDaemonProcess one\nWSGIProcessGroup one").start();
    let text = httpd.get("/").ok();
    let pid: i32 = text.split(' ').nth(1).unwrap().parse().unwrap();
    let process = httpd.processes().into_iter().find(|process| process.pid == pid);
    assert!(process.is_some(), "{pid} is not a process of this httpd");
}

#[test]
fn an_unknown_group_is_an_error_of_the_server() {
    let mut httpd = site("WSGIDaemonProcess one\nWSGIProcessGroup two").start();
    httpd.expect_error("WSGI0151");
    assert_eq!(httpd.get("/").status, 500);
}

#[test]
fn the_name_of_a_group_is_case_sensitive() {
    let mut httpd = site("WSGIDaemonProcess one\nWSGIProcessGroup One").start();
    httpd.expect_error("WSGI0151");
    assert_eq!(httpd.get("/").status, 500);
}

#[test]
fn a_group_where_none_is_defined_is_an_error_of_the_server() {
    let mut httpd = site("WSGIProcessGroup two").start();
    httpd.expect_error("WSGI0150");
    assert_eq!(httpd.get("/").status, 500);
}

#[test]
fn a_group_of_the_server_serves_every_virtual_host() {
    let httpd = site("WSGIDaemonProcess one")
        .config(&vhost("a.test", "WSGIProcessGroup one"))
        .config(&vhost("b.test", "WSGIProcessGroup one"))
        .start();
    assert_eq!(group_of(&httpd, "a.test", "/"), "one");
    assert_eq!(group_of(&httpd, "b.test", "/"), "one");
}

#[test]
fn a_group_of_a_virtual_host_is_not_for_another() {
    let mut httpd = site("")
        .config(&vhost("a.test", "WSGIDaemonProcess one\nWSGIProcessGroup one"))
        .config(&vhost("b.test", "WSGIProcessGroup one"))
        .start();
    httpd.expect_error("WSGI0152");
    assert_eq!(group_of(&httpd, "a.test", "/"), "one");
    let request = Request::get("/").header("Host", "b.test");
    assert_eq!(httpd.send(&request).status, 500);
}

#[test]
fn virtual_hosts_of_one_name_share_their_groups() {
    // What a site has that answers on two ports: the same name twice.
    let other = "<VirtualHost *:443>\nServerName a.test\nWSGIDaemonProcess one\n</VirtualHost>";
    let httpd = site("").config(other).config(&vhost("a.test", "WSGIProcessGroup one")).start();
    assert_eq!(group_of(&httpd, "a.test", "/"), "one");
}

#[test]
fn a_second_group_of_the_same_name_is_refused() {
    expect_refusal("WSGIDaemonProcess one\nWSGIDaemonProcess one threads=3");
    let twins =
        vhost("a.test", "WSGIDaemonProcess one") + &vhost("b.test", "WSGIDaemonProcess one");
    expect_refusal(&twins);
}

#[test]
fn an_identical_twin_in_a_virtual_host_of_the_same_name_is_accepted() {
    ours_only!("row 15: the reference refuses what certbot writes");
    let line = "WSGIDaemonProcess one threads=3\nWSGIProcessGroup one";
    let other = format!("<VirtualHost *:443>\nServerName a.test\n{line}\n</VirtualHost>");
    let httpd = site("").config(&vhost("a.test", line)).config(&other).start();
    assert_eq!(group_of(&httpd, "a.test", "/"), "one");
    let different = other.replace("threads=3", "threads=4");
    let said = site("").config(&vhost("a.test", line)).config(&different).refusal();
    assert!(said.contains("one"), "{said}");
}

#[test]
fn as_many_processes_run_as_the_configuration_says() {
    let httpd = site("WSGIDaemonProcess one processes=3 threads=1\nWSGIProcessGroup one").start();
    let source = GROUP
        .replace("    start_response", "    __import__('time').sleep(0.3)\n    start_response");
    httpd.write("app.wsgi", source);
    let port = httpd.port();
    // Three requests at once, one thread a process: three processes.
    let pids = wait_until("three processes to answer", || {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                std::thread::spawn(move || {
                    let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
                    let request = Request::get("/");
                    Connection::new(stream).exchange(&request).unwrap().ok()
                })
            })
            .collect();
        let mut answers: Vec<String> = clients.into_iter().map(|it| it.join().unwrap()).collect();
        answers.sort();
        answers.dedup();
        (answers.len() == 3).then_some(answers)
    });
    assert!(pids.iter().all(|answer| answer.starts_with("one ")));
}

#[test]
fn a_service_takes_no_requests_and_says_so_at_once() {
    ours_only!("row 50: the reference lets the request wait for its timeout");
    let config = "WSGIDaemonProcess mail threads=0\n\
        WSGIImportScript ${ROOT}/service.py process-group=mail application-group=%{GLOBAL}\n\
        WSGIScriptAlias / ${ROOT}/app.wsgi process-group=mail application-group=%{GLOBAL}";
    let site = Site::new(config)
        .file("service.py", "import threading\nthreading.Event().wait()\n")
        .file("app.wsgi", "");
    let mut httpd = site.start();
    httpd.expect_error("WSGI9502");
    let start = Instant::now();
    assert_eq!(httpd.get("/").status, 500);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let log = httpd.log();
    let line = log.lines().find(|line| line.contains("WSGI9502")).unwrap();
    assert!(line.contains("'mail' is a service (threads=0) and takes no requests"), "{line}");
}

#[test]
fn a_request_waits_for_a_process_that_loads_for_longer_than_connect_timeout() {
    ours_only!("the reference queues in the socket's backlog and loads at the first request");
    let config = "WSGIDaemonProcess one connect-timeout=1\n\
        WSGIScriptAlias / ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";
    let source = "import time\ntime.sleep(4)\n".to_owned() + GROUP;
    let httpd = Site::new(config).file("app.wsgi", &source).start();
    assert_eq!(httpd.get("/").status, 200);
}

#[test]
fn a_script_to_preload_may_come_before_its_group() {
    ours_only!("row 42: the reference refuses it");
    let site = Site::new(
        "WSGIImportScript ${ROOT}/early.py process-group=late application-group=%{GLOBAL}\n\
         WSGIDaemonProcess late",
    );
    site.open_run();
    let source = "open(__file__.replace('early.py', 'run/loaded'), 'w').write('loaded')\n";
    let httpd = site.file("early.py", source).start();
    httpd.wait_for_file("run/loaded", "loaded");
}
