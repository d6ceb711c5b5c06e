"""Writes what the documentation takes from the code: `docs/reference/*.md` and the marked parts of `docs/howto/*.md`
and `docs/architecture.md`, and `playbooks/parsed/parsed.json`, which spares each run the YAML.

    python docs/generate.py            # write
    python docs/generate.py --check    # say what is out of date, exit 1

`tests/test_docs.py` compares in memory. Words about a setting or a variable stand here; that each is read somewhere,
and that none is left out, is checked against the syntax of the code.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from diagnose import checks, rules
from diagnose.audit_models import Audit
from diagnose.catalogue import AHEAD, catalogue, digest, from_yaml
from diagnose.config import LOCAL, PRESENTATION
from diagnose.entries import Cause, Playbook, Signal, Step
from diagnose.fleet_models import Fleet
from diagnose.marks import Need, parsed
from diagnose.models import Model, Report
from diagnose.predicates import in_words
from diagnose.runner import KNOBS

ROOT = Path(__file__).resolve().parents[1]
MADE = "<!-- made by docs/generate.py: change the code or the catalogue, not this page -->"
SHARED_BY = 12  # a signal that speaks for more causes than this separates none of them

EXITS = {
    "EXIT_OK": "done: a verdict, and nothing at or above `--fail-on`; every quote verified; no difference",
    "EXIT_FINDING": "a finding at or above `--fail-on`; `verify` found something wrong; `eval` fell below "
    "`--threshold` or got worse; `cassette diff` found a difference",
    "EXIT_INCONCLUSIVE": "inconclusive: the report ends with the next command; some nodes of a fleet gave no result",
    "EXIT_ERROR": "could not run: wrong words, no such file, a missing extra, a full disk, a defect",
    "EXIT_INTERRUPTED": "interrupted with Ctrl-C; what was found until then is printed",
}

SETTINGS = {
    "lang": ("en", "en, zh or both", "both files"),
    "format": ("text", "text, json or md", "both files"),
    "llm.on": ("false", "true lets every triage use the model", "the user's file"),
    "llm.model": ("", "name of the model at the endpoint", "the user's file"),
    "llm.base_url": ("", "address of the endpoint, `http://127.0.0.1:8000/v1`", "the user's file"),
    "llm.key_env": ("", "name of the variable that holds the key", "the user's file"),
    "llm.schema": (
        "true",
        "ask for structured outputs; false for a server that constrains too slowly",
        "the user's file",
    ),
    "llm.seconds": ("20", "how long to wait for the model, 0.1 to 120", "the user's file"),
}

VARIABLES = {
    "DIAGNOSE_LANG": "as `--lang`",
    "DIAGNOSE_FORMAT": "as `--format`",
    "DIAGNOSE_DEBUG": "set: a defect shows its traceback",
    "DIAGNOSE_PRACTICE": "file that `practice` remembers in, in place of the user's data folder",
    "DIAGNOSE_MCP_TOKEN": "token of `mcp --http`; one is made for each run where it is not set",
    "DIAGNOSE_TRACE": "set by the tool for a program that it profiles: folder of the trace. Not for users",
    "NO_COLOR": "set: no colour on a terminal",
    "PYTHONIOENCODING": "set: output keeps that encoding where the locale is plain ASCII",
    "CUDA_VISIBLE_DEVICES": "`microbench` counts `--gpu` among the GPUs named there",
    "RAY_ADDRESS": "the cluster that `--fleet ray` joins",
    "SLURM_JOB_ID": "set: `--fleet slurm` runs inside this allocation",
    "SLURM_JOB_NODELIST": "nodes of `--fleet slurm` where none are named",
    "SLURM_NODELIST": "the same under its old name",
    "KUBERNETES_SERVICE_HOST": "set: this is a pod",
    "UCX_TLS": "set: the probe of UCX keeps to it and measures no other path",
    "PYTHONPATH": "handed on to a program that is profiled, behind the profiler's own folder",
    "MASTER_ADDR": "set by the tool for the ranks of its own collective test. Not for users",
    "MASTER_PORT": "the same",
    "LANGSMITH_TRACING": "always turned off in this process: no trace leaves it",
    "LANGSMITH_TRACING_V2": "the same",
    "LANGCHAIN_TRACING": "the same",
    "LANGCHAIN_TRACING_V2": "the same",
}

SETTINGS_TEXT = f"""\
`./{LOCAL}` may set {" and ".join(PRESENTATION)} and nothing else; any other key there is an error, so that a checkout
that somebody else wrote chooses no endpoint, model or consent. The user's file is `diagnose/config.toml` in the
platform's folder for settings (`~/.config` on Linux). `llm.on` is `on` in the table `[llm]`."""
VARIABLES_TEXT = """\
`--api-key-env NAME` and `--llm-key-env NAME` read the variable that you name. Besides these, the probe `env.dump` reads
the variables of GPU libraries, masked."""


