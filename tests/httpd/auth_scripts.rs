//! `WSGIAuthUserScript` and `WSGIAuthGroupScript`: scripts that know users and groups.
#![forbid(unsafe_code)]

use std::process::Command;

use crate::harness::{
    Httpd, Mode, Request, Response, Site, can_run, expect_refusal, is_ours, mpm, ours_only, skip,
};

/// Knows users by what is to come of them.
const USERS: &str = r#"
def check_password(environ, user, password):
    answers = {'unknown': None, 'right': True, 'wrong': False, 'renamed': 'n\xe4w', 'empty': '',
               'one': 1, 'bytes': b'x'}
    if user in answers:
        return answers[user]
    if user == 'raises':
        raise ValueError('no answer')
    if user == 'exits':
        raise SystemExit(1)
    if user == 'environ':
        print(sorted(environ), file=environ['wsgi.errors'])
        return True
    return password == 'p\xe4ss'

def groups_for_user(environ, user):
    print('asked for the groups')
    if user == 'raises': raise ValueError('no answer')
    if user == 'none': return None
    if user == 'halfway': return (name if name else 1 / 0 for name in ('staff', ''))
    if user == 'broken': return (x for x in ('Staff', 1))
    return [b'other', 'STAFF'] if user == 'member' else ['else', 'where'] if user == 'stranger' else []
"#;

/// Answers with who the user is.
const WHO: &str = "
def application(environ, start_response):
    start_response('200 OK', [])
    who = environ.get('REMOTE_USER'), environ.get('AUTH_TYPE'), environ.get('HTTP_AUTHORIZATION')
    return [ascii(who).encode()]
";

/// Directives that ask `users.py` for passwords.
const BASIC: &str = "AuthType Basic\nAuthName here\nAuthBasicProvider wsgi\n\
                     WSGIAuthUserScript ${ROOT}/users.py";

/// A site with [`WHO`] behind these directives, which stand in a section.
fn site(config: &str) -> Site {
    site_with("", config)
}

/// As [`site`], with other directives before the section.
fn site_with(before: &str, config: &str) -> Site {
    Site::app(Mode::Embedded, WHO)
        .one_child()
        .config(before)
        .config(&format!("<Location />\n{config}\n</Location>"))
        .file("users.py", USERS)
}

/// `bytes` in the coding of Basic authentication (RFC 4648, 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0, |n, at| n << 8 | usize::from(*three.get(at).unwrap_or(&0)));
        for digit in 0..4 {
            let is_filler = digit > three.len();
            let value = number >> (18 - 6 * digit) & 63;
            text.push(if is_filler { '=' } else { char::from(DIGITS[value]) });
        }
    }
    text
}

/// What Basic authentication sends for a user and a password in latin-1.
pub fn credentials(user: &str, password: &str) -> String {
    let text = format!("{user}:{password}");
    let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).expect("latin-1")).collect();
    format!("Basic {}", base64(&bytes))
}

/// The answer to `GET target` as this user.
pub fn ask(httpd: &Httpd, target: &str, user: &str, password: &str) -> Response {
    let credentials = credentials(user, password);
    httpd.send(&Request::get(target).header("Authorization", credentials))
}

#[test]
fn a_script_says_who_a_user_is() {
    let mut httpd = site(&format!("{BASIC}\nRequire valid-user")).start();
    httpd.allow_error("AH01617");
    httpd.allow_error("AH01618");
    assert_eq!(httpd.get("/").status, 401);
    assert_eq!(ask(&httpd, "/", "right", "x").ok(), "('right', 'Basic', None)");
    assert_eq!(ask(&httpd, "/", "renamed", "x").ok(), r"('n\xc3\xa4w', 'Basic', None)");
    // What is sent is latin-1, and reaches the function as it is.
    assert_eq!(ask(&httpd, "/", "j\u{fc}rg", "p\u{e4}ss").ok(), r"('j\xfcrg', 'Basic', None)");
    for (user, password) in [("j\u{fc}rg", "pass"), ("wrong", "x"), ("unknown", "x")] {
        assert_eq!(ask(&httpd, "/", user, password).status, 401, "{user}");
    }
    assert!(httpd.log().contains("AH01618") && httpd.log().contains("AH01617"));
}

