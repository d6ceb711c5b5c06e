"""The LangGraph state machine: look → gather → route → playbook subgraph → assess → explain → verify.

In a live run `look` reads the machine first, and as long as `assess` leaves the verdict open the
planner's best probe runs (after `consent`, where it disturbs) and the evidence is gathered again.
Where nobody is there to be asked, `walk` goes the same way without LangGraph, which takes longer to import than all
nodes take to run.

Each playbook compiles to a subgraph with one node per step, so that Studio and Mermaid show the
tree being walked. The state holds evidence and capture references, never raw text; documents live
in the runtime context (`Session`) or are opened again from `paths`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypedDict

from . import said
from .assess import Assessment, assess
from .catalogue import catalogue
from .document import Document
from .entries import Playbook, Step
from .gather import Gathered, gather, gather_known, number
from .limits import limits
from .mask import mask_evidence
from .models import Evidence, Fact, InputRef, Limit, PathStep, Reference
from .playbook import CONCLUDE, decide
from .predicates import Context
from .report import OFFLINE, finished
from .report import build as build_report
from .route import asked, infer
from .rules import registered
from .verify import verify
from .wording import shifts, text_of

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from .live import Live

# No trace leaves this process, whatever the environment says (design, principle 6): set before LangGraph is imported.
for _name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING"):
    os.environ[_name] = "false"


def _extend(old: list[Any], new: list[Any] | None) -> list[Any]:
    """Reducer: nodes add to the list; None starts it anew (the tree is walked again after a probe)."""
    return [] if new is None else [*old, *new]


class State(TypedDict, total=False):
    """What flows through the graph; plain JSON throughout."""

    symptom: str
    inferred: bool
    paths: list[str]
    langs: list[str]
    playbook: str
    asked: list[str]
    evidence: list[dict[str, Any]]
    inputs: list[dict[str, Any]]
    recognised: dict[str, bool]
    wording: dict[str, float]
    limits: list[dict[str, Any]]
    references: list[dict[str, Any]]
    path: Annotated[list[dict[str, Any]], _extend]
    missing: Annotated[list[str], _extend]
    ran: Annotated[list[dict[str, Any]], _extend]
    cassette: str
    step: str
    next: str
    because: str
    verdict: str
    confidence: float
    leading: list[str]
    report: dict[str, Any]
    mismatches: list[str]


_GROWING = frozenset(["path", "missing", "ran"])  # what `_extend` reduces


class Walked(TypedDict, total=False):
    """What a playbook's subgraph gives back: only what it added, or lists that nodes extend would double."""

    path: Annotated[list[dict[str, Any]], _extend]
    missing: Annotated[list[str], _extend]


@dataclass
class Session:
    """Per-run objects that are no state: open documents, refused inputs, who wants to hear of progress."""

    documents: list[Document] = field(default_factory=list)
    rejected: list[InputRef] = field(default_factory=list)
    progress: Callable[[str], None] = lambda text: None
    stated: list[Fact] = field(default_factory=list)  # answers of the user
    gathered: Gathered = field(default_factory=Gathered)  # fills while documents are read
    given: bool = False  # evidence was named, beside what a live run captures
    known: dict[str, Gathered] = field(default_factory=dict)  # what single documents of a live run gave
    live: Live | None = None  # None: only the given evidence is read
    # key, context, and the list the key was taken from (held, so that its identity stays taken)
    indexed: tuple[tuple[int, str], Context, list[dict[str, Any]]] | None = None
    judged: tuple[Context, Assessment] | None = None


class Run(Protocol):
    """What a node sees of the run; LangGraph's `Runtime` is one."""

    @property
    def context(self) -> Session | None:
        """Objects of this run that are no state."""


def _open(state: State, session: Session) -> None:
    if session.documents or session.rejected or not state.get("paths"):
        return
    from .inputs import open_inputs

    session.documents, session.rejected = open_inputs(state["paths"], None)


def _look(state: State, runtime: Run) -> dict[str, Any]:
    """Live only: the quick read probes that tell something about the question, side by side."""
    session = runtime.context
    if session is None or session.live is None:
        return {}
    cat, live = catalogue(), session.live
    registered(cat)  # before anything is recorded that could then not be judged
    playbooks = asked(cat, state.get("symptom", ""), [])
    chosen = live.first(playbooks, state.get("symptom", ""))
    session.progress(f"reading this machine: {len(chosen)} probes")
    session.documents.extend(live.run(chosen))
    return {"cassette": str(live.cassette.path)}


