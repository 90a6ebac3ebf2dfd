"""`veilsum audit`: attack a run's own pipeline, or read what its server received.

Two kinds of run can be attacked: a run folder of `veilsum simulate`, whose settings are kept in it; and any Python file
that defines `federation()`, which returns a `fedavg.Federation` as the run itself makes it. Such a file may also define
`membership(weights)`, which returns two arrays of scores, of members and of others, larger for "was a member".

Exit code 1 if something speaks against the promise.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import dp
import fedavg
from dp.auditing import Membership, membership_inference, most_true_alarms
from fedavg import datasets
from fedavg.auditing import PROVES_NOT, Audit, TranscriptAudit, audit_transcript, read_transcript
from fedavg.auditing import audit as run_audits
from fedavg.cli.screen import Screen
from fedavg.cli.settings import Setup, kept
from fedavg.errors import CheckpointError, ParameterError
from fedavg.report import epsilon_text

__all__ = ["audit"]

_FOUND = 1
_MOST = 20  # Participations, unless more are asked for: each is a round of every group.
_BINS = 40
_Scores = tuple[NDArray[np.float64], NDArray[np.float64]]


def audit(
    target: Annotated[
        str,
        typer.Argument(metavar="RUN|SCRIPT|transcript", help="A run folder, a Python file, or: transcript."),
    ],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="After transcript: what was recorded.")
    ] = None,
    canaries: Annotated[int, typer.Option(help="Canary clients, at least; whole cohorts of them.")] = 1000,
    participations: Annotated[
        int | None,
        typer.Option(help="Rounds that a canary is in; the run's own cap, at most 20, by default."),
    ] = None,
    level: Annotated[float, typer.Option(help="How often a detector may err on an honest run.")] = 0.001,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the scores of canaries in and out as a PNG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Attack a run with canaries and look for each failure by itself; or audit a transcript.

    RUN is the folder of a veilsum simulate, SCRIPT a Python file that defines federation(). After the word transcript,
    FILE is what simulate --record FILE wrote. Exit code 1 if something speaks against the promise.
    """
    screen = Screen(as_json=as_json)
    if not 0 < level < 1:
        raise ParameterError(f"--level is {level:g}; give a probability above 0 and below 1")
    if target == "transcript":
        if file is None:
            raise ParameterError("audit transcript needs a file; make one with simulate --record FILE")
        _transcript(screen, file, level)
        return
    if file is not None:
        raise ParameterError(f"{file} was given after {target}; only audit transcript takes a second name")
    subject = _subject(Path(target), screen)
    federation = subject.federation
    cap = federation.privacy.max_participations
    found = run_audits(
        federation.plan,
        federation.sampler,
        delta=federation.privacy.delta,
        canaries=canaries,
        participations=participations or min(cap or federation.rounds, federation.rounds, _MOST),
        level=level,
    )
    if subject.membership is not None:
        found = _with_membership(found, federation, *subject.membership())
    if subject.folder is not None:
        _keep(subject.folder, found)
        plot = plot or subject.folder / "public" / "audit.png"
    _show(screen, found)
    if plot is not None:
        _draw(plot, found, screen)
    screen.result(found.as_dict())
    if found.flagged:
        raise typer.Exit(_FOUND)


@dataclass(frozen=True)
class _Subject:
    """What is attacked."""

    federation: fedavg.Federation
    membership: Callable[[], _Scores] | None
    folder: Path | None


def _subject(target: Path, screen: Screen) -> _Subject:
    if target.is_dir():
        return _run(target, screen)
    if target.suffix == ".py" and target.is_file():
        return _script(target)
    raise ParameterError(
        f"{target} is neither a run folder nor a Python file; give the folder of a veilsum simulate, or a file that"
        " defines federation()"
    )


def _run(folder: Path, screen: Screen) -> _Subject:
    """A run of `veilsum simulate`, planned once more; refused if that does not give the same plan."""
    settings = kept(folder)
    with screen.download(f"fetching {settings.dataset}") as progress:
        data = datasets.load(settings.dataset, progress=progress, notice=screen.warn)
    setup = Setup(settings, data)
    arguments = setup.arguments()
    federation = fedavg.Federation(**arguments)
    try:
        ran = json.loads((folder / "operator" / "run.json").read_text(encoding="utf-8"))["plan"]
        with np.load(folder / "public" / "model.npz", allow_pickle=False) as file:
            weights = {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} holds no finished round ({error}); run it first") from error
    if ran != federation.plan.canonical().hex():
        raise CheckpointError(
            f"{folder} was run with another plan than its settings give now; audit it with the version that ran it"
        )

    def scores() -> _Scores:
        clients = setup.clients()
        members = [
            setup.model.step(weights, clients.for_client(name))[1]["loss"] for name in clients.client_ids
        ]
        others = [setup.model.step(weights, stranger)[1]["loss"] for stranger in setup.strangers()]
        return -np.array(members), -np.array(others)

    return _Subject(federation, scores, folder)


