"""Stand-ins for the images of docker-compose.yaml, under the same names: no registry is asked."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.deploy.compose import ROOT, SANDBOX, project
from tests.receivers.programs import cache, program

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

if TYPE_CHECKING:
    from tests.compose.engine import Engine

IMAGES = Path(__file__).with_name("images")
BASE = "stand-in-root:local"
EXTRAS = ("fast", "redis", "sandbox")
"""Those of the package that deploy/airflow/Dockerfile installs."""


def stand_in_names() -> dict[str, str]:
    """Return the name of each image that the stack pulls, by the target of images/Dockerfile."""
    services = project(**SANDBOX)["services"]
    names = {name: services[name]["image"] for name in ("postgres", "redis", "prometheus", "grafana")}
    files = [(ROOT / "deploy" / part / "Dockerfile").read_text() for part in ("airflow", "collector")]
    bases = {
        image.partition(":")[0]: image
        for text in files
        for image in re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    }
    return {
        **names,
        "airflow": bases["apache/airflow"],
        "busybox": bases["busybox"],
        "collector": bases["otel/opentelemetry-collector-contrib"],
    }


def build(engine: Engine, context: Path) -> None:
    """Build all stand-ins.

    Args:
        context: A new directory, to which the images' files are copied.
    """
    names = stand_in_names()
    version = re.match(r"[\d.]+", names["airflow"].partition(":")[2])[0]
    root = rootfs(version)
    into_image = f'tar --directory "$1" --create . | docker import - {BASE}'
    command = ["bash", "-o", "pipefail", "-c", into_image, "-", root]
    subprocess.run(command, env=engine.env, check=True, capture_output=True)
    context.mkdir()
    for path in [*IMAGES.iterdir(), root / "bin" / "busybox"]:
        shutil.copy(path, context)
    for name in ("otelcol", "prometheus", "promtool"):
        shutil.copy(program(name), context)
    options = ["--network=none", "--quiet", f"--build-arg=AIRFLOW_VERSION={version}"]
    for target, name in names.items():
        engine.docker("build", *options, f"--target={target}", f"--tag={name}", str(context))


def rootfs(version: str) -> Path:
    """Return a directory with a Debian that has all servers and this Airflow, made once and kept.

    It takes a few minutes to make, and packages of Debian and of Python.
    """
    script = IMAGES / "rootfs.sh"
    told = [version, *requirements()]
    key = hashlib.sha256("\n".join([script.read_text(), *told]).encode()).hexdigest()[:12]
    target = cache() / f"rootfs-{key}"
    if not target.exists():
        making = cache() / f"building.rootfs-{os.getpid()}"
        try:
            subprocess.run([script, making, *told], check=True, capture_output=True, text=True)
            making.rename(target)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return target


def requirements() -> list[str]:
    """Return the requirements of the package beyond Airflow, and those of its build."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = settings["project"]["optional-dependencies"]
    return [*settings["build-system"]["requires"], *(each for extra in EXTRAS for each in extras[extra])]
