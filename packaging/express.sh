#!/bin/sh
# Gets the reference's command-line generator, PyPI's mod_wsgi, into target/express for
# tests/httpd/express.rs, which has its configuration trees run under our module: nothing is
# installed into the system.  Its own module comes along, to try the tests against.
set -eu

cd "$(dirname "$0")/.."
venv=$(pwd)/target/express/venv
requirement="mod_wsgi==6.1.1"

python=$(cd examples && python3 -B -c 'import machine; print(machine.choose_python().executable)')
[ "$(cat "$venv/made-for" 2>/dev/null)" != "$python $requirement" ] || exit 0

echo "make express: $requirement, into $venv"
rm -rf "$venv"
"$python" -m venv "$venv"
# It builds a module of its own, which needs apxs and Python's headers, and is bound to the
# library of the first python3.x-config on the path; one that pip kept may be bound to another.
PATH=$(dirname "$python"):$PATH
if ! "$venv/bin/pip" install -q --no-cache-dir --disable-pip-version-check "$requirement"; then
    echo "make express: $requirement is not to be had here: its tests do not run" >&2
    exit 0
fi
echo "$python $requirement" >"$venv/made-for"