#[test]
fn users_a_script_does_not_know_are_those_of_the_next_provider() {
    let config = BASIC.replace("Provider wsgi", "Provider wsgi file")
        + "\nAuthUserFile ${ROOT}/passwords\nRequire valid-user";
    // SHA-1 of "secret".
    let mut httpd =
        site(&config).file("passwords", "unknown:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n").start();
    httpd.allow_error("AH01617");
    assert_eq!(ask(&httpd, "/", "unknown", "secret").ok(), "('unknown', 'Basic', None)");
    assert_eq!(ask(&httpd, "/", "unknown", "other").status, 401);
    assert_eq!(ask(&httpd, "/", "wrong", "secret").status, 401);
}

#[test]
fn a_script_that_gives_no_answer_is_an_error_of_the_server() {
    let mut httpd = site(&format!("{BASIC}\nRequire valid-user")).start();
    for (user, code) in [
        ("empty", "WSGI0176"),
        ("one", "WSGI0177"),
        ("bytes", "WSGI0177"),
        ("raises", "WSGI0174"),
        ("exits", "WSGI0175"),
    ] {
        assert_eq!(ask(&httpd, "/", user, "swordfish").status, 500, "{user}");
        assert!(httpd.log().contains(code), "{user}: {}", httpd.log());
        httpd.expect_error(code);
    }
    httpd.allow_error("ValueError: no answer");
    httpd.allow_error("SystemExit");
    assert!(!httpd.log().contains("swordfish"), "{}", httpd.log());
}

#[test]
fn a_script_without_the_function_and_a_missing_one_are_errors_of_the_server() {
    let section = |path: &str, script: &str| {
        format!(
            "<Location /{path}>\nAuthType Basic\nAuthName here\nAuthBasicProvider wsgi\n{script}\n\
             Require valid-user\n</Location>"
        )
    };
    let mut httpd = Site::app(Mode::Embedded, WHO)
        .config(&section("empty", "WSGIAuthUserScript ${ROOT}/empty.py"))
        .config(&section("broken", "WSGIAuthUserScript ${ROOT}/broken.py"))
        .config(&section("missing", "WSGIAuthUserScript ${ROOT}/missing.py"))
        .config(&section("none", ""))
        .file("empty.py", "x = 1\n")
        .file("broken.py", "1 / 0\n")
        .start();
    for (path, code) in [
        ("empty", "WSGI0043"),
        ("broken", "WSGI0109"),
        ("missing", "WSGI0105"),
        ("none", "WSGI0041"),
    ] {
        assert_eq!(ask(&httpd, &format!("/{path}"), "right", "x").status, 500, "{path}");
        httpd.expect_error(code);
    }
    httpd.allow_error("WSGI0174");
    httpd.allow_error("missing.py");
    httpd.allow_error("ZeroDivisionError");
}