def cell(text: Any) -> str:
    """Text in a table: one line, no bar that would end the cell."""
    return " ".join(str(text).split()).replace("|", "\\|")


def code(text: str) -> str:
    """Text between backticks, whatever backticks it holds."""
    text = " ".join(text.split())
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    names = list(head)
    out = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return out + ["| " + " | ".join(cell(c) for c in row) + " |" for row in rows]


def page(title: str, intro: str, body: Iterable[str]) -> str:
    return "\n".join([f"# {title}", "", MADE, "", intro, "", *body]).rstrip() + "\n"


# --- the command line


def commands() -> dict[str, Any]:
    """Every command by the words that call it, as click sees it."""
    from typer.main import get_command

    from diagnose.cli import app

    def walk(group: Any, before: str) -> Iterator[tuple[str, Any]]:
        for name, made in group.commands.items():
            if hasattr(made, "commands"):
                yield from walk(made, f"{before}{name} ")
            else:
                yield f"{before}{name}", made

    return dict(walk(get_command(app), ""))


def cli_page() -> str:
    body: list[str] = []
    for name, made in sorted(commands().items(), key=lambda c: (c[0] != "triage", c[0])):
        arguments = [p for p in made.params if p.param_type_name == "argument"]
        options = [p for p in made.params if p.param_type_name == "option" and p.name != "help"]
        shown = " ".join(
            (f"{p.name.upper()}" if p.required else f"[{p.name.upper()}]") + ("…" if p.nargs == -1 else "")
            for p in arguments
        )
        called = "diagnose [SYMPTOM…]" if name == "triage" else f"diagnose {name} {shown}".rstrip()
        body += [f"## {name}", "", made.help or "", "", f"    {called}{' [OPTIONS]' if options else ''}", ""]
        rows = [(code(p.name.upper()), "", p.help or "") for p in arguments if p.help]
        for p in options:
            default = "" if p.default in (None, "", False, ()) or callable(p.default) else code(str(p.default))
            rows.append((", ".join(code(o) for o in p.opts), default, p.help or ""))
        body += [*table(("", "default", "what"), rows), ""] if rows else []
    intro = (
        "Anything that is no command is a symptom; a path that exists is evidence; piped input is read. "
        "Every command takes `-h`. Exit statuses: [exit codes](exit-codes.md)."
    )
    return page("Commands", intro, body)


def exits_page() -> str:
    from diagnose import errors

    tree = ast.parse(Path(errors.__file__).read_text("utf-8"))
    found = {t.id: ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) for t in n.targets
             if isinstance(t, ast.Name) and t.id.startswith("EXIT_")}  # fmt: skip
    body = table(("status", "meaning"), ((value, EXITS[name]) for name, value in found.items()))
    body += ["", "An error is one line on standard error, `diagnose: what`, and a second one that says what to do.", ""]
    kinds = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.DiagnoseError)]
    body += table(("error", "is"), ((f"`{k.__name__}`", (k.__doc__ or "").split("\n")[0]) for k in kinds))
    return page("Exit codes", "What a script can rely on. For `--fleet` see [many nodes](../howto-fleet.md).", body)


