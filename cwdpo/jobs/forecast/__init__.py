"""What a plan costs before anything is paid for: hours, makespan, memory, storage."""