#[test]
fn a_script_learns_less_than_an_application() {
    let mut httpd = site(&format!("{BASIC}\nRequire valid-user\nSetEnv MINE 1")).start();
    httpd.expect_error("SCRIPT_NAME");
    let request =
        Request::get("/a?q=1").header("Authorization", credentials("environ", "swordfish"));
    httpd.send(&request.header("X-Own", "1").header("X_Odd", "1")).ok();
    let log = httpd.log();
    let said = log.lines().find(|line| line.contains("'wsgi.errors'")).expect("a line");
    let keys: Vec<&str> = said.split('\'').skip(1).step_by(2).collect();
    let wanted = [
        "DOCUMENT_ROOT",
        "HTTP_HOST",
        "HTTP_X_OWN",
        "PATH_INFO",
        "QUERY_STRING",
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "REQUEST_METHOD",
        "REQUEST_URI",
        "SCRIPT_NAME",
        "SERVER_ADDR",
        "SERVER_ADMIN",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
        "SERVER_SIGNATURE",
        "SERVER_SOFTWARE",
        "apache.version",
        "mod_ssl.is_https",
        "mod_ssl.var_lookup",
        "mod_wsgi.application_group",
        "mod_wsgi.process_group",
        "mod_wsgi.version",
        "wsgi.errors",
    ];
    let keys: Vec<&str> = keys.into_iter().filter(|key| *key != "HTTP_CONNECTION").collect();
    assert_eq!(keys, wanted);
}

#[test]
fn scripts_are_asked_where_no_application_may_run() {
    let mut httpd = Site::app(Mode::Daemon, WHO)
        .config(&format!("<Location />\n{BASIC} application-group=%{{SERVER}}"))
        .config("Require valid-user\n</Location>")
        .file(
            "users.py",
            USERS.to_owned()
                + "import mod_wsgi, sys\nprint('in [%s] [%s]' % (\
              mod_wsgi.process_group, mod_wsgi.application_group))\n",
        )
        .start();
    httpd.expect_error("in []");
    assert_eq!(ask(&httpd, "/", "right", "x").ok(), "('right', 'Basic', None)");
    assert!(
        httpd.log().contains(&format!("in [] [wsgi.test:{}]", httpd.port())),
        "{}",
        httpd.log()
    );
    // The module is another copy of itself after a restart.
    httpd.graceful();
    assert_eq!(ask(&httpd, "/", "right", "x").ok(), "('right', 'Basic', None)");
    // Children only: what the parent maps, every daemon process and key has beside it.
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", httpd.parent().pid)).unwrap();
    assert!(!is_ours() || !maps.contains("libpython"));
}

#[test]
fn a_script_may_be_named_in_an_htaccess_file() {
    let mut httpd = Site::new("WSGIRestrictEmbedded On")
        .config("<Directory ${ROOT}/htdocs>\nAllowOverride AuthConfig\n</Directory>")
        .file("users.py", USERS)
        .file("htdocs/a.txt", "a file")
        .start();
    let lines = format!("{BASIC}\nRequire valid-user\nWSGIGroupAuthoritative Off\n");
    httpd.write("htdocs/.htaccess", lines.replace("${ROOT}", &httpd.root().display().to_string()));
    assert_eq!(httpd.get("/a.txt").status, 401);
    ours_only!("the reference has no Python where the main configuration names no script");
    assert_eq!(ask(&httpd, "/a.txt", "right", "x").ok(), "a file");
    httpd.write("htdocs/.htaccess", "WSGIDispatchScript /x.py\n");
    httpd.allow_error("WSGIDispatchScript not allowed here");
    assert_eq!(httpd.get("/a.txt").status, 500);
}

#[test]
fn a_script_that_changed_is_asked_anew() {
    let named =
        |name: &str| format!("def check_password(environ, user, password): return '{name}'\n");
    let httpd = site(&format!("{BASIC}\nRequire valid-user\n"))
        .config("<Location /off>\nWSGIScriptReloading Off\n</Location>")
        .file("users.py", named("one"))
        .start();
    assert!(ask(&httpd, "/", "x", "y").ok().starts_with("('one'"));
    httpd.write("users.py", named("two!"));
    assert!(ask(&httpd, "/off", "x", "y").ok().starts_with("('one'"));
    assert!(ask(&httpd, "/", "x", "y").ok().starts_with("('two!'"));
}

