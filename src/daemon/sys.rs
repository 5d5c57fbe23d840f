//! The raw system calls of processes and sockets, each behind a safe door.
//!
//! The only file of `daemon` that may say `unsafe`.

use crate::scoreboard::How;
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{ForkResult, Pid};
use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsStr, c_int};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

/// Most descriptors one message carries: Linux' own limit (`SCM_MAX_FD`).
pub const MOST_FDS: usize = 253;

/// A connected pair of stream sockets.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?)
}

/// A connected pair of sockets that keep messages apart.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends bytes, and descriptors with the first of them; how many bytes went.
pub fn send(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    send_flags(socket, parts, fds, MsgFlags::MSG_NOSIGNAL)
}

/// As [`send`], failing with `WouldBlock` instead of waiting.
pub fn try_send(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    send_flags(socket, parts, fds, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)
}

fn send_flags(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
    flags: MsgFlags,
) -> io::Result<usize> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), parts, control, flags, None) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Sends all of `first`, then all of `second`; `fd` rides with the first byte.
pub fn send_all(
    socket: BorrowedFd<'_>,
    first: &[u8],
    second: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    send_parts(socket, [first, second], fd)
}

/// The rest of `parts` behind their first `done` bytes.
pub fn rest<const N: usize>(parts: [&[u8]; N], done: usize) -> [IoSlice<'_>; N] {
    let mut skip = done;
    parts.map(|part| {
        let from = skip.min(part.len());
        skip -= from;
        IoSlice::new(&part[from..])
    })
}

/// Sends all of `parts` in their order; `fd` rides with the first byte.
pub fn send_parts<const N: usize>(
    socket: BorrowedFd<'_>,
    parts: [&[u8]; N],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let total = parts.iter().map(|part| part.len()).sum();
    let mut fds = fd.as_slice();
    let mut done = 0;
    while done < total {
        match send(socket, &rest(parts, done), fds)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => done += count,
        }
        fds = &[];
    }
    Ok(())
}

/// Room for the descriptors of one message; `u64`s, because the kernel's records in it
/// begin where those may.
#[derive(Debug)]
pub struct Rights {
    room: Room,
    /// Whether descriptors of the last message are missing.
    is_cut: bool,
}

/// Where it is.
#[derive(Debug)]
enum Room {
    /// Here: one descriptor needs no memory of its own.
    Small([u64; SMALL], usize),
    /// Kept between calls.
    Large(Vec<u64>),
}

/// Enough for one descriptor.
const SMALL: usize = 4;

impl Rights {
    /// For messages without descriptors: the kernel drops what comes, and this
    /// process never has to close what the sender made slow to close.
    pub const fn none() -> Self {
        Self { room: Room::Small([0; SMALL], 0), is_cut: false }
    }

    /// For messages with at most one descriptor.
    pub fn one() -> Self {
        Self::room(1)
    }

    /// For messages with as many as the system allows.
    pub fn many() -> Self {
        Self::room(MOST_FDS)
    }

    fn room(fds: usize) -> Self {
        let bytes = (fds * size_of::<RawFd>()) as libc::c_uint;
        // SAFETY: computes a number.
        let space = unsafe { libc::CMSG_SPACE(bytes) } as usize;
        let words = space.div_ceil(size_of::<u64>());
        let room = match words {
            ..=SMALL => Room::Small([0; SMALL], words),
            _ => Room::Large(vec![0; words]),
        };
        Self { room, is_cut: false }
    }

    /// Whether the last message had more descriptors than there was room for, here or
    /// among those this process may have open.
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    fn words(&mut self) -> &mut [u64] {
        match &mut self.room {
            Room::Small(room, words) => &mut room[..*words],
            Room::Large(room) => room,
        }
    }
}

/// How a receive call waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// As long as the socket's own timeout allows.
    Yes,
    /// Not at all: `WouldBlock`.
    No,
}

