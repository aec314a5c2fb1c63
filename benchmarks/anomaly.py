"""AnomalyJob measured: quality on published data sets and on a journal, speed and memory beside XGBoost by hand.

    python -m benchmarks.anomaly             everything
    python -m benchmarks.anomaly --rows 200000 --skip quality

`data/shuttle` holds the wheel of river (`make bench-anomaly` fetches it), whose shuttle data are those of ODDS. The
other sets come from R's package mlbench, where Rscript and the package are there; else they are left out, aloud.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost as xgb
from examples.journal import SCENARIOS, journal
from numpy.typing import NDArray

from almanac.api import AnomalyJob, AnomalyModel, Detector, Engine
from almanac_jobs import detecting, engines, judged, source
from almanac_jobs.anomaly import boosting, detectors, measures, teacher
from almanac_jobs.anomaly.detectors import Training
from almanac_jobs.anomaly.features import Feature, Floats32, Kind
from almanac_jobs.anomaly.matrix import Flags, Resident
from almanac_jobs.crew import Held
from almanac_jobs.engines.local import Alone
from almanac_jobs.progress import Progress

Set = tuple[NDArray[np.float32], NDArray[np.bool_]]
Trial = tuple[xgb.Booster, NDArray[np.float64], NDArray[np.bool_], float, float]
"""A model, the margins and labels of its rows, and the moments at which it was begun and was there."""

SHUTTLE = Path("data/shuttle")
PUBLISHED = {
    "shuttle": 0.9971,
    "satellite": 0.7022,
    "ionosphere": 0.8499,
    "pima": 0.6806,
    "glass": 0.7569,
    "letter": 0.6420,
}
"""AUC of PyOD's isolation forest on the sets of ODDS."""
NAMES = {
    "satellite": "Satellite",
    "ionosphere": "Ionosphere",
    "pima": "PimaIndiansDiabetes",
    "glass": "Glass",
    "letter": "LetterRecognition",
}
ODD = {
    "satellite": ("cotton crop", "damp grey soil", "vegetation stubble"),
    "ionosphere": ("bad",),
    "pima": ("pos",),
    "glass": ("6",),
}
ROUNDS, FEATURES, THREADS = 100, 20, 2
NAMED = [f"x{at:02}" for at in range(FEATURES)]
COLUMNS = ("forest", "student", "reconstruction", "forest_held_out", "student_held_out")
SPLITS = 10
"""Random splits of the rows that published figures are means over."""


def shuttle() -> Set | None:
    """ODDS shuttle."""
    wheel = next(iter(SHUTTLE.glob("river-*.whl")), None)
    if wheel is None:
        return None
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read("river/datasets/shuttle.csv.gz")).decode()
    rows = np.array(list(csv.reader(io.StringIO(text)))[1:], np.float32)
    return rows[:, :-1], rows[:, -1] == 1


