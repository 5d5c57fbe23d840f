//! Names of groups and callables that lead nowhere, or elsewhere than they seem to.
#![forbid(unsafe_code)]

use super::{Problem, Server};
use crate::config::alias::{Alias, is_own_handler};
use crate::config::group::GroupName;
use crate::config::option::readable;
use crate::config::server::{NameKind, Named};
use crate::config::{Location, ProcessGroup};

/// What a name may be spelled like to be expanded for each request.
const TOKENS: &str = "%{GLOBAL}, %{SERVER}, %{HOST}, %{RESOURCE} or %{ENV:name}";

/// Everything there is to say about the names in a server.
pub fn problems(server: &Server<'_>, groups: &[ProcessGroup]) -> Vec<Problem> {
    let directives = server.config.names.iter().filter_map(|name| directive(name, server, groups));
    let aliases = server.config.own_aliases().iter();
    let aliases = aliases.flat_map(|alias| of_alias(alias, server, groups));
    let imports = server.config.preloads.iter();
    let imports = imports.filter_map(|it| unexpanded(&it.application_group, &it.at));
    directives.chain(aliases).chain(imports).collect()
}

/// A name that a directive of its own says.
fn directive(name: &Named, server: &Server<'_>, groups: &[ProcessGroup]) -> Option<Problem> {
    let Named { kind, text, at } = name;
    match kind {
        NameKind::ProcessGroup => process_group(text, at, server, groups),
        NameKind::ApplicationGroup => application_group(text, at),
        NameKind::Callable => callable(text, at),
        NameKind::Handler => handler(text, at),
        NameKind::Restriction => unexpanded(text, at),
        NameKind::ProxyHeader => Some(proxy_header(text, at)),
    }
}

/// The names that an alias says.
fn of_alias(
    alias: &Alias,
    server: &Server<'_>,
    groups: &[ProcessGroup],
) -> impl Iterator<Item = Problem> {
    let at = &alias.at;
    let is_preload = server.config.preloads.iter().any(|preload| preload.at == *at);
    let said = &alias.overrides;
    let group = said.process_group.as_deref();
    let group = group.and_then(|name| match is_preload {
        // Where the script is loaded early, anything else is an error already.
        true => service(groups.iter().find(|group| group.name == name)?, at),
        false => process_group(name, at, server, groups),
    });
    let application = said.application_group.as_deref();
    let application = application.and_then(|name| application_group(name, at));
    // The option of an alias is a name, never a variable.
    let callable = said.callable.as_deref().and_then(|name| unexpanded(name, at));
    [group, application, callable].into_iter().flatten()
}

/// Whether the text looks as if something in it were to be expanded.
fn has_token(text: &[u8]) -> bool {
    text.windows(2).any(|two| two == b"%{")
}

/// Whether the text was meant to be expanded for each request and is not.
fn is_misspelt(text: &[u8]) -> bool {
    match GroupName::parse(text) {
        GroupName::Literal(name) => has_token(&name),
        GroupName::Variable(name) => name.is_empty(),
        _ => false,
    }
}

/// A header that is said to be trusted, and from which nothing follows.
fn proxy_header(text: &[u8], at: &Location) -> Problem {
    let name = readable(text);
    let text = format!(
        "nothing follows from '{name}', which is none of the headers that are known to come \
         from proxies"
    );
    Problem::warning("WSGI9220", at, text)
}

/// A handler whose script no request reaches.
fn handler(name: &[u8], at: &Location) -> Option<Problem> {
    is_own_handler(name).then(|| {
        let text = format!(
            "no request reaches this script: '{}' is a handler of the module itself, and comes \
             first",
            readable(name)
        );
        Problem::warning("WSGI9230", at, text)
    })
}