/// Receives bytes, and the descriptors that came with them; 0 bytes is the end.
/// Descriptors beyond the room are closed by the kernel.
///
/// Not `nix`'s: it forgets the descriptors of a message that had more of them
/// than there is room for, and whoever sends such messages fills our table.
pub fn receive(
    socket: BorrowedFd<'_>,
    to: &mut [u8],
    rights: &mut Rights,
    wait: Wait,
    mut take: impl FnMut(OwnedFd),
) -> io::Result<usize> {
    let mut flags = libc::MSG_CMSG_CLOEXEC;
    if wait == Wait::No {
        flags |= libc::MSG_DONTWAIT;
    }
    let mut part = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    // SAFETY: a record of numbers and pointers, for which 0 is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let count = loop {
        let room = rights.words();
        message.msg_controllen = size_of_val(room) as _;
        message.msg_control = room.as_mut_ptr().cast();
        // SAFETY: the record points to our buffers with their lengths.
        let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
        match Errno::result(count) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    rights.is_cut = message.msg_flags & libc::MSG_CTRUNC != 0;
    if message.msg_controllen > 0 {
        descriptors(&message).into_iter().for_each(&mut take);
    }
    usize::try_from(count).map_err(io::Error::other)
}

/// The descriptors the kernel made for us with a message it has just filled in.
fn descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled in the record and its buffer.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null or a record of the kernel's within the buffer.
    while let Some(record) = unsafe { next.as_ref() } {
        if (record.cmsg_level, record.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: computes a number.
            let header = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = record.cmsg_len.saturating_sub(header) / size_of::<RawFd>();
            // SAFETY: the record's own data.
            let data: *const RawFd = unsafe { libc::CMSG_DATA(next) }.cast();
            for index in 0..count {
                // SAFETY: the record says that it holds so many.
                let at = unsafe { data.add(index) };
                // SAFETY: as above; the numbers need not be aligned.
                let fd = unsafe { at.read_unaligned() };
                // SAFETY: the kernel has just made this descriptor for us.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        // SAFETY: steps from one record of the kernel's to the next.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    fds
}

/// Receives bytes only.
pub fn receive_bytes(socket: BorrowedFd<'_>, to: &mut [u8], wait: Wait) -> io::Result<usize> {
    let flags = match wait {
        Wait::Yes => MsgFlags::empty(),
        Wait::No => MsgFlags::MSG_DONTWAIT,
    };
    loop {
        match nix::sys::socket::recv(socket.as_raw_fd(), to, flags) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Ends a connection for everybody who has this end of it.
pub fn hang_up(socket: BorrowedFd<'_>) {
    let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
}

/// Receives bytes into `first`, and what there is more of them into `second`.
pub fn receive_both(
    socket: BorrowedFd<'_>,
    first: &mut [u8],
    second: &mut [u8],
) -> io::Result<usize> {
    let mut parts = [io::IoSliceMut::new(first), io::IoSliceMut::new(second)];
    loop {
        match nix::sys::uio::readv(socket, &mut parts) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Bounds how long one send or receive on `socket` may wait.
pub fn set_timeout(socket: &OwnedFd, timeout: Duration) -> io::Result<()> {
    set_timeouts(socket, timeout, timeout)
}

/// Bounds how long one receive, and how long one send on `socket` may wait.
pub fn set_timeouts(socket: &OwnedFd, receive: Duration, send: Duration) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    // More is for ever, and would not fit.
    let time = |wait: Duration| {
        TimeVal::milliseconds(i64::from(i32::try_from(wait.as_millis()).unwrap_or(0)))
    };
    setsockopt(socket, sockopt::ReceiveTimeout, &time(receive))?;
    Ok(setsockopt(socket, sockopt::SendTimeout, &time(send))?)
}

/// The two sides of a fork.
#[derive(Debug)]
pub enum Fork {
    /// In the process that forked.
    Parent(Pid),
    /// In the new one.
    Child,
}

/// How many threads this process has.
fn threads() -> io::Result<usize> {
    Ok(list_threads()?.0.count())
}

/// The threads of this process, to be counted when it is looked at: opened before
/// a change of the root directory, it is of use after it.
#[derive(Debug)]
pub struct ThreadList(std::fs::ReadDir);

/// The threads of this process.
pub fn list_threads() -> io::Result<ThreadList> {
    Ok(ThreadList(std::fs::read_dir("/proc/self/task")?))
}

/// Forks a process that has nothing more to do with httpd: it leads a session of
/// its own, its signals are unblocked and unhandled, and of the memory it shares
/// with others it keeps only what `keep` names (httpd's scoreboard and TLS session
/// caches are such memory: an application that could write there could reach
/// httpd).
///
/// A session: httpd signals its whole process group when it stops and restarts, an
/// application may signal its own, and a terminal httpd was started from can be
/// written to by whoever shares its session.
///
/// Refused while there is more than one thread: what another holds locked would
/// stay locked for ever.
pub fn fork_apart(keep: Option<&str>) -> io::Result<Fork> {
    let count = threads()?;
    if count != 1 {
        return Err(io::Error::other(format!("the process has {count} threads, wanted 1")));
    }
    let mut before = SigSet::empty();
    // Blocked, so that none is handled by the new process as if it were the old.
    nix::sys::signal::sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut before),
    )?;
    // SAFETY: counted above: no other thread holds a lock.
    let forked = unsafe { nix::unistd::fork() };
    if let Ok(ForkResult::Child) = forked {
        // Fails only for the leader of a process group, which a new process is not.
        let _ = nix::unistd::setsid();
        reset_signals();
        // SAFETY: `daemon` has no way into httpd's code, which alone looks there.
        let _ = unsafe { unmap_shared(keep) };
        return Ok(Fork::Child);
    }
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    match forked? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// Forgets every handler of the process we were forked from and lets signals in.
/// SIGPIPE stays ignored: a vanished peer is an error value.
fn reset_signals() {
    for number in 1..=64 {
        let action = if number == libc::SIGPIPE { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: sets a disposition that runs no code of ours; SIGKILL, SIGSTOP
        // and libc's own two are refused, which is as well.
        unsafe { libc::signal(number, action) };
    }
    let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Where [`on_signal`] writes, and in which process.
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);
/// The process that asked for [`catch_signals`].
static SIGNAL_PID: AtomicU32 = AtomicU32::new(0);

/// Writes the signal's number to the pipe and does nothing else.
extern "C" fn on_signal(number: c_int) {
    let errno = Errno::last_raw();
    if std::process::id() != SIGNAL_PID.load(Ordering::Relaxed) {
        // Forked by the application: it has nothing of ours to tidy up.
        // SAFETY: `_exit` is async-signal-safe.
        unsafe { libc::_exit(255) };
    }
    let byte = number as u8;
    // SAFETY: `write` is async-signal-safe, the byte is on our stack; a full pipe
    // has bytes enough to wake its reader.
    unsafe { libc::write(SIGNAL_PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
    Errno::set_raw(errno);
}

/// From here on each of `signals` becomes a byte, its number, in the pipe whose
/// read end is returned.
pub fn catch_signals(signals: &[Signal]) -> io::Result<OwnedFd> {
    use nix::fcntl::OFlag;
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    SIGNAL_PID.store(std::process::id(), Ordering::Relaxed);
    // Open for the rest of the process' life: a signal may come at any time.
    use std::os::fd::IntoRawFd;
    SIGNAL_PIPE.store(write.into_raw_fd(), Ordering::Relaxed);
    let action =
        SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in signals {
        // SAFETY: `on_signal` calls async-signal-safe functions only.
        unsafe { sigaction(*signal, &action) }?;
    }
    Ok(read)
}

/// A signal in this process is ignored from here on.
pub fn ignore_signal(signal: Signal) {
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: runs no code.
    let _ = unsafe { sigaction(signal, &action) };
}

/// Closes every descriptor that is not in `keep` and above the standard three.
pub fn close_all_but<'f>(keep: impl IntoIterator<Item = &'f OwnedFd>) {
    let numbers = keep.into_iter().map(AsRawFd::as_raw_fd);
    let mut keep: Vec<u32> = numbers.filter_map(|fd| u32::try_from(fd).ok()).collect();
    keep.sort_unstable();
    let mut from = 3_u32;
    for fd in keep.into_iter().filter(|fd| *fd >= 3).chain([u32::MAX]) {
        if fd > from {
            let last = if fd == u32::MAX { u32::MAX } else { fd - 1 };
            // SAFETY: we have just been forked: what owned these descriptors runs
            // in the process we come from, never again in this one.
            unsafe { libc::syscall(libc::SYS_close_range, from, last, 0) };
        }
        from = fd.saturating_add(1);
    }
}

/// A descriptor of the parent that survives a restart of httpd: closed only on purpose,
/// found again by its number when the module is loaded the next time.
///
/// A number alone proves nothing: another module may have closed what is not its own, and
/// opened something under that number.  So the file goes with it, and what is another by
/// then is neither used nor closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    number: RawFd,
    /// Its device and its inode: every socket, pipe and memory has its own.
    file: (u64, u64),
}

impl Kept {
    /// Keeps a descriptor.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        use std::os::fd::IntoRawFd;
        let file = file_of(fd.as_raw_fd())?;
        Ok(Self { number: fd.into_raw_fd(), file })
    }

    /// It, if it is still what was kept.
    pub fn find(&self) -> io::Result<BorrowedFd<'_>> {
        if file_of(self.number)? != self.file {
            let text = format!("descriptor {} is not what was kept", self.number);
            return Err(io::Error::other(text));
        }
        // SAFETY: ours since `new`, perhaps of an earlier load, as the file tells that it
        // refers to; open until `close`.
        Ok(unsafe { BorrowedFd::borrow_raw(self.number) })
    }

    /// Closes it, if it is still what was kept.
    pub fn close(self) {
        if self.find().is_ok() {
            // SAFETY: as for `find`: nobody else is to close it.
            drop(unsafe { OwnedFd::from_raw_fd(self.number) });
        }
    }
}

/// The device and the inode of what a number refers to.
fn file_of(number: RawFd) -> io::Result<(u64, u64)> {
    // SAFETY: a record of numbers, for which 0 is a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: fills the record; a number of nothing is refused.
    Errno::result(unsafe { libc::fstat(number, &raw mut stat) })?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Makes descriptors 0 and 1 refer to `/dev/null`, and 2 to `log`.
pub fn set_standard_streams(log: Option<BorrowedFd<'_>>) -> io::Result<()> {
    use nix::fcntl::{OFlag, open};
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    set_error_stream(Some(log.unwrap_or(null.as_fd())))
}

/// Makes descriptor 2 refer to `log`; to what it did before if there is none.
pub fn set_error_stream(log: Option<BorrowedFd<'_>>) -> io::Result<()> {
    Ok(log.map_or(Ok(()), nix::unistd::dup2_stderr)?)
}

/// Makes `fd` refer to what `by` does, in one step: who writes to it writes to the one
/// or the other.
pub fn replace(fd: &OwnedFd, by: &OwnedFd) -> io::Result<()> {
    // SAFETY: two open descriptors; the first stays the one its owner closes.
    let made = unsafe { libc::dup3(by.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) };
    Ok(Errno::result(made).map(drop)?)
}

/// A descriptor that becomes readable when the process ends.
pub fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Shows `title` where `ps` looks: in place of the command line, cut to its room.
pub fn set_title(title: &str) {
    let short: String = title.chars().filter(|c| *c != '\0').take(15).collect();
    if let Ok(short) = CString::new(short) {
        let _ = nix::sys::prctl::set_name(&short);
    }
    let Some((start, end)) = arguments() else { return };
    let room = end - start;
    let mut text = title.as_bytes().to_vec();
    // The last byte stays 0, or the kernel would show the environment as well.
    text.truncate(room.saturating_sub(1));
    text.resize(room, 0);
    let at = start as *mut u8;
    // SAFETY: the kernel says that the arguments of this process lie there; they
    // are writable, and httpd, which reads them, never runs again in this process.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), at, room) };
}

/// Where the arguments of this process lie: proc(5), `arg_start` and `arg_end`.
fn arguments() -> Option<(usize, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; numbers begin behind it.
    let mut numbers = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let start = numbers.nth(48 - 3)?.parse().ok()?;
    let end = numbers.next()?.parse().ok()?;
    (start != 0 && end > start).then_some((start, end))
}

/// Changes this process' environment: `None` removes a variable.  Refused once
/// there is a second thread, which might be reading it.
pub fn change_environment<'e>(
    threads: ThreadList,
    changes: impl Iterator<Item = (&'e OsStr, Option<&'e OsStr>)>,
) -> io::Result<()> {
    if threads.0.count() != 1 {
        return Err(io::Error::other("the environment cannot change while threads run"));
    }
    let is_odd = |text: &OsStr| text.as_bytes().contains(&0);
    for (name, value) in changes {
        if name.is_empty() || name.as_bytes().contains(&b'=') || is_odd(name) {
            continue;
        }
        match value {
            // SAFETY: one thread, counted above.
            Some(value) if !is_odd(value) => unsafe { std::env::set_var(name, value) },
            Some(_) => {}
            // SAFETY: as above.
            None => unsafe { std::env::remove_var(name) },
        }
    }
    Ok(())
}

/// Sets the scheduling priority of this process.
pub fn set_priority(priority: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, priority) })?;
    Ok(())
}

