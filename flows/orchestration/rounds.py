"""The flow `rlaif-rounds`: iterated RLAIF, each round from the policy of the one before."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from common.text import clip, escape_markdown
from flows.config.forms import RoundsRules, RunRequest
from flows.orchestration.artifacts import publish_table
from flows.orchestration.rlaif import run_name, run_step, show, working
from flows.orchestration.states import fails_in_one_line
from flows.pipeline.launch import finish
from flows.pipeline.rounds import Round, kept, run_rounds
from flows.pipeline.session import Session
from flows.runs.record import Outcome
from flows.stages.contract import Stage
from flows.stages.registry import by_name

_REQUEST, _RULES = RunRequest(), RoundsRules()


@flow(name="rlaif-rounds", flow_run_name=run_name("rlaif-rounds"))
@fails_in_one_line
def rlaif_rounds(request: RunRequest = _REQUEST, rules: RoundsRules = _RULES) -> str:
    """Iterated RLAIF: sample from the current policy, label, refresh the reward model, continue, until a rule stops it.

    Returns the run directory; rounds.json in it has every round.

    Args:
        request: What to run; the first round is this run.
        rules: When to stop, and what each round learns from.
    """
    with working(request) as session:
        progress: Any = create_progress_artifact(
            progress=0.0,
            key="rounds-progress",
            description=escape_markdown(f"rounds of {session.config.name}"),
        )
        number = 1

        def execute(now: Session, stage: Stage) -> Outcome:
            return run_step(request, now, stage, note=f", round {number}")

        def on_round(done: list[Round]) -> None:
            nonlocal number
            number = len(done) + 1
            _show(session, done, rules)
            share = 100.0 if done[-1].stop else 100.0 * len(done) / rules.rounds
            update_progress_artifact(
                artifact_id=progress,
                progress=share,
                description=f"{len(done)} of at most {rules.rounds} rounds",
            )

        done, stop = run_rounds(session, rules, execute=execute, on_round=on_round)
        best = kept(done, rules)
        get_run_logger().info(
            "stopped: %s; kept: %s", stop, f"the policy of round {best}" if best else "the SL-CAI model"
        )
        chosen = done[max(best, 1) - 1]
        session.outputs.update(chosen.outputs)
        session.outcomes.update(chosen.outcomes)
        run_step(request, session, by_name("evaluate"))
        show(session, finish(session))
        return str(session.directory.path)


def _show(session: Session, done: list[Round], rules: RoundsRules) -> None:
    rows = [_row(r.record()) for r in done]
    title = f"{session.config.name}, {clip(session.constitution.ref)}; kept: {kept(done, rules) or 'the SL-CAI model'}"
    publish_table("rounds", rows, description=escape_markdown(title, limit=200))
    last = rows[-1]
    get_run_logger().info(
        "round %s: %s", last["round"], ", ".join(f"{k} {v}" for k, v in last.items() if k != "round")
    )


def _row(record: dict[str, Any]) -> dict[str, Any]:
    def value(name: str, *, sign: str = "") -> str:
        found = record[name]
        return "" if found is None or found["value"] is None else f"{found['value']:{sign}.3f}"

    return {
        "round": record["round"],
        "labels": f"{record['usable']} of {record['pairs']}",
        "win rate": value("win_rate"),
        "reward": value("reward", sign="+"),
        "gold": value("gold", sign="+"),
        "KL": "" if record["kl"] is None else f"{record['kl']:.2f}",
        "stop": clip(record["stop"] or ""),
    }
