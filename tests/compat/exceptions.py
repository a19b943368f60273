"""What an OpenStack project's exception module is to oslo.messaging: classes that a client allows to be rebuilt."""


class InstanceNotFound(Exception):
    """As nova.exception.InstanceNotFound: built from a message and keyword arguments."""

    def __init__(self, message: str | None = None, **kwargs: object) -> None:
        self.kwargs = kwargs
        super().__init__(message or f"Instance {kwargs.get('instance_id')} could not be found.")


class VolumeNotFound(InstanceNotFound):
    """Another one, so that no two of our faults stand for the same."""


class HostNotFound(InstanceNotFound):
    """One for the matrix, which a fault of ours stands for."""


class FlavorNotFound(InstanceNotFound):
    """One that no fault of ours stands for."""
