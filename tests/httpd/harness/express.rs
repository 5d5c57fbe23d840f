//! A configuration tree that mod_wsgi-express wrote, with another module in its `LoadModule` line.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::installation::{Installation, is_root, mpm, others_can_reach};
use super::site::{Site, free_port, other_user};
use super::skip;

/// What `make express` made, if it was run.
fn virtual_environment() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/express/venv");
    place.join("made-for").exists().then_some(place)
}

/// The generator and what it is told; `${ROOT}`, `${PORT}` and `${OTHER}` are replaced.
pub struct Tree {
    /// The virtual environment it is installed in.
    venv: PathBuf,
    /// The words after `setup-server`.
    words: Vec<String>,
    /// A second port, for TLS or a server behind this one.
    pub other: u16,
}

impl Tree {
    /// The generator with these options, one blank between two words; says so where there is
    /// none.
    pub fn new(options: &str) -> Option<Self> {
        let Some(venv) = virtual_environment() else {
            skip("run `make express` first");
            return None;
        };
        if is_root() && !others_can_reach(&venv) {
            skip("httpd's user cannot reach this checkout");
            return None;
        }
        let words = options.split_whitespace().map(str::to_owned).collect();
        Some(Self { venv, words, other: free_port() })
    }

    /// Whether the options ask for one process that is httpd's parent as well.
    pub fn is_one_process(&self) -> bool {
        let asks = ["--debug-mode", "--enable-profiler", "--enable-recorder"];
        self.words.iter().any(|word| asks.contains(&word.as_str()))
    }

    /// Has the generator write the tree, and names the module under test in it.
    pub fn write(&self, root: &Path, port: u16) {
        let text = |word: &String| {
            let word = word.replace("${ROOT}", &root.display().to_string());
            word.replace("${PORT}", &port.to_string()).replace("${OTHER}", &self.other.to_string())
        };
        let mut command = Command::new(self.venv.join("bin/mod_wsgi-express"));
        command.arg("setup-server").args(self.words.iter().map(text));
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.arg("--server-root").arg(root).arg("--working-directory").arg(root.join("app"));
        command.args(["--log-level", "info", "--error-log-name", "error.log"]);
        command.args(["--locale", "C.UTF-8", "--server-mpm", &mpm()]);
        if is_root() {
            let user = other_user();
            command.args(["--user", user, "--group", user]);
        }
        command.env("HTTPD", &Installation::get().program);
        let output = command.output().expect("the generator runs");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
        let path = root.join("httpd.conf");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(path, with_module(&config, &Installation::get().under_test)).unwrap();
    }

    /// Its control script.
    pub fn command(root: &Path) -> Command {
        Command::new(root.join("apachectl"))
    }
}

/// `config` with its one `LoadModule wsgi_module` line naming this module.
fn with_module(config: &str, module: &Path) -> String {
    let mut found = 0;
    let mut text = String::new();
    for line in config.lines() {
        if line.starts_with("LoadModule wsgi_module ") {
            found += 1;
            text += &format!("LoadModule wsgi_module '{}'\n", module.display());
        } else {
            text += line;
            text += "\n";
        }
    }
    assert_eq!(found, 1, "the tree loads one module");
    text
}

impl Site {
    /// A site whose tree is generated with these options, with the application `app/site.wsgi`;
    /// nothing where there is no generator.
    pub fn express(options: &str) -> Option<Self> {
        Some(Self::new("").generated_by(Tree::new(options)?))
    }
}