/// Groups `staff` and `night shift`, of users that are whoever they say they are.
fn groups(script: &str) -> Site {
    site(&format!(
        "AuthType Basic\nAuthName here\nAuthBasicProvider wsgi\nWSGIAuthUserScript ${{ROOT}}/any.py\n\
         {script}\nRequire wsgi-group \"night shift\" staff"
    ))
    .file("any.py", "def check_password(environ, user, password): return True\n")
    .file("empty.py", "x = 1\n")
    .file("broken.py", "1 / 0\n")
}

#[test]
fn a_script_says_which_groups_a_user_is_in() {
    let mut httpd = groups("WSGIAuthGroupScript ${ROOT}/users.py").start();
    httpd.allow_error("AH01631");
    httpd.allow_error("asked for the groups");
    httpd.allow_error("TypeError: 'NoneType'");
    httpd.allow_error("ValueError: no answer");
    assert_eq!(httpd.get("/").status, 401);
    assert_eq!(ask(&httpd, "/", "member", "x").ok(), "('member', 'Basic', None)");
    for (user, code) in [
        ("stranger", "WSGI0060"),
        ("alone", "WSGI0059"),
        ("none", "WSGI0051"),
        ("raises", "WSGI0174"),
    ] {
        assert_eq!(ask(&httpd, "/", user, "x").status, 401, "{user}");
        assert!(httpd.log().contains(code), "{user}: {}", httpd.log());
        httpd.expect_error(code);
    }
    // Some names are not an answer.
    httpd.expect_error("WSGI0050");
    assert_eq!(ask(&httpd, "/", "broken", "x").status, 401);
}

#[test]
fn groups_that_end_in_an_exception_are_no_answer() {
    ours_only!("row 78: in the reference those named before it count");
    let mut httpd = groups("WSGIAuthGroupScript ${ROOT}/users.py").start();
    httpd.expect_error("WSGI0174");
    httpd.allow_error("ZeroDivisionError");
    httpd.allow_error("AH01631");
    httpd.allow_error("asked for the groups");
    assert_eq!(ask(&httpd, "/", "halfway", "x").status, 401);
}

#[test]
fn without_an_answer_a_user_is_in_no_group() {
    for (script, code) in [
        ("", "WSGI0058"),
        ("WSGIAuthGroupScript ${ROOT}/empty.py", "WSGI0052"),
        ("WSGIAuthGroupScript ${ROOT}/broken.py", "WSGI0109"),
    ] {
        let mut httpd = groups(script).start();
        httpd.allow_error("AH01631");
        httpd.allow_error("WSGI0174");
        httpd.allow_error("ZeroDivisionError");
        httpd.expect_error(code);
        assert_eq!(ask(&httpd, "/", "member", "x").status, 401, "{code}");
    }
}

/// A site that only keeps members of groups out.
fn keeps_out(require: &str) -> Site {
    let alias = "<AuthzProviderAlias wsgi-group banned staff>\n</AuthzProviderAlias>";
    let section = format!(
        "AuthType Basic\nAuthName here\nAuthBasicProvider wsgi\nWSGIAuthUserScript ${{ROOT}}/any.py\n\
         WSGIAuthGroupScript ${{ROOT}}/users.py\n\
         <RequireAll>\nRequire valid-user\n{require}\n</RequireAll>"
    );
    site_with(alias, &section)
        .file("any.py", "def check_password(environ, user, password): return True\n")
}

#[test]
fn without_an_answer_nobody_is_let_past_a_line_that_keeps_members_out() {
    ours_only!("row 79: in the reference who is in no group for want of an answer passes");
    for require in [
        "Require not wsgi-group staff",
        "<RequireNone>\nRequire wsgi-group staff\n</RequireNone>",
        "Require not banned",
    ] {
        let mut httpd = keeps_out(require).start();
        httpd.allow_error("AH01631");
        httpd.allow_error("asked for the groups");
        httpd.allow_error("ValueError: no answer");
        httpd.allow_error("WSGI0060");
        httpd.expect_error("WSGI0174");
        assert_eq!(ask(&httpd, "/", "stranger", "x").status, 200, "{require}");
        assert_eq!(ask(&httpd, "/", "member", "x").status, 401, "{require}");
        assert_eq!(ask(&httpd, "/", "raises", "x").status, 500, "{require}");
    }
}

