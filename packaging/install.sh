#!/bin/sh
# Installs or uninstalls the module the way the platform keeps its modules.
#
#   install.sh install FOLDER     FOLDER holds the built libraries
#   install.sh uninstall
#
# DESTDIR, when set, is put before every path, and nothing is enabled: packagers
# do that in their own scripts.  APXS and MODULESDIR override what is found.
set -eu

action=$1
built=${2:-}
destdir=${DESTDIR:-}
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

apxs=${APXS:-$(command -v apxs || command -v apxs2 || true)}
if [ -z "$apxs" ]; then
    echo "install: no apxs: install apache2-dev or httpd-devel, or name it with APXS=" >&2
    exit 1
fi
modules=${MODULESDIR:-$("$apxs" -q LIBEXECDIR)}
settings=$("$apxs" -q SYSCONFDIR)

# Where the LoadModule line goes.
if [ "$settings" = /etc/apache2 ] && [ -e /etc/debian_version ]; then
    style=debian
    load=/etc/apache2/mods-available/wsgi_rs.load
elif [ "${settings#/etc/httpd}" != "$settings" ]; then
    style=conf.modules.d
    load=/etc/httpd/conf.modules.d/10-wsgi_rs.conf
else
    style=by-hand
    load=$settings/wsgi_rs.conf
fi

install_all() {
    install -d "$destdir$modules" "$destdir$(dirname "$load")"
    # Beside and renamed: a running httpd keeps the file it has mapped.
    for library in "$built/mod_wsgi_rs.so" "$built"/wsgi_python.*.so; do
        library=${library##*/}
        install -m 644 "$built/$library" "$destdir$modules/$library.new"
        mv "$destdir$modules/$library.new" "$destdir$modules/$library"
        echo "installed $destdir$modules/$library"
    done
    sed "s|@MODULES@|$modules|" "$here/wsgi_rs.load.in" >"$destdir$load.new"
    chmod 644 "$destdir$load.new"
    mv "$destdir$load.new" "$destdir$load"
    echo "installed $destdir$load"
}

enable() {
    case $style in
    debian)
        if [ -z "$destdir" ] && command -v a2enmod >/dev/null; then
            if [ -e /etc/apache2/mods-enabled/wsgi.load ]; then
                echo "The module 'wsgi' (mod_wsgi) is enabled and has the same directives:"
                echo "    a2dismod wsgi && a2enmod wsgi_rs"
            else
                a2enmod wsgi_rs
            fi
        elif [ -n "$destdir" ]; then
            echo "To enable it where it will be installed: a2enmod wsgi_rs"
        else
            echo "To enable it: apt install apache2, then a2enmod wsgi_rs"
        fi
        ;;
    conf.modules.d) echo "httpd loads it from there; a mod_wsgi beside it has to be removed first." ;;
    by-hand) echo "To enable it, add to httpd.conf: Include $load" ;;
    esac
    echo "Then check and restart: apachectl configtest && apachectl restart"
}

uninstall_all() {
    if [ "$style" = debian ] && [ -z "$destdir" ] && [ -e /etc/apache2/mods-enabled/wsgi_rs.load ]
    then
        a2dismod -f wsgi_rs
    fi
    rm -f "$destdir$load" "$destdir$modules/mod_wsgi_rs.so" "$destdir$modules"/wsgi_python.*.so
    echo "removed mod_wsgi_rs.so, the libraries wsgi_python.*.so and $destdir$load"
}

case $action in
install)
    # Not joined by &&: that would have the shell go on after a step that failed.
    install_all
    enable
    ;;
uninstall) uninstall_all ;;
*) echo "usage: install.sh install FOLDER | uninstall" >&2 && exit 2 ;;
esac
