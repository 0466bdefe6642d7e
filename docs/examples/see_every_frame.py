"""A trace: what the switch decided about each frame, and why."""

from fastbridge import Lab, Switch

with Lab(pods=2) as lab, Switch(lab.ports) as switch, switch.trace() as trace:
    lab["pod1"].ping("pod2")
    for event in trace.read():
        print(event.ingress, event.action, event.reason or "", "to", ", ".join(event.egress) or "nowhere")
