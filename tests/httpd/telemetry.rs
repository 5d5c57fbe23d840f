//! What processes report to `WSGITelemetryService`.
#![forbid(unsafe_code)]

use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::{
    Httpd, Mode, Request, Site, eval, expect_refusal, is_ours, ours_only, pythons, skip, wait_until,
};

/// Answers with the value of the Python expression in the query string; `/slow` takes so many
/// seconds for it first, after it has read the body, and `/held` until `run/go` is there.
const APP: &str = r#"
import gc, mod_wsgi, os, time
from urllib.parse import unquote
def application(environ, start_response):
    query = unquote(environ['QUERY_STRING'])
    if environ['SCRIPT_NAME'] + environ['PATH_INFO'] == '/slow':
        environ['wsgi.input'].read()
        time.sleep(float(query))
    if environ['SCRIPT_NAME'] + environ['PATH_INFO'] == '/held':
        environ['wsgi.input'].read()
        while not os.path.exists(os.path.dirname(__file__) + '/run/go'):
            time.sleep(0.01)
    answer = str(eval(query)).encode()
    start_response('404 Not Found' if environ['PATH_INFO'] == '/missing' else '200 OK', [])
    return [answer]
"#;

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Count(u64),
    Number(f64),
    Text(String),
    Counts(Vec<i32>),
    Numbers(Vec<f64>),
}

/// A datagram.
#[derive(Debug, Clone)]
struct Datagram {
    kind: u8,
    pid: u32,
    sequence: u32,
    stamp: f64,
    fields: BTreeMap<u16, Value>,
}

/// The kinds.
const REQUESTS: u8 = 2;
const SLOW: u8 = 4;
const STARTED: u8 = 5;
const STOPPING: u8 = 6;
const STOPPED: u8 = 7;
const COLLECTOR: u8 = 8;
const COLLECTION: u8 = 9;

/// The next `N` bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = bytes.split_first_chunk().expect("a field is whole");
    *bytes = rest;
    *taken
}

/// The length in front of a value.
fn length(bytes: &mut &[u8]) -> usize {
    usize::from(u16::from_le_bytes(take(bytes)))
}

impl Datagram {
    fn decode(mut bytes: &[u8]) -> Self {
        let bytes = &mut bytes;
        assert_eq!(take(bytes), *b"WSGI");
        let [version, kind, _, _] = take(bytes);
        assert_eq!(version, 1);
        let (pid, sequence) = (u32::from_le_bytes(take(bytes)), u32::from_le_bytes(take(bytes)));
        let stamp = f64::from_le_bytes(take(bytes));
        let mut fields = BTreeMap::new();
        while !bytes.is_empty() {
            let number = u16::from_le_bytes(take(bytes));
            let [kind] = take(bytes);
            let value = match kind {
                1 | 3 => Value::Count(u64::from_le_bytes(take(bytes))),
                2 => Value::Number(f64::from_le_bytes(take(bytes))),
                4 => {
                    let length = length(bytes);
                    let (text, rest) = bytes.split_at(length);
                    *bytes = rest;
                    Value::Text(String::from_utf8(text.to_vec()).unwrap())
                }
                5 => {
                    let length = length(bytes);
                    Value::Counts((0..length).map(|_| i32::from_le_bytes(take(bytes))).collect())
                }
                6 => {
                    let length = length(bytes);
                    Value::Numbers((0..length).map(|_| f64::from_le_bytes(take(bytes))).collect())
                }
                kind => panic!("unknown type {kind}"),
            };
            fields.insert(number, value);
        }
        Self { kind, pid, sequence, stamp, fields }
    }

    #[track_caller]
    fn field(&self, number: u16) -> &Value {
        self.fields.get(&number).unwrap_or_else(|| panic!("no field {number}: {self:?}"))
    }

    #[track_caller]
    fn count(&self, number: u16) -> u64 {
        match self.field(number) {
            Value::Count(count) => *count,
            other => panic!("{number}: {other:?}"),
        }
    }

