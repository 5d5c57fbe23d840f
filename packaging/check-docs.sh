#!/bin/sh
# Compares documents with the source: each log code has its entry and each entry
# its code, each directive and each name of the module `mod_wsgi` has its tests,
# the tests that documents name are there, and links lead somewhere.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

# Comments use codes as examples.
grep -rhE 'WSGI[0-9]{4}' src --include='*.rs' --include='*.py' | grep -vE '^[[:space:]]*//' |
    grep -oE 'WSGI[0-9]{4}' | sort -u >"$work/used"
grep -oE '^### WSGI[0-9]{4}' docs/error-reference.md | cut -c5- | sort >"$work/explained"
sort -u "$work/explained" >"$work/distinct"

complain() {
    if [ -s "$work/wrong" ]; then
        echo "$1: $(tr '\n' ' ' <"$work/wrong")" >&2
        status=1
    fi
}

comm -23 "$work/used" "$work/distinct" >"$work/wrong"
complain "codes in src/ without an entry in docs/error-reference.md"
comm -13 "$work/used" "$work/distinct" >"$work/wrong"
complain "entries in docs/error-reference.md for codes that src/ does not have"
uniq -d "$work/explained" >"$work/wrong"
complain "codes explained twice"

grep -oE '^ *Directive::[a-z0-9]+\( *c"<?WSGI[A-Za-z]+' src/config/directives.rs |
    grep -oE 'WSGI[A-Za-z]+$' | sort >"$work/directives"
grep -oE '^\| `<?WSGI[A-Za-z]+' docs/coverage.md | grep -oE 'WSGI[A-Za-z]+' | sort >"$work/tried"
comm -23 "$work/directives" "$work/tried" >"$work/wrong"
complain "directives without a row in docs/coverage.md"
comm -13 "$work/directives" "$work/tried" >"$work/wrong"
complain "rows of docs/coverage.md for directives that are not there"

sed -nE 's/^(def |class )?([a-z][A-Za-z_]*|[A-Z][A-Za-z]+)[:(].*/\2/p' docs/mod_wsgi.pyi | sort -u |
    while read -r name; do
        grep -qE "^\|.*\`$name\`.*\|.*\|" docs/coverage.md || echo "$name"
    done >"$work/wrong"
complain "names of docs/mod_wsgi.pyi without a row in docs/coverage.md"

# A test is named by its file and its function, `file::function`.
grep -ohE '`[a-z_0-9]+::[a-z_0-9]+`' docs/coverage.md docs/parity.md docs/wsgi.md | tr -d '`' |
    sort -u | while read -r name; do
        for file in tests/httpd/"${name%%::*}".rs tests/httpd/"${name%%::*}"/*.rs; do
            [ -e "$file" ] && cat "$file"
        done | grep -qE "^(pub )?(fn|mod) ${name##*::}\b" || echo "$name"
    done >"$work/wrong"
complain "tests that documents name and that are not there"

for page in ./*.md docs/*.md docs/*/*.md examples/*.md; do
    [ -e "$page" ] || continue
    grep -oE '\]\([^)#: ]+[)#]' "$page" | sed 's/^..//; s/.$//' | while read -r link; do
        [ -e "$(dirname "$page")/$link" ] || echo "$page -> $link"
    done
done >"$work/wrong"
complain "links that lead nowhere"

[ $status = 0 ] && echo "$(wc -l <"$work/used") codes, all explained; links lead somewhere"
exit $status
