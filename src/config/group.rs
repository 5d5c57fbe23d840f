//! Names of groups as the configuration spells them, and what they mean for a request.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{CStr, CString};

/// A process group or an application group, parsed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupName {
    /// `%{GLOBAL}`: embedded mode, or the main interpreter.
    Global,
    /// `%{SERVER}`: the name of the virtual host.
    Server,
    /// `%{HOST}`: the host the client asked for.
    Host,
    /// `%{RESOURCE}`: the virtual host and the URL path of the script.
    Resource,
    /// `%{ENV:name}`: looked up for every request.
    Variable(CString),
    /// Any other text is the name.  mod_wsgi takes even an unclosed `%{` so.
    Literal(Vec<u8>),
}

/// What a request knows that names may refer to.
pub trait Variables {
    /// A note of the request.
    fn note(&self, name: &CStr) -> Option<&[u8]>;
    /// A variable of the request: `SetEnv`, `SetEnvIf`, `RewriteRule [E=…]`.
    fn subprocess_env(&self, name: &CStr) -> Option<&[u8]>;
    /// A variable of the environment httpd was started with.
    fn process_env(&self, name: &CStr) -> Option<Vec<u8>>;
    /// The `ServerName` of the matched virtual host.
    fn server_name(&self) -> &[u8];
    /// The host the client asked for; `None` where it named none.
    fn host(&self) -> Option<&[u8]>;
    /// The server's port, as `UseCanonicalName` has it.
    fn port(&self) -> u16;
    /// The URL path without the path information; see [`push_script_url`].
    fn push_script_url(&self, to: &mut Vec<u8>);
}

/// Looks `name` up.  The order is documented, and rewrite rules depend on it;
/// a variable that is set but empty counts as found.
fn lookup<'a>(name: &CStr, request: &'a impl Variables) -> Option<Cow<'a, [u8]>> {
    let of_request = request.note(name).or_else(|| request.subprocess_env(name));
    of_request.map(Cow::Borrowed).or_else(|| request.process_env(name).map(Cow::Owned))
}

/// The `x` of `%{ENV:x}`.
fn variable_name(text: &[u8]) -> Option<CString> {
    CString::new(text.strip_prefix(b"%{ENV:")?.strip_suffix(b"}")?).ok()
}

/// Appends the port, unless a browser would leave it out.
fn push_port(to: &mut Vec<u8>, port: u16) {
    if matches!(port, 80 | 443) {
        return;
    }
    to.push(b':');
    // For every request: the standard library's way costs several times as much.
    let mut power = 10_000;
    while power > 1 && port < power {
        power /= 10;
    }
    while power > 0 {
        to.push(b'0' + (port / power % 10) as u8);
        power /= 10;
    }
}

/// As much of a name as is made in one piece: longer ones have the memory moved.
const COMMON: usize = 128;

/// `%{SERVER}` for this request.
fn server(request: &impl Variables) -> Vec<u8> {
    let mut name = Vec::with_capacity(COMMON);
    name.extend_from_slice(request.server_name());
    push_port(&mut name, request.port());
    name
}

/// `%{HOST}` for this request.
fn host(request: &impl Variables) -> Vec<u8> {
    let host = request.host().filter(|host| !host.is_empty());
    let mut name = host.unwrap_or_else(|| request.server_name()).to_vec();
    push_port(&mut name, request.port());
    name
}

/// `%{RESOURCE}` for this request.
fn resource(request: &impl Variables) -> Vec<u8> {
    let mut name = server(request);
    name.push(b'|');
    request.push_script_url(&mut name);
    name
}

impl GroupName {
    /// Reads a name.  A token is the whole text or none: `foo-%{SERVER}` is literal.
    pub fn parse(text: &[u8]) -> Self {
        match text {
            b"%{GLOBAL}" => Self::Global,
            b"%{SERVER}" => Self::Server,
            b"%{HOST}" => Self::Host,
            b"%{RESOURCE}" => Self::Resource,
            _ => match variable_name(text) {
                Some(name) => Self::Variable(name),
                None => Self::Literal(text.to_owned()),
            },
        }
    }

