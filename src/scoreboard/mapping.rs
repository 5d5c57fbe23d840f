//! The mapping itself: fixed layout, plain atomics, futex.
//!
//! `unsafe` here is three things: mapping the memory, finding the parts in it,
//! and the futex call.  Times are µs of the system's monotonic clock, which all
//! processes share.  All parts are atomics, so that no value another process
//! writes can be a wrong one for its type.

use super::{Exit, Shape, State};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::mem::{align_of, size_of};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// What `/proc/PID/maps` calls the memory of a scoreboard.
pub const MEMORY_NAME: &str = "wsgi-scoreboard";

/// Parts begin at multiples of this: a page, so that an unused slot costs none.
const PAGE: usize = 4096;

/// How often a compare-and-swap is tried before the word is given up.  Honest
/// neighbours make it fail a few times; one that fails for ever is not honest.
const TRIES: usize = 1024;

/// What is said once per group.
#[repr(C)]
struct Head {
    /// Counts events worth waking for; the futex word.
    event: AtomicU32,
    /// How many child threads wait for a ticket.
    waiting: AtomicU32,
}

/// What is said once per slot; tickets and threads follow it.
#[repr(C)]
struct SlotHead {
    /// A [`State`].
    state: AtomicU32,
    /// The process, 0 if there is none.
    pid: AtomicU32,
    /// Which process: never used twice for a group.
    generation: AtomicU64,
    /// Generation of the process `exit` speaks of.
    exit_generation: AtomicU64,
    /// An [`Exit`] as a number.
    exit: AtomicU64,
    /// Requests begun since the slot was prepared.
    requests: AtomicU64,
    /// When Python's lock was last to be had.
    beat: AtomicU64,
    /// When something was last done for a request; 0: never.
    active: AtomicU64,
    /// Since when a request waits for the first script to be loaded; 0: none
    /// does, [`LOADED`]: one was.
    loading: AtomicU64,
}

/// What `loading` says once a script was loaded.
const LOADED: u64 = u64::MAX;

/// A request being run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Its id.
    pub id: u64,
    /// When it began.
    pub since: u64,
}

/// What a worker runs.
#[repr(C)]
struct RunningRecord {
    /// Id of the request, 0 if idle.
    id: AtomicU64,
    /// When it began.
    since: AtomicU64,
    /// The same id, once code of the application may have run for it.
    attached: AtomicU64,
}

/// One group's shared mapping.
#[derive(Debug)]
pub struct Scoreboard {
    base: NonNull<u8>,
    length: usize,
    shape: Shape,
}

// SAFETY: the mapping stays where it is until the drop, and everything in it is
// reached through atomics only.
unsafe impl Send for Scoreboard {}
// SAFETY: as above.
unsafe impl Sync for Scoreboard {}

/// Bytes one slot takes.
fn slot_size(shape: Shape) -> usize {
    let tickets = shape.tickets as usize;
    (size_of::<SlotHead>()
        + tickets / 64 * size_of::<AtomicU64>()
        + tickets * (size_of::<RunningRecord>() + size_of::<AtomicU32>()))
    .next_multiple_of(PAGE)
}

