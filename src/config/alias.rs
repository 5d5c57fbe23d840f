//! `WSGIScriptAlias` and `WSGIScriptAliasMatch`: which script answers a URI.
#![forbid(unsafe_code)]

use super::error::{OptionKind, parse_switch};
use super::option::{Arguments, readable};
use super::{DirectiveError, Location, OptionError};
use std::borrow::Cow;
use std::ffi::CStr;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The note by which `mod_alias` tells other modules what an alias is for.
pub const NOTE_FORCED_TYPE: &CStr = c"alias-forced-type";
/// The handler of every alias, and the value of [`NOTE_FORCED_TYPE`].
pub const HANDLER: &CStr = c"wsgi-script";
/// The content type that is as good as the handler: what `AddType` was used for.
const CONTENT_TYPE: &str = "application/x-httpd-wsgi";
/// The note that overrides `WSGIProcessGroup`.
pub const NOTE_PROCESS_GROUP: &CStr = c"mod_wsgi.process_group";
/// The note that overrides `WSGIApplicationGroup`.
pub const NOTE_APPLICATION_GROUP: &CStr = c"mod_wsgi.application_group";
/// The note that overrides `WSGICallableObject`.
pub const NOTE_CALLABLE: &CStr = c"mod_wsgi.callable_object";
/// The note that overrides `WSGIPassAuthorization`: `1` or `0`.
pub const NOTE_PASS_AUTHORIZATION: &CStr = c"mod_wsgi.pass_authorization";

/// Whether requests of this handler are for the script they were mapped to.
pub fn is_own_handler(name: &[u8]) -> bool {
    name == HANDLER.to_bytes() || name == CONTENT_TYPE.as_bytes()
}

/// A regular expression; the fence implements it with httpd's own.
pub trait Pattern: fmt::Debug + Send + Sync {
    /// Where the expression and its groups match, the whole first.
    fn captures(&self, uri: &[u8]) -> Option<Vec<Option<Range<usize>>>>;
}

/// What a URI must look like.
#[derive(Debug, Clone)]
pub enum Mount {
    /// It begins with this path.
    Prefix(Vec<u8>),
    /// It matches this expression.
    Pattern(Arc<dyn Pattern>),
}

/// A line that maps URIs to scripts.
#[derive(Debug, Clone)]
pub struct Alias {
    /// Which URIs.
    pub mount: Mount,
    /// A script, or a directory of scripts.
    pub target: Vec<u8>,
    /// What it says about running them.
    pub overrides: Overrides,
    /// Where it stands.
    pub at: Location,
}

/// What an alias says about running its scripts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `process-group=`; `%{GLOBAL}` is empty already.
    pub process_group: Option<Vec<u8>>,
    /// `application-group=`; likewise.
    pub application_group: Option<Vec<u8>>,
    /// `callable-object=`.
    pub callable: Option<Vec<u8>>,
    /// `pass-authorization=`.
    pub pass_authorization: Option<bool>,
}

/// The answer to a URI.
#[derive(Debug)]
pub struct Hit<'a> {
    /// What the alias says the file is, or the directory that holds it.
    pub target: Cow<'a, [u8]>,
    /// What of the URI follows: the rest of the file name, then path information.
    pub rest: &'a [u8],
    /// Whether all of that is path information, as far as that can be told without
    /// looking at files.
    pub is_path_info: bool,
    /// The line that matched.
    pub alias: &'a Alias,
}

/// The arguments of an alias before its expression is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasLine {
    /// The first argument.
    pub url: Vec<u8>,
    /// The second.
    pub target: Vec<u8>,
    /// The rest.
    pub overrides: Overrides,
}

/// The text of a group in an option: `%{GLOBAL}` is the empty name.
pub fn group_text(text: Vec<u8>) -> Vec<u8> {
    if text == b"%{GLOBAL}" { Vec::new() } else { text }
}

impl AliasLine {
    /// Reads the arguments of either directive.
    pub fn read(arguments: &[u8]) -> Result<Self, DirectiveError> {
        let mut arguments = Arguments::new(arguments);
        let mut positional = || arguments.word().filter(|word| !word.is_empty());
        let (Some(url), Some(target)) = (positional(), positional()) else {
            return Err(DirectiveError::Missing { wanted: "at least two arguments" });
        };
        let overrides = Overrides::read(&mut arguments)
            .map_err(|cause| OptionKind::ScriptAlias.refuse(cause))?;
        Ok(Self { url, target, overrides })
    }

