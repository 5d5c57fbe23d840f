#!/bin/sh
# Installs what building, testing and the demo need and the machine lacks.
# Rust and make are taken as given.  `deps.sh bench` adds what the benchmark needs.
set -eu

purpose=${1:-build}

have() { PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

# Prints nothing if everything is there, else one word per missing thing.
missing() {
    have_apxs || echo apxs
    have apache2 || have httpd || echo httpd
    have cc || echo cc
    have curl || echo curl
    have httxt2dbm || echo httxt2dbm
    have strace || echo strace
    have valgrind || echo valgrind
    have_libclang || echo libclang
    have_python || echo python
    if [ "$purpose" = bench ]; then
        have wrk || echo wrk
        have_python_headers || echo python-headers
    fi
}

have_apxs() {
    if [ -n "${APXS:-}" ]; then
        have "$APXS"
    else
        have apxs || have apxs2
    fi
}

have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    for file in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib*/libclang*.so* \
        /usr/lib/*-linux-gnu/libclang*.so* /usr/lib*/llvm*/lib*/libclang*.so*; do
        [ -e "$file" ] && return 0
    done
    return 1
}

# A Python with a shared library that can make virtual environments: the
# examples know how to look for one.
have_python() {
    have python3 && (cd "$(dirname "$0")/../examples" && python3 -B -c '
import machine
machine.choose_python()
' 2>/dev/null)
}

have_python_headers() {
    (cd "$(dirname "$0")/../examples" && python3 -B -c '
import machine, subprocess
chosen = machine.choose_python().executable
ask = "import os, sysconfig; print(os.path.exists(sysconfig.get_config_h_filename()))"
raise SystemExit(subprocess.check_output([chosen, "-c", ask]).strip() != b"True")
' 2>/dev/null)
}

lacking=$(missing | tr '\n' ' ')
[ -n "$lacking" ] || exit 0

# The bare httpd: the full package would start a server of its own on port 80.
if have apt-get; then
    packages="apache2-bin apache2-dev apache2-utils libclang-dev gcc libc6-dev curl strace valgrind"
    packages="$packages python3 python3-venv libpython3-dev"
    [ "$purpose" = bench ] && packages="$packages wrk python3-dev"
    install="env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"
    refresh="apt-get update -q"
elif have dnf; then
    packages="httpd-core httpd-devel httpd-tools clang-devel gcc redhat-rpm-config curl strace valgrind"
    packages="$packages python3 python3-libs python3-pip"
    [ "$purpose" = bench ] && packages="$packages wrk python3-devel"
    install="dnf install -y"
    refresh=true
else
    echo "make deps: missing: ${lacking}- and neither apt-get nor dnf is here to install it." >&2
    echo "Needed: httpd 2.4 with its headers, tools and apxs, libclang, a C compiler, curl," >&2
    echo "and Python 3.10-3.13 with a shared library and the venv module." >&2
    exit 1
fi

if [ "$(id -u)" = 0 ]; then
    as_root=
elif have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    as_root=sudo
else
    echo "make deps: missing: ${lacking}" >&2
    echo "This needs root, and there is no root and no sudo here.  It would run:" >&2
    echo "    $refresh" >&2
    echo "    $install $packages" >&2
    exit 1
fi

echo "make deps: missing: ${lacking}- installing $packages"
# Word splitting is meant: each variable holds a command or a list.
# shellcheck disable=SC2086
$as_root $refresh
# shellcheck disable=SC2086
$as_root $install $packages

lacking=$(missing | tr '\n' ' ')
if [ -n "$lacking" ]; then
    echo "make deps: still missing after the installation: $lacking" >&2
    exit 1
fi
