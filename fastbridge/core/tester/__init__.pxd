# The tester's sender and receiver: no part of the switch.
