//! Configuration trees of mod_wsgi-express, of which only the `LoadModule` line is changed.
//!
//! `make express` gets the generator; without it these tests say that they do not run.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::{
    Connection, DEADLINE, Httpd, Load, Process, Request, Site, eval, expect_served, is_ours, mpm,
    wait_for_end, wait_until,
};

/// Answers with the value of its query string.
const SITE: &str = "
import os, sys, time, mod_wsgi
from urllib.parse import unquote
def application(environ, start_response):
    value = eval(unquote(environ['QUERY_STRING']) or \"'site'\", globals(), {'environ': environ})
    start_response('200 OK', [('Content-Type', 'text/plain'), ('X-From', 'site')])
    return [str(value).encode()]
";

/// A tree for [`SITE`] with these options.
fn tree(options: &str) -> Option<Site> {
    let site = Site::express(&format!("${{ROOT}}/app/site.wsgi {options}"))?;
    site.open_run();
    Some(site.file("app/site.wsgi", SITE))
}

/// [`tree`], started; what its applications print is no error.
fn serve(options: &str) -> Option<Httpd> {
    Some(start(tree(options)?))
}

/// Starts a tree; what its applications print is no error.
fn start(site: Site) -> Httpd {
    let mut httpd = site.start();
    httpd.allow_error("[wsgi:error]");
    httpd
}

/// The value of an expression at another path than the root.
#[track_caller]
fn ask(httpd: &Httpd, path: &str, expression: &str) -> String {
    let escaped: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
    httpd.get(&format!("{path}?{escaped}")).ok()
}

/// What curl gets: the status, the body and the headers; `${OTHER}` is the second port.
#[track_caller]
fn curl(httpd: &Httpd, words: &[&str]) -> (String, String) {
    let port = httpd.port().to_string();
    let other = httpd.other_port().to_string();
    let words = words.iter().map(|word| word.replace("${PORT}", &port).replace("${OTHER}", &other));
    let output = Command::new("curl")
        .args(["-sSki", "--max-time", "30"])
        .args(words)
        .output()
        .expect("curl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = said.split_once("\r\n\r\n").expect("a head ends with an empty line");
    (head.to_owned(), body.to_owned())
}

/// The daemon process group's name.
fn group_name(httpd: &Httpd) -> String {
    format!("127.0.0.1:{}", httpd.port())
}

#[test]
fn a_script_is_served_from_its_daemon_process_group() {
    let Some(httpd) = serve("--setenv GREETING hello --threads 7") else { return };
    assert_eq!(httpd.get("/").ok(), "site");
    let names = "environ['SCRIPT_NAME'], environ['PATH_INFO'], environ['GREETING']";
    assert_eq!(ask(&httpd, "/a/b%20c", names), "('', '/a/b c', 'hello')");
    assert_eq!(eval(&httpd, "environ['mod_wsgi.process_group']"), group_name(&httpd));
    assert_eq!(eval(&httpd, "environ['mod_wsgi.application_group']"), "");
    let script = httpd.path("handler.wsgi").display().to_string();
    assert_eq!(eval(&httpd, "environ['mod_wsgi.handler_script']"), script);
    assert_eq!(eval(&httpd, "mod_wsgi.process_group"), group_name(&httpd));
    assert_eq!(eval(&httpd, "mod_wsgi.threads_per_process"), "7");
    let flags = "environ['wsgi.multiprocess'], environ['wsgi.multithread']";
    assert_eq!(eval(&httpd, flags), "(False, True)");
    assert_eq!(eval(&httpd, "os.environ['MOD_WSGI_EXPRESS']"), "true");
    assert_eq!(eval(&httpd, "os.environ['MOD_WSGI_SERVER_NAME']"), "127.0.0.1");
    assert_eq!(eval(&httpd, "os.environ['LANG']"), "C.UTF-8");
    assert_eq!(eval(&httpd, "sys.path[0]"), httpd.path("app").display().to_string());
    let eggs = httpd.path("python-eggs").display().to_string();
    assert_eq!(eval(&httpd, "os.environ['PYTHON_EGG_CACHE']"), eggs);
    assert_eq!(eval(&httpd, "__import__('mod_wsgi.express.runtime').__name__"), "mod_wsgi");
    let pid = eval(&httpd, "os.getpid()").parse().unwrap();
    let title = Process::find(pid).expect("it has just answered").title();
    // The reference leaves httpd's arguments behind it.
    let expected = format!("(wsgi:{}:{})", group_name(&httpd), nix::unistd::geteuid());
    assert!(title.starts_with(&expected), "{title}");
    assert!(httpd.parent().title().contains("(mod_wsgi-express)"));
}

#[test]
fn the_script_is_loaded_before_the_first_request() {
    let Some(site) = tree("--processes 2") else { return };
    let loads = "\nopen(os.path.dirname(__file__) + '/../run/loads', 'a').write('loaded\\n')\n";
    let httpd = start(site.file("app/site.wsgi", [SITE, loads].concat()));
    wait_until("both processes to have loaded it", || {
        (httpd.read("run/loads").lines().count() == 2).then_some(())
    });
    assert_eq!(httpd.get("/").ok(), "site");
    assert_eq!(httpd.read("run/loads").lines().count(), 2);
}

#[test]
fn several_processes_share_the_requests() {
    let options = "--processes 3 --threads 1 --header-buffer-size 65536 --initial-workers 0.9";
    let Some(httpd) = serve(options) else { return };
    let numbers = "mod_wsgi.maximum_processes, mod_wsgi.threads_per_process";
    assert_eq!(eval(&httpd, numbers), "(3, 1)");
    let flags = "environ['wsgi.multiprocess'], environ['wsgi.multithread']";
    assert_eq!(eval(&httpd, flags), "(True, False)");
    let request = Request::get("/?time.sleep(1)or%20os.getpid()");
    let mut waiting: Vec<Connection> = (0..3).map(|_| httpd.connect()).collect();
    for connection in &mut waiting {
        connection.write(request.head()).unwrap();
    }
    let answers = waiting.iter_mut().map(|it| it.read_response(false).unwrap().ok());
    let mut pids: Vec<String> = answers.collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 3);
}

#[test]
fn a_module_is_an_application_too() {
    let options = "shop.site --application-type module --callable-object shop \
                   --python-path ${ROOT}/lib --python-path ${ROOT}/more";
    let Some(site) = Site::express(options) else { return };
    let source = SITE.replace("def application", "import extra\ndef shop");
    let site = site.file("lib/shop/__init__.py", "").file("lib/shop/site.py", source);
    let httpd = start(site.file("more/extra.py", "").file("app/x", ""));
    assert_eq!(eval(&httpd, "__name__, extra.__name__"), "('shop.site', 'extra')");
}

#[test]
fn static_files_need_no_application() {
    let options = "--application-type static --document-root ${ROOT}/pages \
                   --directory-index first.html --url-alias /other ${ROOT}/lib";
    let Some(site) = Site::express(options) else { return };
    let site = site.file("pages/first.html", "first").file("pages/a/b.txt", "b");
    let httpd = start(site.file("lib/c.txt", "c").file("app/x", ""));
    assert_eq!(httpd.get("/").ok(), "first");
    let page = httpd.get("/a/b.txt");
    assert_eq!(page.header("Content-Type"), Some("text/plain"));
    assert_eq!(page.ok(), "b");
    assert_eq!(httpd.get("/other/c.txt").ok(), "c");
    assert_eq!(httpd.get("/missing").status, 404);
}

#[test]
fn without_an_application_there_is_a_page_that_says_so() {
    let Some(site) = Site::express("") else { return };
    let httpd = start(site.file("app/x", ""));
    assert!(httpd.get("/").ok().contains("Malt Whiskey"));
    let picture = httpd.get("/__wsgi__/images/snake-whiskey.jpg");
    assert_eq!((picture.status, picture.header("Content-Type")), (200, Some("image/jpeg")));
}

#[test]
fn an_application_at_a_mount_point_leaves_the_rest_to_files() {
    let options = "--mount-point /shop --document-root ${ROOT}/pages";
    let Some(site) = tree(options) else { return };
    let httpd = start(site.file("pages/index.html", "home").file("pages/shop/logo.txt", "logo"));
    assert_eq!(httpd.get("/index.html").ok(), "home");
    assert_eq!(httpd.get("/shop/logo.txt").ok(), "logo");
    let names = "environ['SCRIPT_NAME'], environ['PATH_INFO']";
    assert_eq!(ask(&httpd, "/shop/basket", names), "('/shop', '/basket')");
    assert_eq!(httpd.get("/elsewhere").status, 404);
}

#[test]
fn files_beside_the_application_win() {
    let options = "--document-root ${ROOT}/pages --directory-index index.html \
                   --url-alias /media ${ROOT}/lib --url-alias /icon ${ROOT}/lib/one.txt \
                   --allow-override All --error-document 404 /oops.html --directory-listing";
    let Some(site) = tree(options) else { return };
    let site = site.file("pages/index.html", "home").file("pages/oops.html", "oops");
    let site = site.file("pages/deep/.htaccess", "WSGIPassAuthorization On\n");
    let httpd = start(site.file("lib/one.txt", "one").file("lib/.htaccess", "Options +Indexes\n"));
    assert_eq!(httpd.get("/").ok(), "home");
    assert_eq!(httpd.get("/media/one.txt").ok(), "one");
    assert_eq!(httpd.get("/icon").ok(), "one");
    assert!(httpd.get("/media/").ok().contains("one.txt"));
    let missing = httpd.get("/media/two.txt");
    assert_eq!((missing.status, missing.text().as_str()), (404, "oops"));
    assert_eq!(ask(&httpd, "/deep/x", "environ['PATH_INFO']"), "/deep/x");
}

/// Notes what its `resource` was and answers with where it is.
const RESOURCE: &str = "
def reload_required(resource):
    return False
def handle_request(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    names = ('SCRIPT_NAME', 'PATH_INFO', 'SCRIPT_FILENAME')
    return [repr([environ[name] for name in names]).encode()]
";

#[test]
fn a_handler_runs_the_files_of_its_extension() {
    let options = "--add-handler .show ${ROOT}/app/show.py --add-handler .tell ${ROOT}/app/tell.py \
                   --document-root ${ROOT}/pages";
    let Some(site) = tree(options) else { return };
    let site = site.file("app/show.py", RESOURCE).file("app/tell.py", SITE);
    let httpd = start(site.file("pages/a/one.show", "").file("pages/two.tell", "").file("x", ""));
    let file = httpd.path("pages/a/one.show").display().to_string();
    assert_eq!(httpd.get("/a/one.show/more").ok(), format!("['/a/one.show', '/more', '{file}']"));
    assert_eq!(ask(&httpd, "/two.tell", "environ['PATH_INFO']"), "");
    assert_eq!(ask(&httpd, "/three.tell", "environ['PATH_INFO']"), "/three.tell");
}

/// A service that says where it runs, and that it ends.
const SERVICE: &str = "
import os, pwd, sys, time, mod_wsgi
def note(text):
    with open(os.path.dirname(__file__) + '/../run/service', 'a') as file:
        file.write(text + '\\n')
print('the service speaks', flush=True)
note('%s %s %s' % (mod_wsgi.process_group, os.getpid(), pwd.getpwuid(os.getuid()).pw_name))
while True:
    time.sleep(0.1)
";

#[test]
fn services_run_beside_the_application() {
    let options = "--service-script beat ${ROOT}/app/beat.py --service-log-file beat beat.log";
    let Some(site) = tree(options) else { return };
    let httpd = start(site.file("app/beat.py", SERVICE));
    httpd.wait_for_file("run/service", "service:beat");
    httpd.wait_for_file("beat.log", "the service speaks");
    assert_eq!(httpd.get("/").ok(), "site");
    let said = httpd.read("run/service");
    let pid = said.split_whitespace().nth(1).unwrap().parse().unwrap();
    let service = Process::find(pid).expect("it runs for ever");
    assert!(service.title().starts_with("(wsgi:service:beat)"), "{}", service.title());
    httpd.graceful();
    wait_until("its successor", || (httpd.read("run/service").lines().count() > 1).then_some(()));
    assert!(!service.is_alive());
}

/// Knows `spy` with the password `secret`, in both schemes; his group is `agents`.
const GATE: &str = "
import hashlib, threading
def check_password(environ, user, password):
    if user == 'deep':
        return deep(3000)
    return password == 'secret' if user in ('spy', 'clerk') else None
def get_realm_hash(environ, user, realm):
    if user in ('spy', 'clerk'):
        return hashlib.md5(('%s:%s:secret' % (user, realm)).encode()).hexdigest()
def groups_for_user(environ, user):
    return ['agents'] if user == 'spy' else []
def deep(depth):
    import json
    text = '[' * depth + ']' * depth
    try:
        return json.loads(text) is not None
    except RecursionError:
        return False
";

#[test]
fn an_auth_script_checks_who_asks() {
    let options = "--auth-user-script ${ROOT}/app/gate.py --auth-group-script ${ROOT}/app/gate.py \
                   --auth-group agents";
    let Some(site) = tree(options) else { return };
    let mut httpd = start(site.file("app/gate.py", GATE));
    for text in ["AH01617", "AH01618", "AH01664", "AH01631", "AH01797", "wsgi-group", "WSGI"] {
        httpd.allow_error(text);
    }
    let knock = |credentials: &str| {
        let (head, _) = curl(&httpd, &["-u", credentials, "http://127.0.0.1:${PORT}/"]);
        head.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(httpd.get("/").status, 401);
    assert_eq!(knock("spy:secret"), "200");
    assert_eq!(knock("spy:wrong"), "401");
    assert_eq!(knock("nobody:secret"), "401");
    assert_eq!(knock("clerk:secret"), "401");
    // Nothing here needs more stack than the tree gives its threads.
    assert_eq!(knock("deep:x"), "401");
    let expression =
        "repr((environ['REMOTE_USER'],environ['AUTH_TYPE'],'HTTP_AUTHORIZATION'in+environ))";
    let url = format!("http://127.0.0.1:${{PORT}}/?{}", expression.replace('+', "%20"));
    let (_, body) = curl(&httpd, &["-g", "-u", "spy:secret", &url]);
    assert_eq!(body, "('spy', 'Basic', True)");
}

#[test]
fn an_auth_script_checks_digests() {
    let options = "--auth-user-script ${ROOT}/app/gate.py --auth-type Digest";
    let Some(site) = tree(options) else { return };
    let mut httpd = start(site.file("app/gate.py", GATE));
    for text in ["AH01792", "AH01790", "AH01788", "AH01794", "WSGI"] {
        httpd.allow_error(text);
    }
    let knock = |credentials: &str| {
        let words = ["--digest", "-u", credentials, "http://127.0.0.1:${PORT}/"];
        let (head, body) = curl(&httpd, &words);
        // curl shows the refusal it answers as well.
        [head, body].concat().contains("200 OK")
    };
    assert!(knock("spy:secret"));
    assert!(!knock("spy:wrong"));
    assert!(!knock("nobody:secret"));
}

#[test]
fn an_access_script_chooses_hosts() {
    let source = "def allow_access(environ, host):
    return 'deny' not in environ.get('QUERY_STRING', '') if host == '127.0.0.1' else False\n";
    let Some(site) = tree("--host-access-script ${ROOT}/app/door.py") else { return };
    let mut httpd = start(site.file("app/door.py", source));
    for text in ["AH01797", "WSGI0146", "WSGI"] {
        httpd.allow_error(text);
    }
    assert_eq!(httpd.get("/").ok(), "site");
    assert_eq!(httpd.get("/?'deny'").status, 403);
}

#[test]
fn https_comes_with_virtual_hosts_and_http2() {
    let options = "--https-port ${OTHER} --ssl-certificate ${ROOT}/run/tls --https-only \
                   --hsts-policy max-age=99 --server-name www.wsgi.test --server-alias b.test \
                   --http2 --ssl-environment --allow-localhost \
                   --include-file ${ROOT}/more.conf";
    let Some(site) = tree(options) else { return };
    let cache = "<IfModule !socache_shmcb_module>\nLoadModule socache_shmcb_module \
                 ${MOD_WSGI_MODULES_DIRECTORY}/mod_socache_shmcb.so\n</IfModule>\n";
    let site = site.file("more.conf", cache);
    if !site.make_certificate() {
        return;
    }
    let mut httpd = start(site);
    httpd.allow_error("AH01630");
    let resolve = |name: &str, port: &str| format!("{name}:{port}:127.0.0.1");
    let visit = |scheme: &str, name: &str, port: &str, query: &str| {
        let url = format!("{scheme}://{name}:{port}/{query}");
        curl(&httpd, &["-g", "--resolve", &resolve(name, port), &url])
    };
    let query =
        "?environ['wsgi.url_scheme'],environ['SERVER_PROTOCOL'],environ['SSL_PROTOCOL'][:3]";
    for name in ["www.wsgi.test", "b.test"] {
        let (head, body) = visit("https", name, "${OTHER}", query);
        // HTTP/2 needs threads.
        let version = if mpm() == "prefork" { "1.1" } else { "2.0" };
        assert_eq!(body, format!("('https', 'HTTP/{version}', 'TLS')"), "{head}");
        assert!(head.to_lowercase().contains("strict-transport-security: max-age=99"), "{head}");
    }
    let (head, _) = visit("http", "www.wsgi.test", "${PORT}", "x");
    let goal = format!("https://www.wsgi.test:{}/x", httpd.other_port());
    assert!(head.starts_with("HTTP/1.1 302") && head.contains(&goal), "{head}");
    let (head, _) = visit("https", "wsgi.test", "${OTHER}", "x");
    assert!(head.contains(&format!("ocation: {goal}")) || head.contains(&goal), "{head}");
}

#[test]
fn hosts_nobody_configured_are_turned_away() {
    let Some(mut httpd) = serve("--server-name www.wsgi.test --server-alias *.b.test") else {
        return;
    };
    httpd.allow_error("AH01630");
    let visit =
        |host: &str| httpd.send(&Request::get("/?environ['PATH_INFO']").header("Host", host));
    assert_eq!(visit("www.wsgi.test").ok(), "/");
    assert_eq!(visit("a.b.test").ok(), "/");
    assert_eq!(visit("stranger.test").status, 403);
    let moved = visit("wsgi.test");
    assert_eq!(moved.status, 301);
    let goal = format!("http://www.wsgi.test:{}/", httpd.port());
    assert!(moved.header("Location").is_some_and(|it| it.starts_with(&goal)), "{moved:?}");
}

/// Answers each connection to `port` with the head it sent, as long as the test runs.
fn serve_echo(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let body = head.join("\n");
            let text = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}");
            let _ = (&stream).write_all(text.as_bytes());
        }
    });
}

