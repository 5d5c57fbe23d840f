//! The settings of the main server or of a virtual host.
#![forbid(unsafe_code)]

use super::alias::{Alias, AliasLine, group_text};
use super::error::OptionKind;
use super::interpreters::Interpreters;
use super::option::{Arguments, readable};
use super::telemetry::Telemetry;
use super::{DirectiveError, Location, OptionError, ProcessGroup};
use crate::startup::Site;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// The settings of the main server or of a virtual host.
#[derive(Debug, Clone, Default)]
pub struct ServerConfig {
    /// Its aliases in the order they are tried.
    pub aliases: Vec<Arc<Alias>>,
    /// How many of them are its own; the others are the main server's.
    own_aliases: usize,
    /// The process groups defined in it.
    pub groups: Vec<ProcessGroup>,
    /// The scripts it wants loaded before the first request, in order.
    pub preloads: Vec<Preload>,
    /// `WSGIPythonHome`.
    pub python_home: Option<(PathBuf, Location)>,
    /// `WSGIPythonPath`: directories joined by colons.
    pub python_path: Option<(Vec<u8>, Location)>,
    /// What it says of Python itself.
    pub interpreters: Interpreters,
    /// `WSGIRestrictEmbedded`.
    pub restrict_embedded: Option<bool>,
    /// What is reported of processes.
    pub telemetry: Telemetry,
    /// `WSGIServerMetrics`.
    pub server_metrics: Option<bool>,
    /// The names that its directives and those of its sections say, for
    /// [`check`](super::check).
    pub names: Vec<Named>,
    /// The scripts that its directives and those of its sections name beside aliases
    /// and preloads, for [`check`](super::check).
    pub scripts: Vec<NamedScript>,
    /// Whether something asks scripts in child processes, which then start Python.
    pub asks_scripts: bool,
    /// Directives that are accepted and have no effect.
    pub inert: Vec<(&'static str, Location)>,
    /// What the configuration became; set once httpd has read all of it.
    pub site: OnceLock<Arc<Site>>,
}

/// A name as a directive spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What it names.
    pub kind: NameKind,
    /// As it is written.
    pub text: Vec<u8>,
    /// Where.
    pub at: Location,
}

/// What a name names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// `WSGIProcessGroup`.
    ProcessGroup,
    /// `WSGIApplicationGroup`.
    ApplicationGroup,
    /// `WSGICallableObject`.
    Callable,
    /// One of `WSGIRestrictProcess`.
    Restriction,
    /// The handler of `WSGIHandlerScript`.
    Handler,
    /// One of `WSGITrustedProxyHeaders` that there is no rule for.
    ProxyHeader,
}

/// A script as a directive names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedScript {
    /// The script.
    pub path: PathBuf,
    /// The process group whose processes run it, as it is written; `None` where that
    /// is not said.
    pub process_group: Option<Vec<u8>>,
    /// Where.
    pub at: Location,
}

/// A script to be loaded when a process starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preload {
    /// The script.
    pub script: PathBuf,
    /// The process group whose processes load it; empty is embedded mode.
    pub process_group: Vec<u8>,
    /// The application group it is loaded into; empty is the main interpreter.
    pub application_group: Vec<u8>,
    /// Who wants it.
    pub wanted_by: WantedBy,
    /// Where it is said.
    pub at: Location,
}

/// What makes a script one to be loaded early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedBy {
    /// `WSGIImportScript`; embedded mode is then started for it.
    ImportScript,
    /// `WSGIScriptAlias` with both groups fixed.
    ScriptAlias,
    /// `WSGIScriptAliasMatch` likewise, and no `$` in its target.
    ScriptAliasMatch,
}

