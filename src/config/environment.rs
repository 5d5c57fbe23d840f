//! The environment of a daemon process: what it inherits, and what its group says.
#![forbid(unsafe_code)]

use super::process_group::{ProcessGroup, Variable};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Variables of the session of whoever started httpd.  They mean nothing to an
/// application, some carry sockets of that session, and after a start at boot
/// they would be missing.
const SESSION: [&[u8]; 24] = [
    b"COLORTERM",
    b"DISPLAY",
    b"GPG_AGENT_INFO",
    b"INVOCATION_ID",
    b"JOURNAL_STREAM",
    b"LISTEN_FDNAMES",
    b"LISTEN_FDS",
    b"LISTEN_PID",
    b"LS_COLORS",
    b"MAIL",
    b"MAINPID",
    b"NOTIFY_SOCKET",
    b"OLDPWD",
    b"PS1",
    b"SHLVL",
    b"STY",
    b"TERM",
    b"TMUX",
    b"TMUX_PANE",
    b"WATCHDOG_PID",
    b"WATCHDOG_USEC",
    b"WINDOWID",
    b"XAUTHORITY",
    b"_",
];

/// Beginnings of further such names.
const SESSION_PREFIXES: [&[u8]; 6] = [b"DBUS_", b"SSH_", b"SUDO_", b"TERM_", b"WAYLAND_", b"XDG_"];

/// What `clear-env=On` leaves.
const BASICS: [&[u8]; 3] = [b"LANG", b"PATH", b"TZ"];

/// Whether a daemon process inherits the variable; `clear` is `clear-env=`.
pub fn is_inherited(name: &[u8], clear: bool) -> bool {
    if clear {
        return BASICS.contains(&name);
    }
    !SESSION.contains(&name) && !SESSION_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

impl Variable {
    /// Reads `NAME=VALUE`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let at = text.iter().position(|&byte| byte == b'=')?;
        let (name, value) = text.split_at(at);
        // NUL would end the text for everyone who reads the environment.
        let is_valid = !name.is_empty() && !text.contains(&0);
        is_valid.then(|| Self {
            name: name.to_vec(),
            value: value.get(1..).unwrap_or_default().to_vec(),
        })
    }
}

/// A line of a file of variables that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: wanted NAME=VALUE, found none")]
pub struct EnvFileError {
    /// Which line, from 1.
    pub line: usize,
}

/// Reads the content of an `env-file=`: a variable on each line; empty lines and
/// those that begin with `#` are left out, quotes around a value as well.
///
/// An error does not show the line: such files hold secrets.
pub fn parse_file(content: &[u8]) -> Result<Vec<Variable>, EnvFileError> {
    let mut variables = Vec::new();
    for (number, line) in content.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let line = line.strip_prefix(b"export ").unwrap_or(line);
        let Some(variable) = Variable::parse(line.trim_ascii_start()) else {
            return Err(EnvFileError { line: number + 1 });
        };
        let value = unquoted(&variable.value).to_vec();
        variables.push(Variable { value, ..variable });
    }
    Ok(variables)
}

/// Why a file of variables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileFault {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// Whoever may write it decides what runs as the group's user.
    #[error("others may write it (mode {0:03o}); wanted 644 or less")]
    Writable(u32),
    /// A line is none.
    #[error("{0}")]
    Line(#[from] EnvFileError),
}

impl EnvFileFault {
    /// Whether another than root would read it.
    pub fn is_for_root_only(&self) -> bool {
        matches!(self, Self::Unreadable(e) if e.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Reads a file of variables that only its owner may write.
pub fn read_file(path: &Path) -> Result<Vec<Variable>, EnvFileFault> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(EnvFileFault::Writable(mode));
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(parse_file(&content)?)
}

/// `value` without the quotes around it.
fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inside @ .., b'"'] | [b'\'', inside @ .., b'\''] => inside,
        _ => value,
    }
}

impl ProcessGroup {
    /// What its processes have beside what [`is_inherited`] and what `env-file=`
    /// holds: `env=`, then `lang=` and `locale=`; later ones replace.
    pub fn own_environment(&self) -> Vec<Variable> {
        let mut environment = Vec::new();
        let said = |name: &str, value: &Option<Vec<u8>>| {
            value.clone().map(|value| Variable { name: name.into(), value })
        };
        self.env
            .iter()
            .cloned()
            .chain(said("LANG", &self.lang))
            .chain(said("LC_ALL", &self.locale))
            .for_each(|variable| set(&mut environment, variable));
        environment
    }

    /// Whether its processes start from an environment all but empty.
    pub fn clears_environment(&self) -> bool {
        self.clear_env.unwrap_or(false)
    }
}

/// Adds a variable, or replaces it.
fn set(environment: &mut Vec<Variable>, variable: Variable) {
    match environment.iter_mut().find(|there| there.name == variable.name) {
        Some(there) => *there = variable,
        None => environment.push(variable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variables(lines: &[&str]) -> Vec<Variable> {
        lines.iter().map(|line| Variable::parse(line.as_bytes()).unwrap()).collect()
    }

    fn inherited<'n>(names: &[&'n str], clear: bool) -> Vec<&'n str> {
        names.iter().copied().filter(|name| is_inherited(name.as_bytes(), clear)).collect()
    }

    #[test]
    fn the_session_of_the_starter_stays_outside() {
        let names = ["PATH", "SSH_AUTH_SOCK", "SUDO_USER", "TERM", "XDG_RUNTIME_DIR", "TERMINAL"];
        assert_eq!(inherited(&names, false), ["PATH", "TERMINAL"]);
        assert_eq!(inherited(&["APACHE_RUN_DIR", "HOME", "_"], false), ["APACHE_RUN_DIR", "HOME"]);
    }

    #[test]
    fn a_cleared_environment_keeps_the_basics() {
        let names = ["PATH", "APACHE_RUN_DIR", "TZ", "LANG", "HOME"];
        assert_eq!(inherited(&names, true), ["PATH", "TZ", "LANG"]);
    }

    #[test]
    fn an_option_of_its_own_has_the_last_word() {
        let group = ProcessGroup {
            lang: Some(b"de".into()),
            locale: Some(b"C.UTF-8".into()),
            env: variables(&["A=env", "LANG=env"]),
            ..ProcessGroup::default()
        };
        assert_eq!(group.own_environment(), variables(&["A=env", "LANG=de", "LC_ALL=C.UTF-8"]));
    }

    #[test]
    fn a_file_has_a_variable_on_each_line() {
        let content = b"# secrets\n\nKEY=a=b\nexport NAME=\"x y\"\r\n  Q='z'\n";
        assert_eq!(parse_file(content), Ok(variables(&["KEY=a=b", "NAME=x y", "Q=z"])));
    }

    #[test]
    fn a_line_that_is_no_variable_is_named_but_not_shown() {
        let error = parse_file(b"A=1\nsecret\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2: wanted NAME=VALUE, found none");
        assert!(parse_file(b"=x").is_err());
        assert!(parse_file(b"A=\0").is_err());
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_file(&content);
        }
    }
}
