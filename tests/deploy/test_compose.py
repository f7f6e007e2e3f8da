"""The stack is fit for unattended use: pinned, health-checked, limited, and without default secrets."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.deploy.compose import EXAMPLE, FILE, REQUIRED, ROOT, SANDBOX, filled_in, project, read
from tests.receivers.programs import installed

PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-[\w.]+)?")
RUN_ONCE = {"airflow-migrate"}
# Services with outbound access or a published port.
WITH_A_WAY_OUT = {"airflow-api-server", "airflow-worker", "grafana", "prometheus"}
WHO_NEEDS = {
    "AIRFLOW_ADMIN_PASSWORD": {"airflow-api-server"},
    "FORGE_API_TOKEN": {"airflow-worker", "sandbox"},
    "GRAFANA_ADMIN_PASSWORD": {"grafana"},
    # All Airflow components except the worker, which runs users' code.
    "POSTGRES_PASSWORD": {
        "airflow-api-server",
        "airflow-dag-processor",
        "airflow-migrate",
        "airflow-scheduler",
        "airflow-triggerer",
        "postgres",
    },
}


# These are visible in the list of processes.
VISIBLE = {"FORGE_APP_ID", "FORGE_EMAIL"}


def has_docker_compose() -> bool:
    docker = shutil.which("docker")
    return (
        docker is not None
        and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0
    )


@pytest.fixture(scope="module")
def values():
    return filled_in()


@pytest.fixture(scope="module")
def stack(values):
    return project(**values, **SANDBOX)


@pytest.fixture(scope="module")
def services(stack):
    return stack["services"]


def dockerfile_of(service):
    build = service["build"]
    return Path(build["context"]) / build.get("dockerfile", "Dockerfile")


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_secret_is_named_with_its_place(name, values):
    done = read({**values, name: ""})

    assert done.returncode != 0
    assert f"required variable {name} is missing a value: see .env.example" in done.stderr


def test_no_secret_has_a_default():
    text = FILE.read_text()

    assert set(re.findall(r"\$\{(\w+):\?", text)) == set(REQUIRED)
    assert set(re.findall(r"\$\{(\w+)(?!\w|:\?)", text)).isdisjoint(REQUIRED)


def test_all_other_variables_are_in_the_example():
    optional = set(re.findall(r"\$\{(\w+):-", FILE.read_text()))

    assert optional | SANDBOX.keys() == set(re.findall(r"^#(\w+)=", EXAMPLE.read_text(), re.MULTILINE))


def test_every_secret_comes_from_the_env_file(services, values):
    for name, service in services.items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD$|SECRET|TOKEN|_KEY$|REDISCLI_AUTH", variable):
                assert value in values.values(), f"{name}: {variable}"


@pytest.mark.parametrize("secret", WHO_NEEDS)
def test_a_secret_reaches_only_the_services_that_need_it(services, values, secret):
    holders = {name for name, service in services.items() if values[secret] in str(service)}

    assert holders == WHO_NEEDS[secret]


def test_no_secret_is_on_a_command_line(services, values):
    secrets = {value for name, value in values.items() if name not in VISIBLE}
    for name, service in services.items():
        told = str([service[key] for key in ("entrypoint", "command", "healthcheck") if key in service])
        assert not [secret for secret in secrets if secret in told], name


@pytest.mark.parametrize(
    ("written", "told"), [({}, ""), ({"FORGE_TOKEN_EXPIRES_ON": "2027-01-31"}, "2027-01-31")]
)
def test_the_last_day_of_the_token_reaches_the_connection(values, written, told):
    worker = project(**values, **written)["services"]["airflow-worker"]
    connection = json.loads(worker["environment"]["AIRFLOW_CONN_FORGE_DEFAULT"])

    assert connection["extra"]["token_expires_on"] == told


# Other tests read the file with compose-config. Without the client, there is nothing to run.
if has_docker_compose():

    @pytest.mark.parametrize("profile", ["", "sandbox"])
    def test_docker_compose_finds_nothing_to_complain_about(values, tmp_path, profile):
        env_file, example = tmp_path / ".env", EXAMPLE.read_text()
        env_file.write_text(re.sub(r"(?m)^(\w+)=$", lambda line: line[0] + values[line[1]], example))
        command = ["docker", "compose", f"--file={FILE}", f"--env-file={env_file}", f"--profile={profile}"]

        done = subprocess.run([*command, "config", "--quiet"], check=False, capture_output=True, text=True)

        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_sandbox_is_there_on_request_only(values):
    assert "sandbox" not in project(**values)["services"]


def test_images_are_pinned_by_version(services):
    for name, service in services.items():
        if "build" in service:
            froms = re.findall(r"^FROM (\S+)", dockerfile_of(service).read_text(), re.MULTILINE)
        else:
            froms = [service["image"]]
        assert froms
        assert all(PINNED.fullmatch(image) for image in froms), name


@pytest.mark.parametrize(
    ("program", "service"), [("prometheus", "prometheus"), ("otelcol", "otel-collector")]
)
def test_its_programs_have_the_versions_that_the_tests_run(services, program, service):
    tested = dict(line.split() for line in (ROOT / "tests/receivers/versions.txt").read_text().splitlines())[
        program
    ]
    service = services[service]
    told = dockerfile_of(service).read_text() if "build" in service else service["image"]

    assert re.search(rf":v?{re.escape(tested)}\b", told)


def test_each_service_has_a_health_check_and_each_dependency_waits_for_it(services):
    for name, service in services.items():
        assert service["healthcheck"].get("disable", False) is (name in RUN_ONCE), name
        for dependency, how in (service.get("depends_on") or {}).items():
            expected = "service_completed_successfully" if dependency in RUN_ONCE else "service_healthy"
            assert how["condition"] == expected, name


def test_the_database_is_healthy_only_once_it_accepts_connections(services):
    # The server that initializes an empty database listens on its socket only.
    assert "--host=127.0.0.1" in services["postgres"]["healthcheck"]["test"]


def test_the_logs_of_services_are_bounded(services):
    for name, service in services.items():
        assert service["logging"]["options"].keys() == {"max-file", "max-size"}, name


def test_none_runs_as_root_or_can_become_it(services):
    for name, service in services.items():
        assert int(service["user"].partition(":")[0]) > 0, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_each_service_has_its_limits(services):
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert 0 < float(limits["cpus"]) <= 2, name
        assert 0 < int(limits["memory"]) <= 2 * 1024**3, name


def test_ports_are_open_to_this_machine_only(services):
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name


def test_only_services_that_need_the_internet_can_reach_it(stack):
    ways_out = {name for name, network in stack["networks"].items() if not network.get("internal")}
    leaving = {name for name, each in stack["services"].items() if each["networks"].keys() & ways_out}

    assert leaving == WITH_A_WAY_OUT


def test_every_mounted_file_is_there_and_cannot_be_written_to(services):
    mounts = [
        mount
        for service in services.values()
        for mount in service.get("volumes", [])
        if mount["type"] == "bind"
    ]

    assert len(mounts) >= 6
    for mount in mounts:
        assert mount["read_only"]
        assert Path(mount["source"]).exists(), mount["source"]


def test_all_dags_are_in_the_mounted_folder(services):
    for name in ("airflow-dag-processor", "airflow-worker"):
        [dags] = [
            Path(mount["source"]) for mount in services[name]["volumes"] if mount["target"].endswith("/dags")
        ]
        names = {"forge_metrics.py", "forge_metrics_coverage.py", "forge_metrics_replay.py", "forge_usage.py"}
        assert {file.name for file in dags.glob("*.py")} == names


def test_every_volume_is_named_and_used(stack):
    used = Counter(
        mount["source"]
        for service in stack["services"].values()
        for mount in service.get("volumes", [])
        if mount["type"] == "volume"
    )

    assert used.keys() == stack["volumes"].keys()


def test_the_env_file_stays_out_of_git_and_of_images():
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_the_airflow_image_is_built_from_the_files_that_it_copies(tmp_path):
    dockerfile = ROOT / "deploy" / "airflow" / "Dockerfile"
    copied = re.findall(r"^COPY --chown=airflow:0 (.+) /opt/(\S+)$", dockerfile.read_text(), re.MULTILINE)
    let_in = (ROOT / ".dockerignore").read_text()
    for sources, target in copied:
        for source in sources.split():
            assert f"!{source}\n" in let_in
            into = tmp_path / target / (Path(source).name if target.endswith("/") else "")
            into.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-rT", str(ROOT / source), str(into)], check=True)

    out = tmp_path / "out"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*build, str(tmp_path / "forge")], check=True, capture_output=True)

    assert list(out.glob("airflow_provider_forge-*.whl"))
    assert (tmp_path / "airflow" / "deploy" / "api-server.sh").exists()


@pytest.mark.parametrize("sandbox", [True, False])
def test_a_new_env_file_has_all_secrets_and_is_never_overwritten(tmp_path, sandbox):
    installed("openssl")
    (tmp_path / ".env.example").write_text(EXAMPLE.read_text())
    command = [str(ROOT / "deploy" / "new-env.sh"), *["--sandbox"] * sandbox]

    subprocess.run(command, cwd=tmp_path, check=True)

    env = tmp_path / ".env"
    assert env.stat().st_mode & 0o077 == 0
    made = dict(re.findall(r"^(\w+)=(.*)$", env.read_text(), re.MULTILINE))
    account = {name for name in REQUIRED if name.startswith("FORGE_")}
    assert {name for name in REQUIRED if not made[name]} == (set() if sandbox else account)
    assert SANDBOX.items() <= made.items() if sandbox else made.keys() == set(REQUIRED)
    if sandbox:
        assert read(made).returncode == 0
    again = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert ".env already exists" in again.stderr


@pytest.mark.parametrize(
    ("argument", "path", "words"), [("--sandox", None, "unknown argument"), ("", "", "openssl is missing")]
)
def test_a_new_env_file_is_whole_or_not_there(tmp_path, argument, path, words):
    (tmp_path / ".env.example").write_text(EXAMPLE.read_text())
    command = ["/bin/bash", str(ROOT / "deploy" / "new-env.sh"), *[argument] * bool(argument)]
    env = os.environ if path is None else {"PATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert words in done.stderr
    assert [file.name for file in tmp_path.glob(".env*")] == [".env.example"]


def test_behind_a_proxy_the_services_talk_to_each_other_directly(values):
    services = project(**values, COMPOSE_PROFILES="sandbox")["services"]
    addressed = {
        host
        for service in services.values()
        for value in (service.get("environment") or {}).values()
        for host in re.findall(r"[/@]([a-z-]+):\d{2,5}(?=[/\"]|$)", value or "")
    } | {"localhost", "127.0.0.1"}
    for name in ("airflow-worker", "airflow-scheduler", "airflow-triggerer", "otel-collector"):
        environment = services[name]["environment"]
        assert addressed <= set(environment["NO_PROXY"].split(",")), name
        assert environment["no_proxy"] == environment["NO_PROXY"]


def test_it_runs_on_a_machine_with_one_processor(values):
    for name, service in project(**values, CPUS="1")["services"].items():
        assert float(service["deploy"]["resources"]["limits"]["cpus"]) <= 1, name
