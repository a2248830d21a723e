"""deploy.sh, with a stand-in for Python that notes what it is asked: no network, no second installation."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What `python -m venv` makes here is this script again, and a relaygate that answers `check` as the real one does.
PYTHON = """#!/bin/bash
echo "$(basename "$0") $*" >>"$LOG"
case "$*" in
  *sys.version_info*) exit "${OLD:-0}" ;;
  *ensurepip*) exit "${NO_VENV:-0}" ;;
  --version) echo "Python 3.0" ;;
  "-m venv"*)
    for folder; do :; done
    mkdir -p "$folder/bin"
    cp "$0" "$folder/bin/python"
    cp "$(dirname "$0")/relaygate" "$folder/bin/" ;;
  *"pip"*) exit "${NO_PIP:-0}" ;;
esac
"""
RELAYGATE = """#!/bin/bash
echo "relaygate $*" >>"$LOG"
echo "$1: private=${RELAYGATE_ALLOW_PRIVATE_TARGETS-unset}" >>"$LOG.private"
[[ "$*" != *--bad* ]] || { echo "relaygate: bad" >&2; exit 2; }
if [[ "$*" == *--local-target* && ${RELAYGATE_ALLOW_PRIVATE_TARGETS-} != true ]]; then
  echo "relaygate: private" >&2
  exit 2
fi
if [[ $1 == check ]]; then
  printf '%s\\n' "listen: ${LISTEN:-http://127.0.0.1:8000}" "/openai https://api.openai.com" "1 route ok"
