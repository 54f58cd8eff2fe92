#!/usr/bin/env bash
# Install what slurm/start.sh needs from Debian's (or Ubuntu's) own packages, as root: Slurm, munge, MariaDB.
#
#   slurm/install.sh
#
# Only what is missing is installed, without recommended packages. No service is started or enabled: the test cluster
# runs its own daemons in its own folder. Takes about half a minute; remove it with apt-get purge.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
PACKAGES=(slurmctld slurmd slurm-client slurmdbd munge mariadb-server mariadb-client)
SERVICES=(slurmctld slurmd slurmdbd munge mariadb)
POLICY=/usr/sbin/policy-rc.d

say() { echo "slurm: $*"; }

die() { echo "slurm: $*" >&2; exit 1; }

missing() {
    local package
    for package in "${PACKAGES[@]}"; do
        [[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) == *' installed' ]] || echo "$package"
    done
}

forbid_services() {  # packages ask this script before they start a service; 101 means no
    [[ ! -e $POLICY ]] || return 0
    trap 'rm -f "$POLICY"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
}

install() {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

disable_services() {  # packages: systemd would start theirs at the next boot
    local service
    [[ -d /run/systemd/system ]] || return 0
    for service in "${SERVICES[@]}"; do
        [[ " $* " != *" $service"* ]] || systemctl disable --quiet --now "$service" || true
    done
}

case ${1-} in
    "") ;;
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) die "what is '$1'? See --help" ;;
esac
command -v apt-get >/dev/null && command -v dpkg-query >/dev/null ||
    die "only Debian and Ubuntu packages are known here; install Slurm, munge and MariaDB in your system's way"
mapfile -t packages < <(missing)
[[ ${#packages[@]} -gt 0 ]] || { say "all there: ${PACKAGES[*]}"; exit 0; }
[[ $(id -u) -eq 0 ]] || die "only root can install ${packages[*]}"
say "installing ${packages[*]}"
forbid_services
install "${packages[@]}" || die "apt-get could not install ${packages[*]} (see above)"
disable_services "${packages[@]}"
say "installed; no service was started"
