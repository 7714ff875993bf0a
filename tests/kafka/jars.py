"""Java programs from Maven Central: fetched once for each state of a pom, then kept below `.kafka/`."""

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
KEPT = Path(__file__).parents[2] / ".kafka"
BROKER_POM = HERE / "pom.xml"
_OLDEST_JAVA, _MAVEN_SECONDS = 17, 600


class JarsError(Exception):
    """The jars are not here and cannot be fetched; the message says why."""


def jars(pom: Path) -> Path:
    """The folder with the jars that a pom asks for, fetched now unless they are there.

    Raises:
        JarsError: Java is missing or too old, or the jars are not here and Maven is missing or cannot fetch them.
    """
    _check_java()
    folder = KEPT / hashlib.sha256(pom.read_bytes()).hexdigest()[:16]
    KEPT.mkdir(exist_ok=True)
    with (KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several runs of the tests at once
        if not folder.is_dir():
            _fetch(pom, folder)
    return folder


def java() -> str:
    """The program.

    Raises:
        JarsError: It is missing.
    """
    program = shutil.which("java")
    if program is None:
        raise JarsError(f"java is missing; version {_OLDEST_JAVA} or newer is needed (`make packages` installs it)")
    return program


def _check_java() -> None:
    said = subprocess.run([java(), "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < _OLDEST_JAVA:
        raise JarsError(f"java is older than {_OLDEST_JAVA}, or does not run")


def _fetch(pom: Path, folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise JarsError("the jars are not here, and mvn is missing (`make packages` installs it)")
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [
        maven, "-B", "-q", "-f", str(pom), "dependency:copy-dependencies",
        f"-DoutputDirectory={partial}", "-DincludeScope=runtime",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MAVEN_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise JarsError(f"Maven did not fetch the jars of {pom.name} in {_MAVEN_SECONDS} s") from None
    if done.returncode != 0:
        raise JarsError(f"Maven cannot fetch the jars of {pom.name}: {_first_error(done.stdout)}")
    partial.rename(folder)


def _first_error(output: str) -> str:
    errors = [line for line in output.splitlines() if "ERROR" in line]
    return errors[0][:300] if errors else "it does not say why"


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{jars(BROKER_POM)}\n")
    except JarsError as error:
        sys.exit(f"Without Apache Kafka its tests are skipped or run on the light broker: {error}")
