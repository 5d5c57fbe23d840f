//! The options of `WSGIDaemonProcess`: one row each with its name, what its
//! value must be, and where it goes.
#![forbid(unsafe_code)]

use super::error::{OptionKind, parse_switch};
use super::identity::{find_group, find_ordinary_group, find_ordinary_user, find_user};
use super::option::{Arguments, readable};
use super::process_group::{OnGraceful, OnReload, ProcessGroup, PythonChoice, Variable};
use super::{DirectiveError, OptionError};
use std::ffi::OsString;
use std::fmt::Display;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use wsgi_wire::vtable::level;

/// A row of the table.
pub struct DaemonOption {
    /// As the configuration spells it.
    pub name: &'static str,
    /// What its value is, and where it goes.
    value: Value,
}

/// The place of an option's value in the group.
type Field<T> = fn(&mut ProcessGroup) -> &mut Option<T>;

/// What reads the value of an option like no other.
type Reader = fn(&mut ProcessGroup, &'static str, &[u8]) -> Result<(), OptionError>;

/// What the value of an option is.
enum Value {
    /// A whole number of seconds.
    Seconds(Field<Duration>),
    /// A whole number of milliseconds.
    Milliseconds(Field<Duration>),
    /// A whole number between two bounds.
    Count(u32, u32, Field<u32>),
    /// A number of bytes: 0, or at least so many.
    Bytes(u64, Field<u64>),
    /// Any text.
    Text(Field<Vec<u8>>),
    /// A path; empty is as good as not written.
    Path(Field<PathBuf>),
    /// A path that begins with `/`.
    Absolute(Field<PathBuf>),
    /// `On` or `Off`.
    Switch(Field<bool>),
    /// The name of one of httpd's log levels.
    Level(Field<u32>),
    /// Anything else.
    Own(Reader),
}

/// What one process can serve at once; the module we replace has the same bound.
const MOST_THREADS: u32 = 65_533;
/// What the kernel takes in `setgroups` (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65_536;
/// Integers are C's `int` in the module we replace.
const MOST: u32 = i32::MAX.unsigned_abs();

/// In the order of the manual.
#[rustfmt::skip]
pub static OPTIONS: [DaemonOption; 53] = [
    row("processes",               Value::Count(1, MOST, |g| &mut g.processes)),
    row("threads",                 Value::Count(0, MOST_THREADS, |g| &mut g.threads)),
    row("user",                    Value::Own(user)),
    row("group",                   Value::Own(group)),
    row("supplementary-groups",    Value::Own(supplementary_groups)),
    row("umask",                   Value::Own(umask)),
    row("chroot",                  Value::Own(chroot)),
    row("home",                    Value::Absolute(|g| &mut g.home)),
    row("lang",                    Value::Text(|g| &mut g.lang)),
    row("locale",                  Value::Text(|g| &mut g.locale)),
    row("env",                     Value::Own(env)),
    row("env-file",                Value::Absolute(|g| &mut g.env_file)),
    row("clear-env",               Value::Switch(|g| &mut g.clear_env)),
    row("display-name",            Value::Text(|g| &mut g.display_name)),
    row("python",                  Value::Own(python)),
    row("python-home",             Value::Path(|g| &mut g.python_home)),
    row("python-path",             Value::Text(|g| &mut g.python_path)),
    row("python-eggs",             Value::Path(|g| &mut g.python_eggs)),
    row("switch-interval",         Value::Own(switch_interval)),
    row("stack-size",              Value::Own(stack_size)),
    row("maximum-requests",        Value::Count(0, MOST, |g| &mut g.limits.maximum_requests)),
    row("startup-timeout",         Value::Seconds(|g| &mut g.timeouts.startup)),
    row("shutdown-timeout",        Value::Seconds(|g| &mut g.timeouts.shutdown)),
    row("deadlock-timeout",        Value::Seconds(|g| &mut g.timeouts.deadlock)),
    row("inactivity-timeout",      Value::Seconds(|g| &mut g.timeouts.inactivity)),
    row("request-timeout",         Value::Seconds(|g| &mut g.timeouts.request)),
    row("interrupt-timeout",       Value::Seconds(|g| &mut g.timeouts.interrupt)),
    row("graceful-timeout",        Value::Seconds(|g| &mut g.timeouts.graceful)),
    row("eviction-timeout",        Value::Seconds(|g| &mut g.timeouts.eviction)),
    row("restart-interval",        Value::Seconds(|g| &mut g.timeouts.restart_interval)),
    row("graceful",                Value::Own(graceful)),
    row("reload",                  Value::Own(reload)),
    row("connect-timeout",         Value::Seconds(|g| &mut g.timeouts.connect)),
    row("socket-timeout",          Value::Seconds(|g| &mut g.timeouts.socket)),
    row("queue-timeout",           Value::Seconds(|g| &mut g.timeouts.queue)),
    row("listen-backlog",          Value::Count(0, MOST, |g| &mut g.limits.listen_backlog)),
    row("socket-user",             Value::Own(socket_user)),
    row("send-buffer-size",        Value::Bytes(512, |g| &mut g.limits.send_buffer_size)),
    row("receive-buffer-size",     Value::Bytes(512, |g| &mut g.limits.receive_buffer_size)),
    row("header-buffer-size",      Value::Bytes(8192, |g| &mut g.limits.header_buffer_size)),
    row("response-buffer-size",    Value::Bytes(65_536, |g| &mut g.limits.response_buffer_size)),
    row("response-socket-timeout", Value::Seconds(|g| &mut g.timeouts.response_socket)),
    row("response-flush-delay",    Value::Milliseconds(|g| &mut g.timeouts.response_flush_delay)),
    row("script-user",             Value::Own(script_user)),
    row("script-group",            Value::Own(script_group)),
    row("cpu-time-limit",          Value::Seconds(|g| &mut g.timeouts.cpu_time)),
    row("cpu-priority",            Value::Own(cpu_priority)),
    row("memory-limit",            Value::Bytes(0, |g| &mut g.limits.memory_limit)),
    row("max-rss",                 Value::Bytes(0, |g| &mut g.limits.max_rss)),
    row("virtual-memory-limit",    Value::Bytes(0, |g| &mut g.limits.virtual_memory_limit)),
    row("stdout-level",            Value::Level(|g| &mut g.stdout_level)),
    row("stderr-level",            Value::Level(|g| &mut g.stderr_level)),
    row("server-metrics",          Value::Switch(|g| &mut g.server_metrics)),
];

/// A row.
const fn row(name: &'static str, value: Value) -> DaemonOption {
    DaemonOption { name, value }
}

/// Reads the arguments of `WSGIDaemonProcess`; a repeated option replaces.
pub fn read(arguments: &[u8]) -> Result<ProcessGroup, DirectiveError> {
    let mut arguments = Arguments::new(arguments);
    let name = arguments.word().ok_or(DirectiveError::Missing { wanted: "the name of a group" })?;
    if name.is_empty() {
        return Err(DirectiveError::Empty { what: "the name of a group" });
    }
    let mut group = ProcessGroup { name, ..ProcessGroup::default() };
    read_options(&mut group, &mut arguments)
        .map_err(|cause| OptionKind::DaemonProcess.refuse(cause))?;
    Ok(group)
}

/// Reads the options behind the name.
fn read_options(
    group: &mut ProcessGroup,
    arguments: &mut Arguments<'_>,
) -> Result<(), OptionError> {
    while let Some(pair) = arguments.pair()? {
        OPTIONS
            .iter()
            .find(|row| row.name.as_bytes() == pair.name)
            .ok_or_else(|| OptionError::Unknown(readable(pair.name)))?
            .store(group, &pair.value)?;
    }
    if group.script_user.is_some() && group.script_group.is_some() {
        return Err(OptionError::Together("script-user", "script-group"));
    }
    Ok(())
}

impl DaemonOption {
    /// Checks the value and puts it where it belongs.
    fn store(&self, group: &mut ProcessGroup, text: &[u8]) -> Result<(), OptionError> {
        let name = self.name;
        match self.value {
            Value::Seconds(field) => {
                let count = whole(name, text, 0, MOST, "a whole number of seconds")?;
                *field(group) = Some(Duration::from_secs(count.into()));
            }
            Value::Milliseconds(field) => {
                let count = whole(name, text, 0, MOST, "a whole number of milliseconds")?;
                *field(group) = Some(Duration::from_millis(count.into()));
            }
            Value::Count(least, most, field) => {
                *field(group) = Some(whole(name, text, least, most, "a whole number")?);
            }
            Value::Bytes(least, field) => *field(group) = Some(bytes(name, text, least)?),
            Value::Text(field) => *field(group) = Some(text.to_vec()),
            Value::Path(field) => *field(group) = (!text.is_empty()).then(|| path(text)),
            Value::Absolute(field) => *field(group) = Some(absolute(name, text)?),
            Value::Switch(field) => *field(group) = Some(switch(name, text)?),
            Value::Level(field) => *field(group) = Some(level(name, text)?),
            Value::Own(read) => read(group, name, text)?,
        }
        Ok(())
    }
}

/// The refusal of a value that is not what was wanted.
fn wrong(option: &'static str, wanted: impl Into<String>, found: &[u8]) -> OptionError {
    OptionError::Value { option, wanted: wanted.into(), found: readable(found) }
}

/// `text` as a number of any kind.
fn number<N: FromStr>(text: &[u8]) -> Option<N> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// A whole number from `least` to `most`.
fn whole(
    option: &'static str,
    text: &[u8],
    least: u32,
    most: u32,
    wanted: &str,
) -> Result<u32, OptionError> {
    number(text)
        .filter(|count| (least..=most).contains(count))
        .ok_or_else(|| wrong(option, format!("{wanted} from {least} to {most}"), text))
}

/// A number of bytes: 0, or at least `least`.
fn bytes(option: &'static str, text: &[u8], least: u64) -> Result<u64, OptionError> {
    let most = i64::MAX.unsigned_abs();
    number(text).filter(|&size| size == 0 || (least..=most).contains(&size)).ok_or_else(|| {
        let wanted = match least {
            0 => "a number of bytes".to_owned(),
            _ => format!("0 or a number of bytes from {least} on"),
        };
        wrong(option, wanted, text)
    })
}

/// Text that is not empty.
fn not_empty<'t>(option: &'static str, text: &'t [u8]) -> Result<&'t [u8], OptionError> {
    if text.is_empty() { Err(OptionError::Empty(option)) } else { Ok(text) }
}

/// Bytes as a path.
fn path(text: &[u8]) -> PathBuf {
    OsString::from_vec(text.to_vec()).into()
}

/// A path that begins with `/`.
fn absolute(option: &'static str, text: &[u8]) -> Result<PathBuf, OptionError> {
    if text.starts_with(b"/") {
        Ok(path(text))
    } else {
        Err(wrong(option, "an absolute path", text))
    }
}

/// `On` or `Off`.
fn switch(option: &'static str, text: &[u8]) -> Result<bool, OptionError> {
    parse_switch(text).ok_or_else(|| wrong(option, one_of(&["On", "Off"]), text))
}

/// One of httpd's log levels, as its number.
fn level(option: &'static str, text: &[u8]) -> Result<u32, OptionError> {
    let number = level::NAMES.iter().position(|name| name.as_bytes() == text);
    number.map(|number| number as u32).ok_or_else(|| wrong(option, one_of(&level::NAMES), text))
}

/// "one of: a, b".
fn one_of(words: &[impl Display]) -> String {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    format!("one of: {}", words.join(", "))
}

/// `user=`.
fn user(group: &mut ProcessGroup, option: &'static str, text: &[u8]) -> Result<(), OptionError> {
    group.user = Some(find_ordinary_user(option, &readable(not_empty(option, text)?))?);
    Ok(())
}

/// `group=`.
fn group(group: &mut ProcessGroup, option: &'static str, text: &[u8]) -> Result<(), OptionError> {
    group.group = Some(find_ordinary_group(option, &readable(not_empty(option, text)?))?);
    Ok(())
}

/// `supplementary-groups=`.
fn supplementary_groups(
    group: &mut ProcessGroup,
    option: &'static str,
    text: &[u8],
) -> Result<(), OptionError> {
    let names: Vec<&[u8]> =
        text.split(|&byte| byte == b',').filter(|name| !name.is_empty()).collect();
    if names.len() >= MOST_GROUPS {
        return Err(wrong(option, format!("fewer than {MOST_GROUPS} groups"), text));
    }
    let groups = names.into_iter().map(|name| find_ordinary_group(option, &readable(name)));
    group.supplementary_groups = Some(groups.collect::<Result<_, _>>()?);
    Ok(())
}

/// `umask=`.
fn umask(group: &mut ProcessGroup, option: &'static str, text: &[u8]) -> Result<(), OptionError> {
    let mask = str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| u32::from_str_radix(text, 8).ok())
        .filter(|&mask| mask <= 0o777)
        .ok_or_else(|| wrong(option, "an octal number from 0 to 777", text))?;
    group.umask = Some(mask);
    Ok(())
}