/// The process group that requests are sent to.
fn process_group(
    text: &[u8],
    at: &Location,
    server: &Server<'_>,
    groups: &[ProcessGroup],
) -> Option<Problem> {
    let name = readable(text);
    let Some(group) = groups.iter().find(|group| group.name == text) else {
        let text = if is_misspelt(text) {
            format!(
                "'{name}' is taken as the name of a process group, and none is called so: \
                 requests for it get a 500; what is expanded is {TOKENS}, as the whole name"
            )
        } else if matches!(GroupName::parse(text), GroupName::Literal(_)) && !text.is_empty() {
            format!("no daemon process group called '{name}' is defined: requests for it get a 500")
        } else {
            return None;
        };
        return Some(Problem::warning("WSGI9204", at, text));
    };
    // What the main server says is for all virtual hosts, the group's among them.
    if server.is_virtual && !group.is_visible_in(server.config, server.name) {
        let owner = group.declared_in.name.as_deref().map_or_else(
            || "a virtual host without a ServerName".to_owned(),
            |name| format!("the virtual host '{}'", readable(name)),
        );
        let text = format!(
            "daemon process group '{name}' belongs to {owner} ({}): requests for it get a 500 \
             here; define it outside of all virtual hosts to share it",
            group.at
        );
        return Some(Problem::warning("WSGI9209", at, text));
    }
    service(group, at)
}

/// A group whose processes serve no requests.
fn service(group: &ProcessGroup, at: &Location) -> Option<Problem> {
    (group.threads() == 0).then(|| {
        let text = format!(
            "daemon process group '{}' ({}) is a service (threads=0): requests for it get a 500",
            readable(&group.name),
            group.at
        );
        Problem::warning("WSGI9211", at, text)
    })
}

/// The application group of requests.
fn application_group(text: &[u8], at: &Location) -> Option<Problem> {
    is_misspelt(text).then(|| {
        let text = format!(
            "'{}' is taken as the name of an application group; what is expanded is {TOKENS}, \
             as the whole name",
            readable(text)
        );
        Problem::warning("WSGI9210", at, text)
    })
}

/// The callable of requests: only variables are looked up for it.
fn callable(text: &[u8], at: &Location) -> Option<Problem> {
    let is_variable =
        matches!(GroupName::parse(text), GroupName::Variable(name) if !name.is_empty());
    let is_odd = text.starts_with(b"%") || has_token(text);
    (is_odd && !is_variable).then(|| {
        let text = format!(
            "'{}' names no callable; wanted a name, or %{{ENV:name}} as the whole text",
            readable(text)
        );
        Problem::warning("WSGI9210", at, text)
    })
}

