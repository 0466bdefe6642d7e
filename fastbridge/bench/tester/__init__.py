"""The tester.

Sends frames from pods, receives them in others, and counts. The loops that touch frames are in `core.tester`.

- offer: which frames are sent, how fast and for how long; frames: their bytes
- trial: what a trial found; readings: the counters that it is computed from
- samples: frames with a time stamp, for latency and outages
- tester: runs trials, with the help of agents: `agent` is such a process, `agent_process` starts and asks it
- end_to_end: TCP and pings, between programs in the pods
"""