    #[track_caller]
    fn number(&self, number: u16) -> f64 {
        match self.field(number) {
            Value::Number(value) => *value,
            other => panic!("{number}: {other:?}"),
        }
    }

    /// A text; empty if there is none.
    #[track_caller]
    fn text(&self, number: u16) -> &str {
        match self.fields.get(&number) {
            Some(Value::Text(text)) => text,
            None => "",
            other => panic!("{number}: {other:?}"),
        }
    }
}

/// Who is reported to.
struct Service {
    /// Its own directory: what is left in a ServerRoot is a fault.
    place: TempDir,
    socket: UnixDatagram,
    /// All that came, and as it came.
    seen: RefCell<Vec<Datagram>>,
    raw: RefCell<Vec<Vec<u8>>>,
}

impl Service {
    /// Listens, for every user.
    fn listen() -> Self {
        let place = tempfile::Builder::new().prefix("wsgi-telemetry-").tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = place.path().join("t.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { place, socket, seen: RefCell::default(), raw: RefCell::default() }
    }

    /// The directive that has processes report to it.
    fn directive(&self) -> String {
        let path = self.place.path().join("t.sock");
        format!("WSGITelemetryService unix:{} interval=0.5", path.display())
    }

    /// Fills its queue: nothing more can be sent to it until it reads.
    fn fill(&self) {
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        let path = self.place.path().join("t.sock");
        while sender.send_to(&[0; 24], &path).is_ok() {}
    }

    /// All that has come.
    fn seen(&self) -> Ref<'_, Vec<Datagram>> {
        let mut buffer = [0; 65536];
        while let Ok(count) = self.socket.recv(&mut buffer) {
            assert!(count <= 8192, "a datagram of {count} bytes");
            self.raw.borrow_mut().push(buffer[..count].to_vec());
            self.seen.borrow_mut().push(Datagram::decode(&buffer[..count]));
        }
        self.seen.borrow()
    }

    /// Waits for a datagram.
    #[track_caller]
    fn wait_for(&self, kind: u8, is_it: impl Fn(&Datagram) -> bool) -> Datagram {
        wait_until(format!("a datagram of kind {kind}"), || {
            self.seen().iter().find(|it| it.kind == kind && is_it(it)).cloned()
        })
    }
}

/// A server that reports, with these further directives, and who it reports to.
fn reporting(mode: Mode, lines: &str) -> (Httpd, Service) {
    let service = Service::listen();
    let site = Site::app(mode, APP)
        .config("WSGIApplicationGroup %{GLOBAL}")
        .config(&service.directive())
        .config(lines)
        .one_child();
    site.open_run();
    (site.start(), service)
}

/// Runs `test` in both modes.
fn in_both_modes(lines: &str, test: impl Fn(Mode, Httpd, &Service)) {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        let (httpd, service) = reporting(mode, lines);
        test(mode, httpd, &service);
    }
}

#[test]
fn a_process_says_who_it_is_when_it_starts_and_when_it_stops() {
    in_both_modes("", |mode, mut httpd, service| {
        let pid: u32 = eval(&httpd, "os.getpid()").parse().unwrap();
        let group = if mode == Mode::Daemon { "app" } else { "" };
        let started = service.wait_for(STARTED, |it| it.pid == pid);
        assert_eq!((started.text(1), started.text(6)), ("6.1.1", group));
        assert_eq!(started.text(2), eval(&httpd, "__import__('platform').python_version()"));
        assert!(started.text(3).starts_with("Apache/2.4."), "{started:?}");
        assert!(["event", "worker", "prefork"].contains(&started.text(4)), "{started:?}");
        assert_eq!(started.text(5), eval(&httpd, "os.uname().nodename"));
        assert_eq!(started.count(7), httpd.parent().pid.unsigned_abs().into());
        assert!((started.number(13) - 0.005).abs() < 1e-9);
        let now: f64 = eval(&httpd, "time.time()").parse().unwrap();
        assert!((now - started.stamp).abs() < 60.0);

        httpd.end_by(nix::sys::signal::Signal::SIGTERM);
        let reason = if mode == Mode::Daemon { "shutdown_signal" } else { "" };
        let stopping = service.wait_for(STOPPING, |it| it.pid == pid);
        assert_eq!((stopping.text(6), stopping.text(130)), (group, reason));
        assert_eq!(stopping.count(133), 0);
        let stopped = service.wait_for(STOPPED, |it| it.pid == pid);
        assert_eq!((stopped.text(6), stopped.text(130)), (group, reason));
        assert!(stopped.number(131) > 0.0 && stopped.count(132) >= 4);
        assert_eq!((stopped.count(134), stopped.count(135)), (0, 1));
    });
}

