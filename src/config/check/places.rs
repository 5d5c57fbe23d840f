//! Files and directories that are not there, or not open to who needs them.
#![forbid(unsafe_code)]

use super::access::{Account, obstacle};
use super::{Problem, Server, Surroundings};
use crate::config::alias::{Alias, Mount};
use crate::config::environment::read_file;
use crate::config::group::GroupName;
use crate::config::option::readable;
use crate::config::python::Python;
use crate::config::root::Root;
use crate::config::server::{NamedScript, Preload, WantedBy};
use crate::config::{Location, ProcessGroup};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The home of users that are to have none: it must never be made (Debian
/// policy 9.2.3; others follow), so nobody need wait for it.
const NEVER: &str = "/nonexistent";

/// Whether the group's processes see other files than httpd does.
fn is_elsewhere(name: &[u8], groups: &[ProcessGroup]) -> bool {
    groups.iter().any(|group| group.name == name && group.chroot.is_some())
}

/// Scripts that are not there, or that nobody who would run them may read.
pub fn scripts(
    server: &Server<'_>,
    groups: &[ProcessGroup],
    around: &Surroundings<'_>,
) -> Vec<Problem> {
    let of_alias = |alias: &Alias| {
        let is_fixed = matches!(alias.mount, Mount::Prefix(_)) || !alias.target.contains(&b'$');
        let script = Path::new(OsStr::from_bytes(&alias.target));
        let group = alias.overrides.process_group.as_deref();
        let fault =
            if is_fixed { alias_fault(script, group, groups, around)? } else { return None };
        Some(script_problem(script, &fault, &alias.at))
    };
    let of_import = |preload: &Preload| {
        let is_ours = preload.wanted_by == WantedBy::ImportScript
            && !is_elsewhere(&preload.process_group, groups);
        let readers = || readers(Some(&preload.process_group), groups, around);
        let fault = if is_ours { script_fault(&preload.script, readers)? } else { return None };
        Some(script_problem(&preload.script, &fault, &preload.at))
    };
    let of_name = |named: &NamedScript| {
        let group = named.process_group.as_deref();
        // Where a section chooses the group, it may be any of them.
        let is_elsewhere = match group {
            Some(group) => is_elsewhere(group, groups),
            None => groups.iter().any(|group| group.chroot.is_some()),
        };
        if is_elsewhere {
            return None;
        }
        let fault = script_fault(&named.path, || readers(group, groups, around))?;
        Some(script_problem(&named.path, &fault, &named.at))
    };
    let aliases = server.config.own_aliases().iter().filter_map(|alias| of_alias(alias));
    let imports = server.config.preloads.iter().filter_map(of_import);
    let named = server.config.scripts.iter().filter_map(of_name);
    aliases.chain(imports).chain(named).collect()
}

/// What is wrong with a script.
fn script_problem(script: &Path, fault: &str, at: &Location) -> Problem {
    Problem::warning("WSGI9203", at, format!("script '{}' {fault}", script.display()))
}

/// What is wrong with the target of an alias: httpd has to find it, and a process
/// of its group to read it.
fn alias_fault(
    script: &Path,
    group: Option<&[u8]>,
    groups: &[ProcessGroup],
    around: &Surroundings<'_>,
) -> Option<String> {
    let fault = script_fault(script, || readers(group, groups, around));
    let group = groups.iter().find(|it| Some(it.name.as_slice()) == group);
    let fault = fault.or_else(|| outside(script, group?.chroot.as_deref()?));
    fault.or_else(|| {
        let httpd = around.httpd.as_ref()?;
        let closed = obstacle(script.parent()?, &[], httpd)?;
        Some(format!("cannot be reached by httpd's User {httpd}: '{}' is closed", closed.display()))
    })
}

/// What is wrong with a script that the processes of its group cannot see.
fn outside(script: &Path, root: &Path) -> Option<String> {
    let is_outside = Root::new(root).inside(script.as_os_str().as_bytes()).is_none();
    is_outside
        .then(|| format!("lies outside of '{}', the chroot of its process group", root.display()))
}

/// What is wrong with the path of a script; `readers` are all who may come to
/// run it.
fn script_fault(script: &Path, readers: impl Fn() -> Vec<Account>) -> Option<String> {
    // Where a relative path leads depends on where httpd is started from.
    if script.is_relative() {
        return Some("is not an absolute path".to_owned());
    }
    let kind = match fs::metadata(script) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some("does not exist".to_owned());
        }
        Err(_) => return None,
        Ok(found) => found,
    };
    let file = if kind.is_dir() { None } else { script.file_name() };
    let directory = if kind.is_dir() { script } else { script.parent()? };
    let readers = readers();
    let faults: Vec<String> = readers
        .iter()
        .map_while(|reader| {
            let closed = obstacle(directory, file.as_slice(), reader)?;
            Some(format!("cannot be read by user {reader}: '{}' is closed", closed.display()))
        })
        .collect();
    // One of them may be the right one.
    if faults.len() == readers.len() { faults.into_iter().next() } else { None }
}

