#!/usr/bin/env bash
# Fetches Debian's `debian-handbook` (GPL-2+ or CC-BY-SA-3.0): the Debian Administrator's Handbook in 26 locales, many of
# which are mostly English. Prints the folder that holds a folder of HTML for each locale.
#
#   tests/fetch/handbook.sh
#
# Does nothing but print when it is there. Ends with a status other than 0, and says why, if it cannot be fetched.
set -euo pipefail
url="https://deb.debian.org/debian/pool/main/d/debian-handbook/debian-handbook_11.20220922_all.deb"
# As in Debian's own index of packages.
sha256="3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/lockstep/text"
folder="$cache/debian-handbook-11.20220922"

if [ ! -d "$folder" ]; then
    mkdir -p "$cache"
    # Under another name until it is whole: tests may fetch at the same time, and the first to rename wins.
    scratch="$(mktemp -d "$cache/.handbook-XXXXXX")"
    trap 'rm -rf "$scratch"' EXIT
    # By apt where it is set up, as its mirror is the one that can be reached.
    (cd "$scratch" && apt-get -qq -o APT::Sandbox::User=root download debian-handbook=11.20220922 >&2 &&
        mv debian-handbook_*.deb package.deb) ||
        curl --fail --silent --show-error --location --connect-timeout 10 --max-time 300 --output "$scratch/package.deb" "$url"
    echo "$sha256  $scratch/package.deb" | sha256sum --check --quiet >&2
    dpkg-deb --extract "$scratch/package.deb" "$scratch/unpacked"
    html="$scratch/unpacked/usr/share/doc/debian-handbook/html"
    find "$html" -type f ! -name '*.html' -delete
    mv --no-target-directory "$html" "$folder" 2>/dev/null || [ -d "$folder" ]
fi
echo "$folder"
