//! The checks of the whole configuration, told to whoever starts httpd or runs
//! `apachectl configtest`.
#![forbid(unsafe_code)]

use crate::config::ProcessGroup;
use crate::config::check::access::Account;
use crate::config::check::{self, Problem, Severity, Surroundings};
use crate::config::python_search::System;
use crate::daemon::files::Need;
use crate::host::Half;
use crate::httpd::hook::{CheckConfig, Outcome, PostConfig};
use crate::httpd::log::{self, Level};
use crate::httpd::process::{self, Stage};
use crate::httpd::{Pool, Server};

/// Checks the configuration when it has been read.
pub struct Checks;

impl CheckConfig for Checks {
    /// Before logs are open: what is told here is for whoever runs the command.
    fn check_config(main: &Server) -> Outcome {
        let stage = process::stage();
        // httpd reads its configuration twice when it starts, and the first
        // pass has ended where something was wrong.
        if stage == Stage::Start {
            return Outcome::Ok;
        }
        let problems = problems(main);
        let is_told = |problem: &&Problem| stage != Stage::Restart || is_error(problem);
        problems.iter().filter(is_told).for_each(|problem| tell(main, problem));
        // A server that runs is not to end because a file has gone missing:
        // `apachectl graceful` has refused already, and what still works goes on.
        let is_refused = stage != Stage::Restart && problems.iter().any(is_error);
        if is_refused { Outcome::Status(500) } else { Outcome::Ok }
    }
}

impl PostConfig for Checks {
    /// Logs are open: what works less than it seems is in there as well.
    fn post_config(_conf: &Pool, main: &Server) -> Outcome {
        let stage = process::stage();
        if matches!(stage, Stage::Start | Stage::Restart) {
            let problems = problems(main);
            let others = problems.iter().filter(|problem| !is_error(problem));
            others.for_each(|problem| tell(main, problem));
        }
        Outcome::Ok
    }
}

/// Whether httpd must not start so.
fn is_error(problem: &Problem) -> bool {
    problem.severity == Severity::Error
}

/// Everything there is to say about the configuration.
fn problems(main: &Server) -> Vec<Problem> {
    let httpd = process::identity();
    let is_root = nix::unistd::geteuid().is_root();
    let around = Surroundings {
        system: &System::default(),
        httpd: is_root.then(|| Account::new(httpd.user, httpd.group)),
        obstacle: |python| {
            let path = Half::find().path(&python.libpython, &python.program);
            path.err().map(|error| error.to_string())
        },
    };
    let servers = servers(main);
    let mut problems = check::check(&servers, &around);
    // At a restart groups get as many processes as there is room for.
    if process::stage() != Stage::Restart {
        problems.extend(too_few_files(&servers));
    }
    problems
}

/// More processes than there can be descriptors for, told at the largest group.
fn too_few_files(servers: &[check::Server<'_>]) -> Option<Problem> {
    let (groups, _) = check::process_groups(servers);
    let too_few = Need::of(groups.iter().map(ProcessGroup::processes)).check(0).err()?;
    let largest = groups.iter().max_by_key(|group| group.processes())?;
    let (at, text) = (largest.at.clone(), too_few.to_string());
    Some(Problem { severity: Severity::Error, code: Some("WSGI9214"), at, text })
}

/// All servers as the checks want them, `main` first.
pub fn servers(main: &Server) -> Vec<check::Server<'_>> {
    let server = |server| {
        let config = Server::own_config(server)?;
        let (name, is_virtual) = (server.hostname(), server.is_virtual());
        Some(check::Server { config, name, is_virtual })
    };
    main.and_following().filter_map(server).collect()
}

/// Writes one problem to the log.
fn tell(main: &Server, problem: &Problem) {
    let Problem { severity, code, at, text } = problem;
    let level = match severity {
        Severity::Error => Level::Crit,
        Severity::Warning => Level::Warn,
        Severity::Notice => Level::Notice,
    };
    let code = code.unwrap_or_default();
    log::record(main, level, log_origin!(), code, format_args!("{at}: {text}"));
}