/// Bytes as a path.
pub fn path(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

impl Preload {
    /// Reads the arguments of `WSGIImportScript`.
    pub fn read(arguments: &[u8], at: Location) -> Result<Self, DirectiveError> {
        let mut arguments = Arguments::new(arguments);
        let script = arguments.word().filter(|script| !script.is_empty());
        let script = script.ok_or(DirectiveError::Missing { wanted: "the path of a script" })?;
        let (process_group, application_group) =
            read_groups(&mut arguments).map_err(|cause| OptionKind::ImportScript.refuse(cause))?;
        Ok(Self {
            script: path(&script),
            process_group,
            application_group,
            wanted_by: WantedBy::ImportScript,
            at,
        })
    }

    /// What an alias wants loaded: its target, where nothing about it depends on
    /// a request.
    pub fn of_alias(line: &AliasLine, wanted_by: WantedBy, at: &Location) -> Option<Self> {
        let is_fixed = |name: &&Vec<u8>| !name.windows(2).any(|two| two == b"%{");
        let process_group = line.overrides.process_group.as_ref().filter(is_fixed)?;
        let application_group = line.overrides.application_group.as_ref().filter(is_fixed)?;
        if wanted_by == WantedBy::ScriptAliasMatch && line.target.contains(&b'$') {
            return None;
        }
        Some(Self {
            script: path(&line.target),
            process_group: process_group.clone(),
            application_group: application_group.clone(),
            wanted_by,
            at: at.clone(),
        })
    }
}

/// Reads the two options of `WSGIImportScript`, both of which must be there.
fn read_groups(arguments: &mut Arguments<'_>) -> Result<(Vec<u8>, Vec<u8>), OptionError> {
    let (mut process, mut application) = (None, None);
    while let Some(pair) = arguments.pair()? {
        let (name, group) = match pair.name {
            b"process-group" => ("process-group", &mut process),
            b"application-group" => ("application-group", &mut application),
            _ => return Err(OptionError::Unknown(readable(pair.name))),
        };
        if pair.value.is_empty() {
            return Err(OptionError::Empty(name));
        }
        *group = Some(group_text(pair.value));
    }
    Ok((
        process.ok_or(OptionError::Required("process-group"))?,
        application.ok_or(OptionError::Required("application-group"))?,
    ))
}

impl ServerConfig {
    /// A server that says nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an alias of this server.
    pub fn add_alias(&mut self, alias: Alias) {
        self.aliases.insert(self.own_aliases, Arc::new(alias));
        self.own_aliases += 1;
    }

    /// The aliases written in this server.
    pub fn own_aliases(&self) -> &[Arc<Alias>] {
        self.aliases.get(..self.own_aliases).unwrap_or_default()
    }

    /// The settings of `host`, a virtual host of this main server.
    ///
    /// Groups and preloads stay with the server that defines them; what only
    /// the main server may say is the same for all.
    #[must_use]
    pub fn merge(&self, host: &Self) -> Self {
        Self {
            aliases: host.aliases.iter().chain(&self.aliases).cloned().collect(),
            own_aliases: host.own_aliases,
            groups: host.groups.clone(),
            preloads: host.preloads.clone(),
            python_home: self.python_home.clone(),
            python_path: self.python_path.clone(),
            interpreters: self.interpreters.clone(),
            restrict_embedded: self.restrict_embedded,
            telemetry: self.telemetry.clone(),
            server_metrics: self.server_metrics,
            names: host.names.clone(),
            scripts: host.scripts.clone(),
            asks_scripts: host.asks_scripts,
            inert: host.inert.clone(),
            site: OnceLock::new(),
        }
    }

    /// Whether requests may not run in the child processes.
    pub fn restrict_embedded(&self) -> bool {
        self.restrict_embedded.unwrap_or(false)
    }

    /// Whether embedded applications may see httpd's scoreboard.
    pub fn server_metrics(&self) -> bool {
        self.server_metrics.unwrap_or(false)
    }

    /// Whether this server defines the group.
    pub fn defines(&self, group: &[u8]) -> bool {
        self.groups.iter().any(|own| own.name == group)
    }
}

#[cfg(test)]
mod tests {
    use super::super::alias::Mount;
    use super::*;

    fn alias(url: &str) -> Alias {
        let line = AliasLine::read(format!("{url} /s").as_bytes()).unwrap();
        line.alias(Mount::Prefix(url.into()), Location::default())
    }

    fn urls(aliases: &[Arc<Alias>]) -> Vec<String> {
        let url = |alias: &Arc<Alias>| match &alias.mount {
            Mount::Prefix(url) => readable(url),
            Mount::Pattern(_) => String::new(),
        };
        aliases.iter().map(url).collect()
    }

    fn preload(line: &str, wanted_by: WantedBy) -> Option<Preload> {
        let line = AliasLine::read(line.as_bytes()).unwrap();
        Preload::of_alias(&line, wanted_by, &Location::default())
    }

    #[test]
    fn a_virtual_hosts_aliases_come_before_the_main_servers() {
        let mut main = ServerConfig::default();
        main.add_alias(alias("/1"));
        main.add_alias(alias("/2"));
        let mut host = ServerConfig::default();
        host.add_alias(alias("/3"));
        host.add_alias(alias("/4"));
        let merged = main.merge(&host);
        assert_eq!(urls(&merged.aliases), ["/3", "/4", "/1", "/2"]);
        assert_eq!(urls(merged.own_aliases()), ["/3", "/4"]);
    }

    #[test]
    fn a_virtual_host_has_the_main_servers_python_but_not_its_groups() {
        let main = ServerConfig {
            groups: vec![ProcessGroup { name: b"blog".into(), ..ProcessGroup::default() }],
            python_path: Some((b"/p".into(), Location::default())),
            restrict_embedded: Some(true),
            ..ServerConfig::default()
        };
        let merged = main.merge(&ServerConfig::default());
        assert!(main.defines(b"blog") && !merged.defines(b"blog"));
        assert_eq!(merged.python_path, main.python_path);
        assert!(merged.restrict_embedded());
    }

    #[test]
    fn an_import_needs_a_script_and_both_groups() {
        let read = |line: &str| Preload::read(line.as_bytes(), Location::default());
        let preload = read("/s process-group=blog application-group=%{GLOBAL}").unwrap();
        assert_eq!(preload.script, PathBuf::from("/s"));
        assert_eq!(
            (&*preload.process_group, &*preload.application_group),
            (&b"blog"[..], &b""[..])
        );
        assert_eq!(read("").unwrap_err().to_string(), "requires the path of a script");
        for (line, sentence) in [
            ("/s process-group=blog", "option 'application-group' is required"),
            ("/s application-group=a", "option 'process-group' is required"),
            ("/s process-group=", "option 'process-group' must not be empty"),
            ("/s group=x", "unknown option 'group'"),
        ] {
            assert!(read(line).unwrap_err().to_string().ends_with(sentence));
        }
    }

    #[test]
    fn an_alias_with_both_groups_fixed_is_loaded_early() {
        let found =
            preload("/a /s process-group=b application-group=%{GLOBAL}", WantedBy::ScriptAlias);
        let found = found.unwrap();
        assert_eq!((&*found.process_group, &*found.application_group), (&b"b"[..], &b""[..]));
        for line in [
            "/a /s process-group=b",
            "/a /s application-group=b",
            "/a /s process-group=%{SERVER} application-group=a",
            "/a /s process-group=b application-group=x%{y",
        ] {
            assert_eq!(preload(line, WantedBy::ScriptAlias), None, "{line}");
        }
    }

    #[test]
    fn a_target_with_a_capture_cannot_be_loaded_early() {
        let line = "/a /s$1 process-group=b application-group=a";
        assert_eq!(preload(line, WantedBy::ScriptAliasMatch), None);
        assert!(preload(line, WantedBy::ScriptAlias).is_some());
    }
}
