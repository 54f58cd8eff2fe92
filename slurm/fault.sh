#!/usr/bin/env bash
# Break a part of a running cluster of slurm/start.sh as machines break, and mend it.
#
#   slurm/fault.sh kill node1 [ROOT=FOLDER]          as a power cut: its slurmd, step daemons and all their processes
#                                                    are killed, and the controller is told that the node is down
#   slurm/fault.sh vanish node1 [ROOT=FOLDER]        the same, but the controller has to find out itself
#   slurm/fault.sh revive node1 [ROOT=FOLDER]        switch it on again
#   slurm/fault.sh stop controller [ROOT=FOLDER]     as for maintenance: commands fail, running jobs go on
#   slurm/fault.sh start controller [ROOT=FOLDER]
#
# Killing a slurmd alone would leave its jobs running and able to finish, which a dead machine does not do.
set -euo pipefail
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/lib.sh"

vanish() {  # node: slurmd first, it would report the deaths
    [[ -d $ROOT/spool/$1 ]] || die "no node $1 in $ROOT; there are: $(ls "$ROOT/spool" | xargs)"
    end "slurmd.$1" KILL
    kill_jobs "$1"
}

kill_node() {
    vanish "$1"
    scontrol update "nodename=$1" state=down reason="slurm/fault.sh kill"
}

is_idle() { [[ -n $(idle_nodes -n "$1") ]]; }

revive_node() {
    [[ -d $ROOT/spool/$1 ]] || die "no node $1 in $ROOT"
    pid_of "slurmd.$1" >/dev/null || launch_node "$1"
    await "slurmd.$1" 300 is_idle "$1"
}

start_controller() {
    pid_of slurmctld >/dev/null || launch_controller
    await slurmctld 300 controller_answers
}

parse "$@"
[[ -f $ROOT/options ]] || die "no cluster in $ROOT"
case ${WORDS[*]} in
    "kill node"*) kill_node "${WORDS[1]}" ;;
    "vanish node"*) vanish "${WORDS[1]}" ;;
    "revive node"*) revive_node "${WORDS[1]}" ;;
    "stop controller") end slurmctld ;;
    "start controller") start_controller ;;
    *) die "see --help" ;;
esac
