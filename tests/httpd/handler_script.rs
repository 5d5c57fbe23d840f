//! `WSGIHandlerScript`: scripts that answer what httpd gives to a handler, and
//! `reload_required`, by which a script asks to be loaded again.
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Mode, Request, Site, expect_refusal, ours_only};

/// Answers with where it is and what it was asked for, each in brackets.
const SCRIPT: &str = r#"
import os
def handle_request(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    keys = ['SCRIPT_NAME', 'PATH_INFO', 'mod_wsgi.process_group', 'mod_wsgi.application_group',
            'mod_wsgi.callable_object', 'mod_wsgi.request_handler']
    names = [os.path.basename(environ[key]) for key in ('SCRIPT_FILENAME', 'mod_wsgi.handler_script')]
    return [' '.join('[%s]' % value for value in [environ.get(key) for key in keys] + names).encode()]
def application(environ, start_response):
    start_response('200 OK', [])
    return [environ.get('HTTP_AUTHORIZATION', 'withheld').encode()]
"#;

/// A handler script that serves its own name, process and number of loads, and asks to be
/// loaded again as `asked` says.
fn reloading(asked: &str) -> String {
    format!(
        "import os\nHERE = os.path.dirname(__file__)\nSTARTED = os.stat(HERE + '/count').st_size\n\
         with open(HERE + '/count', 'a') as f: f.write('x')\n\
         def handle_request(environ, start_response):\n    \
             start_response('200 OK', [])\n    \
             return [b'%d' % STARTED]\n\
         def reload_required(path):\n    {asked}\n"
    )
}

/// A site whose files `.x` are answered by [`SCRIPT`].
fn site(config: &str) -> Site {
    Site::new("AddHandler x .x\nWSGIApplicationGroup %{GLOBAL}")
        .config(config)
        .file("h.py", SCRIPT)
        .file("htdocs/a.x", "a")
}

/// What [`SCRIPT`] answers to `GET target`.
#[track_caller]
fn answer(httpd: &Httpd, target: &str) -> String {
    httpd.get(target).ok()
}

#[test]
fn a_handler_script_answers_what_its_handler_is_given() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = site(mode.config()).config("WSGIHandlerScript x ${ROOT}/h.py").start();
        let group = if mode == Mode::Daemon { "app" } else { "" };
        let rest = format!("[{group}] [] [handle_request] [x] [a.x] [h.py]");
        assert_eq!(answer(&httpd, "/a.x"), format!("[/a.x] [] {rest}"));
        assert_eq!(answer(&httpd, "/a.x/b/c"), format!("[/a.x] [/b/c] {rest}"));
    }
}

#[test]
fn a_handler_script_serves_what_is_not_there_and_directories_too() {
    let httpd = site("WSGIHandlerScript x ${ROOT}/h.py")
        .config("<Location /d/>\nSetHandler x\n</Location>")
        .config("RewriteEngine On\nRewriteRule ^/rewritten - [H=x]")
        .file("htdocs/d/file", "")
        .start();
    let rest = "[] [] [handle_request] [x]";
    assert_eq!(answer(&httpd, "/gone.x"), format!("[/gone.x] [] {rest} [gone.x] [h.py]"));
    assert_eq!(answer(&httpd, "/d/"), format!("[/d/] [] {rest} [] [h.py]"));
    let rewritten = answer(&httpd, "/rewritten/b");
    assert_eq!(rewritten, format!("[/rewritten] [/b] {rest} [rewritten] [h.py]"));
}

#[test]
fn options_of_a_handler_script_override_the_directives() {
    let httpd = site("WSGIDaemonProcess d\nWSGICallableObject application\nSetEnv GROUP d")
        .config("WSGIHandlerScript x ${ROOT}/h.py process-group=%{ENV:GROUP} application-group=%{SERVER}")
        .config("WSGIHandlerScript secret ${ROOT}/secret.py pass-authorization=On")
        .config("WSGIHandlerScript withheld ${ROOT}/secret.py")
        .config("<Location /secret>\nSetHandler secret\n</Location>")
        .config("<Location /withheld>\nSetHandler withheld\n</Location>")
        .file("secret.py", SCRIPT.replace("handle_request", "unused") + "handle_request = application\n")
        .start();
    let group = format!("[d] [wsgi.test:{}] [handle_request] [x]", httpd.port());
    assert!(answer(&httpd, "/a.x").contains(&group), "{}", answer(&httpd, "/a.x"));
    let ask = |target| httpd.send(&Request::get(target).header("Authorization", "Basic eDp5")).ok();
    assert_eq!(ask("/secret"), "Basic eDp5");
    assert_eq!(ask("/withheld"), "withheld");
}