/// Who may come to run scripts of a process group; of any where it is not known.
fn readers(
    group: Option<&[u8]>,
    groups: &[ProcessGroup],
    around: &Surroundings<'_>,
) -> Vec<Account> {
    let Some(httpd) = &around.httpd else { return Vec::new() };
    let of_group = |group: &ProcessGroup| Account::of_group(group, httpd);
    match group.map(GroupName::parse) {
        Some(GroupName::Literal(name)) if name.is_empty() => vec![httpd.clone()],
        Some(GroupName::Literal(name)) => groups
            .iter()
            .filter(|group| group.name == name && group.chroot.is_none())
            .map(of_group)
            .collect(),
        _ => std::iter::once(httpd.clone()).chain(groups.iter().map(of_group)).collect(),
    }
}

/// Directories the processes of a group cannot start without.
pub fn of_group(group: &ProcessGroup, around: &Surroundings<'_>) -> Vec<Problem> {
    let chroot = group.chroot.as_deref().and_then(|root| directory("chroot", root, group));
    // Below another root the home is looked for there.
    let home = group.home.as_deref().filter(|_| group.chroot.is_none());
    let missing = home.and_then(|home| directory("home", home, group));
    let closed = home
        .or_else(|| users_home(group, around))
        .and_then(|home| closed_home(home, group, around.httpd.as_ref()?));
    let found = [chroot, missing, missing_users_home(group, around), closed];
    found.into_iter().flatten().collect()
}

/// What is wrong with a directory that an option names.
fn directory(option: &str, path: &Path, group: &ProcessGroup) -> Option<Problem> {
    let name = readable(&group.name);
    let shown = format!("{option} '{}' of daemon process group '{name}'", path.display());
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => None,
        Ok(_) => Some(Problem::error("WSGI9207", &group.at, format!("{shown} is not a directory"))),
        // It may be mounted, or deployed, a moment later.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("{shown} does not exist: no process starts before it does");
            Some(Problem::warning("WSGI9207", &group.at, text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Some(Problem::error("WSGI9207", &group.at, format!("{shown}: {error}")))
        }
        // Root will see; `apachectl configtest` need not be root.
        Err(_) => None,
    }
}

/// The home of the group's user, where processes go if it is not httpd's user and
/// the group says nothing else.
fn users_home<'g>(group: &'g ProcessGroup, around: &Surroundings<'_>) -> Option<&'g Path> {
    let (user, httpd) = (group.user.as_ref()?, around.httpd.as_ref()?);
    let is_used = group.home.is_none() && group.chroot.is_none() && user.uid != httpd.uid;
    is_used.then_some(user.home.as_path())
}

