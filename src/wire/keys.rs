//! The environ keys that travel as numbers: both sides know them by heart, so
//! the Python half interns each once per interpreter instead of once per request.
#![forbid(unsafe_code)]

/// Every well-known key; its number is its place, counted from 1.
///
/// 0 stands for a key that is spelled out.  New ones go to the end, and
/// [`ABI`](crate::vtable::ABI) is raised.
#[rustfmt::skip]
pub static KEYS: [&str; 78] = [
    // PEP 3333 and RFC 3875.
    "REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE",
    "CONTENT_LENGTH", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "REMOTE_ADDR",
    "REMOTE_USER", "AUTH_TYPE",
    // httpd's additions.
    "REMOTE_PORT", "SERVER_ADDR", "SERVER_SOFTWARE", "SERVER_ADMIN", "DOCUMENT_ROOT",
    "CONTEXT_PREFIX", "CONTEXT_DOCUMENT_ROOT", "REQUEST_SCHEME", "REQUEST_URI",
    "SCRIPT_FILENAME", "REDIRECT_URL", "REDIRECT_QUERY_STRING", "REDIRECT_STATUS",
    "REDIRECT_REMOTE_USER", "UNIQUE_ID",
    // mod_wsgi's.
    "mod_wsgi.process_group", "mod_wsgi.application_group", "mod_wsgi.callable_object",
    "mod_wsgi.request_handler", "mod_wsgi.handler_script", "mod_wsgi.script_name",
    "mod_wsgi.path_info", "mod_wsgi.mount_point", "mod_wsgi.listener_host",
    "mod_wsgi.listener_port", "mod_wsgi.server_pid", "mod_wsgi.request_id",
    "mod_wsgi.connection_id",
    // Request headers that browsers, proxies and API clients send.
    "HTTP_HOST", "HTTP_USER_AGENT", "HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING",
    "HTTP_ACCEPT_LANGUAGE", "HTTP_CONNECTION", "HTTP_COOKIE", "HTTP_REFERER",
    "HTTP_CACHE_CONTROL", "HTTP_PRAGMA", "HTTP_UPGRADE_INSECURE_REQUESTS", "HTTP_ORIGIN",
    "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_RANGE", "HTTP_AUTHORIZATION",
    "HTTP_X_REQUESTED_WITH", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PORT", "HTTP_X_REAL_IP", "HTTP_DNT",
    "HTTP_SEC_FETCH_SITE", "HTTP_SEC_FETCH_MODE", "HTTP_SEC_FETCH_USER",
    "HTTP_SEC_FETCH_DEST", "HTTP_SEC_CH_UA", "HTTP_SEC_CH_UA_MOBILE",
    "HTTP_SEC_CH_UA_PLATFORM", "HTTP_TE", "HTTP_EXPECT", "HTTP_KEEP_ALIVE", "HTTP_PRIORITY",
    "HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REQUEST_ID", "HTTP_X_CSRFTOKEN",
];

/// Size of [`PLACES`]: three times the keys, so that few of them collide.
const SLOTS: usize = 256;

/// The number of each key at the first free place from its [`hash`] on.
static PLACES: [u8; SLOTS] = places();

/// Where the search for `key` begins; the bytes looked at differ in most keys.
const fn hash(key: &[u8]) -> usize {
    let length = key.len();
    let mut sum = length * 7;
    let mut at = 0;
    while at < 4 {
        // From the end: the beginnings are alike.
        sum = sum.wrapping_mul(31).wrapping_add(key[length - 1 - at * (length - 1) / 4] as usize);
        at += 1;
    }
    (sum ^ (sum >> 8)) % SLOTS
}

/// Builds [`PLACES`].
const fn places() -> [u8; SLOTS] {
    let mut places = [0; SLOTS];
    let mut at = 0;
    while at < KEYS.len() {
        let mut slot = hash(KEYS[at].as_bytes());
        while places[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        places[slot] = at as u8 + 1;
        at += 1;
    }
    places
}

/// The number of `key`, or 0.
pub fn number(key: &[u8]) -> u16 {
    if key.is_empty() {
        return 0;
    }
    let mut slot = hash(key);
    loop {
        // There are more slots than keys, so an empty one ends every search.
        match PLACES[slot] {
            0 => return 0,
            number if KEYS[usize::from(number) - 1].as_bytes() == key => return u16::from(number),
            _ => slot = (slot + 1) % SLOTS,
        }
    }
}

/// The number of a well-known key, found when it is compiled; another key does not
/// compile.
pub const fn known(key: &str) -> u16 {
    let mut at = 0;
    while at < KEYS.len() {
        if is_same(KEYS[at].as_bytes(), key.as_bytes()) {
            return at as u16 + 1;
        }
        at += 1;
    }
    panic!("not a well-known key")
}

/// Whether two texts are the same, at compile time.
const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The key with this number.
pub fn name(number: u16) -> Option<&'static str> {
    KEYS.get(usize::from(number).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_its_number_lead_to_each_other() {
        for key in KEYS {
            assert_eq!(name(number(key.as_bytes())), Some(key));
            assert_eq!(known(key), number(key.as_bytes()));
        }
        assert_eq!(number(b"HTTP_X_UNHEARD_OF"), 0);
        assert_eq!(number(b""), 0);
        assert_eq!(number(b"X"), 0);
        assert_eq!(name(0), None);
        assert_eq!(name(KEYS.len() as u16 + 1), None);
    }
}
