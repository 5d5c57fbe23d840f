//! Why a directive is refused; httpd puts the directive's name before the sentence.
#![forbid(unsafe_code)]

use super::option::readable;
use std::fmt;

/// Why a directive is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectiveError {
    /// The argument is none of the words the directive knows.
    #[error("must be one of: {wanted}; found '{found}'")]
    Word {
        /// The legal words, as the manual writes them.
        wanted: &'static str,
        /// The word that was found.
        found: String,
    },
    /// Fewer arguments than the directive needs.
    #[error("requires {wanted}")]
    Missing {
        /// What is needed.
        wanted: &'static str,
    },
    /// An argument that may not be empty is.
    #[error("{what} must not be empty")]
    Empty {
        /// Which argument.
        what: &'static str,
    },
    /// A path that httpd cannot make absolute.
    #[error("invalid path '{0}'")]
    Path(String),
    /// A regular expression that does not compile.
    #[error("cannot compile the regular expression '{0}'")]
    Pattern(String),
    /// A header's name that could be mistaken for another, or is none.
    #[error("wanted names of headers, of letters, digits and '-' only; found '{0}'")]
    HeaderName(String),
    /// An argument that is not what it must be.
    #[error("wanted {wanted}; found '{found}'")]
    Wanted {
        /// What it must be.
        wanted: &'static str,
        /// The word that was found.
        found: String,
    },
    /// What is neither an address nor a subnet.
    #[error("wanted {wanted}; found '{found}'")]
    Network {
        /// The word that was found.
        found: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// A number that is not one the directive takes.
    #[error("must be {wanted}; found '{found}'")]
    Number {
        /// What it must be.
        wanted: &'static str,
        /// The word that was found.
        found: String,
    },
    /// Something else than the selectors of a section.
    #[error("wanted process-group=NAME or application-group=NAME; found '{0}'")]
    Selector(String),
    /// A selector that is there already.
    #[error("'{0}' is given twice")]
    Twice(String),
    /// A section inside another of its kind.
    #[error("cannot stand inside another one")]
    Nested,
    /// One of the `name=value` options is refused.
    #[error("Invalid option to WSGI {kind} definition: {cause}")]
    Option {
        /// What the options describe.
        kind: OptionKind,
        /// Why it is refused.
        #[source]
        cause: OptionError,
    },
}

/// What a list of `name=value` options describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionKind {
    /// `WSGIScriptAlias` and `WSGIScriptAliasMatch`.
    ScriptAlias,
    /// `WSGIDaemonProcess`.
    DaemonProcess,
    /// `WSGIImportScript`.
    ImportScript,
    /// `WSGIHandlerScript`.
    HandlerScript,
    /// `WSGIDispatchScript`.
    DispatchScript,
    /// `WSGIAccessScript`.
    AccessScript,
    /// `WSGIAuthUserScript`.
    AuthUserScript,
    /// `WSGIAuthGroupScript`.
    AuthGroupScript,
}

impl fmt::Display for OptionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ScriptAlias => "script alias",
            Self::DaemonProcess => "daemon process",
            Self::ImportScript => "import script",
            Self::HandlerScript => "handler script",
            Self::DispatchScript => "dispatch script",
            Self::AccessScript => "access script",
            Self::AuthUserScript => "auth user script",
            Self::AuthGroupScript => "auth group script",
        })
    }
}

impl OptionKind {
    /// Turns the refusal of an option into that of its directive.
    pub const fn refuse(self, cause: OptionError) -> DirectiveError {
        DirectiveError::Option { kind: self, cause }
    }
}

/// Why a `name=value` option is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// A word that is not `name=value`.
    #[error("wanted name=value, found '{0}'")]
    Syntax(String),
    /// A name the directive does not know.
    #[error("unknown option '{0}'")]
    Unknown(String),
    /// An option that must have a value has none.
    #[error("option '{0}' must not be empty")]
    Empty(&'static str),
    /// An option the directive cannot do without is missing.
    #[error("option '{0}' is required")]
    Required(&'static str),
    /// A value of the wrong form.
    #[error("option '{option}' must be {wanted}, found '{found}'")]
    Value {
        /// Name of the option.
        option: &'static str,
        /// What the value must be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// A user or group that the system does not know.
    #[error("option '{option}' names the unknown {what} '{found}'")]
    UnknownAccount {
        /// Name of the option.
        option: &'static str,
        /// "user" or "group".
        what: &'static str,
        /// The name or `#id` that was looked up.
        found: String,
    },
    /// Applications do not run as root.
    #[error("option '{option}' must not be root, found '{found}'")]
    Root {
        /// Name of the option.
        option: &'static str,
        /// The name or `#id` that leads to id 0.
        found: String,
    },
    /// An option that only root can carry out.
    #[error("option '{0}' needs httpd to be started as root")]
    NeedsRoot(&'static str),
    /// Two options that contradict each other.
    #[error("options '{0}' and '{1}' cannot be given together")]
    Together(&'static str, &'static str),
}

/// Reads the `On` or `Off` of a directive.
pub fn switch(word: &[u8]) -> Result<bool, DirectiveError> {
    parse_switch(word)
        .ok_or_else(|| DirectiveError::Word { wanted: "Off | On", found: readable(word) })
}

/// `On` and `Off`, however they are capitalised.
pub fn parse_switch(word: &[u8]) -> Option<bool> {
    if word.eq_ignore_ascii_case(b"On") {
        Some(true)
    } else if word.eq_ignore_ascii_case(b"Off") {
        Some(false)
    } else {
        None
    }
}