impl Scoreboard {
    /// Makes the memory for a new one, all slots empty, whose size nobody can
    /// change; any process that has the descriptor may [`open`](Self::open) it.
    pub fn create(shape: Shape) -> io::Result<OwnedFd> {
        let memory =
            memfd_create(MEMORY_NAME, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let length = PAGE + slot_size(shape) * shape.slots as usize;
        nix::unistd::ftruncate(&memory, length as i64)?;
        // A daemon process that could shrink it would make httpd fault.
        fcntl(
            &memory,
            FcntlArg::F_ADD_SEALS(
                SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL,
            ),
        )?;
        Ok(memory)
    }

    /// Maps what [`create`](Self::create) made with this shape.
    pub fn open(memory: impl AsFd, shape: Shape) -> io::Result<Self> {
        let length = PAGE + slot_size(shape) * shape.slots as usize;
        let found = nix::sys::stat::fstat(&memory)?.st_size;
        if found != length as i64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a scoreboard of {found} bytes, wanted {length}"),
            ));
        }
        let size = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: a fresh mapping at an address the kernel chooses; the file is
        // `length` bytes long and sealed, so no access within can fault.
        let base = unsafe {
            mmap(
                None,
                size,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &memory,
                0,
            )
        }?;
        Ok(Self { base: base.cast(), length, shape })
    }

    /// The part of type `T` at `offset`.
    fn part<T>(&self, offset: usize) -> &T {
        assert!(offset + size_of::<T>() <= self.length && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: the line above keeps the address within the mapping, which
        // lives as long as `self`.
        let at = unsafe { self.base.add(offset) };
        // SAFETY: aligned and inside; `T` is one of the atomic records above,
        // for which every bit pattern is a value.
        unsafe { at.cast().as_ref() }
    }

    /// What is said once per group.
    fn head(&self) -> &Head {
        self.part(0)
    }

    /// The slot with this number.
    pub fn slot(&self, number: u32) -> Option<Slot<'_>> {
        (number < self.shape.slots)
            .then(|| Slot { board: self, at: PAGE + slot_size(self.shape) * number as usize })
    }

    /// All slots, first to last.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        (0..self.shape.slots).filter_map(|number| self.slot(number))
    }

    /// Takes a place in the queue for tickets, unless `limit` threads wait already.
    pub fn enqueue(&self, limit: u32) -> Option<Place<'_>> {
        let waiting = &self.head().waiting;
        let before = waiting.fetch_add(1, Ordering::SeqCst);
        // Made before the check: dropping it takes the place back.
        let place = Place(self);
        (before < limit).then_some(place)
    }

    /// How many threads wait for a ticket.
    pub fn waiting(&self) -> u32 {
        self.head().waiting.load(Ordering::SeqCst)
    }

    /// Lets one waiting thread look again, if there is one.
    #[inline]
    pub fn wake_one(&self) {
        self.wake(1);
    }

    /// Lets every waiting thread look again.
    pub fn wake_all(&self) {
        self.wake(i32::MAX);
    }

    #[inline]
    fn wake(&self, count: i32) {
        // A waiter announces itself before it looks for a ticket, and a ticket is
        // given before this look: one of the two sees the other.
        if self.waiting() == 0 {
            return;
        }
        let event = &self.head().event;
        event.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the address of a live futex word; a shared futex, because the
        // waiters are other processes.
        unsafe {
            libc::syscall(libc::SYS_futex, event.as_ptr(), libc::FUTEX_WAKE, count);
        }
    }
}

impl Drop for Scoreboard {
    fn drop(&mut self) {
        // SAFETY: what `open` mapped, and every borrow of it ends before `self`.
        let _ = unsafe { munmap(self.base.cast(), self.length) };
    }
}

/// A place in the queue for tickets.
#[derive(Debug)]
pub struct Place<'b>(&'b Scoreboard);

impl Place<'_> {
    /// The number of events so far: read before looking for a ticket.
    pub fn event(&self) -> u32 {
        self.0.head().event.load(Ordering::SeqCst)
    }

    /// Waits for the next event after `seen`, or the deadline; may end early.
    pub fn wait(&self, seen: u32, deadline: Option<Instant>) {
        let left = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            libc::timespec {
                tv_sec: left.as_secs() as libc::time_t,
                tv_nsec: left.subsec_nanos() as libc::c_long,
            }
        });
        let timeout = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let word = self.0.head().event.as_ptr();
        // SAFETY: a live futex word and a time that outlives the call.
        unsafe {
            libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, seen, timeout);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // Never below nothing, whatever another process wrote there.
        let _ = self.0.head().waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |waiting| {
            Some(waiting.saturating_sub(1))
        });
    }
}

/// The place of one daemon process.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'b> {
    board: &'b Scoreboard,
    at: usize,
}