#[test]
fn a_process_that_outlasts_its_shutdown_timeout_says_that_it_stops() {
    let service = Service::listen();
    let config = format!(
        "WSGIDaemonProcess one threads=2 shutdown-timeout=1\nWSGIProcessGroup one\n\
         WSGIApplicationGroup %{{GLOBAL}}\nWSGIScriptAlias / ${{ROOT}}/app.wsgi\n{}",
        service.directive()
    );
    let mut httpd = Site::new(&config).file("app.wsgi", APP).start();
    if is_ours() {
        httpd.allow_stacks();
        httpd.expect_error("WSGI0146");
    } else {
        httpd.allow_error("WSGI");
    }
    let pid: u32 = eval(&httpd, "os.getpid()").parse().unwrap();
    let mut stuck = httpd.connect();
    stuck.write(Request::get("/slow?60").head()).unwrap();
    service.wait_for(REQUESTS, |it| it.pid == pid && it.count(52) == 1);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    let stopped = service.wait_for(STOPPED, |it| it.pid == pid);
    assert_eq!((stopped.text(6), stopped.text(130)), ("one", "shutdown_signal"));
    assert_eq!((stopped.count(134), stopped.count(135)), (1, 0));
    assert!(stopped.number(131) >= 1.0, "{stopped:?}");
    service.wait_for(STARTED, |it| it.pid != pid && it.text(6) == "one");
    let all = service.seen();
    assert_eq!(all.iter().filter(|it| it.kind == STOPPED && it.pid == pid).count(), 1);
}

#[test]
fn a_report_tells_of_the_requests_of_its_period() {
    in_both_modes("", |mode, httpd, service| {
        httpd.get("/missing?1");
        httpd.send(&Request::post("/slow?0.2", "hello")).ok();
        let is_there = |it: &Datagram| it.number(83) >= 0.2;
        let report = service.wait_for(REQUESTS, |it| it.count(20) > 0 && is_there(it));
        assert_eq!(report.text(6), if mode == Mode::Daemon { "app" } else { "" });
        assert!(report.number(10) >= 0.4 && (report.number(11) - 0.5).abs() < 1e-9);
        assert!(report.number(12).abs() < 1e-9, "no slow requests are reported");
        assert!((report.number(21) - report.count(20) as f64 / report.number(10)).abs() < 1e-6);
        assert!(report.number(22) > 0.0 && report.number(22) <= 1.0);
        assert!(report.count(40) > 1_000_000 && report.count(41) > 1_000_000);
        assert!(report.count(50) >= 1 && report.count(51) >= 1 && report.count(52) >= 1);
        assert!(report.count(100) == 5 && report.count(101) >= 1, "{report:?}");
        assert!(report.count(102) >= 1 && report.count(103) >= 1);
        for phase in 0..8 {
            let is_there = mode == Mode::Daemon || !matches!(phase, 1 | 2);
            for field in [60, 70, 80, 90] {
                let found = report.fields.contains_key(&(field + phase));
                assert_eq!(found, is_there, "field {}", field + phase);
            }
            if is_there {
                let Value::Counts(buckets) = report.field(90 + phase) else { panic!("{phase}") };
                assert_eq!(buckets.len(), 65);
                assert_eq!(buckets.iter().sum::<i32>() as u64, report.count(20));
            }
        }
        assert!(report.number(63) <= report.number(83) && report.number(73) <= report.number(63));
        assert!(report.number(84) >= report.number(83));
        let Value::Counts(ended) = report.field(110) else { panic!("{report:?}") };
        assert_eq!(ended.len() as u64, report.count(50));
        for field in 111..=114 {
            let Value::Numbers(numbers) = report.field(field) else { panic!("{field}") };
            assert_eq!(numbers.len(), ended.len());
        }
        // Both requests, over however many periods.
        let all = service.seen();
        let sum = |field: u16| -> u64 {
            all.iter().filter(|it| it.kind == REQUESTS).map(|it| it.count(field)).sum()
        };
        assert_eq!((sum(120), sum(121), sum(123), sum(124)), (0, 1, 1, 0));
    });
}

