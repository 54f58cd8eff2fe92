# One process of a job, on its node: passes variables into the image by name, then starts it there.
#   enter.sh NAME... -- COMMAND...
set -u
complain() { echo "$(date '+%Y-%m-%d %H:%M:%S,%3N') ERROR $*" >&2; }  # as the ranks log an error

for name in "${!APPTAINERENV_@}" "${!SINGULARITYENV_@}"; do
    unset "$name" # what a login shell exports would get in without being named
done

pass() { # NAME...: those that are set
    local name
    for name in "$@"; do
        [ -z "${!name+set}" ] || export "APPTAINERENV_$name=${!name}" "SINGULARITYENV_$name=${!name}"
    done
}

while [ "$1" != -- ]; do
    pass "$1"
    shift
done
shift
# what sites set for their network, in modules and prologs
pass "${!NCCL_@}" "${!GLOO_@}" "${!UCX_@}" "${!FI_@}" TMPDIR
# container programs pass a proxy on, password and all; jobs have nothing to fetch
unset http_proxy https_proxy ftp_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY

if ! command -v "$1" >/dev/null; then
    complain "no program '$1' on ${SLURMD_NODENAME:-$(hostname)}: load its module in \`setup\` of the cluster profile, or" \
        "say where it is in container.program"
    exit 2
fi
case ${TMPDIR:-/tmp} in
    /tmp | /var/tmp) ;; # are there anyway
    *)
        mkdir -p "$TMPDIR" # what is missing cannot be bound
        export APPTAINER_BIND="${APPTAINER_BIND:+$APPTAINER_BIND,}$TMPDIR"
        export SINGULARITY_BIND="${SINGULARITY_BIND:+$SINGULARITY_BIND,}$TMPDIR"
        ;;
esac
cd / # where the process was started is mounted, too: mostly a folder of somebody's home
exec "$@"
