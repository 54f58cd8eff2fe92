"""How the machine that builds an image reaches packages, written where only the build sees it.

    host_view.py FOLDER             write FOLDER/{pip.conf,ca.pem,apt.conf,host.sh,mirror}; prints what else to bind
    host_view.py --reach URL...     fail, naming the host, when one of them cannot be reached

FOLDER is bound at /mnt while the definition runs. pip's settings are those of this machine (files and environment); the
local folders they name are bound below /mnt/local, one `SOURCE:TARGET` a line; pip's cache is used and kept.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

INSIDE = "/mnt"
PIP_KEYS = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "timeout", "retries")
PUBLIC_INDEX = "https://pypi.org/simple"
PUBLIC_MIRROR = "http://deb.debian.org/debian"
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
APT_KEYS = re.compile(r"Acquire::(https?::.*|Check-Valid-Until|Check-Date) ", re.IGNORECASE)
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")


def output_of(*command: str) -> str:
    """What a program prints; nothing where there is no such program or it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def pip_settings() -> dict[str, str]:
    """pip's settings by key, the environment above the files."""
    found = {}
    for line in output_of(sys.executable, "-m", "pip", "config", "list").splitlines():
        match = re.fullmatch(r"(global|install|:env:)\.([a-z-]+)=(.*)", line)
        if match:
            found[match[2].removeprefix("default-")] = str(ast.literal_eval(match[3]))
    return found


class LocalFolders:
    """Folders of this machine that pip reads, and where the build finds them."""

    def __init__(self) -> None:
        self.binds: dict[Path, str] = {}

    def inside(self, place: str) -> str:
        """A find-links folder or the URL of an index as the build must name it."""
        is_url = place.startswith("file:")
        path = Path(urlsplit(place).path if is_url else place)
        if not path.is_dir():
            return place
        # the pages of an index point to files beside the index: ../../files/
        top = path.resolve().parent if is_url and len(path.parts) > 2 else path.resolve()
        target = Path(self.binds.setdefault(top, f"{INSIDE}/local/{len(self.binds)}")) / path.resolve().relative_to(top)
        return f"file://{target}" if is_url else str(target)


def pip_conf(settings: dict[str, str], folders: LocalFolders, certificates: bool) -> str:
    """pip's settings for the build, in the form of its configuration file."""
    lines = ["[global]", "disable-pip-version-check = true", "no-input = true", "root-user-action = ignore"]
    for key in PIP_KEYS:
        if key in settings:
            lines.append(f"{key} = {' '.join(map(folders.inside, settings[key].split()))}")
    if certificates:
        lines.append(f"cert = {INSIDE}/ca.pem")
    return "\n".join(lines) + "\n"


def certificates_of(settings: dict[str, str]) -> Path | None:
    """The certificates that this machine trusts."""
    named = [settings.get("cert"), *map(os.environ.get, CERTIFICATES), *BUNDLES]
    return next((Path(name) for name in named if name and Path(name).is_file()), None)


def apt_conf() -> str:
    """How apt reaches its mirrors here: proxies, certificates, checks of dates."""
    lines = [line for line in output_of("apt-config", "dump").splitlines() if APT_KEYS.match(line)]
    return "".join(re.sub(r'(CaInfo) "[^"]+"', rf'\1 "{INSIDE}/ca.pem"', line) + "\n" for line in lines)


def debian_mirror() -> str:
    """The mirror of a Debian machine's own sources, else the public one."""
    release = Path("/etc/os-release").read_text(encoding="utf-8") if Path("/etc/os-release").exists() else ""
    if re.search(r"^ID=debian$", release, re.MULTILINE):
        answer = output_of(
            "apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)", "Created-By: Packages"
        )
        for address in answer.split():
            if re.fullmatch(r"https?://.*/debian/?", address):
                return address.rstrip("/")
    return PUBLIC_MIRROR


def host_sh(certificates: bool) -> str:
    """Environment of the build, as a shell file."""
    lines = [f"export PIP_CONFIG_FILE={INSIDE}/pip.conf PIP_CACHE_DIR={INSIDE}/pip-cache APT_CONFIG={INSIDE}/apt.conf"]
    if certificates:
        lines += [f"export {name}={INSIDE}/ca.pem" for name in CERTIFICATES]
    for name in (*PROXIES, *map(str.upper, PROXIES)):
        if name in os.environ:
            lines.append(f"export {name}={shlex.quote(os.environ[name])}")
    return "\n".join(lines) + "\n"


def write(folder: Path) -> list[str]:
    """Write the files into `folder`; what to bind beside it, as `SOURCE:TARGET`."""
    settings, folders = pip_settings(), LocalFolders()
    certificates = certificates_of(settings)
    if certificates:
        shutil.copyfile(certificates, folder / "ca.pem")
    (folder / "pip.conf").write_text(pip_conf(settings, folders, certificates is not None), encoding="utf-8")
    (folder / "apt.conf").write_text(apt_conf(), encoding="utf-8")
    (folder / "host.sh").write_text(host_sh(certificates is not None), encoding="utf-8")
    (folder / "mirror").write_text(debian_mirror(), encoding="utf-8")
    (folder / "index").write_text(settings.get("index-url", PUBLIC_INDEX).split()[0], encoding="utf-8")
    binds = {str(source): target for source, target in folders.binds.items()}
    cache = output_of(sys.executable, "-m", "pip", "cache", "dir").strip()
    if cache:
        Path(cache).mkdir(parents=True, exist_ok=True)
        binds[cache] = f"{INSIDE}/pip-cache"
    for target in [*binds.values(), f"{INSIDE}/pip-cache"]:  # where there is nothing to bind, a cache for this build
        (folder / target.removeprefix(f"{INSIDE}/")).mkdir(parents=True, exist_ok=True)
    return [f"{source}:{target}" for source, target in binds.items()]


def unreachable(address: str) -> str | None:
    """Why the host of an address, or the proxy before it, does not answer."""
    parts = urlsplit(address)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme == "file":
        return None
    try:
        socket.create_connection((host, port), timeout=15).close()
    except OSError as error:
        return f"{host}, port {port}: {error.strerror or error}"
    return None


def main(arguments: list[str]) -> int:
    """Do what the command line says."""
    if arguments[0] != "--reach":
        print("\n".join(write(Path(arguments[0]))))
        return 0
    reasons = [reason for reason in map(unreachable, arguments[1:]) if reason]
    print("\n".join(reasons), end="")
    return 6 if reasons else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
