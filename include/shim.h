/* Macros of httpd and APR that bindgen cannot translate, as functions. */
#ifndef WSGI_SHIM_H
#define WSGI_SHIM_H

#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_protocol.h"
#include "apr_buckets.h"
#include "scoreboard.h"

/* Expressions of enum constants and casts. */
enum {
    WSGI_GLOBAL_ONLY = GLOBAL_ONLY,
    WSGI_NOT_IN_HTACCESS = NOT_IN_HTACCESS,
    WSGI_ACCEPT_PATHINFO_OFF = AP_REQ_REJECT_PATH_INFO
};

/* Whether mod_ssl, if it is loaded, says that `c` uses TLS. */
int wsgi_is_https(conn_rec *c);

/* What mod_ssl, if it is loaded, has for the variable `name`; else null. */
const char *wsgi_tls_variable(request_rec *r, const char *name);

/* The bucket macros walk rings. */
void wsgi_brigade_append(apr_bucket_brigade *brigade, apr_bucket *bucket);
int wsgi_brigade_is_empty(apr_bucket_brigade *brigade);
apr_bucket *wsgi_brigade_first(apr_bucket_brigade *brigade);
int wsgi_bucket_is_eos(const apr_bucket *bucket);
/* The status in the first error bucket; 0 if there is none. */
int wsgi_brigade_error(const apr_bucket_brigade *brigade);
int wsgi_bucket_is_metadata(const apr_bucket *bucket);
apr_status_t wsgi_bucket_read(apr_bucket *bucket, const char **data, apr_size_t *length,
                              int block);
void wsgi_bucket_delete(apr_bucket *bucket);
apr_status_t wsgi_bucket_split(apr_bucket *bucket, apr_size_t at);

/* APR_STATUS_IS_*. */
int wsgi_status_is_eagain(apr_status_t status);
int wsgi_status_is_timeup(apr_status_t status);

/* Fields that are bits in some versions of httpd and numbers in others. */
int wsgi_aborted(const conn_rec *c);
void wsgi_set_aborted(conn_rec *c);
int wsgi_expecting_100(const request_rec *r);
void wsgi_clear_expecting_100(request_rec *r);
int wsgi_eos_sent(const request_rec *r);
void wsgi_clear_eos_sent(request_rec *r);

/* The client of a worker; an older httpd has but room for an IPv4 address. */
const char *wsgi_worker_client(const worker_score *worker, apr_size_t *room);

/* Bits of core's per-directory record. */
int wsgi_cgi_pass_auth(const request_rec *r);
int wsgi_qualify_redirect_url(const request_rec *r);
int wsgi_request_uri_is_current(const request_rec *r);

#endif
