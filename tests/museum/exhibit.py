"""An exhibit: a bug that happened, and the patch of one function of bpxp that brings it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any

import pytest

from bpxp.nn import SoftmaxCrossEntropy

Wrong = Callable[[Any], Any]  # the function as it is → the wrong one


@dataclass(frozen=True)
class Exhibit:
    """A bug.

    Attributes
    ----------
    number : int
        Of the bug in the catalogue, 1 … 43.
    letter : str
        Tells the forms of one bug apart.
    what : str
        What it does.
    happened : str
        Where: repository, and number of the issue or pull request, or the commit.
    here : str
        How it is brought back in bpxp, where that needs a word.
    owner, name : object, str
        The function that is patched is ``owner.name``.
    wrong : callable
    training : str
        The network of `museum.training` in which the function has work.
    """

    number: int
    letter: str
    what: str
    happened: str
    owner: Any
    name: str
    wrong: Wrong
    here: str = ""
    training: str = "dense"

    @property
    def key(self) -> str:
        """What it is called: ``"3b"``."""
        return f"{self.number}{self.letter}"

    @property
    def right(self) -> Any:
        """The function as it is."""
        return vars(self.owner)[self.name]

    @property
    def place(self) -> str:
        """Where the function stands, for people."""
        function = self.right.fget if isinstance(self.right, property) else self.right
        return f"{function.__module__}.{function.__qualname__}"

    @property
    def codes(self) -> set[CodeType]:
        """What is called when the function is called."""
        if isinstance(self.right, property):
            return {f.__code__ for f in (self.right.fget, self.right.fset) if f is not None}
        return {self.right.__code__}

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Bring the bug back, until the patch is undone."""
        patch.setattr(self.owner, self.name, self.wrong(self.right))


# ---------------------------------------------------------------- forms that several exhibits share


def other_delta(change: Callable[..., Any]) -> Wrong:
    """Return a loss whose value is right, and whose delta is ``change(delta, logits, xp)``."""

    def wrong(right: Any) -> Any:
        def call(self, logits, y, weight=None, /, *, xp):
            value, delta = right(self, logits, y, weight, xp=xp)
            return value, change(delta, logits, xp)

        return call

    return wrong


def own_cross_entropy(formula: Callable[..., Any]) -> Wrong:
    """Return a softmax cross-entropy with (J_n, delta_n) = ``formula(z, y, xp)``; y are rows."""

    def wrong(right: Any) -> Any:
        def call(self, logits, y, weight=None, /, *, xp):
            rows = self._rows(logits, y, xp)
            each, delta = formula(logits, rows, xp)
            w = xp.ones((logits.shape[0],), dtype=logits.dtype) if weight is None else xp.astype(weight, logits.dtype)
            share = xp.reshape(w / xp.sum(w), (-1, 1))
            return xp.sum(each * share, axis=0), delta * share

        return call

    return wrong


def other_gradients(change: Callable[..., Any]) -> Wrong:
    """Return a `Dense.gradients` that makes ``change(dW, db, x, delta, xp)`` of what is right."""

    def wrong(right: Any) -> Any:
        def gradients(self, params, x, delta, /, *, xp):
            grads = right(self, params, x, delta, xp=xp)
            return type(grads)(*change(*grads, x, delta, xp))

        return gradients

    return wrong


CROSS_ENTROPY = (SoftmaxCrossEntropy, "__call__")
