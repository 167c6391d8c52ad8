"""`rtmpose dataset list`: all data sets, and where to get one."""

from __future__ import annotations

import json

import pytest

from rtmpose.cli.data import list_datasets
from rtmpose.descriptors import load_dataset, shipped_datasets
from rtmpose.files import UserError


def test_all_sets_stand_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    list_datasets(None)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == shipped_datasets()
    assert len({line.index(" points  ") for line in lines}) == 1


def test_one_set_says_where_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    list_datasets("coco17")
    told, known = json.loads(capsys.readouterr().out), load_dataset("coco17")
    assert (told["source"], told["download"], told["licence"]) == (
        known.source, known.download, known.licence
    )  # fmt: skip
    assert told["splits"]["val"]["annotations"] == known.splits["val"].annotations
    list_datasets("coco_aic19")
    assert json.loads(capsys.readouterr().out)["licence"] == "a skeleton without data"
    with pytest.raises(UserError, match="coco71"):
        list_datasets("coco71")
