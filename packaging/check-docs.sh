#!/bin/sh
# Compares documents with the source: each log code has its entry and each entry
# its code, and links between documents lead somewhere.
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

for page in ./*.md docs/*.md docs/*/*.md examples/*.md; do
    [ -e "$page" ] || continue
    grep -oE '\]\([^)#: ]+[)#]' "$page" | sed 's/^..//; s/.$//' | while read -r link; do
        [ -e "$(dirname "$page")/$link" ] || echo "$page -> $link"
    done
done >"$work/wrong"
complain "links that lead nowhere"

[ $status = 0 ] && echo "$(wc -l <"$work/used") codes, all explained; links lead somewhere"
exit $status