def mlbench(name: str) -> list[list[str]] | None:
    """A data set of R's package mlbench, without its header."""
    code = f"suppressMessages(library(mlbench)); data({name}); write.csv({name}, stdout(), row.names = FALSE)"
    try:
        done = subprocess.run(["Rscript", "-e", code], capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return list(csv.reader(io.StringIO(done.stdout)))[1:]


def odds(name: str) -> Set | None:
    """A set by the recipe of ODDS, as far as it can be had; letters are drawn by a seed of ours."""
    if name == "shuttle":
        return shuttle()
    rows = mlbench(NAMES[name])
    if rows is None:
        return None
    labels = np.array([row[0 if name == "letter" else -1] for row in rows])
    cells = [row[1:] if name == "letter" else row[:-1] for row in rows]
    if name == "ionosphere":
        cells = [row[:1] + row[2:] for row in cells]  # the second column is constant
    values = np.array(cells, np.float32)
    if name == "letter":
        return letters(values, labels)
    return values, np.isin(labels, ODD[name])


def letters(values: NDArray[np.float32], labels: NDArray[np.str_]) -> Set:
    """Pairs of three letters, and a hundred in which one is another letter: only together are they odd."""
    rng = np.random.default_rng(0)
    usual = np.flatnonzero(np.isin(labels, ["A", "B", "C"]))
    other = np.flatnonzero(~np.isin(labels, ["A", "B", "C"]))
    same = {letter: np.flatnonzero(labels == letter) for letter in "ABC"}
    first = rng.choice(usual, 1600)
    second = np.array([rng.choice(same[labels[one]]) for one in first])
    odd = np.arange(1600) < 100
    second[odd] = rng.choice(other, 100)
    return np.concatenate([values[first], values[second]], axis=1), odd


def quality() -> dict[str, dict[str, float]]:
    """AUC of each detector that needs no label, and of its isolation forest, by set: on all rows, which it has learnt
    from, as a job has it; and, as the published figures are, on 40 % of the rows after learning from the others."""
    found: dict[str, dict[str, float]] = {}
    print(f"{'':12}{'':>11}{'on all rows':>34}{f'on 40 %, mean of {SPLITS}':>26}")
    print(f"{'set':12}{'published':>11}{'forest':>9}{'student':>9}{'reconstruction':>16}{'forest':>17}{'student':>9}")
    for name, published in PUBLISHED.items():
        data = odds(name)
        if data is None:
            print(f"{name:12} left out: its data are not here")
            continue
        values, odd = data
        scores = {one: area(one, values, values, odd, 0) for one in ("forest", "student")}
        if name != "shuttle":
            scores["reconstruction"] = area("reconstruction", values, values, odd, 0)
            later = [np.random.default_rng(seed).permutation(len(odd)) < 0.4 * len(odd) for seed in range(SPLITS)]
            for one in ("forest", "student"):
                areas = [area(one, values[~part], values[part], odd[part], seed) for seed, part in enumerate(later)]
                scores[f"{one}_held_out"] = float(np.mean(areas))
        cells = [f"{scores[one]:.3f}" if one in scores else "-" for one in COLUMNS]
        line = "".join(f"{cell:>{width}}" for cell, width in zip(cells, (9, 9, 16, 17, 9), strict=True))
        print(f"{name:12}{published:11.3f}{line}", flush=True)
        found[name] = scores
    return found


def area(detector: str, values: Floats32, later: Floats32, odd: Flags, seed: int) -> float:
    """AUC on `later` rows, of which some are `odd`, of what has learnt from `values`."""
    matrix = Resident(values)
    if detector == "forest":
        forest = teacher.grow(values[teacher.sample(len(values), seed)], len(values), seed, THREADS)
        return measures.auc(odd, forest.oddness(Resident(later)))
    features = [Feature(f"f{at}", f"f{at}", Kind.NUMBER) for at in range(values.shape[1])]
    training = Training(Held((matrix,)), [len(values)], features)
    trained = detectors.train(Detector(detector), AnomalyModel(seed=seed), training, Alone(THREADS, Progress()))
    return measures.auc(odd, trained.margins(later))


def recall(entries: int = 40_000) -> dict[str, dict[str, float]]:
    """Share of each scenario's lines among the flagged 1 % of a journal, by detector."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        table, truth = journal(entries)
        pq.write_table(table, f"{place}/journal.parquet")
        known = dict(zip(truth["entry"].to_pylist(), truth["scenario"].to_pylist(), strict=True))
        print(f"\njournal, {len(table):,} lines, {len(known):,} odd, 1 % flagged: share found by scenario")
        print(f"{'detector':16}" + "".join(f"{name:>11}" for name in (*SCENARIOS, "all", "precision")))
        for detector in (Detector.STUDENT, Detector.RECONSTRUCTION):
            spec = _job(f"{place}/journal.parquet", place, {"model": {"detector": detector.value}}).spec
            alone, dataset = Alone(THREADS, Progress()), judged.open_source(spec)
            rows = judged.read(spec, dataset.types, [dataset], alone, external=False)
            (sheet,) = alone.fetch(detecting.find(spec, rows, alone, alone.progress).sheets)
            flagged = sheet.place
            names = [known.get(one) for one in sheet.keys.column("id").take(pa.array(flagged)).to_pylist()]
            hits, sizes = Counter(names), Counter(known.values())
            shares = {name: hits[name] / sizes[name] for name in SCENARIOS}
            right = sum(hits[name] for name in SCENARIOS)
            shares |= {"all": right / len(known), "precision": right / len(flagged)}
            print(f"{detector.value:16}" + "".join(f"{value:11.2f}" for value in shares.values()), flush=True)
            found[detector.value] = shares
    return found


def _job(source: str, output: str, fields: dict[str, Any]) -> AnomalyJob:
    spec = {
        "source": {"uri": source, "columns": {"entity": "account", "time": "posted_at", "id": "entry"}},
        "features": {"preset": "ledger", "ledger": {"user": "user", "counterparty": "partner"}},
        "output": {"uri": f"{output}-out"},
        **fields,
    }
    return AnomalyJob.parse(
        {"apiVersion": "almanac.dev/v1alpha1", "kind": "AnomalyJob", "metadata": {"name": "bench"}, "spec": spec}
    )


def write_rows(folder: Path, rows: int) -> None:
    """Rows of 20 numbers in eight files, 2 % of them odd by a rule of five of the numbers."""
    rng = np.random.default_rng(0)
    for part in range(8):
        size = rows // 8
        values = rng.normal(0, 1, (size, FEATURES))
        line = values[:, 0] * values[:, 1] + np.sin(2 * values[:, 2]) + values[:, 3] - 0.5 * values[:, 4] ** 2
        odd = line + rng.normal(0, 0.6, size) > 3.0
        table = {name: values[:, at] for at, name in enumerate(NAMED)}
        keys = {"account": rng.integers(0, 500, size), "posted_at": np.datetime64("2026-01-01", "us") + np.arange(size)}
        pq.write_table(pa.table({**keys, **table, "odd": odd}), folder / f"part-{part}.parquet")


def by_hand(threads: int) -> dict[str, Any]:
    """What XGBoost is told where Almanac does not tell it."""
    return {**boosting.settings(AnomalyModel()), "objective": "binary:logistic", "nthread": threads}


def native(folder: Path) -> Trial:
    """What somebody would write by hand: read all, bin, train."""
    began = time.perf_counter()
    table = pq.read_table(folder)
    values = np.column_stack([table[name].to_numpy() for name in NAMED]).astype(np.float32)
    odd = table["odd"].to_numpy()
    told = xgb.QuantileDMatrix(values, odd, nthread=THREADS, max_bin=256)
    booster = xgb.train(by_hand(THREADS), told, ROUNDS)
    done = time.perf_counter()
    margins = np.asarray(booster.inplace_predict(values, predict_type="margin"), np.float64)
    return booster, margins, odd, began, done


def almanac(folder: Path, engine: Engine = Engine.LOCAL, *, external: bool = False) -> Trial:
    """The same by Almanac: features learnt, checked and encoded, then trained. Workers are there before it begins."""
    fields = {
        "source": {"uri": str(folder), "columns": {"entity": "account", "time": "posted_at"}},
        "features": {},
        "label": "odd",
        "model": {"detector": "classifier", "rounds": ROUNDS, "earlyStopping": 0},
        "dask": {"workers": THREADS, "threads": 1},
    }
    job = _job(str(folder), str(folder), fields)
    with engines.crew(engine, job, judged.open_source(job.spec), 0, Progress()) as (crew, _):
        began = time.perf_counter()
        dataset = judged.open_source(job.spec)
        parts = source.portions(dataset, None, -(-dataset.rows // crew.size))
        rows = judged.read(job.spec, dataset.types, parts, crew, external=external)
        matrix, labels = crew.each(detecting.matrix_of, rows.shares), crew.each(detecting.labels_of, rows.shares)
        training = Training(matrix, rows.sizes, rows.schema.features, labels, rows.positives or 0)
        trained = detectors.train(Detector.CLASSIFIER, job.spec.model, training, crew)
        done = time.perf_counter()
        margins = np.concatenate(crew.fetch(crew.counted(detecting.margins_of, matrix, trained)))
        odd = np.concatenate(crew.fetch(labels))
    return trained.boosters["model.ubj"], margins, odd, began, done


def native_dask(folder: Path) -> Trial:
    """What somebody would write by hand on Dask. Workers are there, with what they import, before it begins."""
    import dask.dataframe as dd
    import pandas as pd
    from distributed import Client, LocalCluster, wait
    from xgboost import dask as dxgb

    preload = ["xgboost.dask", "dask.dataframe"]
    with LocalCluster(n_workers=THREADS, threads_per_worker=1, preload=preload) as cluster, Client(cluster) as client:
        began = time.perf_counter()
        # Not dd.read_parquet: it makes partitions of several files when it is optimized, and XGBoost then finds none.
        table = dd.from_map(pd.read_parquet, sorted(folder.glob("*.parquet")), columns=[*NAMED, "odd"]).persist()
        wait(table)
        values, odd = table[NAMED].astype(np.float32), table["odd"]
        told = dxgb.DaskQuantileDMatrix(client, values, odd, max_bin=256)
        booster = dxgb.train(client, by_hand(1), told, ROUNDS)["booster"]
        done = time.perf_counter()
        margins = dxgb.inplace_predict(client, booster, values, predict_type="margin").compute()
        return booster, np.asarray(margins, np.float64), odd.compute().to_numpy(), began, done


WAYS: dict[str, Callable[[Path], Trial]] = {
    "native": native,
    "native 2x1": native_dask,
    "single": almanac,
    "external": lambda folder: almanac(folder, external=True),
    "dask 2x1": lambda folder: almanac(folder, Engine.DASK),
}


def one(way: str, folder: Path) -> dict[str, Any]:
    """One way in this process: seconds to the model, CPU seconds of all, peak memory of the largest process, AUC,
    hash."""
    booster, margins, odd, began, done = WAYS[way](folder)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": done - began,
        "cpu": sum(each.ru_utime + each.ru_stime for each in usage),
        "peak": max(each.ru_maxrss for each in usage) / 1024,
        "auc": measures.auc(odd, np.asarray(margins, np.float64)),
        "sha": hashlib.sha256(bytes(booster.save_raw("ubj"))).hexdigest()[:8],
    }


def speed(rows: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Each way in processes of its own, in turns; the quickest of each counts."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "rows"
        folder.mkdir()
        write_rows(folder, rows)
        told: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for _ in range(repeats):
            for way in WAYS:
                command = [sys.executable, "-W", "ignore", "-m", "benchmarks.anomaly", "--one", way, str(folder)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                told[way].append(json.loads(done.stdout.splitlines()[-1]))
    best = {way: min(several, key=lambda run: run["seconds"]) for way, several in told.items()}
    print(f"\n{rows:,} x {FEATURES}, {ROUNDS} rounds, {THREADS} threads, the quickest of {repeats}")
    print(f"{'way':12}{'seconds':>9}{'CPU s':>8}{'peak MB':>9}{'AUC':>9}{'sha256':>11}")
    for way, run in best.items():
        print(f"{way:12}{run['seconds']:9.2f}{run['cpu']:8.2f}{run['peak']:9.0f}{run['auc']:9.5f}{run['sha']:>11}")
    return best


def contributions(rows: int = 2000) -> tuple[float, bool]:
    """Time of XGBoost's contributions by that of shap's own C code, on one thread; and whether the top five agree."""
    import shap

    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (20_000, FEATURES)).astype(np.float32)
    odd = values[:, 0] * values[:, 1] + np.sin(2 * values[:, 2]) + values[:, 3] > 2
    booster = xgb.train(by_hand(1), xgb.QuantileDMatrix(values, odd), ROUNDS)
    some = values[:rows]
    explainer = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    explainer.model.model_type = "other"  # else it asks XGBoost
    ours, theirs = [], []
    for _ in range(3):
        began = time.perf_counter()
        own = booster.predict(xgb.DMatrix(some), pred_contribs=True)[:, :-1]
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        other = explainer.shap_values(some.astype(np.float64), check_additivity=False)
        theirs.append(time.perf_counter() - began)
    top = [set(one.tolist()) for one in np.argsort(-np.abs(own), axis=1)[:, :5]]
    alike = np.mean([a == set(b.tolist()) for a, b in zip(top, np.argsort(-np.abs(other), axis=1)[:, :5], strict=True)])
    print(f"\ncontributions of rows a second: {rows / min(ours):,.0f}, shap's own C code {rows / min(theirs):,.0f};")
    print(f"largest difference {np.abs(own - other).max():.1e}, the same top five in {alike:.1%}")
    return min(theirs) / min(ours), bool(alike > 0.999)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip", nargs="*", default=[], choices=["quality", "recall", "speed", "contributions"])
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], Path(options.one[1]))))
        return
    last: dict[str, Any] = {}
    if "recall" not in options.skip:
        recall()
    if "speed" not in options.skip:
        best = speed(options.rows, options.repeats)
        assert best["single"]["sha"] == best["external"]["sha"], "external memory has made another model"
        last["single_over_native"] = best["single"]["seconds"] / best["native"]["seconds"]
        last["dask_over_native"] = best["dask 2x1"]["seconds"] / best["native"]["seconds"]
        last["dask_over_native_dask"] = best["dask 2x1"]["seconds"] / best["native 2x1"]["seconds"]
        last["extmem_memory_share"] = best["external"]["peak"] / best["native"]["peak"]
    if "contributions" not in options.skip:
        last["contributions_over_shap_c"], alike = contributions()
        assert alike, "the largest contributions are others than shap's"
    if "quality" not in options.skip:
        last["auc_shuttle"] = quality().get("shuttle", {}).get("student")
    print(json.dumps({name: value if value is None else round(value, 4) for name, value in last.items()}))


if __name__ == "__main__":
    main()
