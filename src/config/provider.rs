//! Scripts whose functions httpd asks about a request: who may see it, and where it runs.
#![forbid(unsafe_code)]

use super::error::OptionKind;
use super::group::{GroupName, Variables};
use super::option::{Arguments, readable};
use super::{DirectiveError, OptionError};
use std::borrow::Cow;

/// A script that is asked, always in a child process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderScript {
    /// Its path.
    pub path: Vec<u8>,
    /// `application-group=`; the main interpreter where it is not given.
    application_group: GroupName,
}

impl ProviderScript {
    /// Reads the arguments of a directive of this kind.
    pub fn read(arguments: &[u8], kind: OptionKind) -> Result<Self, DirectiveError> {
        let mut arguments = Arguments::new(arguments);
        let path = arguments.word().filter(|path| !path.is_empty());
        let path = path.ok_or(DirectiveError::Missing { wanted: "the path of a script" })?;
        let application_group =
            application_group(&mut arguments).map_err(|cause| kind.refuse(cause))?;
        Ok(Self { path, application_group })
    }

    /// The application group it is asked in.
    pub fn application_group<'a>(&'a self, request: &'a impl Variables) -> Cow<'a, [u8]> {
        self.application_group.resolve(request)
    }
}

/// Reads the one option.
fn application_group(arguments: &mut Arguments<'_>) -> Result<GroupName, OptionError> {
    let mut group = GroupName::Global;
    while let Some(pair) = arguments.pair()? {
        if pair.name != b"application-group" {
            return Err(OptionError::Unknown(readable(pair.name)));
        }
        if pair.value.is_empty() {
            return Err(OptionError::Empty("application-group"));
        }
        group = match GroupName::parse(&pair.value) {
            // What depends on the resource, or on variables that are not set yet when
            // access is decided, is not expanded here.
            GroupName::Resource | GroupName::Variable(_) => GroupName::Literal(pair.value),
            group => group,
        };
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::super::group::fake::FakeVariables;
    use super::*;

    fn read(line: &str) -> Result<ProviderScript, String> {
        ProviderScript::read(line.as_bytes(), OptionKind::AccessScript)
            .map_err(|error| error.to_string())
    }

    fn group(line: &str) -> String {
        let request = FakeVariables {
            server_name: "a.org",
            host: Some("b.org"),
            port: 80,
            notes: vec![(c"X", "x")],
            ..FakeVariables::default()
        };
        readable(&read(line).unwrap().application_group(&request))
    }

    #[test]
    fn the_main_interpreter_is_the_default() {
        assert_eq!(group("/s"), "");
        assert_eq!(group("/s application-group=%{GLOBAL}"), "");
    }

    #[test]
    fn server_and_host_are_expanded_and_nothing_else() {
        assert_eq!(group("/s application-group=%{SERVER}"), "a.org");
        assert_eq!(group("/s application-group=%{HOST}"), "b.org");
        for literal in ["%{RESOURCE}", "%{ENV:X}", "x%{SERVER}"] {
            assert_eq!(group(&format!("/s application-group={literal}")), literal);
        }
    }

    #[test]
    fn bad_lines_are_refused() {
        assert_eq!(read("").unwrap_err(), "requires the path of a script");
        for (line, sentence) in [
            ("/s process-group=x", "unknown option 'process-group'"),
            ("/s application-group=", "option 'application-group' must not be empty"),
            ("/s x", "wanted name=value, found 'x'"),
        ] {
            let wanted = format!("Invalid option to WSGI access script definition: {sentence}");
            assert_eq!(read(line).unwrap_err(), wanted);
        }
    }
}
