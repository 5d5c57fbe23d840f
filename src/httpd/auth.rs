//! What httpd asks before it serves a resource: the access hook, and providers of users
//! and of groups.
//!
//! A script may decide by the URL.  So all of it is registered as depending on that, and
//! httpd asks again for subrequests and internal redirects wherever it merges sections
//! anew for them; where it does not, it asks nobody.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;

use super::guard::{guard, guard_for};
use super::hook::{Names, Outcome};
use super::pool::Pool;
use super::request::Request;
use super::text;
use crate::config::option::Arguments;
use crate::ffi;

/// Says who may see a resource, whoever he is.
pub trait CheckAccess {
    /// `Ok` lets him, `Declined` leaves it to others.
    fn check_access(request: &Request) -> Outcome;
}

/// What a provider of users says to a name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// They belong together; the user may be called something else from here on.
    Good(Option<Vec<u8>>),
    /// They do not.
    Bad,
    /// There is no such user.
    Unknown,
    /// It cannot say.
    Failed,
}

/// What a provider of users has of one for Digest authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RealmHash {
    /// The hash of name, realm and password.
    Known(Vec<u8>),
    /// There is no such user.
    Unknown,
    /// It cannot say.
    Failed,
}

/// Knows users.
pub trait Users {
    /// Whether the password is that of the user.
    fn check_password(request: &Request, user: &[u8], password: &[u8]) -> Credentials;
    /// What his password is checked against.
    fn realm_hash(request: &Request, user: &[u8], realm: &[u8]) -> RealmHash;
}

/// What a provider of groups says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// The user is in one of them.
    Member,
    /// He is in none.
    Stranger,
    /// Nobody knows who he is yet.
    Nobody,
    /// It cannot say: denied, also where `Require not` would let strangers pass.
    Failed,
}

/// Knows groups.
pub trait Groups {
    /// Whether the user is in one of the groups that a `Require` line names.
    fn check_groups(request: &Request, line: &[u8]) -> Membership;
}

/// mod_ssl decides first whether the client may be here at all.
static BEFORE_US: Names<2> = Names([c"mod_ssl.c".as_ptr(), ptr::null()]);

/// A script may know better than a list of addresses.
static AFTER_US: Names<2> = Names([c"mod_authz_host.c".as_ptr(), ptr::null()]);

/// Joins `H` to the hook that checks access.
pub fn check_access<H: CheckAccess>() {
    // SAFETY: called while httpd registers hooks; our shim fits the hook, and
    // the names are static.
    unsafe {
        ffi::ap_hook_check_access(
            Some(access::<H>),
            BEFORE_US.0.as_ptr(),
            AFTER_US.0.as_ptr(),
            ffi::APR_HOOK_MIDDLE,
            ffi::AP_AUTH_INTERNAL_PER_URI,
        );
    }
}

/// The records httpd keeps of a provider.
struct Record<P>(P);

impl<P: Users> Record<P> {
    /// Of users.
    const USERS: &'static ffi::authn_provider = &ffi::authn_provider {
        check_password: Some(check_password::<P>),
        get_realm_hash: Some(get_realm_hash::<P>),
    };
}

impl<P: Groups> Record<P> {
    /// Of groups.
    const GROUPS: &'static ffi::authz_provider = &ffi::authz_provider {
        check_authorization: Some(check_authorization::<P>),
        parse_require_line: Some(parse_require_line),
    };
}

/// Registers `P` as a provider of users, for `AuthBasicProvider` and the like.
pub fn provide_users<P: Users>(pool: &Pool, name: &'static CStr) {
    let (group, version) = (ffi::AUTHN_PROVIDER_GROUP, ffi::AUTHN_PROVIDER_VERSION);
    let record = ptr::from_ref(Record::<P>::USERS).cast();
    // SAFETY: what a provider of this group is to be.
    unsafe { register(pool, (group, version), name, record) };
}

/// Registers `P` as a provider of groups, for `Require`.
pub fn provide_groups<P: Groups>(pool: &Pool, name: &'static CStr) {
    let (group, version) = (ffi::AUTHZ_PROVIDER_GROUP, ffi::AUTHZ_PROVIDER_VERSION);
    let record = ptr::from_ref(Record::<P>::GROUPS).cast();
    // SAFETY: what a provider of this group is to be.
    unsafe { register(pool, (group, version), name, record) };
}

