//! Users and groups that options name, looked up when the configuration is read.
#![forbid(unsafe_code)]

use super::OptionError;
use nix::unistd;
use std::path::PathBuf;

/// A user a daemon process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name in the password database; what `initgroups` wants.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The home directory.
    pub home: PathBuf,
}

/// A group a daemon process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The name in the group database; `#gid` where it has none.
    pub name: String,
    /// The number.
    pub gid: u32,
}

/// The number in `#1000`.
fn number(text: &str) -> Option<u32> {
    text.strip_prefix('#')?.parse().ok()
}

/// Looks a user up by name or `#uid`.
pub fn find_user(option: &'static str, text: &str) -> Result<User, OptionError> {
    let found = match number(text) {
        Some(uid) => unistd::User::from_uid(unistd::Uid::from_raw(uid)),
        None => unistd::User::from_name(text),
    };
    found
        .ok()
        .flatten()
        .map(|user| User { name: user.name, uid: user.uid.as_raw(), home: user.dir })
        .ok_or_else(|| OptionError::UnknownAccount { option, what: "user", found: text.to_owned() })
}

/// Looks a group up by name or `#gid`; a number need not have a name.
pub fn find_group(option: &'static str, text: &str) -> Result<Group, OptionError> {
    let by_number = number(text);
    let found = match by_number {
        Some(gid) => unistd::Group::from_gid(unistd::Gid::from_raw(gid)),
        None => unistd::Group::from_name(text),
    };
    match (found.ok().flatten(), by_number) {
        (Some(group), _) => Ok(Group { name: group.name, gid: group.gid.as_raw() }),
        (None, Some(gid)) => Ok(Group { name: text.to_owned(), gid }),
        (None, None) => {
            Err(OptionError::UnknownAccount { option, what: "group", found: text.to_owned() })
        }
    }
}

/// Like [`find_user`], for what applications run as: never root.
pub fn find_ordinary_user(option: &'static str, text: &str) -> Result<User, OptionError> {
    match find_user(option, text)? {
        User { uid: 0, .. } => Err(OptionError::Root { option, found: text.to_owned() }),
        user => Ok(user),
    }
}

/// Like [`find_group`], for what applications run as: never root's group.
pub fn find_ordinary_group(option: &'static str, text: &str) -> Result<Group, OptionError> {
    match find_group(option, text)? {
        Group { gid: 0, .. } => Err(OptionError::Root { option, found: text.to_owned() }),
        group => Ok(group),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let user = find_user("user", "daemon").unwrap();
        assert_eq!(find_user("user", &format!("#{}", user.uid)), Ok(user));
    }

    #[test]
    fn an_unknown_user_is_refused_by_name_and_by_number() {
        for text in ["no-such-user", "#4000000", "#", "#x", ""] {
            let error = find_user("user", text).unwrap_err();
            assert_eq!(error.to_string(), format!("option 'user' names the unknown user '{text}'"));
        }
    }

    #[test]
    fn root_is_refused_however_it_is_spelled() {
        for text in ["root", "#0", "#00"] {
            assert!(matches!(find_ordinary_user("user", text), Err(OptionError::Root { .. })));
            assert!(matches!(find_ordinary_group("group", text), Err(OptionError::Root { .. })));
        }
    }

    #[test]
    fn a_group_number_needs_no_name() {
        assert_eq!(
            find_group("group", "#4000000"),
            Ok(Group { name: "#4000000".into(), gid: 4_000_000 })
        );
        assert!(find_group("group", "no-such-group").is_err());
    }
}
