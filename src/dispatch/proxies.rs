//! What is believed of what proxies say about a request, and what of it the
//! application does not get to see.
#![forbid(unsafe_code)]

use crate::config::proxies::{Form, RULES, Topic, TrustedHeaders, TrustedProxies, rule_of};
use std::borrow::Cow;

/// Whom to believe what: `WSGITrustedProxyHeaders` and `WSGITrustedProxies`.
#[derive(Debug, Clone, Copy)]
pub struct Trust<'a> {
    /// The headers to believe.
    pub headers: &'a TrustedHeaders,
    /// The peers to believe; `None` is every peer.
    pub proxies: Option<&'a TrustedProxies>,
}

/// What the trusted headers of a request come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Variables with the value that the last believed header gave them.
    set: Vec<(&'static str, Cow<'a, [u8]>)>,
    /// Whether TLS was used, by word of a believed header.
    is_https: Option<bool>,
    /// Whether a header about the scheme was believed, whatever it said: then
    /// the connection to the proxy says nothing about the client's.
    has_scheme: bool,
    /// The headers that are taken out: a bit for each place in [`RULES`].
    dropped: u16,
}

impl<'a> Verdict<'a> {
    /// Judges a request of the peer at this address; `value` gives what stands at a
    /// place of [`RULES`].
    pub fn new(trust: Trust<'_>, peer: &[u8], value: impl Fn(usize) -> Option<&'a [u8]>) -> Self {
        let mut verdict = Self::default();
        let is_trusted = trust.proxies.is_none_or(|proxies| proxies.trust(peer));
        let mut kept = 0;
        for &place in trust.headers.places() {
            // Whoever sends it, no synonym stands beside a trusted header.
            let synonyms = synonyms(RULES[place].topic);
            verdict.dropped |= synonyms;
            if let Some(text) = value(place).filter(|_| is_trusted) {
                verdict.believe(place, text, trust.proxies);
                kept = kept & !synonyms | bit(place);
            }
        }
        verdict.dropped &= !kept;
        verdict
    }

    /// Takes the value of a header for true.
    fn believe(&mut self, place: usize, text: &'a [u8], proxies: Option<&TrustedProxies>) {
        let rule = RULES[place];
        match rule.form {
            Form::Chain => self.believe_chain(text, proxies),
            Form::SchemeName => self.believe_scheme(text, &[b"https"], &[b"http"]),
            Form::Switch => {
                self.believe_scheme(text, &[b"on", b"true", b"1"], &[b"off", b"false", b"0"]);
            }
            Form::Verbatim => {
                let keys: &[&str] = match rule.topic {
                    Topic::Client => &["REMOTE_ADDR"],
                    Topic::Host => &["HTTP_HOST"],
                    Topic::Server => &["SERVER_NAME"],
                    Topic::Port => &["SERVER_PORT"],
                    Topic::Mount => &["SCRIPT_NAME", "mod_wsgi.mount_point"],
                    Topic::Scheme => &[],
                };
                for key in keys {
                    self.set(key, Cow::Borrowed(text));
                }
            }
        }
    }

    /// Sets a variable.
    fn set(&mut self, key: &'static str, value: Cow<'a, [u8]>) {
        self.set.retain(|(known, _)| *known != key);
        self.set.push((key, value));
    }

    /// Takes one of these words for the scheme; any other changes nothing.
    fn believe_scheme(&mut self, text: &[u8], yes: &[&[u8]], no: &[&[u8]]) {
        let is_one_of = |words: &[&[u8]]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
        self.has_scheme = true;
        if is_one_of(yes) {
            self.is_https = Some(true);
        } else if is_one_of(no) {
            self.is_https = Some(false);
        }
    }