#[test]
fn reports_are_numbered_and_come_at_their_interval() {
    in_both_modes("", |_, httpd, service| {
        let pid: u32 = eval(&httpd, "os.getpid()").parse().unwrap();
        let reports = wait_until("four reports", || {
            let seen = service.seen();
            let ours = seen.iter().filter(|it| it.pid == pid && it.kind == REQUESTS);
            let reports: Vec<_> = ours.cloned().collect();
            (reports.len() >= 4).then_some(reports)
        });
        for pair in reports.windows(2) {
            assert!(pair[1].stamp - pair[0].stamp > 0.4, "{:?}", pair[1].stamp - pair[0].stamp);
        }
        let mut numbers: Vec<u32> =
            service.seen().iter().filter(|it| it.pid == pid).map(|it| it.sequence).collect();
        numbers.sort_unstable();
        let count = u32::try_from(numbers.len()).unwrap();
        assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
    });
}

#[test]
fn slow_requests_are_told_of_one_by_one() {
    in_both_modes("WSGISlowRequests 0.3", |mode, httpd, service| {
        httpd.get("/?1").ok();
        let request = Request::post("/held?100", "hello").header("User-Agent", "nosy");
        let mut connection = httpd.connect();
        connection.write(request.head()).unwrap();
        connection.write("hello").unwrap();
        let is_it = |it: &Datagram| it.text(210) == "POST";
        // Reported several times; once the application runs.
        let running = service.wait_for(SLOW, |it| is_it(it) && it.number(223) > 0.0);
        httpd.write("run/go", "");
        assert_eq!(connection.read_response(false).unwrap().text(), "100");
        let ended = service.wait_for(SLOW, |it| is_it(it) && it.count(200) == 1);
        for record in [&running, &ended] {
            assert_eq!((record.text(210), record.text(211)), ("POST", "http"));
            assert_eq!(record.text(212), "wsgi.test");
            assert_eq!(record.text(213).to_owned() + record.text(214), "/held");
            assert_eq!((record.text(215), record.text(216)), ("HTTP/1.1", "127.0.0.1"));
            assert_eq!(record.text(217), "", "nobody asked for the user agent");
            assert!(record.count(203) >= 1 && record.count(205) > 0);
            assert_eq!(record.count(260), 1);
            assert_eq!(record.text(204), ended.text(204));
        }
        assert_eq!(running.count(200), 0);
        assert!(running.number(202) >= 0.3);
        assert_eq!((running.count(240), running.count(261)), (0, 0));
        assert!(ended.number(202) > running.number(202));
        assert!(ended.number(223) > running.number(223));
        assert_eq!((ended.count(240), ended.count(261)), (200, 1));
        assert_eq!((ended.count(230), ended.count(232)), (5, 3));
        assert!((ended.number(201) + ended.number(202)) <= ended.stamp + 0.001);
        assert_eq!(ended.number(221) > 0.0, mode == Mode::Daemon);
        assert!(ended.count(225) > 0 && ended.number(250) + ended.number(251) > 0.0);
        let seen = service.seen();
        // On a busy machine the other one may have been slow too.
        let mut all = seen.iter().filter(|it| it.kind == SLOW);
        assert!(all.all(|it| it.number(202) >= 0.3), "a request that was quick is told of");
    });
}

