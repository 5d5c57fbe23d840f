//! Every directive the module understands.  One row each: name, where it may
//! stand, what reads it, and the usage text httpd prints.
#![forbid(unsafe_code)]

use super::alias::{AliasLine, Mount};
use super::dir::{MapHeadToGet, RestrictProcess};
use super::error::{OptionKind, switch};
use super::group::{CallableName, GroupName};
use super::handler_script::HandlerLine;
use super::interpreter_directives as interpreter;
use super::option::readable;
use super::process_group::DeclaringServer;
use super::provider::ProviderScript;
use super::server::{NameKind, Named, NamedScript, Preload, WantedBy, path};
use super::telemetry::Service;
use super::{DirectiveError, Location, daemon_options};
use crate::httpd::command::Place::{
    AuthConfig, FileInfo, Global, GlobalOrBlock, Server, ServerOrDirectory,
};
use crate::httpd::command::{Command, Directive, Reading, Scope, Words, commands};
use crate::httpd::regex::Regex;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

/// In the order of the reference manual.
#[rustfmt::skip]
static DIRECTIVES: [Directive; 49] = [
    Directive::raw(  c"WSGIScriptAlias",       Server,            script_alias,       c"a URL path, then the script (or directory of scripts) that answers it"),
    Directive::raw(  c"WSGIScriptAliasMatch",  Server,            script_alias_match, c"a regular expression for URL paths, then the script that answers them"),
    Directive::take1(c"WSGICallableObject",    FileInfo,          callable_object,    c"name of the application object in a script"),
    Directive::raw(  c"WSGIHandlerScript",     ServerOrDirectory, handler_script,     c"name of a handler, then the script that answers its requests"),
    Directive::raw(  c"WSGIDispatchScript",    ServerOrDirectory, dispatch_script,    c"a script that chooses where requests run"),
    Directive::raw(  c"WSGIImportScript",      Server,            import_script,      c"a script to load when a process starts, then its process and application group"),
    Directive::take1(c"WSGIProcessGroup",      ServerOrDirectory, process_group,      c"name of the daemon process group that applications run in"),
    Directive::take1(c"WSGIApplicationGroup",  ServerOrDirectory, application_group,  c"name of the application group that applications belong to"),
    Directive::raw(  c"WSGIRestrictProcess",   ServerOrDirectory, restrict_process,   c"names of the process groups that applications may run in"),
    Directive::take1(c"WSGIRestrictEmbedded",  Global,            restrict_embedded,  c"On or Off: whether the child processes refuse to run applications"),
    Directive::raw(  c"WSGIDaemonProcess",     Server,            daemon_process,     c"name of a daemon process group, then its options"),
    Directive::take1(c"WSGISocketPrefix",      Global,            socket_prefix,      c"a path; accepted for compatibility, there are no named sockets"),
    Directive::take1(c"WSGISocketRotation",    Global,            socket_rotation,    c"On or Off; accepted for compatibility, there are no named sockets"),
    Directive::take1(c"WSGIAcceptMutex",       Global,            accept_mutex,       c"a kind of lock; accepted for compatibility, there is no such lock"),
    Directive::take1(c"WSGIPassAuthorization", FileInfo,          pass_authorization, c"On or Off: whether applications see the credentials of a request"),
    Directive::take1(c"WSGIScriptReloading",   FileInfo,          script_reloading,   c"On or Off: whether scripts that changed are loaded again"),
    Directive::take1(c"WSGIErrorOverride",     FileInfo,          error_override,     c"On or Off: whether httpd's error documents replace those of applications"),
    Directive::take1(c"WSGIChunkedRequest",    FileInfo,          chunked_request,    c"On or Off: whether a request may come without its length"),
    Directive::take1(c"WSGIMapHEADToGET",      FileInfo,          map_head_to_get,    c"Off, On or Auto: whether applications see HEAD as GET"),
    Directive::take1(c"WSGIIgnoreActivity",    FileInfo,          ignore_activity,    c"On or Off: whether requests leave the inactivity timer alone"),
    Directive::raw(  c"WSGITrustedProxyHeaders", FileInfo,        trusted_proxy_headers, c"names of the headers in which proxies tell about a request"),
    Directive::raw(  c"WSGITrustedProxies",    FileInfo,          trusted_proxies,    c"IP addresses and subnets of the proxies to believe"),
    Directive::take1(c"WSGIEnableSendfile",    FileInfo,          enable_sendfile,    c"On or Off: whether the kernel may send files"),
    Directive::take1(c"WSGIPassApacheRequest", ServerOrDirectory, pass_apache_request, c"On or Off: whether embedded applications get httpd's record of a request"),
    Directive::raw(  c"WSGIAccessScript",      AuthConfig,        access_script,      c"a script that says who may see a resource"),
    Directive::raw(  c"WSGIAuthUserScript",    AuthConfig,        auth_user_script,   c"a script that knows users and passwords"),
    Directive::raw(  c"WSGIAuthGroupScript",   AuthConfig,        auth_group_script,  c"a script that knows the groups of users"),
    Directive::take1(c"WSGIGroupAuthoritative", AuthConfig,       group_authoritative, c"On or Off; accepted for compatibility, without effect"),
    Directive::take1(c"WSGIPythonHome",        Global,            python_home,        c"a virtual environment or the prefix of a Python installation"),
    Directive::take1(c"WSGIPythonPath",        GlobalOrBlock,     python_path,        c"directories to look for modules in, joined by colons"),
    Directive::take1(c"WSGIPythonEggs",        Global,            interpreter::python_eggs,         c"a directory for the egg cache of embedded mode"),
    Directive::take1(c"WSGIPythonOptimize",    Global,            interpreter::python_optimize,     c"level of optimisation: 0, 1 or 2"),
    Directive::take1(c"WSGIDontWriteBytecode", Global,            interpreter::dont_write_bytecode, c"On or Off: whether Python writes no bytecode files"),
    Directive::take1(c"WSGIPythonWarnings",    Global,            interpreter::python_warnings,     c"a filter for warnings, as after python -W"),
    Directive::take1(c"WSGIPythonHashSeed",    Global,            interpreter::python_hash_seed,    c"random, or a number for the hashes of strings to begin with"),
    Directive::section(c"<WSGIInterpreterOptions", Global,        interpreter::section,             c"process-group=NAME, application-group=NAME, both or none"),
    Directive::take1(c"WSGISwitchInterval",    GlobalOrBlock,     interpreter::switch_interval,     c"seconds a thread computes before another has its turn"),
    Directive::take1(c"WSGIPerInterpreterGIL", GlobalOrBlock,     interpreter::per_interpreter_gil, c"On or Off: whether sub-interpreters have locks of their own"),
    Directive::take1(c"WSGIFreeThreading",     GlobalOrBlock,     interpreter::free_threading,      c"On or Off: whether a free-threaded Python does without its lock"),
    Directive::take1(c"WSGIDestroyInterpreter", Global,           interpreter::destroy_interpreter, c"On or Off: whether Python is ended when a process ends"),
    Directive::take1(c"WSGIRestrictStdin",     GlobalOrBlock,     interpreter::restrict_stdin,      c"On or Off: whether sys.stdin is out of reach"),
    Directive::take1(c"WSGIRestrictStdout",    GlobalOrBlock,     interpreter::restrict_stdout,     c"On or Off: whether sys.stdout is out of reach"),
    Directive::take1(c"WSGIRestrictSignal",    GlobalOrBlock,     interpreter::restrict_signal,     c"On or Off: whether signal.signal has no effect"),
    Directive::take1(c"WSGICaseSensitivity",   Global,            interpreter::case_sensitivity,    c"On or Off: whether the case of paths counts"),
    Directive::take1(c"WSGIVerboseDebugging",  Global,            interpreter::verbose_debugging,   c"On or Off; accepted for compatibility, see LogLevel"),
    Directive::take1(c"WSGIServerMetrics",     Global,            server_metrics,     c"On or Off: whether embedded applications may see what httpd's processes do"),
    Directive::raw(  c"WSGITelemetryService",  Global,            telemetry_service,  c"unix: and the path of a datagram socket, then interval=SECONDS"),
    Directive::take1(c"WSGISlowRequests",      Global,            slow_requests,      c"seconds from which on telemetry tells of a request by itself; 0 for never"),
    Directive::raw(  c"WSGITelemetryOptions",  Global,            telemetry_options,  c"None, All, or [+|-]CaptureUserAgent"),
];

