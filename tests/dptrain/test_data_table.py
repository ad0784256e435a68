"""A table says what was wrong, on which line, and what to type; and learns nothing from its private rows."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dptrain.data.dataset import DataSet
from dptrain.data.table import Column, decode, load, parse_column
from dptrain.data.values import Values
from dptrain.errors import DataError
from dptrain.recipe import DataConfig

ROWS = "age,sex,weight,outcome\n20,F,55.5,no\n60,M,,yes\n40,F,80,no\n"
COLUMNS = ("age:number[0,120]", "sex:category[F,M]", "weight:number[30,130]?")


def config(path: Path, **changes: Any) -> DataConfig:
    return DataConfig(**{"name": "table", "path": str(path), "target": "outcome", "classes": ("no", "yes"), **changes})


def table(folder: Path, text: str | bytes = ROWS, **changes: Any) -> DataSet:
    path = folder / "patients.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(config(path, **{"columns": COLUMNS, **changes}))


def test_the_target_may_be_a_number_between_stated_bounds(tmp_path: Path):
    rows = "age,dose\n20,35.5\n60,0\n40,150\n"
    given = {"columns": COLUMNS[:1], "classes": (), "target": "dose:number[0,150]", "unit": "mg a week"}
    data = table(tmp_path, rows, **given)
    assert data.value == Values("dose", "mg a week", (0.0, 150.0))
    torch.testing.assert_close(data.targets, torch.tensor([35.5 / 150 - 0.5, -0.5, 0.5]))
    root = table(tmp_path, rows, scale="square_root", **given)
    assert root.value is not None
    torch.testing.assert_close(root.value.decode(root.targets.double().numpy()), np.array([35.5, 0, 150]), rtol=1e-5, atol=1e-5)
    moved = table(tmp_path, rows, **{**given, "target": "dose:number[0,100]^"})
    assert moved.targets.tolist()[2] == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "dose:number[0,100]"}, r"line 4: 'dose' holds 150 and lies outside its public bounds \[0, 100\]"),
        ({"target": "dose:number[0,150]", "classes": ("a", "b")}, "data.target is a number, and data.classes is"),
        ({"target": "dose:number[0,150]?"}, "a number that each row has"),
        ({"target": "dose:category[a,b]"}, "of a category the name alone"),
        ({"target": "dos:number[0,150]"}, "did you mean 'dose'"),
        ({"target": "dose", "classes": ()}, r"or write --data.target 'dose:number\[LOW,HIGH\]' for a number"),
        ({"target": "dose", "classes": ("0", "1"), "unit": "mg"}, "data.unit and data.scale are of a number"),
        ({"target": "dose:number[-1,150]", "scale": "square_root"}, "below 0 there is no square root"),
        ({"target": "dose:number[0,150]", "scale": "cubic"}, "'cubic'.*accepted: linear, square_root"),
    ],
)
def test_a_number_that_cannot_be_predicted_is_refused_in_a_sentence(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        table(tmp_path, "age,dose\n20,35.5\n60,0\n40,150\n", **{"columns": COLUMNS[:1], "classes": (), **changes})


def test_a_number_to_predict_is_in_each_row(tmp_path: Path):
    with pytest.raises(DataError, match="line 3: the target 'dose' is empty; remove such rows"):
        table(tmp_path, "age,dose\n20,35.5\n60,\n", columns=COLUMNS[:1], classes=(), target="dose:number[0,150]")


def test_a_table_becomes_named_inputs_scaled_by_stated_bounds(tmp_path: Path):
    data = table(tmp_path)
    assert data.features == ("age", "sex is F", "sex is M", "weight", "weight is missing")
    expected = [[20 / 120 - 0.5, 1, 0, 0.255 - 0.5, 0], [0.0, 0, 1, 0.0, 1], [40 / 120 - 0.5, 1, 0, 0.0, 0]]
    torch.testing.assert_close(data.inputs, torch.tensor(expected))
    assert data.targets.tolist() == [0, 1, 0]
    assert data.classes == ("no", "yes")
    assert (data.kind, data.name) == ("table", "patients.csv")


@pytest.mark.parametrize(
    ("column", "bounds"),
    [("age:number[0,120]", (-0.5, 0.5)), ("age:number[0,120]?", (-0.5, 1.0)), ("sex:category[F,M]", (0.0, 1.0))],
)
def test_bounds_follow_from_what_was_stated(tmp_path: Path, column: str, bounds: tuple[float, float]):
    assert table(tmp_path, columns=(column,)).bounds == bounds


def test_an_example_is_encoded_the_same_whoever_else_is_in_the_table(tmp_path: Path):
    alone = table(tmp_path, "\n".join(ROWS.splitlines()[:2]))
    assert torch.equal(alone.inputs[0], table(tmp_path).inputs[0])
    assert alone.features == table(tmp_path).features


@given(
    bounds=st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)).filter(lambda pair: pair[0] < pair[1]),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
)
@settings(deadline=None)
def test_clipped_numbers_stay_inside_the_bounds_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, bounds: tuple[float, float], values: list[float]
):
    text = "x,outcome\n" + "".join(f"{value!r},no\n" for value in values)
    data = table(tmp_path_factory.mktemp("table"), text, columns=(f"x:number[{bounds[0]!r},{bounds[1]!r}]^",))
    scaled = data.inputs[:, 0]
    assert bool(((scaled >= -0.5) & (scaled <= 0.5)).all())
    order = sorted(range(len(values)), key=lambda row: values[row])
    assert bool((scaled[order].diff() >= 0).all())


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6), name=st.text(min_size=1))
def test_a_column_is_read_as_it_was_written(low: float, width: float, name: str):
    column = parse_column(f"{name}:number[{low!r},{low + width!r}]?")
    assert column == Column(name, "number", (low, low + width), may_be_missing=True)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("a:number[0, 1]", Column("a", "number", (0.0, 1.0))),
        ("a:number[-1e3,+.5]^?", Column("a", "number", (-1000.0, 0.5), may_be_missing=True, clip=True)),
        ("a:number[0,1]?^", Column("a", "number", (0.0, 1.0), may_be_missing=True, clip=True)),
        ("Height (cm):number[0,1]", Column("Height (cm)", "number", (0.0, 1.0))),
        ("a: b [c]:category[x]", Column("a: b [c]", "category", categories=("x",))),
        ("sex:category[F, M , *]?", Column("sex", "category", categories=("F", "M", "*"), may_be_missing=True)),
        ('town:category["Bath, UK",York]', Column("town", "category", categories=("Bath, UK", "York"))),
        ("gene:category[*1/*1,[x]]", Column("gene", "category", categories=("*1/*1", "[x]"))),
    ],
)
def test_the_grammar_of_a_column(text: str, column: Column):
    assert parse_column(text) == column


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age", r"'age'.*write 'age:number\[0,120\]'"),
        ("", "write 'age:number"),
        ("age:float[0,1]", "write 'age:number"),
        ("age:number[0,1]!", "write 'age:number"),
        ("age:number[0,1]??", "write 'age:number"),
        (":number[0,1]", "write 'age:number"),
        ("age:number[]", r"two public bounds.*write 'age:number\[0,120\]'"),
        ("age:number[1]", "two public bounds"),
        ("age:number[0,1,2]", "two public bounds"),
        ("age:number[LOW,HIGH]", "two public bounds"),
        ("age:number[1,0]", "lower first"),
        ("age:number[1,1]", "lower first"),
        ("age:number[0,inf]", "two public bounds"),
        ("age:number[nan,1]", "two public bounds"),
        ("age:number[-1e308,1e308]", "two public bounds"),
        ("sex:category[]", "different categories"),
        ("sex:category[F,,M]", "different categories"),
        ("sex:category[F,F]", "different categories"),
        ("sex:category[F,M]^", "different categories"),
    ],
)
def test_a_column_that_means_nothing_is_refused(text: str, message: str):
    with pytest.raises(DataError, match=message):
        parse_column(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": None}, r"data\.target is not given.*--data\.target.*age, sex, weight, outcome"),
        ({"target": "outcom"}, "did you mean 'outcome'"),
        ({"classes": ()}, r"data\.classes.*private data is not free.*--data\.classes no yes"),
        ({"classes": ("no",)}, r"two or more"),
        ({"classes": ("no", "no")}, r"data\.classes"),
        ({"columns": ("agee:number[0,120]",)}, r"'agee'.*did you mean 'age'\?.*age, sex, weight, outcome"),
        ({"columns": ("age:number[0,120]", "age:number[0,99]")}, "a column twice"),
        ({"columns": ("outcome:category[no,yes]",)}, "holds the target"),
    ],
)
def test_what_the_recipe_leaves_out_or_mistypes_is_answered(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        table(tmp_path, **changes)


def test_without_columns_the_names_are_offered_and_nothing_of_the_cells(tmp_path: Path):
    text = "age,sex,weight,outcome\n23457,Xanadu,98765,no\n"
    with pytest.raises(DataError, match="not free") as told:
        table(tmp_path, text, columns=())
    offered = "--data.columns 'age:number[LOW,HIGH]' 'sex:number[LOW,HIGH]' 'weight:number[LOW,HIGH]', and"
    assert offered in str(told.value)
    for cell in ("23457", "Xanadu", "98765"):
        assert cell not in str(told.value)


@pytest.mark.parametrize(
    ("old", "new", "changes", "message"),
    [
        ("60,M", "130,M", {}, r"line 3: 'age' holds 130 .*outside its public bounds \[0, 120\] in 1 rows.*\^"),
        ("60,M", ",M", {}, r"line 3: 'age' is empty.*\? at the end"),
        ("60,M", "  ,M", {}, "line 3: 'age' is empty"),
        ("60,M", "NaN,M", {}, "line 3: 'age' holds 'NaN', which is no finite number"),
        ("60,M", "-inf,M", {"columns": ("age:number[0,120]^?",)}, "'-inf', which is no finite number"),
        ("60,M", "1e999,M", {"columns": ("age:number[0,120]^",)}, "no finite number"),
        ("60,M", "sixty,M", {}, "'sixty', which is no finite number; .*leave the column out"),
        ("60,M", "6_0,M", {}, "'6_0', which is no finite number"),
        ("60,M", "60,X", {}, r"line 3: 'sex' holds 'X', which is none of F, M; add it.*\*"),
        ("60,M", '60,"M, N"', {}, r"which is none of F, M; .*in double quotes, as it holds a comma: \"M, N\""),
        ("60,M", '60,"M, N"', {"columns": ('sex:category[F,"A, B"]',)}, r"none of F, \"A, B\"; add"),
        ("60,M", "60,", {}, "line 3: 'sex' is empty"),
        ("yes", "maybe", {}, "line 3: the target 'outcome' holds 'maybe'; accepted: no, yes"),
        ("yes", "", {}, "line 3: the target 'outcome' is empty"),
        ("60,M", "60,M,M", {}, "line 3: 5 cells, and the header has 4"),
        ("60,M,,yes", "60,M", {}, "line 3: 2 cells, and the header has 4"),
        ("60,M", '60,"M"x', {}, "line 3: .*mend the line"),
        ("60,M", '60,"M', {}, "line 3: .*mend the line"),
        ("age,sex", "age,age", {}, "several columns named 'age'"),
    ],
)
def test_a_bad_cell_is_refused_with_its_line(tmp_path: Path, old: str, new: str, changes: dict[str, Any], message: str):
    assert ROWS.count(old) == 1
    with pytest.raises(DataError, match=message):
        table(tmp_path, ROWS.replace(old, new), **changes)


def test_bad_rows_are_counted(tmp_path: Path):
    with pytest.raises(DataError, match=r"line 2 \(and 1 more row\): 'sex'"):
        table(tmp_path, columns=("sex:category[M]",))
    with pytest.raises(DataError, match=r"line 2 \(and 2 more rows\): 'age'"):
        table(tmp_path, columns=("age:number[0,5]",))


def test_the_line_is_that_of_the_file_where_cells_hold_line_ends(tmp_path: Path):
    text = 'age,note,outcome\n20,"two\nlines",no\n\n999,,yes\n'
    with pytest.raises(DataError, match="line 5: 'age' holds 999"):
        table(tmp_path, text, columns=("age:number[0,120]",))


def test_numbers_outside_are_moved_and_other_categories_counted_where_that_is_stated(tmp_path: Path):
    data = table(tmp_path, columns=("age:number[30,50]^", "sex:category[F,*]"))
    assert data.inputs[:, 0].tolist() == [-0.5, 0.5, 0.0]
    assert data.inputs[:, 1:].tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]


def test_a_missing_category_is_none_of_them(tmp_path: Path):
    data = table(tmp_path, "drug,outcome\n,no\nNone,yes\n", columns=("drug:category[None,*]?",))
    assert data.inputs.tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]


@pytest.mark.parametrize("word", ["None", "NA", "N/A", "null", "nan", "True", "0", "01"])
def test_words_are_what_they_say(tmp_path: Path, word: str):
    data = table(tmp_path, f"drug,outcome\n{word},no\nother,yes\n", columns=(f"drug:category[{word},other]",))
    assert data.inputs.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_columns_that_are_not_named_are_not_read(tmp_path: Path):
    assert table(tmp_path, ROWS.replace("20,F", "20,\x07nonsense"), columns=("age:number[0,120]",)).features == ("age",)


@pytest.mark.parametrize("text", [ROWS.replace("\n", "\r\n"), "\ufeff" + ROWS, ROWS + "\n\n", ROWS.rstrip("\n")])
def test_line_ends_marks_and_empty_lines_change_nothing(tmp_path: Path, text: str):
    assert table(tmp_path, text).fingerprint == table(tmp_path).fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("age,sex,weight,outcome\n", "empty: it has a header and no rows"),
        (ROWS.replace(",", ";"), "separated by ';'.*commas"),
        (ROWS.encode("utf-16"), "not UTF-8"),
        ("größe,outcome\n1,no\n".encode("latin-1"), "not UTF-8.*write it again as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\xff\xd8", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str | bytes, message: str):
    with pytest.raises(DataError, match=rf"patients\.csv.*{message}|patients\.csv is {message}"):
        table(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "message"), [("gone.csv", "no file"), ("folder", "a folder"), ("notes.txt", r"\.txt"), ("notes", "nothing")]
)
def test_a_path_that_is_no_table_is_refused(tmp_path: Path, name: str, message: str):
    (tmp_path / "folder").mkdir()
    for file in ("notes.txt", "notes"):
        (tmp_path / file).write_text("hello")
    with pytest.raises(DataError, match=rf"{message}.*\.csv or \.parquet"):
        load(config(tmp_path / name))


def test_a_path_is_asked_for():
    with pytest.raises(DataError, match=r"data\.path is not given.*--data\.path"):
        load(DataConfig(name="table"))


# Parquet


def parquet(path: Path, columns: dict[str, Any], names: list[str] | None = None) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    arrays = [pyarrow.array(column) for column in columns.values()]
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_arrays(arrays, names or list(columns)), path)
    return path


def test_parquet_gives_what_csv_gives(tmp_path: Path):
    columns = {"age": [20, 60, 40], "sex": ["F", "M", "F"], "weight": [55.5, None, 80.0], "outcome": ["no", "yes", "no"]}
    data = load(config(parquet(tmp_path / "patients.parquet", columns), columns=COLUMNS))
    assert data.fingerprint == table(tmp_path).fingerprint


@pytest.mark.parametrize(
    ("cells", "column", "message"),
    [
        ([1.0, float("nan")], "x:number[0,1]?", "line 3: 'x' holds 'nan', which is no finite number"),
        ([1.0, None], "x:number[0,1]", "line 3: 'x' is empty"),
        ([1, 7], "x:number[0,1]", "line 3: 'x' holds 7 "),
        ([[1], [2]], "x:number[0,1]", "no finite number"),
        ([b"a", b"b"], "x:category[a,b]", "none of a, b"),
    ],
)
def test_a_bad_parquet_cell_is_refused_with_its_line(tmp_path: Path, cells: list[Any], column: str, message: str):
    path = parquet(tmp_path / "x.parquet", {"x": cells, "outcome": ["no", "yes"]})
    with pytest.raises(DataError, match=message):
        load(config(path, columns=(column,)))


def test_whole_and_logical_parquet_cells_are_categories_by_their_text(tmp_path: Path):
    path = parquet(tmp_path / "x.parquet", {"a.b": [1.0, 2.0], "flag": [True, False], "outcome": [0, 1]})
    data = load(config(path, columns=("a.b:category[1,2]", "flag:category[True,False]"), classes=("0", "1")))
    assert data.inputs.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]


def test_columns_of_one_name_are_refused_in_parquet_too(tmp_path: Path):
    path = parquet(tmp_path / "x.parquet", {"x": [1], "y": [2], "outcome": ["no"]}, names=["x", "x", "outcome"])
    with pytest.raises(DataError, match="several columns named 'x'"):
        load(config(path, columns=("x:number[0,1]",)))


def test_a_damaged_parquet_file_is_refused(tmp_path: Path):
    path = parquet(tmp_path / "x.parquet", {"x": list(range(500)), "outcome": ["no"] * 500})
    whole = path.read_bytes()
    for content in (whole[:-20], b"", b"PAR1 this is no parquet file", whole[:30] + bytes(300) + whole[330:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.parquet cannot be read as PARQUET"):
            load(config(path, columns=("x:number[0,500]",)))


def test_without_pyarrow_the_package_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "x.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"pip install 'dptrain\[parquet\]'"):
        load(config(tmp_path / "x.parquet"))


# A real table


def test_a_real_cohort_is_read_by_what_is_publicly_known_of_it(shared_data: Path):
    """IWPC, 6,256 patients: 1,146 heights and 287 weights are not recorded (its README and a count by hand)."""
    decades = ",".join(f"{decade} - {decade + 9}" for decade in range(10, 90, 10)) + ",90+"
    data = load(
        config(
            shared_data / "iwpc.csv",
            target="Project Site",
            classes=tuple(str(site) for site in range(1, 23)),
            columns=(
                "Height (cm):number[100,230]?",
                "Weight (kg):number[20,260]?",
                f"Age:category[{decades}]?",
                "Race (OMB):category[White,Asian,Black or African American,*]",
                "VKORC1     -1639 consensus:category[A/A,A/G,G/G]?",
            ),
        )
    )
    assert data.inputs.shape == (6256, 2 + 2 + 10 + 4 + 4)
    count = dict(zip(data.features, data.inputs.sum(0).tolist(), strict=True))
    assert count["Height (cm) is missing"] == 1146
    assert count["Weight (kg) is missing"] == 287
    assert count["Age is missing"] == 42
    assert count["Race (OMB) is *"] == 485
    assert count["VKORC1     -1639 consensus is A/G"] == 1764


def test_a_real_target_that_is_sometimes_empty_is_refused_with_the_line(shared_data: Path):
    with pytest.raises(DataError, match=r"line \d+ \(and 3 more rows\): the target 'Gender' is empty; accepted: female, male"):
        load(
            config(
                shared_data / "iwpc.csv", target="Gender", classes=("female", "male"), columns=("Height (cm):number[0,300]?",)
            )
        )


def test_a_row_can_be_read_back_from_what_the_model_was_given(tmp_path: Path):
    columns = ("age:number[0,120]^?", "sex:category[F,M,*]", "weight:number[30,130]?", 'town:category["Bath, UK",York]?')
    text = 'age,sex,weight,town,outcome\n20,F,55.5,"Bath, UK",no\n600,X,,,yes\n,M,80,York,no\n'
    data = table(tmp_path, text, columns=columns)
    assert data.columns == columns
    assert decode(data.columns, data.inputs.numpy()) == {
        "age": ["20", "120", ""],
        "sex": ["F", "*", "M"],
        "weight": ["55.5", "", "80"],
        "town": ["Bath, UK", "", "York"],
    }