#[test]
fn what_one_script_says_of_a_user_is_not_taken_for_what_another_says() {
    let lists = |name: &str, script: &str| {
        format!(
            "<AuthzProviderAlias wsgi-group {name} staff>\n\
             WSGIAuthGroupScript ${{ROOT}}/{script}\n</AuthzProviderAlias>"
        )
    };
    let mut httpd = site_with(
        &(lists("here", "here.py") + "\n" + &lists("there", "there.py")),
        "AuthType Basic\nAuthName here\nAuthBasicProvider wsgi\nWSGIAuthUserScript ${ROOT}/any.py\n\
         <RequireAll>\nRequire here\nRequire there\n</RequireAll>",
    )
    .file("any.py", "def check_password(environ, user, password): return True\n")
    .file("here.py", "def groups_for_user(environ, user): return ['staff']\n")
    .file("there.py", "def groups_for_user(environ, user): return ['staff'] * (user == 'both')\n")
    .start();
    httpd.allow_error("AH01631");
    httpd.allow_error("WSGI0059");
    assert_eq!(ask(&httpd, "/", "both", "x").status, 200);
    assert_eq!(ask(&httpd, "/", "one", "x").status, 401);
}

#[test]
fn several_lines_ask_for_the_groups_of_a_user_once() {
    ours_only!("row 74: the reference asks for each line");
    let site =
        groups("WSGIAuthGroupScript ${ROOT}/users.py\nRequire wsgi-group a\nRequire wsgi-group b");
    let mut httpd = site.start();
    httpd.expect_error("asked for the groups");
    httpd.allow_error("WSGI0060");
    httpd.allow_error("AH01631");
    assert_eq!(ask(&httpd, "/", "member", "x").status, 200);
    assert_eq!(ask(&httpd, "/", "stranger", "x").status, 401);
    assert_eq!(httpd.log().matches("asked for the groups").count(), 2, "{}", httpd.log());
}

