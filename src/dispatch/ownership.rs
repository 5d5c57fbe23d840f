//! Whom a script must belong to before a group runs it (`script-user`, `script-group`).
//!
//! Whoever may write the script, or replace it in its directory, decides what the
//! processes of the group run.
#![forbid(unsafe_code)]

use crate::config::identity::{Group, User};
use nix::unistd;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whom the scripts of a group must belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// `script-user=`: nobody else may write them.
    User(User),
    /// `script-group=`: only its members may write them.
    Group(Group),
}

/// What is looked at of a file or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// The owner.
    uid: u32,
    /// The group.
    gid: u32,
    /// The permission bits.
    mode: u32,
}

impl Metadata {
    /// That of what is at `path`, or what a symbolic link there leads to.
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self { uid: found.uid(), gid: found.gid(), mode: found.mode() })
    }

    /// Whether others than the owner and the group may write it.
    const fn is_world_writable(self) -> bool {
        self.mode & 0o002 != 0
    }

    /// Whether the group may write it.
    const fn is_group_writable(self) -> bool {
        self.mode & 0o020 != 0
    }
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The script.
    Script,
    /// The directory it is in.
    Directory,
}

/// What is wrong with the ownership of a script or of its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// It cannot be looked at.
    Unseen,
    /// It belongs to a number nobody has a name for.
    Nameless(u32),
    /// It belongs to somebody else.
    Foreign(String),
    /// The group may write it.
    GroupWritable,
    /// Everybody may write it.
    WorldWritable,
}

/// Why a script is not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untrusted {
    /// Whom it should belong to.
    owner: Owner,
    /// What was looked at.
    place: Place,
    /// What is wrong with it.
    flaw: Flaw,
}

impl Untrusted {
    /// The code of the log record: those of the module we replace.
    pub const fn code(&self) -> &'static str {
        match (&self.owner, self.place, &self.flaw) {
            (Owner::Group(_), Place::Script, flaw) => match flaw {
                Flaw::Unseen => "WSGI0153",
                Flaw::Nameless(_) => "WSGI0154",
                Flaw::Foreign(_) => "WSGI0155",
                Flaw::GroupWritable | Flaw::WorldWritable => "WSGI0157",
            },
            (Owner::Group(_), Place::Directory, flaw) => match flaw {
                Flaw::Unseen => "WSGI0158",
                Flaw::Nameless(_) => "WSGI0159",
                Flaw::Foreign(_) => "WSGI0160",
                Flaw::GroupWritable | Flaw::WorldWritable => "WSGI0161",
            },
            (Owner::User(_), Place::Script, flaw) => match flaw {
                Flaw::Unseen => "WSGI0162",
                Flaw::Nameless(_) => "WSGI0163",
                Flaw::Foreign(_) => "WSGI0164",
                Flaw::GroupWritable => "WSGI0166",
                Flaw::WorldWritable => "WSGI0168",
            },
            (Owner::User(_), Place::Directory, flaw) => match flaw {
                Flaw::Unseen => "WSGI0169",
                Flaw::Nameless(_) => "WSGI0170",
                Flaw::Foreign(_) => "WSGI0171",
                Flaw::WorldWritable => "WSGI0172",
                Flaw::GroupWritable => "WSGI0173",
            },
        }
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self.place {
            Place::Script => "the script",
            Place::Directory => "the directory of the script",
        })?;
        let (option, kind, wanted) = match &self.owner {
            Owner::User(user) => ("script-user", "user", &user.name),
            Owner::Group(group) => ("script-group", "group", &group.name),
        };
        match &self.flaw {
            Flaw::Unseen => to.write_str(" cannot be looked at")?,
            Flaw::Nameless(number) => {
                write!(to, " belongs to {kind} {number}, which has no name, not to '{wanted}'")?;
            }
            Flaw::Foreign(name) => {
                write!(to, " belongs to {kind} '{name}', not to '{wanted}'")?;
            }
            Flaw::GroupWritable => to.write_str(" can be written by its group")?,
            Flaw::WorldWritable => to.write_str(" can be written by everybody")?,
        }
        write!(to, " ({option})")
    }
}

impl std::error::Error for Untrusted {}

impl Owner {
    /// Whether the group may run the script at `path`.
    pub fn check(&self, path: &Path) -> Result<(), Untrusted> {
        self.judge(Place::Script, Metadata::of(path))?;
        self.judge(Place::Directory, path.parent().and_then(Metadata::of))
    }

