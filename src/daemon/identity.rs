//! Becoming the user of a process group: one list of steps, each fatal.
#![forbid(unsafe_code)]

use super::plan::{GroupPlan, Identity};
use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::{self, Gid, Uid};
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Why a daemon process could not become who it should be.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The new root directory.
    #[error("WSGI0003: cannot change the root directory to '{path}': {cause}")]
    Chroot {
        /// It.
        path: PathBuf,
        /// Why.
        cause: Errno,
    },
    /// The group.
    #[error("WSGI0004: cannot change to group {gid}: {cause}")]
    Group {
        /// It.
        gid: u32,
        /// Why.
        cause: Errno,
    },
    /// The supplementary groups.
    #[error("WSGI0005: cannot take on the supplementary groups of user '{user}': {cause}")]
    Supplementary {
        /// Whose.
        user: String,
        /// Why.
        cause: Errno,
    },
    /// The user.
    #[error("WSGI0007: cannot change to user {uid}: {cause}")]
    User {
        /// It.
        uid: u32,
        /// Why.
        cause: Errno,
    },
    /// The kernel let us become root again.
    #[error("WSGI9105: user {uid} can become root again; the process is not started")]
    StillRoot {
        /// Who we should have become for good.
        uid: u32,
    },
    /// The working directory.
    #[error("WSGI0009: cannot change to directory '{path}': {cause}; home= names another")]
    Home {
        /// It.
        path: PathBuf,
        /// Why.
        cause: Errno,
    },
    /// The promise never to gain privileges.
    #[error("WSGI9106: cannot give up gaining privileges: {0}")]
    Privileges(Errno),
}

/// Priority and limits, while we may still set them: failing is not fatal, the
/// text says what does not apply.
pub fn set_limits(plan: &GroupPlan, mut warn: impl FnMut(&str)) {
    if let Some(priority) = plan.cpu_priority
        && let Err(cause) = super::sys::set_priority(priority)
    {
        warn(&format!("WSGI0075: cannot set CPU priority {priority}: {cause}"));
    }
    if let Err(cause) = super::files::restore(plan.open_files) {
        let limit = plan.open_files;
        warn(&format!("WSGI9113: cannot limit open files to {limit} again: {cause}"));
    }
    // The signal of the soft limit has the process replaced; a hard one would kill it
    // before its requests have had their time.
    let most = getrlimit(Resource::RLIMIT_CPU).map_or(RLIM_INFINITY, |(_, hard)| hard);
    let limits = [
        ("WSGI0076", "CPU time", Resource::RLIMIT_CPU, plan.cpu_limit.map(|n| (n, most))),
        ("WSGI0077", "data", Resource::RLIMIT_DATA, plan.memory_limit.map(|n| (n, n))),
        (
            "WSGI0078",
            "virtual memory",
            Resource::RLIMIT_AS,
            plan.virtual_memory_limit.map(|n| (n, n)),
        ),
    ];
    for (code, what, resource, limit) in limits {
        if let Some((soft, hard)) = limit
            && let Err(cause) = setrlimit(resource, soft, hard)
        {
            warn(&format!("{code}: cannot limit {what} to {soft}: {cause}"));
        }
    }
}

/// Root directory, groups, user; then makes sure that there is no way back.
pub fn assume(identity: &Identity) -> Result<(), IdentityError> {
    if unistd::geteuid().is_root() {
        if let Some(root) = &identity.chroot {
            unistd::chroot(root)
                .and_then(|()| unistd::chdir("/"))
                .map_err(|cause| IdentityError::Chroot { path: root.clone(), cause })?;
        }
        become_user(identity)?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(IdentityError::Privileges)
}

fn become_user(identity: &Identity) -> Result<(), IdentityError> {
    let Identity { uid, gid, .. } = *identity;
    let primary = Gid::from_raw(gid);
    unistd::setgid(primary).map_err(|cause| IdentityError::Group { gid, cause })?;
    supplementary(identity, primary).map_err(|cause| IdentityError::Supplementary {
        user: identity.user_name.clone(),
        cause,
    })?;
    let user = Uid::from_raw(uid);
    unistd::setuid(user).map_err(|cause| IdentityError::User { uid, cause })?;
    let ids = unistd::getresuid().map_err(|cause| IdentityError::User { uid, cause })?;
    if [ids.real, ids.effective, ids.saved] != [user; 3] || unistd::setuid(Uid::from_raw(0)).is_ok()
    {
        return Err(IdentityError::StillRoot { uid });
    }
    Ok(())
}

fn supplementary(identity: &Identity, primary: Gid) -> Result<(), Errno> {
    match &identity.supplementary {
        Some(groups) => {
            let all: Vec<Gid> =
                std::iter::once(primary).chain(groups.iter().copied().map(Gid::from_raw)).collect();
            unistd::setgroups(&all)
        }
        // A user without a name is in no groups.
        None if identity.user_name.is_empty() => unistd::setgroups(&[primary]),
        None => {
            let name = CString::new(identity.user_name.as_str()).map_err(|_| Errno::EINVAL)?;
            unistd::initgroups(&name, primary)
        }
    }
}

/// Goes to the working directory.
pub fn go_home(plan: &GroupPlan) -> Result<(), IdentityError> {
    let home: Option<&Path> = match &plan.home {
        Some(home) => Some(home),
        None if plan.identity.go_home => Some(&plan.identity.user_home),
        None => None,
    };
    match home {
        Some(path) => unistd::chdir(path)
            .map_err(|cause| IdentityError::Home { path: path.to_path_buf(), cause }),
        None => Ok(()),
    }
}
