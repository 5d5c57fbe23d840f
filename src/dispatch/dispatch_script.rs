//! `WSGIDispatchScript`: a script that chooses where a request runs.
#![forbid(unsafe_code)]

use super::ask;
use super::environ::{self, Choice};
use super::resolve::Target;
use crate::config::group::{CallableName, GroupName, Variables};
use crate::config::provider::ProviderScript;
use crate::host::{Question, Reply};
use crate::httpd::Request;
use crate::startup::Site;
use wsgi_wire::vtable::question;

/// What a script chose: places in [`wsgi_wire::vtable::DISPATCH_FUNCTIONS`], and names.
pub type Chosen = Vec<(u32, Vec<u8>)>;

/// Asks the script; `None` if it failed at that, and the request with it.  A script
/// that cannot be loaded chooses nothing.
///
/// `choice` is what the application's environ would be made from without it.
pub fn ask(
    request: &Request,
    site: &Site,
    script: &ProviderScript,
    choice: Choice<'_>,
) -> Option<Chosen> {
    let choice = Choice {
        script: &script.path,
        script_mtime: 0,
        process_group: b"",
        application_group: &script.application_group(request),
        ..choice
    };
    let mut head = Vec::with_capacity(4 * 1024);
    environ::encode(request, &choice, &mut head);
    let question = Question { kind: question::DISPATCH, who: b"", what: b"" };
    let answer = ask::put(request, site, &head, question, "WSGI0086");
    (answer.reply != Reply::Failed).then_some(answer.told)
}

/// Changes `target` to what was chosen: names are read as those of directives are.
pub fn apply(chosen: Chosen, target: &mut Target<'_>, request: &impl Variables) {
    let group = |name: &[u8]| GroupName::resolve_text(name, request).into_owned().into();
    for (place, name) in chosen {
        match place {
            0 => target.process_group = group(&name),
            1 => target.application_group = group(&name),
            _ => {
                let name = CallableName::parse(&name).resolve(request).into_owned();
                target.callable = name.into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::group::fake::FakeVariables;

    #[test]
    fn what_is_chosen_replaces_what_was_configured() {
        let mut target = Target {
            process_group: b"blog"[..].into(),
            application_group: b"a"[..].into(),
            callable: b"application"[..].into(),
            handler_script: b"",
            pass_authorization: false,
        };
        let request = FakeVariables {
            server_name: "example.org",
            port: 80,
            notes: vec![(c"C", "app")],
            ..FakeVariables::default()
        };
        apply(Vec::new(), &mut target, &request);
        assert_eq!(*target.process_group, *b"blog");
        let chosen = [(0, "%{GLOBAL}"), (1, "%{SERVER}"), (2, "%{ENV:C}")];
        let chosen = chosen.map(|(place, name)| (place, name.as_bytes().to_vec())).into();
        apply(chosen, &mut target, &request);
        assert_eq!(*target.process_group, *b"");
        assert_eq!(*target.application_group, *b"example.org");
        assert_eq!(*target.callable, *b"app");
    }
}
