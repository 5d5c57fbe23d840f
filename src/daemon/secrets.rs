//! What `env=` says of a process group, kept where no process of another group finds it.
//!
//! The variables travel past the supervisor in memory that only a process of their own
//! group reads.  httpd has read them too, several times, and its pools and the heap hold
//! copies that nobody remembers: a supervisor, which daemon processes are forks of,
//! begins by searching all its memory for them.
#![forbid(unsafe_code)]

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::HashMap;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;

/// Names and values, in the order of the configuration.
pub type Variables = Vec<(String, String)>;

/// Values below this are no secrets, and stand in memory that has nothing to do with them.
const SHORTEST: usize = 6;

/// Bytes of a text that its place in a [`Search`] is found by.
const KEY: usize = 4;

/// So much of the memory is looked at in one go.
const PART: usize = 256 * 1024;

/// What is larger is reserved and hardly used, as the shadow of a sanitizer is: terabytes,
/// in which nothing of httpd's stands.
const LONGEST: u64 = 1 << 32;

/// Memory with the variables of a group; nothing if it has none.  Nobody can change it:
/// the processes of the group hold it too, and later ones read it as root.
pub fn seal(variables: &Variables) -> io::Result<Option<OwnedFd>> {
    if variables.is_empty() {
        return Ok(None);
    }
    let bytes = postcard::to_allocvec(variables).map_err(io::Error::other)?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create("wsgi-environment", flags)?);
    file.write_all(&bytes)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
    Ok(Some(file.into()))
}

/// The variables of [`seal`].
pub fn open(sealed: Option<&OwnedFd>) -> io::Result<Variables> {
    let Some(sealed) = sealed else { return Ok(Variables::new()) };
    let file = File::from(sealed.try_clone()?);
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    // By its place: the process that sent the descriptor shares the position with us.
    file.read_exact_at(&mut bytes, 0)?;
    postcard::from_bytes(&bytes).map_err(io::Error::other)
}

/// Whether both hold the same, without leaving a copy of it.
pub fn are_same(one: Option<&OwnedFd>, other: Option<&OwnedFd>) -> io::Result<bool> {
    let (Some(one), Some(other)) = (one, other) else {
        return Ok(one.is_none() == other.is_none());
    };
    let (one, other) = (File::from(one.try_clone()?), File::from(other.try_clone()?));
    let length = one.metadata()?.len();
    if other.metadata()?.len() != length {
        return Ok(false);
    }
    let mut parts = [[0; 512]; 2];
    let mut is_same = true;
    for from in (0..length).step_by(parts[0].len()) {
        let count = usize::try_from(length - from).unwrap_or(usize::MAX).min(parts[0].len());
        for (file, part) in [&one, &other].into_iter().zip(&mut parts) {
            file.read_exact_at(&mut part[..count], from)?;
        }
        is_same &= parts[0][..count] == parts[1][..count];
    }
    parts.iter_mut().for_each(|part| clear(part));
    Ok(is_same)
}

/// Overwrites what `sealed` hold wherever it stands in the memory of this process.
///
/// For a process that was just forked from httpd's parent and has no use for anything
/// that was httpd's.
pub fn forget<'s>(sealed: impl Iterator<Item = &'s OwnedFd>) -> io::Result<()> {
    let mut search = Search::new(visible()?);
    for sealed in sealed {
        for (name, value) in open(Some(sealed))? {
            search.add_variable(&name, &value);
        }
    }
    if search.is_empty() {
        return Ok(());
    }
    let memory = File::options().read(true).write(true).open("/proc/self/mem")?;
    let mut part = vec![0; PART + search.longest];
    let zeros = vec![0; search.longest];
    let own = part.as_ptr().addr() as u64;
    let own = own..own + part.len() as u64;
    let ranges = writable(&fs::read_to_string("/proc/self/maps")?);
    // No memory is asked for or given back from here on: what was read must still stand
    // there when it is overwritten.
    for (start, end) in ranges {
        let mut at = start;
        while at < end {
            // Not the copy itself, which changes while it is made.
            if own.contains(&at) {
                at = own.end;
                continue;
            }
            let end = if at < own.start { end.min(own.start) } else { end };
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(part.len());
            // The end of a stack that has not grown so far cannot be read.
            let Ok(count @ 1..) = memory.read_at(&mut part[..wanted], at) else { break };
            search.find(&part[..count], |from, length| {
                memory.write_all_at(&zeros[..length], at + from as u64)
            })?;
            // What begins in the last bytes is found whole in the next part.
            at += if at + count as u64 == end { count } else { count.min(PART) } as u64;
        }
    }
    clear(&mut part);
    Ok(())
}

