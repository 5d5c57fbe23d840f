//! Names of groups as the configuration spells them, and what they mean for a request.
#![forbid(unsafe_code)]

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
    Variable(String),
    /// Any other text is the name.  mod_wsgi takes even an unclosed `%{` so.
    Literal(Vec<u8>),
}

/// What a request knows that names may refer to.
pub trait Variables {
    /// A note of the request.
    fn note(&self, name: &str) -> Option<Vec<u8>>;
    /// A variable of the request: `SetEnv`, `SetEnvIf`, `RewriteRule [E=…]`.
    fn subprocess_env(&self, name: &str) -> Option<Vec<u8>>;
    /// A variable of the environment httpd was started with.
    fn process_env(&self, name: &str) -> Option<Vec<u8>>;
    /// The `ServerName` of the matched virtual host.
    fn server_name(&self) -> Vec<u8>;
    /// The host the client asked for; `None` where it named none.
    fn host(&self) -> Option<Vec<u8>>;
    /// The server's port, as `UseCanonicalName` has it.
    fn port(&self) -> u16;
    /// The URL path without the path information; see [`script_url`].
    fn script_url(&self) -> Vec<u8>;
}

/// Looks `name` up.  The order is documented, and rewrite rules depend on it;
/// a variable that is set but empty counts as found.
fn lookup(name: &str, request: &impl Variables) -> Option<Vec<u8>> {
    request
        .note(name)
        .or_else(|| request.subprocess_env(name))
        .or_else(|| request.process_env(name))
}

/// The `x` of `%{ENV:x}`.
fn variable_name(text: &[u8]) -> Option<&str> {
    str::from_utf8(text.strip_prefix(b"%{ENV:")?.strip_suffix(b"}")?).ok()
}

/// Appends the port, unless a browser would leave it out.
fn with_port(mut name: Vec<u8>, port: u16) -> Vec<u8> {
    if !matches!(port, 80 | 443) {
        name.extend_from_slice(format!(":{port}").as_bytes());
    }
    name
}

/// `%{SERVER}` for this request.
fn server(request: &impl Variables) -> Vec<u8> {
    with_port(request.server_name(), request.port())
}

/// `%{HOST}` for this request.
fn host(request: &impl Variables) -> Vec<u8> {
    let host = request.host().filter(|host| !host.is_empty());
    with_port(host.unwrap_or_else(|| request.server_name()), request.port())
}

/// `%{RESOURCE}` for this request.
fn resource(request: &impl Variables) -> Vec<u8> {
    let mut name = server(request);
    name.push(b'|');
    name.extend_from_slice(&request.script_url());
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
                Some(name) => Self::Variable(name.to_owned()),
                None => Self::Literal(text.to_owned()),
            },
        }
    }

    /// The name for this request; empty is embedded mode or the main interpreter.
    pub fn resolve(&self, request: &impl Variables) -> Vec<u8> {
        match self {
            Self::Global => Vec::new(),
            Self::Server => server(request),
            Self::Host => host(request),
            Self::Resource => resource(request),
            Self::Literal(name) => name.clone(),
            // Nobody defines a group of this name, so the log will quote it.
            Self::Variable(name) => match lookup(name, request) {
                None => format!("%{{ENV:{name}}}").into_bytes(),
                Some(value) => expand_once(value, request),
            },
        }
    }
}

/// Expands a token that came out of a variable.
///
/// One variable may not lead to another: that could go on for ever.
fn expand_once(value: Vec<u8>, request: &impl Variables) -> Vec<u8> {
    match value.as_slice() {
        b"%{GLOBAL}" => Vec::new(),
        b"%{SERVER}" => server(request),
        b"%{HOST}" => host(request),
        b"%{RESOURCE}" => resource(request),
        _ => value,
    }
}

/// The name of the application object where nothing else is said.
const APPLICATION: &[u8] = b"application";

/// The name of the application object, parsed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallableName {
    /// `%{ENV:name}`: looked up for every request.
    Variable(String),
    /// The name itself.
    Literal(Vec<u8>),
}

impl Default for CallableName {
    fn default() -> Self {
        Self::Literal(APPLICATION.to_vec())
    }
}

impl CallableName {
    /// Reads a name.  Tokens of groups mean nothing here; text that begins with
    /// `%` and is no variable leads to the default, as it does in mod_wsgi.
    pub fn parse(text: &[u8]) -> Self {
        match variable_name(text) {
            Some(name) => Self::Variable(name.to_owned()),
            None if text.starts_with(b"%") => Self::default(),
            None => Self::Literal(text.to_owned()),
        }
    }

    /// The name for this request.
    pub fn resolve(&self, request: &impl Variables) -> Vec<u8> {
        match self {
            Self::Literal(name) => name.clone(),
            Self::Variable(name) => lookup(name, request).unwrap_or_else(|| APPLICATION.to_vec()),
        }
    }
}

