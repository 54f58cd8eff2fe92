#!/usr/bin/env bash
# Build an Apptainer image from containers/cwdpo.def, check it, and only then put it in place.
#
#   containers/build.sh cluster|cpu|FILE.args [--output FILE] [--definition FILE] [--sign] [--verbose]
#
# cluster and cpu are the argument files beside this script; FILE.args is one of your own, made like them.
#   --output FILE        the image (default containers/build/cwdpo-<name>.sif); FILE.json beside it says what it is
#   --definition FILE    another definition than containers/cwdpo.def
#   --sign               sign the image with your first key (apptainer key newpair makes one) and verify it
#   --verbose            everything the build prints, not only its steps
# Whatever goes wrong, also Ctrl-C, leaves no new image and no temporary file, and an older image stays as it was.
# Room is taken in APPTAINER_TMPDIR, else TMPDIR, else /tmp: a local disk. Layers of the base are kept where
# APPTAINER_CACHEDIR says, and thrown away where it says nothing.
# compression=zstd|gzip in the argument file: zstd is much faster to make and to read, and is the default where the
# program can choose (Apptainer from 1.4 on); gzip is for machines whose kernel or squashfuse cannot read zstd.
# Exit status: 0 built, 1 the build failed, 2 wrong arguments, 6 something is missing here, 130 and 143 stopped.
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
python=${PYTHON:-python3}

say() { echo "image: $*"; }

die() { local status=$1; shift; echo "image: $*" >&2; exit "$status"; }

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" | sed '$d'; }

value_of() { sed -n "s/^$1=//p" "$arguments"; }  # of an argument in the argument file

read_command_line() {
    arguments='' output='' definition=$here/cwdpo.def sign='' verbose=''
    while [[ $# -gt 0 ]]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --output | --definition) [[ -n ${2-} ]] || die 2 "$1 needs a file"; printf -v "${1#--}" %s "$2"; shift ;;
            --sign | --verbose) printf -v "${1#--}" yes ;;
            -*) die 2 "what is '$1'? Valid: --output FILE, --definition FILE, --sign, --verbose, --help" ;;
            *) [[ -z $arguments ]] || die 2 "one image at a time: '$1' comes after '$arguments'"; arguments=$1 ;;
        esac
        shift
    done
    [[ -n $arguments ]] || die 2 "which image? containers/build.sh cluster, or cpu, or FILE.args; see --help"
    [[ $arguments == *.args ]] || arguments=$here/$arguments.args
    [[ -r $arguments ]] || die 2 "there is no argument file $arguments; valid: cluster, cpu, or a file named *.args"
    [[ -r $definition ]] || die 2 "there is no definition $definition"
    name=$(basename "$arguments" .args)
    output=$(realpath -m "${output:-$here/build/cwdpo-$name.sif}")
}

find_runtime() {
    local own=$root/.apptainer/usr
    runtime=$(command -v apptainer || command -v singularity || true)
    [[ -n $runtime || -x $own/bin/apptainer || $(value_of bootstrap) != debootstrap ]] ||
        "$here/apptainer.sh" || true
    [[ -n $runtime || ! -x $own/bin/apptainer ]] || runtime=$own/bin/apptainer
    PATH=$PATH:$own/sbin  # its debootstrap
    [[ -n $runtime ]] || die 6 "neither apptainer nor singularity is on PATH. On a cluster: module load apptainer, or" \
        "ask its staff. On Debian 12: containers/apptainer.sh puts one into .apptainer/ without installing it. Else:" \
        "https://apptainer.org/docs/admin/main/installation.html"
}

read_compression() {
    compression=$(value_of compression)
    [[ ${compression:-zstd} =~ ^(zstd|gzip)$ ]] ||
        die 2 "compression=$compression in $arguments; valid: zstd, gzip, or no such line"
}

check_runtime() {  # what this version of the program can do
    local help
    help=$("$runtime" build --help 2>&1) || true
    [[ $help == *--build-arg-file* ]] || die 6 "$runtime ($("$runtime" --version 2>&1 || true)) is too old, it knows" \
        "no --build-arg-file: it takes Apptainer 1.2 or SingularityCE 4. Newer ones: module avail apptainer, or" \
        "https://apptainer.org/docs/admin/main/installation.html"
    packing=(--mksquashfs-args "-comp gzip -quiet")
    [[ $compression == gzip ]] || packing=(--mksquashfs-args "-comp zstd -Xcompression-level 3 -quiet")
    [[ $help != *--mksquashfs-args* ]] || return 0
    packing=()
    [[ $compression != zstd ]] || say "$runtime cannot choose the compression (Apptainer 1.4 can): its own, not zstd"
}

