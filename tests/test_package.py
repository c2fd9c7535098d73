"""What is installed: packages, types, commands."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

PACKAGES = ("spreadq_core", "transports", "spreadq", "sim")

COMMANDS = {"spreadq": "spreadq.programs.cli:main", "sqm": "spreadq.programs.cli:sqm_main"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is in the wheel, and its beginning."""
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name)[:4096].decode(errors="replace") for name in archive.namelist()}


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling builds the wheel")
class TestWheel:
    def test_it_holds_all_modules_and_nothing_else(self, names: dict[str, str]) -> None:
        modules = {
            str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
        }
        assert {name for name in names if name.endswith(".py")} == modules
        assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)

    def test_each_package_is_typed(self, names: dict[str, str]) -> None:
        assert {f"{package}/py.typed" for package in PACKAGES} <= names.keys()

    def test_it_has_the_commands(self, names: dict[str, str]) -> None:
        (text,) = [text for name, text in names.items() if name.endswith("entry_points.txt")]
        assert all(f"{name} = {target}\n" in text + "\n" for name, target in COMMANDS.items())

    def test_it_has_the_license(self, names: dict[str, str]) -> None:
        assert any(name.endswith("licenses/LICENSE") for name in names)


class TestProject:
    def test_the_wheel_holds_these_packages(self, project: dict[str, Any]) -> None:
        assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == list(PACKAGES)
        assert project["build-system"]["build-backend"] == "hatchling.build"

    def test_each_package_is_typed(self) -> None:
        assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)

    def test_the_commands_are_there(self, project: dict[str, Any]) -> None:
        assert project["project"]["scripts"] == COMMANDS
        for name, target in COMMANDS.items():
            point = importlib.metadata.EntryPoint(name, target, "console_scripts")
            assert callable(point.load())

    def test_what_is_installed_by_default(self, project: dict[str, Any]) -> None:
        names = {requirement.split(">")[0] for requirement in project["project"]["dependencies"]}
        assert names == {"attrs", "msgspec", "cyclopts", "rich", "uvloop"}
        (uvloop,) = [name for name in project["project"]["dependencies"] if name.startswith("uvloop")]
        assert "sys_platform != 'win32'" in uvloop

    def test_all_else_is_an_extra(self, project: dict[str, Any]) -> None:
        extras = project["project"]["optional-dependencies"]
        assert extras.keys() >= {"all", "dev", "yaml"}
        others = {name for name in extras if name not in ("all", "dev")}
        assert extras["all"] == [f"spreadq[{','.join(sorted(others))}]"]

    def test_python(self, project: dict[str, Any]) -> None:
        assert project["project"]["requires-python"] == ">=3.11"


def test_the_library_needs_nothing_that_only_its_commands_need() -> None:
    program = (
        "import sys, spreadq, transports.memory\n"
        "print(*(name for name in ('cyclopts', 'rich', 'uvloop', 'yaml', 'simpy') if name in sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