    /// The name for this request; empty is embedded mode or the main interpreter.
    pub fn resolve<'a>(&'a self, request: &'a impl Variables) -> Cow<'a, [u8]> {
        match self {
            Self::Global => Cow::Borrowed(b""),
            Self::Server => server(request).into(),
            Self::Host => host(request).into(),
            Self::Resource => resource(request).into(),
            Self::Literal(name) => name.into(),
            Self::Variable(name) => match lookup(name, request) {
                // Nobody defines a group of this name, so the log will quote it.
                None => [b"%{ENV:", name.to_bytes(), b"}"].concat().into(),
                Some(value) => expand_once(value, request),
            },
        }
    }

    /// The name that `text`, which is said for this request only, stands for.
    pub fn resolve_text<'a>(text: &'a [u8], request: &'a impl Variables) -> Cow<'a, [u8]> {
        let found = variable_name(text).and_then(|name| lookup(&name, request));
        expand_once(found.unwrap_or(Cow::Borrowed(text)), request)
    }
}

/// Expands a token that came out of a variable.
///
/// One variable may not lead to another: that could go on for ever.
fn expand_once<'a>(value: Cow<'a, [u8]>, request: &'a impl Variables) -> Cow<'a, [u8]> {
    match &*value {
        b"%{GLOBAL}" => Cow::Borrowed(b""),
        b"%{SERVER}" => server(request).into(),
        b"%{HOST}" => host(request).into(),
        b"%{RESOURCE}" => resource(request).into(),
        _ => value,
    }
}

/// The name of the application object where nothing else is said.
const APPLICATION: &[u8] = b"application";

/// The name of the application object, parsed once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CallableName {
    /// [`APPLICATION`].
    #[default]
    Default,
    /// `%{ENV:name}`: looked up for every request.
    Variable(CString),
    /// The name itself.
    Literal(Vec<u8>),
}

impl CallableName {
    /// Reads a name.  Tokens of groups mean nothing here; text that begins with
    /// `%` and is no variable leads to the default, as it does in mod_wsgi.
    pub fn parse(text: &[u8]) -> Self {
        match variable_name(text) {
            Some(name) => Self::Variable(name),
            None if text.starts_with(b"%") => Self::Default,
            None => Self::Literal(text.to_owned()),
        }
    }

    /// The name for this request.
    pub fn resolve<'a>(&'a self, request: &'a impl Variables) -> Cow<'a, [u8]> {
        let name = match self {
            Self::Default => None,
            Self::Literal(name) => Some(name.into()),
            Self::Variable(name) => lookup(name, request),
        };
        name.unwrap_or(Cow::Borrowed(APPLICATION))
    }
}

/// Appends the URL path of the script: `uri` less the path information at its end, with
/// each run of slashes as one.
pub fn push_script_url(uri: &[u8], path_info: &[u8], to: &mut Vec<u8>) {
    let mut rest = uri.get(..script_end(uri, path_info)).unwrap_or(uri);
    while let Some(at) = rest.windows(2).position(|pair| pair == b"//") {
        to.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
    }
    to.extend_from_slice(rest);
}

/// Where the path information begins in `uri`: the answer of httpd's
/// `ap_find_path_info`, for which a run of slashes in the URI is one in the path
/// information, because the directory walk has merged them there.
fn script_end(uri: &[u8], path_info: &[u8]) -> usize {
    if path_info.is_empty() {
        return uri.len();
    }
    let slashes = |end: usize| uri.iter().take(end).rev().take_while(|&&b| b == b'/').count();
    let mut end = uri.len();
    for &wanted in path_info.iter().rev() {
        match end.checked_sub(1) {
            Some(last) if uri.get(last) == Some(&wanted) => {
                end = if wanted == b'/' { end - slashes(end) } else { last };
            }
            _ => break,
        }
    }
    // The path information begins with a slash; a match that began in the
    // middle of a name belongs to the script.
    let from = end.saturating_sub(1);
    from + uri.iter().skip(from).take_while(|&&byte| byte != b'/').count()
}

