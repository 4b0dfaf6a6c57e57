"""What may be read of a network and assigned to it, at any time, also from within a fit and from another thread."""

from __future__ import annotations

from typing import Any

from bpxp.backends import Backend
from bpxp.backends.device import here
from bpxp.core.typing import Params
from bpxp.errors import FitInProgressError, FixedAttributeError
from bpxp.network import parameters, pickled
from bpxp.network.compiled import CompiledSteps
from bpxp.network.held import Held
from bpxp.nn.spec import Spec
from bpxp.optim import Optimizer, OptState

ANOTHER = "new = bpxp.Network(…), of such layers; new.params = net.params takes the parameters over"
ELSEWHERE = "new = net.to('numpy'), or another backend"
# What a network is made of: specifications, compiled steps and states depend on it.
FIXED = {
    **dict.fromkeys(("spec", "model", "layers", "loss", "dtype", "input_shape", "output_shape", "key"), ANOTHER),
    **dict.fromkeys(("backend", "xp"), ELSEWHERE),
}


class Holder:
    """The arrays of a network as its attributes: whoever reads one has a snapshot, and what is assigned is copied."""

    backend: Backend
    _held: Held
    _compiled: CompiledSteps

    @property
    def params(self) -> Params:
        """Parameters: one (named) tuple of arrays per layer."""
        return self._held.lend().params

    @params.setter
    def params(self, new: Params) -> None:
        self._replace("params", new)

    @property
    def stats(self) -> Any:
        """Running statistics of the layers that have some, () without such layers."""
        return self._held.lend().stats

    @stats.setter
    def stats(self, new: Any) -> None:
        self._replace("stats", new)

    @property
    def key(self) -> Any:
        """The key of the random layers in the next step, () without such layers."""
        return self._held.lend().key

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer of the last fit, or of the fit at work."""
        return self._held.now.optimizer

    @optimizer.setter
    def optimizer(self, new: Optimizer | None) -> None:
        if self._held.fit is not None:
            fix = "trainer.stop = 'another optimizer', and a new fit with it"
            raise FitInProgressError("Network.optimizer", "it cannot be replaced within a fit", code="E051", fix=fix)
        self._held.replace("Network.optimizer", optimizer=new)

    @property
    def opt_state(self) -> OptState | None:
        """The state of `optimizer`, with which the next fit goes on; None before the first one.

        During a fit its callbacks have it; in another thread it is None.
        """
        return self._held.lend(whole=True).opt

    @opt_state.setter
    def opt_state(self, new: OptState | None) -> None:
        if new is None or self.opt_state is None:
            self._held.replace("Network.opt_state", opt=new)
        else:
            self._replace("opt_state", new, "opt")

    @property
    def capture(self) -> bool:
        """Whether steps may be captured; False is like the environment variable ``BPXP_CAPTURE=0``."""
        return self._compiled.capture

    @capture.setter
    def capture(self, value: bool) -> None:
        if not value:
            self._compiled.switch_off()  # the step of a fit at work, too
        self._compiled = CompiledSteps(capture=bool(value))

    @property
    def eager_steps(self) -> dict[str, str]:
        """Why a step runs eagerly, neither captured nor as a CUDA graph, by its name; {} if all are captured."""
        return self._compiled.eager()

    @property
    def _steps(self) -> int:
        """Training steps done, as far as random layers need to know."""
        return steps_of(self.key, self.backend)

    def _replace(self, name: str, new: Any, field: str = "") -> None:
        where = f"Network.{name}"
        with here(self.backend):
            checked = parameters.validate(new, getattr(self, name), self.backend, where)
        self._held.replace(where, **{field or name: checked})

    def _learn(self, spec: Spec) -> None:
        """Remember what has been learned of the inputs."""
        vars(self)["spec"] = spec

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FIXED and "_compiled" in vars(self):
            what = "the network is made of it, it cannot be replaced"
            raise FixedAttributeError(f"Network.{name}", what, code="E058", fix=FIXED[name])
        object.__setattr__(self, name, value)

    __getstate__, __setstate__ = pickled.state_of, pickled.restore  # of pickle, joblib and copy


def steps_of(key: Any, backend: Backend) -> int:
    """Return the training steps that the key of the random layers has counted."""
    return int(backend.to_numpy(key.step)[0]) if key else 0
