"""The codes' names for Python: {name: number}, in the order of codes.pxd."""

__all__ = [
    "ACTIONS", "CHANGE_KINDS", "DROP_REASONS", "EVENT_KINDS", "FLOOD_KINDS", "FRAME_KINDS", "LEARN_RESULTS", "LINKS",
    "PORT_FLAGS", "PUNTS", "TAKES", "TX_DROP_REASONS",
]


def _named(codes, str prefix=""):
    return {name[len(prefix):].lower(): int(code) for name, code in codes.__members__.items()}


ACTIONS = _named(Action)
DROP_REASONS = _named(Reason, "RX_")
TX_DROP_REASONS = _named(TxReason, "TX_")
FLOOD_KINDS = _named(Flood)
FRAME_KINDS = _named(Kind)
PUNTS = _named(Punt, "PUNT_")
LEARN_RESULTS = _named(LearnResult, "LEARN_")
CHANGE_KINDS = _named(ChangeKind, "CHANGE_")
LINKS = _named(Link, "LINK_")
PORT_FLAGS = _named(PortFlag, "FLAG_")
TAKES = _named(Takes, "TAKES_")
EVENT_KINDS = _named(EventKind, "EVENT_")