check_rights() {
    fakeroot=()
    [[ $EUID -ne 0 ]] || return 0
    fakeroot=(--fakeroot)
    [[ $(value_of bootstrap) == debootstrap ]] || return 0
    grep -qsE "^($(id -un)|$(id -u)):" /etc/subuid || die 6 "$(id -un) has no line in /etc/subuid, which building a" \
        "Debian without root needs. Let an administrator run: usermod --add-subuids 100000-165535 --add-subgids" \
        "100000-165535 $(id -un); or build on a machine where you are root and copy the image"
}

free_gb() { df -Pk "$1" | awk 'NR == 2 {printf "%d", $4 / 1000 / 1000}'; }

same_disk() { [[ $(df -P "$1" | awk 'NR == 2 {print $1}') == "$(df -P "$2" | awk 'NR == 2 {print $1}')" ]]; }

need_gb() {  # FOLDER GB FOR REMEDY
    local free
    free=$(free_gb "$1")
    [[ $free -ge $2 ]] || die 6 "$1 has $free GB free, and $3 needs $2 GB there. $4"
}

check_space() {
    local folder=$1 image temporary
    image=$(value_of space_image) temporary=$(value_of space_tmp)
    local elsewhere="Make room, or set APPTAINER_TMPDIR to a folder on another local disk"
    need_gb "$folder" "${temporary:-0}" "building" "$elsewhere"
    need_gb "$(dirname "$output")" "${image:-0}" "the image" "Make room, or name another place with --output"
    ! same_disk "$folder" "$(dirname "$output")" ||
        need_gb "$folder" $((${image:-0} + ${temporary:-0})) "building and the image" "$elsewhere"
}

registry() {  # the host that the base image comes from
    local first=${1%%/*}
    [[ $1 == */* && $first == *[.:]* ]] && echo "https://$first" || echo "https://index.docker.io"
}

check_network() {
    local places reason
    places=("$(<"$work/mnt/index")")
    case $(value_of bootstrap) in
        debootstrap) places+=("$(<"$work/mnt/mirror")") ;;
        docker) places+=("$(registry "$(value_of base)")") ;;
    esac
    reason=$("$python" "$here/host_view.py" --reach "${places[@]}") || die 6 "cannot reach $reason. The build takes" \
        "packages from ${places[*]}: check the network, set https_proxy, or name a mirror in pip's and apt's settings"
}

copy_source() {  # what is committed and what has changed, nothing else
    local target=$1 file parts=(cwdpo configs pyproject.toml README.md)
    revision=$(git -C "$root" rev-parse HEAD) || die 6 "$root is no git checkout: the image is labelled with its commit"
    dirty=$([[ -z $(git -C "$root" status --porcelain -- "${parts[@]}" containers) ]] && echo false || echo true)
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/pyproject.toml")
    lock=$(cat "$here/torch.lock" "$here/requirements.lock" | sha256sum | cut -d' ' -f1)
    mkdir -p "$target/program" "$target/containers"
    git -C "$root" ls-files -z -co --exclude-standard -- "${parts[@]}" | while IFS= read -r -d '' file; do
        [[ ! -f $root/$file ]] || printf '%s\0' "$file"
    done | tar -C "$root" --null --files-from=- -cf - | tar -C "$target/program" -xf -
    printf '{"version": "%s", "commit": "%s", "dirty": %s}\n' "$version" "$revision" "$dirty" \
        >"$target/program/cwdpo/commit.json"
    cp "$here"/{torch.lock,requirements.lock,build.lock,check_image.py,expose_torch.py} "$target/containers/"
}

all_arguments() {  # the file's, and of ours those that the definition asks for
    local key
    grep -vE '^(#|space_|compression=|[[:space:]]*$)' "$arguments"
    for key in version revision dirty lock; do
        ! grep -qE "\{\{ *$key *\}\}" "$definition" || echo "$key=${!key}"
    done
}

redirect_debootstrap() {  # the definition names Debian's public mirror; this machine's must not be in the image
    local real
    [[ $(value_of bootstrap) == debootstrap ]] || return 0
    real=$(PATH=$PATH:/usr/sbin:/sbin command -v debootstrap) ||
        die 6 "debootstrap is missing here: install it (apt-get install debootstrap, dnf install debootstrap)"
    mkdir "$work/bin"
    printf '#!/bin/bash\nexec %q "${@:1:$#-1}" %q\n' "$real" "$(<"$work/mnt/mirror")" >"$work/bin/debootstrap"
    chmod 755 "$work/bin/debootstrap"
    PATH=$work/bin:$PATH
}

show_steps() {
    local line
    while IFS= read -r line; do
        case $line in
            "== "*) printf '[%4d s] %s\n' "$SECONDS" "${line#== * }" ;;
            "   "*) echo "         $line" ;;
            *"Creating SIF file"*) printf '[%4d s] packing\n' "$SECONDS" ;;
            *"Running testscript"*) printf '[%4d s] %%test\n' "$SECONDS" ;;
            *) [[ -z $verbose ]] || echo "$line" ;;
        esac
    done
}