/// Registers a provider.
///
/// # Safety
///
/// `kind` is a group of providers and a version, both of httpd's strings; `record` is a
/// static of the type that httpd takes the providers of this group for.
unsafe fn register(pool: &Pool, kind: (&[u8], &[u8]), name: &'static CStr, record: *const c_void) {
    // SAFETY: called while httpd registers hooks, with the pool it gives for that; the
    // rest is the caller's promise.
    unsafe {
        ffi::ap_register_auth_provider(
            pool.as_ptr(),
            kind.0.as_ptr().cast(),
            name.as_ptr(),
            kind.1.as_ptr().cast(),
            record,
            ffi::AP_AUTH_INTERNAL_PER_URI,
        );
    }
}

/// # Safety
///
/// For httpd only, through the hook joined in [`check_access`].
unsafe extern "C" fn access<H: CheckAccess>(r: *mut ffi::request_rec) -> c_int {
    // SAFETY: httpd hands each hook a live request that no other thread uses
    // until the hook returns.
    let request = unsafe { Request::borrow(r) };
    guard_for(request, Outcome::Status(500), || H::check_access(request)).code()
}

/// # Safety
///
/// For httpd only, through a record of [`Record::USERS`].
unsafe extern "C" fn check_password<P: Users>(
    r: *mut ffi::request_rec,
    user: *const c_char,
    password: *const c_char,
) -> ffi::authn_status {
    // SAFETY: as in [`access`].
    let request = unsafe { Request::borrow(r) };
    // SAFETY: a string of the caller's, which lives during the call.
    let user = unsafe { text::bytes(user) }.unwrap_or_default();
    // SAFETY: as above.
    let password = unsafe { text::bytes(password) }.unwrap_or_default();
    let credentials =
        guard_for(request, Credentials::Failed, || P::check_password(request, user, password));
    match credentials {
        Credentials::Good(None) => ffi::AUTH_GRANTED,
        Credentials::Good(Some(name)) => {
            request.set_user(&name);
            ffi::AUTH_GRANTED
        }
        Credentials::Bad => ffi::AUTH_DENIED,
        Credentials::Unknown => ffi::AUTH_USER_NOT_FOUND,
        Credentials::Failed => ffi::AUTH_GENERAL_ERROR,
    }
}

/// # Safety
///
/// For httpd only, through a record of [`Record::USERS`].
unsafe extern "C" fn get_realm_hash<P: Users>(
    r: *mut ffi::request_rec,
    user: *const c_char,
    realm: *const c_char,
    hash: *mut *mut c_char,
) -> ffi::authn_status {
    // SAFETY: as in [`access`].
    let request = unsafe { Request::borrow(r) };
    // SAFETY: a string of the caller's, which lives during the call.
    let user = unsafe { text::bytes(user) }.unwrap_or_default();
    // SAFETY: as above.
    let realm = unsafe { text::bytes(realm) }.unwrap_or_default();
    match guard_for(request, RealmHash::Failed, || P::realm_hash(request, user, realm)) {
        RealmHash::Known(known) => {
            // SAFETY: the caller's place for the answer.
            unsafe { hash.write(request.pool().text(&known).cast_mut()) };
            ffi::AUTH_USER_FOUND
        }
        RealmHash::Unknown => ffi::AUTH_USER_NOT_FOUND,
        RealmHash::Failed => ffi::AUTH_GENERAL_ERROR,
    }
}

/// What httpd keeps of a `Require` line that lets members pass and nobody else.
static LETS_MEMBERS_PASS: u8 = 0;

/// # Safety
///
/// For httpd only, through a record of [`Record::GROUPS`].
unsafe extern "C" fn parse_require_line(
    cmd: *mut ffi::cmd_parms,
    _line: *const c_char,
    parsed: *mut *const c_void,
) -> *const c_char {
    guard((), || {
        // SAFETY: httpd's live record of the directive it reads.
        let directive = unsafe { (*cmd).directive };
        // SAFETY: null or in httpd's tree, which outlives the reading.
        if unsafe { lets_members_pass(directive) } {
            // SAFETY: the caller's place for the answer.
            unsafe { parsed.write((&raw const LETS_MEMBERS_PASS).cast()) };
        }
    });
    ptr::null()
}