/// Unmaps memory this process shares with others, except what `keep` names.
///
/// httpd's own scoreboard and TLS session caches are such memory: an application
/// that could write there could reach httpd.
///
/// # Safety
///
/// The process has just been forked and never again uses what it unmaps.
unsafe fn unmap_shared(keep: Option<&str>) -> io::Result<()> {
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        if !rights.ends_with('s') || keep.is_some_and(|keep| line.contains(keep)) {
            continue;
        }
        let bounds = range.split_once('-').and_then(|(start, end)| {
            Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
        });
        if let Some((start, end)) = bounds {
            // SAFETY: a whole mapping as the kernel lists it; this function's
            // contract says that nobody looks there again.
            unsafe { libc::munmap(start as *mut libc::c_void, end - start) };
        }
    }
    Ok(())
}

/// Sets the locale of the C library; whether the system has it.
pub fn set_locale(locale: &str) -> bool {
    let Ok(locale) = CString::new(locale) else { return false };
    // SAFETY: a string that ends; called before there are other threads.
    !unsafe { libc::setlocale(libc::LC_ALL, locale.as_ptr()) }.is_null()
}

/// Whether an access control list adds to the mode of a file; yes if that cannot
/// be told.
pub fn has_acl(path: &std::path::Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return true };
    let name = c"system.posix_acl_access".as_ptr();
    // SAFETY: two strings that end, and no room to write to: asks for the size.
    let size = unsafe { libc::getxattr(path.as_ptr(), name, std::ptr::null_mut(), 0) };
    !matches!(Errno::result(size), Ok(0) | Err(Errno::ENODATA | Errno::EOPNOTSUPP))
}