    /// Finds the client in the addresses that proxies appended.
    ///
    /// From the right, as long as an address is that of a trusted proxy, what is
    /// left of it was written by that proxy; the first that is not is the client.
    /// What stands further left is the client's own tale, and is cut off.
    fn believe_chain(&mut self, text: &'a [u8], proxies: Option<&TrustedProxies>) {
        let entries = text.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        let entries: Vec<&[u8]> = entries.filter(|entry| !entry.is_empty()).collect();
        let Some(proxies) = proxies else {
            // Nobody can tell where the tale ends.
            if let Some(first) = entries.first() {
                self.set("REMOTE_ADDR", Cow::Borrowed(first));
            }
            return;
        };
        let trusted = entries.iter().rev().take_while(|entry| proxies.trust(entry)).count();
        let client = entries.len().saturating_sub(trusted + 1);
        if let Some(address) = entries.get(client) {
            self.set("REMOTE_ADDR", Cow::Borrowed(address));
            self.set("HTTP_X_FORWARDED_FOR", Cow::Owned(entries[client..].join(&b", "[..])));
        }
    }

    /// Whether the application is not to see the header of this name or key.
    pub fn drops(&self, name: &[u8]) -> bool {
        rule_of(name).is_some_and(|place| self.dropped & bit(place) != 0)
    }

    /// Whether a variable of this name would stand beside one that is set.
    pub fn replaces(&self, name: &[u8]) -> bool {
        self.set.iter().any(|(key, _)| name.eq_ignore_ascii_case(key.as_bytes()))
    }

    /// The variables to set, each once.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.set.iter().map(|(key, value)| (*key, &**value))
    }

    /// Whether the client uses TLS: by what the proxies say, else by `variable`,
    /// what `HTTPS` says, or `connection`, what mod_ssl says.
    pub fn is_https(&self, variable: bool, connection: bool) -> bool {
        self.is_https.unwrap_or(variable || (connection && !self.has_scheme))
    }
}

/// The bit of a place in [`RULES`].
const fn bit(place: usize) -> u16 {
    1 << place
}