fi
"""


class Deployment:
    """A copy of the repository's deploy.sh beside stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "relay gate"
        self.log = folder / "log"
        self._private = folder / "log.private"
        self.working_directory = folder / "work"
        self.working_directory.mkdir()
        (self.folder / "scripts").mkdir(parents=True)
        (folder / "bin").mkdir()
        for name in ("deploy.sh", "sysctl", "requirements.lock", "requirements-dev.lock", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.folder / name)
        self.python = self._script(folder / "bin" / "python3", PYTHON)
        self._script(folder / "bin" / "relaygate", RELAYGATE)
        self._script(self.folder / "scripts" / "test", '#!/bin/bash\necho "tests $*" >>"$LOG"\nexit 5\n')

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        self._private.unlink(missing_ok=True)
        fixed = {"PATH": os.environ["PATH"], "LOG": str(self.log), "PYTHON": str(self.python)}
        command = [str(self.folder / "deploy.sh"), *arguments]
        return subprocess.run(
            command,
            cwd=self.working_directory,
            env=fixed | environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def asked(self) -> str:
        """Everything that the stand-ins were asked in the last run."""
        return self.log.read_text()

    def private_targets(self) -> str:
        """Which private targets `relaygate serve` was started with; empty if it was not started."""
        return "".join(line for line in self._private.read_text().splitlines() if line.startswith("serve: "))

    def _script(self, path: Path, text: str) -> Path:
        path.write_text(text)
        path.chmod(0o755)
        return path


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def test_the_first_run_installs_from_the_lock_and_starts(deployment: Deployment) -> None:
    done = deployment.run("--", "--port", "8000")
    assert done.returncode == 0, done.stderr
    assert "starting on http://127.0.0.1:8000 with 1 route;" in done.stdout
    assert "try: curl -N http://127.0.0.1:8000/openai/v1/models" in done.stdout
    asked = deployment.asked()
    assert f"--require-hashes --requirement {deployment.folder}/requirements.lock" in asked
    assert "--no-index --no-build-isolation --no-deps" in asked
    assert asked.endswith("relaygate check --port 8000\nrelaygate serve --port 8000\n")


def test_it_installs_again_only_when_the_lock_has_changed(deployment: Deployment) -> None:
    deployment.run("--install")
    deployment.run("--install")
    assert "pip --quiet install" not in deployment.asked()
    with (deployment.folder / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    deployment.run("--install")
    assert "pip --quiet install" in deployment.asked()
    assert "-m venv" not in deployment.asked()


def test_an_installation_that_failed_is_done_again(deployment: Deployment) -> None:
    done = deployment.run("--install", NO_PIP="1")
    assert (done.returncode, done.stderr) == (1, "deploy: the installation failed\n")
    assert deployment.run("--install").returncode == 0
    assert "pip --quiet install" in deployment.asked()


def test_test_installs_the_development_tools_and_hands_on_the_status(deployment: Deployment) -> None:
    assert deployment.run("--test", "--", "-k", "x").returncode == 5
    assert "requirements-dev.lock" in deployment.asked()
    assert deployment.asked().endswith("tests -k x\n")


def test_production_has_a_worker_for_each_core_and_can_be_overruled(deployment: Deployment) -> None:
    deployment.run("--production", "--", "--workers", "3")
    cores = len(os.sched_getaffinity(0))
    assert deployment.asked().endswith(f"relaygate serve --workers {cores} --workers 3\n")


TRIAL = "deploy: targets may be private addresses, so that one can try it here: RELAYGATE_ALLOW_PRIVATE_TARGETS=true\n"


@pytest.mark.parametrize(
    "listen", ["http://127.0.0.1:8000", "https://127.0.0.1:1", "http://127.9.9.9:8000", "http://[::1]:8000"]
)
def test_on_loopback_a_private_target_can_be_tried(deployment: Deployment, listen: str) -> None:
    done = deployment.run("--", "--local-target", LISTEN=listen)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(TRIAL) == 1
    assert deployment.private_targets() == "serve: private=true"


@pytest.mark.parametrize(
    "listen", ["http://0.0.0.0:8000", "http://[::]:8000", "http://192.0.2.1:8000", "http://12.7.0.1:1270"]
)
def test_elsewhere_it_cannot(deployment: Deployment, listen: str) -> None:
    done = deployment.run(LISTEN=listen)
    assert done.returncode == 0
    assert TRIAL not in done.stdout
    assert deployment.private_targets() == "serve: private=unset"
    done = deployment.run("--", "--local-target", LISTEN=listen)
    assert (done.returncode, done.stderr) == (2, "relaygate: private\n")


def test_nor_in_production(deployment: Deployment) -> None:
    done = deployment.run("--production")
    assert TRIAL not in done.stdout
    assert deployment.private_targets() == "serve: private=unset"


@pytest.mark.parametrize("value", ["true", "false"])
def test_what_the_caller_says_of_private_targets_stays(deployment: Deployment, value: str) -> None:
    for arguments in ([], ["--production"]):
        done = deployment.run(*arguments, RELAYGATE_ALLOW_PRIVATE_TARGETS=value)
        assert TRIAL not in done.stdout
        assert deployment.private_targets() == f"serve: private={value}"


@pytest.mark.parametrize(
    ("file", "text", "arguments", "environment"),
    [
        (".env", "RELAYGATE_ALLOW_PRIVATE_TARGETS=false", [], {}),
        (".env", "export RELAYGATE_CONFIG=elsewhere.yaml", [], {}),
        ("relaygate.yaml", "server:\n  allow_private_targets: false", [], {}),
        ("my own.yaml", "server: {port: 1, allow_private_targets: false}", ["--", "--config", "my own.yaml"], {}),
        ("my own.yaml", "server: {allow_private_targets: false}", ["--", "--port", "1", "--config=my own.yaml"], {}),
        ("my own.yaml", "server: {allow_private_targets: false}", [], {"RELAYGATE_CONFIG": "my own.yaml"}),
    ],
)
def test_what_a_file_says_of_private_targets_stays(
    deployment: Deployment, file: str, text: str, arguments: list[str], environment: dict[str, str]
) -> None:
    (deployment.working_directory / file).write_text(f"{text}\n")
    done = deployment.run(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert TRIAL not in done.stdout
    assert deployment.private_targets() == "serve: private=unset"


def test_a_comment_says_nothing_of_private_targets(deployment: Deployment) -> None:
    (deployment.working_directory / ".env").write_text("# RELAYGATE_ALLOW_PRIVATE_TARGETS=false\n")
    (deployment.working_directory / "relaygate.yaml").write_text("server: {port: 1}  # allow_private_targets: true\n")
    assert TRIAL in deployment.run("--", "--port", "8000", RELAYGATE_ALLOW_PRIVATE_TARGETS="").stdout


def test_bad_settings_are_refused_before_anything_starts(deployment: Deployment) -> None:
    done = deployment.run("--", "--bad")
    assert (done.returncode, done.stderr) == (2, "relaygate: bad\n")
    assert "relaygate serve" not in deployment.asked()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PYTHON": "/nowhere/python"}, "deploy: no Python 3.11 or newer found. Install one, or name it: PYTHON="),
        ({"OLD": "1"}, "python3 is Python 3.0). Install one, or name it: PYTHON="),
        ({"NO_VENV": "1"}, "python3 has no venv module. On Debian and Ubuntu: apt install python3-venv\n"),
    ],
)
def test_no_usable_python_is_said_clearly(deployment: Deployment, environment: dict[str, str], message: str) -> None:
    done = deployment.run(**environment)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (deployment.folder / ".venv").exists()


def test_help_and_mistakes(deployment: Deployment) -> None:
    assert deployment.run("--help").stdout.startswith("Usage: ./deploy.sh")
    for option in ("--fast", "--dry-run", "8000"):
        done = deployment.run(option)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
    assert deployment.asked() == ""


def test_a_dry_run_names_every_kernel_setting_and_starts_nothing(deployment: Deployment) -> None:
    done = deployment.run("--tune-system", "--dry-run")
    assert done.returncode == 0
    for file in sorted((ROOT / "sysctl").glob("*.conf")):
        for line in file.read_text().splitlines():
            if line and not line.startswith("#"):
                assert f"deploy: {line.split(' = ')[0]}: " in done.stdout
    assert deployment.asked() == ""