/// Ends the process without running anything of httpd's or Python's.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns, runs no handlers.
    unsafe { libc::_exit(code) }
}

/// Whether there is a process with this number, ours or not.
pub fn is_alive(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    pid > 0 && nix::sys::signal::kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// A child process that has ended, and how, if there is one that nobody was told of.
pub fn reap() -> Option<(Pid, How)> {
    let mut status = 0;
    loop {
        // SAFETY: fills the number it is given.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        let how = match pid {
            -1 if Errno::last() == Errno::EINTR => continue,
            ..=0 => return None,
            _ if libc::WIFEXITED(status) => How::Code(libc::WEXITSTATUS(status)),
            // Any number: real-time signals have no name.
            _ if libc::WIFSIGNALED(status) => How::Signal(libc::WTERMSIG(status)),
            _ => continue,
        };
        return Some((Pid::from_raw(pid), how));
    }
}

/// Waits until one of `fds` has something to say, or `timeout` has passed.
pub fn poll(fds: &mut [nix::poll::PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    use nix::poll::PollTimeout;
    let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
        // Rounded up, so that a wait does not end just before its deadline.
        let millis = timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    });
    match nix::poll::poll(fds, timeout) {
        Err(Errno::EINTR) => Ok(0),
        Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
        Err(error) => Err(error.into()),
    }
}

