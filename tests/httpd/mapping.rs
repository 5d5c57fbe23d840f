//! `SCRIPT_NAME`, `PATH_INFO` and what belongs to them, for every way from a URL to a script.
#![forbid(unsafe_code)]

use crate::environ::{KEYS, expect};
use crate::harness::{Httpd, Mode, Request, Site, is_ours, skip};
use std::os::unix::ffi::OsStrExt;

/// Runs `test` in both modes, with [`KEYS`] at these places below the ServerRoot.
fn with(files: &[&str], config: &str, test: impl Fn(&Httpd)) {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        let site = Site::new(mode.config()).config(config);
        test(&files.iter().fold(site, |site, file| site.file(file, KEYS)).start());
    }
}

/// A request for `target` leads to these two, and to the original URI.
#[track_caller]
fn expect_paths(httpd: &Httpd, target: &str, script_name: &str, path_info: &str) {
    let quoted = |text: &str| format!("'{text}'");
    let (script_name, path_info) = (quoted(script_name), quoted(path_info));
    expect(
        httpd,
        Request::get(target),
        &[
            ("SCRIPT_NAME", &script_name),
            ("PATH_INFO", &path_info),
            ("mod_wsgi.script_name", &script_name),
            ("mod_wsgi.path_info", &path_info),
            ("REQUEST_URI", &quoted(target)),
        ],
    );
}

/// The absolute path of a file below the ServerRoot, as Python writes it.
fn file(httpd: &Httpd, name: &str) -> String {
    format!("'{}'", httpd.path(name).display())
}

/// Lets CGI run and `.htaccess` say what files may, in `htdocs`.
const OPEN: &str = "<Directory ${ROOT}/htdocs>\nOptions ExecCGI FollowSymLinks Includes
    AllowOverride FileInfo\n</Directory>";

#[test]
fn an_alias() {
    with(&["app.wsgi"], "WSGIScriptAlias /app ${ROOT}/app.wsgi", |httpd| {
        expect_paths(httpd, "/app", "/app", "");
        expect_paths(httpd, "/app/", "/app", "/");
        expect_paths(httpd, "/app/a/b?c=d/e", "/app", "/a/b");
        expect(
            httpd,
            Request::get("/app/x"),
            &[
                ("SCRIPT_FILENAME", &file(httpd, "app.wsgi")),
                ("CONTEXT_PREFIX", "''"),
                ("CONTEXT_DOCUMENT_ROOT", &file(httpd, "htdocs")),
                ("REDIRECT_URL", "None"),
                ("mod_wsgi.request_handler", "'wsgi-script'"),
            ],
        );
    });
}

#[test]
fn an_alias_at_the_root() {
    with(&["app.wsgi"], "WSGIScriptAlias / ${ROOT}/app.wsgi", |httpd| {
        expect_paths(httpd, "/", "", "/");
        expect_paths(httpd, "/a/b/", "", "/a/b/");
    });
}

#[test]
fn an_alias_for_a_directory_of_scripts() {
    with(&["scripts/a.wsgi", "scripts/b/c"], "WSGIScriptAlias /run ${ROOT}/scripts", |httpd| {
        expect_paths(httpd, "/run/a.wsgi", "/run/a.wsgi", "");
        expect_paths(httpd, "/run/a.wsgi/x", "/run/a.wsgi", "/x");
        expect_paths(httpd, "/run/b/c/x/y", "/run/b/c", "/x/y");
    });
}

#[test]
fn a_regular_alias() {
    let config = "WSGIScriptAliasMatch ^/sites/([a-z]+) ${ROOT}/scripts/$1.wsgi";
    with(&["scripts/one.wsgi"], config, |httpd| {
        expect_paths(httpd, "/sites/one", "/sites/one", "");
        expect_paths(httpd, "/sites/one/x/y", "/sites/one", "/x/y");
        let script = file(httpd, "scripts/one.wsgi");
        expect(httpd, Request::get("/sites/one"), &[("SCRIPT_FILENAME", &script)]);
    });
}

#[test]
fn a_handler_by_name_of_file() {
    let config = format!("{OPEN}\nAddHandler wsgi-script .wsgi");
    with(&["htdocs/a.wsgi", "htdocs/sub/b.wsgi"], &config, |httpd| {
        expect_paths(httpd, "/a.wsgi", "/a.wsgi", "");
        expect_paths(httpd, "/sub/b.wsgi/x", "/sub/b.wsgi", "/x");
    });
}

#[test]
fn a_handler_for_a_section() {
    let config = format!(
        "{OPEN}\nAlias /other ${{ROOT}}/scripts
        <Directory ${{ROOT}}/scripts>\nOptions ExecCGI\nSetHandler wsgi-script\n</Directory>"
    );
    with(&["scripts/run.py"], &config, |httpd| {
        expect_paths(httpd, "/other/run.py/x", "/other/run.py", "/x");
        let scripts = file(httpd, "scripts");
        let pairs = [("CONTEXT_PREFIX", "'/other'"), ("CONTEXT_DOCUMENT_ROOT", &*scripts)];
        expect(httpd, Request::get("/other/run.py/x"), &pairs);
    });
}

