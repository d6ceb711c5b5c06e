"""Secrets are found, look-alikes of GPU and network logs are not, and no report quote overlaps one."""

from __future__ import annotations

from pathlib import Path

import pytest

from diagnose.document import Document
from diagnose.gather import Gathered
from diagnose.mask import mask, mask_report, secrets
from diagnose.models import CaptureRef, Evidence, Report, SpanRef, Subject, Tool

SHARED = Path(__file__).parents[1].parent / "shared"
H32, H40, A40 = "0123456789abcdef" * 2, "0123456789abcdef" * 2 + "01234567", "Ab3" * 13 + "x"

# line, the part that must go; tokens are put together here so that no scanner takes this file for a leak
SECRET = [
    ("EXAMPLE_API_TOKEN=not-a-real-secret-0123456789abcdef", "not-a-real-secret-0123456789abcdef"),
    ("key id AK" + "IAIOSFODNN7EXAMPLE used", "AK" + "IAIOSFODNN7EXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/" + A40, "wJalrXUtnFEMI/K7MDENG/" + A40),
    ("?X-Amz-Signature=" + H32 + "&x=1", H32),
    ("use AI" + "za" + A40[:35], "AI" + "za" + A40[:35]),
    ("ya" + "29." + A40, "ya" + "29." + A40),
    ("GOC" + "SPX-" + A40[:28], "GOC" + "SPX-" + A40[:28]),
    ("AccountName=x;AccountKey=" + A40 + "==;", A40 + "=="),
    ("https://x.blob.core/y?sv=1&sig=" + A40 + "%3D", A40 + "%3D"),
    ("gh" + "p_" + A40, "gh" + "p_" + A40),
    ("github" + "_pat_" + A40, "github" + "_pat_" + A40),
    ("gl" + "pat-" + A40[:20], "gl" + "pat-" + A40[:20]),
    ("token h" + "f_" + A40[:34], "h" + "f_" + A40[:34]),
    ("s" + "k-ant-api03-" + A40, "s" + "k-ant-api03-" + A40),
    ("s" + "k-proj-" + A40, "s" + "k-proj-" + A40),
    ("ls" + "v2_pt_" + H32, "ls" + "v2_pt_" + H32),
    ("gs" + "k_" + A40, "gs" + "k_" + A40),
    ("r" + "8_" + A40[:37], "r" + "8_" + A40[:37]),
    ("nv" + "api-" + A40, "nv" + "api-" + A40),
    ("WANDB_API_KEY=" + H40, H40),
    ("wandb login " + H40, H40),
    ('{"username":"bob","key":"' + H32 + '"}', H32),
    ("dckr" + "_pat_" + A40[:27], "dckr" + "_pat_" + A40[:27]),
    ('"auth": "dXNlcjpwYXNzd29yZA=="', "dXNlcjpwYXNzd29yZA=="),
    ("np" + "m_" + A40[:36], "np" + "m_" + A40[:36]),
    ("//registry/:_authToken=" + H32, H32),
    ("py" + "pi-AgEIcHlwaS5vcmc" + A40, "py" + "pi-AgEIcHlwaS5vcmc" + A40),
    ("hv" + "s." + A40, "hv" + "s." + A40),
    ("gls" + "a_" + H32, "gls" + "a_" + H32),
    ("da" + "pi" + H32, "da" + "pi" + H32),
    ("xo" + "xb-123456789012-" + A40[:24], "xo" + "xb-123456789012-" + A40[:24]),
    ("https://hooks.slack.com/services/T0/B0/" + A40[:24], "T0/B0/" + A40[:24]),
    ("s" + "k_live_" + A40[:24], "s" + "k_live_" + A40[:24]),
    ("S" + "G." + A40[:22] + "." + A40, "S" + "G." + A40[:22] + "." + A40),
    ("ts" + "key-auth-" + A40[:20], "ts" + "key-auth-" + A40[:20]),
    ("LT" + "AI5tAbCdEfGhIjKlMn", "LT" + "AI5tAbCdEfGhIjKlMn"),
    ("jwt ey" + "JhbGciOiJIUzI1NiJ9.ey" + "JzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl", None),
    ("Authorization: Bearer abc.def-123456789", "abc.def-123456789"),
    ("curl -H 'Authorization: Basic dXNlcjpwYXNz'", "dXNlcjpwYXNz"),
    ("got bearer 0a1b2c3d4e5f6a7b", "0a1b2c3d4e5f6a7b"),
    ("pip install --index-url https://user:p4ssw0rd@host/simple", "p4ssw0rd"),
    ("mongodb+srv://u:pw7@cluster0.example", "pw7"),
    ("password: hunter2", "hunter2"),
    ("Server=tcp:x;User ID=sa;Password=Pa55word!;Encrypt=true", "Pa55word!"),
    ('DB_PASSWORD="x y z!"', "x y z!"),
    ("requirepass foobared99", "foobared99"),
    ("machine h login bob password s3cretsecret99", "s3cretsecret99"),
    ("Set-Cookie: session=abcdef0123456; Path=/", "session=abcdef0123456; Path=/"),
    ("vllm serve m --api-key token-abc123 --port 1", "token-abc123"),
    ("Namespace(api_key='token-abc123', max_num_seqs=256)", "token-abc123"),
    ("MY_SECRET=abcdefg", "abcdefg"),
    ('"client_secret": "' + A40 + '"', A40),
    ("ENCRYPTION_KEY=8f3a9c1d2e4b5a6f7089", "8f3a9c1d2e4b5a6f7089"),
    ("http://localhost:8888/?token=" + H40, H40),
    ("x-api-key: " + A40, A40),
]

