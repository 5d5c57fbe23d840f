//! What can only be checked when the whole configuration has been read; also
//! what `apachectl configtest` shows.
#![forbid(unsafe_code)]

pub mod access;
mod amounts;
mod interpreters;
mod names;
mod places;

use super::option::readable;
use super::process_group::ProcessGroup;
use super::python::{Python, PythonError, choose};
use super::python_search::System;
use super::server::Preload;
use super::{Location, ServerConfig};
use access::Account;
use std::collections::HashSet;

/// A server with what httpd knows about it.
#[derive(Debug, Clone, Copy)]
pub struct Server<'a> {
    /// Our settings of it.
    pub config: &'a ServerConfig,
    /// Its `ServerName`.
    pub name: Option<&'a [u8]>,
    /// Whether it is a virtual host.
    pub is_virtual: bool,
}

/// What the checks look at beside the configuration.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    /// Where Pythons are looked for.
    pub system: &'a System,
    /// httpd's `User` and `Group`; none where httpd is not started as root, so
    /// that nobody becomes anybody else.
    pub httpd: Option<Account>,
    /// Why a Python that was found cannot be run by this installation, if so.
    pub obstacle: fn(&Python) -> Option<String>,
}

/// How bad a problem is.
///
/// An error is what will certainly fail however long one waits; what a mount or a
/// deployment may bring about is a warning, so that one site that is not there yet
/// does not keep all others from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// httpd must not start so.
    Error,
    /// Something will not work.
    Warning,
    /// Something is not as it may seem.
    Notice,
}

/// Something the operator is to know about the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The code of the log record; a notice has none.
    pub code: Option<&'static str>,
    /// Where to mend it.
    pub at: Location,
    /// What is the matter.
    pub text: String,
}

impl Problem {
    /// Something that keeps httpd from starting.
    fn error(code: &'static str, at: &Location, text: String) -> Self {
        Self { severity: Severity::Error, code: Some(code), at: at.clone(), text }
    }

    /// Something that will not work.
    fn warning(code: &'static str, at: &Location, text: String) -> Self {
        Self { severity: Severity::Warning, code: Some(code), at: at.clone(), text }
    }

    /// Something that is not as it may seem.
    fn notice(at: &Location, text: String) -> Self {
        Self { severity: Severity::Notice, code: None, at: at.clone(), text }
    }
}

