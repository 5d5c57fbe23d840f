//! `%{…}` in the name of a group: what each token stands for, and where variables come from.
#![forbid(unsafe_code)]

use std::process::Command;

use crate::harness::{Httpd, Request, Site};

/// Answers with process group and application group.
const GROUPS: &str = r#"
def application(environ, start_response):
    start_response('200 OK', [])
    text = '%s,%s' % (environ['mod_wsgi.process_group'], environ['mod_wsgi.application_group'])
    return [text.encode()]
"#;

/// A site with the application at `/` and daemon process groups `one` and `two`.
fn site(config: &str) -> Site {
    Site::new("WSGIDaemonProcess one\nWSGIDaemonProcess two\nWSGIScriptAlias / ${ROOT}/app.wsgi")
        .config(config)
        .file("app.wsgi", GROUPS)
}

/// The answer to `GET target` with this Host header.
#[track_caller]
fn at(httpd: &Httpd, host: &str, target: &str) -> String {
    httpd.send(&Request::get(target).header("Host", host)).ok()
}

/// The application group for a `WSGIApplicationGroup` in a `<Location /x>` with more lines.
#[track_caller]
fn application_group(value: &str, lines: &str) -> String {
    let config = format!("<Location /x>\nWSGIApplicationGroup {value}\n{lines}\n</Location>");
    let httpd = site(&config).env("FROM_OUTSIDE", "outside").start();
    at(&httpd, "h.test", "/x/y").split_once(',').unwrap().1.to_owned()
}

#[test]
fn the_tokens_stand_for_server_host_and_resource() {
    let config = "WSGIScriptAlias /mount ${ROOT}/app.wsgi\n\
        <Location /mount/server>\nWSGIApplicationGroup %{SERVER}\n</Location>\n\
        <Location /mount/host>\nWSGIApplicationGroup %{HOST}\n</Location>\n\
        <Location /mount/resource>\nWSGIApplicationGroup %{RESOURCE}\n</Location>\n\
        <Location /mount/global>\nWSGIApplicationGroup %{GLOBAL}\n</Location>";
    let httpd = Site::new(config).file("app.wsgi", GROUPS).start();
    let port = httpd.port();
    assert_eq!(at(&httpd, "h.test", "/mount/server"), format!(",wsgi.test:{port}"));
    assert_eq!(at(&httpd, "h.test", "/mount/host"), format!(",h.test:{port}"));
    assert_eq!(at(&httpd, "h.test", "/mount/resource/a"), format!(",wsgi.test:{port}|/mount"));
    assert_eq!(at(&httpd, "h.test", "/mount/other"), format!(",wsgi.test:{port}|/mount"));
    assert_eq!(at(&httpd, "h.test", "/mount/global"), ",");
}

#[test]
fn the_usual_ports_are_left_out_of_a_name() {
    let config = "WSGIApplicationGroup %{SERVER}\n\
        <VirtualHost *:${PORT}>\nServerName a.test:80\nUseCanonicalName On\n</VirtualHost>\n\
        <VirtualHost *:${PORT}>\nServerName b.test:443\nUseCanonicalName On\n</VirtualHost>\n\
        <VirtualHost *:${PORT}>\nServerName c.test:8443\nUseCanonicalName On\n</VirtualHost>";
    let httpd = site(config).start();
    assert_eq!(at(&httpd, "a.test", "/"), ",a.test");
    assert_eq!(at(&httpd, "b.test", "/"), ",b.test");
    assert_eq!(at(&httpd, "c.test", "/"), ",c.test:8443");
}

#[test]
fn a_token_counts_only_as_the_whole_value() {
    assert_eq!(application_group("foo-%{GLOBAL}", ""), "foo-%{GLOBAL}");
    assert_eq!(application_group("%{global}", ""), "%{global}");
    assert_eq!(application_group("%{ELSE}", ""), "%{ELSE}");
    assert_eq!(application_group("%{ENV:X", "SetEnv X y"), "%{ENV:X");
}

#[test]
fn a_variable_comes_from_setenv() {
    assert_eq!(application_group("%{ENV:X}", "SetEnv X chosen"), "chosen");
}

#[test]
fn a_variable_comes_from_setenvif() {
    assert_eq!(application_group("%{ENV:X}", "SetEnvIf Host ^(h)\\. X=$1-host"), "h-host");
}

#[test]
fn a_variable_comes_from_a_rewrite_rule() {
    let lines = "RewriteEngine On\nRewriteRule . - [E=X:ruled]";
    assert_eq!(application_group("%{ENV:X}", lines), "ruled");
}

