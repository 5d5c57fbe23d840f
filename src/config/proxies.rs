//! What proxies in front of httpd may say about a request: the one table that
//! decides both what is believed and what is taken out.
#![forbid(unsafe_code)]

use super::DirectiveError;
use super::option::readable;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// What a header tells about a request.  Where one of its headers is trusted,
/// the others that tell the same never reach an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Who the client is.
    Client,
    /// The host the client asked for.
    Host,
    /// The name of the server.
    Server,
    /// The port of the server.
    Port,
    /// Where the application is mounted.
    Mount,
    /// `http` or `https`.
    Scheme,
}

/// How the value of a header is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it stands.
    Verbatim,
    /// Addresses, of which each proxy appended the one it was asked by.
    Chain,
    /// `http` or `https`.
    SchemeName,
    /// Whether TLS was used: `on`, `true`, `1` or `off`, `false`, `0`.
    Switch,
}

/// A header that proxies are known to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The header's key without `HTTP_`.
    pub key: &'static [u8],
    /// What it tells.
    pub topic: Topic,
    /// How it is read.
    pub form: Form,
}

/// Every header there is a rule for.
#[rustfmt::skip]
pub static RULES: [Rule; 15] = [
    Rule { key: b"X_FORWARDED_FOR",         topic: Topic::Client, form: Form::Chain },
    Rule { key: b"X_CLIENT_IP",             topic: Topic::Client, form: Form::Verbatim },
    Rule { key: b"X_REAL_IP",               topic: Topic::Client, form: Form::Verbatim },
    Rule { key: b"X_FORWARDED_HOST",        topic: Topic::Host,   form: Form::Verbatim },
    Rule { key: b"X_HOST",                  topic: Topic::Host,   form: Form::Verbatim },
    Rule { key: b"X_FORWARDED_SERVER",      topic: Topic::Server, form: Form::Verbatim },
    Rule { key: b"X_FORWARDED_PORT",        topic: Topic::Port,   form: Form::Verbatim },
    Rule { key: b"X_SCRIPT_NAME",           topic: Topic::Mount,  form: Form::Verbatim },
    Rule { key: b"X_FORWARDED_SCRIPT_NAME", topic: Topic::Mount,  form: Form::Verbatim },
    Rule { key: b"X_FORWARDED_PROTO",       topic: Topic::Scheme, form: Form::SchemeName },
    Rule { key: b"X_FORWARDED_SCHEME",      topic: Topic::Scheme, form: Form::SchemeName },
    Rule { key: b"X_SCHEME",                topic: Topic::Scheme, form: Form::SchemeName },
    Rule { key: b"X_FORWARDED_HTTPS",       topic: Topic::Scheme, form: Form::Switch },
    Rule { key: b"X_FORWARDED_SSL",         topic: Topic::Scheme, form: Form::Switch },
    Rule { key: b"X_HTTPS",                 topic: Topic::Scheme, form: Form::Switch },
];

/// The place in [`RULES`] of the header with this name or key.
pub fn rule_of(name: &[u8]) -> Option<usize> {
    let is = |key: &[u8]| {
        key.len() == name.len() && key.iter().zip(name).all(|(&key, &byte)| key == of_key(byte))
    };
    RULES.iter().position(|rule| is(rule.key))
}

/// A byte of a header's name in its key.
const fn of_key(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }
}

/// `WSGITrustedProxyHeaders`: places in [`RULES`], in the order of the directive.
///
/// Names there is no rule for are left out: nothing follows from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedHeaders(Arc<Vec<usize>>);

impl TrustedHeaders {
    /// Adds the header with this name; false if there is no rule for it.
    pub fn add(&mut self, name: &[u8]) -> Result<bool, DirectiveError> {
        if !is_header_name(name) {
            return Err(DirectiveError::HeaderName(readable(name)));
        }
        let Some(at) = rule_of(name) else { return Ok(false) };
        Arc::make_mut(&mut self.0).push(at);
        Ok(true)
    }

    /// The places in [`RULES`], in the order of the directive.
    pub fn places(&self) -> &[usize] {
        &self.0
    }
}

/// Whether the name can be told from every other once it is a key.
fn is_header_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// `WSGITrustedProxies`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<Vec<Network>>);

impl TrustedProxies {
    /// Adds an address or a subnet.
    pub fn add(&mut self, word: &[u8]) -> Result<(), DirectiveError> {
        let network = Network::read(word)
            .map_err(|wanted| DirectiveError::Network { found: readable(word), wanted })?;
        Arc::make_mut(&mut self.0).push(network);
        Ok(())
    }

