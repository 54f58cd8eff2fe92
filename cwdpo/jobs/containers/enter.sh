# One process of a job, on its node: passes variables into the image by name, then starts it there.
#   enter.sh NAME... -- COMMAND...
set -u
for name in "${!APPTAINERENV_@}" "${!SINGULARITYENV_@}"; do
    unset "$name" # what a login shell exports would get in without being named
done
while [ "$1" != -- ]; do
    if [ -n "${!1+set}" ]; then
        export "APPTAINERENV_$1=${!1}" "SINGULARITYENV_$1=${!1}"
    fi
    shift
done
shift
if ! command -v "$1" >/dev/null; then
    echo "$(date '+%Y-%m-%d %H:%M:%S,%3N') ERROR no program '$1' on ${SLURMD_NODENAME:-$(hostname)}: load its module in" \
        "\`setup\` of the cluster profile, or say where it is in container.program" >&2
    exit 2
fi
[ -z "${TMPDIR:-}" ] || mkdir -p "$TMPDIR" # it is bound, and a folder that is missing cannot be
exec "$@"
