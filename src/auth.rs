//! Who may see a resource: what httpd wants to know, asked of scripts.
#![forbid(unsafe_code)]

use crate::config::option::{Arguments, readable};
use crate::config::provider::ProviderScript;
use crate::dispatch::ask::{self, Answer, log};
use crate::host::{Question, Reply};
use crate::httpd::Request;
use crate::httpd::auth::{self as httpd, CheckAccess, Credentials, Membership, RealmHash};
use crate::httpd::hook::Outcome;
use std::sync::Arc;
use wsgi_wire::vtable::{level, question};

/// The access hook: `WSGIAccessScript`.
pub struct Access;

/// The provider `wsgi`: `WSGIAuthUserScript`.
pub struct Users;

/// The provider `wsgi-group`: `WSGIAuthGroupScript`.
pub struct Groups;

impl CheckAccess for Access {
    fn check_access(request: &Request) -> Outcome {
        let script = request.config().and_then(|dir| dir.access_script.as_ref());
        let Some(script) = script else { return Outcome::Declined };
        let host = request.remote_host().unwrap_or_else(|| request.remote_ip());
        let question = Question { kind: question::ACCESS, who: host, what: b"" };
        match ask::ask(request, script, question, "WSGI0054").reply {
            Reply::Yes => Outcome::Ok,
            Reply::Nothing => Outcome::Declined,
            Reply::No | Reply::Failed | Reply::Unloaded => {
                if !request.may_authenticate_instead() {
                    let file = readable(request.filename().unwrap_or_default());
                    let text =
                        format!("WSGI0057: the access script keeps the client from '{file}'");
                    log(request, level::ERROR, &text);
                }
                Outcome::Status(403)
            }
        }
    }
}

/// Asks the script of users; logs with one of the codes if there is none, or no Python.
fn ask_users(
    request: &Request,
    question: Question<'_>,
    (no_script, no_python): (&str, &'static str),
) -> Option<Answer> {
    let Some(script) = request.config().and_then(|dir| dir.auth_user_script.as_ref()) else {
        let text = format!("{no_script}: there is no WSGIAuthUserScript to ask; answering 500");
        log(request, level::ERROR, &text);
        return None;
    };
    Some(ask::ask(request, script, question, no_python))
}

impl httpd::Users for Users {
    fn check_password(request: &Request, user: &[u8], password: &[u8]) -> Credentials {
        let question = Question { kind: question::PASSWORD, who: user, what: password };
        let Some(answer) = ask_users(request, question, ("WSGI0041", "WSGI0042")) else {
            return Credentials::Failed;
        };
        match answer.reply {
            Reply::Yes => Credentials::Good(answer.into_first()),
            Reply::No => Credentials::Bad,
            Reply::Nothing => Credentials::Unknown,
            Reply::Failed | Reply::Unloaded => Credentials::Failed,
        }
    }

    fn realm_hash(request: &Request, user: &[u8], realm: &[u8]) -> RealmHash {
        let question = Question { kind: question::REALM_HASH, who: user, what: realm };
        let Some(answer) = ask_users(request, question, ("WSGI0044", "WSGI0045")) else {
            return RealmHash::Failed;
        };
        match answer.reply {
            Reply::Nothing => RealmHash::Unknown,
            Reply::Yes => answer.into_first().map_or(RealmHash::Failed, RealmHash::Known),
            Reply::No | Reply::Failed | Reply::Unloaded => RealmHash::Failed,
        }
    }
}

/// The groups of a user, as a script said for this request: several `Require` lines
/// ask once.
struct Known {
    user: Vec<u8>,
    /// Each `<AuthzProviderAlias>` may have one of its own.
    script: Arc<ProviderScript>,
    answer: Answer,
}

impl httpd::Groups for Groups {
    fn check_groups(request: &Request, line: &[u8]) -> Membership {
        let Some(user) = request.user() else { return Membership::Nobody };
        let script = request.config().and_then(|dir| dir.auth_group_script.as_ref());
        let Some(script) = script else {
            let text = "WSGI0058: there is no WSGIAuthGroupScript to ask; access is denied";
            log(request, level::ERROR, text);
            return Membership::Failed;
        };
        let known = request.kept::<Known>();
        let known = known.filter(|known| known.user == user && known.script == *script);
        let known = known.unwrap_or_else(|| groups_of(request, script, user));
        let Answer { reply: Reply::Yes, told } = &known.answer else {
            return Membership::Failed;
        };
        if told.iter().any(|(_, group)| names(line, group)) {
            return Membership::Member;
        }
        let (code, which) = match told.is_empty() {
            true => ("WSGI0059", "any group"),
            false => ("WSGI0060", "any of the groups wanted"),
        };
        let (user, uri) = (readable(user), readable(request.uri()));
        let text = format!("{code}: user '{user}', who asks for '{uri}', is not in {which}");
        log(request, level::ERROR, &text);
        Membership::Stranger
    }
}

/// Asks for the groups of a user.
fn groups_of<'r>(request: &'r Request, script: &Arc<ProviderScript>, user: &[u8]) -> &'r Known {
    let question = Question { kind: question::GROUPS, who: user, what: b"" };
    let answer = ask::ask(request, script, question, "WSGI0048");
    request.keep(Known { user: user.to_vec(), script: Arc::clone(script), answer })
}

/// Whether a `Require` line names the group; case does not count.
fn names(line: &[u8], group: &[u8]) -> bool {
    let mut words = Arguments::new(line);
    std::iter::from_fn(|| words.word()).any(|name| name.eq_ignore_ascii_case(group))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_line_names_groups_in_any_case() {
        assert!(names(b"staff \"night shift\"", b"STAFF"));
        assert!(names(b"staff \"night shift\"", b"Night Shift"));
        assert!(!names(b"staff \"night shift\"", b"night"));
        assert!(!names(b"", b""));
    }
}