#[test]
fn a_section_overrides_single_handlers_of_what_is_around_it() {
    let named = |name: &str| {
        format!(
            "def handle_request(environ, start_response):\n    \
             start_response('200 OK', [])\n    return [b'{name}']\n"
        )
    };
    let httpd = Site::new("WSGIHandlerScript x ${ROOT}/1.py\nWSGIHandlerScript y ${ROOT}/2.py")
        .config("AddHandler x .x\nAddHandler y .y\nWSGIApplicationGroup %{GLOBAL}")
        .config("<Location /in>\nWSGIHandlerScript x ${ROOT}/3.py\n</Location>")
        .config("<VirtualHost *:${PORT}>\nServerName other.test\nWSGIHandlerScript y ${ROOT}/3.py")
        .config("WSGIHandlerScript y ${ROOT}/4.py\n</VirtualHost>")
        .config("<VirtualHost *:${PORT}>\nServerName wsgi.test\n</VirtualHost>")
        .file("1.py", named("1"))
        .file("2.py", named("2"))
        .file("3.py", named("3"))
        .file("4.py", named("4"))
        .file("htdocs/in/a.x", "")
        .file("htdocs/in/a.y", "")
        .start();
    let ask = |host: &str, target| httpd.send(&Request::get(target).header("Host", host)).ok();
    assert_eq!(ask("wsgi.test", "/a.x"), "1");
    assert_eq!(ask("wsgi.test", "/a.y"), "2");
    assert_eq!(ask("wsgi.test", "/in/a.x"), "3");
    assert_eq!(ask("wsgi.test", "/in/a.y"), "2");
    assert_eq!(ask("other.test", "/a.x"), "1");
    assert_eq!(ask("other.test", "/a.y"), "4");
}

#[test]
fn the_modules_own_handler_is_not_taken_over() {
    let mut httpd = site("WSGIHandlerScript wsgi-script ${ROOT}/h.py")
        .config("<Location />\nSetHandler wsgi-script\n</Location>")
        .start();
    httpd.expect_error("WSGI0134");
    assert_eq!(httpd.get("/a.x").status, 403);
}

#[test]
fn path_info_is_refused_by_a_handler_script_where_it_is_switched_off() {
    let mut httpd = site("WSGIHandlerScript x ${ROOT}/h.py\nAcceptPathInfo Off").start();
    httpd.expect_error("WSGI0137");
    assert_eq!(httpd.get("/a.x").status, 200);
    assert_eq!(httpd.get("/a.x/b").status, 404);
}

#[test]
fn a_script_that_was_imported_is_not_loaded_again_for_its_handler() {
    for (mode, group) in [(Mode::Embedded, "%{GLOBAL}"), (Mode::Daemon, "app")] {
        let httpd = site(mode.config())
            .one_child()
            .config("WSGIHandlerScript x ${ROOT}/h.py")
            .config(&format!(
                "WSGIImportScript ${{ROOT}}/h.py process-group={group} application-group=%{{GLOBAL}}"
            ))
            .start();
        answer(&httpd, "/a.x");
        answer(&httpd, "/a.x");
        assert_eq!(httpd.log().matches("Loading WSGI script").count(), 1, "{}", httpd.log());
    }
}

#[test]
fn a_handler_script_that_changed_is_loaded_again() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd =
            site(mode.config()).one_child().config("WSGIHandlerScript x ${ROOT}/h.py").start();
        assert!(answer(&httpd, "/a.x").starts_with("[/a.x]"));
        // What it serves is not what is loaded.
        httpd.write("htdocs/a.x", "b");
        answer(&httpd, "/a.x");
        assert_eq!(httpd.log().matches("oading WSGI script").count(), 1, "{}", httpd.log());
        httpd.write("h.py", SCRIPT.replace("'[%s]'", "'<%s>'"));
        assert!(answer(&httpd, "/a.x").starts_with("</a.x>"), "{mode:?}");
    }
}

#[test]
fn a_script_says_itself_when_it_wants_to_be_loaded_again() {
    let asked = "if not os.path.exists(HERE + '/reload'): return False\n    \
                 os.remove(HERE + '/reload')\n    return path.endswith('/htdocs/a.x')";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let site = site(mode.config())
            .one_child()
            .config("SetEnv SCRIPT_FILENAME /forged")
            .config("WSGIHandlerScript x ${ROOT}/app/h.py")
            .file("app/h.py", reloading(asked))
            .file("app/count", "");
        open_to_all(&site, "app");
        let httpd = site.start();
        assert_eq!(answer(&httpd, "/a.x"), "0", "{mode:?}");
        assert_eq!(answer(&httpd, "/a.x"), "0", "{mode:?}");
        httpd.write("app/reload", "");
        assert_eq!(answer(&httpd, "/a.x"), "1", "{mode:?}");
        assert_eq!(answer(&httpd, "/a.x"), "1", "{mode:?}");
        // The path is that of what is asked for.
        httpd.write("app/reload", "");
        assert_eq!(answer(&httpd, "/other.x"), "1", "{mode:?}");
    }
}

