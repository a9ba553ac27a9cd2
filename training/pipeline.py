"""The pipeline: from an impression log to a published bundle, one stage after the other.

Knows the order of the stages and what each hands to the next. Does not know how any of them works.
"""

import logging
import os
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from contract.bundle import CARD, FORMAT_VERSION, GOLDEN, MODEL, Bundle, Manifest, check_target, publish_bundle
from contract.errors import SourceMissing
from contract.manifest import ROW_USER
from contract.tasks import outputs
from models.ranker import Ranker
from training import loop
from training.calibration import calibrate, downsampling_shift
from training.card import render_card
from training.checks import check_classes, check_leaks
from training.encoders import fit
from training.evaluation import evaluate
from training.export import Served, export_graph, graph_inputs
from training.facts import card_facts, provenance, reference
from training.held_out import extra_columns, open_truth, row_weight, score_rows
from training.parity import Check, check_parity
from training.run import Run
from training.source import Source, open_source
from training.split import TEST, TRAIN, VALIDATION, Log, assign
from training.stages import Stages
from training.staging import stage
from training.summary import metrics_table
from training.tensors import encode


def train(run: Run, output: Path | None = None, console: Console | None = None) -> Bundle:
    """Carry out a run, and publish its bundle at `output` or at the run's own target.

    Raises: FullfunnelError for the first thing that is wrong; then nothing is left behind.
    """
    console = console or Console(quiet=True)
    target, stages = output or run.target, Stages(console)
    check_target(target)
    prepare(run)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as directory:
        scratch = Path(directory)
        with stages("split"):
            log = read_log(run)
            open_truth(run)  # what is wrong with it should be known before training
        with stages("read", len(log.split)) as report:
            staged = stage(log, run.features, run.tasks, extra_columns(run), scratch, report)
        with stages("encode", len(log.split)) as report:
            fitted = fit(staged, run.features, log.split)
            tensors = encode(staged, fitted, log.split, scratch, report)
            check_classes(tensors, run.tasks)
            check_leaks(tensors, fitted, run.tasks)
        rows, validation, test = tensors[TRAIN], tensors[VALIDATION], tensors[TEST]
        with stages("train", run.training.schedule.epochs(run.training.epochs, len(run.tasks)) * len(rows)) as report:
            ranker = Ranker(fitted.inputs, run.model, len(run.tasks))
            history = loop.train(ranker, rows, validation, run.tasks, run.training, seed=run.seed, on_progress=report)
        with stages("calibrate"):
            logits, objective = loop.predict_logits(ranker, validation), run.training.objective
            shift = downsampling_shift(run.training.negative_rate)
            weight = row_weight(run, validation)
            calibration = calibrate(
                run.tasks, logits, validation.labels, weight=weight, objective=objective, shift=shift
            )
        with stages("evaluate"):
            known = score_rows(run, ranker, calibration, validation, staged).scores
            held_out = score_rows(run, ranker, calibration, test, staged)
            metrics = evaluate(
                run.tasks,
                held_out.scores,
                held_out.labels,
                weight=held_out.weight,
                group=held_out.group,
                truth=held_out.truth,
                resamples=run.evaluation.resamples,
                seed=run.seed,
            )
        with stages("export"):
            model = export_graph(ranker, fitted, run.tasks, calibration)
        with stages("check"):
            check = Check(model, Served(ranker, fitted.features, run.tasks, calibration, flat=False), fitted)
            checked = test.take(test.row.searchsorted(staged.held_out_rows))
            golden = check_parity(check, staged.held_out, checked, run.seed)
        with stages("publish"):
            manifest = Manifest(
                format_version=FORMAT_VERSION,
                name=run.name,
                version=run.version,
                tasks=run.tasks,
                features=fitted.features,
                inputs=graph_inputs(fitted.features),
                row_user=ROW_USER,
                outputs=outputs(run.tasks),
                architecture=run.model.architecture,
                parameters=sum(parameter.numel() for parameter in ranker.parameters()),
                calibration=calibration,
                reference=reference(fitted, validation, known),
                metrics=metrics,
                parity=check.worst,
                provenance=provenance(run, log.sources),
            )
            facts = card_facts(run, manifest, fitted, tensors, ranker, history, held_out, len(checked))
            files = {MODEL: model, GOLDEN: golden.model_dump_json().encode(), CARD: render_card(facts).encode()}
            bundle = publish_bundle(target, manifest, files)
    console.print(metrics_table(metrics))
    console.print(f"{target}  {bundle.digest}", highlight=False, soft_wrap=True)
    return bundle


def prepare(run: Run) -> None:
    """Make the run reproducible, and quiet what is not its own."""
    torch.manual_seed(run.seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a costly debugging aid
    torch.set_num_threads(run.training.threads or len(os.sched_getaffinity(0)))
    for chatty in ("torch.onnx", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


def read_log(run: Run) -> Log:
    """Open the files, and give every row its split."""
    data = run.data
    text = [f.name for f in run.features if f.kind != "numeric" and f.dtype == "string"]

    def opened(path: str | None) -> Source | None:
        return open_source(path, data.format, text) if path else None

    log = opened(data.path)
    if log is None:
        raise SourceMissing("no path", place="[data] path", remedy="name the log's files")
    return assign(log, opened(data.validation_path), opened(data.test_path), data, run.split)
