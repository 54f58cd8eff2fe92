"""`cwdpo fetch` against real servers: what is fetched is whole and right, or not there."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import REPO as REPO_FOLDER
from commands import command, cwdpo, environment, succeed
from harness import WORLD, Micro
from servers import COMMIT, Site, hub_site, serving

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError, DataError, NotAvailable, StoreError
from cwdpo.data.assets import Files, read_asset
from cwdpo.data.assets.urls import check_files, fetch_files

CONTENT = random.Random(0).randbytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
REPO = "org/tiny"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(files={"/blob": CONTENT})) as running:
        yield running


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cwdpo.data.assets.download.PAUSES", (0.01, 0.01, 0.01))


def asset(*urls: str, **more: object) -> Files:
    pin = {"sha256": DIGEST, "size": len(CONTENT)}
    content = {"kind": "urls", "description": "x", "files": [{"name": "blob", "urls": urls, **pin, **more}]}
    return validate(Files, content, "asset")


class Fetched:
    """Fetch into a folder, and look at it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "to"
        self.receipt = self.folder / "x.json"
        self.said: list[str] = []

    def fetch(self, wanted: Files) -> str:
        return fetch_files("x", wanted, self.folder, self.receipt, self.said.append).state

    def check(self, wanted: Files) -> str:
        return check_files("x", wanted, self.folder, self.receipt).state

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file())

    def holds_it(self) -> bool:
        return (self.folder / "blob").read_bytes() == CONTENT and self.names() == ["blob", "x.json"]


@pytest.fixture
def here(tmp_path: Path) -> Fetched:
    return Fetched(tmp_path)


def test_a_file_is_fetched_once_and_checked_offline(site: Site, here: Fetched) -> None:
    wanted = asset(f"{site.url}/blob")
    assert here.fetch(wanted) == "fetched"
    assert here.holds_it()
    traffic = site.traffic
    assert here.fetch(wanted) == "present"
    assert here.check(wanted) == "checked"
    assert site.traffic == traffic
    assert json.loads(here.receipt.read_text())["files"] == {"blob": {"bytes": len(CONTENT), "sha256": DIGEST}}


def test_a_connection_that_closes_is_gone_on_with(site: Site, here: Fetched) -> None:
    site.breaks["/blob"] = 3
    assert here.fetch(asset(f"{site.url}/blob")) == "fetched"
    assert here.holds_it()
    assert site.traffic == len(CONTENT), "what had arrived was not fetched again"
    assert any("closed after 1500000 of 3000000 bytes" in text for text in here.said)


def test_a_server_without_ranges_is_asked_from_the_start(site: Site, here: Fetched) -> None:
    site.ranges = False
    site.breaks["/blob"] = 1
    assert here.fetch(asset(f"{site.url}/blob")) == "fetched"
    assert here.holds_it()


def test_a_busy_server_is_asked_again(site: Site, here: Fetched) -> None:
    site.status["/blob"] = [500, 503, 429]
    assert here.fetch(asset(f"{site.url}/blob")) == "fetched"
    assert here.holds_it()


def test_a_server_that_stays_broken_is_a_reason(site: Site, here: Fetched) -> None:
    site.status["/blob"] = [500] * 10
    with pytest.raises(NotAvailable, match=r"/blob: HTTP 500"):
        here.fetch(asset(f"{site.url}/blob"))
    assert site.asked["/blob"] == 4
    assert here.names() == []


@pytest.mark.parametrize(("status", "meaning"), [(401, "access is refused"), (403, "refused"), (404, "no such file")])
def test_a_refusal_is_final(site: Site, here: Fetched, status: int, meaning: str) -> None:
    site.status["/blob"] = [status] * 10
    with pytest.raises(NotAvailable, match=rf"/blob: HTTP {status} .*{meaning}"):
        here.fetch(asset(f"{site.url}/blob"))
    assert site.asked["/blob"] == 1


