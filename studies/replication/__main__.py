"""What the methods learn on the microworld, and which claims of the literature hold there.

    python -m studies.replication [--runs DIR] [--parallel 2] [--prefix "nice -n 10"]
    python -m studies.replication --report     # write the documents from the rows that are there

A queue of jobs, each a process of its own that ends in one JSON row. Stopped and started again it goes on where it
was. Writes docs/methods.md, docs/replication.md and benchmarks/results/methods.json and replication.json, of what
has been measured: a claim without rows is listed as not asked.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from studies.replication.jobs import Job, Study, perform, run_all
from studies.replication.plan import CLAIM_SEEDS, FUNCTIONS, SEEDS, claims, methods
from studies.replication.report import write_methods, write_replication
from studies.replication.results import Results

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/replication"), help="the study's folder")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[*range(SEEDS)],
        help=f"the first {CLAIM_SEEDS} for everything, the others for a few learners",
    )
    parser.add_argument("--parallel", type=int, default=2, help="jobs at the same time, of one thread each")
    parser.add_argument("--prefix", default="", help="a command put before each job's")
    parser.add_argument("--report", action="store_true", help="run nothing; write the documents")
    parser.add_argument(
        "--out", type=Path, default=ROOT, help="where docs/ and benchmarks/results/ are written"
    )
    parser.add_argument("--job", help="run this job alone, in this process")
    args = parser.parse_args()
    study = Study(root=args.runs.resolve())
    jobs = [*methods(args.seeds), *claims(args.seeds[:CLAIM_SEEDS])]
    if args.job:
        job = next((j for j in jobs if j.name == args.job), None)
        if job is None:
            parser.error(f"--job {args.job}: no such job; have {', '.join(j.name for j in jobs)}")
        perform(study, job, FUNCTIONS[job.kind])
        return
    failed = 0 if args.report else _run(study, jobs, args)
    # Rows of other settings, which the plan had before, are left out.
    results = Results([study.row(job.name) for job in jobs if study.finished(job)])
    for path in (*write_methods(results, args.out), *write_replication(results, study, args.out)):
        print(path)
    sys.exit(1 if failed else 0)


def _run(study: Study, jobs: Sequence[Job], args: argparse.Namespace) -> int:
    # The jobs are processes of their own: they end with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command = [
        sys.executable,
        "-m",
        "studies.replication",
        "--runs",
        str(study.root),
        "--seeds",
        *map(str, args.seeds),
    ]
    return run_all(study, jobs, command=[*command, "--job"], parallel=args.parallel, prefix=args.prefix)


if __name__ == "__main__":
    main()
