"""The benchmark's launcher: subjects, their measurements, and wrong arguments."""

import importlib

import pytest

from bench.__main__ import SUBJECTS, main, measurements


@pytest.mark.parametrize("subject", SUBJECTS)
def test_each_measurement_of_a_subject_can_be_run(subject: str) -> None:
    names = measurements(subject)
    assert len(names) >= 4
    for name in names:
        module = importlib.import_module(f"bench.{subject}.{name}")
        assert f"python -m bench {subject}.{name}" in (module.__doc__ or "")


@pytest.mark.parametrize("wrong", ["nothing", "delivery.nothing", "cases", "delivery.rig"])
def test_an_unknown_subject_names_those_there_are(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([wrong]) == 2
    said = capsys.readouterr().err
    assert all(subject in said for subject in SUBJECTS)


def test_options_are_for_one_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "--rounds", "1"]) == 2
    assert "metrics.NAME" in capsys.readouterr().err