    /// The alias at `at` for the URIs of `mount`.
    pub fn alias(self, mount: Mount, at: Location) -> Alias {
        Alias { mount, target: self.target, overrides: self.overrides, at }
    }
}

impl Overrides {
    /// Reads the options behind the target.
    pub fn read(arguments: &mut Arguments<'_>) -> Result<Self, OptionError> {
        let mut overrides = Self::default();
        while let Some(pair) = arguments.pair()? {
            let text = |name| {
                if pair.value.is_empty() {
                    Err(OptionError::Empty(name))
                } else {
                    Ok(pair.value.clone())
                }
            };
            match pair.name {
                b"process-group" => {
                    overrides.process_group = Some(group_text(text("process-group")?));
                }
                b"application-group" => {
                    overrides.application_group = Some(group_text(text("application-group")?));
                }
                b"callable-object" => overrides.callable = Some(text("callable-object")?),
                b"pass-authorization" => {
                    let option = "pass-authorization";
                    let word = text(option)?;
                    overrides.pass_authorization = Some(parse_switch(&word).ok_or_else(|| {
                        let found = readable(&word);
                        OptionError::Value { option, wanted: "one of: On, Off".into(), found }
                    })?);
                }
                _ => return Err(OptionError::Unknown(readable(pair.name))),
            }
        }
        Ok(overrides)
    }

