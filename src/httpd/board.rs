//! httpd's own scoreboard, as a child process sees it.

use core::ffi::{c_char, c_int};
use core::mem;

use wsgi_wire::server_record::{Child, Server, Worker, Writer};

use crate::ffi;

/// The letter mod_status shows for a status of httpd's.
fn letter(status: u8) -> u8 {
    match c_int::from(status) {
        ffi::SERVER_STARTING => b'S',
        ffi::SERVER_READY => b'_',
        ffi::SERVER_BUSY_READ => b'R',
        ffi::SERVER_BUSY_WRITE => b'W',
        ffi::SERVER_BUSY_KEEPALIVE => b'K',
        ffi::SERVER_BUSY_LOG => b'L',
        ffi::SERVER_BUSY_DNS => b'D',
        ffi::SERVER_CLOSING => b'C',
        ffi::SERVER_GRACEFUL => b'G',
        ffi::SERVER_IDLE_KILL => b'I',
        // SERVER_DEAD, and what a later httpd may add.
        _ => b'.',
    }
}

/// A number of httpd's that is not negative; 0 for one that is.
fn count(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(0)
}

/// As [`count`], of times and amounts.
fn amount(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(0)
}

/// What the scoreboard says at `now` (µs since the epoch), as a record of at most
/// `longest` bytes: children that do not fit are left out.  None without a scoreboard.
///
/// For child processes, and not after httpd has begun to take its memory down.
pub fn record(now: u64, longest: usize) -> Option<Vec<u8>> {
    // SAFETY: reads httpd's variable.
    if unsafe { ffi::ap_exists_scoreboard_image() } == 0 {
        return None;
    }
    // SAFETY: there is a scoreboard.
    let global = unsafe { ffi::ap_get_scoreboard_global() };
    // SAFETY: httpd's, mapped while the process serves; null if there is none.
    let global = unsafe { global.as_ref() }?;
    let (children, threads) = (count(global.server_limit), count(global.thread_limit));
    let mut writer = Writer::new(&Server {
        server_limit: children,
        thread_limit: threads,
        generation: count(global.running_generation),
        restarted: amount(global.restart_time),
        read: now,
    });
    for child in 0..children {
        let before = writer.len();
        if !append(&mut writer, child, threads) {
            break;
        }
        if writer.len() > longest {
            writer.truncate(before);
            break;
        }
    }
    Some(writer.finish())
}

/// Appends a child process and its threads; false if httpd has no such child.
fn append(writer: &mut Writer, child: u32, threads: u32) -> bool {
    // SAFETY: there is a scoreboard; httpd checks the number.
    let process = unsafe { ffi::ap_get_scoreboard_process(child as c_int) };
    // SAFETY: in the scoreboard, or null for a number that is too large.
    let Some(process) = (unsafe { process.as_ref() }) else { return false };
    writer.child(&Child {
        pid: count(process.pid),
        generation: count(process.generation),
        is_quiescing: process.quiescing != 0,
        threads,
    });
    for thread in 0..threads {
        // SAFETY: a record of numbers and characters, for which zero is a value.
        let mut copy: ffi::worker_score = unsafe { mem::zeroed() };
        // SAFETY: both numbers are below the limits of the scoreboard there is; the
        // copy is ours.  Its owner may write meanwhile: it is numbers and characters.
        unsafe {
            ffi::ap_copy_scoreboard_worker(&raw mut copy, child as c_int, thread as c_int);
        }
        writer.worker(&worker(&copy));
    }
    true
}

/// What is told of a worker.
fn worker(copy: &ffi::worker_score) -> Worker<'_> {
    let mut room = 0;
    // SAFETY: points into `copy`, at an array of that many characters.
    let client = unsafe { ffi::wsgi_worker_client(copy, &raw mut room) };
    // SAFETY: as the shim says.
    let client = unsafe { core::slice::from_raw_parts(client, room) };
    Worker {
        status: letter(copy.status),
        thread: count(copy.thread_num),
        generation: count(copy.generation),
        requests: amount(copy.access_count),
        bytes: amount(copy.bytes_served),
        started: amount(copy.start_time),
        stopped: amount(copy.stop_time),
        used: amount(copy.last_used),
        client: text(client),
        request: text(&copy.request),
        vhost: text(&copy.vhost),
    }
}

/// The characters before the first NUL; of what was caught being written, all.
fn text(characters: &[c_char]) -> &[u8] {
    // SAFETY: characters and bytes are the same to memory.
    let bytes = unsafe { &*(core::ptr::from_ref(characters) as *const [u8]) };
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}
