#!/bin/sh
# Builds a CPython that can do without its lock from Debian's source packages: Debian has
# no such build.  For whoever wants to try one; nothing else needs it.
#
#   free-threaded.sh [PARENT]     it is installed in PARENT/python3.Xt; default: /opt
#
# The system's own package sources are left alone.  Needs apt, dpkg-dev and a C compiler;
# libssl-dev, libffi-dev, zlib1g-dev and the like decide which modules it has.
set -eu

parent=${1:-/opt}
# What is old enough may still be had when newer ones are not.
packages="python3.14 python3.13"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -m 1 '/debian/*$' || true)
if [ -z "$mirror" ] || [ ! -e "$keyring" ]; then
    echo "free-threaded: this is no Debian whose sources could be asked" >&2
    exit 1
fi
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/source"
cat >"$work/sid.sources" <<END
Types: deb-src
URIs: $mirror
Suites: sid testing stable
Components: main
Signed-By: $keyring
END

ask_apt() {
    program=$1
    shift
    "$program" -q -o "Dir::Etc::sourcelist=$work/sid.sources" -o Dir::Etc::sourceparts=- \
        -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" \
        -o APT::Sandbox::User=root "$@"
}

ask_apt apt-get update >/dev/null
found=
for package in $packages; do
    versions=$(ask_apt apt-cache showsrc --only-source "$package" | sed -n 's/^Version: //p' | sort -Vru)
    for version in $versions; do
        if (cd "$work" && ask_apt apt-get source --download-only "$package=$version") >/dev/null 2>&1
        then
            found=$package
            break 2
        fi
        echo "free-threaded: $package $version cannot be had"
    done
done
if [ -z "$found" ]; then
    echo "free-threaded: no source of $packages can be had" >&2
    exit 1
fi

prefix=$parent/${found}t
echo "free-threaded: building $found $version in $prefix"
for file in "$work/${found}"_*.orig.tar.*; do
    # A signature may lie beside it.
    [ "${file%.asc}" != "$file" ] || tar -xf "$file" -C "$work/source" --strip-components=1
done
cd "$work/source"
./configure --quiet --disable-gil --enable-shared --prefix="$prefix" \
    LDFLAGS="-Wl,-rpath,$prefix/lib" >/dev/null
make --silent -j"$(nproc)" >/dev/null 2>"$work/complaints" || { tail -20 "$work/complaints" >&2; exit 1; }
make --silent install >/dev/null 2>&1
"$prefix/bin/${found}t" -VV
echo "free-threaded: now make PYTHON=$prefix/bin/${found}t"