def variables() -> set[str]:
    """Names that the code looks up in the environment, by its syntax."""
    out: set[str] = set()
    for top in ("diagnose", "probes"):
        for path in sorted((ROOT / top).rglob("*.py")):
            text = path.read_text("utf-8")
            if "environ" not in text:
                continue
            tree = ast.parse(text)
            named = {t.id: n.value.value for n in tree.body if isinstance(n, ast.Assign)
                     and isinstance(n.value, ast.Constant) and isinstance(n.value.value, str)
                     for t in n.targets if isinstance(t, ast.Name)}  # fmt: skip
            for node in ast.walk(tree):
                asked: ast.expr | None = None
                if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
                    asked = node.slice
                elif isinstance(node, ast.Call) and re.search(
                    r"environ\.(get|setdefault|pop)$", ast.unparse(node.func)
                ):
                    asked = node.args[0]
                elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]) in (
                    "os.environ",
                    "host.environ",
                ):
                    asked = node.left
                if isinstance(asked, ast.Constant) and isinstance(asked.value, str):
                    out.add(asked.value)
                elif isinstance(asked, ast.Name) and asked.id in named:
                    out.add(named[asked.id])
    return out


def settings_page() -> str:
    rows = [(code(k), code(d) if d else "", what, where) for k, (d, what, where) in SETTINGS.items()]
    body = ["## Keys", "", *table(("key", "default", "what", "may stand in"), rows), ""]
    known = ((code(n), w) for n, w in VARIABLES.items())
    releases = (
        (code(n), ", ".join(f"{c} {r}" for c, r in v.items())) for n, v in sorted(catalogue().variables.items())
    )
    body += [SETTINGS_TEXT, "", "## Variables of the environment", "", *table(("variable", "what"), known), ""]
    body += [VARIABLES_TEXT, "", "## Variables that a probe may set", ""]
    body += [
        "For a program that a probe starts, and for nothing else: " + ", ".join(map(code, sorted(KNOBS))) + ".",
        "",
    ]
    body += ["## Variables that not every release reads", "", "Set for another release they are no evidence.", ""]
    body += table(("variable", "releases"), releases)
    return page(
        "Settings and variables",
        "A flag wins over the environment, that over `./diagnose.toml`, that over the user's file.",
        body,
    )


# --- the catalogue


def signals_page() -> str:
    families: dict[str, list[Signal]] = {}
    for name, signal in sorted(catalogue().signals.items()):
        families.setdefault(name.split(".")[0], []).append(signal)
    body: list[str] = []
    for family, found in families.items():
        rows = [(code(s.name), s.what, s.unit or s.type, ", ".join(s.subject), s.better or "") for s in found]
        body += [f"## {family}", "", *table(("signal", "what", "value", "about", "better"), rows), ""]
    return page(
        "Signals",
        "Every kind of fact that a reader, a mark or a derivation can yield. As JSON: `diagnose schema signals`.",
        body,
    )


def signs(cause: Cause, against: bool) -> list[tuple[str, str]]:
    """Strength and reason of a cause's indicators, each reason once, what the user says left out."""
    out: dict[str, str] = {}
    for item in cause.indicators:
        if item.against == against and not item.because.startswith("you said"):
            out.setdefault(item.because or in_words(item.when), item.strength)
    return sorted(((s, b) for b, s in out.items()), key=lambda p: ("decisive", "strong", "weak").index(p[0]))