/// `chroot=`.
fn chroot(group: &mut ProcessGroup, option: &'static str, text: &[u8]) -> Result<(), OptionError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(OptionError::NeedsRoot(option));
    }
    group.chroot = Some(absolute(option, text)?);
    Ok(())
}

/// `env=`, which adds to what is there.
fn env(group: &mut ProcessGroup, option: &'static str, text: &[u8]) -> Result<(), OptionError> {
    let variable = Variable::parse(text).ok_or_else(|| wrong(option, "NAME=VALUE", text))?;
    group.env.push(variable);
    Ok(())
}

/// `python=`.
fn python(group: &mut ProcessGroup, option: &'static str, text: &[u8]) -> Result<(), OptionError> {
    let version = || {
        let (major, build) = str::from_utf8(text).ok()?.split_once('.')?;
        let minor = build.strip_suffix('t');
        let free_threaded = minor.is_some();
        let (major, minor) = (major.parse().ok()?, minor.unwrap_or(build).parse().ok()?);
        Some(PythonChoice::Version { major, minor, free_threaded })
    };
    group.python = Some(if text.starts_with(b"/") {
        PythonChoice::Binary(path(text))
    } else {
        version().ok_or_else(|| {
            wrong(option, "a version such as 3.12 or the absolute path of an interpreter", text)
        })?
    });
    Ok(())
}

