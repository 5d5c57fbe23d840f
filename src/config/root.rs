//! The root directory of a process group, and what paths are called below it.
#![forbid(unsafe_code)]

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `chroot=` of a process group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(Vec<u8>);

impl Root {
    /// The root directory at this path.
    pub fn new(path: &Path) -> Self {
        let path = path.as_os_str().as_bytes();
        let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
        Self(path.get(..end).unwrap_or_default().to_vec())
    }

    /// What a path is called by who sees this directory as `/`; `None` if it lies
    /// outside.
    pub fn inside<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        match path.strip_prefix(self.0.as_slice())? {
            [] => Some(b"/"),
            rest if rest.starts_with(b"/") => Some(rest),
            _ => None,
        }
    }

    /// What an absolute path there is called by everybody else.
    pub fn outside(&self, path: &[u8]) -> Vec<u8> {
        [self.0.as_slice(), path].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_the_root_loses_it() {
        for root in ["/srv/jail", "/srv/jail/", "/srv/jail//"] {
            let root = Root::new(Path::new(root));
            assert_eq!(root.inside(b"/srv/jail/app.wsgi"), Some(b"/app.wsgi".as_slice()));
            assert_eq!(root.inside(b"/srv/jail"), Some(b"/".as_slice()));
            assert_eq!(root.inside(b"/srv/jailed/app.wsgi"), None);
            assert_eq!(root.inside(b"/srv/app.wsgi"), None);
        }
    }

    #[test]
    fn a_path_in_there_is_found_below_the_root() {
        let root = Root::new(Path::new("/srv/jail/"));
        assert_eq!(root.outside(b"/app.wsgi"), b"/srv/jail/app.wsgi");
        assert_eq!(Root::new(Path::new("/")).outside(b"/app.wsgi"), b"/app.wsgi");
    }

    #[test]
    fn the_real_root_changes_nothing() {
        let root = Root::new(Path::new("/"));
        assert_eq!(root.inside(b"/srv/app.wsgi"), Some(b"/srv/app.wsgi".as_slice()));
        assert_eq!(root.inside(b"/"), Some(b"/".as_slice()));
    }
}
