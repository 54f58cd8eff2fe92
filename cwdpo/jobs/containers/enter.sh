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
[ -z "${TMPDIR:-}" ] || mkdir -p "$TMPDIR" # it is bound, and a folder that is missing cannot be
exec "$@"
