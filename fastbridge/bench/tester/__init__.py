"""The tester.

It sends frames from pods, receives them in other pods and counts them. The loops that touch frames are in
`core.tester`.

- offer: which frames to send, how fast and for how long; frames: their bytes
- trial: the result of a trial; readings: the counters behind it
- samples: frames with a time stamp, for latency and outages
- tester: runs trials with the help of agents; agent: the program of such a process; agent_process: starts and asks it
- end_to_end: TCP and pings between programs in the pods
"""
