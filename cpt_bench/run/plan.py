"""Everything that defines a run: the same plan gives the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cpt_bench import environment
from cpt_bench.engines.choice import EngineChoice
from cpt_bench.engines.endpoint import named
from cpt_bench.engines.swapping import frame_digest
from cpt_bench.models.checkpoint import weights_digest
from cpt_bench.models.start import Start
from cpt_bench.stage.method import Method
from cpt_bench.suite import Suite
from cpt_bench.trainer import Budget, Privileges
from cpt_bench.worker.devices import Devices

CHOSEN = ("endpoint", "given", "launch", "general", "engine")
"""Keys of a run's identity that are present only if something was chosen."""


class Plan(NamedTuple):
    """Everything that defines a run.

    Attributes:
        suite_spec: The suite's name or place, as given.
        suite: The suite, in the order to train.
        method: The trainer under its settings.
        seed: Seeds every stage.
        limit: Use only the first ``limit`` samples of each split; None: all. Such a run is marked.
        threads: Threads of a training or evaluating process; the arithmetic depends on it.
        overlap: Evaluate a stage while the next one trains.
        keep: Which checkpoints are kept: ``all``, ``last`` or ``none``.
        base: The folder of the checkpoint to start from.
        budget: The budget of one stage.
        memory_mib: Memory limit of a training process in MiB; None: no limit.
        lane: How the checkpoints came about: ``trainer``, or ``checkpoints`` made elsewhere.
        given: In the lane ``checkpoints``: stage to its folder.
        endpoint: In the lane ``endpoint``: the server's ``url``, ``model`` and ``nonce``, and
            ``extra`` where fields are added to requests.
        server: Client settings (``timeout``, ``retries``, ``concurrency``, ``key``); they change no
            number, and are not recorded.
        general: Benchmarks of other harnesses, measured in addition to the suite's general ones.
        launch: ``torchrun …`` or ``accelerate launch …``: train on several processes.
        engine: The engine that generates replies.
        devices: The GPUs that training and evaluation see.
        save_every: Steps after which a stage saves a state to go on from; None: never.
        start: What ``base`` is; None: the suite's own base model, in its folder.
    """

    suite_spec: str
    suite: Suite
    method: Method
    seed: int
    limit: int | None
    threads: int
    overlap: bool
    keep: str
    base: Path
    budget: Budget = Budget()
    memory_mib: float | None = None
    lane: str = "trainer"
    given: dict[int, Path] | None = None
    endpoint: dict[str, Any] | None = None
    server: dict[str, Any] = {}  # noqa: RUF012 - never changed
    launch: str | None = None
    general: tuple[str, ...] = ()
    engine: EngineChoice = EngineChoice()
    devices: Devices = Devices()
    start: Start | None = None
    save_every: int | None = None

    def stages(self) -> list[int]:
        """The stages that have a row in the matrix, starting with 0 for the base model."""
        last = len(self.suite.sequence)
        if self.given is not None:
            return [0, *sorted(self.given)]
        return [0, last] if self.privileges.joint else list(range(last + 1))

    @property
    def privileges(self) -> Privileges:
        """What the trainer declared under these settings."""
        return self.method.privileges

    @property
    def place(self) -> str:
        """The name of row 0's model: its own, the suite's word for it, or a server's address."""
        if self.endpoint:
            return str(self.endpoint["url"])
        return self.start.name if self.start else self.suite.base_model.id

    def base_model(self) -> dict[str, str]:
        """The digests of row 0's model; for a server, which has none, its name instead."""
        return {"weights": named(**self.endpoint)} if self.endpoint else digests(self.base)

    def answered_by(self) -> dict[str, Any]:
        """The engine's part of an evaluation's key."""
        if self.endpoint:
            return {"engine": "endpoint"}
        chosen = self.engine.identity()
        return {"engine": self.engine.name, **({"engine_chosen": chosen} if chosen else {})}

    def tasks_of(self, t: int) -> tuple[str, ...]:
        """The tasks that stage ``t`` learns."""
        return self.suite.sequence if self.privileges.joint else (self.suite.sequence[t - 1],)

    def choices(self) -> dict[str, Any]:
        """What the user chose: the part of :meth:`identity` that needs no large file read."""
        return {
            "suite": {
                "spec": self.suite_spec,
                "name": self.suite.name,
                "version": self.suite.version,
                "fingerprint": self.suite.fingerprint(),
            },
            "trainer": self.method.name,
            "origin": self.method.origin,
            "config": self.method.config,
            "privileges": self.privileges.model_dump(),
            "budget": self.budget.model_dump(include={"samples"}),
            "lane": self.lane,
            **({"endpoint": self.endpoint} if self.endpoint else {}),
            "seed": self.seed,
            "order": list(self.suite.sequence),
            "limit": self.limit,
            "threads": self.threads,
            # The number of training processes changes the arithmetic, and so the weights.
            **({"launch": self.launch} if self.launch else {}),
            **({"general": list(self.general)} if self.general else {}),
            **({"engine": self.engine.identity()} if self.engine.identity() else {}),
        }

    def identity(self) -> dict[str, Any]:
        """Everything that must be equal for two runs to count as the same run.

        Raises:
            CptBenchError: The base's weights are not those that its name stands for.
        """
        given = {str(t): digests(folder) for t, folder in (self.given or {}).items()}
        base = self.base_model()
        if self.start and not self.endpoint:
            self.start.require(base["weights"])
            if self.start.revision:
                base = {"revision": self.start.revision, **base}
        return {
            **self.choices(),
            **({"given": given} if given else {}),
            "base": {"path": self.place, **base},
            "versions": environment.versions(),
        }


def digests(checkpoint: Path) -> dict[str, str]:
    """Digests of all parts of a checkpoint that can change a reply: weights and other files."""
    return {"weights": weights_digest(checkpoint), "frame": frame_digest(checkpoint)}


def stage_seed(seed: int, stage: int) -> int:
    """The seed of one stage: differs from stage to stage and between runs."""
    return seed * 100 + stage