/// Whether the other end of `socket` is closed in every process.
pub fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags};
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let polled = poll(&mut fds, Some(Duration::ZERO));
    let [socket] = fds;
    polled.is_ok() && socket.revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP))
}

/// The time of day as httpd's error log writes it.
pub fn log_time() -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let now = now_micros();
    let seconds = (now / 1_000_000) as libc::time_t;
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: reads the one and fills the other, both ours.
    unsafe { libc::localtime_r(&seconds, parts.as_mut_ptr()) };
    // SAFETY: zeroed, and a record of numbers: initialised either way.
    let tm = unsafe { parts.assume_init() };
    format!(
        "{} {} {:02} {:02}:{:02}:{:02}.{:06} {}",
        DAYS[tm.tm_wday.clamp(0, 6) as usize],
        MONTHS[tm.tm_mon.clamp(0, 11) as usize],
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec,
        now % 1_000_000,
        1900 + tm.tm_year,
    )
}

/// Microseconds of the monotonic clock, which all processes of the system share
/// and nobody sets.
pub fn monotonic_micros() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1_000)
}

/// The signal on which Python shows the stacks of its threads.  A real-time one,
/// so that no meaning an application knows is taken; the last is Valgrind's.
pub fn stacks_signal() -> c_int {
    libc::SIGRTMAX() - 1
}

