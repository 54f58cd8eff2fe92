#!/usr/bin/env bash
# The demo grid, or another, through a real Slurm on this machine: start the cluster, submit, report, stop it.
#   [GRID=main-demo] slurm/demo.sh CWDPO [OPTION ...]     CWDPO is the command; options go to `submit` and `report`
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cwdpo=$1
shift

if ! PATH=$PATH:/usr/sbin command -v slurmctld >/dev/null; then
    [ "${CWDPO_TEST_CLUSTER:-}" = install ] || {
        echo "no Slurm on this machine; on a throw-away Debian machine, as root: CWDPO_TEST_CLUSTER=install make demo-slurm" >&2
        exit 6
    }
    "$here/install.sh"
fi

export ROOT=${ROOT:-${TMPDIR:-/tmp}/cwdpo-slurm-$(id -un)}
"$here/start.sh"
trap '"$here/stop.sh"' EXIT
. "$ROOT/env.sh"
"$cwdpo" submit --grid "${GRID:-demo}" --cluster one-machine --watch "$@"
"$cwdpo" report --grid "${GRID:-demo}" "$@"