def _gather(state: State, runtime: Run) -> dict[str, Any]:
    session = runtime.context or Session()
    _open(state, session)
    session.progress(f"reading {len(session.documents)} input(s)")
    session.gathered = Gathered()
    if session.live is None:
        got = gather(session.documents, session.gathered)
    else:  # after each probe only what it gave is new
        got = gather_known(session.documents, session.known, session.gathered)
    said.add(got, session.stated)
    evidence = number(got)
    if session.live is not None and session.given:  # what was captured is masked already; the state is kept in a file
        evidence = mask_evidence(evidence, session.documents)
    known, references = limits(evidence)
    inputs = [*got.inputs, *session.rejected]
    return {
        "evidence": [e.model_dump(mode="json") for e in evidence],
        "inputs": [i.model_dump(mode="json") for i in sorted(inputs, key=lambda i: i.name)],
        "recognised": got.recognised,
        "wording": shifts(text_of(state.get("symptom", ""), session.documents), catalogue().wording),
        "limits": [x.model_dump(mode="json") for x in known],
        "references": [r.model_dump(mode="json") for r in references],
        "path": None,
        "missing": None,
    }


def _route(state: State) -> dict[str, Any]:
    cat = catalogue()
    symptom = state.get("symptom", "").strip()
    evidence = (Evidence.model_validate(e) for e in state["evidence"])  # read only where words do not decide
    if symptom:
        found = asked(cat, symptom, evidence)
        return {"playbook": found[0], "asked": found, "inferred": False}
    playbook = infer(list(evidence))
    return {"playbook": playbook, "asked": [playbook], "inferred": True, "symptom": cat.playbooks[playbook].question}


def context(state: State, session: Session | None) -> Context:
    """The evidence of a state, indexed for conditions; built once a run where there is a session."""
    key = (id(state["evidence"]), state["playbook"])
    if session is not None and session.indexed is not None and session.indexed[0] == key:
        return session.indexed[1]
    made = Context(
        [Evidence.model_validate(e) for e in state["evidence"]],
        state["playbook"],
        "" if state.get("inferred") else state.get("symptom", ""),
        [Limit.model_validate(x) for x in state["limits"]],
        state["recognised"],
        frozenset(state["asked"]),
        state["wording"],
    )
    if session is not None:
        session.indexed = (key, made, state["evidence"])
    return made


@dataclass(frozen=True)
class StepNode:
    """One step of a playbook as a node: decide, record, say where to go."""

    step: Step

    def __call__(self, state: State, runtime: Run) -> dict[str, Any]:
        got = decide(self.step, context(state, runtime.context))
        return {
            "path": [got.record().model_dump(mode="json")],
            "missing": [] if got.known else [self.step.probe],
            "step": got.to,
        }


def _next_step(state: State) -> str:
    return state["step"]


def _chosen_playbook(state: State) -> str:
    return state["playbook"]


def playbook_graph(book: Playbook) -> CompiledStateGraph[State, Session, State, Walked]:
    """One playbook as a graph: a node per step, conditional edges along its branches."""
    from langgraph.graph import END, START, StateGraph

    graph: StateGraph[State, Session, State, Walked] = StateGraph(State, context_schema=Session, output_schema=Walked)
    for step in book.steps:
        graph.add_node(step.id, StepNode(step))
        targets = {b.to for b in step.branches} | {step.else_to, step.else_unknown}
        graph.add_conditional_edges(step.id, _next_step, {t: END if t == CONCLUDE else t for t in sorted(targets)})
    graph.add_edge(START, book.steps[0].id)
    return graph.compile()


def _judge(ctx: Context, session: Session | None) -> Assessment:
    """The assessment of a context; made once a run where there is a session."""
    if session is not None and session.judged is not None and session.judged[0] is ctx:
        return session.judged[1]
    got = assess(catalogue(), ctx)
    if session is not None:
        if session.live is not None and not session.given and session.live.blind(ctx.playbook):
            # what a machine without the thing asked about does says nothing about it
            bare = Context([], ctx.playbook, ctx.symptom, [], {}, ctx.asked)
            got = replace(assess(catalogue(), bare), verdict="inconclusive", confidence=1.0, accepted=[], links=[])
        session.judged = (ctx, got)
    return got


def _assess(state: State, runtime: Run) -> dict[str, Any]:
    session = runtime.context
    ctx = context(state, session)
    got = _judge(ctx, session)
    option = session.live.next(got, ctx) if session is not None and session.live is not None else None
    return {
        "verdict": got.verdict,
        "confidence": got.confidence,
        "leading": [b.cause.id for b in got.accepted[:3]],
        "next": option.spec.name if option else "",
        "because": option.explain() if option else "",
    }


def _probe_or_explain(state: State) -> str:
    return "consent" if state.get("next") else "explain"


def _consent(state: State, runtime: Run) -> dict[str, Any]:
    """Ask before a probe that disturbs; the answer comes back through the graph's own interrupt."""
    session = runtime.context
    assert session is not None and session.live is not None
    live, name = session.live, state["next"]
    if catalogue().probes[name].footprint in live.allow:
        return {}
    from langgraph.types import interrupt

    from .live import consent_question

    if interrupt(consent_question(name, live.host)) is True:
        return {}
    live.refused.add(name)
    return {"next": ""}


def _run_or_assess(state: State) -> str:
    return "probe" if state.get("next") else "assess"