    /// Whether what was found at one of the two places is as it must be.
    ///
    /// The order is that of the module we replace, which decides the code.
    fn judge(&self, place: Place, found: Option<Metadata>) -> Result<(), Untrusted> {
        let flaw = match found {
            None => Some(Flaw::Unseen),
            Some(found) => match self {
                Self::User(user) if user.uid != found.uid => {
                    Some(name_of_user(found.uid).map_or(Flaw::Nameless(found.uid), Flaw::Foreign))
                }
                Self::Group(group) if group.gid != found.gid => {
                    Some(name_of_group(found.gid).map_or(Flaw::Nameless(found.gid), Flaw::Foreign))
                }
                Self::User(_) if place == Place::Script && found.is_group_writable() => {
                    Some(Flaw::GroupWritable)
                }
                _ if found.is_world_writable() => Some(Flaw::WorldWritable),
                Self::User(_) if found.is_group_writable() => Some(Flaw::GroupWritable),
                _ => None,
            },
        };
        flaw.map_or(Ok(()), |flaw| Err(Untrusted { owner: self.clone(), place, flaw }))
    }
}

/// The login name of a user.
fn name_of_user(uid: u32) -> Option<String> {
    Some(unistd::User::from_uid(uid.into()).ok()??.name)
}

/// The name of a group.
fn name_of_group(gid: u32) -> Option<String> {
    Some(unistd::Group::from_gid(gid.into()).ok()??.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody's number.
    const NOBODYS: u32 = 4_000_000;

    fn user(uid: u32) -> Owner {
        Owner::User(User { name: "joe".to_owned(), uid, home: "/".into() })
    }

    fn group(gid: u32) -> Owner {
        Owner::Group(Group { name: "web".to_owned(), gid })
    }

    fn code(owner: &Owner, place: Place, (uid, gid, mode): (u32, u32, u32)) -> &'static str {
        let found = Metadata { uid, gid, mode };
        owner.judge(place, Some(found)).map_or_else(|untrusted| untrusted.code(), |()| "")
    }

    #[test]
    fn a_script_of_the_user_that_nobody_else_may_write_is_run() {
        for mode in [0o600, 0o644, 0o755, 0o100_644] {
            assert_eq!(code(&user(7), Place::Script, (7, 9, mode)), "");
            assert_eq!(code(&user(7), Place::Directory, (7, 9, mode)), "");
        }
    }

    #[test]
    fn a_script_of_the_group_may_be_written_by_the_group() {
        for mode in [0o600, 0o664, 0o775] {
            assert_eq!(code(&group(9), Place::Script, (7, 9, mode)), "");
            assert_eq!(code(&group(9), Place::Directory, (7, 9, mode)), "");
        }
    }

    #[test]
    fn each_flaw_has_the_code_of_the_reference() {
        let (of_user, of_group) = (user(7), group(7));
        for (owner, found, script, directory) in [
            (&of_user, (0, 7, 0o644), "WSGI0164", "WSGI0171"),
            (&of_user, (NOBODYS, 7, 0o644), "WSGI0163", "WSGI0170"),
            (&of_user, (7, 7, 0o664), "WSGI0166", "WSGI0173"),
            (&of_user, (7, 7, 0o646), "WSGI0168", "WSGI0172"),
            (&of_user, (7, 7, 0o666), "WSGI0166", "WSGI0172"),
            (&of_group, (7, 0, 0o644), "WSGI0155", "WSGI0160"),
            (&of_group, (7, NOBODYS, 0o644), "WSGI0154", "WSGI0159"),
            (&of_group, (7, 7, 0o646), "WSGI0157", "WSGI0161"),
        ] {
            assert_eq!(code(owner, Place::Script, found), script, "{found:?}");
            assert_eq!(code(owner, Place::Directory, found), directory, "{found:?}");
        }
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_run() {
        for (owner, codes) in
            [(user(7), ["WSGI0162", "WSGI0169"]), (group(7), ["WSGI0153", "WSGI0158"])]
        {
            for (place, code) in [Place::Script, Place::Directory].into_iter().zip(codes) {
                assert_eq!(owner.judge(place, None).unwrap_err().code(), code);
            }
            assert!(owner.check(Path::new("/nowhere/at/all")).is_err());
        }
    }

    #[test]
    fn the_sentence_says_what_was_wanted_and_what_was_found() {
        let untrusted = |owner: &Owner, place, uid| {
            let found = Metadata { uid, gid: uid, mode: 0o644 };
            owner.judge(place, Some(found)).unwrap_err().to_string()
        };
        assert_eq!(
            untrusted(&user(7), Place::Script, 0),
            "the script belongs to user 'root', not to 'joe' (script-user)"
        );
        assert_eq!(
            untrusted(&group(7), Place::Directory, NOBODYS),
            "the directory of the script belongs to group 4000000, which has no name, \
             not to 'web' (script-group)"
        );
    }
}