/// [`DIRECTIVES`] in the form httpd reads.
pub static COMMANDS: [Command; DIRECTIVES.len() + 1] = commands(&DIRECTIVES);

/// Where the directive stands.
pub(super) fn location(scope: &Scope<'_>) -> Location {
    Location { file: readable(&scope.file()), line: scope.line() }
}

/// `WSGIScriptAlias`.
fn script_alias(scope: &mut Scope<'_>, words: &mut Words<'_>) -> Reading {
    let line = AliasLine::read(words.rest())?;
    let mount = Mount::Prefix(line.url.clone());
    add_alias(scope, line, mount, WantedBy::ScriptAlias);
    Ok(())
}

/// `WSGIScriptAliasMatch`.
fn script_alias_match(scope: &mut Scope<'_>, words: &mut Words<'_>) -> Reading {
    let line = AliasLine::read(words.rest())?;
    let pattern =
        Regex::new(&line.url).ok_or_else(|| DirectiveError::Pattern(readable(&line.url)))?;
    add_alias(scope, line, Mount::Pattern(Arc::new(pattern)), WantedBy::ScriptAliasMatch);
    Ok(())
}

/// Stores an alias, and its script as one to be loaded early if it is fixed.
fn add_alias(scope: &mut Scope<'_>, line: AliasLine, mount: Mount, wanted_by: WantedBy) {
    let at = location(scope);
    scope.server.preloads.extend(Preload::of_alias(&line, wanted_by, &at));
    scope.server.add_alias(line.alias(mount, at));
}