#[test]
fn an_action() {
    let config = format!(
        "{OPEN}\nLoadModule actions_module ${{MODULES}}/mod_actions.so
        Action page /run.wsgi\nAddHandler page .page\nAddHandler wsgi-script .wsgi"
    );
    with(&["htdocs/run.wsgi", "htdocs/docs/x.page"], &config, |httpd| {
        expect_paths(httpd, "/docs/x.page?q=1", "/run.wsgi", "/docs/x.page");
        expect(
            httpd,
            Request::get("/docs/x.page?q=1"),
            &[
                ("QUERY_STRING", "'q=1'"),
                ("REDIRECT_URL", "'/docs/x.page'"),
                ("REDIRECT_QUERY_STRING", "'q=1'"),
                ("REDIRECT_STATUS", "'200'"),
                ("REDIRECT_HANDLER", "'page'"),
            ],
        );
    });
}

#[test]
fn a_rewrite_rule_with_a_handler() {
    let config =
        "RewriteEngine On\nRewriteRule ^/app(/.*)?$ ${ROOT}/scripts/app.wsgi$1 [H=wsgi-script]
        <Directory ${ROOT}/scripts>\nOptions ExecCGI\n</Directory>";
    with(&["scripts/app.wsgi"], config, |httpd| {
        expect_paths(httpd, "/app", "/app", "");
        expect_paths(httpd, "/app/x/y?z", "/app", "/x/y");
        expect(httpd, Request::get("/app"), &[("REDIRECT_URL", "None")]);
    });
}

#[test]
fn a_rewrite_rule_in_htaccess() {
    let config = format!("{OPEN}\nAddHandler wsgi-script .wsgi");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::new(mode.config())
            .config(&config)
            .file("htdocs/app.wsgi", KEYS)
            .file(
                "htdocs/.htaccess",
                "RewriteEngine On\nRewriteBase /\nRewriteCond %{REQUEST_FILENAME} !-f
                RewriteRule ^(.*)$ /app.wsgi/$1 [QSA,L,E=MARK:set]",
            )
            .start();
        expect_paths(&httpd, "/x/y?q", "/app.wsgi", "/x/y");
        let pairs =
            [("REDIRECT_URL", "'/x/y'"), ("QUERY_STRING", "'q'"), ("REDIRECT_MARK", "'set'")];
        expect(&httpd, Request::get("/x/y?q"), &pairs);
    }
}

#[test]
fn an_index_of_a_directory() {
    let config = format!("{OPEN}\nAddHandler wsgi-script .wsgi\nDirectoryIndex index.wsgi");
    with(&["htdocs/index.wsgi", "htdocs/sub/index.wsgi"], &config, |httpd| {
        expect_paths(httpd, "/?q", "/index.wsgi", "");
        expect_paths(httpd, "/sub/", "/sub/index.wsgi", "");
    });
}

#[test]
fn a_fallback_for_what_is_not_there() {
    let config = format!("{OPEN}\nAddHandler wsgi-script .wsgi\nFallbackResource /app.wsgi");
    with(&["htdocs/app.wsgi"], &config, |httpd| {
        // mod_dir gives no path information; the URL is what is left.
        expect_paths(httpd, "/not/there?q", "/app.wsgi", "");
        expect(httpd, Request::get("/not/there?q"), &[("QUERY_STRING", "'q'")]);
    });
}

#[test]
fn an_error_document() {
    let config = "WSGIScriptAlias /errors ${ROOT}/app.wsgi\nErrorDocument 404 /errors/404?e=1";
    with(&["app.wsgi"], config, |httpd| {
        let request = Request::get("/missing?q=2")
            .header("X-Keys", "SCRIPT_NAME,PATH_INFO,QUERY_STRING,REDIRECT_URL,REDIRECT_QUERY_STRING,REDIRECT_STATUS,REQUEST_URI,REQUEST_METHOD");
        let response = httpd.send(&request);
        let expected = [
            "'/errors'",
            "'/404'",
            "'e=1'",
            "'/missing'",
            "'q=2'",
            "'404'",
            "'/missing?q=2'",
            "'GET'",
        ];
        assert_eq!(response.text(), expected.join("\n"));
    });
}

