//! The Python modules `mod_wsgi` and `apache`, as applications find them.
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Mode, Request, Site, eval, is_ours, mpm, ours_only, wait_until};

/// Answers with the value of the Python expression in the query string.
const APP: &str = r#"
import apache, mod_wsgi, os, sys, threading, time
from urllib.parse import unquote
ROOT = os.path.dirname(__file__)
def within(function):
    found = []
    def run():
        try:
            found.append(function())
        except Exception as error:
            found.append('%s: %s' % (type(error).__name__, error))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]
def wait(name):
    while not os.path.exists(ROOT + '/run/' + name):
        time.sleep(0.01)
def application(environ, start_response):
    names = dict(globals(), environ=environ, start_response=start_response)
    answer = str(eval(unquote(environ['QUERY_STRING']), names))
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [answer.encode()]
"#;

/// A server with [`APP`] in one process, in the main interpreter.
fn site(mode: Mode) -> Site {
    let site = Site::app(mode, APP).config("WSGIApplicationGroup %{GLOBAL}").one_child();
    site.open_run();
    site
}

/// Runs `test` in both modes.
fn in_both_modes(test: impl Fn(&mut Httpd, Mode)) {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        test(&mut site(mode).start(), mode);
    }
}

/// Compares the names of the live module with those of the stub: what is wrong.
const COMPARE: &str = r#"
import ast
def kind(value):
    if isinstance(value, type):
        return 'class'
    return 'function' if callable(value) else type(value).__name__
def declared(node):
    if isinstance(node, ast.ClassDef):
        return node.name, 'class'
    if isinstance(node, ast.FunctionDef):
        return node.name, 'function'
    if isinstance(node, ast.AnnAssign):
        kind = node.annotation.value if isinstance(node.annotation, ast.Subscript) \
            else node.annotation
        return node.target.id, kind.id
    return None, None
def compare():
    tree = ast.parse(open(ROOT + '/mod_wsgi.pyi').read())
    stub = dict(declared(node) for node in tree.body)
    stub = {name: kind for name, kind in stub.items() if name and not name.startswith('_')}
    names = [name for name in dir(mod_wsgi) if not name.startswith('_')]
    live = {name: kind(getattr(mod_wsgi, name)) for name in names}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in live:
            members = [it.name for it in node.body if isinstance(it, ast.FunctionDef)]
            found = vars(getattr(mod_wsgi, node.name))
            public = {name for name in found if not name.startswith('_')}
            stub[node.name] = sorted({name for name in members if not name.startswith('_')})
            live[node.name] = sorted(public)
    return sorted(set(stub.items()) ^ set(live.items())) if all(
        isinstance(it, str) for it in [*stub.values(), *live.values()]) else sorted(
        name for name in {*stub, *live} if stub.get(name) != live.get(name))
"#;

#[test]
fn the_stub_names_what_the_module_has() {
    ours_only!("the stub is ours");
    let stub = include_str!("../../docs/mod_wsgi.pyi");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, &[APP, COMPARE].concat()).file("mod_wsgi.pyi", stub).start();
        assert_eq!(eval(&httpd, "compare()"), "[]", "{mode:?}: docs/mod_wsgi.pyi is not it");
    }
}

#[test]
fn the_module_says_where_the_application_runs() {
    in_both_modes(|httpd, mode| {
        let group = if mode == Mode::Daemon { "app" } else { "" };
        let expression = "mod_wsgi.process_group, mod_wsgi.application_group, mod_wsgi.version";
        assert_eq!(eval(httpd, expression), format!("('{group}', '', (6, 1, 1))"));
    });
    let config = format!("{}WSGIApplicationGroup own", Mode::Daemon.config());
    let site = Site::new(&config).config("WSGIScriptAlias / ${ROOT}/app.wsgi");
    let httpd = site.file("app.wsgi", APP).start();
    assert_eq!(eval(&httpd, "mod_wsgi.application_group"), "own");
}