def _script(path: Path) -> _Subject:
    names = runpy.run_path(str(path))
    make, membership = names.get("federation"), names.get("membership")
    federation = make() if callable(make) else None
    if not isinstance(federation, fedavg.Federation):
        raise ParameterError(
            f"{path} defines no federation() that returns a fedavg.Federation; define one as the run makes it"
        )
    if membership is None:
        return _Subject(federation, None, None)

    def scores() -> _Scores:
        members, others = membership(federation.result().weights)
        return np.asarray(members, np.float64), np.asarray(others, np.float64)

    return _Subject(federation, scores, None)


def _with_membership(
    found: Audit, federation: fedavg.Federation, members: NDArray[np.float64], others: NDArray[np.float64]
) -> Audit:
    """The attack on the released model, beside what the readers' epsilon of all planned rounds allows."""
    member: Membership = membership_inference(members, others)
    privacy = federation.privacy
    readers = dp.epsilon_of(
        federation.plan.mechanism,
        federation.sampler,
        federation.rounds,
        privacy.delta,
        privacy.max_participations,
    ).readers
    most = most_true_alarms(member.false_alarms, epsilon=readers, delta=privacy.delta)
    return replace(found, membership=member, most_allowed=most)


def _keep(folder: Path, found: Audit) -> None:
    """Leave the audit in the run's folder; what was computed from people's data stays with the operator."""
    figures = found.as_dict()
    member = figures.pop("membership")
    try:
        public = {**figures, "scores": _histogram(found)}
        (folder / "public" / "audit.json").write_text(json.dumps(public, indent=1), encoding="utf-8")
        (folder / "operator" / "membership.json").write_text(json.dumps(member, indent=1), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"the audit cannot be kept in {folder}: {error.strerror or error}; check its rights and space"
        ) from error


def _histogram(found: Audit) -> Mapping[str, Any]:
    both = np.concatenate([found.included, found.excluded])
    edges = np.linspace(both.min(), both.max() + 1e-9, _BINS + 1)
    return {
        "edges": edges.round(6).tolist(),
        "included": np.histogram(found.included, edges)[0].tolist(),
        "excluded": np.histogram(found.excluded, edges)[0].tolist(),
    }


def _show(screen: Screen, found: Audit) -> None:
    count = len(found.included) + len(found.excluded)
    times = "one round" if found.participations == 1 else f"{found.participations:,} rounds"
    screen.heading("Canaries against the promise")
    screen.facts(
        {
            "promised": f"epsilon {epsilon_text(found.promised)} at delta {found.delta:g} for {times} of one client,"
            " against whoever knows the cohort",
            "lower bound": f"{found.bound.epsilon:.3f}: {found.bound.right} of {found.bound.guesses} guesses right over"
            f" {count:,} canaries; above the truth in at most {found.bound.significance:.0%} of audits",
            "estimate": f"{found.estimate.epsilon:.3f}, which is no bound on either side",
        }
    )
    screen.heading("Each failure by itself")
    for finding in found.findings:
        verdict = "FLAGGED" if finding.flagged else "nothing found"
        screen.line(f"  {finding.detector}: {verdict} (p = {finding.p_value:.2g})")
        screen.paragraph(finding.says)
    if found.membership is not None and found.most_allowed is not None:
        member = found.membership
        screen.heading("Membership inference on the released model")
        screen.paragraph(
            f"By its loss, {member.true_alarms:.1%} of {member.members:,} members are found where"
            f" {member.false_alarms:.0%} of {member.others:,} others are taken for members; the readers' epsilon allows"
            f" no attack more than {found.most_allowed:.1%}. Area under the curve {member.area:.3f}; guessing has 0.5."
            " Computed from people's data: not for publication."
        )
    screen.line("")
    for says in found.flagged:
        screen.fail(says)
    if not found.flagged:
        screen.say(
            "Nothing speaks against the promise. That does not prove it: a bound this weak misses much."
        )


def _draw(target: Path, found: Audit, screen: Screen) -> None:
    from fedavg.cli.audit_plot import draw

    try:
        draw(found, target)
    except ParameterError as error:
        screen.warn(str(error))
        return
    screen.line(f"Scores: {target}")


def _transcript(screen: Screen, file: Path, level: float) -> None:
    transcript = read_transcript(file)
    found: TranscriptAudit = audit_transcript(transcript, level=level)
    screen.facts(
        {
            "transcript": str(file),
            "rounds": f"{found.rounds:,}",
            "messages": ", ".join(f"{count:,} {stage}" for stage, count in found.messages.items()) or "none",
            "bytes": ", ".join(f"{count:,} {name}" for name, count in found.contents.items() if count)
            or "none",
            "unexplained": f"{found.contents['unexplained']:,} bytes",
        }
    )
    for finding in found.findings:
        verdict = "FLAGGED" if finding.flagged else "nothing found"
        screen.line(f"  {finding.detector}: {verdict} (p = {finding.p_value:.2g})")
        screen.paragraph(finding.says)
    screen.line("")
    for problem in found.problems:
        screen.fail(problem)
    if found.more:
        screen.fail(f"and {found.more:,} more such messages")
    if found.clean:
        screen.say("Nothing was found beyond masked vectors, keys, shares and tags.")
    screen.say(PROVES_NOT)
    screen.result(found.as_dict())
    if not found.clean:
        raise typer.Exit(_FOUND)
