"""Shards scored on a Ray cluster: an actor a core, each with a session of its own, fed by Ray Data.

An actor that dies is started again and its shard scored again, which writes the same part. Journal and lock stay with
the process that asked. Knows Ray. Does not know what a shard is, beyond that it can be sent.
"""

import contextlib
import json
import logging
import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract import errors
from contract.errors import BundleInvalid, FullfunnelError, SettingInvalid, WorkerLost
from service.batch.job import Plan, Shard
from service.batch.shards import Done, ShardScorer
from service.batch.workers import Report, keep_memory
from service.scoring.scorer import Scorer

LOCAL = "local"
ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as on those systems: nothing listens beyond 127.0.0.1
    "RAY_worker_niceness": "0",
}
REACHED_S = 5.0
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
SILENT = {  # unless the environment says otherwise
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


@dataclass(frozen=True)
class Cluster:
    """Where to score: `address` of a cluster (None: what RAY_ADDRESS names, or one of this machine's own), `actors`.

    0 actors are one for each core of the cluster. A cluster of this machine's own listens on 127.0.0.1 only.
    """

    address: str | None = None
    actors: int = 0

    @contextlib.contextmanager
    def crew(self) -> Iterator["Crew"]:
        """Connect. Raises: SettingInvalid."""
        os.environ.update({name: os.environ.get(name, value) for name, value in self._variables().items()})
        terminate = signal.getsignal(signal.SIGTERM)  # which Ray takes for itself
        try:
            import ray
            import ray.data
        except ImportError:
            raise SettingInvalid(
                "Ray is not installed", place="--on ray", remedy="pip install 'fullfunnel[serve,batch,ray]'"
            ) from None
        try:
            self._reach()
            ray.init(**self._how())
        except (OSError, RuntimeError, ValueError) as error:
            fact = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise SettingInvalid(
                f"no Ray cluster can be reached or started ({fact})",
                place=f"--on ray, address {self._where()}",
                remedy="check the address, the token (~/.ray/auth_token) and that Ray and Python are the same there",
            ) from None
        signal.signal(signal.SIGTERM, terminate)
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield Crew(self.actors)
        finally:
            ray.shutdown()

    def _where(self) -> str:
        return self.address or os.environ.get("RAY_ADDRESS") or LOCAL

    def _variables(self) -> dict[str, str]:
        if self._where() == LOCAL:
            return {**SILENT, **ALONE}
        # `ray start` makes a token and asks for it, but what connects to it sends one only when told to
        has_token = any(map(os.environ.get, TOKENS)) or (Path.home() / ".ray" / "auth_token").exists()
        return {**SILENT, **({"RAY_AUTH_MODE": "token"} if has_token else {})}

    def _reach(self) -> None:
        """Ray would go on trying for a quarter of an hour. Raises: OSError."""
        host, _, port = self._where().rpartition(":")
        if host and "/" not in host:
            socket.create_connection((host.strip("[]"), int(port)), REACHED_S).close()

    def _how(self) -> dict[str, Any]:
        common: dict[str, Any] = {"address": self._where(), "log_to_driver": False, "logging_level": "ERROR"}
        if self._where() != LOCAL:
            return common
        return {
            **common,
            "num_cpus": self.actors or len(os.sched_getaffinity(0)),
            "include_dashboard": False,
            "object_store_memory": 2**27,  # shards are named, not sent
        }


class Crew:
    """Actors that work on the shards of one plan; stands where `Workers` does. Made by `Cluster.crew`."""

    def __init__(self, actors: int) -> None:
        self._actors = actors

    def run(self, given: Plan, tasks: Iterable[Shard], report: Report) -> Iterator[Done]:
        """What becomes of each shard, as it is done. Raises: the first error of an actor; WorkerLost."""
        import ray

        shards = {shard.index: shard for shard in tasks}
        if not shards:
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = False
        cores = int(ray.cluster_resources().get("CPU", 1))
        actors = max(1, min(self._actors or cores, len(shards)))
        rows = ray.data.from_items([{"index": index} for index in shards], override_num_blocks=len(shards))
        answers = rows.map_batches(
            ShardActor,
            fn_constructor_args=(given, shards, str(Path.cwd())),
            compute=ray.data.ActorPoolStrategy(size=actors),
            batch_size=1,
            num_cpus=1,
        )
        try:
            for batch in answers.iter_batches(batch_size=None, prefetch_batches=0):
                for text in batch["answer"].tolist():
                    done = answer_of(text)
                    report(done.rows)
                    yield done
        except ray.exceptions.RayError as error:
            fact = (str(error).splitlines() or [type(error).__name__])[0]
            raise WorkerLost(
                f"the cluster gave up a shard ({fact[:300]})", remedy="start the same command again"
            ) from None


class ShardActor:
    """Holds the session, and scores shards by their number. Lives in a process of the cluster."""

    def __init__(self, plan: Plan, shards: Mapping[int, Shard], folder: str) -> None:
        keep_memory()
        with contextlib.suppress(OSError):  # where it is not, whole paths still lead somewhere
            os.chdir(folder)
        self._plan = plan
        self._shards = shards
        self._write: Callable[[Shard], Done] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Answers as text: what an actor raised would come back wrapped in what Ray says of it."""
        return {"answer": [self._answer(int(index)) for index in batch["index"]]}

    def _answer(self, index: int) -> str:
        try:
            if self._write is None:  # here, so that what is wrong with the bundle is an answer too
                self._write = ShardScorer(self._loaded(), self._plan, f".{uuid.uuid4().hex}").write
            return json.dumps({"done": vars(self._write(self._shards[index]))})
        except FullfunnelError as error:
            return json.dumps({"error": [type(error).__name__, error.fact, error.place, error.remedy]})

    def _loaded(self) -> Scorer:
        path = self._plan.job.bundle
        scorer = Scorer.load(Path(path))
        if scorer.digest != self._plan.identity["bundle"]:
            raise BundleInvalid(
                "another bundle than where the job was started", place=path, remedy="use a path that all machines share"
            )
        return scorer


def answer_of(text: str) -> Done:
    """What an actor said. Raises: what it could not do."""
    answer = json.loads(text)
    if "error" in answer:
        name, fact, place, remedy = answer["error"]
        kind = getattr(errors, name, FullfunnelError)
        raise kind(fact, place=place, remedy=remedy)
    return Done(**answer["done"])