    /// The notes that carry this to the handler.
    pub fn notes(&self) -> impl Iterator<Item = (&'static CStr, &[u8])> {
        let switch = |on: bool| if on { b"1".as_slice() } else { b"0" };
        [
            (NOTE_PROCESS_GROUP, self.process_group.as_deref()),
            (NOTE_APPLICATION_GROUP, self.application_group.as_deref()),
            (NOTE_CALLABLE, self.callable.as_deref()),
            (NOTE_PASS_AUTHORIZATION, self.pass_authorization.map(switch)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// The first of `aliases` that answers `uri`: order decides, not length.
pub fn match_alias<'a>(aliases: &'a [Arc<Alias>], uri: &'a [u8]) -> Option<Hit<'a>> {
    if !uri.is_empty() && !uri.starts_with(b"/") {
        return None;
    }
    aliases.iter().find_map(|alias| alias.hit(uri))
}

impl Alias {
    /// Where `uri` leads; `None` if the alias is not for it.
    fn hit<'a>(&'a self, uri: &'a [u8]) -> Option<Hit<'a>> {
        let (end, target) = match &self.mount {
            Mount::Prefix(prefix) => (match_prefix(prefix, uri)?, (&self.target).into()),
            Mount::Pattern(pattern) => {
                let captures = pattern.captures(uri)?;
                let end = captures.first()?.as_ref()?.end;
                (end, Cow::Owned(substitute(&self.target, uri, &captures)))
            }
        };
        let is_root = match &self.mount {
            Mount::Prefix(prefix) => prefix == b"/",
            Mount::Pattern(_) => uri.get(..end) == Some(b"/"),
        };
        // A mount of `/` has eaten the slash that the file name needs.
        let rest = if is_root { uri } else { uri.get(end..)? };
        let is_path_info = is_script(&target) && is_plain(rest);
        (end > 0).then_some(Hit { target, rest, is_path_info, alias: self })
    }
}

/// Whether a target looks like a script: its name has an ending, as those of
/// directories rarely have.  Only a matter of speed: httpd copes with both.
fn is_script(target: &[u8]) -> bool {
    target.rsplit(|&byte| byte == b'/').next().is_some_and(|name| name.contains(&b'.'))
}

/// No name in as many bytes is longer than file systems allow.
const LONGEST_PLAIN: usize = 255;

/// Whether httpd would leave what follows a script as it is: it resolves empty
/// segments and those of dots where it has to find the script's end by itself, and
/// finds nothing where a name is too long for a file.
fn is_plain(rest: &[u8]) -> bool {
    rest.starts_with(b"/")
        && rest.len() <= LONGEST_PLAIN
        && !rest.windows(2).any(|pair| pair == b"//" || pair == b"/.")
}

/// How much of `uri` the prefix covers: a run of slashes matches any other, and
/// a match ends where a segment ends, unless the prefix says so itself.
fn match_prefix(prefix: &[u8], uri: &[u8]) -> Option<usize> {
    let run = |path: &[u8], at: usize| path.iter().skip(at).take_while(|&&b| b == b'/').count();
    let (mut in_prefix, mut in_uri) = (0, 0);
    while let Some(&wanted) = prefix.get(in_prefix) {
        if uri.get(in_uri) != Some(&wanted) {
            return None;
        }
        if wanted == b'/' {
            in_prefix += run(prefix, in_prefix);
            in_uri += run(uri, in_uri);
        } else {
            in_prefix += 1;
            in_uri += 1;
        }
    }
    let ends_well = prefix.ends_with(b"/") || matches!(uri.get(in_uri), None | Some(b'/'));
    ends_well.then_some(in_uri)
}

/// Puts captures in the place of `$0` to `$9`, as httpd's `ap_pregsub` does: a
/// backslash takes the meaning of what follows it.
fn substitute(target: &[u8], uri: &[u8], captures: &[Option<Range<usize>>]) -> Vec<u8> {
    let mut text = Vec::with_capacity(target.len());
    let mut rest = target;
    loop {
        rest = match rest {
            [] => return text,
            [b'$', digit @ b'0'..=b'9', rest @ ..] => {
                let capture = captures.get(usize::from(digit - b'0')).and_then(Option::as_ref);
                let capture = capture.and_then(|range| uri.get(range.clone()));
                text.extend_from_slice(capture.unwrap_or_default());
                rest
            }
            [b'\\', byte, rest @ ..] | [byte, rest @ ..] => {
                text.push(*byte);
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alias(url: &str, target: &str) -> Arc<Alias> {
        let line = AliasLine::read(format!("{url} {target}").as_bytes()).unwrap();
        let mount = Mount::Prefix(line.url.clone());
        Arc::new(line.alias(mount, Location::default()))
    }

    fn filename(aliases: &[Arc<Alias>], uri: &str) -> Option<String> {
        let hit = match_alias(aliases, uri.as_bytes())?;
        Some(readable(&[&hit.target, hit.rest].concat()))
    }

    fn prefix(url: &str, target: &str, uri: &str) -> Option<String> {
        filename(&[alias(url, target)], uri)
    }

    /// Matches where `uri` holds the text, and captures what precedes it.
    #[derive(Debug)]
    struct Holds(&'static str);

    impl Pattern for Holds {
        fn captures(&self, uri: &[u8]) -> Option<Vec<Option<Range<usize>>>> {
            let at = str::from_utf8(uri).ok()?.find(self.0)?;
            Some(vec![Some(at..at + self.0.len()), Some(0..at), None])
        }
    }

    fn pattern(text: &'static str, target: &str, uri: &str) -> Option<String> {
        let line = AliasLine::read(format!("x {target}").as_bytes()).unwrap();
        let mount = Mount::Pattern(Arc::new(Holds(text)));
        filename(&[Arc::new(line.alias(mount, Location::default()))], uri)
    }

    fn refusal(line: &str) -> String {
        AliasLine::read(line.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        assert_eq!(prefix("/app", "/s.wsgi", "/app").as_deref(), Some("/s.wsgi"));
        assert_eq!(prefix("/app", "/s.wsgi", "/app/x").as_deref(), Some("/s.wsgi/x"));
        assert_eq!(prefix("/app", "/s.wsgi", "/apple"), None);
        assert_eq!(prefix("/app", "/s.wsgi", "/ap"), None);
    }

    #[test]
    fn what_follows_a_script_is_its_path_information_unless_httpd_has_to_look() {
        let path_info = |target: &str, uri: &str| {
            let aliases = [alias("/app", target)];
            let hit = match_alias(&aliases, uri.as_bytes()).unwrap();
            if hit.is_path_info { readable(hit.rest) } else { String::new() }
        };
        assert_eq!(path_info("/s.wsgi", "/app/x/y"), "/x/y");
        assert_eq!(path_info("/s.wsgi", "/app/"), "/");
        assert_eq!(path_info("/s.wsgi", "/app"), "");
        for (target, uri) in [
            ("/dir", "/app/s.wsgi/x"),
            ("/dir.d/", "/app/s.wsgi"),
            ("/s.wsgi", "/app/x//y"),
            ("/s.wsgi", "/app/x/../y"),
        ] {
            assert_eq!(path_info(target, uri), "");
        }
    }

    #[test]
    fn a_prefix_with_a_slash_at_its_end_matches_below_it_only() {
        assert_eq!(prefix("/app/", "/dir/", "/app/x").as_deref(), Some("/dir/x"));
        assert_eq!(prefix("/app/", "/dir/", "/app"), None);
    }

    #[test]
    fn runs_of_slashes_match_each_other() {
        assert_eq!(prefix("/a//b", "/s", "//a/b/c").as_deref(), Some("/s/c"));
        assert_eq!(prefix("/a/b", "/s", "/a///b//c").as_deref(), Some("/s//c"));
        assert_eq!(prefix("/a/b", "/s", "/ab"), None);
    }

    #[test]
    fn the_root_keeps_the_whole_uri() {
        assert_eq!(prefix("/", "/s.wsgi", "/x/y").as_deref(), Some("/s.wsgi/x/y"));
        assert_eq!(prefix("/", "/s.wsgi", "//x").as_deref(), Some("/s.wsgi//x"));
        assert_eq!(prefix("/", "/s.wsgi", "/").as_deref(), Some("/s.wsgi/"));
    }

    #[test]
    fn only_paths_are_looked_at() {
        assert_eq!(prefix("*", "/s.wsgi", "*"), None);
        assert_eq!(prefix("/", "/s.wsgi", ""), None);
    }

    #[test]
    fn the_first_alias_wins() {
        let aliases = [alias("/a", "/one"), alias("/a/b", "/two")];
        assert_eq!(filename(&aliases, "/a/b").as_deref(), Some("/one/b"));
    }

    #[test]
    fn a_pattern_keeps_what_follows_it_and_fills_in_its_groups() {
        assert_eq!(
            pattern("/app", "/srv$1/$0.wsgi", "/x/app/y").as_deref(),
            Some("/srv/x//app.wsgi/y")
        );
        assert_eq!(pattern("/app", "/s$2$9$", "/app").as_deref(), Some("/s$"));
        assert_eq!(pattern("/app", r"/s\$1\\", "/app").as_deref(), Some(r"/s$1\"));
        assert_eq!(pattern("/app", "/s", "/x"), None);
    }

    #[test]
    fn a_pattern_that_matches_nothing_or_the_root_is_special() {
        assert_eq!(pattern("", "/s", "/x"), None);
        assert_eq!(pattern("/", "/s", "/x").as_deref(), Some("/s/x"));
    }

    #[test]
    fn options_become_notes() {
        let line = AliasLine::read(
            b"/a /s process-group=blog application-group=%{GLOBAL} callable-object=app \
              pass-authorization=ON",
        );
        let overrides = line.unwrap().overrides;
        let notes: Vec<_> = overrides.notes().collect();
        let wanted: [(&CStr, &[u8]); 4] = [
            (NOTE_PROCESS_GROUP, b"blog"),
            (NOTE_APPLICATION_GROUP, b""),
            (NOTE_CALLABLE, b"app"),
            (NOTE_PASS_AUTHORIZATION, b"1"),
        ];
        assert_eq!(notes, wanted);
        assert_eq!(Overrides::default().notes().count(), 0);
    }

    #[test]
    fn bad_lines_are_refused() {
        assert_eq!(refusal("/a"), "requires at least two arguments");
        assert_eq!(refusal("/a ''"), "requires at least two arguments");
        for (line, sentence) in [
            ("/a /s process-group=", "option 'process-group' must not be empty"),
            (
                "/a /s pass-authorization=1",
                "option 'pass-authorization' must be one of: On, Off, found '1'",
            ),
            ("/a /s threads=1", "unknown option 'threads'"),
            ("/a /s x", "wanted name=value, found 'x'"),
        ] {
            assert_eq!(
                refusal(line),
                format!("Invalid option to WSGI script alias definition: {sentence}")
            );
        }
    }

    proptest! {
        #[test]
        fn the_rest_of_a_match_is_the_end_of_the_uri(
            url in "(/[ab]{0,2}){1,3}", uri in "(/{1,2}[ab]{0,2}){0,4}",
        ) {
            if let Some(filename) = prefix(&url, "T", &uri) {
                prop_assert!(uri.ends_with(&filename[1..]));
            }
        }

        #[test]
        fn any_substitution_ends(target in ".*", uri in "/.{0,9}") {
            substitute(target.as_bytes(), uri.as_bytes(), &[Some(0..1), None, Some(5..999)]);
        }
    }
}
