"""What every model of the contract shares: camelCase on the wire, unknown fields ignored, values frozen."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "cyxwiz.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


class Model(BaseModel):
    """A frozen part of a resource. Unknown fields are ignored, so an older agent can read a newer object."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def wire(self, only: set[str] | None = None) -> dict[str, object]:
        """The JSON object of this value, or of these fields of it: camelCase, absent instead of null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, include=only)


# Strings need a maximum everywhere: the API server estimates the cost of CEL rules from it.
Name = Annotated[str, Field(min_length=1, max_length=253)]
"""A Kubernetes object name."""
Word = Annotated[str, Field(max_length=64)]
"""A CamelCase reason, a unit, a short number written as text."""
Sentence = Annotated[str, Field(max_length=1024)]
"""Words for the person at `kubectl describe`."""
Line = Annotated[str, Field(max_length=256)]
"""One line of a list that people read."""
Timestamp = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
"""RFC 3339, UTC, whole seconds."""
MicroTime = Annotated[str, Field(max_length=32)]
"""RFC 3339, UTC, microseconds."""
Count = Annotated[int, Field(ge=0, le=2**53)]
"""A number that is never negative and exact in JSON."""
