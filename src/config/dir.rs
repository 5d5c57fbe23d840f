//! The settings of a section, which a request meets merged from the outside in.
#![forbid(unsafe_code)]

use super::DirectiveError;
use super::group::{CallableName, GroupName};
use super::handler_script::{self, HandlerScript, HandlerScripts};
use super::option::readable;
use super::provider::ProviderScript;
use super::proxies::{TrustedHeaders, TrustedProxies};
use std::sync::Arc;

/// The settings of a section (or, outside any, of a server).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirConfig {
    /// `WSGIProcessGroup`.
    pub process_group: Option<GroupName>,
    /// `WSGIApplicationGroup`.
    pub application_group: Option<GroupName>,
    /// `WSGICallableObject`.
    pub callable: Option<CallableName>,
    /// `WSGIRestrictProcess`.
    pub restrict_process: Option<RestrictProcess>,
    /// `WSGIPassAuthorization`.
    pub pass_authorization: Option<bool>,
    /// `WSGIScriptReloading`.
    pub script_reloading: Option<bool>,
    /// `WSGIErrorOverride`.
    pub error_override: Option<bool>,
    /// `WSGIChunkedRequest`.
    pub chunked_request: Option<bool>,
    /// `WSGIMapHEADToGET`.
    pub map_head_to_get: Option<MapHeadToGet>,
    /// `WSGIIgnoreActivity`.
    pub ignore_activity: Option<bool>,
    /// `WSGITrustedProxyHeaders`.
    pub trusted_headers: Option<TrustedHeaders>,
    /// `WSGITrustedProxies`.
    pub trusted_proxies: Option<TrustedProxies>,
    /// `WSGIEnableSendfile`.
    pub enable_sendfile: Option<bool>,
    /// `WSGIHandlerScript`.
    pub handlers: Option<Arc<HandlerScripts>>,
    /// `WSGIDispatchScript`.
    pub dispatch_script: Option<Arc<ProviderScript>>,
    /// `WSGIAccessScript`.
    pub access_script: Option<Arc<ProviderScript>>,
    /// `WSGIAuthUserScript`.
    pub auth_user_script: Option<Arc<ProviderScript>>,
    /// `WSGIAuthGroupScript`.
    pub auth_group_script: Option<Arc<ProviderScript>>,
    /// `WSGIPassApacheRequest`.
    pub pass_apache_request: Option<bool>,
}

/// The process groups that requests of a section may run in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestrictProcess(Vec<Vec<u8>>);

impl RestrictProcess {
    /// Reads the names; `%{GLOBAL}` stands for embedded mode.
    pub fn read(names: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(names.into_iter().map(super::alias::group_text).collect())
    }

    /// Whether requests may run in the group.  Case does not count here, though
    /// it does when a group is looked up: mod_wsgi keeps the names in a table.
    pub fn allows(&self, group: &[u8]) -> bool {
        self.0.iter().any(|name| name.eq_ignore_ascii_case(group))
    }
}

/// Whether an application sees `HEAD` as `GET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MapHeadToGet {
    /// Never.
    Off,
    /// Always.
    On,
    /// Where an output filter wants to see the body.
    #[default]
    Auto,
}

