//! `WSGITelemetryService`, `WSGISlowRequests` and `WSGITelemetryOptions`.
#![forbid(unsafe_code)]

use super::DirectiveError;
use super::option::readable;
use std::time::Duration;

/// Longest path of a socket: Linux' `sun_path` has 108 bytes, the last of them NUL.
const LONGEST_PATH: usize = 107;

/// Shortest interval: more often costs the server more than the figures are worth.
const SHORTEST: f64 = 0.5;

/// Interval where none is given.
const DEFAULT: f64 = 1.0;

/// Where reports go, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Path of a datagram socket.
    pub path: Vec<u8>,
    /// Time between two reports.
    pub interval: Duration,
}

/// What is reported.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Telemetry {
    /// `WSGITelemetryService`.
    pub service: Option<Service>,
    /// `WSGISlowRequests`: requests that take longer are told of one by one.
    pub slow_requests: Option<Duration>,
    /// Whether the user agent is told of these.
    pub captures_user_agent: bool,
}

/// The only flag of `WSGITelemetryOptions`.
const USER_AGENT: &[u8] = b"CaptureUserAgent";

/// A refusal that names what was found.
fn wrong(wanted: &'static str, found: &[u8]) -> DirectiveError {
    DirectiveError::Wanted { wanted, found: readable(found) }
}

/// Reads a number of seconds of at least `least`.
fn seconds(text: &[u8], least: f64) -> Option<Duration> {
    let seconds: f64 = str::from_utf8(text).ok()?.parse().ok()?;
    (seconds >= least).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

impl Service {
    /// Reads the arguments of `WSGITelemetryService`.
    pub fn read(mut words: impl Iterator<Item = Vec<u8>>) -> Result<Self, DirectiveError> {
        let target = words.next().unwrap_or_default();
        let path = target.strip_prefix(b"unix:").unwrap_or_default();
        if path.is_empty() {
            return Err(wrong("'unix:' and the path of a datagram socket", &target));
        }
        if path.len() > LONGEST_PATH {
            return Err(wrong("a path of at most 107 bytes, the most a socket may have", path));
        }
        let interval = match words.next() {
            None => Duration::from_secs_f64(DEFAULT),
            Some(word) => word
                .strip_prefix(b"interval=")
                .and_then(|text| seconds(text, SHORTEST))
                .ok_or_else(|| wrong("'interval=' and a number of seconds, at least 0.5", &word))?,
        };
        match words.next() {
            None => Ok(Self { path: path.to_vec(), interval }),
            Some(word) => Err(wrong("no more than a target and an interval", &word)),
        }
    }
}

impl Telemetry {
    /// Reads the argument of `WSGISlowRequests`; 0 turns it off.
    pub fn read_slow_requests(&mut self, word: &[u8]) -> Result<(), DirectiveError> {
        let limit = seconds(word, 0.0).ok_or_else(|| wrong("a number of seconds, or 0", word))?;
        self.slow_requests = Some(limit).filter(|limit| !limit.is_zero());
        Ok(())
    }

    /// Reads the arguments of `WSGITelemetryOptions`.
    pub fn read_options(
        &mut self,
        words: impl Iterator<Item = Vec<u8>>,
    ) -> Result<(), DirectiveError> {
        let (mut captures, mut is_relative) = (None, None);
        for word in words {
            let sign = word.first().copied().filter(|sign| matches!(sign, b'+' | b'-'));
            if is_relative.is_some_and(|relative| relative != sign.is_some()) {
                return Err(wrong("options with '+' or '-', or without; not both", &word));
            }
            is_relative = Some(sign.is_some());
            let name = &word[usize::from(sign.is_some())..];
            captures = Some(match (sign, name) {
                (None, name) if name.eq_ignore_ascii_case(b"None") => false,
                (None, name) if name.eq_ignore_ascii_case(b"All") => true,
                (sign, name) if name.eq_ignore_ascii_case(USER_AGENT) => sign != Some(b'-'),
                _ => return Err(wrong("None, All, or [+|-]CaptureUserAgent", &word)),
            });
        }
        let captures = captures.ok_or(DirectiveError::Missing { wanted: "an option" })?;
        self.captures_user_agent = captures;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> impl Iterator<Item = Vec<u8>> {
        line.split_whitespace().map(|word| word.as_bytes().to_vec())
    }

    #[test]
    fn a_service_is_a_socket_and_an_interval() {
        let service = Service::read(words("unix:/run/t.sock")).unwrap();
        assert_eq!(
            (&*service.path, service.interval),
            (&b"/run/t.sock"[..], Duration::from_secs(1))
        );
        let service = Service::read(words("unix:/t interval=0.5")).unwrap();
        assert_eq!(service.interval, Duration::from_millis(500));
        let long = format!("unix:/{}", "x".repeat(107));
        for line in [
            "",
            "unix:",
            "/run/t.sock",
            "udp:127.0.0.1:80",
            "unix:/t interval=0.4",
            "unix:/t interval=x",
            "unix:/t interval=",
            "unix:/t interval=nan",
            "unix:/t interval=inf",
            "unix:/t often",
            "unix:/t interval=1 interval=2",
            &long,
        ] {
            let refused = Service::read(words(line)).unwrap_err().to_string();
            assert!(refused.starts_with("wanted "), "{line}: {refused}");
        }
    }

    #[test]
    fn slow_requests_begin_at_a_number_of_seconds() {
        let mut telemetry = Telemetry::default();
        telemetry.read_slow_requests(b"0.25").unwrap();
        assert_eq!(telemetry.slow_requests, Some(Duration::from_millis(250)));
        telemetry.read_slow_requests(b"0").unwrap();
        assert_eq!(telemetry.slow_requests, None);
        for word in [&b"-1"[..], b"x", b"", b"1s", b"nan"] {
            assert!(telemetry.read_slow_requests(word).is_err(), "{}", readable(word));
        }
    }

    #[test]
    fn options_are_relative_or_absolute() {
        let read = |line: &str| {
            let mut telemetry = Telemetry::default();
            telemetry.read_options(words(line)).map(|()| telemetry.captures_user_agent)
        };
        assert_eq!(read("+CaptureUserAgent"), Ok(true));
        assert_eq!(read("captureuseragent"), Ok(true));
        assert_eq!(read("+CaptureUserAgent -CaptureUserAgent"), Ok(false));
        assert_eq!(read("All"), Ok(true));
        assert_eq!(read("CaptureUserAgent None"), Ok(false));
        for line in ["", "+", "-", "+All", "-None", "Other", "+Other", "All +CaptureUserAgent"] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
