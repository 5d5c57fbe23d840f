#!/bin/sh
# Each library exports its one entry point and nothing else: what one module
# exports, httpd would offer to all others.
set -eu

folder=$1
status=0

check() {
    found=$(nm -D --defined-only "$folder/$1" | awk '{ print $3 }' | sed 's/@.*//' | sort | tr '\n' ' ')
    if [ "$found" = "$2 " ]; then
        echo "$1 exports $2"
    else
        echo "$1 should export only $2, but exports: $found" >&2
        status=1
    fi
}

check mod_wsgi_rs.so wsgi_module
for library in "$folder"/wsgi_python.*.so; do
    check "${library##*/}" wsgi_python_runtime
done

# An undefined Python symbol in the Apache half would keep httpd from loading it.
if nm -D --undefined-only "$folder/mod_wsgi_rs.so" | grep -E ' _?Py[A-Z_]' >&2; then
    echo "mod_wsgi_rs.so must not need Python" >&2
    status=1
fi
exit $status