#[test]
fn another_server_is_mounted_beside_the_application() {
    let options = "--proxy-mount-point /back http://127.0.0.1:${OTHER}/inner --proxy-timeout 10";
    let Some(site) = tree(options) else { return };
    serve_echo(site.other_port());
    let httpd = start(site);
    let seen = httpd.get("/back/x").ok();
    assert!(seen.starts_with("GET /inner/x HTTP/1.1"), "{seen}");
    assert!(seen.contains(&format!("X-Forwarded-Port: {}", httpd.port())), "{seen}");
    assert!(seen.contains("X-Forwarded-Prefix: /back"), "{seen}");
    assert_eq!(httpd.get("/back").status, 302);
    assert_eq!(httpd.get("/").ok(), "site");
}

#[test]
fn headers_of_a_trusted_proxy_move_the_application() {
    let options = "--trust-proxy-header X-Forwarded-For --trust-proxy-header X-Forwarded-Scheme \
                   --trust-proxy-header X-Forwarded-Prefix --trust-proxy-header X-Script-Name \
                   --trust-proxy 127.0.0.1 --mount-point /inner";
    let Some(httpd) = serve(options) else { return };
    let names = "environ['REMOTE_ADDR'],environ['wsgi.url_scheme'],environ['SCRIPT_NAME'],\
                 environ['PATH_INFO']";
    let request = Request::get(&format!("/inner/x?{names}"))
        .header("X-Forwarded-For", "10.1.2.3")
        .header("X-Forwarded-Scheme", "https");
    assert_eq!(httpd.send(&request).ok(), "('10.1.2.3', 'https', '/inner', '/x')");
    let request = request.header("X-Script-Name", "/outer");
    assert_eq!(httpd.send(&request).ok(), "('10.1.2.3', 'https', '/outer', '/x')");
}

