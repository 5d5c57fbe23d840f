//! `WSGIScriptAlias`, `WSGIScriptAliasMatch` and the `wsgi-script` handler.
#![forbid(unsafe_code)]

use crate::harness::{Mode, Request, Site, in_both_modes};

/// Answers with the paths it was called with.
const PATHS: &str = r#"
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    keys = ['SCRIPT_NAME', 'PATH_INFO', 'mod_wsgi.process_group', 'mod_wsgi.application_group',
            'mod_wsgi.callable_object', 'mod_wsgi.request_handler']
    return [' '.join('[%s]' % environ.get(key) for key in keys).encode()]
"#;

#[test]
fn an_alias_at_the_root_takes_every_path() {
    in_both_modes(PATHS, |httpd| {
        assert!(httpd.get("/a/b").ok().starts_with("[] [/a/b]"));
    });
}