/// Whether `directive` is a `Require` that nothing turns into its opposite.  Who uses an
/// `<AuthzProviderAlias>`, and how, is not known where that stands.
///
/// # Safety
///
/// Null or in httpd's tree of directives.
unsafe fn lets_members_pass(mut directive: *const ffi::ap_directive_t) -> bool {
    let mut is_line = true;
    // SAFETY: the caller's promise; what is above is in the tree, or null.
    while let Some(here) = unsafe { directive.as_ref() } {
        // SAFETY: strings in httpd's tree, or null.
        let name = unsafe { text::bytes(here.directive) }.unwrap_or_default();
        // SAFETY: as above.
        let line = unsafe { text::bytes(here.args) }.unwrap_or_default();
        let denies = match is_line {
            true => {
                let is_not = |word: Vec<u8>| word.eq_ignore_ascii_case(b"not");
                !name.eq_ignore_ascii_case(b"Require")
                    || Arguments::new(line).word().is_none_or(is_not)
            }
            false => name.eq_ignore_ascii_case(b"<RequireNone"),
        };
        if denies {
            return false;
        }
        is_line = false;
        directive = here.parent;
    }
    !is_line
}

/// # Safety
///
/// For httpd only, through a record of [`Record::GROUPS`].
unsafe extern "C" fn check_authorization<P: Groups>(
    r: *mut ffi::request_rec,
    line: *const c_char,
    parsed: *const c_void,
) -> ffi::authz_status {
    // SAFETY: as in [`access`].
    let request = unsafe { Request::borrow(r) };
    // SAFETY: a string of the caller's, which lives during the call.
    let line = unsafe { text::bytes(line) }.unwrap_or_default();
    match guard_for(request, Membership::Failed, || P::check_groups(request, line)) {
        Membership::Member => ffi::AUTHZ_GRANTED,
        Membership::Stranger => ffi::AUTHZ_DENIED,
        Membership::Nobody => ffi::AUTHZ_DENIED_NO_USER,
        Membership::Failed if parsed.is_null() => ffi::AUTHZ_GENERAL_ERROR,
        Membership::Failed => ffi::AUTHZ_DENIED,
    }
}

impl Request {
    /// Gives the authenticated user another name.
    fn set_user(&self, name: &[u8]) {
        let name = self.pool().text(name).cast_mut();
        // SAFETY: the request is live and this thread's.
        unsafe { (*self.as_ptr()).user = name };
    }

    /// The client's name, where `HostnameLookups` finds it.
    pub fn remote_host(&self) -> Option<&[u8]> {
        let r = self.as_ptr();
        // SAFETY: a borrowed request is live; the last argument may be null.
        let name = unsafe { ffi::ap_get_useragent_host(r, ffi::REMOTE_HOST, ptr::null_mut()) };
        self.string(name)
    }

    /// `ServerSignature` in HTML.
    pub fn server_signature(&self) -> &[u8] {
        // SAFETY: a borrowed request is live.
        self.string(unsafe { ffi::ap_psignature(c"".as_ptr(), self.as_ptr()) }).unwrap_or_default()
    }

    /// Whether somebody who is denied access may still show who he is (`Satisfy Any`).
    pub fn may_authenticate_instead(&self) -> bool {
        // SAFETY: a borrowed request is live.
        let satisfies = unsafe { ffi::ap_satisfies(self.as_ptr()) };
        // SAFETY: as above.
        satisfies == ffi::SATISFY_ANY && unsafe { ffi::ap_some_auth_required(self.as_ptr()) } != 0
    }

    /// What mod_ssl has for a variable; `None` without mod_ssl.
    pub fn tls_variable(&self, name: &[u8]) -> Option<&[u8]> {
        // SAFETY: the request is live, the name one of its strings.
        self.string(unsafe { ffi::wsgi_tls_variable(self.as_ptr(), self.pool().text(name)) })
    }

    /// The address of httpd's record, for C code of applications.
    pub const fn address(&self) -> *mut c_void {
        self.as_ptr().cast()
    }
}
