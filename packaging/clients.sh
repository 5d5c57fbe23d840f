#!/bin/sh
# Gets the software that the tests of tests/httpd/clients.rs serve, the clients that visit
# it, and what telemetry.rs decodes reports with, into target/clients: nothing is installed into the system.
# What cannot be had here is named, and its tests say that they do not run.
set -eu

cd "$(dirname "$0")/.."
clients=$(pwd)/target/clients
venv=$clients/venv
requirements="mercurial>=7,<8 WsgiDAV>=4.3,<5 Flask>=3.1,<3.2 httpbin>=0.10,<0.11 mod_wsgi-telemetry>=1.1,<1.2"

have() { command -v "$1" >/dev/null 2>&1; }

python=$(cd examples && python3 -B -c 'import machine; print(machine.choose_python().executable)')
if [ "$(cat "$venv/made-for" 2>/dev/null)" != "$python $requirements" ]; then
    echo "make clients: $requirements, into $venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    # Word splitting is meant: one requirement a word.
    # shellcheck disable=SC2086
    "$venv/bin/pip" install -q --disable-pip-version-check $requirements
    echo "$python $requirements" >"$venv/made-for"
fi

have git || echo "make clients: there is no git: its test does not run"

if ! have litmus && [ ! -x "$clients/debian/usr/bin/litmus" ]; then
    if have apt-get && have dpkg-deb; then
        echo "make clients: litmus, into $clients/debian"
        rm -rf "$clients/packages" "$clients/debian"
        mkdir -p "$clients/packages"
        if (cd "$clients/packages" && apt-get download -q litmus libneon27-gnutls); then
            for package in "$clients"/packages/*.deb; do
                dpkg-deb -x "$package" "$clients/debian"
            done
        else
            echo "make clients: litmus is not to be had: its test does not run"
        fi
    else
        echo "make clients: there is no litmus: its test does not run"
    fi
fi
