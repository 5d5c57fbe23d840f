//! Whether an account may read a file, by what the file says: asked as root, who
//! may read everything.
#![forbid(unsafe_code)]

use crate::config::ProcessGroup;
use crate::daemon::sys::has_acl;
use nix::unistd::{Gid, Uid, User, getgrouplist};
use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The bits of a mode that let somebody read a file.
const READ: u32 = 4;
/// The bits that let somebody pass through a directory.
const SEARCH: u32 = 1;

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name; empty if it has none.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// All its groups.
    pub gids: Vec<u32>,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() { write!(f, "#{}", self.uid) } else { write!(f, "'{}'", self.name) }
    }
}

/// The groups of a user beside `gid`.
fn groups_of(name: &str, gid: u32) -> Vec<u32> {
    let groups = CString::new(name).ok().and_then(|name| {
        let groups = getgrouplist(&name, Gid::from_raw(gid)).ok()?;
        Some(groups.into_iter().map(Gid::as_raw).collect())
    });
    groups.unwrap_or_else(|| vec![gid])
}

impl Account {
    /// The user and group with these numbers.
    pub fn new(uid: u32, gid: u32) -> Self {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let name = user.map(|user| user.name).unwrap_or_default();
        Self { gids: groups_of(&name, gid), name, uid }
    }

    /// Whom the processes of a group run as under this httpd.
    pub fn of_group(group: &ProcessGroup, httpd: &Self) -> Self {
        let (name, uid) = match &group.user {
            Some(user) => (user.name.clone(), user.uid),
            None => (httpd.name.clone(), httpd.uid),
        };
        let primary = group.group.as_ref().map(|group| group.gid);
        let primary = primary.or_else(|| httpd.gids.first().copied()).unwrap_or(uid);
        let gids = match &group.supplementary_groups {
            Some(groups) => {
                std::iter::once(primary).chain(groups.iter().map(|group| group.gid)).collect()
            }
            None => groups_of(&name, primary),
        };
        Self { name, uid, gids }
    }

    /// Whether the path lets this account do what `bits` stand for.
    fn may(&self, path: &Path, bits: u32) -> bool {
        let Ok(found) = fs::metadata(path) else { return true };
        let shift = if found.uid() == self.uid {
            6
        } else if self.gids.contains(&found.gid()) {
            3
        } else {
            0
        };
        // An access control list says more than we read.
        self.uid == 0 || (found.mode() >> shift) & bits == bits || has_acl(path)
    }
}

/// The first thing on the way to the file (or to the directory alone) that keeps
/// the account from reading it.
pub fn obstacle(directory: &Path, file: &[&OsStr], account: &Account) -> Option<PathBuf> {
    // What links lead through counts as well.
    let real = file.iter().fold(directory.to_owned(), |path, name| path.join(name));
    let real = fs::canonicalize(real).ok()?;
    let asked: Vec<&Path> = directory.ancestors().collect();
    let ways = asked.into_iter().rev().chain(real.ancestors().skip(file.len()));
    let closed = ways.filter(|way| way.is_dir()).find(|way| !account.may(way, SEARCH));
    let closed = closed.map(Path::to_owned);
    closed.or_else(|| (!file.is_empty() && !account.may(&real, READ)).then_some(real))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn account(uid: u32, gid: u32) -> Account {
        Account { name: String::new(), uid, gids: vec![gid] }
    }

    #[test]
    fn the_mode_that_counts_is_that_of_the_owner_the_group_or_the_others() {
        let tree = tempfile::tempdir().unwrap();
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = tree.path().join("file");
        fs::write(&file, "").unwrap();
        let found = fs::metadata(&file).unwrap();
        let (uid, gid) = (found.uid(), found.gid());
        let check = |mode: u32, account: &Account| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            obstacle(tree.path(), &[OsStr::new("file")], account)
        };
        let (group, other) = (account(uid + 7, gid), account(uid + 7, gid + 7));
        assert_eq!(check(0o640, &group), None);
        assert_eq!(check(0o640, &other), Some(fs::canonicalize(&file).unwrap()));
        assert_eq!(check(0o604, &other), None);
        // The group is asked, not the others.
        assert!(check(0o604, &group).is_some());
    }

    #[test]
    fn every_directory_on_the_way_must_be_open() {
        let tree = tempfile::tempdir().unwrap();
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (closed, open) = (tree.path().join("closed"), tree.path().join("open"));
        for directory in [&closed, &open] {
            fs::create_dir(directory).unwrap();
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(closed.join("file"), "").unwrap();
        symlink(closed.join("file"), open.join("link")).unwrap();
        let stranger = account(70_000, 70_000);
        let through_link = || obstacle(&open, &[OsStr::new("link")], &stranger);
        assert_eq!(through_link(), None);
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(through_link(), Some(fs::canonicalize(&closed).unwrap()));
        assert_eq!(obstacle(&open, &[], &stranger), None);
    }
}
