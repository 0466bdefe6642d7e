# The tester's sender and receiver. They are not part of the switch.