#[test]
fn the_user_agent_is_told_of_where_that_is_wished() {
    let lines = "WSGISlowRequests 0.1\nWSGITelemetryOptions +CaptureUserAgent";
    in_both_modes(lines, |_, httpd, service| {
        httpd.send(&Request::get("/slow?0.2").header("User-Agent", "nosy")).ok();
        assert_eq!(service.wait_for(SLOW, |it| it.count(200) == 1).text(217), "nosy");
    });
}

#[test]
fn garbage_collection_is_reported_for_every_interpreter() {
    let service = Service::listen();
    let config = "WSGIDaemonProcess app threads=2\nWSGIProcessGroup app\n\
        WSGIScriptAlias /one ${ROOT}/app.wsgi application-group=one\n\
        WSGIScriptAlias / ${ROOT}/app.wsgi application-group=%{GLOBAL}";
    let httpd = Site::new(config).config(&service.directive()).file("app.wsgi", APP).start();
    // A cycle: what the pass finds.
    let collect = "?[[[l.append(l)]for%20l%20in%20[[]]],gc.collect()]";
    httpd.get(&format!("/one/{collect}")).ok();
    httpd.get(&format!("/{collect}")).ok();
    for name in ["", "one"] {
        let of = |it: &Datagram| it.text(8) == name;
        let counters = service.wait_for(COLLECTOR, |it| of(it) && it.count(308) > 0);
        // The second from 3.14 on.
        assert!([700, 2000].contains(&counters.count(303)), "{}", counters.count(303));
        assert_eq!(counters.count(315), 1);
        assert_eq!((counters.count(316), counters.count(317)), (0, 0));
        assert!((300..=317).all(|field| counters.fields.contains_key(&field)));
        let pass = service.wait_for(COLLECTION, |it| of(it) && it.count(322) == 2);
        assert!(pass.number(321) >= 0.0 && pass.number(320) > 1e9);
        assert!(pass.fields.contains_key(&323) && pass.fields.contains_key(&324));
    }
}

#[test]
fn every_python_is_reported_and_ends_well() {
    ours_only!("row 16: the reference has one Python");
    for python in pythons() {
        eprintln!("{}", python.version);
        let service = Service::listen();
        let config = format!(
            "WSGIDaemonProcess app threads=2 python-home={}\nWSGIProcessGroup app\n\
             WSGIScriptAlias /one ${{ROOT}}/app.wsgi application-group=one\n\
             WSGIScriptAlias / ${{ROOT}}/app.wsgi application-group=%{{GLOBAL}}",
            python.home.display()
        );
        let site = Site::new(&config).config(&service.directive());
        let mut httpd = site.file("app.wsgi", APP).start();
        for target in ["/one/?gc.collect()", "/?gc.collect()"] {
            httpd.get(target).ok();
        }
        for name in ["", "one"] {
            service.wait_for(COLLECTOR, |it| it.text(8) == name && it.count(308) > 0);
            service.wait_for(COLLECTION, |it| it.text(8) == name && it.count(322) == 2);
        }
        let started = service.wait_for(STARTED, |_| true);
        assert!(started.text(2).starts_with(&python.version), "{started:?}");
        httpd.end_by(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(service.wait_for(STOPPED, |_| true).count(132), 2);
        httpd.wait_for_log("exited with code 0");
    }
}

#[test]
fn request_metrics_are_left_to_the_reporter() {
    in_both_modes("", |_, httpd, _| {
        eval(&httpd, "mod_wsgi.start_recording_metrics()");
        assert_eq!(eval(&httpd, "mod_wsgi.request_metrics()"), "None");
    });
}

#[test]
fn a_service_that_is_not_there_harms_nobody() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let site = Site::app(mode, APP)
            .config("WSGITelemetryService unix:${ROOT}/nowhere.sock interval=0.5");
        let httpd = site.start();
        assert_eq!(eval(&httpd, "1"), "1");
        httpd.get("/slow?0.6").ok();
    }
}

#[test]
fn a_service_that_reads_nothing_delays_nobody() {
    ours_only!("row 94: the reference's child processes wait for it when they end");
    in_both_modes("WSGISlowRequests 0.001", |_, httpd, service| {
        service.fill();
        for _ in 0..10 {
            httpd.get("/slow?0.002").ok();
        }
        // Longer than an interval: a report has met the full queue.
        httpd.get("/slow?1.2").ok();
        drop(httpd);
    });
}

