//! Between child and daemon process: much data, many requests, slow and vanishing clients.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{
    Connection, Httpd, Load, Mode, Process, Request, Site, in_both_modes, is_root, ours_only,
    wait_until,
};

/// A server whose application runs in a daemon process group with these options.
fn daemon(options: &str, source: &str) -> Site {
    let config = format!(
        "WSGIRestrictEmbedded On\nWSGIDaemonProcess one {options}\nWSGIProcessGroup one\n\
         WSGIApplicationGroup %{{GLOBAL}}\nWSGIScriptAlias / ${{ROOT}}/app.wsgi"
    );
    let site = Site::new(&config).file("app.wsgi", source);
    site.open_run();
    site
}

/// Answers when the file `run/go` is there, or after 20 seconds; notes that it waits.
const WAITING: &str = r#"
import os, time
ROOT = os.path.dirname(__file__)
def application(environ, start_response):
    if environ['PATH_INFO'] == '/wait':
        with open(ROOT + '/run/waiting', 'a') as f:
            f.write('x')
        end = time.time() + 20
        while not os.path.exists(ROOT + '/run/go') and time.time() < end:
            time.sleep(0.005)
    start_response('200 OK', [])
    return [b'done']
"#;

#[test]
fn thirty_megabytes_go_in_while_thirty_go_out() {
    ours_only!("row 6: the reference deadlocks until its timeout");
    const SIZE: usize = 30 << 20;
    let source = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Length', str(30 << 20))])
    for _ in range(30):
        yield b'y' * (1 << 20)
    n = 0
    while True:
        block = environ['wsgi.input'].read(1 << 16)
        if not block:
            break
        n += len(block)
    assert n == 30 << 20, n
";
    in_both_modes(source, |httpd| {
        let start = Instant::now();
        let response = httpd.send(&Request::post("/", vec![b'x'; SIZE]));
        assert_eq!(response.body.len(), SIZE);
        assert!(response.body.iter().all(|byte| *byte == b'y'));
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    });
}

#[test]
fn an_echo_of_thirty_megabytes_is_the_same_thirty_megabytes() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    body = environ['wsgi.input']
    return iter(lambda: body.read(100000), b'')
";
    ours_only!("row 6: the reference deadlocks until its timeout");
    let body: Vec<u8> =
        (0..30_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    in_both_modes(source, |httpd| {
        let response = httpd.send(&Request::post("/", &body));
        assert!(response.body == body, "{} bytes", response.body.len());
    });
}

#[test]
fn a_large_answer_arrives_whole() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    return [bytes([n % 256]) * 1000000 for n in range(20)]
";
    in_both_modes(source, |httpd| {
        let body = httpd.get("/").body;
        assert_eq!(body.len(), 20_000_000);
        assert!(body.chunks(1_000_000).zip(0_u8..).all(|(part, n)| part.iter().all(|b| *b == n)));
    });
}

#[test]
fn many_small_items_arrive_whole_and_in_order() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    return (b'%d,' % n for n in range(20000))
";
    let expected: String = (0..20_000).map(|n| format!("{n},")).collect();
    in_both_modes(source, |httpd| assert!(httpd.get("/").ok() == expected));
}

#[test]
fn a_large_head_reaches_the_application() {
    let source = "
def application(environ, start_response):
    size = sum(len(v) for k, v in environ.items() if k.startswith('HTTP_X_'))
    start_response('200 OK', [('X-%d' % n, 'v' * 1000) for n in range(20)])
    return [str(size).encode()]
";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, source).start();
        let mut request = Request::get("/");
        for number in 0..90 {
            request = request.header(&format!("X-{number}"), "h".repeat(8000));
        }
        let response = httpd.send(&request);
        assert_eq!(response.ok(), "720000");
        assert_eq!(response.header("X-19").map(str::len), Some(1000));
    }
}

#[test]
fn more_requests_than_threads_are_all_served() {
    let source = "
import time
def application(environ, start_response):
    time.sleep(0.01)
    start_response('200 OK', [])
    return [environ['QUERY_STRING'].encode()]
";
    for options in ["threads=1", "threads=3", "processes=2 threads=2"] {
        let httpd = daemon(options, source).start();
        let load = Load::start(&httpd, 16, "/?#");
        load.wait_for(150);
        for answer in load.stop() {
            let number = answer.target.trim_start_matches("/?").to_owned();
            assert_eq!(answer.result.expect("an answer").ok(), number);
        }
    }
}

