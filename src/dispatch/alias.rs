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
        if hit.is_path_info {
            // Left to find out where the script ends httpd looks at each directory above it.
            request.set_filename(&hit.target, b"");
            request.set_path_info(hit.rest);
        } else {
            request.set_filename(&hit.target, hit.rest);
        }
        request.set_handler(HANDLER);
        let notes = request.notes();
        notes.set_constant(NOTE_FORCED_TYPE, HANDLER);
        for (name, value) in hit.alias.overrides.notes() {
            notes.set_known(name, value);
        }
        Outcome::Ok
    }
}
