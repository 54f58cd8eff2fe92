# What a job does on its first node, outside any container. cwdpo/jobs/slurm/batch.py writes the settings above it:
#   record   folder of this array in the ledger        task     how a rank starts
#   verdict  how to find out why a run failed           shape    options of srun
#   limit    seconds until Slurm asks to save          image    what ranks run in
#   submitted  size and time of the image when it was submitted
set -u
index=$SLURM_ARRAY_TASK_ID
me=${SLURM_ARRAY_JOB_ID}_$index  # not SLURM_JOB_ID: in one element of every array that number means the whole array

say() { echo "$(date '+%Y-%m-%d %H:%M:%S') job $SLURM_JOB_ID on ${SLURMD_NODENAME:-$(hostname)}: $*"; }

complain() { echo "$(date '+%Y-%m-%d %H:%M:%S,%3N') ERROR $*"; }  # as the ranks log an error

# Slurm signals the steps too, and they save; this script has to outlive them to say what happens next. TERM reaches its
# children as well: what must not be cut off runs `undisturbed`.
signalled=
stopped=
trap 'signalled=1; stopped=1; say "asked to stop"' TERM USR2

undisturbed() { (trap '' TERM USR2; exec "$@"); }

run() {
    # What earlier runs changed is read here, where it was written: other nodes may not see the file for a minute.
    local changes step status found
    if [ -n "$image" ] && ! found=$(stat -Lc '%s %Y' "$image" 2>&1); then
        complain "$found"
        return 135  # as a bus error: this node does not see what others see
    fi
    if [ -n "$image" ] && [ "$found" != "$submitted" ]; then
        complain "the image $image is not the one that was submitted: its size or time has changed;" \
            "\`cwdpo retry\` takes it as it is now"
        return 2
    fi
    changes=$(cat "$record/overrides/$index.json" 2>/dev/null || echo '{}')
    srun --kill-on-bad-exit=1 "${shape[@]}" "${task[@]}" "$record" "$index" "$1" "$changes" &
    step=$!
    while :; do
        signalled=
        wait "$step"
        status=$?
        [ -z "$signalled" ] && break  # a signal ends `wait`, not the step
    done
    # srun may end with 0 although its tasks were killed, when it was told to stop itself: look closer.
    [ "$status" -eq 0 ] && [ -n "$stopped" ] && status=143
    return "$status"
}

go_back_to_the_queue() {
    # Only a job that is running as far as Slurm knows: one that was cancelled stays cancelled. One that is being preempted
    # runs until its grace is over, and would not go back by itself once it has ended.
    local state
    state=$(undisturbed squeue --noheader --jobs "$me" --format %T 2>/dev/null)
    if [ -n "$state" ] && [ "$state" != RUNNING ]; then
        say "Slurm says $state: not asking to go back to the queue"
        return 1
    fi
    say "back to the queue"
    undisturbed scontrol requeue "$me" || return 1
    sleep 120  # Slurm ends this script when it has put the job back
}

if [ -e "$record/abandoned.json" ]; then
    say "this submission was given up: ending"
    exit 78
fi
if [ ! -e "$record/started" ]; then
    echo "$SLURM_ARRAY_JOB_ID" >"$record/.started.$index" && mv "$record/.started.$index" "$record/started"
fi
say "start ${SLURM_RESTART_COUNT:-0}"
round=0
while :; do
    run "$round"
    status=$?
    [ "$status" -eq 0 ] && { say "done"; exit 0; }
    action=$(undisturbed "${verdict[@]}" "$record" "$index" "$status" "$round" || echo fail)
    # Slurm asks only the steps that exist at that moment to save: a run that begins after it would be cut off.
    [ "$action" = again ] && { [ -n "$stopped" ] || [ "$SECONDS" -ge "$limit" ]; } && action=requeue
    say "status $status: $action"
    case $action in
        done) exit 0 ;;
        again) round=$((round + 1)) ;;
        requeue) go_back_to_the_queue; exit "$status" ;;
        *) exit "$status" ;;
    esac
done