#[test]
fn a_free_process_serves_while_another_is_busy() {
    let httpd = daemon("processes=2 threads=1", WAITING).start();
    let mut waiting = httpd.connect();
    waiting.write(Request::get("/wait").head()).unwrap();
    httpd.wait_for_file("run/waiting", "x");
    for _ in 0..10 {
        httpd.get("/").ok();
    }
    httpd.write("run/go", "");
    waiting.read_response(false).unwrap().ok();
}

#[test]
fn the_next_request_on_a_connection_does_not_wait_for_a_slow_close() {
    ours_only!("the reference closes before it ends its answer");
    let source = "
import os, time
ROOT = os.path.dirname(__file__)
class Slow:
    def __iter__(self):
        yield b'slow'
    def close(self):
        with open(ROOT + '/run/closing', 'w') as file:
            file.write('x')
        end = time.monotonic() + 20
        while not os.path.exists(ROOT + '/run/go') and time.monotonic() < end:
            time.sleep(0.001)
def application(environ, start_response):
    start_response('200 OK', [])
    return Slow() if environ['PATH_INFO'] == '/slow' else [b'quick']
";
    // One child process and no other request: it uses the same connection again.
    let httpd = daemon("threads=2", source).one_child().start();
    assert_eq!(httpd.get("/slow").text(), "slow");
    httpd.wait_for_file("run/closing", "x");
    let begin = Instant::now();
    assert_eq!(httpd.get("/").text(), "quick");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    httpd.write("run/go", "");
}

#[test]
fn a_slow_reader_holds_no_worker() {
    ours_only!("the only thread of the reference waits for its reader");
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'x' * 1000] * (8000 if environ['PATH_INFO'] == '/large' else 1)
";
    let httpd = daemon("threads=1", source).start();
    let mut slow = httpd.connect();
    slow.write(Request::get("/large").head()).unwrap();
    assert_eq!(slow.read_head().unwrap().status, 200);
    assert_eq!(httpd.get("/").body.len(), 1000);
    let mut length = 0;
    while let Ok(chunk) = slow.read_chunk() {
        length += chunk.len();
        if chunk.is_empty() {
            break;
        }
    }
    assert_eq!(length, 8_000_000);
}

#[test]
fn what_a_slow_reader_did_not_take_is_in_a_file_without_a_name() {
    ours_only!("the reference holds its daemon process' thread instead");
    let source = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Length', str(100 << 20))])
    return (b'x' * (1 << 20) for _ in range(100))
";
    let httpd = daemon("threads=1", source).start();
    let memory = |process: &Process| -> u64 {
        process.status("VmRSS").split(' ').next().unwrap_or_default().parse().unwrap_or(0)
    };
    httpd.send(&Request::new("HEAD", "/"));
    let before: Vec<_> = httpd.processes().into_iter().map(|it| (memory(&it), it)).collect();
    let mut slow = httpd.connect();
    slow.write(Request::get("/").head()).unwrap();
    assert_eq!(slow.read_head().unwrap().status, 200);
    // The only thread has gone on: 100 MB are on their way.
    httpd.send(&Request::new("HEAD", "/"));
    for (size, process) in &before {
        let grown = memory(process).saturating_sub(*size);
        assert!(grown < 16 << 10, "{} grew by {grown} kB", process.title());
    }
    if is_root() {
        let spools = open_files(&httpd, |name| name.contains("/tmp") && name.contains("deleted"));
        assert_eq!(spools.len(), 1, "{spools:?}");
        assert!(spools[0] > 50 << 20, "{spools:?}");
    }
    let mut body = Vec::new();
    slow.read_exactly(100 << 20, &mut body).unwrap();
    assert!(body.iter().all(|byte| *byte == b'x'));
}