#[test]
fn embedded_mode_runs_in_the_children() {
    let options = "--embedded-mode --processes 1 --threads 3 --server-metrics \
                   --python-path ${ROOT}/lib --application-group named";
    let Some(site) = tree(options) else { return };
    let mut httpd = start(site.file("lib/extra.py", "VALUE = 5"));
    // The tree has room for just as many children as it needs.
    httpd.allow_error("AH03490");
    httpd.allow_error("AH10159");
    assert_eq!(eval(&httpd, "mod_wsgi.process_group"), "");
    assert_eq!(eval(&httpd, "mod_wsgi.application_group"), "named");
    assert_eq!(eval(&httpd, "__import__('extra').VALUE"), "5");
    assert_eq!(eval(&httpd, "mod_wsgi.maximum_processes, mod_wsgi.threads_per_process"), {
        if mpm() == "prefork" { "(3, 1)" } else { "(1, 3)" }
    });
    assert_eq!(
        httpd.send(&Request::post("/?len(environ['wsgi.input'].read())", "hello")).ok(),
        "5"
    );
    assert_eq!(httpd.send(&Request::new("HEAD", "/")).status, 200);
    httpd.graceful();
    assert_eq!(httpd.get("/").ok(), "site");
}

#[test]
fn a_request_may_choose_its_interpreter() {
    let options = "--application-group %{ENV:GROUP} --include-file ${ROOT}/more.conf";
    let Some(site) = tree(options) else { return };
    let more = "LoadModule setenvif_module ${MOD_WSGI_MODULES_DIRECTORY}/mod_setenvif.so\n\
                SetEnvIf Request_URI ^/(\\w+) GROUP=$1\n";
    let httpd = start(site.file("more.conf", more));
    for group in ["one", "two", "one"] {
        assert_eq!(ask(&httpd, &format!("/{group}/x"), "mod_wsgi.application_group"), group);
    }
}