/// All process groups, each once, in the order of definition.
///
/// Tools that copy a virtual host for TLS (certbot does) copy the group as well:
/// a twin in a server of the same name is the same group.
pub fn process_groups(servers: &[Server<'_>]) -> (Vec<ProcessGroup>, Vec<Problem>) {
    let mut groups: Vec<ProcessGroup> = Vec::new();
    let mut problems = Vec::new();
    for server in servers {
        for group in &server.config.groups {
            let mut group = group.clone();
            // The directive may have come before `ServerName`.
            group.declared_in.name = server.name.map(<[u8]>::to_vec);
            group.declared_in.is_virtual = server.is_virtual;
            match groups.iter().find(|first| first.name == group.name) {
                None => groups.push(group),
                Some(first) => problems.push(duplicate(first, &group)),
            }
        }
    }
    (groups, problems)
}

/// The second definition of a group.
fn duplicate(first: &ProcessGroup, second: &ProcessGroup) -> Problem {
    let name = readable(&second.name);
    let owners = (&first.declared_in, &second.declared_in);
    let same_server =
        owners.1.is_virtual && owners.0.name.is_some() && owners.0.name == owners.1.name;
    if same_server && first.is_twin(second) {
        let text = format!(
            "daemon process group '{name}' is defined again, with the same options and for the \
             same ServerName as at {}: both are one group",
            first.at
        );
        return Problem::notice(&second.at, text);
    }
    let text = format!("daemon process group '{name}' is already defined at {}", first.at);
    Problem::error("WSGI9201", &second.at, text)
}

/// Everything there is to say about a configuration, in its order.
///
/// `servers` are all of them, the main server first.
pub fn check(servers: &[Server<'_>], around: &Surroundings<'_>) -> Vec<Problem> {
    let (groups, mut problems) = process_groups(servers);
    let mut seen = HashSet::new();
    for server in servers {
        let preloads = server.config.preloads.iter();
        problems.extend(preloads.filter_map(|preload| preload_problem(preload, server, &groups)));
        problems.extend(places::scripts(server, &groups, around));
        problems.extend(names::problems(server, &groups));
        problems.extend(inert(server));
    }
    if let Some(main) = servers.first() {
        // Scripts are asked in child processes, whether applications run there or not.
        let is_embedded = !main.config.restrict_embedded()
            || servers.iter().any(|server| server.config.asks_scripts);
        problems.extend(python_problems(main.config, &groups, around, is_embedded));
        problems.extend(closed_pythons(main.config, &groups, around, is_embedded));
        problems.extend(interpreters::problems(&main.config.interpreters, &groups));
        let path = main.config.python_path.iter();
        problems.extend(path.flat_map(|(path, at)| places::python_path(path, at)));
    }
    for group in &groups {
        problems.extend(places::env_file(group));
        problems.extend(places::of_group(group, around));
        // Below another root it is another directory.
        let path = group.python_path.iter().filter(|_| group.chroot.is_none());
        problems.extend(path.flat_map(|path| places::python_path(path, &group.at)));
        problems.extend(amounts::problems(group));
    }
    // A file that is included twice has each of its problems once.
    problems.retain(|problem| seen.insert((problem.at.clone(), problem.text.clone())));
    problems
}

/// Whether the processes of a preload's group may load it.
fn preload_problem(
    preload: &Preload,
    server: &Server<'_>,
    groups: &[ProcessGroup],
) -> Option<Problem> {
    if preload.process_group.is_empty() {
        return None;
    }
    let name = readable(&preload.process_group);
    let problem = |text| Some(Problem::error("WSGI9202", &preload.at, text));
    let Some(group) = groups.iter().find(|group| group.name == preload.process_group) else {
        return problem(format!("daemon process group '{name}' is not defined"));
    };
    let owner = &group.declared_in;
    if !owner.is_virtual || server.config.defines(&group.name) {
        return None;
    }
    match (owner.name.as_deref(), server.name) {
        (Some(there), Some(here)) if there != here => problem(format!(
            "daemon process group '{name}' of '{}' ({}) is not accessible in '{}'",
            readable(there),
            group.at,
            readable(here)
        )),
        (Some(_), None) | (None, Some(_)) => problem(format!(
            "daemon process group '{name}' ({}) is not matchable: only one of the two virtual \
             hosts has a ServerName",
            group.at
        )),
        _ => None,
    }
}

/// The one notice about everything that is accepted and has no effect.
fn inert(server: &Server<'_>) -> Option<Problem> {
    let directives = server.config.inert.iter().map(|(name, at)| (*name, at));
    let options = server
        .config
        .groups
        .iter()
        .flat_map(|group| group.inert_options().into_iter().map(|option| (option, &group.at)));
    let all: Vec<(&str, &Location)> = directives.chain(options).collect();
    let (_, first) = all.first()?;
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let text = format!(
        "accepted without effect here and below, as daemon processes have no named sockets: {}",
        names.join(", ")
    );
    Some(Problem::notice(first, text))
}

/// Homes and groups whose Python cannot be started.
fn python_problems(
    main: &ServerConfig,
    groups: &[ProcessGroup],
    around: &Surroundings<'_>,
    is_embedded: bool,
) -> Vec<Problem> {
    let home = main.python_home.as_ref();
    let falls_back = |group: &&ProcessGroup| group.python_home.is_none() && group.python.is_none();
    let first = groups.iter().filter(|group| group.chroot.is_none()).find(falls_back);
    let problem = |at: &Location, found: Result<Python, PythonError>| match found {
        Ok(python) => {
            let obstacle = (around.obstacle)(&python)?;
            Some(Problem::error("WSGI9440", at, obstacle))
        }
        Err(error) => Some(Problem::error("WSGI9205", at, error.to_string())),
    };
    let mut problems = Vec::new();
    // Whoever says nothing shares one Python, and so one problem.
    let shared = match (home, first) {
        (Some((home, at)), first) if first.is_some() || is_embedded => {
            Some((Some(home.as_path()), at))
        }
        (None, Some(group)) => Some((None, &group.at)),
        _ => None,
    };
    if let Some((home, at)) = shared {
        problems.extend(problem(at, choose(around.system, home, None)));
    }
    let others = groups.iter().filter(|group| group.chroot.is_none() && !falls_back(group));
    problems.extend(
        others.filter_map(|group| problem(&group.at, group.choose_python(around.system, None))),
    );
    problems
}

/// Pythons that those who run them may not read.
fn closed_pythons(
    main: &ServerConfig,
    groups: &[ProcessGroup],
    around: &Surroundings<'_>,
    is_embedded: bool,
) -> Vec<Problem> {
    let Some(httpd) = &around.httpd else { return Vec::new() };
    let home = main.python_home.as_ref();
    let embedded = home.filter(|_| is_embedded).and_then(|(home, at)| {
        let python = choose(around.system, Some(home), None).ok()?;
        places::python(&python, at, httpd)
    });
    let groups = groups.iter().filter(|group| group.chroot.is_none()).filter_map(|group| {
        let home = home.map(|(home, _)| home.as_path());
        let python = group.choose_python(around.system, home).ok()?;
        places::python(&python, &group.at, &Account::of_group(group, httpd))
    });
    embedded.into_iter().chain(groups).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::alias::{AliasLine, Mount};
    use super::super::daemon_options;
    use super::super::server::{NameKind, Named};
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    pub fn at(line: u32) -> Location {
        Location { file: "a.conf".into(), line }
    }

    /// A group, at a line.
    pub fn group(line: u32, options: &str) -> ProcessGroup {
        ProcessGroup { at: at(line), ..daemon_options::read(options.as_bytes()).unwrap() }
    }

    pub fn with_groups(groups: &[ProcessGroup]) -> ServerConfig {
        let mut config = ServerConfig::new();
        config.groups = groups.to_vec();
        config
    }

    fn with_import(line: u32, group: &str) -> ServerConfig {
        let mut config = ServerConfig::new();
        let arguments = format!("/ process-group={group} application-group=%{{GLOBAL}}");
        config.preloads.push(Preload::read(arguments.as_bytes(), at(line)).unwrap());
        config
    }

    pub fn main_server(config: &ServerConfig) -> Server<'_> {
        Server { config, name: Some(b"main.org"), is_virtual: false }
    }

    pub fn host<'a>(config: &'a ServerConfig, name: Option<&'a str>) -> Server<'a> {
        Server { config, name: name.map(str::as_bytes), is_virtual: true }
    }

    /// A system with one Python.
    fn system() -> (TempDir, System) {
        let tree = tempfile::tempdir().unwrap();
        for file in
            ["usr/bin/python3.12", "usr/lib/python3.12/os.py", "usr/lib/libpython3.12.so.1.0"]
        {
            let file = tree.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        std::os::unix::fs::symlink("python3.12", tree.path().join("usr/bin/python3")).unwrap();
        let system = System::at(tree.path());
        (tree, system)
    }

    /// Severity, line and text of each problem.
    pub fn problems(servers: &[Server<'_>]) -> Vec<(Severity, u32, String)> {
        let (_tree, system) = system();
        let problems =
            check(servers, &Surroundings { system: &system, httpd: None, obstacle: |_| None })
                .into_iter();
        problems.map(|problem| (problem.severity, problem.at.line, problem.text)).collect()
    }

    /// The only problem.
    pub fn problem(servers: &[Server<'_>]) -> (Severity, u32, String) {
        let mut problems = problems(servers);
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.remove(0)
    }

    #[test]
    fn a_group_defined_twice_is_an_error_with_both_lines() {
        let config = with_groups(&[group(3, "blog"), group(9, "blog")]);
        let text = "daemon process group 'blog' is already defined at a.conf:3";
        assert_eq!(problem(&[main_server(&config)]), (Severity::Error, 9, text.into()));
    }

    #[test]
    fn a_twin_in_a_host_of_the_same_name_is_the_same_group() {
        let main = ServerConfig::new();
        let (plain, tls) = (with_groups(&[group(3, "blog")]), with_groups(&[group(9, "blog")]));
        let name = Some("a.org");
        let servers = [main_server(&main), host(&plain, name), host(&tls, name)];
        let (severity, line, text) = problem(&servers);
        assert_eq!((severity, line), (Severity::Notice, 9));
        assert!(text.ends_with("both are one group"), "{text}");
        assert_eq!(process_groups(&servers).0.len(), 1);
    }

    #[test]
    fn a_twin_elsewhere_or_with_other_options_is_an_error() {
        let one = with_groups(&[group(3, "blog")]);
        let two = with_groups(&[group(9, "blog threads=3")]);
        for (two, name) in [(&two, Some("a.org")), (&one, Some("b.org")), (&one, None)] {
            let servers = [host(&one, Some("a.org")), host(two, name)];
            let (_, problems) = process_groups(&servers);
            assert_eq!(problems.len(), 1);
            assert_eq!(problems[0].severity, Severity::Error);
        }
    }

    #[test]
    fn a_group_knows_the_final_name_of_its_server() {
        let config = with_groups(&[group(3, "blog")]);
        let (groups, _) = process_groups(&[host(&config, Some("a.org"))]);
        assert_eq!(groups[0].declared_in.name.as_deref(), Some(b"a.org".as_slice()));
        assert!(groups[0].declared_in.is_virtual);
    }

    #[test]
    fn a_preload_needs_its_group() {
        let config = with_import(5, "blog");
        let text = "daemon process group 'blog' is not defined";
        assert_eq!(problem(&[main_server(&config)]), (Severity::Error, 5, text.into()));
        let embedded = with_import(5, "%{GLOBAL}");
        assert_eq!(problems(&[main_server(&embedded)]), []);
    }

    #[test]
    fn a_preload_sees_the_groups_a_request_would_see() {
        let groups = [group(3, "blog")];
        let (main, owner, import) =
            (ServerConfig::new(), with_groups(&groups), with_import(5, "blog"));
        let check =
            |there, here| problems(&[main_server(&main), host(&owner, there), host(&import, here)]);
        assert_eq!(check(Some("a.org"), Some("a.org")), []);
        let (_, line, text) = check(Some("a.org"), Some("b.org")).remove(0);
        assert_eq!((line, text.contains("is not accessible in 'b.org'")), (5, true));
        for (there, here) in [(Some("a.org"), None), (None, Some("b.org"))] {
            assert!(check(there, here)[0].2.contains("is not matchable"));
        }
        let main = with_groups(&groups);
        assert_eq!(problems(&[main_server(&main), host(&import, None)]), []);
        let mut own = with_import(5, "blog");
        own.groups = groups.to_vec();
        let main = ServerConfig::new();
        assert_eq!(problems(&[main_server(&main), host(&own, None)]), []);
    }

    #[test]
    fn a_name_nobody_defines_is_a_warning() {
        let mut config = with_groups(&[group(1, "blog")]);
        for (line, name) in [(2, "blog"), (3, "shop"), (4, "%{ENV:G}"), (5, ""), (6, "%{GLOBAL}")] {
            let kind = NameKind::ProcessGroup;
            config.names.push(Named { kind, text: name.into(), at: at(line) });
        }
        let (severity, line, text) = problem(&[main_server(&config)]);
        assert_eq!((severity, line), (Severity::Warning, 3));
        assert!(text.contains("'shop'"), "{text}");
    }

    #[test]
    fn an_alias_is_checked_for_its_group_and_script_once() {
        let line = AliasLine::read(b"/ /no/such.wsgi process-group=shop").unwrap();
        let mut main = ServerConfig::new();
        main.add_alias(line.alias(Mount::Prefix(b"/".into()), at(4)));
        let vhost = main.merge(&ServerConfig::new());
        let problems = problems(&[main_server(&main), host(&vhost, Some("a.org"))]);
        let texts: Vec<_> = problems.iter().map(|(_, _, text)| text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "script '/no/such.wsgi' does not exist",
                "no daemon process group called 'shop' is defined: requests for it get a 500"
            ]
        );
    }

    #[test]
    fn what_has_no_effect_is_told_once() {
        let mut config = with_groups(&[group(8, "blog send-buffer-size=512")]);
        config.inert = vec![("WSGISocketPrefix", at(2)), ("WSGIAcceptMutex", at(3))];
        let (severity, line, text) = problem(&[main_server(&config)]);
        assert_eq!((severity, line), (Severity::Notice, 2));
        let list = "WSGISocketPrefix, WSGIAcceptMutex, send-buffer-size";
        assert!(text.ends_with(list), "{text}");
    }

    #[test]
    fn a_missing_home_is_an_error_where_it_is_written() {
        let config = with_groups(&[group(8, "blog python-home=/no/venv"), group(9, "shop")]);
        let text = "Python home '/no/venv' does not exist";
        assert_eq!(problem(&[main_server(&config)]), (Severity::Error, 8, text.into()));
    }

    #[test]
    fn the_servers_home_is_checked_where_somebody_uses_it() {
        let mut config = with_groups(&[group(8, "blog"), group(9, "shop")]);
        config.python_home = Some(("/no/home".into(), at(2)));
        assert_eq!(problem(&[main_server(&config)]).1, 2);
        config.groups = vec![group(8, "blog python=3.12")];
        assert_eq!(problem(&[main_server(&config)]).1, 2);
        config.restrict_embedded = Some(true);
        assert_eq!(problems(&[main_server(&config)]), []);
        // A virtual host has scripts asked, which is for child processes.
        let mut asking = ServerConfig::new();
        asking.asks_scripts = true;
        assert_eq!(problem(&[main_server(&config), host(&asking, Some("a"))]).1, 2);
    }

    #[test]
    fn a_system_without_python_is_told_at_the_first_group() {
        let config = with_groups(&[group(8, "blog"), group(9, "shop")]);
        let empty = tempfile::tempdir().unwrap();
        let system = System::at(empty.path());
        let around = Surroundings { system: &system, httpd: None, obstacle: |_| None };
        let problems = check(&[main_server(&config)], &around);
        assert_eq!(problems.iter().map(|problem| problem.at.line).collect::<Vec<_>>(), [8]);
    }
}