def causes_page() -> str:
    found = catalogue().causes
    layers = sorted({c.layer for c in found.values()})
    body: list[str] = []
    for layer in layers:
        body += [f"## {layer}", ""]
        for cause in sorted((c for c in found.values() if c.layer == layer), key=lambda c: c.id):
            body += [f"### {cause.id}", "", f"**{cell(cause.title)}** ({cause.severity}). {cell(cause.definition)}", ""]
            for label, against in (("for", False), ("against", True)):
                if told := signs(cause, against):
                    body += [f"- Signs {label}: " + "; ".join(f"{b} ({s})" for s, b in told)]
            if cause.produces:
                body += ["- Brings about: " + ", ".join(code(p) for p in cause.produces)]
            body += ["- Fix: " + cell(cause.fix.text), "- Check: " + cell(cause.verify), ""]
    return page(
        "Causes", "In full, in either language and with all conditions: `diagnose explain ID --lang both`.", body
    )


def probes_page() -> str:
    asked: dict[str, list[str]] = {}
    for book in catalogue().playbooks.values():
        for step in book.steps:
            if book.id not in asked.setdefault(step.probe, []):
                asked[step.probe].append(book.id)
    body: list[str] = []
    for name, spec in sorted(catalogue().probes.items()):
        body += [
            f"## {name}",
            "",
            f"{cell(spec.what)}. {spec.footprint}, about {spec.seconds:g} s.",
            "",
            f"    {' '.join(spec.command.split())}",
            "",
        ]
        for label, text in (
            ("Needs", spec.needs),
            ("To have it", spec.enable),
            ("Read it so", spec.expect),
            ("May disturb", spec.disturbs),
        ):
            body += [f"- {label}: {cell(text)}"] if text else []
        body += ["- Gives: " + ", ".join(code(p) for p in spec.provides)]
        if name in asked:
            body += ["- Asked by: " + ", ".join(f"[{b}](../howto/{b}.md)" for b in sorted(asked[name]))]
        body += [""]
    intro = (
        "`read` opens files and asks drivers, `light` sends a few requests or restarts a program with more logging, "
        "`load` takes the machine for seconds. Above `read` nothing runs without `--allow` or a yes."
    )
    return page("Probes", intro, body)


def schema_page() -> str:
    body: list[str] = []
    for name, model in (("report", Report), ("audit", Audit), ("fleet", Fleet)):
        known: type[Model] = model
        made = known.model_json_schema(by_alias=True)
        parts = {known.__name__: made, **made.get("$defs", {})}
        for part, about in parts.items():
            title = f"## diagnose.{name}/v1" if part == known.__name__ else f"### {name}: {part}"
            told = " ".join((about.get("description") or "").split("\n\n")[0].split())
            rows = [(code(key), kind(field)) for key, field in about.get("properties", {}).items()]
            body += [title, "", *([told, ""] if told else []), *table(("key", "type"), rows), ""]
    intro = (
        "Consumers ignore unknown keys; keys are added, never retyped. Schema: `diagnose schema report|audit|fleet`."
    )
    return page("JSON of reports", intro, body)


