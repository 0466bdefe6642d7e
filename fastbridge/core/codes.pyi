__all__ = [
    "ACTIONS",
    "CHANGE_KINDS",
    "DROP_REASONS",
    "EVENT_KINDS",
    "FLOOD_KINDS",
    "FRAME_KINDS",
    "LEARN_RESULTS",
    "LINKS",
    "PORT_FLAGS",
    "PUNTS",
    "TAKES",
    "TX_DROP_REASONS",
]

ACTIONS: dict[str, int]
DROP_REASONS: dict[str, int]
TX_DROP_REASONS: dict[str, int]
FLOOD_KINDS: dict[str, int]
FRAME_KINDS: dict[str, int]
PUNTS: dict[str, int]
LEARN_RESULTS: dict[str, int]
CHANGE_KINDS: dict[str, int]
LINKS: dict[str, int]
PORT_FLAGS: dict[str, int]
TAKES: dict[str, int]
EVENT_KINDS: dict[str, int]
