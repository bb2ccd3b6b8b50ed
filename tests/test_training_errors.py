"""What training refuses, by name and before the work: options, settings of a recipe, tables, and weights that are ruined."""

from __future__ import annotations

import pytest

from jores.cli import main


@pytest.mark.parametrize(
    ("option", "value"),
    [("--steps", "0"), ("--steps", "-3"), ("--minutes", "-1"), ("--minutes", "nan"), ("--minutes", "inf"),
     ("--stop-after", "0"), ("--stop-after", "-1"), ("--workers", "-1")],
)  # fmt: skip
def test_an_option_that_would_train_nothing_is_a_wrong_command_line(option, value, tmp_path, capsys):
    command = ["train", "--stage", "decompose", "--data", str(tmp_path), "--out", str(tmp_path / "out"), option, value]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2 and f"argument {option}: {value} is not a" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
