"""The version in use: loaded on its replicas, watched, and replaced without a dropped request.

Each version is a Serve application of its own. When the alias moves, the new version's replicas
start beside the old ones, translate a sentence, and only then get the requests; the old ones end
when the last request that they took is answered. A version that cannot be loaded changes nothing.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError

from heliograph.pipeline.checkpoints.model_folder import TOKENIZER, pack_model, read_settings
from heliograph.pipeline.cluster.start import capacity
from heliograph.pipeline.registry.registry import fetch_model
from heliograph.pipeline.request.decoding import Decoding, Search
from heliograph.pipeline.request.errors import RequestError, one_line
from heliograph.pipeline.request.model_uri import RegisteredModel, parse_model, tracking_uri
from heliograph.pipeline.request.placement import ray_address
from heliograph.pipeline.serving.limits import Limits
from heliograph.pipeline.serving.metrics import Metrics
from heliograph.pipeline.serving.replica import NAMESPACE, Done, Replica, Shelf, Work
from heliograph.pipeline.steps.tokenizer import Tokenizer
from heliograph.pipeline.tracking.server import is_away, open_client, say
from heliograph.pipeline.translation.engines import Engine
from heliograph.pipeline.translation.exports import check_export

REPLICA = "replica"
ATTEMPTS = 3
"""At a request whose replica dies: another one takes it."""
LOAD_AGAIN_SECONDS = 60.0
"""Before a version that could not be loaded is tried again."""


class NoReplica(RuntimeError):
    """No replica answers; new ones are being started."""


@dataclass(frozen=True)
class Fleet:
    """The replicas of a version, and what each gets."""

    replicas: int
    gpu: bool
    engine: Engine


@dataclass(eq=False)
class Version:
    """A version on its replicas.

    Attributes:
        number: in the registry; None: MODEL names a folder or a run.
        settings: what it was scored with.
        in_use: requests that it is to answer.
    """

    number: int | None
    application: str
    settings: Search
    tokenizer: Tokenizer
    handle: Any
    in_use: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def translate(self, work: Work, metrics: Metrics) -> Done:
        return await self._call("translate", metrics, work)  # type: ignore[no-any-return]

    async def attention(self, source: str, target: str, metrics: Metrics) -> Any:
        """As `Translator.attention`."""
        return await self._call("attention", metrics, source, target)

    async def _call(self, method: str, metrics: Metrics, *words: Any) -> Any:
        """What a replica answers; another one, if it dies: to translate twice does no harm.

        Raises:
            NoReplica: they died, too.
        """
        for _ in range(ATTEMPTS):
            response = getattr(self.handle, method).remote(*words)
            try:
                return await response
            except (RayActorError, DeploymentUnavailableError):
                metrics.retries.inc()
            except asyncio.CancelledError:
                response.cancel()
                raise
        raise NoReplica


class Rotation:
    """The version in use, and the change to the next.

    Args:
        model: any MODEL, see `model_uri`; where it is an alias, `watch` follows it.

    Attributes:
        replicas: of the version in use, how many run.
        trouble: what keeps the version that the alias names from being used, in short.
    """

    def __init__(self, model: str, fleet: Fleet, limits: Limits) -> None:
        self.model = model
        self.current: Version
        self.replicas = fleet.replicas
        self.trouble: str | None = None
        self._fleet = fleet
        self._limits = limits
        wanted = parse_model(model)
        self._alias = wanted if isinstance(wanted, RegisteredModel) and wanted.alias else None
        self._number = wanted.version if isinstance(wanted, RegisteredModel) else None
        self._failed: tuple[int, float] | None = None
        self._applications: set[str] = set()
        self._shelf = f"shelf-{secrets.token_hex(4)}"

    def start(self) -> None:
        """Fetch the model and start its replicas; Ray must run.

        Raises:
            RequestError: the model is not there, or the cluster is too small.
        """
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        check_room(self._fleet)
        number = self._find() if self._alias else self._number
        with TemporaryDirectory(prefix="heliograph-") as scratch:
            folder = self._fetch(number, scratch)
            self._start_serve()
            self.current = self._load(number, folder)

    def _start_serve(self) -> None:
        # On this node, and gone with this process.
        shelf = ray.remote(Shelf).options(name=self._shelf, namespace=NAMESPACE, num_cpus=0)
        self._keeper = shelf.remote()
        serve.start(proxy_location="Disabled", logging_config=_QUIET)

    def stop(self) -> None:
        """End the replicas, where Ray does not end with this process."""
        if ray_address() is not None:
            for application in self._applications:
                serve.delete(application)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Version]:
        """The version that a request is answered by, from here to its end."""
        version = self.current
        version.in_use += 1
        try:
            yield version
        finally:
            version.in_use -= 1
            if not version.in_use:
                version.idle.set()

    async def watch(self, seconds: float, metrics: Metrics) -> None:
        """Follow the alias, and count the replicas, for ever."""
        metrics.version.set(self.current.number or 0)
        metrics.registry_up.set(1)
        while True:
            self.replicas = await asyncio.to_thread(self._running_replicas)
            metrics.replicas.set(self.replicas)
            if self._alias and seconds:
                await self._look(metrics)
            await asyncio.sleep(seconds or 5.0)

    def _running_replicas(self) -> int:
        """Of the version in use; 0 also when Serve does not answer."""
        try:
            application = serve.status().applications[self.current.application]
            return int(application.deployments[REPLICA].replica_states.get("RUNNING", 0))
        except Exception:
            return 0

    async def _look(self, metrics: Metrics) -> None:
        """Change to another version, if the alias names one; whatever goes wrong, the one in use
        stays in use."""
        try:
            number = await asyncio.to_thread(self._find)
        except Exception as error:
            away = is_away(error)
            self._tell("the registry does not answer" if away else "the alias is gone", error)
            metrics.registry_up.set(0)
            return
        metrics.registry_up.set(1)
        if number == self.current.number:
            self._failed = self.trouble = None
            return
        if self._failed and self._failed[0] == number and time.monotonic() < self._failed[1]:
            return
        try:
            await self._change(number)
        except Exception as error:
            self._failed = number, time.monotonic() + LOAD_AGAIN_SECONDS
            self._tell(f"version {number} cannot be loaded", error)
            metrics.reloads.labels("failed").inc()
        else:
            self._failed = self.trouble = None
            metrics.version.set(number)
            metrics.reloads.labels("done").inc()

    def _tell(self, trouble: str, error: Exception) -> None:
        """To the operator in full, once; to clients the short form, which names no address."""
        if trouble != self.trouble:
            now = self.current.number
            say(f"heliograph: {self.model}: {trouble}; version {now} stays ({one_line(error)})")
        self.trouble = trouble

    async def _change(self, number: int) -> None:
        with TemporaryDirectory(prefix="heliograph-") as scratch:
            folder = await asyncio.to_thread(self._fetch, number, scratch)
            new = await asyncio.to_thread(self._load, number, folder)
        old, self.current = self.current, new
        say(f"heliograph: {self.model}: version {number} took over from {old.number}")
        if old.in_use:
            old.idle.clear()
            await old.idle.wait()
        await asyncio.to_thread(self._end, old.application)

    def _find(self) -> int:
        """The version that the alias names now; asked without patience."""
        assert self._alias
        client = open_client(tracking_uri())
        return int(client.get_model_version_by_alias(self._alias.name, self._alias.alias).version)

    def _fetch(self, number: int | None, scratch: str) -> Path:
        """The folder of what was found, even if the alias has moved on since."""
        model = f"models:/{self._alias.name}/{number}" if self._alias else self.model
        return Path(fetch_model(model, self._fleet.engine, into=scratch))

    def _load(self, number: int | None, folder: Path) -> Version:
        """Start a version's replicas and wait until they have translated something."""
        if self._fleet.engine != "torch":
            check_export(folder, self._fleet.engine)  # else Serve would try again and again
        application = f"heliograph-{secrets.token_hex(4)}"
        ray.get(self._keeper.put.remote(application, pack_model(folder, self._fleet.engine)))
        self._applications.add(application)
        try:
            handle = serve.run(self._deployment(application), name=application, route_prefix=None)
            settings = read_settings(folder)
            trial = Work(("A.",) * self._fleet.replicas, Decoding.like(settings))
            handle.translate.remote(trial).result(timeout_s=60)
        except BaseException:
            self._end(application)
            raise
        tokenizer = Tokenizer.load(str(folder / TOKENIZER))
        return Version(number, application, settings, tokenizer, handle)

    def _deployment(self, application: str) -> Any:
        nodes = [each for each in capacity() if each.count and each.cpus]
        cpus = sum(each.count * each.cpus for each in nodes)
        fleet, limits = self._fleet, self._limits
        threads = max(1, int(min(cpus / fleet.replicas, *(each.cpus for each in nodes))))
        return (
            serve.deployment(Replica)
            .options(
                name=REPLICA,
                num_replicas=fleet.replicas,
                ray_actor_options=share_of(fleet, cpus)
                | {"runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}}},
                # Enough for the next batch to gather; the others wait here, where the queue is.
                max_ongoing_requests=2 * limits.batch,
                health_check_period_s=2,
                graceful_shutdown_wait_loop_s=0.5,
            )
            .bind(self._shelf, application, fleet.engine, limits.batch, limits.batch_wait_seconds)
        )

    def _end(self, application: str) -> None:
        serve.delete(application)
        self._keeper.drop.remote(application)
        self._applications.discard(application)


_QUIET = {"log_level": "ERROR", "enable_access_log": False}


def share_of(fleet: Fleet, cpus: float) -> dict[str, float]:
    """What Ray is to keep for a replica: half of what is there for it, because the next version's
    replica starts beside it."""
    if fleet.gpu:
        return {"num_cpus": 0, "num_gpus": 0.5}
    return {"num_cpus": min(1.0, cpus / fleet.replicas) / 2}


def check_room(fleet: Fleet) -> None:
    """Raises RequestError when the cluster cannot hold the replicas: Ray would wait for ever."""
    nodes = capacity()
    cpus = sum(each.count * each.cpus for each in nodes)
    gpus = sum(each.count * each.gpus for each in nodes)
    if fleet.gpu and gpus < 1:
        raise RequestError("--gpu: the cluster has no GPU")
    kind, most = ("GPUs", gpus) if fleet.gpu else ("CPUs", cpus)
    if fleet.replicas > most:
        raise RequestError(
            f"--replicas {fleet.replicas}: the cluster has {most:g} {kind}; valid: 1 to {most:g}"
        )