def test_the_next_address_is_asked(site: Site, here: Fetched) -> None:
    site.files["/wrong"] = CONTENT[:-1] + b"!"
    assert here.fetch(asset(f"{site.url}/no", f"{site.url}/wrong", f"{site.url}/blob")) == "fetched"
    assert here.holds_it()


@pytest.mark.parametrize("pin", ["sha256", "sha1"])
def test_wrong_bytes_are_removed_and_both_digests_named(site: Site, here: Fetched, pin: str) -> None:
    wrong = CONTENT[:-1] + b"!"
    site.files["/blob"] = wrong
    expected = hashlib.new(pin, CONTENT).hexdigest()
    wanted = asset(f"{site.url}/blob", **{"sha256": None, pin: expected})
    found = hashlib.new(pin, wrong).hexdigest()
    with pytest.raises(DataError, match=rf"removed\n.*/blob: expected {pin} {expected}, found {found}"):
        here.fetch(wanted)
    assert here.names() == []


def test_a_wrong_size_is_named(site: Site, here: Fetched) -> None:
    with pytest.raises(DataError, match="expected 5 bytes, found 3000000"):
        here.fetch(asset(f"{site.url}/blob", size=5))


def test_no_network_names_the_host_and_the_remedy(here: Fetched) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/blob"
        with pytest.raises(NotAvailable, match=r"127\.0\.0\.1.*no connection \(Connection refused\)\nrun this where"):
            here.fetch(asset(url))
    with pytest.raises(NotAvailable, match=r"no-such-host\.invalid/blob: no connection"):
        here.fetch(asset("https://no-such-host.invalid/blob"))