impl MapHeadToGet {
    /// Reads the word of the directive.
    pub fn read(word: &[u8]) -> Result<Self, DirectiveError> {
        [(&b"Off"[..], Self::Off), (b"On", Self::On), (b"Auto", Self::Auto)]
            .into_iter()
            .find(|(name, _)| word.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .ok_or_else(|| DirectiveError::Word {
                wanted: "Off | On | Auto",
                found: readable(word),
            })
    }
}

impl DirConfig {
    /// A section that says nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The settings where `inner` stands inside (or is read after) `self`.
    #[must_use]
    pub fn merge(&self, inner: &Self) -> Self {
        /// What the inner section says, else the outer one.
        fn over<T: Clone>(inner: &Option<T>, outer: &Option<T>) -> Option<T> {
            inner.as_ref().or(outer.as_ref()).cloned()
        }
        Self {
            process_group: over(&inner.process_group, &self.process_group),
            application_group: over(&inner.application_group, &self.application_group),
            callable: over(&inner.callable, &self.callable),
            restrict_process: over(&inner.restrict_process, &self.restrict_process),
            pass_authorization: inner.pass_authorization.or(self.pass_authorization),
            script_reloading: inner.script_reloading.or(self.script_reloading),
            error_override: inner.error_override.or(self.error_override),
            chunked_request: inner.chunked_request.or(self.chunked_request),
            map_head_to_get: inner.map_head_to_get.or(self.map_head_to_get),
            ignore_activity: inner.ignore_activity.or(self.ignore_activity),
            trusted_headers: over(&inner.trusted_headers, &self.trusted_headers),
            trusted_proxies: over(&inner.trusted_proxies, &self.trusted_proxies),
            enable_sendfile: inner.enable_sendfile.or(self.enable_sendfile),
            handlers: handler_script::overlay(self.handlers.as_ref(), inner.handlers.as_ref()),
            dispatch_script: over(&inner.dispatch_script, &self.dispatch_script),
            access_script: over(&inner.access_script, &self.access_script),
            auth_user_script: over(&inner.auth_user_script, &self.auth_user_script),
            auth_group_script: over(&inner.auth_group_script, &self.auth_group_script),
            pass_apache_request: inner.pass_apache_request.or(self.pass_apache_request),
        }
    }

    /// The process group: embedded mode by default.
    pub const fn process_group(&self) -> &GroupName {
        match &self.process_group {
            Some(name) => name,
            None => &GroupName::Global,
        }
    }

    /// The application group: one for each script by default.
    pub const fn application_group(&self) -> &GroupName {
        match &self.application_group {
            Some(name) => name,
            None => &GroupName::Resource,
        }
    }

    /// The name of the application object: `application` by default.
    pub const fn callable(&self) -> &CallableName {
        match &self.callable {
            Some(name) => name,
            None => &CallableName::Default,
        }
    }

    /// Whether requests may run in the process group.
    pub fn allows(&self, group: &[u8]) -> bool {
        self.restrict_process.as_ref().is_none_or(|restriction| restriction.allows(group))
    }

    /// Whether applications see the credentials of a request.
    pub fn pass_authorization(&self) -> bool {
        self.pass_authorization.unwrap_or(false)
    }

    /// Whether a script whose file changed is loaded again.
    pub fn script_reloading(&self) -> bool {
        self.script_reloading.unwrap_or(true)
    }

    /// Whether httpd's error documents replace those of applications.
    pub fn error_override(&self) -> bool {
        self.error_override.unwrap_or(false)
    }

    /// Whether a request may come without a length.
    pub fn chunked_request(&self) -> bool {
        self.chunked_request.unwrap_or(false)
    }

    /// Whether an application sees `HEAD` as `GET`.
    pub fn map_head_to_get(&self) -> MapHeadToGet {
        self.map_head_to_get.unwrap_or_default()
    }

    /// Whether requests leave the inactivity timer alone.
    pub fn ignore_activity(&self) -> bool {
        self.ignore_activity.unwrap_or(false)
    }

    /// The headers of proxies to believe; `None` if there are none.
    pub fn trusted_headers(&self) -> Option<&TrustedHeaders> {
        self.trusted_headers.as_ref().filter(|headers| !headers.places().is_empty())
    }

    /// Whether the kernel may send files.
    pub fn enable_sendfile(&self) -> bool {
        self.enable_sendfile.unwrap_or(false)
    }

    /// The script that answers requests of the handler, if it is not one of our own.
    pub fn handler(&self, name: &[u8]) -> Option<&HandlerScript> {
        Some(self.handlers.as_ref()?.get(name)?)
    }