#[test]
fn debug_mode_is_one_process() {
    let Some(httpd) = serve("--debug-mode") else { return };
    let pid: i32 = eval(&httpd, "os.getpid()").parse().unwrap();
    assert_eq!(pid, httpd.parent().pid);
    assert_eq!(eval(&httpd, "os.environ['MOD_WSGI_DEBUG_MODE']"), "true");
    assert_eq!(eval(&httpd, "sys.path[0]"), httpd.path("app").display().to_string());
    // A debugger talks to the terminal httpd was started from.
    assert_eq!(eval(&httpd, "sys.stdin.fileno(), sys.stdout.fileno()"), "(0, 1)");
    assert_eq!(eval(&httpd, "environ['wsgi.multiprocess'], environ['mod_wsgi.process_group']"), {
        "(False, '')"
    });
}

#[test]
fn the_recorder_and_the_profiler_write_their_files() {
    let options = "--enable-recorder --recorder-directory ${ROOT}/run/in \
                   --enable-profiler --profiler-directory ${ROOT}/run/in";
    let Some(mut httpd) = serve(options) else { return };
    // The tree's user writes there.
    fs::set_permissions(httpd.path("run/in"), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(httpd.get("/").ok(), "site");
    let files = |kind: &str| {
        let entries = fs::read_dir(httpd.path("run/in")).unwrap().flatten();
        entries.filter(|it| it.file_name().to_string_lossy().ends_with(kind)).count()
    };
    assert_eq!((files(".iheaders"), files(".ocontent")), (1, 1));
    httpd.end_by(Signal::SIGTERM);
    let files = |kind: &str| {
        let entries = fs::read_dir(httpd.path("run/in")).unwrap().flatten();
        entries.filter(|it| it.file_name().to_string_lossy().ends_with(kind)).count()
    };
    assert_eq!(files(".pstats"), 1);
}

#[test]
fn the_status_page_and_metrics_are_there_when_asked_for() {
    let Some(httpd) = serve("--server-status --server-metrics") else { return };
    let request = Request::get("/server-status?auto").header("Host", "localhost");
    assert!(httpd.send(&request).ok().contains("ServerMPM:"));
    assert_eq!(eval(&httpd, "mod_wsgi.server_metrics()['server_limit'] > 0"), "True");
    eval(&httpd, "mod_wsgi.start_recording_metrics()");
    assert_eq!(eval(&httpd, "mod_wsgi.process_metrics()['pid'] == os.getpid()"), "True");
    let Some(httpd) = serve("") else { return };
    assert_eq!(eval(&httpd, "mod_wsgi.server_metrics()"), "None");
}

#[test]
fn answers_are_compressed_for_clients_that_can() {
    let Some(httpd) = serve("--compress-responses") else { return };
    let request = Request::get("/?'x'*50000").header("Accept-Encoding", "gzip");
    let packed = httpd.send(&request);
    assert_eq!(packed.header("Content-Encoding"), Some("gzip"));
    assert!(packed.body.len() < 5000, "{}", packed.body.len());
    assert_eq!(httpd.get("/?'x'*50000").ok().len(), 50_000);
}

#[test]
fn bodies_of_unknown_or_great_length_need_an_option() {
    let read = "/?len(environ['wsgi.input'].read())";
    let chunks = || Request::post_chunks(read, &[b"abc", b"de"]);
    let Some(mut httpd) = serve("--limit-request-body 1000") else { return };
    httpd.allow_error("WSGI0139");
    assert_eq!(httpd.send(&chunks()).status, 411);
    assert_eq!(httpd.send(&Request::post(read, "x".repeat(2000))).status, 413);
    assert_eq!(httpd.send(&Request::post(read, "x".repeat(900))).ok(), "900");
    let Some(httpd) = serve("--chunked-request") else { return };
    assert_eq!(httpd.send(&chunks()).ok(), "5");
}

#[test]
fn error_pages_of_the_server_replace_those_of_the_application() {
    let source = "def application(environ, start_response):
    start_response('503 Busy', [('Content-Type', 'text/plain')])
    return [b'mine']\n";
    let pages = "--document-root ${ROOT}/pages --error-document 503 /busy.html";
    for (options, expected) in [("--error-override", "theirs"), ("", "mine")] {
        let Some(site) = tree(&format!("{pages} {options}")) else { return };
        let site = site.file("app/site.wsgi", source).file("pages/busy.html", "theirs");
        let answer = start(site).get("/");
        assert_eq!((answer.status, answer.text().as_str()), (503, expected));
    }
}

#[test]
fn a_changed_script_is_run_anew() {
    let Some(httpd) = serve("") else { return };
    let before = eval(&httpd, "os.getpid()");
    httpd.write("app/site.wsgi", SITE.replace("'site'", "'changed'"));
    assert_eq!(httpd.get("/").ok(), "changed");
    assert_ne!(eval(&httpd, "os.getpid()"), before);
    let Some(httpd) = serve("--disable-reloading") else { return };
    assert_eq!(httpd.get("/").ok(), "site");
    httpd.write("app/site.wsgi", SITE.replace("'site'", "'changed'"));
    assert_eq!(httpd.get("/").ok(), "site");
}

#[test]
fn the_reloader_notices_a_module_that_changes() {
    let Some(site) = tree("--reload-on-changes --python-path ${ROOT}/lib") else { return };
    let source = format!("import extra\n{SITE}");
    let httpd = start(site.file("app/site.wsgi", source).file("lib/extra.py", "VALUE = 1\n"));
    httpd.wait_for_log("Starting change monitor.");
    assert_eq!(eval(&httpd, "extra.VALUE, os.environ['MOD_WSGI_RELOADER_ENABLED']"), {
        "(1, 'true')"
    });
    // The monitor knows the file only once it has looked at it.
    eval(
        &httpd,
        "next(iter(lambda: time.sleep(0.05) or any('extra.py' in path for path in \
                  __import__('mod_wsgi.express.reloader').express.reloader._times), True), 0)",
    );
    httpd.write("lib/extra.py", "VALUE = 22\n");
    httpd.wait_for_log("Triggering process restart.");
    wait_until("the new module", || (eval(&httpd, "extra.VALUE") == "22").then_some(()));
}

#[test]
fn files_to_include_and_variables_reach_the_server() {
    let options = "--include-file ${ROOT}/more.conf --passenv GIVEN --setenv SAID yes \
                   --rewrite-rules ${ROOT}/rules.conf --envvars-script ${ROOT}/vars \
                   --python-warnings error --map-head-to-get Off --ignore-activity /ping \
                   --enable-sendfile --access-log --access-log-format combined";
    let Some(site) = tree(options) else { return };
    let site = site.file("more.conf", "Header set X-More yes\nWSGIPassAuthorization Off\n");
    let site = site.file("rules.conf", "RewriteRule ^old$ /new [L,NE]\n");
    let httpd = start(site.file("vars", "export GIVEN=here\n"));
    let answer = httpd.get("/?environ['GIVEN'],environ['SAID'],os.environ['GIVEN']");
    assert_eq!(answer.header("X-More"), Some("yes"));
    assert_eq!(answer.ok(), "('here', 'yes', 'here')");
    assert_eq!(ask(&httpd, "/old", "environ['PATH_INFO']"), "/new");
    assert_eq!(eval(&httpd, "sys.warnoptions"), "['error']");
    assert_eq!(httpd.get("/ping").ok(), "site");
    httpd.wait_for_file("access_log", "GET /ping HTTP/1.1\" 200");
}

#[test]
fn tuning_options_are_understood() {
    let options = "--processes 1 --request-timeout 20 --interrupt-timeout 15 --startup-timeout 30 \
                   --shutdown-timeout 3 --restart-interval 60 --cpu-time-limit 100 \
                   --graceful-timeout 4 --eviction-timeout 3 --deadlock-timeout 30 \
                   --inactivity-timeout 50 --connect-timeout 9 --socket-timeout 33 \
                   --queue-timeout 22 --server-backlog 55 --daemon-backlog 44 \
                   --send-buffer-size 65536 --receive-buffer-size 65536 \
                   --header-buffer-size 65536 --response-buffer-size 70000 \
                   --response-socket-timeout 12 --response-flush-delay 4 --max-clients 20 \
                   --initial-workers 0.5 --minimum-spare-workers 0.2 --maximum-spare-workers 0.6 \
                   --maximum-requests 100 --switch-interval 0.01 --orphan-interpreter \
                   --socket-prefix ${ROOT}/run --keep-alive-timeout 0 --verbose-debugging";
    let Some(httpd) = serve(options) else { return };
    assert_eq!(eval(&httpd, "round(sys.getswitchinterval(), 6)"), "0.01");
}

#[test]
fn telemetry_goes_to_the_socket_that_is_named() {
    let options = "--telemetry-service unix:${ROOT}/run/telemetry --telemetry-interval 0.5 \
                   --slow-requests 0.2 --telemetry-options CaptureUserAgent";
    let Some(site) = tree(options) else { return };
    let path = site.root().join("run/telemetry");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let httpd = start(site);
    assert_eq!(httpd.get("/").ok(), "site");
    let mut packet = [0; 65536];
    let length = socket.recv(&mut packet).expect("a report arrives");
    assert!(length > 0);
    drop(httpd.read("error.log"));
    fs::remove_file(path).unwrap();
}

#[test]
fn cgi_scripts_run_beside_the_application() {
    let Some(site) = tree("--with-cgi --document-root ${ROOT}/pages") else { return };
    let script = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\ncgi'\n";
    let site = site.file("pages/a.cgi", script);
    let path = site.root().join("pages/a.cgi");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let more = "ScriptSock ${MOD_WSGI_SERVER_ROOT}/run/cgisock\n";
    let httpd = start(site.file("more.conf", more));
    assert_eq!(httpd.get("/a.cgi").ok(), "cgi");
    assert_eq!(httpd.get("/b.cgi").ok(), "site");
}

#[test]
fn a_graceful_restart_serves_on() {
    let Some(httpd) = serve("--processes 2") else { return };
    let before = eval(&httpd, "os.getpid()");
    let load = Load::start(&httpd, 2, "/?os.getpid()");
    load.wait_for_texts(1);
    httpd.graceful();
    wait_until("other processes", || (eval(&httpd, "os.getpid()") != before).then_some(()));
    let answers = load.stop();
    if is_ours() {
        expect_served(&answers, DEADLINE);
    }
}

/// A tree started in the background, which ends with the test.
struct Background(Site);

impl Background {
    /// What a word to the control script said; it must end well.
    #[track_caller]
    fn control(&self, word: &str) -> String {
        let said = self.0.root().join("run/said");
        let file = fs::File::create(&said).unwrap();
        let mut command = self.0.command();
        // httpd keeps what it was started with: a pipe would not end.
        command.arg(word).stdout(file.try_clone().unwrap()).stderr(file);
        let status = command.status().unwrap();
        let said = fs::read_to_string(said).unwrap();
        assert!(status.success(), "{word}: {said}");
        said
    }

    /// httpd's parent process.
    fn parent(&self) -> Option<Process> {
        let text = fs::read_to_string(self.0.root().join("httpd.pid")).ok()?;
        Process::find(text.trim().parse().ok()?)
    }

    /// The value of an expression, if it is answered.
    fn eval(&self, expression: &str) -> Option<String> {
        let stream = TcpStream::connect(("127.0.0.1", self.0.port())).ok()?;
        let answer = Connection::new(stream).exchange(&Request::get(&format!("/?{expression}")));
        answer.ok().map(|answer| answer.ok())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.parent().inspect(|it| it.signal(Signal::SIGTERM));
    }
}

#[test]
fn the_control_script_starts_restarts_and_stops() {
    let Some(site) = tree("--startup-log") else { return };
    site.write_config();
    let tree = Background(site);
    tree.control("configtest");
    let said = fs::read_to_string(tree.0.root().join("startup_log")).unwrap();
    assert!(said.contains("Syntax OK"), "{said}");
    assert!(!said.contains("WSGI9") && !said.contains("WSGIVerboseDebugging"), "{said}");
    tree.control("start");
    let first = wait_until("an answer", || tree.eval("os.getpid()"));
    let first = Process::find(first.parse().unwrap()).expect("it has just answered");
    let parent = tree.parent().expect("httpd has written its number");
    for word in ["graceful", "restart"] {
        let before = wait_until("an answer", || tree.eval("os.getpid()"));
        tree.control(word);
        wait_until("another process", || tree.eval("os.getpid()").filter(|it| *it != before));
    }
    assert!(!first.is_alive());
    assert_eq!(tree.parent(), Some(parent.clone()));
    tree.control("stop");
    wait_for_end(DEADLINE, &[parent]);
}
