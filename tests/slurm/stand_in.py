"""Stands in for the work of a job: `stand_in.py TEMPLATE RECORD INDEX` copies what it would have computed.

TEMPLATE is a home whose artefacts were made up (`pretend.py`). A stage that is there already leaves a note in
RECORD/../../twice.
"""

import json
import os
import shutil
import sys


def main(template, record, index):
    with open(os.path.join(record, "jobs.jsonl")) as file:
        job = next(row for row in map(json.loads, file) if row["index"] == int(index))
    for stage in job["stages"]:
        name = f"{stage['stage']}-{stage['id'][:16]}"
        target = os.path.join(job["home"], "store", name)
        if os.path.exists(target):
            with open(os.path.join(record, "..", "..", "twice"), "a") as file:
                file.write(f"{name}\n")
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copytree(os.path.join(template, "store", name), f"{target}.tmp")
        os.rename(f"{target}.tmp", target)


main(*sys.argv[1:])
