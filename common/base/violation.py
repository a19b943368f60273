"""What an audit finds: something that is not as the invariants demand. Those that an audit can see:

S1    a volume has one writer: at the target, on hosts, in guests and in the rows
S2    a connection for one host is made when the other host's is proven gone
S7    states are those of the tables, and change along their edges
S8    nova's row, cinder's attachment, export, host and guest agree; a volume's status follows from its attachments
S12   an export serves the bytes of its own volume
S13   what is promised is what is kept, and no more than there is room for
S14   secrets live no longer than the connection that they are for
L1    no state that should pass lasts
L2    flows end, messages are delivered, nothing waits for a person
L3    nothing is left that no row knows, and nothing is missing that a row promises
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One finding.

    invariant   one of those above; UNKNOWN where something could not be looked at
    subject     what it is about: "volume:<id>", "server:<uuid>", "flow:<id>", "service:<binary> on <host>" ...
    evidence    what was seen where, without secrets
    mend        what makes it right
    """

    invariant: str
    subject: str
    evidence: str
    mend: str

    @property
    def identity(self) -> tuple[str, str, str]:
        """The same finding at another time; its evidence may tell of ages, and changes."""
        return self.invariant, self.subject, self.mend

    def __str__(self) -> str:
        return f"{self.invariant} {self.subject}: {self.evidence}. {self.mend}"


UNKNOWN = "unknown"
"""Nothing can be said: whoever knows did not answer."""