    /// Whether applications in embedded mode get httpd's record of the request.
    pub fn pass_apache_request(&self) -> bool {
        self.pass_apache_request.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::OptionKind;
    use super::super::handler_script::HandlerLine;
    use super::*;

    #[test]
    fn what_is_not_set_has_the_manuals_default() {
        let dir = DirConfig::default();
        assert_eq!(dir.process_group(), &GroupName::Global);
        assert_eq!(dir.application_group(), &GroupName::Resource);
        assert_eq!(*dir.callable(), CallableName::Default);
        assert_eq!(dir.map_head_to_get(), MapHeadToGet::Auto);
        assert!(dir.script_reloading());
        assert!(dir.allows(b"") && dir.allows(b"blog"));
        for off in [
            dir.pass_authorization(),
            dir.error_override(),
            dir.chunked_request(),
            dir.ignore_activity(),
            dir.enable_sendfile(),
            dir.pass_apache_request(),
        ] {
            assert!(!off);
        }
    }

    fn headers(name: &str) -> TrustedHeaders {
        let mut headers = TrustedHeaders::default();
        assert_eq!(headers.add(name.as_bytes()), Ok(true));
        headers
    }

    fn proxies(word: &str) -> TrustedProxies {
        let mut proxies = TrustedProxies::default();
        proxies.add(word.as_bytes()).unwrap();
        proxies
    }

    fn handler(path: &str) -> HandlerScript {
        HandlerLine::read(format!("h {path}").as_bytes()).unwrap().script()
    }

    fn provider(path: &str) -> Arc<ProviderScript> {
        Arc::new(ProviderScript::read(path.as_bytes(), OptionKind::AccessScript).unwrap())
    }

    /// Everything set, each switch to `on`.
    fn full(on: bool, name: &str) -> DirConfig {
        let literal = || GroupName::Literal(name.into());
        DirConfig {
            process_group: Some(literal()),
            application_group: Some(literal()),
            callable: Some(CallableName::Literal(name.into())),
            restrict_process: Some(RestrictProcess::read([name.into()])),
            pass_authorization: Some(on),
            script_reloading: Some(on),
            error_override: Some(on),
            chunked_request: Some(on),
            map_head_to_get: Some(if on { MapHeadToGet::On } else { MapHeadToGet::Off }),
            ignore_activity: Some(on),
            trusted_headers: Some(if on { headers("X-Real-IP") } else { headers("X-Host") }),
            trusted_proxies: Some(if on { proxies("10.1") } else { proxies("10.2") }),
            enable_sendfile: Some(on),
            handlers: Some(Arc::new([(b"h".to_vec(), Arc::new(handler(name)))].into())),
            dispatch_script: Some(provider(name)),
            access_script: Some(provider(name)),
            auth_user_script: Some(provider(name)),
            auth_group_script: Some(provider(name)),
            pass_apache_request: Some(on),
        }
    }

    #[test]
    fn an_inner_section_overrides_the_outer() {
        assert_eq!(full(true, "outer").merge(&full(false, "inner")), full(false, "inner"));
    }

    #[test]
    fn what_the_inner_section_does_not_say_comes_from_the_outer() {
        assert_eq!(full(true, "outer").merge(&DirConfig::default()), full(true, "outer"));
    }

    #[test]
    fn a_restriction_replaces_the_outer_one() {
        let merged = full(true, "outer").merge(&full(true, "inner"));
        assert!(merged.allows(b"inner") && !merged.allows(b"outer"));
    }

    #[test]
    fn an_empty_restriction_allows_nothing() {
        let none = RestrictProcess::read([]);
        assert!(!none.allows(b"") && !none.allows(b"blog"));
    }

    #[test]
    fn a_restriction_knows_embedded_mode_and_no_case() {
        let restriction = RestrictProcess::read([b"%{GLOBAL}".to_vec(), b"Blog".to_vec()]);
        assert!(restriction.allows(b"") && restriction.allows(b"bLOG"));
        assert!(!restriction.allows(b"%{GLOBAL}"));
    }

    #[test]
    fn head_is_mapped_off_on_or_auto() {
        assert_eq!(MapHeadToGet::read(b"auto"), Ok(MapHeadToGet::Auto));
        assert_eq!(MapHeadToGet::read(b"ON"), Ok(MapHeadToGet::On));
        assert_eq!(
            MapHeadToGet::read(b"2").unwrap_err().to_string(),
            "must be one of: Off | On | Auto; found '2'"
        );
    }
}