#[test]
fn a_part_of_a_page() {
    let config = format!(
        "{OPEN}\nLoadModule include_module ${{MODULES}}/mod_include.so
        AddHandler server-parsed .shtml\nWSGIScriptAlias /part ${{ROOT}}/app.wsgi"
    );
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::new(mode.config())
            .config(&config)
            .file("app.wsgi", KEYS)
            .file("htdocs/page.shtml", "<<!--#include virtual=\"/part/x/y?a=b\" -->>")
            .start();
        let keys = "SCRIPT_NAME,PATH_INFO,QUERY_STRING,SERVER_PROTOCOL,REQUEST_METHOD,REQUEST_URI";
        let page = httpd.send(&Request::get("/page.shtml?q").header("X-Keys", keys)).ok();
        let expected =
            // httpd leaves the name whole for what mod_include asks for.
            ["'/part/x/y'", "'/x/y'", "'a=b'", "'INCLUDED'", "'GET'", "'/page.shtml?q'"].join("\n");
        assert_eq!(page, format!("<{expected}>"));
    }
}

#[test]
fn a_variable_may_tell_the_current_uri() {
    let config = format!(
        "{OPEN}\nAddHandler wsgi-script .wsgi\nDirectoryIndex index.wsgi
        <Location />\nCGIVar REQUEST_URI current-uri\n</Location>"
    );
    with(&["htdocs/index.wsgi"], &config, |httpd| {
        expect(httpd, Request::get("/?q"), &[("REQUEST_URI", "'/index.wsgi'")]);
    });
}

#[test]
fn a_redirect_may_tell_the_whole_url() {
    let config = "WSGIScriptAlias /errors ${ROOT}/app.wsgi\nErrorDocument 404 /errors/404
        <Location />\nQualifyRedirectURL On\n</Location>";
    with(&["app.wsgi"], config, |httpd| {
        let response = httpd.send(&Request::get("/missing").header("X-Keys", "REDIRECT_URL"));
        assert_eq!(response.text(), format!("'http://wsgi.test:{}/missing'", httpd.port()));
    });
}

#[test]
fn runs_of_slashes_are_one() {
    let config = "MergeSlashes Off\nWSGIScriptAlias /app ${ROOT}/app.wsgi";
    with(&["app.wsgi"], config, |httpd| {
        expect_paths(httpd, "//app", "/app", "");
        expect_paths(httpd, "/app//x///y//", "/app", "/x/y/");
        expect_paths(httpd, "///app/%2e/x", "/app", "/x");
    });
}

#[test]
fn encoded_slashes_are_what_the_server_makes_of_them() {
    for (setting, target, path_info) in [
        ("On", "/a%2Fb%2fc", "/a/b/c"),
        ("NoDecode", "/a%2Fb", "/a%2Fb"),
        ("NoDecode", "/a%2Fb%20c", "/a%2Fb c"),
        ("On", "/a%2F%2Fb", "/a/b"),
    ] {
        let config = format!("AllowEncodedSlashes {setting}\nWSGIScriptAlias / ${{ROOT}}/app.wsgi");
        with(&["app.wsgi"], &config, |httpd| expect_paths(httpd, target, "", path_info));
    }
    with(&["app.wsgi"], "WSGIScriptAlias / ${ROOT}/app.wsgi", |httpd| {
        assert_eq!(httpd.get("/a%2Fb").status, 404);
        assert_eq!(httpd.get("/a%00b").status, 404);
    });
}

#[test]
fn encoded_characters_are_decoded_once() {
    with(&["app.wsgi"], "WSGIScriptAlias /app ${ROOT}/app.wsgi", |httpd| {
        expect_paths(httpd, "/app/%3Fx", "/app", "/?x");
        expect_paths(httpd, "/app/%2541", "/app", "/%41");
        expect_paths(httpd, "/a%70p/%7e", "/app", "/~");
        expect_paths(httpd, "/app/../app/./x", "/app", "/x");
    });
}

#[test]
fn a_path_is_bytes() {
    with(&["app.wsgi"], "WSGIScriptAlias /app ${ROOT}/app.wsgi", |httpd| {
        let pairs = [("PATH_INFO", "'/\u{ff}\u{fe}\\x80'"), ("REQUEST_URI", "'/app/%ff%FE%80'")];
        expect(httpd, Request::get("/app/%ff%FE%80"), &pairs);
    });
}

#[test]
fn names_of_files_are_those_of_the_file_system() {
    let source = "
import os
def application(environ, start_response):
    start_response('200 OK', [])
    name = environ['SCRIPT_FILENAME']
    assert os.path.exists(name)
    return [os.fsencode(name).rpartition(b'/')[2].hex().encode()]
";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::new(mode.config())
            .config("WSGIScriptAliasMatch ^/([^/]+) ${ROOT}/scripts/$1")
            .file("scripts/caf\u{e9}", source)
            .file("scripts/one", source)
            .start();
        assert_eq!(httpd.get("/caf%C3%A9").ok(), "636166c3a9");
        if !is_ours() {
            return skip("mod_wsgi 6.1.1 does not run a script whose name is not UTF-8");
        }
        let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
        std::fs::write(httpd.path("scripts").join(odd), source).unwrap();
        assert_eq!(httpd.get("/caf%E9").ok(), "636166e9");
    }
}