#[test]
fn numbers_of_processes_are_those_of_the_group_and_of_the_mpm() {
    if mpm() == "prefork" {
        return crate::harness::skip("the numbers are those of an MPM with threads");
    }
    let config = "WSGIDaemonProcess app processes=2 threads=7\n\
                  WSGIScriptAlias /d ${ROOT}/app.wsgi process-group=app application-group=%{GLOBAL}\n\
                  WSGIScriptAlias /e ${ROOT}/app.wsgi application-group=%{GLOBAL}";
    let httpd = Site::new(config).one_child().file("app.wsgi", APP).start();
    let numbers = |target: &str, module: &str| {
        let names = format!("{module}.maximum_processes,{module}.threads_per_process");
        httpd.get(&format!("{target}?{names}")).ok()
    };
    assert_eq!(numbers("/d", "mod_wsgi"), "(2, 7)");
    assert_eq!(numbers("/e", "mod_wsgi"), "(1, 20)");
    for target in ["/d", "/e"] {
        assert_eq!(numbers(target, "apache"), "(1, 20)");
    }
}

#[test]
fn the_module_apache_describes_the_server() {
    in_both_modes(|httpd, _| {
        let description = eval(httpd, "apache.description");
        assert!(description.starts_with("Apache/2.4"), "{description}");
        assert!(description.contains("mod_wsgi/"), "{description}");
        let version = eval(httpd, "'Apache/%d.%d.%d' % apache.version");
        assert!(description.starts_with(&version), "{version} {description}");
        assert_eq!(eval(httpd, "apache.mpm_name"), mpm());
        let date = "len(apache.build_date) == 19 and apache.build_date[10] == 'T'";
        assert_eq!(eval(httpd, date), "True");
    });
}

#[test]
fn an_apache_module_of_your_own_is_used_in_embedded_mode() {
    for (mode, expected) in [(Mode::Embedded, "mine"), (Mode::Daemon, "None")] {
        let path = match mode {
            Mode::Embedded => "WSGIPythonPath ${ROOT}/path\n".to_owned(),
            Mode::Daemon => String::new(),
        };
        let config = mode.config().replace("threads=5", "threads=5 python-path=${ROOT}/path");
        let httpd = Site::new(&(path + &config))
            .config("WSGIScriptAlias / ${ROOT}/app.wsgi")
            .file("path/apache.py", "own = 'mine'\n")
            .file("app.wsgi", APP)
            .start();
        assert_eq!(eval(&httpd, "getattr(apache, 'own', None)"), expected, "{mode:?}");
        assert_eq!(eval(&httpd, "apache.version[:2]"), "(2, 4)");
    }
}

#[test]
fn an_apache_module_that_cannot_be_imported_is_not_used() {
    ours_only!("the code");
    let config = "WSGIPythonPath ${ROOT}/path\nWSGIScriptAlias / ${ROOT}/app.wsgi";
    let site = Site::new(config).file("path/apache.py", "import missing\n");
    let mut httpd = site.file("app.wsgi", APP).start();
    httpd.expect_error("WSGI9421: the module 'apache' is not used: No module named 'missing'");
    assert_eq!(eval(&httpd, "apache.version[:2]"), "(2, 4)");
}

#[test]
fn a_package_of_that_name_stays_importable_beside_the_module() {
    ours_only!("the reference looks for it before python-path is there");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let path = match mode {
            Mode::Embedded => "WSGIPythonPath ${ROOT}/path\n".to_owned(),
            Mode::Daemon => String::new(),
        };
        let config = mode.config().replace("threads=5", "threads=5 python-path=${ROOT}/path");
        let app = format!("import mod_wsgi.express\n{APP}");
        let httpd = Site::new(&(path + &config))
            .config("WSGIScriptAlias / ${ROOT}/app.wsgi")
            .file("path/mod_wsgi/__init__.py", "version = 'of the package'\n")
            .file("path/mod_wsgi/express.py", "name = 'express'\n")
            .file("app.wsgi", app)
            .start();
        let both = "mod_wsgi.express.name, mod_wsgi.version";
        assert_eq!(eval(&httpd, both), "('express', (6, 1, 1))", "{mode:?}");
    }
}

