//! The checks of the whole configuration, told to whoever starts httpd or runs
//! `apachectl configtest`.
#![forbid(unsafe_code)]

use crate::config::check::{self, Problem, Severity};
use crate::config::python_search::System;
use crate::httpd::Server;
use crate::httpd::hook::{CheckConfig, Outcome, Pools};
use crate::httpd::process::{self, Stage};

/// Checks the configuration when it has been read.
pub struct Checks;

impl CheckConfig for Checks {
    fn check_config(_pools: Pools<'_>, main: &Server) -> Outcome {
        let stage = process::stage();
        // httpd reads its configuration twice when it starts; once is enough to
        // be told, and the first pass has ended where something was wrong.
        if stage == Stage::Start {
            return Outcome::Ok;
        }
        let problems = check::check(&servers(main), &System::default());
        for problem in &problems {
            tell(main, problem, stage);
        }
        let is_wrong = problems.iter().any(|problem| problem.severity == Severity::Error);
        // A server that runs is not to end because a file has gone missing:
        // `apachectl graceful` has refused already, and what still works goes on.
        if is_wrong && stage != Stage::Restart { Outcome::Status(500) } else { Outcome::Ok }
    }
}

/// All servers as the checks want them, `main` first.
pub fn servers(main: &Server) -> Vec<check::Server<'_>> {
    let server = |server| {
        let config = Server::config(server)?;
        let (name, is_virtual) = (server.hostname(), server.is_virtual());
        Some(check::Server { config, name, is_virtual })
    };
    main.and_following().filter_map(server).collect()
}

/// Writes one problem to the log, which is standard error before logs are open.
fn tell(main: &Server, problem: &Problem, stage: Stage) {
    let Problem { code, at, text, .. } = problem;
    let code = code.unwrap_or_default();
    match problem.severity {
        Severity::Error if stage == Stage::Restart => {
            log_record!(Crit, main, code, "{text}, at {at}");
        }
        Severity::Error => log_record!(Emerg, main, code, "{text}, at {at}"),
        Severity::Warning => log_record!(Warn, main, code, "{text}, at {at}"),
        Severity::Notice => log_record!(Notice, main, code, "{text}, at {at}"),
    }
}
