"""scapy without root: a station that scapy plays, and srp1, which asks it; on a switch in memory."""

from scapy.layers.l2 import ARP, ARP_am, Ether
from scapy.sendrecv import srp1

from fastbridge import MemorySwitch
from fastbridge.scapy import FastbridgeInterface

ASKER, ANSWERER = "02:00:00:00:00:0a", "02:00:00:00:00:0b"

switch = MemorySwitch([])  # or: with Switch(lab.ports) as switch, and pods answer, too
with switch.add_socket_port("asker") as asker, switch.add_socket_port("answerer") as answerer:
    machine = ARP_am(IP_addr="10.0.0.11", ARP_addr=ANSWERER, iface=FastbridgeInterface(answerer), verbose=0)
    sniffer = machine.bg()
    question = Ether(src=ASKER, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=ASKER, psrc="10.0.0.10", pdst="10.0.0.11")
    answer = srp1(question, iface=FastbridgeInterface(asker), timeout=10, verbose=0)
    print(answer.summary() if answer else "no answer")
    print(switch.fdb.lookup(ANSWERER))
    sniffer.stop()
