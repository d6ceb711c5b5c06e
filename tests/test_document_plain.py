"""Lines as the program wrote them, whatever was put around them, and quotes that stay verbatim."""

from __future__ import annotations

from pathlib import Path

import pytest
from diagnose.evals.forms import FORMS, Case, cases, compare
from diagnose.evals.scoring import HEALTHY, Key

from diagnose.document import Document
from diagnose.document_plain import Plain, plain

LOG = """\
h1:41:97 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1
h1:41:97 [0] NCCL INFO NET/Plugin: Could not find: libnccl-net.so. Using internal network plugin for now and here.

h1:41:97 [0] NCCL INFO Using network Socket
h1:41:97 [0] transport/net_ib.cc:818 NCCL WARN NET/IB : Got completion with error 12, opcode 0, len 32694, vendor err 81
#  size  count  type   redop  root    time  algbw  busbw  #wrong
 8388608  2097152  float  sum  -1  1021.4  8.21  15.40  0
16777216  4194304  float  sum  -1  2003.0  8.38  15.71  0
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has "few" left
"""
AS_IT_IS = {"CRLF", "CR CR LF", "trailing spaces", "tabs to spaces", "colours", "UTF-8 BOM", "UTF-16", "fence",
            "fence, language"}  # fmt: skip
REWORDED = {"docker json-file", "JSON export", "smart quotes, nbsp", "HTML", "colours, no escape"}
NOT_UNDONE = {*AS_IT_IS, "two ranks interleaved"}


def _changed(name: str, text: str = LOG) -> Document:
    made = FORMS[name](text)
    return Document.of("t", made.encode() if isinstance(made, str) else made)


def _texts(doc: Document) -> list[str]:
    return [line.text.rstrip() for line in doc.lines() if line.text.strip()]


@pytest.mark.parametrize("name", [n for n in FORMS if n not in NOT_UNDONE])
def test_undone(name: str) -> None:
    doc = _changed(name)
    view = plain(doc)
    assert isinstance(view, Plain)
    assert _texts(view) == [line for line in LOG.split("\n") if line]
    places = []
    for line in view.lines():
        for span in (view.span(line), view.bytes_span(line.start, line.end, line.number)):
            assert doc.data[span.start : span.end].decode() == span.quote
            assert doc.data.count(b"\n", 0, span.start) == span.line - 1
            places.append(span.start)
        if name not in REWORDED and "wrapped" not in name:
            assert view.span(line).quote == line.text
    assert places == sorted(places)


@pytest.mark.parametrize("name", sorted(AS_IT_IS))
def test_left_to_the_lines(name: str) -> None:
    doc = _changed(name)
    assert plain(doc) is doc


def test_prefixes_behind_each_other() -> None:
    text = FORMS["docker compose"](str(FORMS["Ray"](str(FORMS["ISO time"](LOG)))))
    view = plain(Document.of("t", str(text).encode()))
    assert _texts(view) == [line for line in LOG.split("\n") if line]


def test_a_time_before_lines_that_have_their_own() -> None:
    lines = [f"INFO 09-30 12:00:0{n} [loggers.py:1] Running: {n} reqs" for n in range(4)]
    view = plain(Document.of("t", "\n".join(f"2026-11-22T12:00:0{n}.1Z {x}" for n, x in enumerate(lines)).encode()))
    assert _texts(view) == lines


def test_ranks_stay_as_the_prefix() -> None:
    view = plain(_changed("two ranks interleaved"))
    assert isinstance(view, Plain) and {line.prefix for line in view.lines()} == {"[rank0]: ", "[rank1]: "}