/// A directory that the group's user may not enter.
fn closed_home(home: &Path, group: &ProcessGroup, httpd: &Account) -> Option<Problem> {
    let account = Account::of_group(group, httpd);
    let closed = obstacle(home, &[], &account)?;
    let text = format!(
        "user {account} of daemon process group '{}' may not enter '{}': '{}' is closed, and no \
         process starts before it is not",
        readable(&group.name),
        home.display(),
        closed.display()
    );
    Some(Problem::warning("WSGI9207", &group.at, text))
}

/// A home of the group's user that is not there.
fn missing_users_home(group: &ProcessGroup, around: &Surroundings<'_>) -> Option<Problem> {
    let user = group.user.as_ref()?;
    if users_home(group, around)?.is_dir() {
        return None;
    }
    let text = format!(
        "the home directory '{}' of user '{}' is not there, and daemon process group '{}' says \
         no home=: its processes cannot start",
        user.home.display(),
        user.name,
        readable(&group.name)
    );
    let is_certain = user.home == Path::new(NEVER) || user.home.exists();
    let problem = if is_certain { Problem::error } else { Problem::warning };
    Some(problem("WSGI9207", &group.at, text))
}

/// A Python that an account may not read.
pub fn python(python: &Python, at: &Location, account: &Account) -> Option<Problem> {
    let library = &python.libpython;
    let modules = python.base_prefix.join(format!("lib/python{}", python.version));
    let file = library.file_name();
    let closed = obstacle(library.parent()?, file.as_slice(), account);
    let closed = closed.or_else(|| obstacle(&modules, &[], account));
    // Of a virtual environment.
    let closed = closed.or_else(|| obstacle(python.program.parent()?, &[], account))?;
    let text = format!(
        "Python {} cannot be read by user {account}: '{}' is closed",
        python.version,
        closed.display()
    );
    Some(Problem::warning("WSGI9205", at, text))
}

/// Directories of a search path that are not there.
pub fn python_path(path: &[u8], at: &Location) -> Vec<Problem> {
    let entries = path.split(|&byte| byte == b':').map(|entry| Path::new(OsStr::from_bytes(entry)));
    let is_missing = |entry: &&Path| {
        let found = fs::metadata(entry);
        entry.is_absolute() && found.is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    };
    let problem = |entry: &Path| {
        let text = format!("'{}' in the Python path does not exist", entry.display());
        Problem::warning("WSGI9212", at, text)
    };
    entries.filter(is_missing).map(problem).collect()
}