/// `switch-interval=`.
fn switch_interval(
    group: &mut ProcessGroup,
    option: &'static str,
    text: &[u8],
) -> Result<(), OptionError> {
    let interval = number(text)
        .filter(|&seconds: &f64| seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| wrong(option, "a number of seconds above 0", text))?;
    group.limits.switch_interval = Some(interval);
    Ok(())
}

/// `stack-size=`, where 0 has no meaning.
fn stack_size(
    group: &mut ProcessGroup,
    option: &'static str,
    text: &[u8],
) -> Result<(), OptionError> {
    let size = bytes(option, text, 1)?;
    if size == 0 {
        return Err(wrong(option, "a number of bytes above 0", text));
    }
    group.limits.stack_size = Some(size);
    Ok(())
}

/// `graceful=`.
fn graceful(
    group: &mut ProcessGroup,
    option: &'static str,
    text: &[u8],
) -> Result<(), OptionError> {
    group.graceful = Some(match text {
        b"restart" => OnGraceful::Restart,
        b"keep" => OnGraceful::Keep,
        _ => return Err(wrong(option, one_of(&["restart", "keep"]), text)),
    });
    Ok(())
}

/// `reload=`.
fn reload(group: &mut ProcessGroup, option: &'static str, text: &[u8]) -> Result<(), OptionError> {
    group.reload = Some(match text {
        b"immediate" => OnReload::Immediate,
        b"rolling" => OnReload::Rolling,
        _ => return Err(wrong(option, one_of(&["immediate", "rolling"]), text)),
    });
    Ok(())
}

