//! The files of `tests/corpus/requests`: what is sent, and what must come of it.
//!
//! A line says by its first character what it is:
//!
//! | line | means |
//! |---|---|
//! | `# text` | a comment |
//! | `= name` | a case begins |
//! | `! way` | how it is sent: `half` closes the sending side at the end, `drip` sends a byte at a time, `cut` sends each beginning of it and half-closes, `leave` closes without reading; `head`: the first answer has no body |
//! | `\| text` | a line of the request, with its CR and LF |
//! | `. text` | bytes of the request, as they are |
//! | `-> 400/413 close` | the statuses of the answers, with alternatives, and the connection's end |
//! | `~> 500 close` | what mod_wsgi 6.1.1 may do instead, where that is a difference |
//! | `+ KEY repr` | the first answer's application found this in its environ |
//! | `- KEY` | it did not find this key |
//!
//! Bytes are written `\xHH`, `\0`, `\t`, `\r`, `\n`, `\\`; `\{1000*text}` repeats.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::harness::is_ours;

/// How a request is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// All at once, and a good request behind it.
    #[default]
    Whole,
    /// All at once, and then the sending side is closed.
    Half,
    /// A byte at a time, and a good request behind it.
    Drip,
    /// Each beginning of it, and then the sending side is closed.
    Cut,
    /// All at once, and then the connection is closed without a look at the answer.
    Leave,
}

/// One hostile request.
#[derive(Debug, Default)]
pub struct Case {
    /// What it is about, with the name of its file.
    pub name: String,
    /// How it is sent.
    pub way: Way,
    /// Whether its first answer has no body whatever its headers say.
    pub is_head: bool,
    /// What is sent.
    pub bytes: Vec<u8>,
    /// What must come of it.
    pub expected: Vec<String>,
    /// What the reference may do instead.
    pub of_reference: Vec<Vec<String>>,
    /// Lines the first answer must have.
    pub present: Vec<String>,
    /// Keys it must not have.
    pub absent: Vec<String>,
}

impl Case {
    /// Whether `outcome` is what was expected.
    pub fn allows(&self, outcome: &[String]) -> bool {
        let is_word =
            |(expected, found): (&String, &String)| expected.split('/').any(|e| e == found);
        let fits = |expected: &Vec<String>| {
            expected.len() == outcome.len() && expected.iter().zip(outcome).all(is_word)
        };
        fits(&self.expected) || (!is_ours() && self.of_reference.iter().any(fits))
    }
}

/// The cases of every file in `folder`, in order.
pub fn read(folder: &Path) -> Vec<Case> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.iter().flat_map(|file| read_file(file)).collect()
}

/// The cases of one file.
fn read_file(file: &Path) -> Vec<Case> {
    let theme = file.file_stem().unwrap().to_str().unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        if kind == "=" {
            cases.push(Case { name: format!("{theme}: {rest}"), ..Case::default() });
            continue;
        }
        let case = cases.last_mut().expect("a case begins with its name");
        match kind {
            "!" => add_way(case, rest),
            "|" => case.bytes.extend([unescape(rest.as_bytes()), b"\r\n".to_vec()].concat()),
            "." => case.bytes.extend(unescape(rest.as_bytes())),
            "->" => case.expected = words(rest),
            "~>" => case.of_reference.push(words(rest)),
            "+" => case.present.push(rest.to_owned()),
            "-" => case.absent.push(rest.to_owned()),
            _ => panic!("{}: {line:?}", file.display()),
        }
    }
    cases
}

/// The words of an expectation.
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Notes how `case` is sent.
fn add_way(case: &mut Case, word: &str) {
    match word {
        "half" => case.way = Way::Half,
        "drip" => case.way = Way::Drip,
        "cut" => case.way = Way::Cut,
        "leave" => case.way = Way::Leave,
        "head" => case.is_head = true,
        _ => panic!("{}: no way to send is called {word}", case.name),
    }
}

/// The bytes that `text` stands for.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (escape, after) = rest.split_first().expect("something is escaped");
        rest = after;
        match escape {
            b'r' => bytes.push(b'\r'),
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'0' => bytes.push(0),
            b'\\' => bytes.push(b'\\'),
            b'x' => {
                let digits = std::str::from_utf8(&rest[..2]).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &rest[2..];
            }
            b'{' => {
                // No repeated text holds a curly bracket.
                let end = rest.iter().position(|byte| *byte == b'}').unwrap();
                let star = rest.iter().position(|byte| *byte == b'*').unwrap();
                let times = std::str::from_utf8(&rest[..star]).unwrap().parse().unwrap();
                bytes.extend(unescape(&rest[star + 1..end]).repeat(times));
                rest = &rest[end + 1..];
            }
            other => panic!("\\{} escapes nothing", char::from(*other)),
        }
    }
    bytes
}

#[test]
fn escapes_stand_for_bytes() {
    assert_eq!(unescape(br"a\x00\r\n\{3*b\t}\\"), b"a\0\r\nb\tb\tb\t\\");
}