/// Notes a name for the check of the whole configuration.
fn note_name(scope: &mut Scope<'_>, kind: NameKind, text: &[u8]) {
    let at = location(scope);
    scope.server.names.push(Named { kind, text: text.to_vec(), at });
}

/// `WSGICallableObject`.
fn callable_object(scope: &mut Scope<'_>, name: &[u8]) -> Reading {
    scope.dir.callable = Some(CallableName::parse(name));
    note_name(scope, NameKind::Callable, name);
    Ok(())
}

/// `WSGIHandlerScript`.
fn handler_script(scope: &mut Scope<'_>, words: &mut Words<'_>) -> Reading {
    let line = HandlerLine::read(words.rest())?;
    note_name(scope, NameKind::Handler, &line.name);
    if let Some(group) = line.overrides.process_group.as_deref() {
        note_name(scope, NameKind::ProcessGroup, group);
    }
    if let Some(group) = line.overrides.application_group.as_deref() {
        note_name(scope, NameKind::ApplicationGroup, group);
    }
    note_script(scope, &line.path, line.overrides.process_group.clone());
    let script = Arc::new(line.script());
    Arc::make_mut(scope.dir.handlers.get_or_insert_default()).insert(line.name, script);
    Ok(())
}

/// Notes a script for the check of the whole configuration.
fn note_script(scope: &mut Scope<'_>, script: &[u8], process_group: Option<Vec<u8>>) {
    let at = location(scope);
    scope.server.scripts.push(NamedScript { path: path(script), process_group, at });
}

/// Reads a directive that names a script to be asked in child processes.
fn provider(
    scope: &mut Scope<'_>,
    words: &mut Words<'_>,
    kind: OptionKind,
) -> Result<Option<Arc<ProviderScript>>, DirectiveError> {
    let script = ProviderScript::read(words.rest(), kind)?;
    note_script(scope, &script.path, Some(Vec::new()));
    scope.server.asks_scripts = true;
    Ok(Some(Arc::new(script)))
}

/// `WSGIDispatchScript`.
fn dispatch_script(scope: &mut Scope<'_>, words: &mut Words<'_>) -> Reading {
    scope.dir.dispatch_script = provider(scope, words, OptionKind::DispatchScript)?;
    Ok(())
}

/// `WSGIAccessScript`.
fn access_script(scope: &mut Scope<'_>, words: &mut Words<'_>) -> Reading {
    scope.dir.access_script = provider(scope, words, OptionKind::AccessScript)?;
    Ok(())
}

/// `WSGIAuthUserScript`.
fn auth_user_script(scope: &mut Scope<'_>, words: &mut Words<'_>) -> Reading {
    scope.dir.auth_user_script = provider(scope, words, OptionKind::AuthUserScript)?;
    Ok(())
}

/// `WSGIAuthGroupScript`.
fn auth_group_script(scope: &mut Scope<'_>, words: &mut Words<'_>) -> Reading {
    scope.dir.auth_group_script = provider(scope, words, OptionKind::AuthGroupScript)?;
    Ok(())
}

/// `WSGIGroupAuthoritative`: httpd 2.4 asks every provider itself.
fn group_authoritative(_scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    switch(word).map(drop)
}

/// `WSGIPassApacheRequest`.
fn pass_apache_request(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.dir.pass_apache_request = Some(switch(word)?);
    Ok(())
}

/// `WSGIImportScript`.
fn import_script(scope: &mut Scope<'_>, words: &mut Words<'_>) -> Reading {
    let preload = Preload::read(words.rest(), location(scope))?;
    scope.server.preloads.push(preload);
    Ok(())
}

