"""The volume service as the flows see it: cinder-api's contract, word for word.

A second set of the same method names would add nothing; tests implement the contract with a fake.
"""

from cinder_lite.contract import (
    AttachStatus,
    BackingStoreProbe,
    ServerEventsAPI as ServerEvents,
    ServerExternalEvent,
    Volume,
    VolumeAPI as Volumes,
    VolumeStatus,
)

__all__ = [
    "AttachStatus",
    "BackingStoreProbe",
    "ServerEvents",
    "ServerExternalEvent",
    "Volume",
    "VolumeStatus",
    "Volumes",
]