impl<'b> Slot<'b> {
    /// What is said once per slot.
    fn head(&self) -> &'b SlotHead {
        self.board.part(self.at)
    }

    /// Number of 64-bit words of free tickets.
    fn words(&self) -> usize {
        self.board.shape.tickets as usize / 64
    }

    /// A word of free tickets, a bit each.
    fn word(&self, word: usize) -> &'b AtomicU64 {
        self.board.part(self.at + size_of::<SlotHead>() + word * size_of::<AtomicU64>())
    }

    /// What worker `thread` runs.
    fn running(&self, thread: u32) -> Option<&'b RunningRecord> {
        let records = self.at + size_of::<SlotHead>() + self.words() * size_of::<AtomicU64>();
        (thread < self.board.shape.tickets)
            .then(|| self.board.part(records + thread as usize * size_of::<RunningRecord>()))
    }

    /// The child process that holds a ticket.
    fn owner(&self, ticket: u32) -> Option<&'b AtomicU32> {
        let owners = self.at
            + size_of::<SlotHead>()
            + self.words() * size_of::<AtomicU64>()
            + self.board.shape.tickets as usize * size_of::<RunningRecord>();
        (ticket < self.board.shape.tickets)
            .then(|| self.board.part(owners + ticket as usize * size_of::<AtomicU32>()))
    }

    /// What its process is doing.
    pub fn state(&self) -> State {
        State::from_number(self.head().state.load(Ordering::SeqCst))
    }

    /// Says what its process is doing.
    pub fn set_state(&self, state: State) {
        self.head().state.store(state as u32, Ordering::SeqCst);
    }

    /// Has its process take no requests for the time being; false if it takes none.
    pub fn hold(&self) -> bool {
        self.change_state(State::Ready, State::Held)
    }

    /// Lets a process that was held take requests again.
    pub fn release(&self) {
        if self.change_state(State::Held, State::Ready) {
            self.board.wake_all();
        }
    }

    fn change_state(&self, from: State, to: State) -> bool {
        let state = &self.head().state;
        state.compare_exchange(from as u32, to as u32, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Which process this is.
    pub fn generation(&self) -> u64 {
        self.head().generation.load(Ordering::SeqCst)
    }

    /// The process, 0 if there is none.
    pub fn pid(&self) -> u32 {
        self.head().pid.load(Ordering::SeqCst)
    }

    /// Says which process it is.
    pub fn set_pid(&self, pid: u32) {
        self.head().pid.store(pid, Ordering::SeqCst);
    }

    /// Makes the slot ready for a process that is about to start: what its
    /// predecessor left is forgotten, no ticket is to be had.
    pub fn prepare(&self, generation: u64) {
        let head = self.head();
        // First: whoever finds a request missing below, and then still the old
        // generation, knows that the old process did not run it.
        head.generation.store(generation, Ordering::SeqCst);
        for word in 0..self.words() {
            self.word(word).store(0, Ordering::SeqCst);
        }
        for thread in 0..self.board.shape.tickets {
            self.end(thread);
            if let Some(owner) = self.owner(thread) {
                owner.store(0, Ordering::SeqCst);
            }
        }
        for number in [&head.requests, &head.beat, &head.active, &head.loading] {
            number.store(0, Ordering::Relaxed);
        }
        head.pid.store(0, Ordering::SeqCst);
        self.set_state(State::Starting);
    }

    /// Lets children send requests to the process: `threads` of them at a time.
    pub fn open(&self, generation: u64, threads: u32) {
        self.head().generation.store(generation, Ordering::SeqCst);
        for word in 0..self.words() {
            let below = threads.saturating_sub(word as u32 * 64).min(64);
            let bits = if below == 64 { u64::MAX } else { (1 << below) - 1 };
            self.word(word).store(bits, Ordering::SeqCst);
        }
        self.set_state(State::Ready);
        self.board.wake_all();
    }

    /// How many tickets are to be had.
    pub fn free(&self) -> u32 {
        (0..self.words()).map(|word| self.word(word).load(Ordering::Relaxed).count_ones()).sum()
    }

    /// Takes a ticket for the child process `owner`.
    pub fn take_ticket(&self, owner: u32) -> Option<u32> {
        for word in 0..self.words() {
            let bits = self.word(word);
            for _ in 0..TRIES {
                let seen = bits.load(Ordering::SeqCst);
                let Some(left) = seen.checked_sub(1).map(|below| seen & below) else { break };
                if bits
                    .compare_exchange_weak(seen, left, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
                {
                    let ticket = word as u32 * 64 + seen.trailing_zeros();
                    if let Some(mine) = self.owner(ticket) {
                        mine.store(owner, Ordering::SeqCst);
                    }
                    return Some(ticket);
                }
            }
        }
        None
    }

    /// The worker has the request: from here on the ticket is its own to give
    /// back, whatever becomes of the child process.
    pub fn accept_ticket(&self, ticket: u32) {
        if let Some(owner) = self.owner(ticket) {
            owner.store(0, Ordering::SeqCst);
        }
    }

    /// Gives a ticket back; giving it twice is giving it once.
    pub fn give_ticket(&self, ticket: u32) {
        let Some(owner) = self.owner(ticket) else { return };
        owner.store(0, Ordering::SeqCst);
        self.word(ticket as usize / 64).fetch_or(1 << (ticket % 64), Ordering::SeqCst);
    }

    /// Takes all tickets that are to be had out of circulation and notes them in
    /// `held`; how many are noted there then.
    pub fn withdraw(&self, held: &mut Vec<u64>) -> u32 {
        held.resize(self.words(), 0);
        for (word, held) in held.iter_mut().enumerate() {
            *held |= self.word(word).swap(0, Ordering::SeqCst);
        }
        held.iter().map(|held| held.count_ones()).sum()
    }

    /// Gives back the tickets of children that died before a worker had their
    /// request; `is_alive` tells.
    /// Returns whether there were any.
    pub fn reclaim(&self, is_alive: impl Fn(u32) -> bool) -> bool {
        let mut found = false;
        for ticket in 0..self.board.shape.tickets {
            let Some(owner) = self.owner(ticket) else { break };
            let pid = owner.load(Ordering::SeqCst);
            if pid != 0 && !is_alive(pid) {
                self.give_ticket(ticket);
                found = true;
            }
        }
        found
    }

    /// Notes that worker `thread` begins request `id` at `now`; how many the
    /// process has begun with it.
    pub fn begin(&self, thread: u32, id: u64, now: u64) -> u64 {
        if let Some(running) = self.running(thread) {
            running.since.store(now, Ordering::Relaxed);
            running.id.store(id, Ordering::SeqCst);
        }
        self.head().requests.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// What its workers run.
    pub fn all_running(&self) -> impl Iterator<Item = Running> {
        (0..self.board.shape.tickets).filter_map(|thread| {
            let record = self.running(thread)?;
            let id = record.id.load(Ordering::SeqCst);
            (id != 0).then(|| Running { id, since: record.since.load(Ordering::Relaxed) })
        })
    }

    /// Notes that Python's lock was to be had at `now`; 0: nobody tries any more.
    pub fn set_beat(&self, now: u64) {
        self.head().beat.store(now, Ordering::Relaxed);
    }

    /// When Python's lock was last to be had, once it was.
    pub fn beat(&self) -> Option<u64> {
        Some(self.head().beat.load(Ordering::Relaxed)).filter(|beat| *beat != 0)
    }

    /// Notes that something was done for a request at `now`.
    pub fn set_active(&self, now: u64) {
        self.head().active.store(now, Ordering::Relaxed);
    }

    /// When something was last done for a request, once there was one.
    pub fn active(&self) -> Option<u64> {
        Some(self.head().active.load(Ordering::Relaxed)).filter(|active| *active != 0)
    }

    /// Notes that a request waits for its script since `now`, unless one was loaded
    /// already or another waits longer.
    pub fn expect_load(&self, now: u64) {
        let loading = &self.head().loading;
        let _ = loading.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Notes that a script was loaded.
    pub fn note_load(&self) {
        self.head().loading.store(LOADED, Ordering::Relaxed);
    }

    /// Since when a request waits for the first script of the process.
    pub fn loading_since(&self) -> Option<u64> {
        let loading = self.head().loading.load(Ordering::Relaxed);
        Some(loading).filter(|since| !matches!(*since, 0 | LOADED))
    }

    /// Notes that worker `thread` is idle.
    pub fn end(&self, thread: u32) {
        if let Some(running) = self.running(thread) {
            running.id.store(0, Ordering::SeqCst);
            running.attached.store(0, Ordering::SeqCst);
        }
    }

    /// Notes that worker `thread` is idle, and that the child may not know how its request
    /// ended: it has begun, for as long as no other does there.
    pub fn end_unheard(&self, thread: u32) {
        if let Some(running) = self.running(thread) {
            running.id.store(0, Ordering::SeqCst);
        }
    }

    /// Notes that code of the application may run for request `id` of worker
    /// `thread`.
    pub fn attach(&self, thread: u32, id: u64) {
        if let Some(running) = self.running(thread) {
            running.attached.store(id, Ordering::SeqCst);
        }
    }

    /// Whether code of the application may have run for request `id` in the slot's
    /// process, and the worker has not ended it.  One that waits for Python's lock
    /// has not begun, and can be run elsewhere if its process dies.
    pub fn is_running(&self, id: u64) -> bool {
        (0..self.board.shape.tickets)
            .filter_map(|thread| self.running(thread))
            .any(|running| running.attached.load(Ordering::SeqCst) == id)
    }

    /// Whether request `id`, sent to the process with this generation, may have
    /// begun there.  Once the slot has another process nobody can tell: it may.
    pub fn may_have_begun(&self, id: u64, generation: u64) -> bool {
        // In this order: see `prepare`.
        self.is_running(id) || self.generation() != generation
    }

    /// Remembers how the process with this generation ended.
    pub fn set_exit(&self, generation: u64, exit: Exit) {
        self.head().exit.store(exit.to_number(), Ordering::SeqCst);
        self.head().exit_generation.store(generation, Ordering::SeqCst);
    }

    /// How the process with this generation ended, once the supervisor knows.
    pub fn exit_of(&self, generation: u64) -> Option<Exit> {
        let head = self.head();
        if head.exit_generation.load(Ordering::SeqCst) != generation {
            return None;
        }
        Exit::from_number(head.exit.load(Ordering::SeqCst))
    }
}

/// Memory of 64-bit words that one process writes and others read.
#[derive(Debug)]
pub struct Words {
    base: NonNull<u8>,
    count: usize,
}

// SAFETY: as for `Scoreboard`: the mapping stays, everything in it is an atomic.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

/// [`Words`] that may be written as well.
#[derive(Debug)]
pub struct WritableWords(Words);

/// Makes memory for so many words, whose size nobody can change.  Only its owner, who
/// is never a daemon process' user where httpd is started by root, may open it again:
/// what is passed on is a descriptor that cannot write.
pub fn create_words(name: &str, count: usize) -> io::Result<OwnedFd> {
    let memory = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let length = count * size_of::<AtomicU64>();
    nix::unistd::ftruncate(&memory, i64::try_from(length).map_err(io::Error::other)?)?;
    nix::sys::stat::fchmod(&memory, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory)
}

impl Words {
    /// Maps what [`create_words`] made, to read it.
    pub fn open(memory: impl AsFd) -> io::Result<Self> {
        Self::map(memory, ProtFlags::PROT_READ)
    }

    fn map(memory: impl AsFd, protection: ProtFlags) -> io::Result<Self> {
        // The seals are what makes an access safe: without them a file can shrink.
        let seals = fcntl(&memory, FcntlArg::F_GET_SEALS)?;
        if seals & SealFlag::F_SEAL_SHRINK.bits() == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let found = nix::sys::stat::fstat(&memory)?.st_size;
        let length = usize::try_from(found).map_err(io::Error::other)?;
        let size = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: a fresh mapping at an address the kernel chooses; the file is
        // `length` bytes long and cannot shrink, so no access within can fault.
        let base = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, &memory, 0) }?;
        Ok(Self { base: base.cast(), count: length / size_of::<AtomicU64>() })
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The word with this number.
    pub fn load(&self, number: usize, order: Ordering) -> u64 {
        self.word(number).map_or(0, |word| word.load(order))
    }

    fn word(&self, number: usize) -> Option<&AtomicU64> {
        if number >= self.count {
            return None;
        }
        // SAFETY: the lines above keep the address within the mapping, which lives as
        // long as `self`.
        let at = unsafe { self.base.cast::<AtomicU64>().add(number) };
        // SAFETY: inside, and aligned because the mapping is; any bits are a number.
        Some(unsafe { at.as_ref() })
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: what `map` mapped, and every borrow of it ends before `self`.
        let _ = unsafe { munmap(self.base.cast(), self.count * size_of::<AtomicU64>()) };
    }
}

impl WritableWords {
    /// Maps what [`create_words`] made, to write it.
    pub fn open(memory: impl AsFd) -> io::Result<Self> {
        Words::map(memory, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).map(Self)
    }

    /// To read them.
    pub const fn words(&self) -> &Words {
        &self.0
    }

    /// Writes the word with this number, if there is one.
    pub fn store(&self, number: usize, value: u64, order: Ordering) {
        if let Some(word) = self.0.word(number) {
            word.store(value, order);
        }
    }

    /// Writes the word with this number if it is `old`; whether it was.
    pub fn replace(&self, number: usize, old: u64, new: u64) -> bool {
        self.0.word(number).is_some_and(|word| {
            word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        })
    }
}
