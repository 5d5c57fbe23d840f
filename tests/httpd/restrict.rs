//! `WSGIRestrictProcess` and `WSGIRestrictEmbedded`: where applications may not run.
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Site};

/// Answers with its process group.
const GROUP: &str = r#"
def application(environ, start_response):
    start_response('200 OK', [])
    return [environ['mod_wsgi.process_group'].encode()]
"#;

/// `/one`, `/two` and `/none` run in the group they say.
const PLACES: &str = "WSGIDaemonProcess one\nWSGIDaemonProcess two\n\
    WSGIScriptAlias / ${ROOT}/app.wsgi\n\
    <Location /one>\nWSGIProcessGroup one\n</Location>\n\
    <Location /two>\nWSGIProcessGroup two\n</Location>\n\
    <Location /none>\nWSGIProcessGroup %{GLOBAL}\n</Location>\n";

/// A server with [`PLACES`] and these directives.
fn start(config: &str) -> Httpd {
    Site::new(PLACES).config(config).file("app.wsgi", GROUP).start()
}

/// The statuses of `/one`, `/two` and `/none`.
#[track_caller]
fn statuses(httpd: &Httpd) -> [u16; 3] {
    ["/one", "/two", "/none"].map(|target| httpd.get(target).status)
}

#[test]
fn without_a_restriction_every_group_may_be_used() {
    assert_eq!(statuses(&start("")), [200, 200, 200]);
}

#[test]
fn only_the_groups_listed_may_be_used() {
    let mut httpd = start("WSGIRestrictProcess one");
    httpd.expect_error("WSGI0149");
    assert_eq!(statuses(&httpd), [200, 500, 500]);
}

#[test]
fn embedded_mode_is_listed_as_the_global_group() {
    let mut httpd = start("WSGIRestrictProcess two %{GLOBAL}");
    httpd.expect_error("WSGI0149");
    assert_eq!(statuses(&httpd), [500, 200, 200]);
}

#[test]
fn the_list_does_not_tell_upper_from_lower_case() {
    let mut httpd = start("WSGIRestrictProcess ONE");
    httpd.expect_error("WSGI0149");
    assert_eq!(statuses(&httpd), [200, 500, 500]);
}

#[test]
fn an_empty_list_allows_nothing() {
    let mut httpd = start("WSGIRestrictProcess");
    httpd.expect_error("WSGI0149");
    assert_eq!(statuses(&httpd), [500, 500, 500]);
}

#[test]
fn an_inner_list_replaces_the_outer() {
    let inner = "<Location /two>\nWSGIRestrictProcess two\n</Location>";
    let mut httpd = start(&format!("WSGIRestrictProcess one\n{inner}"));
    httpd.expect_error("WSGI0149");
    assert_eq!(statuses(&httpd), [200, 200, 500]);
}

#[test]
fn embedded_mode_can_be_switched_off_for_the_whole_server() {
    let mut httpd = start("WSGIRestrictEmbedded On");
    httpd.expect_error("WSGI0143");
    assert_eq!(statuses(&httpd), [200, 200, 500]);
}