/// Overwrites `bytes`, also where nobody looks at them again.
fn clear(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

/// What every process is to see, and so no secret: the environment of httpd, and the names
/// of the files that are mapped, which the dynamic linker remembers.
fn visible() -> io::Result<Vec<u8>> {
    let mut text = fs::read("/proc/self/maps")?;
    for (name, value) in std::env::vars_os() {
        text.push(b'\n');
        text.extend(name.into_vec());
        text.push(b'=');
        text.extend(value.into_vec());
    }
    Ok(text)
}

/// Where the kernel says that this process alone may write, `start` and `end` of each, but
/// for what is merely reserved.
fn writable(maps: &str) -> Vec<(u64, u64)> {
    let of_line = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let bound = |text| u64::from_str_radix(text, 16).ok();
        let (start, end) = (bound(start)?, bound(end)?);
        // Shared memory is unmapped; it was others' anyway.
        let is_own = rest.starts_with("rw") && rest.as_bytes().get(3) == Some(&b'p');
        (is_own && end.checked_sub(start)? <= LONGEST).then_some((start, end))
    };
    maps.lines().filter_map(of_line).collect()
}

/// Texts to look for.  They are kept inverted, so that a search does not find itself.
struct Search {
    texts: Vec<Vec<u8>>,
    /// The texts that begin with these bytes, inverted.
    by_key: HashMap<[u8; KEY], Vec<usize>>,
    /// Which first two bytes any text has: most places are ruled out by that.
    begins: Vec<bool>,
    /// The length of the longest.
    longest: usize,
    /// Of which no part is looked for.
    visible: Vec<u8>,
}

impl Search {
    fn new(visible: Vec<u8>) -> Self {
        Self {
            texts: Vec::new(),
            by_key: HashMap::new(),
            begins: vec![false; 1 << 16],
            longest: 0,
            visible,
        }
    }

    fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// As the processes get it, and as it stands in the configuration.
    fn add_variable(&mut self, name: &str, value: &str) {
        let quoted = |quote: &str| value.replace('\\', r"\\").replace(quote, &format!("\\{quote}"));
        for value in [value.to_owned(), quoted("\""), quoted("'")] {
            self.add(value.as_bytes());
            self.add(format!("{name}={value}").as_bytes());
        }
    }

    fn add(&mut self, text: &[u8]) {
        let is_visible = self.visible.windows(text.len().max(1)).any(|window| window == text);
        if text.len() < SHORTEST || is_visible {
            return;
        }
        let inverted: Vec<u8> = text.iter().map(|byte| !byte).collect();
        if self.texts.contains(&inverted) {
            return;
        }
        self.begins[begin(text)] = true;
        let key = inverted.first_chunk().copied().unwrap_or_default();
        self.by_key.entry(key).or_default().push(self.texts.len());
        self.longest = self.longest.max(inverted.len());
        self.texts.push(inverted);
    }

