"""A sweep of KL penalties: its ends, its shape, its page; and a real one whose betas share all but the last stage."""

import json
from types import SimpleNamespace

import pytest

from flows.config.forms import RunRequest
from flows.errors import FlowError
from flows.evaluation.over_optimisation import Fit
from flows.pipeline.launch import open_session
from flows.pipeline.sweep import Sweep, _measured, _point, _shape, run_sweep
from flows.runs.progress import Silent

TRUE = Fit(alpha=0.5, beta=0.2, r_squared=1.0)


def curve(furthest, steps=40):
    points = []
    for step in range(steps + 1):
        distance = furthest * step / steps
        point = {"step": step, "n": 8, "proxy": distance, "kl": distance**2, "gold": 0.4 + TRUE(distance)}
        points.append(point)
    return points


def test_the_shape_and_the_ends():
    points = [_point(beta, curve(furthest)) for beta, furthest in ((0.0, 8.0), (0.1, 4.0))]
    found = _shape(points)
    assert found is not None
    assert (found.alpha, found.beta) == pytest.approx((0.5, 0.2))
    loose, tight = points
    assert loose.gold_peak > loose.gold and loose.proxy > tight.proxy and loose.kl > tight.kl
    assert loose.gold_peak == pytest.approx(0.4 + TRUE(TRUE.peak), abs=0.01)
    record = json.loads(json.dumps(Sweep(points=points, fit=found).record()))
    assert record["fit"]["peak"] == pytest.approx(TRUE.peak, rel=1e-3)


def test_outside_of_the_microworld_gold_is_what_early_stopping_saw(tmp_path):
    seen = [
        {"step": 4 * n, "proxy": float(n), "gold": 0.5 + 0.1 * n - 0.02 * n * n, "kl": float(n * n), "n": 64}
        for n in range(6)
    ]
    for name, rows in (("early_stopping", seen), ("samples", [])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outputs = {
        ("rl", n): SimpleNamespace(path=str(tmp_path / f"{n}.jsonl")) for n in ("early_stopping", "samples")
    }
    point = _measured(0.1, SimpleNamespace(config=SimpleNamespace(gold=None), outputs=outputs))
    assert (point.gold, point.kl, point.proxy) == (seen[-1]["gold"], 25.0, 5.0)
    assert point.gold_peak == max(row["gold"] for row in seen) and _shape([point]) is not None


@pytest.mark.prefect
def test_the_page():
    from flows.orchestration.sweep import markdown

    points = [_point(beta, curve(furthest)) for beta, furthest in ((0.0, 8.0), (0.1, 4.0))]
    page = markdown(Sweep(points=points, fit=_shape(points)))
    assert "| 0.1 | " in page and "its peak is at d = 4.48" in page and "data:image/png;base64," in page
    assert len(page) < 250_000
    bare = [{k: v for k, v in point.items() if k != "gold"} for point in curve(2.0)]
    assert "| - | - |" in markdown(Sweep(points=[_point(0.1, bare)] * 2, fit=None))


@pytest.mark.long
@pytest.mark.slow
def test_strengths_share_all_but_the_last_stage(tmp_path, make_run, tiny_model, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = make_run(tmp_path, tiny_model)
    done = []

    def sweep(*changes):
        with open_session(RunRequest(config=str(path), changes=changes), Silent()) as session:
            found = run_sweep(
                session,
                [0.5, 0.0, 0.5],
                execute=lambda now, stage: done.append(stage.name) or now.execute(stage),
            )
            return found, session.directory.path

    found, folder = sweep()
    assert [point.beta for point in found.points] == [0.0, 0.5] and found.fit is None
    assert done.count("rl") == 2 and done.count("labels") == 1
    assert len(list((folder / "rl").glob("*/manifest.json"))) == 2
    assert json.loads((folder / "sweep.json").read_text())["strands"][1]["beta"] == 0.5
    with pytest.raises(FlowError, match="a sweep needs ppo, grpo or rloo"):
        sweep("rl={method: dpo}")
