"""Named places in the code where a test makes the process die, stand still or fail. Off, each costs one test of an attribute.

    if self._failpoints.is_on:
        await self._failpoints.reach("attach_volume.connect_volume.begun")

The names follow from what runs there, so that they can be listed without running it: `lite failpoints`.
"""

from typing import ClassVar


class Failpoints:
    """Nothing ever happens. What a test or an operator arms is a subclass."""

    is_on: ClassVar[bool] = False

    async def reach(self, name: str) -> None:
        """The process is at the place `name`. Returns, raises, or never comes back."""


OFF = Failpoints()
