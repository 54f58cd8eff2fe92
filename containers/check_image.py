"""What `%test` runs inside an image: everything a job needs is there and works together. No GPU, no network, no home.

Every check says what it found; the first that fails ends with its reason and exit status 1, and the image is not kept.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

BESIDE = Path(__file__).resolve().parent
PACKAGES = (
    "torch",
    "transformers",
    "deepspeed",
    "peft",
    "accelerate",
    "datasets",
    "mlflow",
    "submitit",
    "pycocoevalcap",
)
CACHES = ("XDG_CACHE_HOME", "HF_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR")
OPERATIONS = {"AIO": "async_io", "DEEP_COMPILE": "dc"}
"""DeepSpeed operations whose name is not that of the variable (DS_BUILD_...) which asks for them."""
CANDIDATES = {"1": "a red square above a blue circle", "2": "two dogs run on the grass"}
REFERENCES = {
    "1": ["a red square is above a blue circle", "a square over a circle"],
    "2": ["two brown dogs running on grass", "dogs play in a green field"],
}


class Wrong(Exception):
    """A check found what an image must not be."""


def spelled(name: str) -> str:
    """One spelling for the names of packages."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> set[str]:
    """Names in the locks."""
    text = "".join((BESIDE / name).read_text(encoding="utf-8") for name in ("requirements.lock", "build.lock"))
    return set(map(spelled, re.findall(r"^([\w.-]+)==", text, re.MULTILINE)))


def importable(folders: Sequence[str]) -> dict[str, str]:
    """Name -> version and place of every package that Python finds in some folders."""
    found = distributions(path=list(folders))
    return {spelled(each.metadata["Name"]): f"{each.version} in {each.locate_file('')}" for each in found}


def only_what_is_locked() -> str:
    """Nothing can be imported but what is locked, torch with its own libraries, and this program.

    What else a base brings (torchvision, apex, ...) would let libraries choose other code than elsewhere.
    """
    found, of_torch = importable(sys.path), importable([str(BESIDE / "of_the_base")])
    strangers = found.keys() - locked() - of_torch.keys() - {"cwdpo", "pip"}
    if strangers:
        named = ", ".join(f"{name} {found[name]}" for name in sorted(strangers))
        path = os.environ.get("PYTHONPATH", "")
        raise Wrong(f"importable, and neither locked nor torch's: {named} (PYTHONPATH is '{path}')")
    return f"{len(found)} importable, all of them locked or torch's ({', '.join(sorted(of_torch))})"


def versions() -> str:
    """Every package that jobs import can be imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    found = [importlib.import_module(name) for name in PACKAGES]
    return ", ".join(f"{module.__name__} {getattr(module, '__version__', 'ok')}" for module in found)


def torch_is_the_bases() -> str:
    """The torch that is imported is the one the base came with."""
    import torch

    expected = (BESIDE / "constraints.txt").read_text(encoding="utf-8").strip().removeprefix("torch==")
    if torch.__version__ != expected:
        raise Wrong(f"the base's torch is {expected}, the image imports {torch.__version__} from {torch.__file__}")
    return f"torch {expected} from {Path(torch.__file__).parent}"


def compiled_operations() -> str:
    """The DeepSpeed operations that were asked for are in the image, and compiled for GPUs."""
    wanted = (BESIDE / "deepspeed_ops").read_text(encoding="utf-8").strip()
    if wanted == "none":
        return "none asked for"
    from deepspeed.git_version_info import accelerator_name, installed_ops

    if accelerator_name != "cuda":
        raise Wrong(f"{wanted} should be compiled for cuda, and DeepSpeed was built for '{accelerator_name}'")
    missing = [name for name in wanted.split(",") if not installed_ops.get(OPERATIONS.get(name, name.lower()))]
    if missing:
        raise Wrong(f"not compiled: {', '.join(missing)}; DeepSpeed has {installed_ops}")
    return wanted


def tokens_and_scores() -> str:
    """Java, the tokeniser, METEOR and CIDEr work."""
    from cwdpo.metrics.captions import score_captions

    scores = score_captions(CANDIDATES, REFERENCES)
    if scores.unavailable:
        raise Wrong("; ".join(f"{name}: {reason}" for name, reason in scores.unavailable.items()))
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.corpus.items() if value is not None)


def command(*arguments: str) -> str:
    """The first line that a program prints."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise Wrong(f"{' '.join(arguments)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return (done.stdout or done.stderr).strip().splitlines()[0]


def plan() -> str:
    """The command line plans the demo without a home folder."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["CWDPO_HOME"] = home
        return command("cwdpo", "plan", "--grid", "demo")


CHECKS = {
    "packages": only_what_is_locked,
    "java": lambda: command("java", "-version"),
    "cwdpo": lambda: command("cwdpo", "--version"),
    "plan": plan,
    "torch": torch_is_the_bases,
    "scores": tokens_and_scores,
    "imports": versions,
    "operations": compiled_operations,
}


def main() -> int:
    """Run every check; what programs cache on the way is gone at the end."""
    with tempfile.TemporaryDirectory() as room:
        os.environ.update(dict.fromkeys(CACHES, room))
        return run_checks()


def run_checks() -> int:
    """Run every check until one fails."""
    for name, check in CHECKS.items():
        try:
            print(f"{name}: {check()}", flush=True)
        except (Wrong, ImportError, OSError) as error:
            print(f"{name}: FAILED: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