/// A file of variables that cannot be used.
pub fn env_file(group: &ProcessGroup) -> Option<Problem> {
    let file = group.env_file.as_ref()?;
    let error = read_file(file).err()?;
    if error.is_for_root_only() {
        // Root will read it; `apachectl configtest` need not be root.
        return None;
    }
    let text = format!("env-file '{}': {error}", file.display());
    Some(Problem::error("WSGI9206", &group.at, text))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, group, main_server, problem, problems, with_groups};
    use super::super::{Severity, Surroundings, System};
    use super::*;
    use crate::config::ServerConfig;
    use crate::config::alias::AliasLine;
    use crate::config::identity::User;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_working_directory_that_is_missing_is_a_warning() {
        let config = with_groups(&[group(8, "blog home=/no/such/place"), group(9, "shop home=/")]);
        let (severity, line, text) = problem(&[main_server(&config)]);
        assert_eq!((severity, line), (Severity::Warning, 8));
        let wanted = "home '/no/such/place' of daemon process group 'blog' does not exist";
        assert!(text.starts_with(wanted), "{text}");
    }

    #[test]
    fn a_working_directory_that_is_a_file_is_an_error() {
        for path in ["/etc/passwd", "/etc/passwd/x"] {
            let config = with_groups(&[group(8, &format!("blog home={path}"))]);
            let (severity, line, _) = problem(&[main_server(&config)]);
            assert_eq!((severity, line), (Severity::Error, 8));
        }
    }

    /// What is said of a group of a user with this home, under another user's httpd.
    fn with_home(home: &str, options: &str) -> Vec<Problem> {
        let user = User { name: "joe".into(), uid: 70_000, home: home.into() };
        let group = ProcessGroup { user: Some(user), ..group(3, &format!("blog {options}")) };
        let system = System::default();
        let httpd = Some(Account { name: "www".into(), uid: 70_001, gids: vec![70_001] });
        of_group(&group, &Surroundings { system: &system, httpd, obstacle: |_| None })
    }

    #[test]
    fn the_home_of_another_user_is_looked_at_where_it_is_used() {
        assert_eq!(with_home("/", ""), []);
        assert_eq!(with_home("/no/such/place", "home=/"), []);
        let found = with_home("/no/such/place", "");
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(found[0].text.contains("'/no/such/place' of user 'joe'"), "{}", found[0].text);
        for never in [NEVER, "/etc/passwd"] {
            assert_eq!(with_home(never, "")[0].severity, Severity::Error, "{never}");
        }
    }

    #[test]
    fn directories_of_the_search_path_must_be_there() {
        let mut config = with_groups(&[group(8, "blog python-path=/:/no/one:relative:/no/two")]);
        config.python_path = Some((b"/no/three".into(), at(2)));
        let found = problems(&[main_server(&config)]);
        let lines: Vec<_> = found.iter().map(|(severity, line, _)| (*severity, *line)).collect();
        let warning = Severity::Warning;
        assert_eq!(lines, [(warning, 2), (warning, 8), (warning, 8)]);
        assert!(found[2].2.contains("'/no/two'"), "{found:?}");
    }

    #[test]
    fn a_script_is_read_by_who_runs_it() {
        let tree = tempfile::tempdir().unwrap();
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let script = tree.path().join("app.wsgi");
        fs::write(&script, "").unwrap();
        let system = System::default();
        let httpd = Some(Account { name: "www".into(), uid: 70_001, gids: vec![70_001] });
        let around = Surroundings { system: &system, httpd, obstacle: |_| None };
        let joe = User { name: "joe".into(), uid: 70_000, home: "/".into() };
        let groups = [ProcessGroup { user: Some(joe), ..group(3, "blog") }];
        let check = |options: &str, mode: u32| {
            fs::set_permissions(&script, fs::Permissions::from_mode(mode)).unwrap();
            let line = AliasLine::read(format!("/ {} {options}", script.display()).as_bytes());
            let mut config = ServerConfig::new();
            config.add_alias(line.unwrap().alias(Mount::Prefix(b"/".into()), at(4)));
            let found = scripts(&main_server(&config), &groups, &around);
            found.into_iter().next().map(|problem| problem.text)
        };
        assert_eq!(check("process-group=blog", 0o644), None);
        let said = check("process-group=blog", 0o600).unwrap();
        assert!(said.contains("cannot be read by user 'joe'"), "{said}");
        assert!(check("", 0o600).unwrap().contains("cannot be read by user 'www'"));
    }

    #[test]
    fn a_file_of_variables_must_be_readable_as_such() {
        let tree = tempfile::tempdir().unwrap();
        let file = tree.path().join("env");
        let config = with_groups(&[group(8, &format!("blog env-file={}", file.display()))]);
        assert!(problem(&[main_server(&config)]).2.contains("No such file"));
        fs::write(&file, "secret").unwrap();
        let text = problem(&[main_server(&config)]).2;
        assert!(text.ends_with("line 1: wanted NAME=VALUE, found none"), "{text}");
        fs::write(&file, "A=secret").unwrap();
        assert_eq!(problems(&[main_server(&config)]), []);
        for mode in [0o602, 0o660] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let (severity, line, text) = problem(&[main_server(&config)]);
            assert_eq!((severity, line), (Severity::Error, 8));
            assert!(text.contains("others may write it"), "{text}");
        }
    }
}