def kind(field: dict[str, Any]) -> str:
    """The type of a key of a JSON Schema in words."""
    if "$ref" in field:
        return str(field["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in field:
        return " or ".join(kind(f) for f in field["anyOf"])
    if "enum" in field:
        return " or ".join(code(str(v)) for v in field["enum"])
    if "const" in field:
        return code(str(field["const"]))
    if field.get("type") == "array":
        inner = field.get("items") or {"type": ", ".join(kind(f) for f in field.get("prefixItems", []))}
        return f"list of {kind(inner)}"
    if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"object of {kind(field['additionalProperties'])}"
    return str(field.get("type", "any"))


def index_page() -> str:
    groups, items = checks.load()
    rows = [
        ("[Commands](cli.md)", f"{len(commands())} commands with all their options"),
        ("[Exit codes](exit-codes.md)", "what a script can rely on"),
        ("[Settings and variables](settings.md)", "files, keys, environment"),
        ("[Signals](signals.md)", f"{len(catalogue().signals)} kinds of facts"),
        ("[Causes](causes.md)", f"{len(catalogue().causes)} causes with their signs"),
        ("[Probes](probes.md)", f"{len(catalogue().probes)} probes with cost and command"),
        ("[Checks of the audit](../checks.md)", f"{len(items)} checks in {len(groups)} groups"),
        ("[JSON of reports](json.md)", "report, audit, fleet"),
        ("[Playbooks](../howto/README.md)", f"{len(catalogue().playbooks)} questions, a page each"),
    ]
    return page("Reference", "Made from the code, and checked against it.", table(("page", "holds"), rows))


# --- pages of the playbooks


@cache
def named_signals(function: Any) -> frozenset[str]:
    """Signals whose names stand in a rule; if none does, in the functions of the rules' modules that it calls."""
    consts: set[str] = set()
    names: set[str] = set()
    parts = [function.__code__]
    while parts:
        part = parts.pop()
        consts |= {c for c in part.co_consts if isinstance(c, str)}
        parts += [c for c in part.co_consts if hasattr(c, "co_consts")]
        names |= set(part.co_names)
    if named := consts & catalogue().signals.keys():
        return frozenset(named)
    called = [function.__globals__.get(name) for name in sorted(names)]
    helpers = [f for f in called if f is not function and hasattr(f, "__code__")]
    return frozenset().union(*(named_signals(f) for f in helpers if f.__module__.startswith("diagnose.rules")))


def read_by(when: dict[str, Any]) -> Iterator[str]:
    """Signals that a condition looks at."""
    for key in ("all", "any"):
        for part in when.get(key, ()):
            yield from read_by(part)
    match next(iter(when)):
        case "signal" | "spread" | "absent" as leaf:
            yield when[leaf]
        case "ratio":
            yield from when["ratio"]
        case "compare":
            yield "compare.ratio"
        case "python":
            yield from named_signals(rules.RULES[when["python"]])


def separated(book: Playbook) -> tuple[dict[str, list[Cause]], list[Cause]]:
    """Causes of a playbook by the step that reads most of their own signs, and those whose signs no step reads."""
    by_step: dict[str, list[Cause]] = {s.id: [] for s in book.steps}
    rest: list[Cause] = []
    for cause in sorted((c for c in catalogue().causes.values() if book.id in c.playbooks), key=lambda c: c.id):
        if cause.id == "none.healthy":
            continue
        own = {signal: 1 / shared()[signal] for signal in telling(cause) if shared()[signal] <= SHARED_BY}
        votes = [(-sum(w for s, w in own.items() if reads(step, s)), n, step.id) for n, step in enumerate(book.steps)]
        score, _, best = min(votes)
        (by_step[best] if score else rest).append(cause)
    return by_step, rest


def reads(step: Step, signal: str) -> bool:
    return any(signal == r or (r.endswith("*") and signal.startswith(r[:-1])) for r in step.reads)


def telling(cause: Cause) -> set[str]:
    """Signals that a decisive or strong sign of a cause looks at."""
    return {s for i in cause.indicators if not i.against and i.strength != "weak" for s in read_by(i.when)}


@cache
def shared() -> Counter[str]:
    """How many causes each signal speaks for; what speaks for many tells none of them from another."""
    return Counter(s for c in catalogue().causes.values() for s in telling(c))


def questions_block(book: Playbook) -> list[str]:
    """Each question with what answers it, then the causes that its answer sets apart from the others."""
    by_step, rest = separated(book)
    out: list[str] = []
    for number, step in enumerate(book.steps, 1):
        spec = catalogue().probes[step.probe]
        out.append(
            f"{number}. **{cell(step.ask)}** `{spec.name}`, {spec.footprint}, {spec.seconds:g} s: {code(spec.command)}"
        )
        if found := by_step[step.id]:
            out.append("   - " + "; ".join(f"{code(c.id)}: {lower(c.title)}" for c in found))
    if rest:
        out += ["", "Weighed too, on what else the evidence holds: " + ", ".join(code(c.id) for c in rest) + "."]
    return out


def lower(title: str) -> str:
    """A title within a sentence: its first word in lower case, unless it is a name."""
    first = title.split()[0]
    return cell(title if any(c.isupper() for c in first[1:]) else title[0].lower() + title[1:])


def filled(text: str, name: str, made: Iterable[str]) -> str:
    """A page with its marked part made anew."""
    head, foot = f"<!-- generated: {name} -->", "<!-- end -->"
    before, _, rest = text.partition(head)
    return "\n".join([before + head, *made, foot]) + rest.partition(foot)[2]


def howto_index() -> str:
    rows = [
        (f"[{b.id}]({b.id}.md)", b.title, b.question)
        for b in sorted(catalogue().playbooks.values(), key=lambda b: b.id)
    ]
    return page(
        "Playbooks",
        "One page a question. Many nodes: [howto-fleet](../howto-fleet.md).",
        table(("playbook", "when", "answers"), rows),
    )


@cache
def modules() -> Any:
    """`modules.py` beside this file, however this one was loaded."""
    found = importlib.util.spec_from_file_location("docs_modules", Path(__file__).with_name("modules.py"))
    assert found and found.loader
    made = sys.modules[found.name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(made)
    return made


def parsed_ahead() -> str:
    """`playbooks/parsed/parsed.json`: what each run would work out of the catalogue's YAML, a line a file."""
    files = {}
    for folder in sorted(AHEAD):
        for path in sorted((ROOT / "playbooks" / folder).glob("*.yaml")):
            data = path.read_bytes()
            files[digest(data)] = from_yaml(data)
    shaped = {mark.pattern: told(parsed(mark.pattern)) for mark in catalogue().marks}
    asked = [pattern for pattern, need in shaped.items() if not need]
    asked += [cue for cause in catalogue().causes.values() for cue in cause.cues]
    plain = {pattern: told(parsed(pattern, plain=True)) for pattern in asked}
    parts = []
    for name, entries in (("files", files), ("shaped", shaped), ("plain", plain)):
        lines = (
            f"{json.dumps(k)}:{json.dumps(v, ensure_ascii=False, separators=(',', ':'))}" for k, v in entries.items()
        )
        parts.append(f'"{name}":{{\n' + ",\n".join(lines) + "\n}")
    return "{" + ",".join(parts) + "}\n"


def told(need: Need) -> list[Any]:
    """What a line must hold, as JSON has it."""
    return [part.decode() if isinstance(part, bytes) else [told(other) for other in part] for part in need]


def pages() -> dict[Path, str]:
    """Every page as it should be. A page of a playbook that is not there is empty."""
    docs = ROOT / "docs"
    out = {docs / "reference" / f"{name}.md": text for name, text in {
        "README": index_page(), "cli": cli_page(), "exit-codes": exits_page(), "settings": settings_page(),
        "signals": signals_page(), "causes": causes_page(), "probes": probes_page(), "json": schema_page(),
    }.items()}  # fmt: skip
    out[docs / "howto" / "README.md"] = howto_index()
    out[ROOT / "playbooks" / "parsed" / "parsed.json"] = parsed_ahead()
    page_of_modules = docs / "architecture.md"
    out[page_of_modules] = filled(page_of_modules.read_text("utf-8"), "modules", modules().listed())
    for book in catalogue().playbooks.values():
        path = docs / "howto" / f"{book.id}.md"
        out[path] = filled(path.read_text("utf-8"), "questions", questions_block(book)) if path.is_file() else ""
    return out


def outdated() -> list[str]:
    return [p.relative_to(ROOT).as_posix() for p, text in pages().items()
            if not p.is_file() or p.read_text("utf-8") != text]  # fmt: skip


def main(argv: list[str]) -> int:
    if "--check" in argv:
        late = outdated()
        print("\n".join(late) or "up to date")
        return bool(late)
    for path, text in pages().items():
        if text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