    /// Whether `text` is the address of a trusted proxy.  Only addresses are
    /// read: a name would have the client choose what is looked up.
    pub fn trust(&self, text: &[u8]) -> bool {
        let address = str::from_utf8(text).ok().and_then(|text| text.parse::<IpAddr>().ok());
        address.is_some_and(|address| self.0.iter().any(|network| network.contains(address)))
    }
}

/// An address or a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    /// Address and mask.
    V4(u32, u32),
    /// Address and mask.
    V6(u128, u128),
}

/// What an address must look like.
const ADDRESS: &str = "an IP address or subnet, such as 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32";

/// What may stand behind the slash of an IPv4 address.
const MASK_V4: &str = "a mask of 1 to 32 bits or such as 255.255.0.0 behind the slash; \
                       to trust every peer, leave the directive out";

/// What may stand behind the slash of an IPv6 address.
const MASK_V6: &str = "a mask of 1 to 128 bits behind the slash; \
                       to trust every peer, leave the directive out";

/// What is to be written in the place of an IPv4 address in IPv6's clothes.
const MAPPED: &str = "the IPv4 address itself, which stands for its IPv6 form too";

impl Network {
    /// Reads an address or a subnet; an error is what was wanted.
    fn read(word: &[u8]) -> Result<Self, &'static str> {
        let word = str::from_utf8(word).map_err(|_| ADDRESS)?;
        let Some((address, mask)) = word.split_once('/') else {
            return match word.parse::<Ipv6Addr>() {
                Ok(address) => Self::v6(address, u128::MAX),
                Err(_) => Self::read_octets(word).ok_or(ADDRESS),
            };
        };
        match address.parse().map_err(|_| ADDRESS)? {
            IpAddr::V4(address) => {
                let bits = read_bits(mask, 32).map(|bits| u32::MAX << (32 - bits));
                let mask = bits.or_else(|| mask.parse().ok().map(Ipv4Addr::to_bits));
                let mask = mask.ok_or(MASK_V4)?;
                Ok(Self::V4(address.to_bits() & mask, mask))
            }
            IpAddr::V6(address) => {
                let bits = read_bits(mask, 128).ok_or(MASK_V6)?;
                Self::v6(address, u128::MAX << (128 - bits))
            }
        }
    }

    /// An IPv6 subnet, unless it stands for an IPv4 one.
    fn v6(address: Ipv6Addr, mask: u128) -> Result<Self, &'static str> {
        match address.to_ipv4_mapped() {
            Some(_) => Err(MAPPED),
            None => Ok(Self::V6(address.to_bits() & mask, mask)),
        }
    }

    /// Reads the first octets of an IPv4 address: `10.1` is `10.1.0.0/16`, as
    /// everywhere in httpd.
    fn read_octets(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let (mut address, mut mask) = (0, 0);
        for (at, octet) in text.split('.').enumerate() {
            let is_number = !octet.is_empty() && octet.bytes().all(|byte| byte.is_ascii_digit());
            let octet = octet.parse::<u8>().ok().filter(|_| is_number)?;
            let shift = 24_u32.checked_sub(8 * u32::try_from(at).ok()?)?;
            address |= u32::from(octet) << shift;
            mask |= 0xff << shift;
        }
        Some(Self::V4(address, mask))
    }

    /// Whether the address is in it.
    fn contains(self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Self::V4(network, mask), IpAddr::V4(address)) => address.to_bits() & mask == network,
            (Self::V6(network, mask), IpAddr::V6(address)) => address.to_bits() & mask == network,
            _ => false,
        }
    }
}