/// `WSGIProcessGroup`.
fn process_group(scope: &mut Scope<'_>, name: &[u8]) -> Reading {
    scope.dir.process_group = Some(GroupName::parse(name));
    note_name(scope, NameKind::ProcessGroup, name);
    Ok(())
}

/// `WSGIApplicationGroup`.
fn application_group(scope: &mut Scope<'_>, name: &[u8]) -> Reading {
    scope.dir.application_group = Some(GroupName::parse(name));
    note_name(scope, NameKind::ApplicationGroup, name);
    Ok(())
}

/// `WSGIRestrictProcess`.
fn restrict_process(scope: &mut Scope<'_>, names: &mut Words<'_>) -> Reading {
    let names: Vec<Vec<u8>> = names.collect();
    names.iter().for_each(|name| note_name(scope, NameKind::Restriction, name));
    scope.dir.restrict_process = Some(RestrictProcess::read(names));
    Ok(())
}

/// `WSGIRestrictEmbedded`.
fn restrict_embedded(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.server.restrict_embedded = Some(switch(word)?);
    Ok(())
}

/// `WSGIDaemonProcess`.
fn daemon_process(scope: &mut Scope<'_>, words: &mut Words<'_>) -> Reading {
    let mut group = daemon_options::read(words.rest())?;
    group.at = location(scope);
    group.declared_in = DeclaringServer {
        name: scope.server_record().hostname().map(<[u8]>::to_vec),
        is_virtual: !scope.is_main(),
    };
    scope.server.groups.push(group);
    Ok(())
}

/// `WSGISocketPrefix`.
fn socket_prefix(scope: &mut Scope<'_>, path: &[u8]) -> Reading {
    scope.resolve(path).ok_or_else(|| DirectiveError::Path(readable(path)))?;
    ignore(scope, "WSGISocketPrefix")
}

/// `WSGISocketRotation`.
fn socket_rotation(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    switch(word)?;
    ignore(scope, "WSGISocketRotation")
}

/// `WSGIAcceptMutex`.
fn accept_mutex(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    let words: [&[u8]; 6] = [b"default", b"flock", b"fcntl", b"sysvsem", b"posixsem", b"pthread"];
    if !words.iter().any(|known| word.eq_ignore_ascii_case(known)) {
        let wanted = "default | flock | fcntl | sysvsem | posixsem | pthread";
        return Err(DirectiveError::Word { wanted, found: readable(word) });
    }
    ignore(scope, "WSGIAcceptMutex")
}

/// Notes a directive that has no effect, for the one notice about all of them.
fn ignore(scope: &mut Scope<'_>, name: &'static str) -> Reading {
    let at = location(scope);
    scope.server.inert.push((name, at));
    Ok(())
}

/// `WSGIPassAuthorization`.
fn pass_authorization(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.dir.pass_authorization = Some(switch(word)?);
    Ok(())
}

/// `WSGIScriptReloading`.
fn script_reloading(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.dir.script_reloading = Some(switch(word)?);
    Ok(())
}

/// `WSGIErrorOverride`.
fn error_override(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.dir.error_override = Some(switch(word)?);
    Ok(())
}

/// `WSGIChunkedRequest`.
fn chunked_request(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.dir.chunked_request = Some(switch(word)?);
    Ok(())
}

/// `WSGIMapHEADToGET`.
fn map_head_to_get(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.dir.map_head_to_get = Some(MapHeadToGet::read(word)?);
    Ok(())
}

/// `WSGIIgnoreActivity`.
fn ignore_activity(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.dir.ignore_activity = Some(switch(word)?);
    Ok(())
}

/// `WSGITrustedProxyHeaders`.
fn trusted_proxy_headers(scope: &mut Scope<'_>, names: &mut Words<'_>) -> Reading {
    // Without any name it still replaces what an outer section says.
    let mut headers = scope.dir.trusted_headers.take().unwrap_or_default();
    for name in names {
        if !headers.add(&name)? {
            note_name(scope, NameKind::ProxyHeader, &name);
        }
    }
    scope.dir.trusted_headers = Some(headers);
    Ok(())
}

/// `WSGITrustedProxies`.
fn trusted_proxies(scope: &mut Scope<'_>, words: &mut Words<'_>) -> Reading {
    let proxies = scope.dir.trusted_proxies.get_or_insert_default();
    words.try_for_each(|word| proxies.add(&word))
}

/// `WSGIEnableSendfile`.
fn enable_sendfile(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.dir.enable_sendfile = Some(switch(word)?);
    Ok(())
}