/// A name where nothing is expanded.
fn unexpanded(text: &[u8], at: &Location) -> Option<Problem> {
    (text != b"%{GLOBAL}" && has_token(text)).then(|| {
        let text = format!("'{}' is taken as a name: nothing is expanded here", readable(text));
        Problem::warning("WSGI9210", at, text)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, group, host, main_server, problem, problems, with_groups};
    use super::super::{Problem, Severity};
    use crate::config::ServerConfig;
    use crate::config::alias::{AliasLine, Mount};
    use crate::config::server::{NameKind, Named};

    fn name(kind: NameKind, text: &str) -> ServerConfig {
        let mut config = with_groups(&[group(1, "blog"), group(1, "cron threads=0")]);
        config.names.push(Named { kind, text: text.into(), at: at(7) });
        config
    }

    fn complaint(kind: NameKind, text: &str) -> Option<String> {
        let config = name(kind, text);
        let found = problems(&[main_server(&config)]);
        assert!(found.iter().all(|it| (it.0, it.1) == (Severity::Warning, 7)), "{found:?}");
        found.into_iter().next().map(|(_, _, text)| text)
    }

    #[test]
    fn names_that_are_names_are_left_alone() {
        use NameKind::{ApplicationGroup, Callable, ProcessGroup, Restriction};
        for (kind, text) in [
            (ProcessGroup, "blog"),
            (ProcessGroup, "%{GLOBAL}"),
            (ProcessGroup, "%{ENV:G}"),
            (ProcessGroup, ""),
            (ApplicationGroup, "any"),
            (ApplicationGroup, "%{RESOURCE}"),
            (Callable, "app"),
            (Callable, "%{ENV:C}"),
            (Restriction, "%{GLOBAL}"),
            (Restriction, "shop"),
        ] {
            assert_eq!(complaint(kind, text), None, "{kind:?} {text}");
        }
    }

    #[test]
    fn a_misspelt_variable_is_told_what_is_known() {
        for text in ["%{ENV:x", "%{Env:x}", "%{server}", "x-%{SERVER}", "%{ENV:}"] {
            for kind in [NameKind::ProcessGroup, NameKind::ApplicationGroup] {
                let said = complaint(kind, text).unwrap();
                assert!(said.contains(&format!("'{text}'")), "{said}");
                assert!(said.contains("%{ENV:name}"), "{said}");
            }
            assert!(complaint(NameKind::Callable, text).unwrap().contains("%{ENV:name}"));
        }
        assert!(complaint(NameKind::Callable, "%").is_some());
        let said = complaint(NameKind::Restriction, "%{SERVER}").unwrap();
        assert!(said.contains("nothing is expanded here"), "{said}");
    }

    #[test]
    fn a_header_that_nothing_follows_from_is_named() {
        let said = complaint(NameKind::ProxyHeader, "Forwarded").unwrap();
        assert!(said.contains("'Forwarded'"), "{said}");
    }

    #[test]
    fn a_service_takes_no_requests() {
        let said = complaint(NameKind::ProcessGroup, "cron").unwrap();
        assert!(said.contains("is a service (threads=0)"), "{said}");
    }

    #[test]
    fn a_group_of_another_host_is_told_where_it_is_used() {
        let main = ServerConfig::new();
        let owner = with_groups(&[group(3, "blog")]);
        let mut user = ServerConfig::new();
        let kind = NameKind::ProcessGroup;
        user.names.push(Named { kind, text: b"blog".into(), at: at(9) });
        let check =
            |there, here| problems(&[main_server(&main), host(&owner, there), host(&user, here)]);
        assert_eq!(check(Some("a.org"), Some("a.org")), []);
        let (severity, line, text) = check(Some("a.org"), Some("b.org")).remove(0);
        assert_eq!((severity, line), (Severity::Warning, 9));
        assert!(text.contains("the virtual host 'a.org' (a.conf:3)"), "{text}");
        assert!(check(None, Some("b.org"))[0].2.contains("without a ServerName"));
        // A section outside of all virtual hosts may be meant for the group's own.
        assert_eq!(problems(&[main_server(&user), host(&owner, Some("a.org"))]), []);
    }

    #[test]
    fn the_names_of_an_alias_are_looked_at() {
        for (options, wanted) in [
            ("process-group=%{ENV:x", "taken as the name of a process group"),
            ("process-group=cron", "is a service"),
            ("process-group=cron application-group=a", "is a service"),
            ("application-group=%{Server}", "taken as the name of an application group"),
            ("callable-object=%{ENV:x}", "nothing is expanded here"),
        ] {
            let line = AliasLine::read(format!("/ / {options}").as_bytes()).unwrap();
            let mut config = with_groups(&[group(1, "cron threads=0")]);
            config.preloads.extend(crate::config::server::Preload::of_alias(
                &line,
                crate::config::server::WantedBy::ScriptAlias,
                &at(4),
            ));
            config.add_alias(line.alias(Mount::Prefix(b"/".into()), at(4)));
            let (severity, line, text) = problem(&[main_server(&config)]);
            assert_eq!((severity, line), (Severity::Warning, 4), "{options}");
            assert!(text.contains(wanted), "{options}: {text}");
        }
    }

    #[test]
    fn every_problem_of_a_name_has_a_code() {
        let config = name(NameKind::ProcessGroup, "shop");
        let found: Vec<Problem> = super::problems(&main_server(&config), &config.groups.clone());
        assert!(found.iter().all(|problem| problem.code.is_some()));
    }
}