    /// Tells where in `bytes` texts stand, and how long they are; asks for no memory.
    fn find(
        &self,
        bytes: &[u8],
        mut tell: impl FnMut(usize, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        for (at, window) in bytes.windows(KEY).enumerate() {
            if !self.begins[begin(window)] {
                continue;
            }
            let Some(key) = window.first_chunk::<KEY>() else { continue };
            for index in self.by_key.get(&key.map(|byte| !byte)).into_iter().flatten() {
                let text = &self.texts[*index];
                let place = bytes.get(at..at + text.len());
                let is_it =
                    |place: &[u8]| place.iter().zip(text).all(|(byte, mask)| *byte == !mask);
                if place.is_some_and(is_it) {
                    tell(at, text.len())?;
                }
            }
        }
        Ok(())
    }
}

/// The first two bytes as a number.
fn begin(text: &[u8]) -> usize {
    usize::from(text[0]) << 8 | usize::from(text[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(value: &str) -> OwnedFd {
        seal(&vec![("NAME".to_owned(), value.to_owned())]).unwrap().unwrap()
    }

    #[test]
    fn variables_are_read_as_often_as_one_likes() {
        let memory = sealed("value");
        for _ in 0..2 {
            assert_eq!(open(Some(&memory)).unwrap(), [("NAME".to_owned(), "value".to_owned())]);
        }
        assert!(seal(&Variables::new()).unwrap().is_none());
        assert!(open(None).unwrap().is_empty());
    }

    #[test]
    fn what_is_the_same_is_known_without_the_process_that_made_it() {
        let long = "x".repeat(5000);
        assert!(are_same(Some(&sealed(&long)), Some(&sealed(&long))).unwrap());
        let other = format!("{}y", &long[1..]);
        assert!(!are_same(Some(&sealed(&long)), Some(&sealed(&other))).unwrap());
        assert!(!are_same(Some(&sealed(&long)), None).unwrap());
        assert!(are_same(None, None).unwrap());
    }

    #[test]
    fn every_occurrence_is_found_and_nothing_else() {
        let mut search = Search::new(b"PATH=/usr/bin:/bin".to_vec());
        search.add_variable("KEY", "secret");
        search.add_variable("ONE", "secret word");
        search.add_variable("TWO", "/usr/bin");
        search.add_variable("TINY", "1");
        let text = b"secre secret word KEY=secret, /usr/bin TINY=1";
        let mut found = Vec::new();
        let mut note = |at, length| {
            found.push((at, length));
            Ok(())
        };
        search.find(text, &mut note).unwrap();
        let texts: Vec<&str> = found
            .iter()
            .map(|(at, length)| std::str::from_utf8(&text[*at..at + length]).unwrap())
            .collect();
        assert_eq!(texts, ["secret", "secret word", "KEY=secret", "secret", "TINY=1"]);
    }

    #[test]
    fn only_what_this_process_alone_may_write_is_searched() {
        let maps = "1000-2000 rw-p 0 00:00 0 [heap]\n2000-3000 r--p 0 00:00 0 /lib\n\
            3000-4000 rw-s 0 00:00 0 /memfd:x\n4000-5000 rw-p 0 00:00 0\n\
            7fff8000-10007fff8000 rw-p 0 00:00 0\n";
        assert_eq!(writable(maps), [(0x1000, 0x2000), (0x4000, 0x5000)]);
    }

    #[test]
    fn what_is_forgotten_is_nowhere_in_memory() {
        // Neither the program's own text nor on the way from there as a whole.
        let make = || ["bread", "crumbs", "in a", "forest"].join("-");
        let memory = sealed(&make());
        let copies: Vec<Vec<u8>> = (0..3).map(|_| make().into_bytes()).collect();
        let kept = "no bread-crumbs here".to_owned();
        forget([&memory].into_iter()).unwrap();
        assert!(copies.iter().all(|copy| black_box(copy).iter().all(|byte| *byte == 0)));
        assert_eq!(kept, "no bread-crumbs here");
        assert_eq!(open(Some(&memory)).unwrap()[0].1, make());
    }
}