HARMLESS = """\
NCCL INFO ncclCommInitRank comm 0x55d5e0 rank 0 nranks 2 busId 1b000 commId 0x8c5fd0c0a7b9c3e1 - Init COMPLETE
GPU 0: NVIDIA H100 (UUID: GPU-5ed3c7a1-1a2b-3c4d-5e6f-0123456789ab)
sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
commit 4f3115c0123456789abcdef0123456789abcdef0
max_num_batched_tokens=8192, max_tokens=512 tokens: 123, token usage: 0.53, gen throughput (token/s): 1234.5
eos_token='</s>' pad_token=<|endoftext|> image_token: "<image>" stop_token=abc123def456
Time to first token: 1234.56ms; per-token latency: 12.3ms; time_per_output_token: 0.0123
rkey=0x1234567890abcdef lkey 0x3 pkey=0xffff NCCL_IB_PKEY=0 qkey: 0x11111111
cache_key: 1a2b3c4d5e6f7a8b9c0d sort_key=lambda x1234567890ab torch.compile key=fxy3jkl2m4n5o6p7q8r9
api_key=None, hf_token=None, ssl_keyfile=None, api_key=['EMPTY']
HF_TOKEN is not set; HF_TOKEN=$HF_TOKEN api-key: ${KEY} API_KEY=<your key> TOKEN=***
PWD=/root/work OLDPWD=/root TOKENIZERS_PARALLELISM=false SSH_AUTH_SOCK=/tmp/agent.123
tokenizer='Qwen/Qwen2.5-0.5B-Instruct', tokenizer_mode=auto, speculative_token_tree=None
Using cache directory: /root/.cache/vllm/torch_compile_cache/1a2b3c4d5e/rank_0_0/backbone
0000:3b:00.0 fe80::1234:5678:9abc:def0 guid 0x0002c903000e0b72
bearer token authentication is required. Basic information about the node
NCCL WARN Error: remote access key error, local protection error
[__recompiles] ___check_obj_id(L['self'].key, 140123456789)
Password authentication failed for user x
using token from file: /root/.cache/huggingface/token
Missing key(s) in state_dict: "model.layers.0.self_attn.q_proj.weight"
---------------Inter-token Latency----------------
polling endpoint shutdown token 2026-11-22T01:32:44.074355Z
""".splitlines()


@pytest.mark.parametrize(("line", "part"), SECRET)
def test_secret_is_found(line: str, part: str | None) -> None:
    found = secrets(line)
    assert found, line
    if part is not None:
        assert part not in mask(line)
        start = line.index(part)
        assert any(a <= start and b >= start + len(part) for a, b, _ in found)


def test_forty_kinds_at_least() -> None:
    assert len({kind for line, _ in SECRET for _, _, kind in secrets(line)}) >= 35
    from diagnose import mask as module

    assert len({s.kind for s in module._COMPILED}) >= 40


@pytest.mark.parametrize("line", HARMLESS)
def test_harmless_line_is_left_alone(line: str) -> None:
    assert secrets(line) == [] and mask(line) == line


def test_private_key_block_and_kubernetes_secret() -> None:
    block = "-----BEGIN OPENSSH PRIVATE" + " KEY-----\nb3BlbnNzaC1rZXk\nabc\n-----END OPENSSH PRIVATE KEY-----\nafter"
    assert mask(block) == "[masked: private key]\nafter"
    manifest = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\ndata:\n  password: aHVudGVyMg==\n  user: Ym9iYm9i\n"
    got = mask(manifest)
    assert "aHVudGVyMg==" not in got and "Ym9iYm9i" not in got and "name: x" in got


def test_offsets_are_byte_offsets() -> None:
    raw = "温度 °C HF_TOKEN=".encode() + b"abcdef123456 x"
    ((start, end, _),) = secrets(raw)
    assert raw[start:end] == b"abcdef123456"


def test_utf16_bytes() -> None:
    raw = "a\nHF_TOKEN=abcdef123456\nb".encode("utf-16")
    ((start, end, _),) = secrets(raw)
    assert raw[start : end + 1].decode("utf-16-le") == "abcdef123456"


