"""A ledger's file: several processes write it, and what is taken out of it or changed is named."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import dptrain.ledger.chain as module
from dptrain.errors import LedgerError, UserError
from dptrain.ledger import Chain
from dptrain.ledger.training import Ledger, announced
from dptrain.plan import PrivacyPlan

ROOT = Path(__file__).parents[2]
PLAN = PrivacyPlan(sampling_rate=0.5, expected_batch_size=200, steps=6, clipping_norm=0.5, delta=1e-5, noise_multiplier=1.0)


def chain_of(folder: Path, entries: int) -> Chain:
    chain = Chain(folder / "ledger.jsonl")
    for number in range(1, entries + 1):
        chain.append({"kind": "test", "number": number})
    return chain


def python(script: str, *arguments: str, **options: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True, **options  # pyright: ignore
    )  # fmt: skip


APPENDS = """
import sys
from pathlib import Path
from dptrain.ledger.chain import Chain
for number in range(int(sys.argv[3])):
    Chain(Path(sys.argv[1])).append({"kind": "test", "by": sys.argv[2], "number": number})
"""


def test_two_processes_of_200_appends_leave_400_entries_and_an_intact_chain(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    processes = [python(APPENDS, str(path), name, "200") for name in "ab"]
    for process in processes:
        assert process.wait(timeout=120) == 0, process.stderr and process.stderr.read()
    entries = Chain(path).entries()
    assert len(entries) == 400
    for name in "ab":
        assert [entry["number"] for entry in entries if entry["by"] == name] == list(range(200))
    assert [entry["line"] for entry in entries] == list(range(1, 401))
    assert len({entry["by"] for entry in entries[:399]}) == 2
    assert json.loads(Chain(path).head.read_text())["lines"] == 400


def test_an_entry_is_added_without_the_file_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    chain = chain_of(tmp_path, 3)

    def read(*_: object) -> None:
        raise AssertionError("the whole file was read")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_read", read)
        chain.append({"kind": "test", "number": 4})
    assert [entry["number"] for entry in chain.entries()] == [1, 2, 3, 4]


def test_what_was_read_is_not_parsed_again_and_an_edit_in_it_is_noticed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    chain, parsed, parse = Chain(tmp_path / "ledger.jsonl"), [], module._parse
    for number in range(1, 6):
        chain.append({"kind": "test", "number": number, "nested": {"deep": 1}})
    before = chain.entries()
    monkeypatch.setattr(module, "_parse", lambda line: parsed.append(line) or parse(line))
    assert chain.entries() == before
    assert not parsed
    chain.append({"kind": "test", "number": 6, "nested": {"deep": 1}})
    assert [entry["number"] for entry in chain.entries()] == [1, 2, 3, 4, 5, 6]
    assert len(parsed) == 1
    for entry in chain.entries():
        entry["number"] = 0
        entry["nested"]["deep"] = 0
    assert [entry["number"] for entry in chain.entries()] == [1, 2, 3, 4, 5, 6]  # whoever changes one changes no other's
    assert [entry["nested"] for entry in chain.entries()] == [{"deep": 1}] * 6
    content = chain.path.read_bytes()
    chain.path.write_bytes(content.replace(b'"number": 2', b'"number": 7', 1))
    with pytest.raises(LedgerError, match="line 2 was changed"):
        chain.entries()
    with pytest.raises(LedgerError, match="line 2 was changed"), chain.held() as held:
        held.entries()
    chain.path.write_bytes(content)
    assert [entry["number"] for entry in chain.entries()] == [1, 2, 3, 4, 5, 6]


def test_the_latest_files_alone_are_remembered(tmp_path: Path):
    chains = [Chain(tmp_path / str(number) / "ledger.jsonl") for number in range(module._MOST_WALKS + 4)]
    for number, chain in enumerate(chains):
        chain.append({"kind": "test", "number": number})
        assert chain.entries()[0]["number"] == number
    assert len(module._walks) <= module._MOST_WALKS
    assert chains[-1].path in module._walks


@pytest.mark.parametrize("line", [1, 4, 7])
def test_an_edited_line_is_named_first_middle_and_last(tmp_path: Path, line: int):
    chain = chain_of(tmp_path, 7)
    lines = chain.path.read_text().splitlines()
    for edited in (
        lines[line - 1].replace(f'"number": {line}', '"number": 99'),
        lines[line - 1].replace(", ", ",  ", 1),  # nothing but a space
        lines[line - 1][:-1] + "|",
        lines[line - 1][:20],
        "",
    ):
        chain.path.write_text("\n".join([*lines[: line - 1], edited, *lines[line:]]) + "\n")
        with pytest.raises(LedgerError, match=rf"line {line} was changed"):
            chain.entries()


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (1, r"line 1 was removed \(it begins with line 2\)"),
        (4, r"line 4 was removed \(line 3 is followed by line 5\)"),
        (7, r"the last line was removed \(ledger.jsonl.head counts 7\)"),
    ],
)
def test_a_removed_line_is_named_first_middle_and_last(tmp_path: Path, line: int, named: str):
    chain = chain_of(tmp_path, 7)
    lines = chain.path.read_text().splitlines()
    chain.path.write_text("\n".join([*lines[: line - 1], *lines[line:]]) + "\n")
    with pytest.raises(LedgerError, match=named):
        chain.entries()


def test_several_removed_lines_are_named_as_such(tmp_path: Path):
    chain = chain_of(tmp_path, 9)
    lines = chain.path.read_text().splitlines(keepends=True)
    chain.path.write_text("".join(lines[:6]))
    with pytest.raises(LedgerError, match="the last 3 lines were removed"):
        chain.entries()
    with pytest.raises(LedgerError, match="the last 3 lines were removed"):  # and it is not simply gone on with
        chain.append({"kind": "test"})
    chain.path.write_text("".join(lines[:2] + lines[5:]))
    with pytest.raises(LedgerError, match=r"lines 3 to 5 were removed \(line 2 is followed by line 6\)"):
        chain.entries()
    chain.path.unlink()
    with pytest.raises(LedgerError, match="the last 9 lines were removed"):
        chain.entries()


def test_a_doubled_line_and_one_written_anew_with_its_hash_are_named(tmp_path: Path):
    chain = chain_of(tmp_path, 5)
    lines = chain.path.read_text().splitlines()
    chain.path.write_text("\n".join([*lines[:3], lines[2], *lines[3:]]) + "\n")
    with pytest.raises(LedgerError, match="line 4 was added"):
        chain.entries()
    entry = json.loads(lines[2])
    entry["number"] = 99
    entry["hash"] = module._hash({key: value for key, value in entry.items() if key != "hash"})
    for place, rest in ((2, lines[3:]), (4, [])):
        entry["line"] = place + 1
        body = {key: value for key, value in entry.items() if key != "hash"} | {
            "previous": json.loads(lines[place])["previous"]
        }
        forged = json.dumps({**body, "hash": module._hash(body)}, sort_keys=True)
        chain.path.write_text("\n".join([*lines[:place], forged, *rest]) + "\n")
        with pytest.raises(LedgerError, match=f"line {place + 1} was changed"):
            chain.entries()


def test_without_its_head_a_file_is_not_taken_for_whole(tmp_path: Path):
    chain = chain_of(tmp_path, 3)
    chain.head.write_text("{")
    with pytest.raises(LedgerError, match="head is damaged"):
        chain.entries()
    chain.head.unlink()
    for call in (chain.entries, lambda: chain.append({"kind": "test"})):
        with pytest.raises(LedgerError, match=r"lacks ledger\.jsonl\.head"):
            call()


def test_a_crash_between_a_line_and_its_head_loses_nothing(tmp_path: Path):
    chain = chain_of(tmp_path, 3)
    behind = chain.head.read_bytes()
    chain.append({"kind": "test", "number": 4})
    chain.head.write_bytes(behind)
    assert len(chain.entries()) == 4
    chain.append({"kind": "test", "number": 5})
    assert [entry["number"] for entry in chain.entries()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_line_that_a_crash_cut_off_is_passed_over_and_the_next_one_says_so(tmp_path: Path, cut: int):
    chain = chain_of(tmp_path, 2)
    behind, whole = chain.head.read_bytes(), chain.path.read_bytes()
    chain.append({"kind": "test", "number": 3})
    torn = chain.path.read_bytes()[len(whole) : -1][:cut]
    chain.path.write_bytes(whole + torn)
    chain.head.write_bytes(behind)
    assert len(chain.entries()) == 2
    chain.append({"kind": "test", "number": 4})
    assert [(entry["number"], entry["line"], entry["follows_torn"]) for entry in chain.entries()] == [
        (1, 1, False),
        (2, 2, False),
        (4, 4, True),
    ]
    chain.append({"kind": "test", "number": 5})
    assert len(chain.entries()) == 4


def test_a_ledger_of_the_earlier_format_is_read_and_gone_on_with(tmp_path: Path):
    """Sharp edge 17: each line's hash was of all that stood before it."""
    import hashlib

    path, content = tmp_path / "ledger.jsonl", b""
    for number in (1, 2):
        entry = {**announced(PLAN, 0, 3 * number, block=f"b{number}"), "data": "abc", "time": "2024-01-01T00:00:00+00:00"}
        entry["follows_torn"] = False
        stated = hashlib.sha256(content + json.dumps(entry, sort_keys=True).encode()).hexdigest()
        content += json.dumps({**entry, "hash": stated}, sort_keys=True).encode() + b"\n"
    path.write_bytes(content)
    ledger = Ledger(path, "abc")
    assert ledger.blocks() == [(PLAN, 0, 3), (PLAN, 0, 6)]
    ledger.reserve(PLAN, 3, 6)
    assert ledger.blocks() == [(PLAN, 0, 3), (PLAN, 0, 6), (PLAN, 3, 6)]
    lines = path.read_bytes().splitlines(keepends=True)
    for left in (1, 2):
        path.write_bytes(b"".join(lines[:left]))
        with pytest.raises(LedgerError, match="removed"):
            ledger.blocks()
    path.write_bytes(lines[0].replace(b'"last": 3', b'"last": 1') + lines[1] + lines[2])
    with pytest.raises(LedgerError, match="line 1 was changed"):
        ledger.blocks()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from dptrain.errors import UserError
