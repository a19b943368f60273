"""A module of another project, whose exceptions a client may allow."""


class InstanceNotFound(Exception):
    """As nova's exceptions: built from a message and keyword arguments."""

    def __init__(self, message: str | None = None, **kwargs: object) -> None:
        self.kwargs = kwargs
        super().__init__(message or f"Instance {kwargs.get('instance_id')} could not be found.")
