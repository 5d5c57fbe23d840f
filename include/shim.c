/* See shim.h. */
#include "shim.h"
#include "apr_hash.h"
#include "apr_optional.h"

#include <string.h>

APR_DECLARE_OPTIONAL_FN(int, ssl_is_https, (conn_rec *));

int wsgi_is_https(conn_rec *c)
{
    APR_OPTIONAL_FN_TYPE(ssl_is_https) *ask = APR_RETRIEVE_OPTIONAL_FN(ssl_is_https);

    return ask && ask(c);
}

APR_DECLARE_OPTIONAL_FN(char *, ssl_var_lookup,
                        (apr_pool_t *, server_rec *, conn_rec *, request_rec *, char *));

const char *wsgi_tls_variable(request_rec *r, const char *name)
{
    APR_OPTIONAL_FN_TYPE(ssl_var_lookup) *ask = APR_RETRIEVE_OPTIONAL_FN(ssl_var_lookup);

    return ask ? ask(r->pool, r->server, r->connection, r, (char *)name) : NULL;
}

void wsgi_brigade_append(apr_bucket_brigade *brigade, apr_bucket *bucket)
{
    APR_BRIGADE_INSERT_TAIL(brigade, bucket);
}

int wsgi_brigade_is_empty(apr_bucket_brigade *brigade)
{
    return APR_BRIGADE_EMPTY(brigade);
}

apr_bucket *wsgi_brigade_first(apr_bucket_brigade *brigade)
{
    return APR_BRIGADE_FIRST(brigade);
}

int wsgi_bucket_is_eos(const apr_bucket *bucket)
{
    return APR_BUCKET_IS_EOS(bucket);
}

int wsgi_brigade_error(const apr_bucket_brigade *brigade)
{
    apr_bucket *bucket;

    for (bucket = APR_BRIGADE_FIRST(brigade); bucket != APR_BRIGADE_SENTINEL(brigade);
         bucket = APR_BUCKET_NEXT(bucket)) {
        if (AP_BUCKET_IS_ERROR(bucket)) {
            return ((ap_bucket_error *)bucket->data)->status;
        }
    }
    return 0;
}

int wsgi_bucket_is_metadata(const apr_bucket *bucket)
{
    return APR_BUCKET_IS_METADATA(bucket);
}

apr_status_t wsgi_bucket_read(apr_bucket *bucket, const char **data, apr_size_t *length,
                              int block)
{
    return apr_bucket_read(bucket, data, length, block ? APR_BLOCK_READ : APR_NONBLOCK_READ);
}

void wsgi_bucket_delete(apr_bucket *bucket)
{
    apr_bucket_delete(bucket);
}

apr_status_t wsgi_bucket_split(apr_bucket *bucket, apr_size_t at)
{
    return apr_bucket_split(bucket, at);
}

int wsgi_status_is_eagain(apr_status_t status)
{
    return APR_STATUS_IS_EAGAIN(status);
}

int wsgi_status_is_timeup(apr_status_t status)
{
    return APR_STATUS_IS_TIMEUP(status) || APR_STATUS_IS_ETIMEDOUT(status);
}

int wsgi_aborted(const conn_rec *c)
{
    return c->aborted;
}

void wsgi_set_aborted(conn_rec *c)
{
    c->aborted = 1;
}

int wsgi_expecting_100(const request_rec *r)
{
    return r->expecting_100;
}

void wsgi_clear_expecting_100(request_rec *r)
{
    r->expecting_100 = 0;
}

int wsgi_eos_sent(const request_rec *r)
{
    return r->eos_sent;
}

const char *wsgi_worker_client(const worker_score *worker, apr_size_t *room)
{
#if AP_MODULE_MAGIC_AT_LEAST(20120211, 83)
    if (worker->client64[0]) {
        *room = sizeof(worker->client64);
        return worker->client64;
    }
#endif
    *room = sizeof(worker->client);
    return worker->client;
}

void wsgi_clear_eos_sent(request_rec *r)
{
    r->eos_sent = 0;
}

static const core_dir_config *core(const request_rec *r)
{
    return ap_get_core_module_config(r->per_dir_config);
}

int wsgi_cgi_pass_auth(const request_rec *r)
{
    return core(r)->cgi_pass_auth == AP_CGI_PASS_AUTH_ON;
}

int wsgi_qualify_redirect_url(const request_rec *r)
{
    return core(r)->qualify_redirect_url == AP_CORE_CONFIG_ON;
}

int wsgi_request_uri_is_current(const request_rec *r)
{
    const char *rule = NULL;

    if (core(r)->cgi_var_rules) {
        rule = apr_hash_get(core(r)->cgi_var_rules, "REQUEST_URI", APR_HASH_KEY_STRING);
    }
    return rule && !strcmp(rule, "current-uri");
}