def _probe(state: State, runtime: Run) -> dict[str, Any]:
    """Run the probe that the planner chose."""
    session = runtime.context
    assert session is not None and session.live is not None
    live, name = session.live, state["next"]
    session.progress(f"running {name}")
    found = live.run_named(name)
    session.documents.extend(found)
    outcome = f"{len(found)} capture(s) in {live.ran[name]:.1f} s" if found else live.why_not(name)
    step = PathStep(step="planned", probe=name, outcome=outcome, because=state["because"])
    return {"ran": [step.model_dump(mode="json")], "next": ""}


def _explain(state: State, runtime: Run) -> dict[str, Any]:
    cat, ctx = catalogue(), context(state, runtime.context)
    session = runtime.context or Session()
    noted = session.live.noted() if session.live else {}
    server = [PathStep(step="server", probe=name, outcome=why, because="") for name, why in noted.items()]
    report = build_report(
        cat,
        ctx,
        _judge(ctx, runtime.context),
        [InputRef.model_validate(i) for i in state["inputs"]],
        [Reference.model_validate(r) for r in state["references"]],
        [*server, *(PathStep.model_validate(p) for p in (*(state.get("ran") or ()), *(state.get("path") or ())))],
        [*noted, *(state.get("missing") or ())],
        state.get("symptom", ""),
        state.get("inferred", False),
        tuple(state.get("langs") or ("en",)),
        session.live.why_not if session.live else lambda probe: OFFLINE,
        session.live.ran if session.live else {},
    )
    _open(state, session)
    return {"report": finished(report, cat, session.documents).model_dump(mode="json", by_alias=True)}


def _verify(state: State, runtime: Run) -> dict[str, Any]:
    session = runtime.context or Session()
    _open(state, session)
    # what the readers made was made a moment ago; `diagnose verify` runs them again
    found = verify(state["report"], session.documents, again=False)
    return {"mismatches": [str(m) for m in found]}


def build(
    playbooks: Iterable[str] | None = None, checkpointer: Any = None
) -> CompiledStateGraph[State, Session, State, State]:
    """The outer graph with the named playbooks as subgraphs (all of them by default)."""
    from langgraph.graph import END, START, StateGraph

    cat = catalogue()
    names = sorted(playbooks if playbooks is not None else cat.playbooks)
    graph: StateGraph[State, Session, State, State] = StateGraph(State, context_schema=Session)
    graph.add_node("look", _look)
    graph.add_node("gather", _gather)
    graph.add_node("route", _route)
    graph.add_node("assess", _assess)
    graph.add_node("explain", _explain)
    graph.add_node("verify", _verify)
    for name in names:
        graph.add_node(name, playbook_graph(cat.playbooks[name]))
        graph.add_edge(name, "assess")
    graph.add_node("consent", _consent)
    graph.add_node("probe", _probe)
    graph.add_edge(START, "look")
    graph.add_edge("look", "gather")
    graph.add_edge("gather", "route")
    graph.add_conditional_edges("route", _chosen_playbook, {n: n for n in names})
    graph.add_conditional_edges("assess", _probe_or_explain, ["consent", "explain"])
    graph.add_conditional_edges("consent", _run_or_assess, ["probe", "assess"])
    graph.add_edge("probe", "gather")
    graph.add_edge("explain", "verify")
    graph.add_edge("verify", END)
    return graph.compile(checkpointer=checkpointer)


@dataclass(frozen=True)
class _Alone:
    """A run without LangGraph."""

    context: Session


def walk(start: State, session: Session) -> State:
    """The nodes in the order in which the graph takes them, for a run in which nobody can be asked."""
    state, run = start.copy(), _Alone(session)

    def take(made: dict[str, Any]) -> None:
        known: Any = state
        for name, value in made.items():
            known[name] = _extend(known.get(name, []), value) if name in _GROWING else value

    take(_look(state, run))
    while True:
        take(_gather(state, run))
        take(_route(state))
        steps = {s.id: StepNode(s) for s in catalogue().playbooks[state["playbook"]].steps}
        state["step"] = next(iter(steps))
        while state["step"] != CONCLUDE:
            take(steps[state["step"]](state, run))
        take(_assess(state, run))
        if _probe_or_explain(state) == "explain":
            break
        take(_consent(state, run))  # finds it allowed: nothing else is chosen where nobody can be asked
        take(_probe(state, run))
    take(_explain(state, run))
    take(_verify(state, run))
    return state


def checkpointer(session: Session) -> Any:
    """Where a live run's state is kept: a SQLite file beside its cassette; None for an offline run."""
    if session.live is None:
        return None
    import sqlite3

    from langgraph.checkpoint.sqlite import SqliteSaver

    path = session.live.cassette.path.with_suffix(".sqlite")
    with contextlib.suppress(OSError):  # the connection says what is wrong with the place
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    return SqliteSaver(sqlite3.connect(path, check_same_thread=False))


def studio() -> CompiledStateGraph[State, Session, State, State]:
    """Entry point of `langgraph.json`: every playbook; give `symptom` and `paths` as input."""
    return build()
