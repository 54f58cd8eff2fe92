#!/usr/bin/env bash
# Put a real Apptainer into a folder on Debian 12 (x86-64), without installing anything on the system.
#
#   containers/apptainer.sh [FOLDER]      default .apptainer in the checkout; then FOLDER/usr/bin/apptainer
#
# Takes about 15 s and 75 MB, needs apt-get and python3 but not root, and does nothing where it is there already.
# Debian carries Apptainer in sid only: that package is made to start on Debian 12 (older_glibc.py), its helpers
# (squashfs, fuse-overlayfs, debootstrap, ...) are Debian 12's own. Where the machine has Apptainer, use that one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
HELPERS=(squashfs-tools liblzo2-2 squashfuse libsquashfuse0 fuse-overlayfs libfuse3-3 debootstrap fakeroot libfakeroot
    uidmap libseccomp2 libsqlite3-0)
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
LIB=usr/lib/x86_64-linux-gnu
OTHERWISE="install Apptainer another way (https://apptainer.org/docs/admin/main/installation.html) and put it on PATH"

say() { echo "apptainer: $*"; }

die() { echo "apptainer: $*" >&2; exit 6; }

check_machine() {
    local ID='' VERSION_CODENAME='' PRETTY_NAME='an unknown system'
    # shellcheck source=/dev/null
    [[ ! -r /etc/os-release ]] || . /etc/os-release
    [[ $ID == debian && $VERSION_CODENAME == bookworm && $(uname -m) == x86_64 ]] ||
        die "this script knows Debian 12 on x86-64 only, and this is $PRETTY_NAME on $(uname -m); $OTHERWISE"
    local program
    for program in apt-get dpkg-deb python3; do
        command -v "$program" >/dev/null || die "$program is missing here; $OTHERWISE"
    done
}

download() {  # SUITE FOLDER PACKAGE... : an apt of its own, so that the system's lists and sources stay as they are
    local suite=$1 folder=$2 mirror
    shift 2
    mirror=$(apt-get indextargets --no-release-info --format '$(REPO_URI)' 'Created-By: Packages' |
        grep '/debian/*$' || true)
    mirror=${mirror%%$'\n'*}
    mirror=${mirror:-http://deb.debian.org/debian}
    mkdir -p "$folder"/{lists/partial,cache/archives/partial,parts}
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$mirror" "$suite" "$KEYRING" \
        >"$folder/its.sources"
    local options=(-qq -o "Dir::Etc::sourcelist=$folder/its.sources" -o "Dir::Etc::sourceparts=$folder/parts"
        -o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update && (cd "$folder" && apt-get "${options[@]}" download "$@") ||
        die "could not take $* from $mirror $suite (see above); $OTHERWISE"
}

wrap() {  # NAME PROGRAM : a script in the form Apptainer knows, it runs it again to list the libraries
    printf '#!/bin/bash\nLD_LIBRARY_PATH=%q ${_WRAPPER_EXEC_CMD:-exec} %q "$@"\n' "$libraries" "$2" >"$1"
    chmod 755 "$1"
}

relocate() {  # the package expects to lie in /; these links make its two sets of relative paths right
    mkdir -p "$new/var/lib/apptainer/mnt/session"
    ln -s ../etc "$new/usr/etc"
    ln -s ../var "$new/usr/var"
    ln -s ../../etc "$new/usr/lib/etc"
    ln -s ../../var "$new/usr/lib/var"
    ln -s . "$new/usr/lib/lib"
    ln -s ../bin "$new/usr/lib/bin"
}

front() {  # a root that lacks a capability (in a container, say) must ask for it to be dropped, or nothing starts
    mkdir "$new/usr/elf"
    mv "$new/usr/bin/apptainer" "$new/usr/elf/apptainer"
    cp "$here/apptainer_front.sh" "$new/usr/bin/apptainer"
    chmod 755 "$new/usr/bin/apptainer"
    ln -sf apptainer "$new/usr/bin/singularity"
}

helpers() {
    local own="$prefix/helpers" bin="$new/$LIB/apptainer/bin" name
    libraries="$own/$LIB:$own/lib/x86_64-linux-gnu"
    for name in mksquashfs unsquashfs squashfuse squashfuse_ll fuse-overlayfs; do
        wrap "$bin/$name" "$own/usr/bin/$name"
    done
    mkdir -p "$new/usr/sbin"
    printf '#!/bin/sh\nDEBOOTSTRAP_DIR=%q exec %q "$@"\n' "$own/usr/share/debootstrap" "$own/usr/sbin/debootstrap" \
        >"$new/usr/sbin/debootstrap"
    chmod 755 "$new/usr/sbin/debootstrap"
    for name in newuidmap newgidmap; do
        command -v "$name" >/dev/null || ln -sf "$own/usr/bin/$name" "$bin/$name"
    done
    sed -e "s#^FAKEROOT_PREFIX=.*#FAKEROOT_PREFIX=$own/usr#" -e "s#^FAKEROOT_BINDIR=.*#FAKEROOT_BINDIR=$own/usr/bin#" \
        -e "s#^PATHS=.*#PATHS=$own/$LIB/libfakeroot#" "$new/helpers/usr/bin/fakeroot-sysv" >"$bin/fakeroot"
    chmod 755 "$bin/fakeroot"
}

case ${1-} in
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "apptainer: what is '$1'? See --help" >&2; exit 2 ;;
esac
prefix=$(realpath -m "${1:-$here/../.apptainer}")
mark="for $prefix, $(cat "$here"/apptainer*.sh "$here/older_glibc.py" | sha256sum | cut -c1-16)"
if [[ $(cat "$prefix/.complete" 2>/dev/null) == "$mark" ]]; then
    say "there already: $prefix/usr/bin/apptainer"
    exit 0
fi
[[ ! -e $prefix || -e $prefix/.complete ]] || die "$prefix is there and not from this script: name another folder"
check_machine
work=$(mktemp -d)
mkdir -p "$(dirname "$prefix")"
new=$(mktemp -d "$(dirname "$prefix")/.apptainer.XXXXXX")
trap 'rm -rf "$work" "$new"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "taking it from Debian's packages (about 15 s)"
download sid "$work/sid" apptainer
download bookworm "$work/bookworm" "${HELPERS[@]}"
chmod 755 "$new"
dpkg-deb -x "$work"/sid/apptainer_*.deb "$new"
mkdir "$new/helpers"
for package in "$work"/bookworm/*.deb; do dpkg-deb -x "$package" "$new/helpers"; done
python3 "$here/older_glibc.py" "$new/usr/bin/apptainer" "$new/$LIB"/apptainer/{bin/starter,lib/offsetpreload.so} ||
    die "sid's package has moved on and no longer starts on Debian 12 (see above); $OTHERWISE"
relocate
front
helpers
version=$("$new/usr/bin/apptainer" --version) || die "sid's package does not start on Debian 12 (see above); $OTHERWISE"
echo "$mark" >"$new/.complete"
rm -rf "$prefix"
mv -T "$new" "$prefix"
say "$version: $prefix/usr/bin/apptainer"
