//! The few calls to the system that std does not offer safely.

use core::ffi::c_int;

/// The size of the regular file `fd`; None if it is not one.
pub fn regular_file_size(fd: c_int) -> Option<u64> {
    // SAFETY: `stat` is plain numbers, for which zero is a value.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: `fstat` fills the structure or fails, whatever `fd` is.
    if unsafe { libc::fstat(fd, &raw mut stat) } != 0 {
        return None;
    }
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    u64::try_from(stat.st_size).ok()
}