#[test]
fn digest_authentication_asks_for_a_hash() {
    if !can_run(&["curl", "--version"]) {
        return skip("curl is not installed");
    }
    let script = "
import hashlib
def get_realm_hash(environ, user, realm):
    answers = {'unknown': None, 'empty': '', 'one': 1}
    if user in answers: return answers[user]
    value = hashlib.md5(('%s:%s:secret' % (user, realm)).encode()).hexdigest()
    return value.encode() if user == 'bytes' else value
";
    let config = "AuthType Digest\nAuthName here\nAuthDigestProvider wsgi\n\
                  WSGIAuthUserScript ${ROOT}/users.py\nRequire valid-user";
    let mut httpd = Site::new("LoadModule auth_digest_module ${MODULES}/mod_auth_digest.so")
        .config("WSGIScriptAlias / ${ROOT}/app.wsgi")
        .config(&format!("<Location />\n{config}\n</Location>"))
        .config(&format!(
            "<Location /without>\n{config}\nWSGIAuthUserScript ${{ROOT}}/app.wsgi\n</Location>"
        ))
        .file("app.wsgi", WHO)
        .file("users.py", script)
        .start();
    let url = format!("http://127.0.0.1:{}/", httpd.port());
    let status = |path: &str, user: &str| {
        let url = format!("{url}{path}");
        let arguments =
            ["-s", "-m20", "--digest", "-o", "/dev/null", "-w", "%{http_code}", "-u", user];
        let output = Command::new("curl").args(arguments).arg(url).output().expect("curl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(status("", "right:secret"), "200");
    assert_eq!(status("", "bytes:secret"), "200");
    assert_eq!(status("", "right:other"), "401");
    assert_eq!(status("", "unknown:secret"), "401");
    assert_eq!(status("", "empty:secret"), "500");
    assert_eq!(status("", "one:secret"), "500");
    assert_eq!(status("without", "right:secret"), "500");
    for code in ["WSGI0178", "WSGI0179", "WSGI0046"] {
        httpd.expect_error(code);
    }
    httpd.allow_error("AH01788");
    httpd.allow_error("AH01790");
    httpd.allow_error("AH01792");
    httpd.allow_error("AH01794");
}

#[test]
fn a_script_may_ask_mod_ssl() {
    let script = "
def check_password(environ, user, password):
    look_up = environ['mod_ssl.var_lookup']
    if 'plain' in environ['QUERY_STRING']:
        return '%s %s' % (environ['mod_ssl.is_https'](), look_up(b'SSL_PROTOCOL') or 'nothing')
    values = [look_up('SSL_SERVER_S_DN_CN'), look_up(b'NONE_SUCH'), environ['mod_ssl.is_https']()]
    try:
        look_up(1)
    except TypeError:
        values.append('refused')
    global kept
    kept = look_up
    return repr(values)
";
    let httpd = site(&format!("{BASIC}\nRequire valid-user")).file("users.py", script).start();
    assert_eq!(ask(&httpd, "/?plain", "x", "y").ok(), "('0 nothing', 'Basic', None)");
    drop(httpd);
    let site = site(&format!("{BASIC}\nRequire valid-user")).file("users.py", script);
    let Some(site) = site.with_tls() else { return };
    let httpd = site.start();
    let url = format!("https://127.0.0.1:{}/", httpd.port());
    let output = Command::new("curl").args(["-sSk", "-m20", "-u", "x:y", &url]).output();
    let said = String::from_utf8(output.expect("curl runs").stdout).unwrap();
    assert!(said.starts_with(r#"("['wsgi.test', '', 1, 'refused']", 'Basic', None)"#), "{said}");
}

#[test]
fn requests_over_http_2_are_authenticated() {
    if mpm() == "prefork" || !can_run(&["curl", "--http2", "--version"]) {
        return skip("no HTTP/2 here");
    }
    let mut httpd = site(&format!("{BASIC}\nRequire valid-user"))
        .config("LoadModule http2_module ${MODULES}/mod_http2.so\nProtocols h2c http/1.1")
        .start();
    httpd.allow_error("AH01617");
    let url = format!("http://127.0.0.1:{}/", httpd.port());
    let get = |user: &str| {
        let arguments = [
            "-sS",
            "-m20",
            "--http2-prior-knowledge",
            "-w",
            " %{http_version} %{http_code}",
            "-u",
            user,
        ];
        let output = Command::new("curl").args(arguments).arg(&url).output();
        String::from_utf8(output.expect("curl runs").stdout).unwrap()
    };
    assert_eq!(get("right:x"), "('right', 'Basic', None) 2 200");
    assert!(get("wrong:x").ends_with("401"));
}

#[test]
fn scripts_in_the_wrong_place_or_form_are_refused() {
    for name in ["WSGIAuthUserScript", "WSGIAuthGroupScript", "WSGIAccessScript"] {
        expect_refusal(&format!("{name} /s.py"));
        for arguments in ["", "/s.py process-group=x", "/s.py application-group=", "/s.py lonely"] {
            expect_refusal(&format!("<Location />\n{name} {arguments}\n</Location>"));
        }
    }
    expect_refusal("<Location />\nWSGIGroupAuthoritative maybe\n</Location>");
    expect_refusal("WSGIGroupAuthoritative On");
}

#[test]
fn a_script_that_is_not_there_is_named_with_its_line() {
    ours_only!("row 14");
    let (good, said) =
        Site::new("<Location />\nWSGIAuthUserScript /nowhere/users.py\n</Location>").configtest();
    assert!(good, "{said}");
    assert!(said.contains("WSGI9203") && said.contains("'/nowhere/users.py' does not"), "{said}");
}