def test_a_silent_server_is_given_up(site: Site, here: Fetched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cwdpo.data.assets.download.SILENCE_SECONDS", 0.2)
    site.files["/blob"] = CONTENT[:40_000]
    site.drip["/blob"] = 1.0
    monkeypatch.setattr("cwdpo.data.assets.download.PAUSES", ())
    with pytest.raises(NotAvailable, match="timed out"):
        here.fetch(asset(f"{site.url}/blob"))


def test_a_full_disk_leaves_nothing(site: Site, here: Fetched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(StoreError, match=r"no space for .*: 3 MB are needed, 0 MB are free"):
        here.fetch(asset(f"{site.url}/blob"))
    assert here.names() == []


def test_a_folder_that_cannot_be_made(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot write .*: a part of the path is a file, not a folder"):
        Fetched(tmp_path / "file").fetch(asset(f"{site.url}/blob"))
    done = cwdpo("fetch", asset_file(tmp_path, f"{site.url}/blob"), "--to", tmp_path / "file")
    assert done.returncode == 2
    assert "file is a file; name a folder" in done.stderr


def test_a_file_brought_by_hand_is_taken(here: Fetched) -> None:
    here.folder.mkdir()
    (here.folder / "blob").write_bytes(CONTENT)
    assert here.fetch(asset("https://no-such-host.invalid/blob")) == "fetched"


def test_what_a_dead_process_left_is_gone_on_with(site: Site, here: Fetched) -> None:
    here.folder.mkdir()
    (here.folder / f".blob.{socket.gethostname()}-99999999.part").write_bytes(CONTENT[:2_000_000])
    assert here.fetch(asset(f"{site.url}/blob")) == "fetched"
    assert here.holds_it()
    assert site.traffic == 1_000_000


@pytest.mark.parametrize("left", [b"x" * 1000, CONTENT + b"more"])
def test_what_does_not_fit_is_fetched_anew(site: Site, here: Fetched, left: bytes) -> None:
    here.folder.mkdir()
    (here.folder / f".blob.{socket.gethostname()}-99999999.part").write_bytes(left)
    assert here.fetch(asset(f"{site.url}/blob")) == "fetched"
    assert here.holds_it()


def test_what_a_living_process_writes_is_left_alone(site: Site, here: Fetched) -> None:
    here.folder.mkdir()
    other = here.folder / f".blob.{socket.gethostname()}-{os.getppid()}.part"
    other.write_bytes(b"half")
    assert here.fetch(asset(f"{site.url}/blob")) == "fetched"
    assert other.read_bytes() == b"half"


def test_without_a_digest_it_is_said_and_recorded(site: Site, here: Fetched) -> None:
    loose = asset(f"{site.url}/blob", sha256=None, size=None)
    outcome = fetch_files("x", loose, here.folder, here.receipt, here.said.append)
    assert outcome.notes == (
        "blob is not pinned; these are the bytes that came, for its asset file:"
        f" {{sha256: {DIGEST}, size: {len(CONTENT)}}}",
    )
    assert here.check(loose) == "checked"


def test_a_web_page_instead_of_a_jar_is_refused(site: Site, here: Fetched) -> None:
    site.files["/x.jar"] = b"<html>please log in</html>"
    loose = asset(f"{site.url}/x.jar", name="x.jar", sha256=None, size=None)
    with pytest.raises(DataError, match=r"x\.jar: not a zip archive \(26 bytes\)"):
        here.fetch(loose)
    assert here.names() == []


def test_check_names_what_is_wrong(site: Site, here: Fetched) -> None:
    wanted = asset(f"{site.url}/blob")
    with pytest.raises(NotAvailable, match=r"was not fetched to .*run the same without --check"):
        here.check(wanted)
    here.fetch(wanted)
    (here.folder / "blob").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(DataError, match=rf"blob: expected sha256 {DIGEST}, found"):
        here.check(wanted)
    (here.folder / "blob").unlink()
    with pytest.raises(DataError, match=r"blob: missing\nremove them and run: cwdpo fetch x"):
        here.check(wanted)
    with pytest.raises(NotAvailable, match="asset file has changed"):
        here.check(asset(f"{site.url}/blob", sha256="0" * 64))
    assert here.fetch(wanted) == "fetched", "what is gone is fetched again"


def test_other_addresses_are_the_same_asset(site: Site, here: Fetched) -> None:
    here.fetch(asset(f"{site.url}/blob"))
    assert here.fetch(asset("https://elsewhere.invalid/blob")) == "present"


def tar_of(*entries: tarfile.TarInfo) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for entry in entries:
            content = b"evil"[: entry.size] if entry.isreg() else b""
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, target, 4 if kind == tarfile.REGTYPE else 0
    return made


def zip_of(**files: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return made.getvalue()


def archive(site: Site, content: bytes) -> Files:
    site.files["/archive"] = content
    pin = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    return asset(f"{site.url}/archive", unpack=True, **pin)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_unpacked(site: Site, here: Fetched, kind: str) -> None:
    content = zip_of(a__b=b"evil", c=b"evil") if kind == "zip" else tar_of(entry("a/b"), entry("c"))
    wanted = archive(site, content)
    assert here.fetch(wanted) == "fetched"
    assert here.names() == ["b", "c", "x.json"]
    assert (here.folder / "a" / "b").read_bytes() == b"evil"
    assert here.fetch(wanted) == "present"
    assert here.check(wanted) == "checked"


@pytest.mark.parametrize(
    "evil",
    [
        tar_of(entry("../evil")),
        tar_of(entry("/tmp/evil")),
        tar_of(entry("link", tarfile.SYMTYPE, "/tmp"), entry("link/evil")),
        tar_of(entry("hard", tarfile.LNKTYPE, "../x")),
        tar_of(entry("pipe", tarfile.FIFOTYPE)),
        zip_of(**{"..__..__evil": b"evil"}),
        zip_of(__evil=b"evil"),
    ],
    # Said by hand: an archive holds the time it was made, and workers must collect the same names.
    ids=["up", "absolute", "through-a-link", "hard-link", "fifo", "zip-up", "zip-absolute"],
)
def test_an_archive_cannot_reach_outside(site: Site, here: Fetched, evil: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"would be written outside|is no plain file"):
        here.fetch(archive(site, evil))
    assert not list(tmp_path.glob("**/evil"))
    assert not here.receipt.exists()


def test_a_damaged_archive_is_named(site: Site, here: Fetched) -> None:
    with pytest.raises(DataError, match="neither a zip nor a tar"):
        here.fetch(archive(site, b"what"))
    content = bytearray(zip_of(a=b"evil" * 100))
    content[60] ^= 255
    with pytest.raises(DataError, match="is damaged: Bad CRC-32"):
        here.fetch(archive(site, bytes(content)))


def test_wrong_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for text, message in [
        ("kind: url\n", "kind: 'url'; did you mean 'urls'"),
        (
            "kind: urls\ndescription: x\nfiles: [{name: ../x, urls: ['https://x']}]\n",
            r"files\.0\.name: String should match",
        ),
        ("kind: urls\ndescription: x\nfiles: [{name: x, urls: ['ftp://x']}]\n", r"files\.0\.urls: .*https://"),
        ("kind: hub_model\ndescription: x\nrepo: a/b\nrevision: main\n", "revision: String should match"),
    ]:
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_asset(path)


@pytest.mark.parametrize(
    "path", sorted((REPO_FOLDER / "configs" / "assets").glob("*.yaml")), ids=lambda path: path.stem
)
def test_what_is_shipped_parses(path: Path) -> None:
    assert read_asset(path).description


# The command itself.


def asset_file(folder: Path, url: str) -> Path:
    path = folder / "thing.yaml"
    pins = f"sha256: {DIGEST}, size: {len(CONTENT)}"
    path.write_text(f"kind: urls\ndescription: x\nfiles: [{{name: blob, urls: ['{url}'], {pins}}}]\n")
    return path


def test_the_command_fetches_by_name_into_the_home(site: Site, tmp_path: Path) -> None:
    configs = tmp_path / "configs"
    (configs / "assets").mkdir(parents=True)
    asset_file(configs / "assets", f"{site.url}/blob")
    place = {"CWDPO_CONFIGS": str(configs), "CWDPO_HOME": str(tmp_path / "home")}
    found = json.loads(succeed(cwdpo("fetch", "thing", "--json", **place)))
    (only,) = found["assets"]
    assert (only["name"], only["state"], only["bytes"]) == ("thing", "fetched", len(CONTENT))
    assert (tmp_path / "home" / "assets" / "thing" / "blob").read_bytes() == CONTENT
    assert (tmp_path / "home" / "assets" / "thing.json").is_file()
    assert "thing: there already" in succeed(cwdpo("fetch", "thing", **place))
    assert "thing: every byte is as it was fetched" in succeed(cwdpo("fetch", "thing", "--check", **place))
    unknown = cwdpo("fetch", "thin", **place)
    assert unknown.returncode == 2
    assert "unknown asset 'thin'; did you mean 'thing'? valid: thing" in unknown.stderr
    nothing = cwdpo("fetch", **place)
    assert nothing.returncode == 2
    assert "name it, or say --grid GRID; known in" in nothing.stderr


def test_kill_leaves_nothing_under_the_name_and_the_next_run_completes(site: Site, tmp_path: Path) -> None:
    site.drip["/blob"] = 0.02
    to = tmp_path / "to"
    line = command("fetch", asset_file(tmp_path, f"{site.url}/blob"), "--to", to)
    running = subprocess.Popen(line, env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 200_000 for path in to.glob(".blob.*.part")):
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (to / "blob").exists()
    (left,) = to.iterdir()
    had = left.stat().st_size
    site.drip.clear()
    time.sleep(0.1)
    before = site.traffic
    succeed(cwdpo("fetch", tmp_path / "thing.yaml", "--to", to))
    assert (to / "blob").read_bytes() == CONTENT
    assert sorted(path.name for path in to.iterdir()) == ["blob", "thing.json"]
    assert site.traffic - before == len(CONTENT) - had


# The hub. The server is a stand-in; the library that talks to it, its cache and what reads that are the real ones.


@pytest.fixture
def hub(micro: Micro) -> Iterator[Site]:
    extra = {"pytorch_model.bin": b"the same weights again", "onnx/model.safetensors": b"and again", "README.md": b"#"}
    with serving(hub_site(REPO, micro.model, extra)) as running:
        yield running


def hub_grid(folder: Path, revision: str | None) -> Path:
    path = folder / "hub.yaml"
    pin = f", revision: {revision}" if revision else ""
    path.write_text(
        f"""description: a model of the hub
base:
  data: {{source: demo_world, world: {json.dumps(WORLD)}}}
  model: {{source: checkpoint, path: {REPO}, dtype: float32{pin}}}
  benchmarks: [{{name: captions}}]
"""
    )
    return path


def place(folder: Path, hub: Site | None) -> dict[str, str]:
    """An empty hub cache and home; without a hub, as in a job."""
    online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"} if hub else {"HF_HUB_OFFLINE": "1"}
    settings = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "", "HF_HUB_ETAG_TIMEOUT": "5"}
    return {"HF_HOME": str(folder / "hf"), "CWDPO_HOME": str(folder / "home"), **settings, **online}


def snapshot(folder: Path) -> Path:
    return folder / "hf" / "hub" / "models--org--tiny" / "snapshots" / COMMIT


@pytest.mark.parametrize("revision", [COMMIT, None])
def test_a_grid_finds_its_model_offline(hub: Site, tmp_path: Path, micro: Micro, revision: str | None) -> None:
    grid = hub_grid(tmp_path, revision)
    offline = cwdpo("plan", "--strict", "--grid", grid, **place(tmp_path, None))
    assert offline.returncode == 3
    assert "run: cwdpo fetch --grid GRID" in offline.stderr
    told = succeed(cwdpo("fetch", "--grid", grid, **place(tmp_path, hub)))
    pin = f"is not pinned; put beside its path or repo in the YAML file: revision: {COMMIT}"
    assert (pin in told) == (revision is None)
    wanted = {path.name for path in micro.model.iterdir()}
    assert {path.name for path in snapshot(tmp_path).iterdir()} == wanted, "no weights in other formats"
    nodes = json.loads(succeed(cwdpo("plan", "--grid", grid, "--json", **place(tmp_path, None))))["nodes"]
    local = tmp_path / "local.yaml"
    local.write_text(hub_grid(tmp_path, None).read_text().replace(REPO, str(micro.model)))
    same = json.loads(succeed(cwdpo("plan", "--grid", local, "--json", **place(tmp_path, None))))["nodes"]
    assert [node["id"] for node in nodes] == [node["id"] for node in same]
    hub_grid(tmp_path, revision)
    told = succeed(cwdpo("fetch", "--grid", grid, "--check", **place(tmp_path, None)))
    assert f"{REPO}: every byte is as it was fetched" in told


def test_a_pinned_model_is_fetched_once(hub: Site, tmp_path: Path) -> None:
    grid = hub_grid(tmp_path, COMMIT)
    succeed(cwdpo("fetch", "--grid", grid, **place(tmp_path, hub)))
    asked = hub.asked.total()
    assert "there already" in succeed(cwdpo("fetch", "--grid", grid, **place(tmp_path, hub)))
    assert hub.asked.total() == asked
    receipt = json.loads((tmp_path / "home" / "assets" / f"org--tiny@{COMMIT[:12]}.json").read_text())
    assert receipt["source"]["revision"] == COMMIT
    digests = {name: sorted(entry) for name, entry in receipt["files"].items()}
    assert digests["model.safetensors"] == ["bytes", "sha256"]
    assert digests["config.json"] == ["bytes", "git_sha1"]


def test_bytes_that_the_hub_does_not_state_are_removed(hub: Site, tmp_path: Path) -> None:
    grid = hub_grid(tmp_path, COMMIT)
    path = f"/{REPO}/resolve/{COMMIT}/model.safetensors"
    right = hub.files[path]
    hub.files[path] = right[:-1] + bytes([right[-1] ^ 1])
    done = cwdpo("fetch", "--grid", grid, **place(tmp_path, hub))
    assert done.returncode == 3
    found = hashlib.sha256(hub.files[path]).hexdigest()
    assert f"model.safetensors: expected sha256 {hashlib.sha256(right).hexdigest()}, found {found}" in done.stderr
    assert not (snapshot(tmp_path) / "model.safetensors").exists()
    assert not list((tmp_path / "home").glob("assets/*.json"))
    hub.files[path] = right
    succeed(cwdpo("fetch", "--grid", grid, **place(tmp_path, hub)))
    blob = (snapshot(tmp_path) / "model.safetensors").resolve()
    blob.write_bytes(right[:-1])
    done = cwdpo("fetch", "--grid", grid, "--check", **place(tmp_path, None))
    assert done.returncode == 3
    assert f"model.safetensors: expected {len(right)} bytes, found {len(right) - 1}" in done.stderr


def test_a_kill_in_the_middle_of_a_model(hub: Site, tmp_path: Path) -> None:
    grid = hub_grid(tmp_path, COMMIT)
    path = f"/{REPO}/resolve/{COMMIT}/model.safetensors"
    hub.drip[path] = 0.05
    running = subprocess.Popen(
        command("fetch", "--grid", grid), env=environment(**place(tmp_path, hub)), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while hub.sent[path] < 100_000:
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (snapshot(tmp_path) / "model.safetensors").exists()
    offline = cwdpo("plan", "--strict", "--grid", grid, **place(tmp_path, None))
    assert offline.returncode == 3
    assert "only in part" in offline.stderr
    hub.drip.clear()
    succeed(cwdpo("fetch", "--grid", grid, **place(tmp_path, hub)))
    succeed(cwdpo("plan", "--grid", grid, **place(tmp_path, None)))


def test_a_data_set_of_the_hub(tmp_path: Path) -> None:
    content = tmp_path / "content"
    (content / "data").mkdir(parents=True)
    (content / "data" / "a.parquet").write_bytes(b"rows")
    (content / "README.md").write_bytes(b"#")
    path = tmp_path / "rows.yaml"
    pins = f"repo: org/rows\nrevision: {COMMIT}\ninclude: ['data/*.parquet']\n"
    path.write_text(f"kind: hub_dataset\ndescription: x\n{pins}")
    with serving(hub_site("org/rows", content, kind="datasets")) as running:
        found = json.loads(succeed(cwdpo("fetch", path, "--json", **place(tmp_path, running))))["assets"][0]
    assert list(found["files"]) == ["data/a.parquet"]
    assert (Path(found["folder"]) / "data" / "a.parquet").read_bytes() == b"rows"
    assert found["commit"] == COMMIT
    elsewhere = cwdpo("fetch", path, "--to", tmp_path / "x", **place(tmp_path, None))
    assert elsewhere.returncode == 2
    assert "HF_HOME=FOLDER moves that" in elsewhere.stderr


GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model org/tiny is restricted."}


def test_what_the_hub_refuses_is_said_plainly(hub: Site, tmp_path: Path) -> None:
    grid = hub_grid(tmp_path, COMMIT)
    about = f"/api/models/{REPO}/revision/{COMMIT}"

    def refusal(**more: str) -> str:
        done = cwdpo("fetch", "--grid", grid, **{**place(tmp_path, hub), **more})
        assert done.returncode == 6, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    offline = refusal(HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set" in offline
    hub.errors[about] = (403, GATED)
    told = refusal(HF_TOKEN="hf_secretsecret")
    assert "accept its licence at https://huggingface.co/org/tiny and set HF_TOKEN" in told
    assert "there is one, but it does not open this" in told
    assert "hf_secretsecret" not in told
    hub.errors[about] = (401, {"X-Error-Code": "RepoNotFound"})
    assert "has no such model, or it is private" in refusal()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert "cannot reach 127.0.0.1" in refusal(HF_ENDPOINT=f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert not list(tmp_path.glob("home/assets/*"))


def test_names_of_models_are_known_too(tmp_path: Path) -> None:
    done = cwdpo("fetch", "qwen2.5-vl-7b", "--check", **place(tmp_path, None))
    assert done.returncode == 6
    assert "Qwen/Qwen2.5-VL-7B-Instruct was not fetched to" in done.stderr
