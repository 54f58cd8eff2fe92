import shutil
from pathlib import Path

import pytest

from cwdpo.base.errors import NotAvailable
from cwdpo.metrics.java import find_java, jar, java_complaint, java_version


def test_java_home_comes_before_the_path(fake_java, tmp_path):
    fake_java("exit 0")
    assert find_java() == str(tmp_path / "bin" / "java")


def test_the_path_is_searched_without_java_home(monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert find_java() == shutil.which("java")


def test_a_missing_java_says_how_to_install_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(NotAvailable, match=r"Java not found: install .*default-jre-headless"):
        find_java()


def test_the_version_is_the_line_that_names_it(fake_java):
    fake_java("echo 'Picked up JAVA_TOOL_OPTIONS: -Xmx1g' >&2; echo 'openjdk version \"21.0.1\"' >&2")
    assert java_version() == 'openjdk version "21.0.1"'


@pytest.mark.parametrize("script", ["exit 3", "exec sleep 60"])
def test_a_java_that_does_not_run_is_not_available(fake_java, script):
    fake_java(script)
    with pytest.raises(NotAvailable, match="Java does not run"):
        java_version(timeout=0.2)


def test_jars_are_found():
    assert Path(jar("meteor/meteor-1.5.jar")).is_file()


def test_a_complaint_is_the_error_without_the_stack():
    stderr = (
        'WARNING: odd\nException in thread "main" java.lang.OutOfMemoryError: Java heap space\n\tat a.b(c.java:1)\n'
    )
    assert java_complaint(stderr) == 'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space'
    assert java_complaint("") == "it said nothing"
