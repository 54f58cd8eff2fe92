"""What the programs that run SIF images have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import field_validator

from cwdpo.base.config import Config
from cwdpo.base.errors import ConfigError
from cwdpo.jobs.containers.host import Host

ENTER = Path("cwdpo", "jobs", "containers", "enter.sh")
"""In the code that jobs run: what starts the container program on a node."""

SEPARATORS = (",", ":")
"""What `--bind` takes apart at; there is no way to write them in a path."""


class SifRuntime(Config):
    """One image file on a file system that all nodes see, run read-only with the host's network, devices and /tmp.

    The environment is passed by name: what this program and the profile set, what Slurm says of a rank, TMPDIR,
    `variables`, and what sites set for their network (NCCL_*, GLOO_*, UCX_*, FI_*). The home folder stays outside;
    results, code, data, models and TMPDIR are bound by themselves.
    """

    image: str
    """The SIF file, such as `make container` builds; `~` and relative paths are allowed."""
    bind: tuple[str, ...] = ()
    """Further folders to see inside, as `/folder`, `/folder:/inside` or `/folder:/inside:ro`."""
    variables: tuple[str, ...] = ()
    """Further variables of the host to pass on, such as `WANDB_MODE`; `environment` of the profile is passed anyway."""
    program: str | None = None
    """Path of the container program, where it is not on the PATH of the nodes (after the `setup` of the profile)."""
    options: tuple[str, ...] = ()
    """Further options of `exec`, such as `--rocm`."""

    command: ClassVar[str]

    @field_validator("bind")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            parts = entry.split(":")
            mode = parts[2] if len(parts) > 2 else "rw"
            if not entry.startswith("/") or len(parts) > 3 or "," in entry or mode not in ("ro", "rw"):
                raise ValueError(f"'{entry}': expected /folder, /folder:/inside or /folder:/inside:ro")
        return value

    @field_validator("variables")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [name for name in value if not name.isidentifier()]
        if wrong:
            raise ValueError(f"'{wrong[0]}': expected the name of a variable alone; values go into `environment`")
        return value

    def enter(self, arguments: Sequence[str], host: Host) -> list[str]:
        """Command that starts the image's Python with `arguments`.

        Raises:
            ConfigError: a folder has a name that `--bind` cannot take.
        """
        assert host.image is not None, "who submits has identified the image"
        names = dict.fromkeys([*host.variables, *self.variables])
        gpus = ["--nv"] if host.gpus else []
        binds = _binds([*map(_itself, host.folders), *self.bind])
        run = [
            self.program or self.command,
            "exec",
            "--cleanenv",
            "--no-home",
            "--pwd",
            "/",
            *gpus,
            *binds,
            *self.options,
        ]
        return ["bash", str(host.code / ENTER), *names, "--", *run, str(host.image), "python", *arguments]


def _itself(folder: Path) -> str:
    if any(sign in str(folder) for sign in SEPARATORS):
        raise ConfigError(f"the folder '{folder}' cannot be seen in a container: its path has a ':' or ',' in it")
    return str(folder)


def _binds(entries: Sequence[str]) -> list[str]:
    return [word for entry in entries for word in ("--bind", entry)]
