#!/bin/bash
# Installed as usr/bin/apptainer by apptainer.sh: a root that lacks capabilities (the root of a container or a small
# virtual machine) asks for those to be dropped, because Apptainer refuses to start when it cannot hand on all of them.
NAMES=(CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE)  # in the kernel's order

lacking() {
    local have last bit
    have=$((16#$(sed -n 's/^CapPrm:[[:space:]]*//p' /proc/self/status)))
    last=$(</proc/sys/kernel/cap_last_cap)
    for ((bit = 0; bit <= last; bit++)); do
        ((have >> bit & 1)) || printf ',CAP_%s' "${NAMES[bit]}"
    done
}

if [[ $EUID -eq 0 ]]; then
    drop="${APPTAINER_DROP_CAPS-}$(lacking)"
    [[ -z $drop ]] || export APPTAINER_DROP_CAPS=${drop#,}
fi
exec "$(dirname "$(readlink -f "$0")")/../elf/apptainer" "$@"
