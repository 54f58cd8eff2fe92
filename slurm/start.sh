#!/usr/bin/env bash
# Start a real Slurm on this machine: a cluster of virtual nodes to try jobs on. Nothing of the system is used or
# changed but /etc/hosts, which has to know node0, node1, ... (added when root).
#
#   slurm/start.sh [OPTION=VALUE ...]     options may be environment variables too
#   source FOLDER/env.sh                  then sbatch, squeue, ... speak to it (start.sh prints the folder)
#   slurm/stop.sh [ROOT=FOLDER]           stop it and leave nothing behind
#   slurm/fault.sh kill node1             break a part of it (--help)
#
# A second start says that it runs; what is left of a half-started one is stopped first. Partitions: main (default) and
# high, whose jobs make those of main end: they get the --signal of the job (or TERM), GRACE seconds, and are requeued.
#
#   ROOT=DIR         its folder (default: cwdpo-slurm-USER in TMPDIR)
#   BASEPORT=17000   first of its ports: controller, slurmdbd, database, and the nodes from 10 further on
#   NODES=4          node0 ... node3, each a slurmd with its own spool folder
#   CPUS=16 MEM=16000 GPUS=2   per node, MB; what Slurm believes, not what the machine has. GPUs are device files
#                    without a device, enough for --gres=gpu and CUDA_VISIBLE_DEVICES
#   AUTH=munge       or none (no munged)
#   ACCOUNTING=none  or slurmdbd (with MariaDB; adds the account research). With none, sacct says that accounting is off
#   JOBREQUEUE=1     0: jobs are not requeued unless they ask for it
#   MINJOBAGE=300    seconds until the controller forgets an ended job
#   MAXARRAY=1001    MaxArraySize: the largest array index is one less
#   MAXSUBMIT=       limit of jobs per user, array elements counted singly (needs ACCOUNTING=slurmdbd)
#   REQUEUEDELAY=8   seconds before a requeued job may start again (Slurm's default is 120)
#   KILLWAIT=2       seconds between TERM and KILL (Slurm's default is 30)
#   GRACE=10         seconds a preempted job has
#   EXTRA=           more lines of slurm.conf
#
# No RequeueExit, no KillOnBadExit, no kill_invalid_depend: many sites have none of them, so jobs must work without.
# Memory is counted, not enforced. Needs the packages that slurm/install.sh installs. Works as any user; only root can
# make device files, so others get terminals (/dev/tty0 ...) for GPUs, 8 a node at most.
set -euo pipefail
umask 022
source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/lib.sh"

defaults() {
    : "${BASEPORT:=17000}" "${NODES:=4}" "${CPUS:=16}" "${MEM:=16000}" "${GPUS:=2}"
    : "${AUTH:=munge}" "${ACCOUNTING:=none}"
    : "${JOBREQUEUE:=1}" "${MINJOBAGE:=300}" "${MAXARRAY:=1001}" "${MAXSUBMIT:=}"
    : "${REQUEUEDELAY:=8}" "${KILLWAIT:=2}" "${GRACE:=10}" "${EXTRA:=}"
}

settings() {  # all options, as they are compared with those of a running cluster
    local key
    for key in "${OPTIONS[@]}"; do echo "$key=${!key}"; done
}

check_number() {  # option least
    [[ ${!1} =~ ^[0-9]+$ && ${!1} -ge $2 ]] || die "$1=${!1}: a number from $2 on is needed"
}

