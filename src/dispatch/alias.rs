//! The translation of URLs: `WSGIScriptAlias` and `WSGIScriptAliasMatch`.
#![forbid(unsafe_code)]

use crate::config::alias::{HANDLER, NOTE_FORCED_TYPE, match_alias};
use crate::httpd::Request;
use crate::httpd::hook::{Outcome, TranslateName};

/// Maps the URLs of aliases to scripts.
pub struct Aliases;

impl TranslateName for Aliases {
    fn translate_name(request: &Request) -> Outcome {
        let Some(server) = request.server().config() else { return Outcome::Declined };
        let Some(hit) = match_alias(&server.aliases, request.uri()) else {
            return Outcome::Declined;
        };
        // Left to find out where the script ends httpd looks at each directory above it.
        let (script, path_info) = hit.filename.split_at(hit.path_info);
        request.set_filename(script);
        if !path_info.is_empty() {
            request.set_path_info(path_info);
        }
        request.set_handler(c"wsgi-script");
        let notes = request.notes();
        notes.set(NOTE_FORCED_TYPE.as_bytes(), HANDLER.as_bytes());
        for (name, value) in hit.alias.overrides.notes() {
            notes.set(name.as_bytes(), value);
        }
        Outcome::Ok
    }
}