#[test]
fn types_are_called_as_in_the_reference() {
    in_both_modes(|httpd, _| {
        let names = "[repr(it).split(' object')[0] for it in (environ['wsgi.input'], \
                     environ['wsgi.errors'].buffer)]";
        assert_eq!(eval(httpd, names), "['<mod_wsgi.Input', '<mod_wsgi.Log']");
        let classes = "[mod_wsgi.FileWrapper, mod_wsgi.LogHandler, mod_wsgi.RequestTimeout]";
        let expected = "[<class 'mod_wsgi.FileWrapper'>, <class 'mod_wsgi.LogHandler'>, \
                        <class 'mod_wsgi.RequestTimeout'>]";
        assert_eq!(eval(httpd, classes), expected);
        let signal = "repr(__import__('signal').signal).split(' object')[0]";
        assert_eq!(eval(httpd, signal), "<mod_wsgi.SignalIntercept");
        let bases = "mod_wsgi.RequestTimeout.__bases__, mod_wsgi.LogHandler.__bases__";
        let expected = "((<class 'BaseException'>,), (<class 'logging.Handler'>,))";
        assert_eq!(eval(httpd, bases), expected);
    });
}

#[test]
fn a_request_has_a_dict_of_its_own() {
    in_both_modes(|httpd, _| {
        let own = "mod_wsgi.request_data().update(own=1), mod_wsgi.request_data()";
        assert_eq!(eval(httpd, own), "(None, {'own': 1})");
        assert_eq!(eval(httpd, "mod_wsgi.request_data()"), "{}");
        let same = "mod_wsgi.active_requests[environ['mod_wsgi.request_id']] is \
                    mod_wsgi.request_data()";
        assert_eq!(eval(httpd, same), "True");
        let elsewhere = eval(httpd, "within(mod_wsgi.request_data)");
        assert_eq!(elsewhere, "RuntimeError: no active request for thread");
    });
}

#[test]
fn requests_that_run_are_listed_with_their_data() {
    if mpm() == "prefork" {
        return crate::harness::skip("a child runs one request at a time");
    }
    in_both_modes(|httpd, mode| {
        eval(httpd, "0");
        let mut other = httpd.connect();
        let name = format!("{mode:?}");
        let slow = format!("/?mod_wsgi.request_data().update(other=1),wait('{name}')");
        other.write(Request::get(&slow).head()).unwrap();
        let data = "sorted(map(str, mod_wsgi.active_requests.values()))";
        wait_until("both requests", || {
            (eval(httpd, data) == "[\"{'other': 1}\", '{}']").then_some(())
        });
        httpd.write(&format!("run/{name}"), "");
        other.read_response(false).unwrap().ok();
        wait_until("the end of the other", || (eval(httpd, data) == "['{}']").then_some(()));
    });
}

#[test]
fn subscribing_gives_the_callback_back() {
    in_both_modes(|httpd, _| {
        let expression = "[getattr(mod_wsgi, 'subscribe_' + name)(7) for name in \
                          ('events', 'shutdown')], mod_wsgi.event_callbacks, \
                          mod_wsgi.shutdown_callbacks, mod_wsgi.event_callbacks.clear(), \
                          mod_wsgi.shutdown_callbacks.clear()";
        assert_eq!(eval(httpd, expression), "([7, 7], [], [], None, None)");
        let wrong = "within(lambda: mod_wsgi.subscribe_events())";
        assert!(eval(httpd, wrong).starts_with("TypeError: "));
        assert!(eval(httpd, "within(lambda: mod_wsgi.unknown)").starts_with("AttributeError: "));
        if is_ours() {
            let names = "mod_wsgi.implementation, len(mod_wsgi.implementation_version) > 0";
            assert_eq!(eval(httpd, names), "('mod_wsgi_rs', True)");
        }
    });
}