/// Has a daemon process show its stacks; one without Python, or with another idea
/// of that signal, may end of it.  For a process that is to end.
pub fn ask_for_stacks(pid: Pid) {
    // SAFETY: no memory is passed.
    unsafe { libc::kill(pid.as_raw(), stacks_signal()) };
}

/// Has the calling thread show the stacks of its process, before this returns.
pub fn show_stacks() {
    // SAFETY: the handler is Python's `faulthandler`, made for this.
    unsafe { libc::raise(stacks_signal()) };
}

/// Microseconds since the epoch.
pub fn now_micros() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_travels_with_the_first_byte() {
        let (here, there) = stream_pair().unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        send_all(here.as_fd(), b"ab", b"cd", Some(write.as_fd())).unwrap();
        drop(write);

        let mut bytes = [0; 8];
        let mut fds = Vec::new();
        let count =
            receive(there.as_fd(), &mut bytes, &mut Rights::one(), Wait::Yes, |fd| fds.push(fd))
                .unwrap();
        assert_eq!(&bytes[..count], b"abcd");
        assert_eq!(fds.len(), 1);
        nix::unistd::write(&fds[0], b"x").unwrap();
        assert_eq!(nix::unistd::read(&read, &mut bytes).unwrap(), 1);
    }

    #[test]
    fn more_descriptors_than_there_is_room_for_are_dropped() {
        let (here, there) = stream_pair().unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        for room in [Rights::none, Rights::one] {
            send(here.as_fd(), &[IoSlice::new(b"x")], &[write.as_fd(); 5]).unwrap();
            let (mut fds, mut rights) = (Vec::new(), room());
            let received =
                receive(there.as_fd(), &mut [0; 8], &mut rights, Wait::Yes, |fd| fds.push(fd));
            assert_eq!(received.unwrap(), 1);
            assert!(fds.len() <= 2);
            assert!(rights.is_cut());
        }
        drop(write);
        // The end: no copy of the writing end is left in this process.
        let mut fds = [nix::poll::PollFd::new(read.as_fd(), nix::poll::PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, Some(Duration::from_secs(2))).unwrap(), 1);
    }

    #[test]
    fn what_is_no_longer_what_was_kept_is_left_alone() {
        let (here, there) = message_pair().unwrap();
        let kept = Kept::new(here).unwrap();
        // As another module might: the number becomes another file's.
        // SAFETY: kept above, and closed by nobody else.
        let here = unsafe { OwnedFd::from_raw_fd(kept.number) };
        let (other, another) = message_pair().unwrap();
        replace(&here, &other).unwrap();
        drop(other);
        assert!(is_hung_up(there.as_fd()));
        assert!(kept.find().is_err());
        kept.close();
        assert!(!is_hung_up(another.as_fd()), "it was closed");
        drop(here);
        assert!(kept.find().is_err());
        kept.close();
    }

    #[test]
    fn what_was_kept_is_found_by_a_copy_and_closed_once() {
        let (here, there) = message_pair().unwrap();
        let kept = Kept::new(here).unwrap();
        let again: Kept = postcard::from_bytes(&postcard::to_allocvec(&kept).unwrap()).unwrap();
        assert_eq!(again.find().unwrap().as_raw_fd(), kept.number);
        again.close();
        assert!(is_hung_up(there.as_fd()));
        kept.close();
    }

    #[test]
    fn the_arguments_of_this_process_are_found() {
        let (start, end) = arguments().unwrap();
        assert!(end > start);
    }

    #[test]
    fn a_process_that_never_was_is_not_alive() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(0));
        assert!(!is_alive(u32::MAX));
    }
}
