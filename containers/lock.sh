#!/usr/bin/env bash
# Pin what the virtual environment holds: every package but torch (pinned in torch.lock) and this one, with the hashes
# of all its files. To change a version: install it into .venv by hand, run the tests, then `make lock`.
set -euo pipefail
python=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m pip install --quiet --target "$work/uv" "uv>=0.9"
"$python" -m pip freeze --exclude-editable --exclude torch --exclude cwdpo |
    grep -viE '^(nvidia|triton|cuda)[-_a-z0-9]*==' >"$work/packages.in"   # what the CUDA build of torch brings along
{
    echo "# Every package beside torch, by hash; written by containers/lock.sh. Install with --no-deps --require-hashes."
    "$work/uv/bin/uv" pip compile "$work/packages.in" --quiet --no-deps --generate-hashes --universal \
        --no-annotate --no-header
} >"$work/requirements.lock"
mv "$work/requirements.lock" "$here/requirements.lock"
echo "$(grep -c '==' "$here/requirements.lock") packages pinned"
