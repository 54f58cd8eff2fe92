"""Made-up work for jobs on the test cluster, loaded by every Python process that has this folder first on PYTHONPATH.

`$CWDPO_MADE_UP` is a folder with rules.json: name of a stage, or of an artefact's folder -> what its job does. All
around the work is real: Slurm, the worker, claims, events, logs, verdicts. Without a rule a stage writes made-up files
at once, without torch, so that a test can have many of them.

    real     True: the stage itself computes
    say      a line for stderr
    hold     True: one step a moment until go/<name> (or go/<stage>) exists; a signal ends it as it ends a training
    deaf     True: it does not, when that is held
    take     megabytes to take until somebody ends it
    fail     [class, message]: an error that cannot be caused otherwise at this place
    memory   micro-batch above which a real training is out of memory in its third step; 0: while it keeps activations
    then     signal to this process itself, such as KILL

Beside rules.json, constants.json: module -> name -> value, waiting times of the commands, so that a test need not wait.
"""

import builtins
import importlib
import json
import os
import sys
import time
from dataclasses import replace

FOLDER = os.environ.get("CWDPO_MADE_UP")
PACE = 0.1


def read(name):
    path = os.path.join(FOLDER, name)
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)


def metrics(name):
    """Numbers that differ from artefact to artefact."""
    value = int(name[-6:], 16) / 16**6
    return {"bleu_4": value / 2, "meteor": value / 3, "rouge_l": value / 4, "cider": value}


def write(context, name):
    """Files as the stage leaves them."""
    numbers = metrics(name)
    rows = [{"id": str(row), "cider": numbers["cider"] + row / 100} for row in range(3)]
    summary = {
        "benchmark": "captions", "metrics": numbers, "unavailable": {}, "items": 3, "partial": False,
        "counts": {}, "notes": [], "harness": {},
    }  # fmt: skip
    texts = {"made_up.safetensors": name}
    if name.startswith("score"):
        from cwdpo.evaluate.items import write_items

        write_items(context.out, {row.pop("id"): row for row in rows})
        texts = {"scores.json": json.dumps(summary)}
    for file, text in texts.items():
        (context.out / file).write_text(text)


def hold(context, name, stage, deaf):
    from cwdpo.base.errors import Interrupted

    for step in range(1, 100000):
        context.event("step", step=step, total=100000, tokens_per_second=10.0)
        print(f"made up: step {step}", file=sys.stderr, flush=True)
        if context.stopping() and not deaf:
            raise Interrupted(f"stopped by a signal at step {step}")
        if any(os.path.exists(os.path.join(FOLDER, "go", wanted)) for wanted in (name, stage)):
            return
        time.sleep(PACE)


def error(kind, message):
    errors = importlib.import_module("cwdpo.base.errors")
    return getattr(errors, kind, getattr(builtins, kind, None))(message)


def short_of_memory(context, most):
    """The context of a training that runs out of memory in its third step."""
    import torch

    tight = context.execution.micro_batch > most if most else not context.execution.gradient_checkpointing

    def event(kind, **values):
        context.event(kind, **values)
        if tight and kind == "step" and values["step"] == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity")

    return replace(context, event=event)


class Work:
    """Stands in for the module of a stage."""

    def __init__(self, module):
        self.module = module

    def run(self, context):
        name = context.out.parents[2].name
        stage = name.partition("-")[0]
        rules = read("rules.json")
        rule = rules.get(name, rules.get(stage, {}))
        if "say" in rule:
            print(rule["say"], file=sys.stderr)
        if rule.get("hold"):
            hold(context, name, stage, rule.get("deaf"))
        if "then" in rule:
            import signal

            os.kill(os.getpid(), getattr(signal, f"SIG{rule['then']}"))
        if "take" in rule:
            taken = bytearray(rule["take"] * 10**6)
            time.sleep(60 + len(taken) * 0)
        if "fail" in rule:
            raise error(*rule["fail"])
        if "memory" in rule:
            context = short_of_memory(context, rule["memory"])
        if rule.get("real"):
            real_import(self.module).run(context)
        else:
            write(context, name)


def all_made_up(job):
    """True when no stage of this job needs torch."""
    rules = read("rules.json")
    names = [f"{stage['stage']}-{stage['id'][:16]}" for stage in job["stages"]]
    return not any(rules.get(name, rules.get(name.partition("-")[0], {})).get("real") for name in names)


def stand_in():
    """Stages of this rank are made up from now on."""
    from cwdpo.jobs import worker
    from cwdpo.pipeline import STAGES

    modules = {stage.module for stage in STAGES.values()}
    real_main, prepare = worker.main, worker._prepare_torch

    def main(job, about):
        worker._prepare_torch = (lambda *_: None) if all_made_up(job) else prepare
        return real_main(job, about)

    worker.main = main
    importlib.import_module = lambda name, package=None: Work(name) if name in modules else real_import(name, package)


if FOLDER:
    real_import = importlib.import_module
    if "cwdpo.jobs.slurm.task" in sys.orig_argv:
        stand_in()
    elif sys.orig_argv[1:3] == ["-m", "cwdpo"]:
        for module_name, values in read("constants.json").items():
            vars(real_import(module_name)).update(values)