/// The URL path of the script: `uri` less the path information at its end, with
/// each run of slashes as one.
pub fn script_url(uri: &[u8], path_info: &[u8]) -> Vec<u8> {
    let script = uri.get(..script_end(uri, path_info)).unwrap_or(uri);
    let mut path = Vec::with_capacity(script.len());
    for &byte in script {
        if byte != b'/' || path.last() != Some(&b'/') {
            path.push(byte);
        }
    }
    path
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
    use super::Variables;

    /// What a test sets; everything else is empty.
    #[derive(Debug, Clone, Default)]
    pub struct FakeVariables {
        /// The notes.
        pub notes: Vec<(&'static str, &'static str)>,
        /// `SetEnv` and the like.
        pub subprocess_env: Vec<(&'static str, &'static str)>,
        /// The environment.
        pub process_env: Vec<(&'static str, &'static str)>,
        /// `ServerName`.
        pub server_name: &'static str,
        /// The `Host` header.
        pub host: Option<&'static str>,
        /// The port.
        pub port: u16,
        /// The script's URL.
        pub script_url: &'static str,
    }

    fn find(pairs: &[(&str, &str)], name: &str) -> Option<Vec<u8>> {
        pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_bytes().to_vec())
    }

    impl Variables for FakeVariables {
        fn note(&self, name: &str) -> Option<Vec<u8>> {
            find(&self.notes, name)
        }
        fn subprocess_env(&self, name: &str) -> Option<Vec<u8>> {
            find(&self.subprocess_env, name)
        }
        fn process_env(&self, name: &str) -> Option<Vec<u8>> {
            find(&self.process_env, name)
        }
        fn server_name(&self) -> Vec<u8> {
            self.server_name.into()
        }
        fn host(&self) -> Option<Vec<u8>> {
            self.host.map(Into::into)
        }
        fn port(&self) -> u16 {
            self.port
        }
        fn script_url(&self) -> Vec<u8> {
            self.script_url.into()
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
        String::from_utf8(GroupName::parse(text.as_bytes()).resolve(request)).unwrap()
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
        request.process_env = vec![("G", "three")];
        assert_eq!(name("%{ENV:G}", &request), "three");
        request.subprocess_env = vec![("G", "two")];
        assert_eq!(name("%{ENV:G}", &request), "two");
        request.notes = vec![("G", "one")];
        assert_eq!(name("%{ENV:G}", &request), "one");
    }

    #[test]
    fn an_empty_variable_counts_as_found() {
        let mut request = request();
        request.notes = vec![("G", "")];
        request.process_env = vec![("G", "three")];
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
            ("GLOBAL", "%{GLOBAL}"),
            ("SERVER", "%{SERVER}"),
            ("LOOP", "%{ENV:LOOP}"),
            ("ODD", "%{ODD}"),
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
        request.notes = vec![("C", "%{GLOBAL}")];
        let callable = |text: &str| CallableName::parse(text.as_bytes()).resolve(&request);
        assert_eq!(callable("app"), b"app");
        assert_eq!(callable("%{ENV:C}"), b"%{GLOBAL}");
        assert_eq!(callable("%{ENV:D}"), b"application");
        assert_eq!(callable("%{SERVER}"), b"application");
        assert_eq!(callable("%"), b"application");
        assert_eq!(CallableName::default().resolve(&request), b"application");
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
            let url = script_url(uri.as_bytes(), path_info.as_bytes());
            assert_eq!(String::from_utf8(url).unwrap(), wanted, "{uri} less {path_info}");
        }
    }

    proptest! {
        #[test]
        fn any_uri_has_a_script_url(uri in "[a/]{0,12}", path_info in "(/[a/]{0,8})?") {
            let url = script_url(uri.as_bytes(), path_info.as_bytes());
            prop_assert!(url.len() <= uri.len());
            prop_assert!(!url.windows(2).any(|two| two == b"//"));
        }

        #[test]
        fn any_text_resolves(text in ".*", value in ".*") {
            struct One(String);
            impl Variables for One {
                fn note(&self, _: &str) -> Option<Vec<u8>> { Some(self.0.clone().into_bytes()) }
                fn subprocess_env(&self, _: &str) -> Option<Vec<u8>> { None }
                fn process_env(&self, _: &str) -> Option<Vec<u8>> { None }
                fn server_name(&self) -> Vec<u8> { Vec::new() }
                fn host(&self) -> Option<Vec<u8>> { None }
                fn port(&self) -> u16 { 80 }
                fn script_url(&self) -> Vec<u8> { Vec::new() }
            }
            GroupName::parse(text.as_bytes()).resolve(&One(value.clone()));
            CallableName::parse(text.as_bytes()).resolve(&One(value));
        }
    }
}