check_options() {
    local key
    [[ ${#WORDS[@]} -eq 0 ]] || die "what is '${WORDS[0]}'? Options are OPTION=VALUE; see --help"
    for key in BASEPORT NODES CPUS MEM MAXARRAY; do check_number "$key" 1; done
    check_number REQUEUEDELAY 5  # Slurm takes its default for less
    for key in GPUS JOBREQUEUE MINJOBAGE KILLWAIT GRACE; do check_number "$key" 0; done
    [[ $AUTH == munge || $AUTH == none ]] || die "AUTH=$AUTH: valid are munge, none"
    [[ $ACCOUNTING == slurmdbd || $ACCOUNTING == none ]] || die "ACCOUNTING=$ACCOUNTING: valid are none, slurmdbd"
    [[ -z $MAXSUBMIT || $ACCOUNTING == slurmdbd ]] || die "MAXSUBMIT is a limit of the accounting: ACCOUNTING=slurmdbd"
    # Unix sockets below it have names of at most 107 characters.
    [[ ${#ROOT} -le 70 ]] || die "the name of the folder is too long, 70 characters at most: $ROOT"
    [[ $ROOT != *[[:space:]]* ]] || die "Slurm takes no folder with a space in its name: $ROOT"
}

check_commands() {
    local needed=(slurmctld slurmd scontrol sinfo sbatch) missing=() name
    [[ $AUTH == none ]] || needed+=(munged)
    [[ $ACCOUNTING == none ]] || needed+=(slurmdbd sacctmgr mariadbd mariadb-install-db)
    for name in "${needed[@]}"; do command -v "$name" >/dev/null || missing+=("$name"); done
    [[ ${#missing[@]} -eq 0 ]] || die "not installed: ${missing[*]} (on Debian or Ubuntu: slurm/install.sh, as root)"
}

runs_already() {
    pid_of slurmctld >/dev/null && controller_answers 2>/dev/null
}

refuse_other_options() {
    local differ
    differ=$(diff "$ROOT/options" <(settings) | sed -n 's/^< /  it has /p; s/^> /  asked: /p') || true
    [[ -z $differ ]] || die "the cluster in $ROOT runs with other options; slurm/stop.sh it, or take another ROOT
$differ"
}

check_ports() {
    local port
    for port in $(seq "$BASEPORT" $((BASEPORT + 2))) $(seq $((BASEPORT + 10)) $((BASEPORT + 9 + NODES))); do
        ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || die "port $port is taken; choose another with BASEPORT="
    done
}

make_folder() {
    [[ ! -e $ROOT || -f $ROOT/options ]] || [[ -d $ROOT && -z $(ls -A "$ROOT") ]] ||
        die "$ROOT is there and not a cluster's folder; choose another with ROOT="
    mkdir -p "$ROOT" || die "cannot make $ROOT"
    [[ -O $ROOT ]] || die "$ROOT is someone else's; choose another with ROOT="
    mkdir -p "$ROOT"/{dev,log,run/own,state,spool}
    settings >"$ROOT/options"
}

know_hosts() {  # jobs reach each other by the names of their nodes
    local names=() node
    for node in $(node_names); do
        grep -qE "^[^#]*[[:space:]]$node([[:space:]]|\$)" /etc/hosts || names+=("$node")
    done
    [[ ${#names[@]} -gt 0 ]] || return 0
    if [[ -w /etc/hosts ]]; then
        echo "127.0.0.1 ${names[*]}  # virtual nodes of slurm/start.sh" >>/etc/hosts
        say "added ${names[*]} to /etc/hosts"
    else
        say "jobs on several nodes will not find each other: /etc/hosts lacks '127.0.0.1 ${names[*]}' (ask root)" >&2
    fi
}

node_names() { seq -f 'node%.0f' 0 $((NODES - 1)); }

range() {  # first last [brackets]: 3 or 3-5, with brackets [3-5]
    if [[ $1 -eq $2 ]]; then echo "$1"; elif [[ -n ${3-} ]]; then echo "[$1-$2]"; else echo "$1-$2"; fi
}

node_range() { echo "node$(range 0 $((NODES - 1)) brackets)"; }

write_gres() {
    local files=/dev/tty number
    : >"$ROOT/gres.conf"
    [[ $GPUS -gt 0 ]] || return 0
    if mknod "$ROOT/dev/gpu0" c 1 3 2>/dev/null; then  # 1, 3 is /dev/null
        files=$ROOT/dev/gpu
        for ((number = 1; number < GPUS; number++)); do mknod "$files$number" c 1 3; done
    elif [[ $GPUS -gt 8 || ! -c /dev/tty$((GPUS - 1)) ]]; then
        die "GPUS=$GPUS: device files cannot be made here (root only) and there are not so many terminals to stand in"
    fi
    echo "NodeName=$(node_range) Name=gpu File=$files$(range 0 $((GPUS - 1)) brackets)" >"$ROOT/gres.conf"
}

auth_lines() {  # the same plug-in for controller and slurmdbd
    [[ $AUTH == none ]] && echo "AuthType=auth/none" && return
    echo "AuthType=auth/munge"
}

auth_info() { [[ $AUTH == none ]] || echo "socket=$ROOT/run/munge.sock"; }

accounting_lines() {
    if [[ $ACCOUNTING == none ]]; then
        echo "AccountingStorageType=accounting_storage/none"
        echo "JobAcctGatherType=jobacct_gather/none"
        return
    fi
    cat <<END
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((BASEPORT + 1))
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits
END
    [[ $AUTH == none ]] || echo "AccountingStoragePass=$ROOT/run/munge.sock"
}

write_slurm_conf() {
    local host info ports
    host=$(uname -n)
    host=${host%%.*}
    ports=$(range $((BASEPORT + 10)) $((BASEPORT + 9 + NODES)))
    info=$(auth_info)
    cat >"$SLURM_CONF" <<END
ClusterName=cwdpo
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$BASEPORT
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
$(auth_lines)
CredType=cred/$AUTH
# A requeued job waits until the credential of its former run has expired.
AuthInfo=${info:+$info,}cred_expire=$REQUEUEDELAY
$(accounting_lines)
JobCompType=jobcomp/none
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool/%n
SlurmctldPidFile=$ROOT/run/own/slurmctld.pid
SlurmdPidFile=$ROOT/run/own/slurmd.%n.pid
SlurmdLogFile=$ROOT/log/slurmd.%n.log
MailProg=/bin/true
# No cgroups: they need rights that containers rarely have.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
# The machine has less than the nodes say.
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=$((MEM / CPUS > 0 ? MEM / CPUS : 1))
# As quick as Slurm can be.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,bf_continue,default_queue_depth=1000
PriorityType=priority/basic
KillWait=$KILLWAIT
SlurmdTimeout=20
SlurmctldTimeout=30
ReturnToService=2
TreeWidth=65533
JobRequeue=$JOBREQUEUE
MinJobAge=$MINJOBAGE
MaxArraySize=$MAXARRAY
MaxJobCount=100000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
$([[ $GPUS -eq 0 ]] || echo "GresTypes=gpu")
NodeName=$(node_range) NodeHostname=$host NodeAddr=127.0.0.1 Port=$ports \
CPUs=$CPUS RealMemory=$MEM$([[ $GPUS -eq 0 ]] || echo " Gres=gpu:$GPUS")
PartitionName=main Nodes=ALL Default=YES State=UP MaxTime=INFINITE DefaultTime=60 PriorityTier=1 GraceTime=$GRACE
PartitionName=high Nodes=ALL State=UP MaxTime=INFINITE DefaultTime=60 PriorityTier=2 PreemptMode=OFF
$EXTRA
END
}

start_munge() {
    local run=$ROOT/run
    (umask 077 && head -c 128 /dev/urandom >"$ROOT/munge.key")
    launch munged munged --foreground --force --num-threads=2 --key-file="$ROOT/munge.key" --socket="$run/munge.sock" \
        --pid-file="$run/own/munged.pid" --log-file="$ROOT/log/munged.log" --seed-file="$run/munged.seed"
    await munged 120 munge --no-input --socket="$run/munge.sock"
}

sql() { mariadb --no-defaults --user=root --socket="$ROOT/run/sql.sock" "$@"; }

start_database() {
    local user=()
    [[ $(id -u) -ne 0 ]] || user=(--user=root)
    mariadb-install-db --no-defaults "${user[@]}" --datadir="$ROOT/sql" --skip-test-db \
        --auth-root-authentication-method=normal >"$ROOT/log/mariadbd.out" 2>&1 ||
        { tail_of mariadbd >&2; die "mariadb-install-db failed"; }
    cat >"$ROOT/my.cnf" <<END
[mysqld]
datadir=$ROOT/sql
socket=$ROOT/run/sql.sock
pid-file=$ROOT/run/own/mariadbd.pid
bind-address=127.0.0.1
port=$((BASEPORT + 2))
skip-name-resolve
skip-log-bin
performance_schema=OFF
innodb_buffer_pool_size=16M
innodb_log_file_size=16M
innodb_lock_wait_timeout=900
innodb_flush_log_at_trx_commit=0
innodb_fast_shutdown=2
key_buffer_size=1M
aria_pagecache_buffer_size=4M
END
    launch mariadbd mariadbd --defaults-file="$ROOT/my.cnf" "${user[@]}"
    await mariadbd 300 sql -e 'select 1'
    sql -e "create database slurm; grant all on slurm.* to slurm@'127.0.0.1' identified by 'slurm'"
}

start_slurmdbd() {
    (umask 077 && cat >"$ROOT/slurmdbd.conf") <<END
$(auth_lines)
$([[ $AUTH == none ]] || echo "AuthInfo=$(auth_info)")
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((BASEPORT + 1))
SlurmUser=$(id -un)
PidFile=$ROOT/run/own/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((BASEPORT + 2))
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
CommitDelay=1
END
    launch slurmdbd slurmdbd -D
    await slurmdbd 300 sacctmgr -n list cluster
}

add_accounts() {
    local limit=()
    [[ -z $MAXSUBMIT ]] || limit=("MaxSubmitJobs=$MAXSUBMIT")
    {
        sacctmgr -i add cluster cwdpo &&
            sacctmgr -i add account research Description=tests Organization=tests &&
            # root has been there from the start, with the account root
            sacctmgr -i add user "$(id -un)" Account=research "${limit[@]}" &&
            sacctmgr -i modify user "$(id -un)" set DefaultAccount=research "${limit[@]}"
    } >"$ROOT/log/sacctmgr.out" 2>&1 || { tail_of sacctmgr >&2; die "sacctmgr failed"; }
}

start_nodes() {
    local node limit
    for node in $(node_names); do
        mkdir -p "$ROOT/spool/$node"
        launch_node "$node"
    done
    limit=$((SECONDS + 30 + NODES))
    until [[ $(idle_nodes | wc -l) -eq $NODES ]]; do
        for node in $(node_names); do
            pid_of "slurmd.$node" >/dev/null || { tail_of "slurmd.$node" >&2; die "slurmd of $node ended"; }
        done
        ((SECONDS <= limit)) || { sinfo -N -l >&2; tail_of "slurmd.$node" >&2; die "the nodes do not become idle"; }
        sleep 0.1
    done
}

write_environment() {
    echo "export SLURM_CONF=$SLURM_CONF" >"$ROOT/env.sh"
}

start_all() {
    write_gres
    write_slurm_conf
    [[ $AUTH == none ]] || start_munge
    if [[ $ACCOUNTING == slurmdbd ]]; then
        start_database
        start_slurmdbd
        add_accounts
    fi
    launch_controller
    await slurmctld 300 controller_answers
    start_nodes
    write_environment
}

undo() {  # what is half there must not stay
    say "the start failed; stopping what was started (logs stay in $ROOT/log)" >&2
    "$(dirname "${BASH_SOURCE[0]}")/stop.sh" --keep ROOT="$ROOT" >&2
}

parse "$@"
defaults
check_options
check_commands
if runs_already; then
    refuse_other_options
    say "runs already: source $ROOT/env.sh"
    exit 0
fi
[[ ! -f $ROOT/options ]] || "$(dirname "${BASH_SOURCE[0]}")/stop.sh" ROOT="$ROOT"
check_ports
make_folder
know_hosts
trap 'undo' EXIT
start_all
trap - EXIT
say "runs, $(sinfo -h -p main -o '%D nodes %T'), after $SECONDS s: source $ROOT/env.sh"