@pytest.mark.parametrize(
    "text",
    [
        "node0: 12 GB/s\nnode1: 3 GB/s\nnode2: 12 GB/s\nnode3: 12 GB/s\n",
        "0: 12.1\n1: 12.2\n2: 3.0\n3: 12.0\n",
        "FSDP  | 8 | 12.1 GB/s\nFSDP  | 16 | 11.9 GB/s\nDDP  | 8 | 3.1 GB/s\nDDP  | 16 | 3.0 GB/s\n",
        "- 8 GPUs\n- 4.1 s\n* 3 s\n",
        "09:00   11    96       0        74%       0.4 s\n11:00   19   205      14        91%       2.1 s\n"
        "14:00   26   256    1190        99%        41 s\n18:00   12   101       0        75%       0.4 s\n",
        "64:12 ms\n128:14 ms\n256:20 ms\n512:31 ms\n",
        "GPU0: 61 C\nGPU1: 88 C\nGPU2: 60 C\nGPU3: 61 C\n",
        "total: 3\nused: 2\n",
        "1: lo: <LOOPBACK,UP> mtu 65536\n    link/loopback 00:00\n2: eth0: <BROADCAST,UP> mtu 1500\n    link/ether\n",
        "2026-11-22 12:00:01 98\n2026-11-22 12:00:02 97\n2026-11-22 12:00:03 0\n2026-11-22 12:00:04 98\n",
        "2026-11-22T12:00:01.1Z  INFO dynamo: ready\n2026-11-22T12:00:02.1Z  WARN dynamo: slow\n",
        '{"message": "x", "busbw": 12.5, "time": 3}\n{"message": "y", "busbw": 12.6, "time": 4}\n',
        "               total        used        free      shared  buff/cache   available\n"
        "Mem:            2003          41        1719           1         242        1950\n"
        "Swap:              0           0           0\n",
        " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n"
        " 65536      5000             11642.11            11640.85              0.186254\n" + "-" * 80 + "\n",
        "a first paragraph\nof two lines\n\na second\nof two more\n",
    ],
)  # fmt: skip
def test_rows_are_rows(text: str) -> None:
    doc = Document.of("t", text.encode())
    assert plain(doc) is doc


def test_tables_of_tools_are_left_alone() -> None:
    for file in (Path(__file__).parent / "data").glob("n*/*.txt"):
        view = plain(Document.of("t", file.read_bytes()))
        assert not isinstance(view, Plain) or not any(p.joined for p in view.pieces), file


@pytest.mark.thorough
def test_incidents_survive() -> None:
    found = cases([Path(__file__).parents[1].parent / "shared" / "incidents"])
    if not found:
        pytest.skip("no incidents beside the checkout")
    for name, tally in compare(found, FORMS).items():
        assert tally.verdicts <= 0.03 * tally.cases, name
        assert tally.readings <= (0.4 if name == "two ranks interleaved" else 0.1) * tally.cases, name


def test_readings_and_verdict_survive() -> None:
    case = Case("log", "all_reduce is slow on one node", Key(HEALTHY, (), "healthy", ()), texts=(("a.log", LOG),))
    forms = list(FORMS)[::5]
    got = compare([case], forms)
    assert [name for name in forms if got[name].verdicts or got[name].readings] == []


def test_rows_as_wide_as_their_head_are_no_cut_lines() -> None:
    """A short table whose lines all have one width, with sizes that start in different columns."""
    head = "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong"  # noqa: E501
    rows = [
        "        1024           256     float     sum      -1    28.10    0.04    0.06      0    27.90    0.04    0.06      0",  # noqa: E501
        "     1048576        262144     float     sum      -1    41.20   25.45   44.54      0    40.90   25.64   44.87      0",  # noqa: E501
        "   268435456      67108864     float     sum      -1   1120.1  239.65  419.39      0   1121.0  239.46  419.05      0",  # noqa: E501
        "  8589934592    2147483648     float     sum      -1    31320  274.26  479.96      0    31330  274.18  479.81      0",  # noqa: E501
    ]  # fmt: skip
    text = "\n".join([head, *rows, "# Avg bus bandwidth    : 131.102", ""])
    assert len(list(plain(Document.of("a.txt", text.encode())).lines())) == 6