/// A request made of plain values, for unit tests.
#[cfg(test)]
pub mod fake {
    use super::{CStr, Variables};

    /// What a test sets; everything else is empty.
    #[derive(Debug, Clone, Default)]
    pub struct FakeVariables {
        /// The notes.
        pub notes: Vec<(&'static CStr, &'static str)>,
        /// `SetEnv` and the like.
        pub subprocess_env: Vec<(&'static CStr, &'static str)>,
        /// The environment.
        pub process_env: Vec<(&'static CStr, &'static str)>,
        /// `ServerName`.
        pub server_name: &'static str,
        /// The `Host` header.
        pub host: Option<&'static str>,
        /// The port.
        pub port: u16,
        /// The script's URL.
        pub script_url: &'static str,
    }

    fn find(pairs: &[(&CStr, &'static str)], name: &CStr) -> Option<&'static [u8]> {
        pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_bytes())
    }

    impl Variables for FakeVariables {
        fn note(&self, name: &CStr) -> Option<&[u8]> {
            find(&self.notes, name)
        }
        fn subprocess_env(&self, name: &CStr) -> Option<&[u8]> {
            find(&self.subprocess_env, name)
        }
        fn process_env(&self, name: &CStr) -> Option<Vec<u8>> {
            find(&self.process_env, name).map(<[u8]>::to_vec)
        }
        fn server_name(&self) -> &[u8] {
            self.server_name.as_bytes()
        }
        fn host(&self) -> Option<&[u8]> {
            self.host.map(str::as_bytes)
        }
        fn port(&self) -> u16 {
            self.port
        }
        fn push_script_url(&self, to: &mut Vec<u8>) {
            to.extend_from_slice(self.script_url.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeVariables;
    use super::*;
    use proptest::prelude::*;

    fn request() -> FakeVariables {
        FakeVariables {
            server_name: "example.org",
            host: Some("www.example.org"),
            port: 80,
            script_url: "/app",
            ..FakeVariables::default()
        }
    }

    fn name(text: &str, request: &FakeVariables) -> String {
        let name = GroupName::parse(text.as_bytes());
        let name = name.resolve(request);
        assert_eq!(name, GroupName::resolve_text(text.as_bytes(), request));
        String::from_utf8(name.into_owned()).unwrap()
    }

    #[test]
    fn global_is_the_empty_name() {
        assert_eq!(name("%{GLOBAL}", &request()), "");
    }

    #[test]
    fn tokens_name_the_server_the_host_and_the_resource() {
        assert_eq!(name("%{SERVER}", &request()), "example.org");
        assert_eq!(name("%{HOST}", &request()), "www.example.org");
        assert_eq!(name("%{RESOURCE}", &request()), "example.org|/app");
    }

    #[test]
    fn a_port_that_a_browser_shows_is_part_of_the_name() {
        let request = FakeVariables { port: 8080, ..request() };
        assert_eq!(name("%{SERVER}", &request), "example.org:8080");
        assert_eq!(name("%{HOST}", &request), "www.example.org:8080");
        assert_eq!(name("%{RESOURCE}", &request), "example.org:8080|/app");
        let request = FakeVariables { port: 443, ..request };
        assert_eq!(name("%{SERVER}", &request), "example.org");
    }

    #[test]
    fn without_a_host_the_server_name_stands_in() {
        for host in [None, Some("")] {
            assert_eq!(name("%{HOST}", &FakeVariables { host, ..request() }), "example.org");
        }
    }

    #[test]
    fn a_variable_is_looked_up_in_notes_then_subprocess_env_then_environment() {
        let mut request = request();
        request.process_env = vec![(c"G", "three")];
        assert_eq!(name("%{ENV:G}", &request), "three");
        request.subprocess_env = vec![(c"G", "two")];
        assert_eq!(name("%{ENV:G}", &request), "two");
        request.notes = vec![(c"G", "one")];
        assert_eq!(name("%{ENV:G}", &request), "one");
    }

    #[test]
    fn an_empty_variable_counts_as_found() {
        let mut request = request();
        request.notes = vec![(c"G", "")];
        request.process_env = vec![(c"G", "three")];
        assert_eq!(name("%{ENV:G}", &request), "");
    }

    #[test]
    fn an_unset_variable_leaves_the_text() {
        assert_eq!(name("%{ENV:G}", &request()), "%{ENV:G}");
        assert_eq!(name("%{ENV:}", &request()), "%{ENV:}");
    }

    #[test]
    fn a_token_in_a_variable_is_expanded_once() {
        let mut request = request();
        request.notes = vec![
            (c"GLOBAL", "%{GLOBAL}"),
            (c"SERVER", "%{SERVER}"),
            (c"LOOP", "%{ENV:LOOP}"),
            (c"ODD", "%{ODD}"),
        ];
        assert_eq!(name("%{ENV:GLOBAL}", &request), "");
        assert_eq!(name("%{ENV:SERVER}", &request), "example.org");
        assert_eq!(name("%{ENV:LOOP}", &request), "%{ENV:LOOP}");
        assert_eq!(name("%{ENV:ODD}", &request), "%{ODD}");
    }

    #[test]
    fn text_that_is_no_token_is_a_name() {
        for text in ["blog", "foo-%{SERVER}", "%{ENV:x", "%{server}", "%", "", "%{GLOBAL} "] {
            assert_eq!(name(text, &request()), text);
        }
    }

    #[test]
    fn a_callable_knows_variables_only() {
        let mut request = request();
        request.notes = vec![(c"C", "%{GLOBAL}")];
        let callable =
            |text: &str| CallableName::parse(text.as_bytes()).resolve(&request).into_owned();
        assert_eq!(callable("app"), b"app");
        assert_eq!(callable("%{ENV:C}"), b"%{GLOBAL}");
        assert_eq!(callable("%{ENV:D}"), b"application");
        assert_eq!(callable("%{SERVER}"), b"application");
        assert_eq!(callable("%"), b"application");
        assert_eq!(*CallableName::default().resolve(&request), *b"application");
    }

    #[test]
    fn the_script_url_is_the_uri_without_path_info() {
        for (uri, path_info, wanted) in [
            ("/app/a/b", "/a/b", "/app"),
            ("/app", "", "/app"),
            ("/a/b", "/a/b", ""),
            ("//app///a//b", "/a/b", "/app"),
            ("/app//", "/", "/app"),
            ("/x//app", "", "/x/app"),
            ("/app/b", "/other", "/app/b"),
            ("", "", ""),
        ] {
            let mut url = b"/".to_vec();
            push_script_url(uri.as_bytes(), path_info.as_bytes(), &mut url);
            assert_eq!(&url[1..], wanted.as_bytes(), "{uri} less {path_info}");
        }
    }

    proptest! {
        #[test]
        fn any_uri_has_a_script_url(uri in "[a/]{0,12}", path_info in "(/[a/]{0,8})?") {
            let mut url = Vec::new();
            push_script_url(uri.as_bytes(), path_info.as_bytes(), &mut url);
            prop_assert!(url.len() <= uri.len());
            prop_assert!(!url.windows(2).any(|two| two == b"//"));
        }

        #[test]
        fn any_text_resolves(text in ".*", value in ".*") {
            struct One(String);
            impl Variables for One {
                fn note(&self, _: &CStr) -> Option<&[u8]> { Some(self.0.as_bytes()) }
                fn subprocess_env(&self, _: &CStr) -> Option<&[u8]> { None }
                fn process_env(&self, _: &CStr) -> Option<Vec<u8>> { None }
                fn server_name(&self) -> &[u8] { b"" }
                fn host(&self) -> Option<&[u8]> { None }
                fn port(&self) -> u16 { 80 }
                fn push_script_url(&self, _: &mut Vec<u8>) {}
            }
            let (name, request) = (GroupName::parse(text.as_bytes()), One(value));
            prop_assert_eq!(
                name.resolve(&request),
                GroupName::resolve_text(text.as_bytes(), &request)
            );
            CallableName::parse(text.as_bytes()).resolve(&request);
        }
    }
}