#[test]
fn the_report_goes_on_while_python_is_stuck() {
    ours_only!("row 93: the reference's reporter waits for Python's lock");
    let stuck = "__import__('ctypes').PyDLL(None).sleep(3)";
    in_both_modes("", |_, httpd, service| {
        let pid: u32 = eval(&httpd, "os.getpid()").parse().unwrap();
        let reports =
            || service.seen().iter().filter(|it| it.pid == pid && it.kind == REQUESTS).count();
        wait_until("a report", || (reports() > 0).then_some(()));
        let before = reports();
        let begin = std::time::Instant::now();
        eval(&httpd, stuck);
        // Python's lock was out of reach all the time.
        assert!(begin.elapsed().as_secs_f32() >= 2.9);
        assert!(reports() >= before + 3, "{} reports in 3 s", reports() - before);
    });
}

#[test]
fn the_directives_are_checked() {
    for line in [
        "WSGITelemetryService",
        "WSGITelemetryService /run/t.sock",
        "WSGITelemetryService udp:127.0.0.1:80",
        "WSGITelemetryService unix:/t often",
        "WSGITelemetryService unix:/t interval=0.1",
        "WSGISlowRequests -1",
        "WSGITelemetryOptions Everything",
        "WSGITelemetryOptions +",
        "WSGITelemetryOptions All +CaptureUserAgent",
    ] {
        expect_refusal(line);
    }
    if is_ours() {
        expect_refusal("WSGITelemetryService unix:");
        expect_refusal("WSGISlowRequests soon");
        expect_refusal(&format!("WSGITelemetryService unix:/{}", "x".repeat(120)));
    }
}

/// Decodes datagrams, one hex text a line, with the package for them.
const DECODE: &str = "
import sys
from mod_wsgi.telemetry.wire import decode
for line in sys.stdin:
    sample = decode(bytes.fromhex(line))
    unknown = [name for name in sample.fields if name.startswith('id')]
    print(sample.kind_name, sample.pid, sample.seq, len(sample.fields), unknown)
";

#[test]
fn the_package_for_telemetry_reads_every_datagram() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/venv/bin/python3");
    let program = if python.exists() { python } else { "python3".into() };
    let mut check = Command::new(&program);
    check.args(["-c", DECODE]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !check.status().is_ok_and(|status| status.success()) {
        return skip("mod_wsgi-telemetry is not installed: run `make clients` first");
    }
    in_both_modes("WSGISlowRequests 0.1", |_, mut httpd, service| {
        eval(&httpd, "gc.collect()");
        httpd.get("/slow?0.7").ok();
        for kind in [STARTED, REQUESTS, SLOW, COLLECTOR, COLLECTION] {
            service.wait_for(kind, |_| true);
        }
        httpd.end_by(nix::sys::signal::Signal::SIGTERM);
        service.wait_for(STOPPED, |_| true);
        let lines: String = service
            .raw
            .borrow()
            .iter()
            .map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
            .collect();
        let input = httpd.path("datagrams");
        fs::write(&input, lines).unwrap();
        let input = fs::File::open(input).unwrap();
        let output = Command::new(&program).args(["-c", DECODE]).stdin(input).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let names = [
            (REQUESTS, "request_metrics"),
            (SLOW, "slow_request"),
            (STARTED, "process_started"),
            (STOPPING, "process_stopping"),
            (STOPPED, "process_stopped"),
            (COLLECTOR, "gc_snapshot"),
            (COLLECTION, "gc_event"),
        ];
        let seen = service.seen();
        assert_eq!(said.lines().count(), seen.len());
        for (line, datagram) in said.lines().zip(seen.iter()) {
            let (_, name) = names.iter().find(|(kind, _)| *kind == datagram.kind).unwrap();
            let Datagram { pid, sequence, fields, .. } = datagram;
            assert_eq!(line, format!("{name} {pid} {sequence} {} []", fields.len()));
        }
    });
}
