//! `WSGIAccessScript`: a script that says who may see a resource.
#![forbid(unsafe_code)]

use crate::auth_scripts::ask;
use crate::harness::{Httpd, Request, Site, is_ours};

/// Answers as the query says.
const SCRIPT: &str = r#"
def allow_access(environ, host):
    print('asked for %s by %s' % (environ['SCRIPT_NAME'], host))
    answers = {'yes': True, 'no': False, 'others': None, 'one': 1}
    if environ['QUERY_STRING'] == 'raise':
        raise ValueError('no answer')
    if environ['SCRIPT_NAME'].endswith('/secret.html'):
        return False
    return answers.get(environ['QUERY_STRING'], True)

def check_password(environ, user, password):
    return password == 'right'
"#;

/// A site whose files are behind [`SCRIPT`] and these directives.
fn site(config: &str) -> Httpd {
    let mut httpd = Site::new("LoadModule access_compat_module ${MODULES}/mod_access_compat.so")
        .one_child()
        .config("LoadModule include_module ${MODULES}/mod_include.so\nDirectoryIndex index.html")
        .config("<Location />\nWSGIAccessScript ${ROOT}/access.py")
        .config(&format!("{config}\n</Location>"))
        .file("access.py", SCRIPT)
        .file("htdocs/a.txt", "a file")
        .file("htdocs/index.html", "an index")
        .file("htdocs/secret.html", "a secret")
        .file("htdocs/includes.shtml", "[<!--#include virtual=\"secret.html\" -->]")
        .start();
    httpd.allow_error("asked for");
    httpd.allow_error("ValueError: no answer");
    httpd
}

/// How often the script was asked.
fn asked(httpd: &Httpd) -> usize {
    httpd.log().matches("asked for").count()
}

#[test]
fn a_script_lets_clients_in_or_keeps_them_out() {
    let mut httpd = site("");
    assert_eq!(httpd.get("/a.txt?yes").ok(), "a file");
    assert_eq!(httpd.get("/a.txt?others").ok(), "a file");
    assert!(httpd.log().contains("asked for /a.txt by 127.0.0.1"), "{}", httpd.log());
    assert!(!httpd.log().contains("WSGI0057"));
    for (query, code) in [("no", "WSGI0057"), ("one", "WSGI0055"), ("raise", "WSGI0174")] {
        assert_eq!(httpd.get(&format!("/a.txt?{query}")).status, 403, "{query}");
        httpd.expect_error(code);
    }
    assert_eq!(httpd.log().matches("WSGI0057").count(), 3, "{}", httpd.log());
}

#[test]
fn what_a_script_leaves_to_others_is_theirs() {
    let mut httpd = site("Require all denied");
    httpd.allow_error("AH01630");
    assert_eq!(httpd.get("/a.txt?others").status, 403);
    assert!(!httpd.log().contains("WSGI0057"));
    // It lets nobody in alone.
    assert_eq!(httpd.get("/a.txt?yes").status, 403);
}

#[test]
fn whoever_shows_who_he_is_may_do_without_the_script_where_either_is_enough() {
    let mut httpd = site(
        "AuthType Basic\nAuthName here\nAuthBasicProvider wsgi\n\
         WSGIAuthUserScript ${ROOT}/access.py\nRequire valid-user\nSatisfy Any",
    );
    httpd.allow_error("AH01617");
    assert_eq!(httpd.get("/a.txt?no").status, 401);
    assert_eq!(httpd.get("/a.txt?yes").status, 200);
    assert_eq!(ask(&httpd, "/a.txt?no", "x", "right").status, 200);
    assert_eq!(ask(&httpd, "/a.txt?no", "x", "wrong").status, 401);
    // He may still come in: nobody is denied yet.
    assert!(!httpd.log().contains("WSGI0057"), "{}", httpd.log());
}

#[test]
fn the_name_of_a_client_is_told_where_httpd_looks_it_up() {
    let httpd = site("HostnameLookups On");
    assert_eq!(httpd.get("/a.txt?yes").status, 200);
    let named = std::fs::read_to_string("/etc/hosts").is_ok_and(|hosts| {
        hosts.lines().any(|line| line.split_whitespace().take(2).eq(["127.0.0.1", "localhost"]))
    });
    if named {
        assert!(httpd.log().contains("asked for /a.txt by localhost"), "{}", httpd.log());
    }
}