#[test]
fn a_variable_comes_from_the_environment_of_httpd() {
    assert_eq!(application_group("%{ENV:FROM_OUTSIDE}", ""), "outside");
}

#[test]
fn the_request_is_asked_before_the_environment_of_httpd() {
    assert_eq!(application_group("%{ENV:FROM_OUTSIDE}", "SetEnv FROM_OUTSIDE inside"), "inside");
}

#[test]
fn an_empty_variable_counts_as_set() {
    assert_eq!(application_group("%{ENV:FROM_OUTSIDE}", "SetEnv FROM_OUTSIDE \"\""), "");
}

#[test]
fn notes_of_the_request_are_asked_first() {
    // What an option of the alias sets is a note of the request.
    let config = "WSGIScriptAlias /noted ${ROOT}/app.wsgi callable-object=application\n\
        SetEnv mod_wsgi.callable_object variable\n\
        WSGIApplicationGroup %{ENV:mod_wsgi.callable_object}";
    let httpd = Site::new(config)
        .config("WSGIScriptAlias / ${ROOT}/app.wsgi")
        .file("app.wsgi", GROUPS)
        .start();
    assert_eq!(at(&httpd, "h.test", "/noted"), ",application");
    assert_eq!(at(&httpd, "h.test", "/"), ",variable");
}

#[test]
fn an_unknown_variable_leaves_the_text_as_it_is() {
    assert_eq!(application_group("%{ENV:NOWHERE}", ""), "%{ENV:NOWHERE}");
}

#[test]
fn a_token_in_a_variable_is_followed_once() {
    assert_eq!(application_group("%{ENV:X}", "SetEnv X %{GLOBAL}"), "");
    assert_eq!(application_group("%{ENV:X}", "SetEnv X %{ENV:Y}\nSetEnv Y z"), "%{ENV:Y}");
}

#[test]
fn process_groups_know_the_same_tokens() {
    let config = "SetEnvIf Request_URI ^/p/(\\w+) P=$1\n\
        <Location /p>\nWSGIProcessGroup %{ENV:P}\nWSGIApplicationGroup %{GLOBAL}\n</Location>\n\
        <Location /g>\nWSGIProcessGroup %{GLOBAL}\nWSGIApplicationGroup %{GLOBAL}\n</Location>\n\
        <Location /s>\nWSGIProcessGroup %{SERVER}\nWSGIApplicationGroup %{GLOBAL}\n</Location>\n\
        <Location /e>\nSetEnv P %{GLOBAL}\nWSGIProcessGroup %{ENV:P}\nWSGIApplicationGroup %{GLOBAL}\n</Location>\n\
        WSGIDaemonProcess wsgi.test:${PORT}";
    let httpd = site(config).start();
    assert_eq!(at(&httpd, "h", "/p/one"), "one,");
    assert_eq!(at(&httpd, "h", "/p/two"), "two,");
    assert_eq!(at(&httpd, "h", "/g"), ",");
    assert_eq!(at(&httpd, "h", "/e"), ",");
    assert_eq!(at(&httpd, "h", "/s"), format!("wsgi.test:{},", httpd.port()));
}

#[test]
fn a_process_group_named_by_a_variable_nobody_set_is_unknown() {
    let mut httpd = site("WSGIProcessGroup %{ENV:NOWHERE}").start();
    httpd.expect_error("WSGI0151");
    assert_eq!(httpd.get("/").status, 500);
}

#[test]
fn a_rewrite_map_chooses_the_process_group() {
    let map = "a.test one\nb.test two\n";
    for kind in ["txt", "dbm"] {
        let config = format!(
            "RewriteEngine On\nRewriteMap groups {kind}:${{ROOT}}/groups.{kind}\n\
             RewriteRule . - [E=G:${{groups:%{{HTTP_HOST}}|%{{GLOBAL}}}}]\n\
             WSGIProcessGroup %{{ENV:G}}\nWSGIApplicationGroup %{{GLOBAL}}"
        );
        // httpd would take `${groups:…}` for one of its own variables, had it one.
        let site = site(&config).file("groups.txt", map);
        if kind == "dbm" {
            let (from, to) = (site.root().join("groups.txt"), site.root().join("groups.dbm"));
            let made = Command::new("httxt2dbm").arg("-i").arg(from).arg("-o").arg(to).output();
            if !made.is_ok_and(|made| made.status.success()) {
                return crate::harness::skip("httxt2dbm is not installed");
            }
        }
        let httpd = site.start();
        assert_eq!(at(&httpd, "a.test", "/"), "one,", "{kind}");
        assert_eq!(at(&httpd, "b.test", "/"), "two,", "{kind}");
    }
}
