//! `WSGIHandlerScript`: a script that answers what httpd gives to a handler.
#![forbid(unsafe_code)]

use super::alias::Overrides;
use super::error::OptionKind;
use super::group::{GroupName, Variables};
use super::option::Arguments;
use super::{DirectiveError, OptionError};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The callable of every handler script.
pub const CALLABLE: &[u8] = b"handle_request";

/// A script that answers requests of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerScript {
    /// Its path.
    pub path: Vec<u8>,
    /// `process-group=`
    process_group: Option<GroupName>,
    /// `application-group=`
    application_group: Option<GroupName>,
    /// `pass-authorization=`
    pub pass_authorization: Option<bool>,
}

/// The handler scripts of a section, by the name of their handler.
pub type HandlerScripts = BTreeMap<Vec<u8>, Arc<HandlerScript>>;

/// The arguments of the directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerLine {
    /// The name of the handler.
    pub name: Vec<u8>,
    /// The path of the script.
    pub path: Vec<u8>,
    /// The options; it has no `callable-object=`.
    pub overrides: Overrides,
}

impl HandlerLine {
    /// Reads the arguments.
    pub fn read(arguments: &[u8]) -> Result<Self, DirectiveError> {
        let mut arguments = Arguments::new(arguments);
        let mut positional = |wanted| {
            let word = arguments.word().filter(|word| !word.is_empty());
            word.ok_or(DirectiveError::Missing { wanted })
        };
        let name = positional("the name of a handler")?;
        let path = positional("the path of a script")?;
        let refuse = |cause| OptionKind::HandlerScript.refuse(cause);
        let overrides = Overrides::read(&mut arguments).map_err(refuse)?;
        if overrides.callable.is_some() {
            return Err(refuse(OptionError::Unknown("callable-object".into())));
        }
        Ok(Self { name, path, overrides })
    }

    /// The script of the handler.
    pub fn script(&self) -> HandlerScript {
        let group = |text: &Option<Vec<u8>>| text.as_deref().map(group);
        HandlerScript {
            path: self.path.clone(),
            process_group: group(&self.overrides.process_group),
            application_group: group(&self.overrides.application_group),
            pass_authorization: self.overrides.pass_authorization,
        }
    }
}

/// A group of an option, where `%{GLOBAL}` is the empty name already.
fn group(text: &[u8]) -> GroupName {
    if text.is_empty() { GroupName::Global } else { GroupName::parse(text) }
}

impl HandlerScript {
    /// The process group, where the line says one.
    pub fn process_group<'a>(&'a self, request: &'a impl Variables) -> Option<Cow<'a, [u8]>> {
        Some(self.process_group.as_ref()?.resolve(request))
    }

    /// The application group, where the line says one.
    pub fn application_group<'a>(&'a self, request: &'a impl Variables) -> Option<Cow<'a, [u8]>> {
        Some(self.application_group.as_ref()?.resolve(request))
    }
}

/// What `inner` says over what `outer` says, handler by handler.  Sections are merged
/// while requests are served, so what is the same is shared.
pub fn overlay(
    outer: Option<&Arc<HandlerScripts>>,
    inner: Option<&Arc<HandlerScripts>>,
) -> Option<Arc<HandlerScripts>> {
    let (Some(outer), Some(inner)) = (outer, inner) else { return inner.or(outer).cloned() };
    let both = outer.iter().chain(inner.iter());
    Some(Arc::new(both.map(|(name, script)| (name.clone(), Arc::clone(script))).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::group::fake::FakeVariables;
    use super::super::option::readable;
    use super::*;

    fn read(line: &str) -> Result<HandlerLine, String> {
        HandlerLine::read(line.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_has_a_name_a_script_and_options() {
        let line = read("wsgi-x '/srv/a b.py' process-group=%{SERVER} application-group=%{GLOBAL}");
        let line = line.unwrap();
        assert_eq!((&*line.name, &*line.path), (&b"wsgi-x"[..], &b"/srv/a b.py"[..]));
        let request = FakeVariables { server_name: "a.org", port: 80, ..FakeVariables::default() };
        let script = line.script();
        assert_eq!(script.process_group(&request).as_deref(), Some(&b"a.org"[..]));
        assert_eq!(script.application_group(&request).as_deref(), Some(&b""[..]));
        assert_eq!(script.pass_authorization, None);
        let bare = read("x /s pass-authorization=On").unwrap().script();
        assert_eq!((bare.process_group(&request), bare.pass_authorization), (None, Some(true)));
    }

    #[test]
    fn bad_lines_are_refused() {
        assert_eq!(read("").unwrap_err(), "requires the name of a handler");
        assert_eq!(read("x").unwrap_err(), "requires the path of a script");
        for (line, sentence) in [
            ("x /s callable-object=a", "unknown option 'callable-object'"),
            ("x /s process-group=", "option 'process-group' must not be empty"),
            ("x /s lonely", "wanted name=value, found 'lonely'"),
        ] {
            let wanted = format!("Invalid option to WSGI handler script definition: {sentence}");
            assert_eq!(read(line).unwrap_err(), wanted);
        }
    }

    #[test]
    fn sections_are_laid_over_one_another_by_handler() {
        let scripts = |lines: &[&str]| -> Option<Arc<HandlerScripts>> {
            let read = lines.iter().map(|line| read(line).unwrap());
            let scripts = read.map(|line| (line.name.clone(), Arc::new(line.script())));
            (!lines.is_empty()).then(|| Arc::new(scripts.collect()))
        };
        let merged = |outer: &[&str], inner: &[&str]| -> Vec<String> {
            let merged = overlay(scripts(outer).as_ref(), scripts(inner).as_ref());
            merged.iter().flat_map(|it| it.values()).map(|it| readable(&it.path)).collect()
        };
        assert_eq!(merged(&["a /1", "b /2"], &["b /3", "c /4"]), ["/1", "/3", "/4"]);
        assert_eq!(merged(&["a /1"], &[]), ["/1"]);
        assert_eq!(merged(&[], &["a /1"]), ["/1"]);
    }
}