#[test]
fn a_request_within_another_is_asked_about_as_well() {
    let mut httpd = site("Options +Includes\nAddOutputFilter INCLUDES .shtml");
    assert_eq!(httpd.get("/").ok(), "an index");
    assert!(httpd.log().contains("asked for /index.html"), "{}", httpd.log());
    assert_eq!(asked(&httpd), 2);
    httpd.expect_error("WSGI0057");
    httpd.allow_error("unable to include");
    let answer = httpd.get("/includes.shtml").ok();
    assert!(answer.starts_with('[') && !answer.contains("a secret"), "{answer}");
}

#[test]
fn a_script_is_asked_while_an_application_sends_its_answer() {
    let application = "
import sys
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/html')])
    if environ['PATH_INFO'] == '/inner':
        print('inner line')
        return [b'inner']
    print('first line')
    def pieces():
        yield b'[<!--#include virtual=\"/files/a.txt\" -->]'
        print('second line')
        yield b' ' * 70000
        yield b'[<!--#include virtual=\"/app/inner\" -->]'
        print('third line', file=sys.stderr)
    return pieces()
";
    for group in ["", "application-group=other"] {
        let mut httpd = Site::new("LoadModule include_module ${MODULES}/mod_include.so")
            .one_child()
            .config("WSGIScriptAlias /app ${ROOT}/app.wsgi\nAlias /files ${ROOT}/htdocs")
            .config("WSGIApplicationGroup %{GLOBAL}\n<Location /app>\nOptions +Includes")
            .config("SetOutputFilter INCLUDES\n</Location>\n<Location /files>")
            .config(&format!("WSGIAccessScript ${{ROOT}}/access.py {group}\n</Location>"))
            .file("app.wsgi", application)
            .file("access.py", SCRIPT)
            .file("htdocs/a.txt", "a file")
            .start();
        let answer = httpd.get("/app").ok();
        assert_eq!(answer.replace(' ', ""), "[afile][inner]");
        // Each line goes to the log of the request that was under way.
        for (line, file) in [
            ("first line", "app.wsgi"),
            ("asked for /files/a.txt", "a.txt"),
            ("second line", "app.wsgi"),
            ("inner line", "app.wsgi"),
            ("third line", "app.wsgi"),
        ] {
            let log = httpd.log();
            let found =
                log.lines().find(|it| it.ends_with(line) || it.contains(&format!("{line} by")));
            let found = found.unwrap_or_else(|| panic!("no {line}: {log}")).to_owned();
            assert!(!is_ours() || found.contains(&format!("/{file}] ")), "{found}");
            httpd.expect_error(line);
        }
    }
}

#[test]
fn a_script_without_its_function_keeps_everybody_out() {
    let section = |path: &str| {
        format!("<Location /{path}>\nWSGIAccessScript ${{ROOT}}/{path}.py\n</Location>")
    };
    let mut httpd = Site::new(&section("empty"))
        .config(&section("broken"))
        .config(&section("missing"))
        .file("empty.py", "x = 1\n")
        .file("broken.py", "1 / 0\n")
        .start();
    for (path, code) in [("empty", "WSGI0056"), ("broken", "WSGI0109"), ("missing", "WSGI0105")] {
        assert_eq!(httpd.get(&format!("/{path}")).status, 403, "{path}");
        httpd.expect_error(code);
    }
    httpd.expect_error("WSGI0057");
    httpd.allow_error("WSGI0174");
    httpd.allow_error("missing.py");
    httpd.allow_error("ZeroDivisionError");
}

#[test]
fn a_section_has_a_script_of_its_own_or_that_of_what_is_around_it() {
    let named = |name: &str| format!("def allow_access(environ, host): print('this is {name}')\n");
    let mut httpd =
        Site::new("<Directory ${ROOT}/htdocs>\nWSGIAccessScript ${ROOT}/outer.py\n</Directory>")
            .config(
                "<Directory ${ROOT}/htdocs/in>\nWSGIAccessScript ${ROOT}/inner.py\n</Directory>",
            )
            .file("outer.py", named("outer"))
            .file("inner.py", named("inner"))
            .file("htdocs/a/b.txt", "b")
            .file("htdocs/in/b.txt", "b")
            .start();
    httpd.allow_error("this is");
    httpd.get("/a/b.txt").ok();
    assert!(httpd.log().contains("this is outer") && !httpd.log().contains("this is inner"));
    httpd.send(&Request::get("/in/b.txt")).ok();
    assert!(httpd.log().contains("this is inner"));
    assert_eq!(httpd.log().matches("this is outer").count(), 1);
}