#[test]
fn a_script_that_always_wants_to_be_loaded_again_still_serves() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let site = site(mode.config())
            .one_child()
            .config("WSGIHandlerScript x ${ROOT}/app/h.py")
            .file("app/h.py", reloading("return True"))
            .file("app/count", "");
        open_to_all(&site, "app");
        let httpd = site.start();
        let mut last = -1;
        for _ in 0..4 {
            let number: i64 = answer(&httpd, "/a.x").parse().unwrap();
            assert!(number > last, "{mode:?}: {number} after {last}");
            last = number;
        }
    }
}

#[test]
fn a_script_that_cannot_say_whether_it_wants_to_be_loaded_again_is_not() {
    let asked = "raise {'/a.x': ValueError, '/b.x': SystemExit}[path[-4:]]('who knows')";
    let site = site("WSGIHandlerScript x ${ROOT}/app/h.py")
        .one_child()
        .config("<Location /off.x>\nWSGIScriptReloading Off\n</Location>")
        .file("app/h.py", reloading(asked))
        .file("app/count", "");
    open_to_all(&site, "app");
    let mut httpd = site.start();
    assert_eq!(answer(&httpd, "/a.x"), "0");
    assert_eq!(answer(&httpd, "/off.x"), "0");
    assert!(!httpd.log().contains("WSGI017"), "{}", httpd.log());
    httpd.expect_error("WSGI0174");
    httpd.expect_error("WSGI0175");
    httpd.allow_error("who knows");
    assert_eq!(answer(&httpd, "/a.x"), "0");
    assert_eq!(answer(&httpd, "/b.x"), "0");
}

#[test]
fn an_application_may_ask_to_be_loaded_again_as_well() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let source = "import os\nHERE = os.path.dirname(__file__)\nasked = []\n\
             def application(environ, start_response):\n    \
                 start_response('200 OK', [])\n    return [repr(asked).encode()]\n\
             def reload_required(path):\n    \
                 asked.append(os.path.basename(path))\n    return len(asked) == 3\n";
        let httpd = Site::app(mode, source).one_child().start();
        let answers: Vec<String> = (0..4).map(|_| httpd.get("/").ok()).collect();
        let wanted = ["[]", "['app.wsgi']", "['app.wsgi', 'app.wsgi']", "[]"];
        assert_eq!(answers, wanted, "{mode:?}");
    }
}

#[test]
fn a_handler_script_without_its_function_is_an_error_of_the_server() {
    ours_only!("row 10: the reference answers 404 in embedded mode");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = site(mode.config())
            .config("WSGIHandlerScript x ${ROOT}/empty.py")
            .file("empty.py", "x = 1\n")
            .start();
        httpd.expect_error("WSGI0089");
        assert_eq!(httpd.get("/a.x").status, 500);
    }
}

#[test]
fn a_handler_script_in_the_wrong_place_or_form_is_refused() {
    for line in [
        "WSGIHandlerScript",
        "WSGIHandlerScript x",
        "WSGIHandlerScript x /h.py process-group=",
        "WSGIHandlerScript x /h.py callable-object=a",
        "WSGIHandlerScript x /h.py colour=red",
        "WSGIHandlerScript x /h.py lonely",
        "WSGIHandlerScript x /h.py pass-authorization=Maybe",
    ] {
        expect_refusal(line);
    }
    let mut httpd = Site::new("<Directory ${ROOT}/htdocs>\nAllowOverride All\n</Directory>")
        .file("htdocs/.htaccess", "WSGIHandlerScript x /h.py\n")
        .file("htdocs/a.txt", "a")
        .start();
    httpd.allow_error("WSGIHandlerScript not allowed here");
    assert_eq!(httpd.get("/a.txt").status, 500);
}

#[test]
fn a_handler_script_that_is_not_there_or_never_asked_is_named_with_its_line() {
    ours_only!("row 14");
    let (good, said) = Site::new("").config("WSGIHandlerScript x ${ROOT}/nowhere.py").configtest();
    assert!(good, "{said}");
    assert!(said.contains("WSGI9203") && said.contains("nowhere.py' does not exist"), "{said}");
    let (good, said) = site("WSGIHandlerScript wsgi-script ${ROOT}/h.py").configtest();
    assert!(good, "{said}");
    assert!(said.contains("WSGI9230"), "{said}");
    let (_, said) = site("WSGIHandlerScript x ${ROOT}/h.py process-group=nobody").configtest();
    assert!(said.contains("WSGI9204"), "{said}");
}

/// Lets the application write into a directory, whoever it runs as.
fn open_to_all(site: &Site, directory: &str) {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;
    let path = site.root().join(directory);
    set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
    set_permissions(path.join("count"), Permissions::from_mode(0o666)).unwrap();
}
