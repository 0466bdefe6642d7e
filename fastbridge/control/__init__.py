"""The control socket: asks a running switch, and tells it what to do. It knows no switch, only verbs.

- directory: where the sockets lie; protocol: the lines; verbs: what can be asked
- server: the socket of a running switch; guest: one of its clients; client: who asks
"""
