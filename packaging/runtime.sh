#!/bin/sh
# Builds the Python half for a Python that can do without its lock, beside the one that
# all ordinary Pythons share; does nothing for an ordinary one.
#
#   runtime.sh FOLDER PYTHON [OPTION...]    options for `cargo build`
#
# FOLDER holds the built libraries.  Their stable ABI is that of ordinary builds: one
# without a lock lays out its objects in another way.
set -eu

folder=$1
python=$2
shift 2

# "3 14 cpython-314t" of such a Python, nothing of an ordinary one.
ask='
import sys, sysconfig
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    major, minor = sys.version_info[:2]
    print(major, minor, f"cpython-{major}{minor}t")
'
# The default of the Makefile; the libraries for ordinary Pythons need none to be built.
if [ "$python" = python3 ] && ! command -v python3 >/dev/null; then
    exit 0
fi
if ! answer=$("$python" -c "$ask"); then
    echo "runtime: '$python' is no Python that can be asked which build it is" >&2
    exit 1
fi
[ -n "$answer" ] || exit 0
# shellcheck disable=SC2086 # Three words.
set -- $answer "$@"
major=$1 minor=$2 tag=$3
shift 3

if [ "$minor" -lt 13 ]; then
    echo "runtime: '$python' is too old: wanted 3.13 or newer" >&2
    exit 1
fi
# What we use of pyo3-ffi, which knows them from 3.14 on, is the same in 3.13.
known=$((minor < 14 ? 14 : minor))

here=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$here/target}/$tag
mkdir -p "$target"
sed "s/^version=.*/version=$major.$known/" "$here/packaging/free-threaded.pyo3" >"$target/pyo3.new"
# A newer file has everything built again.
cmp -s "$target/pyo3.new" "$target/pyo3" || mv "$target/pyo3.new" "$target/pyo3"
rm -f "$target/pyo3.new"

profile=debug
for option in "$@"; do
    [ "$option" != --release ] || profile=release
done
cd "$here"
PYO3_CONFIG_FILE=$target/pyo3 "${CARGO:-cargo}" build --package wsgi_python \
    --target-dir "$target" "$@"
library=$folder/wsgi_python.$tag.so
# Beside and renamed: a running process keeps the file it has mapped.
install -m 644 "$target/$profile/libwsgi_python.so" "$library.new"
mv "$library.new" "$library"
echo "built $library"
