# shellcheck shell=bash
# What start.sh, stop.sh and fault.sh share: options, and finding the processes of one cluster.
#
# A process belongs to a cluster when the cluster's folder is in its command line or environment: several clusters may
# run side by side, process ids are recycled, and a process must never be stopped for its name alone.

PATH=$PATH:/usr/sbin:/sbin
OPTIONS=(ROOT BASEPORT NODES CPUS MEM GPUS AUTH ACCOUNTING JOBREQUEUE MINJOBAGE MAXARRAY MAXSUBMIT
         REQUEUEDELAY KILLWAIT GRACE EXTRA)
WORDS=()  # the command line without options

say() { echo "slurm: $*"; }

die() { echo "slurm: $*" >&2; exit 1; }

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0; }

set_option() {  # KEY=VALUE
    local key=${1%%=*}
    [[ " ${OPTIONS[*]} " == *" $key "* ]] || die "no option $key; there are: ${OPTIONS[*]}"
    printf -v "$key" '%s' "${1#*=}"
}

parse() {  # the command line
    local word
    for word; do
        case $word in
            -h | --help) usage ;;
            *=*) set_option "$word" ;;
            *) WORDS+=("$word") ;;
        esac
    done
    ROOT=$(realpath -m "${ROOT:-${TMPDIR:-/tmp}/cwdpo-slurm-$(id -un)}")
    export SLURM_CONF=$ROOT/slurm.conf
}

lives() {  # pid: is it a process of this cluster, and not a zombie?
    [[ -n $1 && -r /proc/$1/stat ]] || return 1
    [[ $(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) != [ZX] ]] || return 1
    grep -qsF "$ROOT/" "/proc/$1/cmdline" "/proc/$1/environ"
}

pid_of() {  # daemon: its pid, where it lives
    local pid
    pid=$(cat "$ROOT/run/$1.pid" 2>/dev/null) && lives "$pid" && echo "$pid"
}

daemons() {  # names of all daemons that were started, nodes first
    local file
    for file in "$ROOT"/run/slurmd.*.pid "$ROOT"/run/{slurmctld,slurmdbd,mariadbd,munged}.pid; do
        [[ ! -f $file ]] || basename "$file" .pid
    done
}

step_daemons() {  # [node]: pids; each keeps its node's log open
    local folder
    for folder in $(grep -lsx slurmstepd /proc/[0-9]*/comm | xargs -r dirname); do
        [[ -z $(find "$folder/fd" -lname "$ROOT/log/slurmd.${1-*}.log" -print -quit 2>/dev/null) ]] ||
            basename "$folder"
    done
}

with_job_environment() {  # [node]: pids; also those that have left their step daemon's tree
    # grep's status tells of processes that ended meanwhile
    { grep -lszxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ || true; } |
        { xargs -r grep -lsz '^SLURM_JOB_ID=' || true; } |
        { xargs -r grep -lszx "SLURMD_NODENAME=${1-.*}" || true; } | cut -d / -f 3
}

with_children() {  # pids on stdin: they and everything below them
    awk -F '[/:[:space:]]+' '
        !tree { found[$1] = 1; next }
        { parent[$3] = $6 }
        END {
            do { more = 0
                 for (pid in parent) if (!(pid in found) && parent[pid] in found) { found[pid] = 1; more = 1 }
            } while (more)
            for (pid in found) print pid
        }' - tree=1 <(grep -s "^PPid:" /proc/[0-9]*/status)
}

job_processes() {  # [node]: pids of the step daemons and of all they run
    { step_daemons "$@"; with_job_environment "$@"; } | sort -u | with_children
}

kill_jobs() {  # [node]: as a power cut does; again while something forked in between
    local pids limit=$((SECONDS + 60))  # a process gives gigabytes back before it is gone
    while ((SECONDS <= limit)); do
        mapfile -t pids < <(job_processes "$@")
        [[ ${#pids[@]} -gt 0 ]] || return 0
        kill -STOP "${pids[@]}" 2>/dev/null || true  # else those killed last still tell of the deaths of the first
        kill -KILL "${pids[@]}" 2>/dev/null || true
        sleep 0.1
    done
    die "these processes do not die: ${pids[*]}"
}

wait_until() {  # seconds command...
    local limit=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS <= limit)) || return 1
        sleep 0.05
    done
}

gone() { ! lives "$1"; }

end() {  # daemon [signal]: end it and wait until it is gone
    local pid
    pid=$(pid_of "$1") || return 0
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    wait_until 10 gone "$pid" || { kill -KILL "$pid"; wait_until 60 gone "$pid"; } || die "$1 ($pid) does not die"
}

launch() {  # daemon command...: run it in the background, its pid in run/, its words in log/
    local name=$1
    shift
    setsid "$@" >>"$ROOT/log/$name.out" 2>&1 </dev/null &
    echo $! >"$ROOT/run/$name.pid"
    # A moment passes before the copy of this shell becomes the daemon and is known as a process of the cluster.
    until lives $! || ! kill -0 $! 2>/dev/null; do sleep 0.01; done
}

launch_controller() { launch slurmctld slurmctld -D -f "$SLURM_CONF"; }

launch_node() { launch "slurmd.$1" slurmd -D -f "$SLURM_CONF" -N "$1"; }

tail_of() {  # daemon: the end of what it said
    local file=$ROOT/log/$1.log
    [[ -s $file ]] || file=$ROOT/log/$1.out
    echo "--- $file"
    tail -n 15 "$file" 2>/dev/null || true
}

await() {  # daemon seconds command...: until the command succeeds; dies when the daemon does
    local name=$1 limit=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        pid_of "$name" >/dev/null || { tail_of "$name" >&2; die "$name ended while starting"; }
        ((SECONDS <= limit)) || { tail_of "$name" >&2; die "$name does not answer ($*)"; }
        sleep 0.05
    done
}

controller_answers() { [[ $(scontrol ping) == *' is UP'* ]]; }

idle_nodes() { sinfo -h -N -p main -t idle -o %N "$@"; }