/// Reads a number of bits from 1 to `most`.
fn read_bits(text: &str, most: u32) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|bits| is_number && (1..=most).contains(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proxies(words: &[&str]) -> TrustedProxies {
        let mut proxies = TrustedProxies::default();
        for word in words {
            proxies.add(word.as_bytes()).unwrap();
        }
        proxies
    }

    fn refusal(word: &str) -> String {
        TrustedProxies::default().add(word.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn no_two_rules_are_about_one_header() {
        for (at, rule) in RULES.iter().enumerate() {
            assert_eq!(rule_of(rule.key), Some(at));
        }
        assert_eq!(rule_of(b"x-forwarded-For"), Some(0));
        assert_eq!(rule_of(b"X-Forwarded"), None);
    }

    #[test]
    fn a_name_that_another_could_pass_for_is_refused() {
        for name in ["X_Bad", "X Bad", "", "X-For,X-By", "Ünï", "X-For\n"] {
            let refusal = TrustedHeaders::default().add(name.as_bytes()).unwrap_err().to_string();
            assert!(refusal.contains(&format!("'{name}'")), "{refusal}");
        }
    }

    #[test]
    fn names_there_is_no_rule_for_are_left_out() {
        let mut headers = TrustedHeaders::default();
        assert_eq!(headers.add(b"Forwarded"), Ok(false));
        assert_eq!(headers.add(b"x-https"), Ok(true));
        assert_eq!(headers.add(b"X-Real-IP"), Ok(true));
        assert_eq!(headers.places(), [14, 2]);
    }

    #[test]
    fn addresses_match_themselves_only() {
        let proxies = proxies(&["192.0.2.1", "2001:db8::1"]);
        assert!(proxies.trust(b"192.0.2.1") && proxies.trust(b"2001:db8:0::1"));
        assert!(!proxies.trust(b"192.0.2.2") && !proxies.trust(b"2001:db8::2"));
    }

    #[test]
    fn subnets_match_what_is_in_them() {
        let proxies =
            proxies(&["10.1.2.3/8", "172.16.0.0/255.240.0.0", "192.168.", "2001:db8::/33"]);
        for inside in ["10.255.0.1", "172.31.255.255", "192.168.7.7", "2001:db8:7fff::"] {
            assert!(proxies.trust(inside.as_bytes()), "{inside}");
        }
        for outside in ["11.0.0.1", "172.32.0.0", "192.169.0.1", "2001:db8:8000::"] {
            assert!(!proxies.trust(outside.as_bytes()), "{outside}");
        }
    }

    #[test]
    fn an_ipv4_address_is_the_same_in_ipv6_clothes() {
        assert!(proxies(&["10.0.0.0/8"]).trust(b"::ffff:10.1.1.1"));
        assert!(!proxies(&["::/1"]).trust(b"10.1.1.1"));
        assert!(refusal("::ffff:10.0.0.1").contains("IPv4"));
    }

    #[test]
    fn what_is_no_address_is_not_trusted() {
        let all = proxies(&["0.0.0.0/0.0.0.0", "::/1", "8000::/1"]);
        assert!(all.trust(b"1.2.3.4") && all.trust(b"fe80::1"));
        for text in ["", "localhost", "10.1", "10.0.0.1:80", "[::1]", "010.0.0.1", "fe80::1%lo"] {
            assert!(!all.trust(text.as_bytes()), "{text}");
        }
        assert!(!all.trust(b"\xff"));
    }

    #[test]
    fn what_is_no_network_is_refused_and_quoted() {
        for word in [
            "",
            "/",
            "/8",
            "localhost",
            "256.1.1.1",
            "1.2.3.4.5",
            "1..2",
            "10.1/16",
            "10.0.0.0/",
            "10.0.0.0/0",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "1:2",
            "::1/0",
            "::1/129",
            "fe80::1%lo",
            "10.0.0.1,10.0.0.2",
            "::ffff:a00:1/104",
        ] {
            assert!(refusal(word).contains(&format!("'{word}'")), "{word}");
        }
    }

    proptest! {
        #[test]
        fn a_subnet_holds_what_begins_with_its_bits(a: u32, b: u32, bits in 1_u32..=32) {
            let word = format!("{}/{bits}", Ipv4Addr::from_bits(a));
            let is_inside = (a ^ b).leading_zeros() >= bits;
            prop_assert_eq!(proxies(&[&word]).trust(Ipv4Addr::from_bits(b).to_string().as_bytes()), is_inside);
        }

        #[test]
        fn likewise_with_ipv6(a: u128, bits in 1_u32..=128, flipped in 0_u32..128) {
            // An address that stands for an IPv4 one has its rules.
            let (a, b) = (a | 1 << 127, (a | 1 << 127) ^ 1 << flipped);
            let word = format!("{}/{bits}", Ipv6Addr::from_bits(a));
            let is_inside = 127 - flipped >= bits;
            prop_assert_eq!(proxies(&[&word]).trust(Ipv6Addr::from_bits(b).to_string().as_bytes()), is_inside);
        }

        #[test]
        fn no_word_makes_it_panic(word in "\\PC*", text: Vec<u8>) {
            let mut proxies = TrustedProxies::default();
            let _ = proxies.add(word.as_bytes());
            proxies.trust(&text);
        }
    }
}
