"""The bench's sender (traffic) and receiver (arrivals) in Cython, and the stamp both know: no part of the switch."""
