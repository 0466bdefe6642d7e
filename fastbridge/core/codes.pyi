__all__ = [
    "ACTIONS",
    "DROP_REASONS",
    "TX_DROP_REASONS",
    "FLOOD_KINDS",
    "FRAME_KINDS",
    "PUNTS",
    "LEARN_RESULTS",
    "LINKS",
    "PORT_FLAGS",
    "TAKES",
    "EVENT_KINDS",
]

ACTIONS: dict[str, int]
DROP_REASONS: dict[str, int]
TX_DROP_REASONS: dict[str, int]
FLOOD_KINDS: dict[str, int]
FRAME_KINDS: dict[str, int]
PUNTS: dict[str, int]
LEARN_RESULTS: dict[str, int]
LINKS: dict[str, int]
PORT_FLAGS: dict[str, int]
TAKES: dict[str, int]
EVENT_KINDS: dict[str, int]