def evidence(ident: str, data: bytes, start: int, end: int, **fields: object) -> Evidence:
    quote = data[start:end].decode()
    return Evidence(
        id=ident, kind="observed", signal="env.var", quote=quote,
        capture=CaptureRef(name="x", sha256="0", line=1, bytes=(start, end)),
        spans=[SpanRef(capture="x", bytes=(start, end), line=1, quote=quote)], **fields,
    )  # fmt: skip


def report(*items: Evidence, symptom: str = "s") -> Report:
    return Report(
        tool=Tool(version="0", catalogue="0"), symptom=symptom, playbook="environment", verdict="inconclusive",
        confidence=0.5, evidence=list(items),
    )  # fmt: skip


def test_quote_is_cut_to_the_part_that_backs_the_value() -> None:
    data = b"Namespace(api_key='token-abc123', max_num_seqs=256, host='0.0.0.0', port=8000, tensor_parallel_size=2)"
    made = mask_report(report(evidence("E1", data, 0, len(data), value="256", subject=Subject(label="max_num_seqs"))))
    (item,) = made.evidence
    assert item.quote is not None and "max_num_seqs=256" in item.quote and "token-abc123" not in made.model_dump_json()
    start, end = item.spans[0].bytes
    assert data[start:end].decode() == item.quote and item.capture is not None and item.capture.bytes == (start, end)


@pytest.mark.parametrize(("width", "ending"), [(80, "\n"), (100, "\r\n"), (91, "\n")])
def test_a_secret_that_a_terminal_cut_is_seen_whole(width: int, ending: str) -> None:
    token = "h" + "f_" + A40[:34]
    lines = [
        f"INFO worker {i} started with these arguments on the node, \u2713 and so on" + "ly" * 30 for i in range(6)
    ]
    before = "ERROR no permission for this repository with the token "
    lines += [
        before + "x" * (width - len(before) - 18) + " " + token + " at the hub, giving up now",
        "RuntimeError: done",
    ]
    cut = ending.join(line[i : i + width] for line in lines for i in range(0, len(line), width))
    assert token not in cut and token[:16] in cut
    for text in (cut, f"\x1b[31m{cut}\x1b[0m"):
        raw = text.encode()
        assert [raw[a:b].decode().replace(ending, "") for a, b, _ in secrets(raw)] == [token]
        assert [text[a:b].replace(ending, "") for a, b, _ in secrets(text)] == [token]
    first = cut.index("ERROR")
    data = cut.encode()
    item = evidence("E1", data, data.index(b"ERROR"), data.index(b"ERROR") + width, value=token)
    shown = mask_report(report(item), [Document.of("x", data)]).model_dump_json()
    assert first and not any(part in shown for part in (token[:16], token[-16:]))


def test_value_symptom_and_statement_lose_the_secret_too() -> None:
    data = b"MY_TOKEN=abcdef123456"
    item = evidence("E1", data, 0, len(data), value="abcdef123456", statement="MY_TOKEN: abcdef123456")
    made = mask_report(report(item, symptom="it prints abcdef123456"))
    assert "abcdef123456" not in made.model_dump_json()
    assert made.evidence[0].quote == "MY_TOKEN="


def test_line_that_is_nothing_but_a_secret_loses_its_quote() -> None:
    data = ("gh" + "p_" + A40).encode()
    (item,) = mask_report(report(evidence("E1", data, 0, len(data)))).evidence
    assert item.quote is None and item.spans == [] and item.capture is None and "masked" in (item.reason or "")


def test_quote_that_begins_inside_a_secret_is_cut() -> None:
    data = b"HF_TOKEN=abcdef1234567890 NCCL_DEBUG=INFO"
    doc = Document.of("x", data)
    item = evidence("E1", data, 14, len(data), value="INFO")
    assert "1234567890" in mask_report(report(item)).model_dump_json()  # nothing around it is known
    made = mask_report(report(item), [doc])
    assert "1234567890" not in made.model_dump_json() and made.evidence[0].quote == "NCCL_DEBUG=INFO"


def test_report_without_secrets_is_returned_as_it_is() -> None:
    made = report(evidence("E1", b"NCCL_DEBUG=INFO", 0, 15, value="INFO"))
    assert mask_report(made) is made


@pytest.mark.skipif(not SHARED.is_dir(), reason="captures are not here")
def test_no_false_positive_on_real_captures() -> None:
    found = {}
    for place in sorted((SHARED / "captures").rglob("*")):
        if place.is_file() and place.suffix in (".log", ".txt", ".prom", ".csv", ".json", ".jsonl"):
            raw = place.read_bytes()
            hits = [raw[a:b] for a, b, _ in secrets(raw)]
            if hits:
                found[place.name] = hits
    assert found == {"14-json.json": [b"not-a-real-secret-0123456789abcdef"]}


def test_gathered_documents_can_be_given() -> None:
    assert mask_report(report(), Gathered().documents.values()).evidence == []
