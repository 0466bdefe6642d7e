"""The Cython core: imports nothing else of fastbridge."""