/// The bits of all headers that tell this.
fn synonyms(topic: Topic) -> u16 {
    let about = RULES.iter().enumerate().filter(|(_, rule)| rule.topic == topic);
    about.fold(0, |bits, (place, _)| bits | bit(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Headers, and what they come to.
    struct Case<'a> {
        trusted: &'a [&'a str],
        proxies: Option<&'a [&'a str]>,
        headers: &'a [(&'a str, &'a str)],
    }

    impl Case<'_> {
        fn judge<T>(&self, look: impl FnOnce(&Verdict<'_>) -> T) -> T {
            let mut headers = TrustedHeaders::default();
            for name in self.trusted {
                headers.add(name.as_bytes()).unwrap();
            }
            let proxies = self.proxies.map(|words| {
                let mut proxies = TrustedProxies::default();
                words.iter().for_each(|word| proxies.add(word.as_bytes()).unwrap());
                proxies
            });
            let trust = Trust { headers: &headers, proxies: proxies.as_ref() };
            look(&Verdict::new(trust, b"127.0.0.1", |place| {
                let found =
                    self.headers.iter().find(|(name, _)| rule_of(name.as_bytes()) == Some(place));
                found.map(|(_, value)| value.as_bytes())
            }))
        }

        fn set(&self) -> BTreeMap<&'static str, String> {
            self.judge(|verdict| {
                let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
                verdict.variables().map(|(key, value)| (key, text(value))).collect()
            })
        }

        fn is_https(&self, variable: bool, connection: bool) -> bool {
            self.judge(|verdict| verdict.is_https(variable, connection))
        }

        /// The headers that are left.
        fn kept(&self) -> Vec<&str> {
            self.judge(|verdict| {
                let names = self.headers.iter().map(|(name, _)| *name);
                names.filter(|name| !verdict.drops(name.as_bytes())).collect()
            })
        }
    }

    /// What a chain of addresses comes to: the client, and the rest of the chain.
    fn chain(text: &str, proxies: Option<&[&str]>) -> (Option<String>, Option<String>) {
        let case =
            Case { trusted: &["X-Forwarded-For"], proxies, headers: &[("X-Forwarded-For", text)] };
        let mut set = case.set();
        (set.remove("REMOTE_ADDR"), set.remove("HTTP_X_FORWARDED_FOR"))
    }

    fn some(client: &str, rest: &str) -> (Option<String>, Option<String>) {
        (Some(client.to_owned()), Some(rest.to_owned()))
    }

    #[test]
    fn without_trusted_headers_nothing_happens() {
        let case = Case { trusted: &[], proxies: None, headers: &[("X-Real-IP", "1.1.1.1")] };
        case.judge(|verdict| assert_eq!(*verdict, Verdict::default()));
    }

    #[test]
    fn the_client_is_left_of_the_trusted_proxies() {
        let proxies: Option<&[&str]> = Some(&["127.0.0.1", "10.0.0.0/8"]);
        let chain = |text| chain(text, proxies);
        assert_eq!(chain("1.1.1.1, 2.2.2.2, 10.0.0.1"), some("2.2.2.2", "2.2.2.2, 10.0.0.1"));
        assert_eq!(chain("1.1.1.1,2.2.2.2"), some("2.2.2.2", "2.2.2.2"));
        assert_eq!(chain("10.0.0.2 ,\t10.0.0.1,"), some("10.0.0.2", "10.0.0.2, 10.0.0.1"));
        assert_eq!(chain("1.1.1.1, junk, 10.0.0.1"), some("junk", "junk, 10.0.0.1"));
        assert_eq!(chain(" , ,"), (None, None));
        assert_eq!(chain(""), (None, None));
    }

    #[test]
    fn without_known_proxies_the_client_is_the_first() {
        assert_eq!(chain(",1.1.1.1, 2.2.2.2", None), (Some("1.1.1.1".to_owned()), None));
        assert_eq!(chain(" ,", None), (None, None));
    }

    #[test]
    fn values_go_where_the_topic_says() {
        let case = Case {
            trusted: &[
                "X-Real-IP",
                "X-Host",
                "X-Forwarded-Server",
                "X-Forwarded-Port",
                "X-Script-Name",
            ],
            proxies: None,
            headers: &[
                ("X-Real-IP", "1.1.1.1"),
                ("X-Host", "a:81"),
                ("X-Forwarded-Server", "b"),
                ("X-Forwarded-Port", "82"),
                ("X-Script-Name", "//c/"),
            ],
        };
        let set = case.set();
        let set: Vec<_> = set.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let expected = [
            ("HTTP_HOST", "a:81"),
            ("REMOTE_ADDR", "1.1.1.1"),
            ("SCRIPT_NAME", "//c/"),
            ("SERVER_NAME", "b"),
            ("SERVER_PORT", "82"),
            ("mod_wsgi.mount_point", "//c/"),
        ];
        assert_eq!(set, expected);
    }

    #[test]
    fn the_last_header_of_a_topic_wins_and_stays() {
        let both =
            [("X-Real-IP", "1.1.1.1"), ("X-Client-IP", "2.2.2.2"), ("X-Forwarded-For", "3.3.3.3")];
        let case = Case { trusted: &["X-Client-IP", "X-Real-IP"], proxies: None, headers: &both };
        assert_eq!(case.set()["REMOTE_ADDR"], "1.1.1.1");
        assert_eq!(case.kept(), ["X-Real-IP"]);
        let case = Case { headers: &both[1..], ..case };
        assert_eq!(case.set()["REMOTE_ADDR"], "2.2.2.2");
        assert_eq!(case.kept(), ["X-Client-IP"]);
    }

    #[test]
    fn of_others_nothing_is_believed_and_nothing_of_the_topic_stays() {
        let case = Case {
            trusted: &["X-Forwarded-For", "X-HTTPS"],
            proxies: Some(&["10.0.0.0/8"]),
            headers: &[
                ("X-Forwarded-For", "1.1.1.1"),
                ("X-Real-IP", "2.2.2.2"),
                ("X-Forwarded-Proto", "https"),
                ("X-HTTPS", "on"),
                ("X-Forwarded-Host", "a"),
            ],
        };
        assert!(case.set().is_empty());
        assert_eq!(case.kept(), ["X-Forwarded-Host"]);
        assert!(!case.is_https(false, false) && case.is_https(false, true));
    }

    #[test]
    fn a_list_of_nobody_trusts_nobody() {
        let case = Case {
            trusted: &["X-Real-IP"],
            proxies: Some(&[]),
            headers: &[("X-Real-IP", "1.1.1.1")],
        };
        assert!(case.set().is_empty() && case.kept().is_empty());
    }

    /// Headers about the scheme, where two of them are trusted.
    fn scheme<'a>(headers: &'a [(&'a str, &'a str)]) -> Case<'a> {
        Case { trusted: &["X-Forwarded-Proto", "X-HTTPS"], proxies: None, headers }
    }

    #[test]
    fn the_scheme_is_what_the_last_word_says() {
        for (name, value, expected) in [
            ("X-Forwarded-Proto", "HTTPS", true),
            ("X-Forwarded-Proto", "http", false),
            ("X-HTTPS", "On", true),
            ("X-HTTPS", "true", true),
            ("X-HTTPS", "0", false),
            ("X-HTTPS", "FALSE", false),
        ] {
            let headers = [(name, value)];
            for before in [true, false] {
                assert_eq!(scheme(&headers).is_https(before, before), expected, "{value}");
            }
        }
        let headers = [("X-Forwarded-Proto", "https"), ("X-HTTPS", "off")];
        assert!(!scheme(&headers).is_https(true, true));
        let headers = [("X-Forwarded-Proto", "https"), ("X-HTTPS", "junk")];
        assert!(scheme(&headers).is_https(false, false));
    }

    #[test]
    fn a_word_nobody_knows_leaves_the_variable_but_not_the_connection() {
        let headers = [("X-Forwarded-Proto", "ftp")];
        let case = Case { trusted: &["X-Forwarded-Proto"], proxies: None, headers: &headers };
        assert!(!case.is_https(false, true));
        assert!(case.is_https(true, false));
    }

    proptest! {
        #[test]
        fn at_most_one_header_of_a_trusted_topic_stays(
            trusted in prop::collection::vec(0_usize..RULES.len(), 0..6),
            present: [bool; 15],
            is_trusted: bool,
        ) {
            let mut headers = TrustedHeaders::default();
            for &place in &trusted {
                headers.add(&RULES[place].key.to_vec().iter().map(|&b| if b == b'_' { b'-' } else { b }).collect::<Vec<_>>()).unwrap();
            }
            let mut proxies = TrustedProxies::default();
            proxies.add(if is_trusted { b"127.0.0.1" } else { b"127.0.0.2" }).unwrap();
            let trust = Trust { headers: &headers, proxies: Some(&proxies) };
            let verdict = Verdict::new(trust, b"127.0.0.1", |place| present[place].then_some(&b"1"[..]));
            for rule in &RULES {
                let is_configured = trusted.iter().any(|&place| RULES[place].topic == rule.topic);
                let of_topic = |place: &usize| RULES[*place].topic == rule.topic;
                let stays = |place: &usize| present[*place] && !verdict.drops(RULES[*place].key);
                let left: Vec<usize> = (0..RULES.len()).filter(of_topic).filter(stays).collect();
                let last = trusted.iter().rev().copied().filter(of_topic).find(|&place| present[place]);
                if is_configured {
                    prop_assert_eq!(left.first().copied(), last.filter(|_| is_trusted));
                    prop_assert!(left.len() <= 1);
                }
            }
            prop_assert!(is_trusted || verdict.set.is_empty() && verdict.is_https.is_none());
        }

        #[test]
        fn all_but_the_first_of_what_is_left_of_a_chain_are_trusted(
            text in "([ ,a0-9.]|10\\.0\\.0\\.[0-9]|1\\.2\\.3\\.4|, )*",
        ) {
            let (client, rest) = chain(&text, Some(&["127.0.0.1", "10.0.0.0/8"]));
            if let Some(rest) = rest {
                let mut entries = rest.split(", ");
                prop_assert_eq!(entries.next().map(str::to_owned), client);
                let is_proxy = |entry: &str| entry.starts_with("10.");
                prop_assert!(entries.all(is_proxy), "{}", rest);
            } else {
                prop_assert!(text.bytes().all(|byte| byte == b' ' || byte == b','));
            }
        }
    }
}
