"""What all declared data have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Declared(BaseModel):
    """Data from a card: unknown keys are errors, values are immutable.

    A dump leaves out the fields in ``ADDED`` that are not set: they were added after cards had
    been fingerprinted, and a card that does not use them must have the same fingerprint.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    ADDED: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in handler(self).items() if v or k not in self.ADDED}
