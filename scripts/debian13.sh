#!/bin/sh
# Runs a command in a copy of this project in a Debian 13 root, which has the newer set of packages:
#   sudo scripts/debian13.sh make test
# On other systems this is how both sets are tested. The root is made once by debootstrap, in DEBIAN13_ROOT or
# /var/tmp/debian13, and kept with the installed packages; remove that folder to start again. Exit status 75 means
# that no such root can be made here, for the reason that is printed. A folder in DEBIAN13_SHARE appears at the same
# path there.
set -eu
cd "$(dirname "$0")/.."
root=${DEBIAN13_ROOT:-/var/tmp/debian13}

cannot() {
    echo "no Debian 13 root: $1" >&2
    exit 75
}

[ "$#" -gt 0 ] || { echo "usage: scripts/debian13.sh COMMAND [ARGUMENT ...]" >&2; exit 2; }
[ "$(id -u)" = 0 ] || cannot "debootstrap and chroot need root"
unshare --mount true 2>/dev/null || cannot "this container may not mount anything"

if [ ! -e "$root/.ready" ]; then
    if ! command -v debootstrap >/dev/null 2>&1; then
        { apt-get update --quiet --quiet && apt-get install --quiet --quiet --yes debootstrap; } >/dev/null 2>&1 ||
            cannot "debootstrap is not installed and cannot be"
    fi
    echo "making a Debian 13 root in $root: a few minutes"
    rm -rf "$root"
    packages=python3,python3-venv,git,make,ca-certificates,libgomp1,chromium,fonts-dejavu
    debootstrap --variant=minbase --include="$packages" trixie "$root" >"$root.log" 2>&1 ||
        cannot "debootstrap failed; see $root.log"
    touch "$root/.ready"
fi

# The ways to the network of this machine: name servers, certificates, and the settings of pip and uv.
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt /etc/pip.conf /etc/uv/uv.toml \
    /etc/xdg/pip/pip.conf /etc/xdg/pip/constraints.txt; do
    if [ -f "$file" ]; then
        mkdir -p "$root$(dirname "$file")"
        cp -L "$file" "$root$file"
    fi
done

# One command at a time, since each gets its own copy of the project.
exec 9>"$root/.lock"
flock 9

# The tracked files and those that git does not ignore. What an earlier run installed there stays.
mkdir -p "$root/project"
find "$root/project" -mindepth 1 -maxdepth 1 ! -name .venv ! -name .uv -exec rm -rf {} +
git ls-files --cached --others --exclude-standard -z | tar --create --null --ignore-failed-read --files-from=- 2>/dev/null |
    tar --extract --directory "$root/project"

# The mounts are of a namespace of their own and end with the command.
exec unshare --mount --propagation private sh -eu -c '
    root=$1
    shift
    for folder in /proc /sys /dev ${DEBIAN13_SHARE:-}; do
        mkdir -p "$root$folder"
        mount --rbind "$folder" "$root$folder"
    done
    exec chroot "$root" env HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        sh -c "cd /project && exec \"\$@\"" sh "$@"
' sh "$root" "$@"
