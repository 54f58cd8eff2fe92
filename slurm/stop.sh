#!/usr/bin/env bash
# Stop a cluster of slurm/start.sh and leave nothing behind: no daemon, no job's process, no folder.
#
#   slurm/stop.sh [ROOT=FOLDER] [--keep]
#
#   ROOT=DIR    its folder (default: cwdpo-slurm-USER in TMPDIR)
#   --keep      leave the folder, with the logs
#
# Works on what is left of a broken cluster and on one that is stopped already. Running jobs are killed, not asked: what
# they leave on disk is what a power cut leaves. Only processes that belong to this cluster's folder are touched.
# The nodes' names stay in /etc/hosts: other clusters may use them.
set -euo pipefail
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/lib.sh"

stop_all() {
    local daemon
    # The controller first: nobody shall restart what is killed next. slurmdbd and munge last, others speak to them.
    end slurmctld
    for daemon in $(daemons | grep '^slurmd\.'); do end "$daemon" KILL; done
    kill_jobs
    for daemon in slurmdbd mariadbd munged; do end "$daemon"; done
}

remove() {
    cd /
    rm -rf --one-file-system "$ROOT"
}

parse "$@"
case ${WORDS[*]} in
    "" | --keep) ;;
    *) die "what is '${WORDS[*]}'? See --help" ;;
esac
if [[ ! -f $ROOT/options ]]; then
    say "no cluster in $ROOT"
    exit 0
fi
stop_all
[[ ${WORDS[*]} == --keep ]] || remove
say "stopped: $ROOT"