/// `socket-user=`.
fn socket_user(
    group: &mut ProcessGroup,
    option: &'static str,
    text: &[u8],
) -> Result<(), OptionError> {
    group.socket_user = Some(find_user(option, &readable(text))?);
    Ok(())
}

/// `script-user=`.
fn script_user(
    group: &mut ProcessGroup,
    option: &'static str,
    text: &[u8],
) -> Result<(), OptionError> {
    group.script_user = Some(find_user(option, &readable(not_empty(option, text)?))?);
    Ok(())
}

/// `script-group=`.
fn script_group(
    group: &mut ProcessGroup,
    option: &'static str,
    text: &[u8],
) -> Result<(), OptionError> {
    let text = readable(not_empty(option, text)?);
    let found = find_group(option, &text)?;
    if found.name.starts_with('#') {
        // The log is to name it.
        return Err(OptionError::UnknownAccount { option, what: "group", found: text });
    }
    group.script_group = Some(found);
    Ok(())
}

/// `cpu-priority=`.
fn cpu_priority(
    group: &mut ProcessGroup,
    option: &'static str,
    text: &[u8],
) -> Result<(), OptionError> {
    let nice = number(not_empty(option, text)?)
        .filter(|nice| (-20..=19).contains(nice))
        .ok_or_else(|| wrong(option, "a whole number from -20 to 19", text))?;
    group.limits.cpu_priority = Some(nice);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(options: &str) -> Result<ProcessGroup, String> {
        read(format!("blog {options}").as_bytes()).map_err(|error| error.to_string())
    }

    fn refusal(options: &str) -> String {
        let error = group(options).unwrap_err();
        let sentence = error.strip_prefix("Invalid option to WSGI daemon process definition: ");
        sentence.unwrap_or(&error).to_owned()
    }

    #[test]
    fn a_group_needs_a_name() {
        for arguments in ["", "  ", "\"\""] {
            assert!(read(arguments.as_bytes()).unwrap_err().to_string().contains("name"));
        }
    }

    #[test]
    fn the_name_is_enough() {
        let wanted = ProcessGroup { name: b"blog".into(), ..ProcessGroup::default() };
        assert_eq!(group(""), Ok(wanted));
    }

    #[test]
    fn no_option_has_two_rows() {
        let mut names: Vec<_> = OPTIONS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), OPTIONS.len());
    }

    #[test]
    fn values_go_where_they_belong() {
        let group = group(
            "processes=2 threads=5 umask=0027 home=/srv display-name=%{GROUP} lang='de' \
             request-timeout=60 response-flush-delay=7 listen-backlog=0 memory-limit=5000000000 \
             python-home=/venv python-path=/a:/b switch-interval=0.001 server-metrics=on \
             cpu-priority=-3 graceful=keep stack-size=262144",
        )
        .unwrap();
        assert_eq!((group.processes, group.threads), (Some(2), Some(5)));
        assert_eq!(group.umask, Some(0o27));
        assert_eq!(group.home, Some("/srv".into()));
        assert_eq!(group.display_name.as_deref(), Some(b"%{GROUP}".as_slice()));
        assert_eq!(group.lang.as_deref(), Some(b"de".as_slice()));
        assert_eq!(group.timeouts.request(), Some(Duration::from_secs(60)));
        assert_eq!(group.timeouts.response_flush_delay(), Duration::from_millis(7));
        assert_eq!(group.limits.listen_backlog(), 0);
        assert_eq!(group.limits.memory_limit, Some(5_000_000_000));
        assert_eq!(group.python_home, Some("/venv".into()));
        assert_eq!(group.python_path.as_deref(), Some(b"/a:/b".as_slice()));
        assert_eq!(group.limits.switch_interval, Some(Duration::from_millis(1)));
        assert_eq!(group.server_metrics, Some(true));
        assert_eq!(group.limits.cpu_priority, Some(-3));
        assert_eq!(group.graceful, Some(OnGraceful::Keep));
        assert_eq!(group.limits.stack_size, Some(262_144));
    }

    #[test]
    fn a_repeated_option_replaces_but_env_adds() {
        let group = group("threads=5 env=A=1 threads=6 env=B=x=y").unwrap();
        assert_eq!(group.threads, Some(6));
        let variable =
            |name: &str, value: &str| Variable { name: name.into(), value: value.into() };
        assert_eq!(group.env, [variable("A", "1"), variable("B", "x=y")]);
    }

    #[test]
    fn an_unknown_option_is_named() {
        assert_eq!(
            group("thread=5").unwrap_err(),
            "Invalid option to WSGI daemon process definition: unknown option 'thread'"
        );
        assert_eq!(refusal("Threads=5"), "unknown option 'Threads'");
        assert_eq!(refusal("threads"), "wanted name=value, found 'threads'");
    }

    #[test]
    fn every_number_refuses_junk_and_names_it() {
        for row in &OPTIONS {
            let is_number = !matches!(
                row.value,
                Value::Text(_) | Value::Path(_) | Value::Absolute(_) | Value::Switch(_)
            );
            let own = ["user", "group", "supplementary-groups", "env", "python", "graceful"];
            let other = ["chroot", "socket-user", "script-user", "script-group"];
            if is_number && !own.contains(&row.name) && !other.contains(&row.name) {
                for junk in ["1x", "", "99999999999999999999"] {
                    let sentence = refusal(&format!("{}={junk}", row.name));
                    assert!(sentence.contains(row.name), "{sentence}");
                    assert!(junk.is_empty() || sentence.ends_with(&format!("found '{junk}'")));
                }
            }
        }
    }

    #[test]
    fn bounds_are_refused_with_what_was_wanted() {
        for (option, sentence) in [
            ("processes=0", "must be a whole number from 1 to 2147483647, found '0'"),
            ("threads=65534", "must be a whole number from 0 to 65533, found '65534'"),
            ("threads=-1", "must be a whole number from 0 to 65533, found '-1'"),
            ("send-buffer-size=511", "must be 0 or a number of bytes from 512 on, found '511'"),
            ("umask=8", "must be an octal number from 0 to 777, found '8'"),
            ("umask=", "must be an octal number from 0 to 777, found ''"),
            ("home=srv", "must be an absolute path, found 'srv'"),
            ("stack-size=0", "must be a number of bytes above 0, found '0'"),
            ("switch-interval=0", "must be a number of seconds above 0, found '0'"),
            ("server-metrics=yes", "must be one of: On, Off, found 'yes'"),
            ("graceful=never", "must be one of: restart, keep, found 'never'"),
            ("env=A", "must be NAME=VALUE, found 'A'"),
        ] {
            let name = option.split_once('=').unwrap().0;
            assert_eq!(refusal(option), format!("option '{name}' {sentence}"));
        }
    }

    #[test]
    fn empty_names_are_refused() {
        for option in ["user", "group", "cpu-priority", "script-user"] {
            assert_eq!(
                refusal(&format!("{option}=")),
                format!("option '{option}' must not be empty")
            );
        }
    }

    #[test]
    fn nobody_runs_as_root() {
        for option in ["user=root", "user=#0", "group=root", "supplementary-groups=daemon,root"] {
            assert!(refusal(option).contains("must not be root"), "{option}");
        }
    }

    #[test]
    fn accounts_are_looked_up() {
        let group = group("user=daemon group=daemon supplementary-groups=bin,sys").unwrap();
        assert_eq!(group.user.unwrap().name, "daemon");
        assert_eq!(group.group.unwrap().name, "daemon");
        let names: Vec<_> =
            group.supplementary_groups.unwrap().into_iter().map(|group| group.name).collect();
        assert_eq!(names, ["bin", "sys"]);
        assert_eq!(refusal("user=nemo-x"), "option 'user' names the unknown user 'nemo-x'");
    }

    #[test]
    fn a_python_is_a_version_or_a_path() {
        let python = |text: &str| group(&format!("python={text}")).map(|group| group.python);
        let version =
            |minor, free_threaded| PythonChoice::Version { major: 3, minor, free_threaded };
        assert_eq!(python("3.12"), Ok(Some(version(12, false))));
        assert_eq!(python("3.14t"), Ok(Some(version(14, true))));
        assert_eq!(python("/bin/p"), Ok(Some(PythonChoice::Binary("/bin/p".into()))));
        for text in ["3", "python3", "3.12.1", "3.x", ""] {
            assert!(python(text).unwrap_err().contains("such as 3.12"), "{text}");
        }
    }

    #[test]
    fn script_owner_and_script_group_exclude_each_other() {
        assert_eq!(
            refusal("script-user=daemon script-group=daemon"),
            "options 'script-user' and 'script-group' cannot be given together"
        );
    }

    proptest! {
        #[test]
        fn any_line_is_a_group_or_a_sentence(line in ".*") {
            let _ = read(line.as_bytes());
        }

        #[test]
        fn any_value_is_stored_or_refused(row in 0..OPTIONS.len(), value in ".*") {
            let mut group = ProcessGroup::default();
            let _ = OPTIONS[row].store(&mut group, value.as_bytes());
        }
    }
}