/// The sizes of the files that httpd's processes have open, whose names are like this.
fn open_files(httpd: &Httpd, is_wanted: impl Fn(&str) -> bool) -> Vec<u64> {
    let descriptors = |pid| std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let processes = httpd.processes();
    let all = processes.iter().flat_map(|process| descriptors(process.pid)).flatten();
    let is_wanted = |path: &std::path::PathBuf| {
        std::fs::read_link(path).is_ok_and(|name| is_wanted(&name.to_string_lossy()))
    };
    let wanted = all.map(|entry| entry.path()).filter(is_wanted);
    // Several descriptors may be of one.
    let files: BTreeMap<u64, u64> = wanted
        .filter_map(|path| std::fs::metadata(path).ok())
        .map(|it| (it.ino(), it.len()))
        .collect();
    files.into_values().filter(|length| *length > 0).collect()
}

/// Says in `run/ran` that it runs, and gives back the body if it is asked to.
const UPLOADS: &str = r#"
import os, time
ROOT = os.path.dirname(__file__)
def application(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/quick':
        start_response('200 OK', [])
        return [b'quick']
    with open(ROOT + '/run/ran', 'a') as f:
        f.write(path)
    if path == '/refuse':
        start_response('403 Forbidden', [])
        return [b'']
    end = time.time() + 20
    while path == '/wait' and not os.path.exists(ROOT + '/run/go') and time.time() < end:
        time.sleep(0.005)
    body = environ['wsgi.input'].read()
    start_response('200 OK', [])
    return [body]
"#;

/// So many bytes that repeat nowhere near.
fn bytes(length: u32) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A body of `length` bytes to `path`, of which 40 KiB are sent: less than httpd's child
/// reads before it takes a thread.  Others are answered meanwhile.
fn begin_upload(httpd: &Httpd, path: &str, length: usize, body: &[u8]) -> Connection {
    let mut slow = httpd.connect();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    slow.write(head + &format!("Content-Length: {length}\r\n\r\n")).unwrap();
    slow.write(&body[..40 << 10]).unwrap();
    for _ in 0..10 {
        quick(httpd);
    }
    slow
}

/// A request that is answered though others are not complete.
#[track_caller]
fn quick(httpd: &Httpd) {
    let mut connection = httpd.connect();
    connection.limit_patience(Duration::from_secs(10));
    let response = connection.exchange(&Request::get("/quick"));
    assert_eq!(response.expect("an answer beside the upload").ok(), "quick");
}

/// The sizes of the files without a name of httpd's processes; none where they cannot be seen.
fn spools(httpd: &Httpd) -> Vec<u64> {
    open_files(httpd, |name| name.contains("/tmp") && name.contains("deleted"))
}

#[test]
fn a_large_slow_upload_holds_no_worker() {
    ours_only!("the reference gives the only thread to whoever connects first");
    let site = daemon("threads=1", UPLOADS).busy_children();
    let httpd = site.start();
    for length in [(64 << 10) + 1, 1 << 20, 16 << 20] {
        let body = bytes(length);
        let (begin, half) = (40 << 10, body.len().midpoint(40 << 10));
        let mut slow = begin_upload(&httpd, "/", body.len(), &body);
        slow.write(&body[begin..half]).unwrap();
        quick(&httpd);
        if is_root() && half > 200 << 10 {
            wait_until("what was sent to be in a file", || {
                spools(&httpd).iter().any(|size| *size > 64 << 10).then_some(())
            });
        }
        assert_eq!(httpd.read("run/ran"), "", "it runs when its body is there");
        slow.write(&body[half..]).unwrap();
        let response = slow.read_response(false).unwrap();
        assert_eq!(response.status, 200);
        assert!(response.body == body, "{} bytes of {length}", response.body.len());
        httpd.wait_for_file("run/ran", "/");
        std::fs::remove_file(httpd.path("run/ran")).unwrap();
    }
}

#[test]
fn an_upload_that_does_not_come_to_its_end_runs_nothing() {
    ours_only!("the reference runs it");
    let body = bytes(300 << 10);
    let httpd = daemon("threads=1", UPLOADS).config("Timeout 1").busy_children().start();
    for end in ["closes", "stalls", "leaves"] {
        let mut slow = begin_upload(&httpd, "/", 1 << 20, &body);
        slow.write(&body[40 << 10..]).unwrap();
        if end == "leaves" {
            drop(slow);
            continue;
        }
        if end == "closes" {
            slow.finish_writing();
        }
        let status = slow.read_response(false).unwrap().status;
        assert!(matches!(status, 400 | 408), "{end}: {status}");
        quick(&httpd);
    }
    wait_until("no file to be open", || spools(&httpd).is_empty().then_some(()));
    assert_eq!(httpd.read("run/ran"), "");
}

#[test]
fn an_upload_that_is_at_hand_makes_no_file() {
    ours_only!("the reference makes none");
    let site = daemon("threads=1", UPLOADS).config("ReceiveBufferSize 400000").one_child();
    let httpd = site.start();
    quick(&httpd);
    let body = bytes(128 << 10);
    let mut fast = httpd.connect();
    // The child sees all of it at once.
    let is_child = |it: &Process| !it.title().contains("wsgi:") && it.pid != httpd.parent().pid;
    let children: Vec<_> = httpd.processes().into_iter().filter(is_child).collect();
    children.iter().for_each(|it| it.signal(Signal::SIGSTOP));
    let head =
        "POST /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 131072\r\n\r\n";
    fast.write([head.as_bytes(), &body[..]].concat()).unwrap();
    children.iter().for_each(|it| it.signal(Signal::SIGCONT));
    httpd.wait_for_file("run/ran", "/wait");
    assert_eq!(spools(&httpd), [0; 0]);
    httpd.write("run/go", "");
    assert!(fast.read_response(false).unwrap().body == body);
}

#[test]
fn an_upload_is_sent_again_to_the_process_that_runs_it() {
    ours_only!("the reference keeps no upload");
    let httpd = daemon("threads=1", UPLOADS).busy_children().start();
    let body = bytes(1 << 20);
    let mut slow = begin_upload(&httpd, "/", body.len(), &body);
    // The process that has the old script refuses what it is sent next.
    httpd.write("app.wsgi", UPLOADS.replace("[body]", "[b'new', body]"));
    slow.write(&body[40 << 10..]).unwrap();
    let response = slow.read_response(false).unwrap();
    assert_eq!((response.status, &response.body[..3]), (200, &b"new"[..]));
    assert!(response.body[3..] == body, "{} bytes", response.body.len());
    assert_eq!(httpd.read("run/ran"), "/", "once");
}

#[test]
fn an_upload_that_is_longer_than_what_is_received_ahead_runs_at_once() {
    ours_only!("row 6: the reference passes on all of the body first");
    let httpd = daemon("threads=1", UPLOADS).start();
    let head = "POST /refuse HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let mut connection = httpd.connect();
    connection.write(format!("{head}Content-Length: {}\r\n\r\nabc", (16 << 20) + 1)).unwrap();
    assert_eq!(connection.read_response(false).unwrap().status, 403);
}

#[test]
fn an_upload_that_asks_whether_to_come_can_be_refused() {
    ours_only!("row 6: the reference passes on all of the body first");
    let httpd = daemon("threads=1", UPLOADS).start();
    let fields = "HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1048576\r\n\r\n";
    let mut connection = httpd.connect();
    connection.write(format!("POST /refuse {fields}")).unwrap();
    let response = connection.read_response(false).unwrap();
    assert_eq!((response.status, response.interim), (403, vec![]));
    let mut connection = httpd.connect();
    connection.write(format!("POST / {fields}")).unwrap();
    assert_eq!(connection.read_head().unwrap().status, 100);
    let body = bytes(1 << 20);
    connection.write(&body).unwrap();
    assert!(connection.read_response(false).unwrap().body == body);
}

#[test]
fn without_room_for_files_a_slow_upload_arrives_all_the_same() {
    ours_only!("the reference keeps no file");
    let httpd = daemon("threads=1", UPLOADS).env("TMPDIR", "/nowhere/to/be/found").start();
    let body = bytes(1 << 20);
    for _ in 0..2 {
        let mut slow = httpd.connect();
        let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
        slow.write(format!("{head}Content-Length: {}\r\n\r\n", body.len())).unwrap();
        slow.write(&body[..40 << 10]).unwrap();
        httpd.wait_for_file("run/ran", "/");
        slow.write(&body[40 << 10..]).unwrap();
        assert!(slow.read_response(false).unwrap().body == body);
        httpd.wait_for_log("WSGI9540");
        std::fs::remove_file(httpd.path("run/ran")).unwrap();
    }
}

/// Answers with 64 MiB, of which `run/made` says how much was made; or with a little.
const MUCH: &str = "
import os
ROOT = os.path.dirname(__file__)
def much():
    for part in range(64):
        with open(ROOT + '/run/made', 'a') as file:
            file.write('one\\n')
        yield bytes([part]) * (1 << 20)
def application(environ, start_response):
    start_response('200 OK', [])
    return much() if environ['PATH_INFO'] == '/much' else [b'little']
";

#[test]
fn without_room_for_files_a_slow_reader_gets_all_of_its_answer() {
    ours_only!("the reference keeps no file");
    let site = daemon("threads=2", MUCH).env("TMPDIR", "/nowhere/to/be/found");
    site.open_run();
    let httpd = site.start();
    let mut slow = httpd.connect();
    slow.write(Request::get("/much").head()).unwrap();
    httpd.wait_for_log("WSGI9472");
    // The rest is not made, and so not kept, before somebody takes it.
    for _ in 0..100 {
        assert_eq!(httpd.get("/").ok(), "little");
    }
    assert!(httpd.read("run/made").lines().count() < 64);
    let response = slow.read_response(false).unwrap();
    assert_eq!(response.body.len(), 64 << 20);
    let is_in_order = |(at, byte): (usize, &u8)| usize::from(*byte) == at >> 20;
    assert!(response.body.iter().enumerate().step_by(997).all(is_in_order));
}

#[test]
fn the_time_an_upload_takes_is_not_the_time_it_waits_for_a_thread() {
    ours_only!("the reference counts from when the request was read");
    let site = daemon("threads=1 queue-timeout=1", UPLOADS).busy_children();
    let httpd = site.start();
    for length in [50 << 10, 100 << 10] {
        let body = bytes(length);
        let mut slow = begin_upload(&httpd, "/", body.len(), &body);
        let began = Instant::now();
        let mut waiting = httpd.connect();
        waiting.write(Request::get("/wait").head()).unwrap();
        httpd.wait_for_file("run/ran", "/wait");
        wait_until("the time to be up", || {
            (began.elapsed() > Duration::from_millis(1100)).then_some(())
        });
        slow.write(&body[40 << 10..]).unwrap();
        httpd.write("run/go", "");
        assert!(slow.read_response(false).unwrap().body == body);
        waiting.read_response(false).unwrap().ok();
        for name in ["run/go", "run/ran"] {
            std::fs::remove_file(httpd.path(name)).unwrap();
        }
    }
}

#[test]
fn a_client_that_leaves_frees_its_worker() {
    let source = "
import itertools
def application(environ, start_response):
    start_response('200 OK', [])
    return itertools.repeat(b'x' * 65536) if environ['PATH_INFO'] == '/endless' else [b'done']
";
    let httpd = daemon("threads=1", source).start();
    for _ in 0..3 {
        let mut connection = httpd.connect();
        connection.write(Request::get("/endless").head()).unwrap();
        assert_eq!(connection.read_head().unwrap().status, 200);
        drop(connection);
        assert_eq!(httpd.get("/").ok(), "done");
    }
}

#[test]
fn a_request_that_waited_too_long_is_told_so_when_the_time_is_up() {
    ours_only!("row 7: the reference answers when a thread becomes free");
    let mut httpd = daemon("threads=1 queue-timeout=1", WAITING).start();
    httpd.expect_error("WSGI0084");
    let mut waiting = httpd.connect();
    waiting.write(Request::get("/wait").head()).unwrap();
    httpd.wait_for_file("run/waiting", "x");
    let start = Instant::now();
    assert_eq!(httpd.get("/").status, 504);
    let took = start.elapsed();
    assert!((900..2000).contains(&took.as_millis()), "{took:?}");
    httpd.write("run/go", "");
    waiting.read_response(false).unwrap().ok();
    httpd.get("/").ok();
}

#[test]
fn a_full_queue_is_told_at_once() {
    ours_only!("row 8: the reference retries for connect-timeout");
    let mut httpd = daemon("threads=1 listen-backlog=2", WAITING).busy_children().start();
    httpd.expect_error("queue for a daemon thread is full");
    let mut connections: Vec<Connection> = Vec::new();
    for _ in 0..3 {
        let mut connection = httpd.connect();
        connection.write(Request::get("/wait").head()).unwrap();
        connections.push(connection);
        httpd.wait_for_file("run/waiting", "x");
    }
    // The two that wait leave no trace: ask until the third finds the queue full.
    let response = wait_until("a full queue", || {
        let start = Instant::now();
        let mut connection = httpd.connect();
        connection.write(Request::get("/wait").head()).unwrap();
        connection.limit_patience(Duration::from_secs(2));
        let response = connection.read_response(false);
        connection.limit_patience(Duration::from_secs(30));
        match response {
            Ok(response) => {
                assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
                Some(response)
            }
            Err(_) => {
                connections.push(connection);
                None
            }
        }
    });
    assert_eq!(response.status, 503);
    let seconds: u32 = response.header("Retry-After").expect("a Retry-After").parse().unwrap();
    assert!(seconds > 0);
    httpd.write("run/go", "");
    // One runs and two wait, whichever came first; the others were told at once as well.
    let statuses: Vec<u16> = connections
        .iter_mut()
        .map(|connection| connection.read_response(false).unwrap().status)
        .collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(served, 3, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
}

#[test]
fn a_daemon_process_silent_for_too_long_is_a_gateway_timeout() {
    let mut httpd = daemon("threads=2 socket-timeout=1", WAITING).start();
    httpd.expect_error("WSGI0145");
    httpd.allow_error("WSGI");
    let start = Instant::now();
    assert_eq!(httpd.get("/wait").status, 504);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    httpd.write("run/go", "");
    httpd.get("/").ok();
}

#[test]
fn connections_of_clients_may_stay_idle() {
    let httpd = daemon("threads=1", WAITING).start();
    let mut connections: Vec<Connection> = (0..10).map(|_| httpd.connect()).collect();
    for _ in 0..3 {
        for connection in &mut connections {
            let request = Request::get("/").keep_alive();
            assert_eq!(connection.exchange(&request).unwrap().ok(), "done");
        }
    }
}

#[test]
fn descriptors_do_not_pile_up() {
    let source = "
import os
def application(environ, start_response):
    start_response('200 OK', [])
    if environ['PATH_INFO'] == '/count':
        return [b'%d' % len(os.listdir('/proc/self/fd'))]
    return environ['wsgi.file_wrapper'](open(__file__, 'rb'))
";
    let httpd = daemon("threads=2", source).start();
    let count = || -> Option<usize> { httpd.get("/count").text().parse().ok() };
    let load = |requests| {
        let load = Load::start(&httpd, 4, "/");
        load.wait_for(requests);
        assert!(load.stop().iter().all(|answer| answer.status() == 200));
    };
    load(50);
    let (before, children) = (count(), descriptors(&httpd));
    load(300);
    if let (Some(before), Some(after)) = (before, count()) {
        assert!(after <= before + 8, "{before} descriptors became {after} in the daemon process");
    }
    let after = descriptors(&httpd);
    assert!(after <= children + 40, "{children} descriptors became {after}");
}

/// How many descriptors the process of httpd that has most of them holds: under load prefork
/// has more processes.
fn descriptors(httpd: &crate::harness::Httpd) -> usize {
    let count = |pid| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    httpd.processes().iter().map(|process| count(process.pid)).max().unwrap_or(0)
}

#[test]
fn no_socket_of_ours_has_a_name() {
    ours_only!("P5: the reference keeps its sockets in the file system");
    let httpd = daemon("threads=1", WAITING).start();
    httpd.get("/").ok();
    let names: Vec<_> =
        std::fs::read_dir(httpd.path("run")).unwrap().flatten().map(|it| it.path()).collect();
    assert!(names.iter().all(|path| path.ends_with("httpd.pid")), "{names:?}");
}
