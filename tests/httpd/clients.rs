//! Real software, visited by the clients it is made for.
//!
//! `make clients` gets both; without it these tests say that they do not run.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Httpd, Mode, Request, Site, is_root, skip};

/// What `make clients` made, if it was run.
fn clients() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients");
    place.join("venv/made-for").exists().then_some(place)
}

/// Whether every directory on the way is open to httpd's user.
fn is_open(place: &Path) -> bool {
    let lets_pass = |way: &Path| fs::metadata(way).is_ok_and(|it| it.permissions().mode() & 1 != 0);
    !is_root() || place.ancestors().all(lets_pass)
}

/// Whether a program answers.
fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs `test` against `source`, with what `make clients` installed, in both modes.
fn serve(source: &str, test: impl Fn(&Path, &Httpd)) {
    let Some(clients) = clients() else { return skip("run `make clients` first") };
    if !is_open(&clients) {
        return skip("httpd's user cannot reach this checkout");
    }
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        // What is kept in memory, such as locks, is one child's; under prefork that has one
        // connection at a time, and clients keep theirs.
        let home = clients.join("venv");
        let site = Site::app(mode, source).one_child().config(&format!(
            "WSGIPythonHome {}\nWSGIApplicationGroup %{{GLOBAL}}\n\
             WSGIChunkedRequest On\nWSGIPassAuthorization On\n\
             KeepAliveTimeout 100ms",
            home.display()
        ));
        site.open_run();
        // File names are not ASCII everywhere.
        let site = site.env("LANG", "C.UTF-8");
        let mut httpd = site.start();
        // What the software says of itself goes to standard error.
        httpd.allow_error("[wsgi:error]");
        test(&clients, &httpd);
    }
}

/// Runs a client below the ServerRoot; it must end well.
fn run(httpd: &Httpd, program: impl AsRef<Path>, words: &[&str]) -> String {
    let mut command = Command::new(program.as_ref());
    command.args(words).current_dir(httpd.root()).stdin(Stdio::null());
    command.env("HOME", httpd.root()).env("HGRCPATH", "").env("GIT_TERMINAL_PROMPT", "0");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env_remove("http_proxy");
    let output = command.output().expect("a client that answered runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{words:?}: {said}\n{}", httpd.log());
    said
}

/// Where the server is.
fn url(httpd: &Httpd, path: &str) -> String {
    format!("http://127.0.0.1:{}/{path}", httpd.port())
}

/// A file of so many megabytes that no compression makes smaller.
fn write_noise(path: &Path, megabytes: u64) {
    let noise = fs::File::open("/dev/urandom").unwrap();
    std::io::copy(&mut noise.take(megabytes << 20), &mut fs::File::create(path).unwrap()).unwrap();
}

/// Whether two files hold the same.
fn is_same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}

/// `git http-backend`, as a WSGI application.
const GIT: &str = r"
import os, shutil, subprocess, threading
ROOT = os.path.dirname(__file__) + '/run'
GIT = shutil.which('git') or '/usr/local/bin/git'

def prepare():
    if not os.path.exists(ROOT + '/repo.git'):
        environment = {'PATH': os.environ['PATH'], 'HOME': ROOT}
        subprocess.run([GIT, 'init', '-q', '--bare', ROOT + '/repo.git'],
                       env=environment, check=True)
        subprocess.run([GIT, '-C', ROOT + '/repo.git', 'config', 'http.receivepack', 'true'],
                       env=environment, check=True)

prepare()

def feed(stream, pipe):
    with pipe:
        shutil.copyfileobj(stream, pipe, 65536)