/// `WSGIPythonHome`.
fn python_home(scope: &mut Scope<'_>, path: &[u8]) -> Reading {
    let path = OsString::from_vec(path.to_vec()).into();
    scope.server.python_home = Some((path, location(scope)));
    Ok(())
}

/// `WSGIPythonPath`.
fn python_path(scope: &mut Scope<'_>, path: &[u8]) -> Reading {
    if let Some(options) = interpreter::block(scope) {
        options.python_path = Some(path.to_vec());
        return Ok(());
    }
    scope.server.python_path = Some((path.to_vec(), location(scope)));
    Ok(())
}

/// `WSGIServerMetrics`.
fn server_metrics(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.server.server_metrics = Some(switch(word)?);
    Ok(())
}

/// `WSGITelemetryService`.
fn telemetry_service(scope: &mut Scope<'_>, words: &mut Words<'_>) -> Reading {
    scope.server.telemetry.service = Some(Service::read(words)?);
    Ok(())
}

/// `WSGISlowRequests`.
fn slow_requests(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.server.telemetry.read_slow_requests(word)
}

/// `WSGITelemetryOptions`.
fn telemetry_options(scope: &mut Scope<'_>, words: &mut Words<'_>) -> Reading {
    scope.server.telemetry.read_options(words)
}

#[cfg(test)]
mod tests {
    use super::super::daemon_options::OPTIONS;
    use std::fs;
    use std::path::PathBuf;

    /// Name and place of each row.  They are taken from the text of this file:
    /// the rows themselves lead to functions that only httpd brings along.
    fn rows() -> Vec<(&'static str, &'static str)> {
        let (_, table) = include_str!("directives.rs").split_once("DIRECTIVES: [").unwrap();
        let (table, _) = table.split_once("];").unwrap();
        let (count, table) = table.split_once(']').unwrap();
        let row = |line: &'static str| {
            let (_, line) = line.split_once("(c\"").or_else(|| line.split_once("(  c\""))?;
            let (name, line) = line.split_once("\",")?;
            Some((name.trim_start_matches('<'), line.split_once(',')?.0.trim()))
        };
        let rows: Vec<_> = table.lines().filter_map(row).collect();
        assert_eq!(count, format!("Directive; {}", rows.len()));
        rows
    }

    fn page(name: &str) -> String {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("docs/directives")
            .join(name)
            .with_extension("md");
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn every_directive_has_a_page_with_its_heads() {
        for (name, _) in rows() {
            let page = page(name);
            assert!(page.starts_with(&format!("# {name}\n")), "{name}: title");
            for head in ["Description", "Syntax", "Default", "Context"] {
                assert!(page.contains(&format!("\n**{head}:** ")), "{name}: {head}");
            }
            assert!(page.contains("\n## Example\n\n```apache\n"), "{name}: example");
        }
    }

    #[test]
    fn the_context_of_a_page_is_that_of_the_table() {
        for (name, place) in rows() {
            let context = match place {
                "Global" => "server config",
                "GlobalOrBlock" => "server config, WSGIInterpreterOptions",
                "Server" => "server config, virtual host",
                "ServerOrDirectory" => "server config, virtual host, directory",
                "FileInfo" => {
                    "server config, virtual host, directory, .htaccess (AllowOverride FileInfo)"
                }
                "AuthConfig" => "directory, .htaccess (AllowOverride AuthConfig)",
                _ => panic!("{name}: {place} has no words yet"),
            };
            let line = format!("\n**Context:** {context}\n");
            assert!(page(name).contains(&line), "{name}: wanted{line}");
        }
    }

    #[test]
    fn every_page_is_that_of_a_directive() {
        let pages = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/directives");
        for entry in fs::read_dir(pages).unwrap() {
            let name = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
            let is_known = rows().iter().any(|(known, _)| *known == name);
            assert!(is_known || name == "README", "{name}");
        }
    }

    #[test]
    fn every_option_of_a_group_has_a_section() {
        let page = page("WSGIDaemonProcess");
        for option in &OPTIONS {
            let name = option.name;
            let section = page.split_once(&format!("\n### {name}\n")).map(|(_, rest)| rest);
            let section = section.unwrap_or_else(|| panic!("no section for {name}"));
            let section = section.split_once("\n### ").map_or(section, |(section, _)| section);
            for head in ["Value", "Default", "Errors"] {
                assert!(section.contains(&format!("**{head}:** ")), "{name}: {head}");
            }
        }
    }

    #[test]
    fn no_directive_has_two_rows() {
        let mut names: Vec<_> = rows().into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows().len());
    }
}