prepare() {  # what the definition finds at /mnt
    mkdir "$work/tmp" "$work/mnt"
    "$python" "$here/host_view.py" "$work/mnt" >"$work/binds"
    check_network
    copy_source "$work/mnt/source"
    redirect_debootstrap
}

build() {
    local private=() binds=() bind
    # as root: a process tree and mounts of its own, which end with it
    [[ $EUID -ne 0 ]] || private=(unshare --mount --pid --fork --mount-proc --kill-child)
    while IFS= read -r bind; do binds+=(--bind "$bind"); done < <(echo "$work/mnt:/mnt"; cat "$work/binds")
    all_arguments >"$work/arguments"
    : >"$work/log"
    SECONDS=0
    printf '[%4d s] base: %s %s\n' 0 "$(value_of bootstrap)" "$(value_of base)"
    set -m
    export APPTAINER_CACHEDIR=${APPTAINER_CACHEDIR:-$work/cache} APPTAINER_TMPDIR=$work/tmp
    export SINGULARITY_CACHEDIR=$APPTAINER_CACHEDIR SINGULARITY_TMPDIR=$work/tmp
    "${private[@]}" "$runtime" build --force "${fakeroot[@]}" \
        "${binds[@]}" --build-arg-file "$work/arguments" "${packing[@]}" "$fresh" "$definition" \
        >"$work/log" 2>&1 </dev/null &
    child=$!
    set +m
    tail -n +1 -f --pid=$child "$work/log" | show_steps &  # not waited for in front: a signal must find us at `wait`
    viewer=$!
    wait $child || die 1 "the build of $name failed; the end of what it said:"$'\n'"$(tail -n 40 "$work/log")"
    child=''
    wait $viewer || true
}

sign_image() {
    [[ -n $sign ]] || return 0
    "$runtime" sign "$fresh" ||
        die 1 "could not sign: is there a key? apptainer key list --secret; apptainer key newpair"
    "$runtime" verify "$fresh" || die 1 "the signature just made does not verify"
}

describe() {
    "$runtime" inspect --json --labels "$fresh" | "$python" -c '
import json, sys
name, digest, size = sys.argv[1:]
labels = json.load(sys.stdin)["data"]["attributes"]["labels"]
print(json.dumps({"image": name, "sha256": digest, "bytes": int(size), "labels": labels}, indent=1))
' "$(basename "$output")" "$(sha256sum "$fresh" | cut -d' ' -f1)" "$(stat -c %s "$fresh")" >"$fresh.json"
}

report() {
    local file
    file=$(basename "$output")
    "$python" - "$output.json" <<'P'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    found = json.load(file)
print(f"  sha256   {found['sha256']}\n  size     {found['bytes'] / 1e6:,.0f} MB")
of_cwdpo = [f"cwdpo.{name}" for name in ("dirty", "lock", "base", "cuda")]
for name in ("cwdpo.version", "org.opencontainers.image.revision", *of_cwdpo):
    if name in found["labels"]:
        print(f"  {name.removeprefix('cwdpo.').rpartition('.')[2]:<8} {found['labels'][name]}")
P
    cat <<T
to the cluster's parallel file system:
  rsync --partial --progress $output{,.json} LOGIN-NODE:/FOLDER/
and in your cluster profile (configs/clusters/):
  container: {name: apptainer, image: /FOLDER/$file}
T
}

remove_all() {
    [[ -z ${child-} ]] || kill -KILL -- "-$child" 2>/dev/null || true
    [[ -z ${child-} ]] || wait "$child" 2>/dev/null || true
    rm -f "$fresh" "$fresh.json"
    rm -rf "$work" 2>/dev/null || unshare --map-root-user --map-auto rm -rf "$work"  # files of the build's other users
}

main() {
    local place
    read_command_line "$@"
    read_compression
    find_runtime
    check_rights
    check_runtime
    mkdir -p "$(dirname "$output")"
    place=${APPTAINER_TMPDIR:-${TMPDIR:-/tmp}}
    [[ -d $place ]] || die 6 "$place, named by APPTAINER_TMPDIR or TMPDIR, is no folder"
    check_space "$place"
    fresh=$(dirname "$output")/.$(basename "$output").$$.tmp
    work=$(mktemp -d "$place/cwdpo-image.XXXXXX")
    trap remove_all EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    prepare
    say "building $name with $("$runtime" --version)"
    build
    sign_image
    describe
    mv "$fresh.json" "$output.json"
    mv "$fresh" "$output"
    say "$output, in $SECONDS s"
    report
}

main "$@"; exit  # on one line: what has been read is what runs, even if this file changes meanwhile