def application(environ, start_response):
    wanted = ('REQUEST_METHOD', 'PATH_INFO', 'QUERY_STRING', 'CONTENT_TYPE', 'CONTENT_LENGTH',
              'HTTP_CONTENT_ENCODING', 'HTTP_GIT_PROTOCOL', 'REMOTE_ADDR')
    variables = {name: environ[name] for name in wanted if name in environ}
    variables.update(GIT_PROJECT_ROOT=ROOT, GIT_HTTP_EXPORT_ALL='1', HOME=ROOT,
                     PATH=os.environ['PATH'])
    backend = subprocess.Popen([GIT, 'http-backend'], env=variables,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    feeder = threading.Thread(target=feed, args=(environ['wsgi.input'], backend.stdin))
    feeder.start()
    status, headers = '200 OK', []
    while (line := backend.stdout.readline().decode('latin-1').strip()):
        name, _, value = line.partition(': ')
        if name == 'Status':
            status = value
        else:
            headers.append((name, value))
    start_response(status, headers)
    return answer(backend, feeder)

def answer(backend, feeder):
    try:
        while (piece := backend.stdout.read(65536)):
            yield piece
    finally:
        feeder.join()
        backend.stdout.close()
        backend.wait()
";

#[test]
fn git_pushes_and_clones_a_hundred_megabytes() {
    if !is_there("git") {
        return skip("there is no git");
    }
    serve(GIT, |_, httpd| {
        let git = |words: &[&str]| {
            // Noise is not worth compressing.
            let mut all = vec!["-c", "core.compression=0", "-c", "user.name=a"];
            all.extend(["-c", "user.email=a@wsgi.test", "-c", "init.defaultBranch=main"]);
            all.extend(words);
            run(httpd, "git", &all)
        };
        let repository = url(httpd, "repo.git");
        git(&["init", "-q", "work"]);
        write_noise(&httpd.path("work/noise"), 100);
        fs::write(httpd.path("work/text"), "one\n".repeat(10_000)).unwrap();
        git(&["-C", "work", "add", "."]);
        git(&["-C", "work", "commit", "-q", "-m", "first"]);
        git(&["-C", "work", "push", "-q", &repository, "HEAD:refs/heads/main"]);
        git(&["clone", "-q", "-b", "main", &repository, "clone"]);
        assert!(is_same(&httpd.path("work/noise"), &httpd.path("clone/noise")));
        fs::write(httpd.path("clone/text"), "two\n").unwrap();
        git(&["-C", "clone", "commit", "-q", "-a", "-m", "second"]);
        git(&["-C", "clone", "push", "-q", &repository, "HEAD:refs/heads/main"]);
        git(&["-C", "work", "pull", "-q", "--ff-only", &repository, "main"]);
        assert!(is_same(&httpd.path("work/text"), &httpd.path("clone/text")));
    });
}

/// Mercurial's own server.
const HGWEB: &str = r"
import os
from mercurial import initialization
initialization.init()
from mercurial import hg
from mercurial import ui
from mercurial.hgweb import hgweb
REPOSITORY = os.fsencode(os.path.dirname(__file__) + '/run/repo')
ours = ui.ui.load()
for name, value in [(b'allow-push', b'*'), (b'push_ssl', b'false')]:
    ours.setconfig(b'web', name, value)
if not os.path.exists(REPOSITORY):
    hg.repository(ours, REPOSITORY, create=True)
application = hgweb(REPOSITORY, baseui=ours)
";

#[test]
fn mercurial_clones_commits_and_pushes() {
    serve(HGWEB, |clients, httpd| {
        let program = clients.join("venv/bin/hg");
        let hg = |words: &[&str]| run(httpd, &program, words);
        let repository = url(httpd, "");
        hg(&["clone", &repository, "work"]);
        write_noise(&httpd.path("work/noise"), 20);
        hg(&["-R", "work", "commit", "-A", "-u", "a", "-m", "first"]);
        hg(&["-R", "work", "push", &repository]);
        hg(&["clone", &repository, "clone"]);
        assert!(is_same(&httpd.path("work/noise"), &httpd.path("clone/noise")));
        assert!(httpd.get("/").ok().contains("first"));
        fs::write(httpd.path("clone/text"), "two\n").unwrap();
        hg(&["-R", "clone", "commit", "-A", "-u", "a", "-m", "second"]);
        hg(&["-R", "clone", "bookmark", "mark"]);
        hg(&["-R", "clone", "push", "-B", "mark", &repository]);
        hg(&["-R", "work", "pull", "-u", &repository]);
        assert!(is_same(&httpd.path("work/text"), &httpd.path("clone/text")));
        assert!(hg(&["-R", "work", "bookmarks"]).contains("mark"));
    });
}

/// A WebDAV server.
const WEBDAV: &str = r"
import os
from wsgidav.wsgidav_app import WsgiDAVApp
from wsgidav.fs_dav_provider import FilesystemProvider
SHARE = os.path.dirname(__file__) + '/run/share'
os.makedirs(SHARE, exist_ok=True)
application = WsgiDAVApp({
    'provider_mapping': {'/': FilesystemProvider(SHARE)},
    'simple_dc': {'user_mapping': {'*': True}},
    'property_manager': True,
    'lock_storage': True,
    'verbose': 1,
})
";

#[test]
fn litmus_is_content_with_a_webdav_server() {
    let found = clients().map(|place| place.join("debian/usr"));
    let unpacked = found.filter(|place| place.join("bin/litmus").exists());
    if unpacked.is_none() && !Path::new("/usr/bin/litmus").exists() {
        return skip("there is no litmus: run `make clients`");
    }
    serve(WEBDAV, |_, httpd| {
        let mut words = Vec::new();
        if let Some(place) = &unpacked {
            let place = place.display();
            words.push(format!("TESTROOT={place}/libexec/litmus"));
            words.push(format!("HTDOCS={place}/share/litmus/htdocs"));
            words.push(format!("LD_LIBRARY_PATH={place}/lib/x86_64-linux-gnu"));
            words.push(format!("{place}/bin/litmus"));
        } else {
            words.push("litmus".to_owned());
        }
        words.push(url(httpd, ""));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = run(httpd, "env", &words);
        assert!(said.contains("100.0%"), "{said}");
        assert!(!said.contains("FAIL"), "{said}");
    });
}

/// What httpbin is asked, the status of its answer, and a text in it.
const QUESTIONS: [(&str, &str, u16, &str); 26] = [
    ("GET", "/get?a=b%20c", 200, "\"a\": \"b c\""),
    ("GET", "/get?a=1&a=2", 200, "\"2\""),
    ("GET", "/headers", 200, "\"Host\": \"wsgi.test\""),
    ("GET", "/ip", 200, "127.0.0.1"),
    ("GET", "/anything/%C3%A4%20b", 200, "/anything/"),
    ("PUT", "/anything/x", 200, "\"data\": \"hello\""),
    ("PATCH", "/patch", 200, "\"data\": \"hello\""),
    ("DELETE", "/delete", 200, "\"data\": \"hello\""),
    ("POST", "/post", 200, "\"data\": \"hello\""),
    ("GET", "/status/418", 418, "teapot"),
    ("GET", "/status/204", 204, ""),
    ("GET", "/status/304", 304, ""),
    ("GET", "/status/503", 503, ""),
    ("POST", "/get", 405, "Method Not Allowed"),
    ("GET", "/missing", 404, "Not Found"),
    ("GET", "/redirect-to?url=/get", 302, ""),
    ("GET", "/absolute-redirect/1", 302, ""),
    ("GET", "/cookies/set?a=b", 302, ""),
    ("GET", "/basic-auth/a/b", 401, ""),
    ("GET", "/stream/20", 200, "\"id\": 19"),
    ("GET", "/drip?duration=0&numbytes=10", 200, "**********"),
    ("GET", "/range/26", 200, "abcdefghijklmnopqrstuvwxyz"),
    ("GET", "/base64/aGVsbG8=", 200, "hello"),
    ("GET", "/encoding/utf8", 200, "\u{2200}x\u{2208}"),
    ("GET", "/response-headers?X-A=y", 200, "\"X-A\": \"y\""),
    ("GET", "/links/3/0", 200, "<a href='/links/3/1'>"),
];

#[test]
fn httpbin_answers_what_it_is_asked() {
    let source = "from httpbin import app as application\n";
    serve(source, |_, httpd| {
        for (method, path, status, text) in QUESTIONS {
            let request = if method == "GET" {
                Request::new(method, path)
            } else {
                Request::with_body(method, path, "hello").header("Content-Type", "text/plain")
            };
            let answer = httpd.send(&request);
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
            assert!(answer.text().contains(text), "{method} {path}: {}", answer.text());
        }
        let head = httpd.send(&Request::new("HEAD", "/get"));
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert!(head.header("Content-Length").is_some_and(|length| length != "0"));
        let known = Request::get("/basic-auth/a/b").header("Authorization", "Basic YTpi");
        assert!(httpd.send(&known).ok().contains("\"user\": \"a\""));
        let cookies = Request::get("/cookies").header("Cookie", "a=b; c=d");
        assert!(httpd.send(&cookies).ok().contains("\"c\": \"d\""));
        let part = Request::get("/range/26").header("Range", "bytes=3-5");
        let part = httpd.send(&part);
        assert_eq!((part.status, part.text().as_str()), (206, "def"));
        assert_eq!(httpd.get("/bytes/100000").body.len(), 100_000);
        assert_eq!(httpd.get("/stream-bytes/100000?chunk_size=1000").body.len(), 100_000);
        let form = Request::post("/post", "a=b&c=%C3%A4");
        let form = form.header("Content-Type", "application/x-www-form-urlencoded");
        assert!(httpd.send(&form).ok().contains("\"a\": \"b\""));
        let fresh = httpd.get("/cache");
        let tag = fresh.header("ETag").expect("it has a tag").to_owned();
        let again = Request::get("/cache").header("If-None-Match", tag);
        assert_eq!(httpd.send(&again).status, 304);
    });
}