from dptrain.ledger.chain import Chain
chain = Chain(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    chain.append({"kind": "test", "text": "x" * 3000})
except UserError as error:
    sys.exit(str(error))
"""


def test_a_disk_that_is_full_in_the_middle_of_a_line_is_told_and_leaves_the_file_readable(tmp_path: Path):
    """The operating system writes part of the line, and then no more."""
    chain = chain_of(tmp_path, 3)
    before = chain.path.read_bytes()
    process = python(LIMITED, str(chain.path), str(len(before) + 700))
    assert process.wait(timeout=60) == 1
    assert process.stderr is not None
    said = process.stderr.read()
    assert "cannot be written (File too large)" in said
    assert "Traceback" not in said
    assert chain.path.read_bytes() == before
    chain.append({"kind": "test", "number": 4})
    assert [entry["number"] for entry in chain.entries()] == [1, 2, 3, 4]


READ_ONLY = """
import os, sys
from pathlib import Path
from dptrain.errors import UserError
from dptrain.ledger.chain import Chain
os.setuid(65534) if os.getuid() == 0 else None
chain = Chain(Path(sys.argv[1]))
try:
    chain.append({"kind": "test"})
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(7 if len(chain.entries()) == 2 else 8)
"""


def test_a_folder_that_is_read_only_is_told_and_can_still_be_read(tmp_path: Path):
    folder = tmp_path / "kept"
    chain = chain_of(folder, 2)
    for above in (folder, *folder.parents):
        if above == Path("/tmp"):
            break
        above.chmod(0o555)
    chain.path.chmod(0o444)
    chain.head.chmod(0o444)
    try:
        process = python(READ_ONLY, str(chain.path))
        code = process.wait(timeout=60)
        said = process.stderr.read() if process.stderr else ""
    finally:
        for above in (folder, *folder.parents):
            if above == Path("/tmp"):
                break
            above.chmod(0o755)
    assert code == 7, said
    assert "Permission denied" in said


def test_where_the_folder_cannot_be_made_the_error_names_the_file(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"file/ledger\.jsonl cannot be written"):
        Chain(tmp_path / "file" / "ledger.jsonl").append({"kind": "test"})


def test_a_clock_that_went_back_is_told_and_changes_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    chain = chain_of(tmp_path, 2)

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) - timedelta(hours=3)

    monkeypatch.setattr(module, "datetime", Earlier)
    chain.append({"kind": "test", "number": 3})
    chain.append({"kind": "test", "number": 4})
    monkeypatch.undo()
    entries = chain.entries()
    assert [entry.get("number", entry.get("what")) for entry in entries] == [1, 2, "clock", 3, 4]
    assert entries[2]["was"] == entries[1]["time"] > entries[2]["time"]


KILLED = """
import os, sys
from pathlib import Path
from dptrain.ledger.chain import Chain
number = 0
while True:
    Chain(Path(sys.argv[1])).append({"kind": "test", "number": number})
    print(number, flush=True)
    number += 1
"""


def test_what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    for _ in range(3):
        process = python(KILLED, str(path), stdout=subprocess.PIPE)
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().splitlines() if line]
        process.wait(timeout=30)
        entries = Chain(path).entries()
        latest = [entry["number"] for entry in entries][-(acknowledged[-1] + 2) :]
        assert set(acknowledged) <= set(latest)
    assert Chain(path).entries()[-1]["line"] >= 60
