"""A service: no requests, only a sign of life every 20 ms until it is told to go."""

import os
import time

BEATS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run", "beats")

with open(BEATS, "a", buffering=1, encoding="ascii") as beats:
    while True:
        beats.write(f"{os.getpid()} {time.monotonic():.3f}\n")
        time.sleep(0.02)
